//! Loads kernels that `kho` never would: with a damaged state tree, or no kernel at all.
//!
//! The shipped command has no way to hand over something broken, and shall not have one. This is a second, small
//! user of the loader's crates: the places come from `kho plan --json`, so that everything but the damage is right.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use kho::abi::{BlobDescription, Content, Description, HANDOVER_V1, Label, MACHINE_X86_64};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_guest::forge::{pair, raw_pair, replace};
use kho_kexec::assemble::{self, Load, Placement, SegmentKind};
use kho_kexec::bootparam::BootParams;
use kho_kexec::carrier::SetupDataCarrier;
use kho_kexec::sys::facts::boot::BootParams as BootParamsFile;
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::root::Root;
use kho_kexec::sys::syscalls::{Kernel, LoadFlags, SegmentRef, System};
use kho_kexec::{cmdline, image};
use serde_json::Value;

use crate::part::{self, Forgery};
use crate::rings;

/// What `kho-guest load-damaged` takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to break.
    damage: Damage,
    /// Hand over a forged kernel's part too, in the second half of the content.
    #[arg(long)]
    part: Option<Forgery>,
    /// The kernel.
    kernel: PathBuf,
    /// Its initrd.
    #[arg(long)]
    initrd: PathBuf,
    /// Its command line.
    #[arg(long)]
    append: String,
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

/// The places that the plan chose.
pub(crate) struct Places {
    pub(crate) placement: Placement,
    pub(crate) scratch: PhysRange,
    /// The mem cache in the tree's order: the entry with the state first.
    pub(crate) reserved: Vec<PhysRange>,
    /// The entry's only piece.
    pub(crate) blob: PhysRange,
    /// Bytes of the entry.
    size: u64,
}

/// `kho-guest load-stranger`
pub fn load_stranger() -> Result<()> {
    let page = vec![0xf4; 4096]; // hlt
    let segment = SegmentRef {
        buf: &page,
        dest: PhysAddr::new(16 << 20),
        memsz: PAGE_SIZE,
    };
    System.kexec_load(segment.dest, &[segment], LoadFlags::DEFAULT)?;
    println!("a page of nothing is loaded");
    Ok(())
}

/// `kho-guest load-damaged`
pub fn load(arguments: &Arguments) -> Result<()> {
    let root = Root::system();
    let places = places(&serde_json::from_reader(std::io::stdin())?)?;
    let file = image::read(&arguments.kernel)?;
    let kernel = image::parse(&file)?;
    let initrd = std::fs::read(&arguments.initrd).context("reading the initrd")?;
    let append = arguments.append.as_bytes();
    let line = cmdline::build(b"", append, true, kernel.needs().cmdline_max)?;
    let running = BootParams::from_running(&BootParamsFile::read(&root)?.data)?;
    let memory_map = FirmwareMap::read(&root)?.to_boot();
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;

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

    let assembled = assemble::assemble(
        &Load {
            image: &*kernel,
            initrd: Some(&initrd),
            cmdline: &line,
            arrive: true,
            running: &running,
            memory_map: &memory_map,
            efi: None,
            rng_seed: &seed,
            tree: Some(&tree),
            reserved: &reserved,
            placement: places.placement,
        },
        &SetupDataCarrier,
    )?;
    let mut segments: Vec<SegmentRef<'_>> = assembled
        .segments
        .iter()
        .map(|segment| SegmentRef {
            buf: &segment.bytes,
            dest: segment.dest.start(),
            // The plan's room for the state is for the largest tree there could be.
            memsz: match segment.kind {
                SegmentKind::State => (segment.bytes.len() as u64).next_multiple_of(PAGE_SIZE),
                _ => segment.dest.len(),
            },
        })
        .collect();
    segments.push(SegmentRef {
        buf: &content,
        dest: places.blob.start(),
        memsz: places.blob.len(),
    });
    System.kexec_load(assembled.entry, &segments, LoadFlags::DEFAULT)?;
    println!("loaded, {} ranges reserved", reserved.len());
    Ok(())
}

/// The two blobs that the entry's piece is shared by, in whole pages.
fn halves(places: &Places) -> Result<(PhysRange, PhysRange)> {
    let half = places.blob.len() / 2 / PAGE_SIZE * PAGE_SIZE;
    ensure!(half > 0, "an entry of two pages or more is needed");
    let middle = PhysAddr::new(places.blob.start().get() + half);
    Ok((
        PhysRange::from_bounds(places.blob.start(), middle)?,
        PhysRange::from_bounds(middle, places.blob.end())?,
    ))
}

/// A sealed tree with two blobs, `sound` and `victim`, and then the damage.
fn tree(damage: Damage, places: &Places, content: &[u8]) -> Result<Vec<u8>> {
    let (first, second) = halves(places)?;
    let split = usize::try_from(first.len())?;
    let (head, tail) = content.split_at(split);
    let blob = |label, bytes: &[u8], mem| -> Result<BlobDescription<'_>> {
        Ok(BlobDescription {
            label: Label::new(label)?,
            content: Content::Raw,
            size: bytes.len() as u64,
            mem,
            blake3: *blake3::hash(bytes).as_bytes(),
            taken: 1,
            arrived_hop: 1,
        })
    };
    let mut mem_cache = places.reserved.clone();
    if damage == Damage::Chain {
        let last = mem_cache.iter().map(|range| range.end()).max();
        let above = last.context("a mem cache")?.get() + (16 << 20);
        mem_cache.push(PhysRange::new(PhysAddr::new(above), PAGE_SIZE)?);
    }
    let (first_mem, second_mem) = ([first], [second]);
    let blobs = [
        blob("sound", head, &first_mem)?,
        blob("victim", tail, &second_mem)?,
    ];
    let description = Description {
        generation: 0x600d,
        hop: 1,
        previous_release: "a-test",
        machine: MACHINE_X86_64,
        time: 1,
        scratch: places.scratch,
        mem_cache: &mem_cache,
        blobs: &blobs,
    };
    let mut tree = vec![0; kho::abi::measure_handover(&description)?];
    kho::abi::write_handover(&description, &mut tree)?;
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
                &0x600d_u64.to_ne_bytes(),
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
            let last = places.reserved.iter().map(|range| range.end().get()).max();
            let above = last.context("a mem cache")? + (16 << 20);
            replace(&mut tree, &pair(second), &moved_to(above))?;
        }
    }
    kho::tree::seal(&mut tree)?;
    Ok(tree)
}

pub(crate) fn places(plan: &Value) -> Result<Places> {
    let range = |pointer: &str| -> Result<PhysRange> {
        to_range(
            plan.pointer(pointer)
                .with_context(|| format!("the plan has no {pointer}"))?,
        )
    };
    let state = range("/state")?;
    let list = |pointer: &str| {
        let array = plan.pointer(pointer).and_then(Value::as_array);
        array.with_context(|| format!("the plan has no {pointer}"))
    };
    let cache = list("/mem_cache")?
        .iter()
        .map(|entry| to_range(entry.get("range").context("an entry without range")?))
        .collect::<Result<Vec<_>>>()?;
    let (mut reserved, others): (Vec<_>, Vec<_>) = cache
        .into_iter()
        .partition(|entry| entry.contains_range(state));
    reserved.extend(others);
    ensure!(list("/entries")?.len() == 1, "exactly one entry is needed");
    ensure!(
        list("/entries/0/mem")?.len() == 1,
        "the entry is in several pieces"
    );
    Ok(Places {
        placement: Placement {
            kernel: range("/image/kernel")?,
            initrd: Some(range("/image/initrd")?),
            params: range("/image/params")?,
            state,
        },
        scratch: range("/scratch")?,
        reserved,
        blob: range("/entries/0/mem/0")?,
        size: plan
            .pointer("/entries/0/size")
            .and_then(Value::as_u64)
            .context("the entry has no size")?,
    })
}

/// `{"addr": "0x…", "len": …}`
fn to_range(value: &Value) -> Result<PhysRange> {
    let addr = value
        .get("addr")
        .and_then(Value::as_str)
        .context("no addr")?;
    let addr = addr.strip_prefix("0x").context("no hexadecimal addr")?;
    let len = value.get("len").and_then(Value::as_u64).context("no len")?;
    Ok(PhysRange::new(
        PhysAddr::new(u64::from_str_radix(addr, 16)?),
        len,
    )?)
}
