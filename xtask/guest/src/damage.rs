//! Loads kernels that `kho` would never load: with a damaged state tree, or no kernel at all.
//!
//! The shipped command cannot hand over broken data, and shall not be able to. So this module uses the loader's crates
//! itself.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use kho::abi::HANDOVER_V1;
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_guest::forge::{pair, raw_pair, replace};
use kho_kexec::sys::syscalls::{Kernel, SegmentRef, System};

use crate::loader::{self, GENERATION, Next, Places, blob};
use crate::part::{self, Forgery};
use crate::rings;

/// Arguments of `kho-guest load-damaged`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Damage to do.
    damage: Damage,
    /// Hand over a forged kernel's part too, in the second half of the content.
    #[arg(long)]
    part: Option<Forgery>,
    #[command(flatten)]
    next: Next,
    /// The content of the plan's only entry.
    #[arg(long)]
    content: PathBuf,
}

/// One kind of damage each.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Damage {
    /// Nothing: shows that the rest of this loader is right.
    None,
    /// A bit of the tree flipped after it was sealed.
    Checksum,
    /// The container's magic number gone.
    Container,
    /// A version from the future, sealed.
    Version,
    /// The second blob's range lies on the first one's.
    Overlap,
    /// The second blob's range ends past the end of the address space.
    Wrap,
    /// The second blob's range lies in scratch.
    Scratch,
    /// The second blob's range is in no reservation.
    Unreserved,
    /// The tree lists a reservation that the chain does not make.
    Chain,
    /// A byte of the second blob's content flipped.
    Content,
    /// A trace instead of blobs, whose second page says that more is in it than a page holds.
    TracePage,
    /// A trace instead of blobs, the last page of which is not whole.
    TraceCut,
}

/// `kho-guest load-stranger`
pub fn load_stranger() -> Result<()> {
    let page = vec![0xf4; 4096]; // hlt
    let segment = SegmentRef {
        buf: &page,
        dest: PhysAddr::new(16 << 20),
        memsz: PAGE_SIZE,
    };
    System.kexec_load(segment.dest, &[segment])?;
    println!("a page of nothing is loaded");
    Ok(())
}

/// `kho-guest load-damaged`
pub fn load(arguments: &Arguments) -> Result<()> {
    let places = Places::read()?;
    let mut content = std::fs::read(&arguments.content).context("reading the content")?;
    ensure!(
        content.len() as u64 == places.size,
        "the content has {} bytes, the plan knows {}",
        content.len(),
        places.size
    );
    let (first, second) = halves(&places)?;
    let (tree, reserved) = match arguments.part {
        None if matches!(arguments.damage, Damage::TracePage | Damage::TraceCut) => {
            let cut = arguments.damage == Damage::TraceCut;
            let forged = rings::forge(cut, &places, first, second)?;
            content = forged.content;
            (forged.tree, places.reserved.clone())
        }
        None => (
            tree(arguments.damage, &places, &content)?,
            places.reserved.clone(),
        ),
        Some(forgery) => {
            let split = usize::try_from(first.len())?;
            let sound = content.get(..split).context("the content is too short")?;
            let forged = part::forge(forgery, &places, (sound, first), second)?;
            content.truncate(split);
            content.extend_from_slice(&forged.part);
            (forged.tree, forged.reserved)
        }
    };
    content.resize(usize::try_from(places.blob.len())?, 0);
    if arguments.damage == Damage::Content {
        content[usize::try_from(second.start().get() - places.blob.start().get())?] ^= 1;
    }

    let content = Some((&content[..], places.blob));
    loader::load(&arguments.next, places.placement, &tree, &reserved, content)
}

/// Ranges of the two blobs that share the entry's piece, in whole pages.
fn halves(places: &Places) -> Result<(PhysRange, PhysRange)> {
    let half = places.blob.len() / 2 / PAGE_SIZE * PAGE_SIZE;
    ensure!(half > 0, "an entry of two pages or more is needed");
    let middle = PhysAddr::new(places.blob.start().get() + half);
    Ok((
        PhysRange::from_bounds(places.blob.start(), middle)?,
        PhysRange::from_bounds(middle, places.blob.end())?,
    ))
}

/// An address of memory that is neither reserved nor in scratch.
fn elsewhere(places: &Places) -> u64 {
    let reserved = places.reserved.iter().map(|range| range.end().get());
    let last = reserved.fold(places.scratch.end().get(), u64::max);
    last + (16 << 20)
}

/// A tree with two blobs, `sound` and `victim`, and with the damage.
fn tree(damage: Damage, places: &Places, content: &[u8]) -> Result<Vec<u8>> {
    let (first, second) = halves(places)?;
    let split = usize::try_from(first.len())?;
    let (head, tail) = content.split_at(split);
    let mut mem_cache = places.reserved.clone();
    if damage == Damage::Chain {
        mem_cache.push(PhysRange::new(PhysAddr::new(elsewhere(places)), PAGE_SIZE)?);
    }
    let (first_mem, second_mem) = ([first], [second]);
    let blobs = [
        blob("sound", head, &first_mem)?,
        blob("victim", tail, &second_mem)?,
    ];
    let mut tree = places.tree(&mem_cache, &blobs, |_| Ok(()))?;
    let moved_to = |start: u64| raw_pair(start, second.len());
    match damage {
        Damage::None | Damage::Chain | Damage::Content | Damage::TracePage | Damage::TraceCut => {
            return Ok(tree);
        }
        Damage::Container => {
            tree[0] ^= 0xff;
            return Ok(tree);
        }
        Damage::Checksum => {
            replace(
                &mut tree,
                &GENERATION.to_ne_bytes(),
                &0xbad_u64.to_ne_bytes(),
            )?;
            return Ok(tree);
        }
        Damage::Version => {
            let future = HANDOVER_V1.replace("-v1", "-v9");
            replace(&mut tree, HANDOVER_V1.as_bytes(), future.as_bytes())?;
        }
        Damage::Overlap => {
            replace(&mut tree, &pair(second), &moved_to(first.start().get()))?;
        }
        Damage::Wrap => {
            let last_page = u64::MAX - (PAGE_SIZE - 1);
            replace(&mut tree, &pair(second), &moved_to(last_page))?;
        }
        Damage::Scratch => {
            let start = places.scratch.start().get();
            replace(&mut tree, &pair(second), &moved_to(start))?;
        }
        Damage::Unreserved => {
            replace(&mut tree, &pair(second), &moved_to(elsewhere(places)))?;
        }
    }
    kho::tree::seal(&mut tree)?;
    Ok(tree)
}
