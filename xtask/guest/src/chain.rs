//! The setup_data chain of this boot, read from the kernel's memory, independently of `kho`.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};

use crate::memory::{reserved, still_reserved};

/// `hdr.setup_data` in `struct boot_params`: arch/x86/include/uapi/asm/bootparam.h, Documentation/arch/x86/boot.rst.
const SETUP_DATA: u64 = 0x250;

/// `SETUP_INDIRECT`: the data of such a node is `struct setup_indirect { u32 type, reserved; u64 len, addr; }`.
const INDIRECT: u32 = 1 << 31;

/// Bytes of `struct setup_data { u64 next; u32 type, len; }`.
const HEADER: usize = 16;

/// Number of nodes above which a chain counts as a loop.
const LONGEST: usize = 10_000;

/// Prints the ranges. Fails at a page that is not reserved, or if there are fewer than `at_least` ranges.
pub fn check(at_least: usize) -> Result<()> {
    let mut found = 0;
    walk(|kind, start, len| {
        let Some(kind) = kind else {
            return reserved(start, len)
                .map(|_| ())
                .context("a node of the chain");
        };
        println!("{start:#x}+{len:#x} type {kind:#x}");
        found += 1;
        reserved(start, len)
            .map(|_| ())
            .with_context(|| format!("the range {start:#x}+{len:#x} of type {kind:#x}"))
    })?;
    println!("{found} ranges, all reserved");
    ensure!(
        found >= at_least,
        "{found} ranges where at least {at_least} were expected"
    );
    Ok(())
}

/// Prints the KiB in pages of the chain and its ranges that are still reserved: with the module some are released.
pub fn print_kept() -> Result<()> {
    let mut pages = BTreeSet::new();
    walk(|_, start, len| {
        still_reserved(start, len, &mut pages)?;
        Ok(())
    })?;
    println!("{}", pages.len() * 4);
    Ok(())
}

/// Prints the middle of the longest run of RAM pages that are reserved, but not by the chain, and lie outside the
/// kernel's image.
pub fn print_early_allocation() -> Result<()> {
    let mut named = BTreeSet::new();
    walk(|_, start, len| still_reserved(start, len, &mut named))?;
    let iomem = std::fs::read_to_string("/proc/iomem").context("reading /proc/iomem")?;
    let mut pages = BTreeSet::new();
    for line in iomem.lines() {
        let Some((range, name)) = line.split_once(" : ") else {
            continue;
        };
        let bounds = range.trim().split_once('-').context("a line of iomem")?;
        let start = u64::from_str_radix(bounds.0, 16)?;
        let len = u64::from_str_radix(bounds.1, 16)?.saturating_sub(start) + 1;
        if line.starts_with("  Kernel") || name.starts_with("Kernel") {
            still_reserved(start, len, &mut named)?;
        } else if name == "System RAM" {
            still_reserved(start, len, &mut pages)?;
        }
    }
    let mut best = 0..0;
    let mut run = 0..0;
    for page in pages.difference(&named) {
        run = match run.end == *page {
            true => run.start..page + 1,
            false => *page..page + 1,
        };
        if run.end - run.start > best.end - best.start {
            best = run.clone();
        }
    }
    // 64 bytes describe a page (`struct page`), so the memory map is 1/64 of RAM.
    ensure!(
        best.end - best.start >= pages.len() as u64 / 64,
        "no large piece of RAM is reserved"
    );
    println!("{:#x}", (best.start + best.end) / 2 * 4096);
    Ok(())
}

/// Calls `each` with every node's own bytes, and with the range and type that it points to.
fn walk(mut each: impl FnMut(Option<u32>, u64, u64) -> Result<()>) -> Result<()> {
    let memory = Memory::open()?;
    let parameters =
        File::open("/sys/kernel/boot_params/data").context("opening the boot parameters")?;
    let mut word = [0; 8];
    parameters
        .read_exact_at(&mut word, SETUP_DATA)
        .context("reading the boot parameters")?;
    let mut node = u64::from_ne_bytes(word);
    for _ in 0..LONGEST {
        if node == 0 {
            return Ok(());
        }
        let header: [u8; HEADER] = memory.read(node)?;
        let (next, kind, len) = (u64_at(&header, 0), u32_at(&header, 8), u32_at(&header, 12));
        each(None, node, HEADER as u64 + u64::from(len))?;
        if kind == INDIRECT {
            let data: [u8; 24] = memory.read(node + HEADER as u64)?;
            let (kind, len, start) = (u32_at(&data, 0), u64_at(&data, 8), u64_at(&data, 16));
            each(Some(kind), start, len)?;
        }
        node = next;
    }
    bail!("the setup_data chain has no end")
}

/// Physical memory through /proc/kcore, whose segments state their physical addresses.
struct Memory {
    kcore: File,
    /// Physical start, length, offset in the file.
    segments: Vec<(u64, u64, u64)>,
}

impl Memory {
    fn open() -> Result<Self> {
        let kcore = File::open("/proc/kcore").context("opening /proc/kcore")?;
        let mut header = [0; 64];
        kcore
            .read_exact_at(&mut header, 0)
            .context("reading /proc/kcore")?;
        // e_phoff, e_phentsize and e_phnum of an ELF64 header.
        let table = u64_at(&header, 32);
        let (size, count) = (
            u64::from(u16_at(&header, 54)),
            u64::from(u16_at(&header, 56)),
        );
        let mut segments = Vec::new();
        for index in 0..count {
            let mut entry = [0; 56];
            kcore
                .read_exact_at(&mut entry, table + index * size)
                .context("reading /proc/kcore")?;
            segments.push((u64_at(&entry, 24), u64_at(&entry, 32), u64_at(&entry, 8)));
        }
        Ok(Self { kcore, segments })
    }

    fn read<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        let inside = |(start, len, _): &&(u64, u64, u64)| {
            at.checked_sub(*start).is_some_and(|into| into < *len)
        };
        let (start, _, offset) = self
            .segments
            .iter()
            .find(inside)
            .with_context(|| format!("/proc/kcore does not have {at:#x}"))?;
        self.kcore
            .read_exact_at(&mut bytes, offset + (at - start))
            .with_context(|| format!("reading memory at {at:#x}"))?;
        Ok(bytes)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}
