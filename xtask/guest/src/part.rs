//! Forged kernel's parts: claims that a hostile or broken previous kernel might make about its drivers' memory.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use kho::abi::kernel_part::{KERNEL_V1, Reference};
use kho::tree::{WriteError, Writer};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};

use crate::loader::{GENERATION, Places, RELEASE, blob};

/// Fault of the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Forgery {
    /// Nothing: shows that the rest of the forgery is right.
    None,
    /// A version from the future.
    Version,
    /// A property that this version does not know.
    Extra,
    /// A node of a driver from the future.
    Driver,
    /// A bit flipped after it was sealed.
    Damaged,
    /// Another generation than the one that was loaded.
    Generation,
    /// No tree at all, as after an abort.
    Aborted,
    /// The firmware's tables: reserved early, and no RAM. What the loader refuses to load, as a part of the image, is
    /// forged in memory (`module-hostile`).
    Acpi,
}

/// Trees and reservations to load for a forgery.
pub struct Forged {
    /// The loader's tree.
    pub tree: Vec<u8>,
    /// The reservations of the chain.
    pub reserved: Vec<PhysRange>,
    /// The part, which goes to the first pages of the second half of the content.
    pub part: Vec<u8>,
}

/// Forges a part in `room`, the second half of the content, whose first half is the blob `sound`.
pub fn forge(
    forgery: Forgery,
    places: &Places,
    sound: (&[u8], PhysRange),
    room: PhysRange,
) -> Result<Forged> {
    let own = PhysRange::new(room.start(), PAGE_SIZE)?;
    let held = PhysRange::from_bounds(own.end(), room.end())?;
    let mut reserved = places.reserved.clone();
    let mut ranges = vec![held];
    if forgery == Forgery::Acpi {
        let page = PhysRange::new(PhysAddr::new(firmware_page()?), PAGE_SIZE)?;
        reserved.push(page);
        ranges.push(page);
    }
    let mut part = vec![0; usize::try_from(PAGE_SIZE)?];
    let size = write_part(forgery, own, GENERATION, &ranges, &mut part)?;
    part.truncate(size);
    kho::tree::seal(&mut part)?;
    match forgery {
        Forgery::Damaged => {
            let needle = GENERATION.to_ne_bytes();
            let at = part.windows(8).position(|window| window == needle);
            part[at.context("no generation in the part")?] ^= 1;
        }
        Forgery::Aborted => part.fill(0),
        _ => {}
    }
    let reference = Reference {
        mem: own,
        size: size as u64,
        generation: if forgery == Forgery::Generation {
            GENERATION ^ 1
        } else {
            GENERATION
        },
    };
    let mem = [sound.1];
    let blobs = [blob("sound", sound.0, &mem)?];
    let tree = places.tree(&reserved, &blobs, |w| reference.write(w))?;
    Ok(Forged {
        tree,
        reserved,
        part,
    })
}

fn write_part(
    forgery: Forgery,
    own: PhysRange,
    generation: u64,
    ranges: &[PhysRange],
    buf: &mut [u8],
) -> Result<usize, WriteError> {
    let version = if forgery == Forgery::Version {
        "kho-kernel-v9"
    } else {
        KERNEL_V1
    };
    let driver = if forgery == Forgery::Driver {
        "kho-ring-v9"
    } else {
        "forged-v1"
    };
    let mut w = Writer::new(buf);
    w.begin_node("")?;
    w.prop_str("compatible", version)?;
    w.prop_u64("generation", generation)?;
    w.prop_str("release", RELEASE)?;
    w.prop_u32("checksum", 0)?;
    w.prop_mem("mem", [own])?;
    if forgery == Forgery::Extra {
        w.prop_u64("from-the-future", 1)?;
    }
    for (number, range) in ranges.iter().enumerate() {
        w.begin_node(if number == 0 { "held" } else { "hostile" })?;
        w.prop_str("compatible", driver)?;
        w.prop_mem("mem", [*range])?;
        w.end_node()?;
    }
    w.end_node()?;
    w.finish()
}

/// A page below 4 GiB that the firmware keeps for itself, above the first MiB.
fn firmware_page() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/iomem")?;
    let found = text.lines().find_map(|line| {
        let (range, name) = line.split_once(" : ")?;
        let start = u64::from_str_radix(range.trim().split_once('-')?.0, 16).ok()?;
        let firmware = name == "Reserved" || name.starts_with("ACPI");
        (firmware && !line.starts_with(' ') && start > 1 << 20).then_some(start)
    });
    let start = found.context("no memory of the firmware in /proc/iomem")?;
    ensure!(start % PAGE_SIZE == 0, "{start:#x} is no page");
    Ok(start)
}
