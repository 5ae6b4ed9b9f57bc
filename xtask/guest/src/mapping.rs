//! `kho-guest map-…`: files used through mappings.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use rustix::pipe::{IoSliceRaw, SpliceFlags, vmsplice};
use serde_json::{Value, json};

use crate::tree::Random;

const PAGE: usize = 4096;

/// What to do with a mapping.
#[derive(clap::Subcommand)]
pub enum Tool {
    /// Write an ever larger number into each page, from first to last, again and again; never ends.
    Write {
        /// File.
        file: PathBuf,
    },
    /// Check that a file was written by the above, up to some page of some pass, and by nothing else.
    Check {
        /// File.
        file: PathBuf,
    },
    /// Print the digest of a file, read through a private mapping that is written to afterwards.
    Hash {
        /// File.
        file: PathBuf,
    },
    /// Read a file past the page cache (O_DIRECT) into a mapping of another one.
    Direct {
        /// What is read.
        from: PathBuf,
        /// Where to; at least as large.
        to: PathBuf,
    },
    /// Print where the content of files is in physical memory, as JSON: of each its name, size, digest and ranges of
    /// whole pages, in the order of the content.
    Where {
        /// Files without holes.
        files: Vec<PathBuf>,
    },
    /// Write, truncate, punch and map one file of a few huge pages at random, with odd numbers, and compare all of it with
    /// what it should be after each step.
    Cut {
        /// File; made anew.
        file: PathBuf,
        /// Number from which everything follows.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Operations.
        #[arg(long, default_value_t = 40)]
        steps: u32,
    },
    /// Cut holes into a file of 6 MiB, and its end off, while pages of it are held by pipes; compare all of it with what it
    /// should be.
    Pinned {
        /// File; made anew.
        file: PathBuf,
        /// Also write behind the end of the file through a mapping.
        #[arg(long)]
        past_end: bool,
    },
    /// Write a byte through a mapping of 2 MiB more than the file has: behind its end, which is SIGBUS where no huge page is
    /// mapped.
    Behind {
        /// File.
        file: PathBuf,
        /// Where in the file.
        at: usize,
    },
    /// Punch a hole of a page.
    Hole {
        /// File.
        file: PathBuf,
        /// Where in the file.
        at: u64,
    },
    /// Tell the kernel that the memory of a page of a file failed (MADV_HWPOISON).
    Poison {
        /// File.
        file: PathBuf,
        /// Page, counted from 0.
        page: usize,
    },
    /// Read the first byte of a page through a mapping.
    Touch {
        /// File.
        file: PathBuf,
        /// Page, counted from 0.
        page: usize,
    },
    /// Touch each page of a file and print how many KiB of it are mapped by huge pages.
    Huge {
        /// File.
        file: PathBuf,
        /// Ask for them first (MADV_HUGEPAGE).
        #[arg(long)]
        advise: bool,
    },
}

/// Runs the tool.
pub fn run(tool: &Tool) -> Result<()> {
    match tool {
        Tool::Write { file } => {
            let map = Map::of(file, MapFlags::SHARED)?;
            println!("writing");
            std::io::stdout().flush()?;
            for number in 1.. {
                map.counters()
                    .for_each(|page| page.store(number, Ordering::Relaxed));
            }
            Ok(())
        }
        Tool::Check { file } => {
            let map = Map::of(file, MapFlags::SHARED)?;
            let numbers: Vec<u64> = map.counters().map(|p| p.load(Ordering::Relaxed)).collect();
            let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
            ensure!(first > 0, "nothing was written");
            ensure!(
                numbers.is_sorted_by(|a, b| a >= b) && first - last <= 1,
                "from {first} to {last}, and not in order: {numbers:?}"
            );
            println!("pass {first}");
            Ok(())
        }
        Tool::Hash { file } => {
            let mut map = Map::of(file, MapFlags::PRIVATE)?;
            // A copy is hashed, because QEMU's TCG reads 32 bytes for the 16 of a vinsertf128, also past the end.
            let copy = Vec::from(map.bytes());
            println!("{}", blake3::hash(&copy).to_hex());
            map.bytes_mut().fill(0xff);
            Ok(())
        }
        Tool::Direct { from, to } => {
            let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits())?;
            let mut source = OpenOptions::new()
                .read(true)
                .custom_flags(direct)
                .open(from)
                .with_context(|| format!("opening {} for direct reads", from.display()))?;
            let len = usize::try_from(source.metadata()?.len())?;
            let mut map = Map::of(to, MapFlags::SHARED)?;
            let room = len.next_multiple_of(PAGE);
            ensure!(map.len >= room, "{} is too small", to.display());
            let mut done = 0;
            while done < len {
                let got = source.read(&mut map.bytes_mut()[done..room])?;
                ensure!(got > 0, "only {done} of {len} bytes");
                done += got;
            }
            println!("{len} bytes");
            Ok(())
        }
        Tool::Where { files } => {
            let all = files.iter().map(|file| place(file));
            let all = all.collect::<Result<Vec<_>>>()?;
            println!("{}", serde_json::to_string(&all)?);
            Ok(())
        }
        Tool::Pinned { file, past_end } => crate::pinned::run(file, *past_end),
        Tool::Behind { file, at } => {
            let file = OpenOptions::new().read(true).write(true).open(file)?;
            let len = usize::try_from(file.metadata()?.len())?;
            let map = Map::with(&file, (len + 1).next_multiple_of(2 << 20), MapFlags::SHARED)?;
            // Only a write maps a huge page that can be written.
            map.page(0)?.fetch_add(1, Ordering::Relaxed);
            map.page(0)?.fetch_sub(1, Ordering::Relaxed);
            map.part_mut(at + 1)[*at] = b'!';
            println!("written at {at} of {len}");
            Ok(())
        }
        Tool::Hole { file, at } => {
            let file = OpenOptions::new().write(true).open(file)?;
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(fallocate(&file, how, *at, PAGE as u64)?)
        }
        Tool::Poison { file, page } => {
            let map = Map::of(file, MapFlags::SHARED)?;
            let at = map.page(*page)?.as_ptr();
            // The kernel looks at what is mapped.
            std::hint::black_box(map.page(*page)?.load(Ordering::Relaxed));
            // SAFETY: a page of a mapping of our own, which is not used after this.
            let result = unsafe { madvise(at.cast(), PAGE, Advice::LinuxHwPoison) };
            // The kernel may say that it does not know such pages; it has noted the failure all the same.
            println!("page {page}: {result:?}");
            Ok(())
        }
        Tool::Touch { file, page } => {
            let map = Map::of(file, MapFlags::SHARED)?;
            println!("{}", map.page(*page)?.load(Ordering::Relaxed) & 0xff);
            Ok(())
        }
        Tool::Cut { file, seed, steps } => cut(file, *seed, *steps),
        Tool::Huge { file, advise } => {
            let map = Map::of(file, MapFlags::SHARED)?;
            if *advise {
                // SAFETY: advice about a mapping of our own does not change what is in it.
                unsafe { madvise(map.at.cast(), map.len, Advice::LinuxHugepage) }
                    .context("asking for huge pages")?;
            }
            // Both kinds of faults: who advises also writes.
            map.touch(*advise);
            println!("{}", huge_kib(map.at as usize)?);
            Ok(())
        }
    }
}

/// What `where` says of a file.
fn place(path: &Path) -> Result<Value> {
    let mut digest = blake3::hash(&[]);
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        let map = Map::at_least(path, MapFlags::SHARED, 1)?;
        // Reading brings every page into the page table; as for the copy, see `hash`.
        digest = blake3::hash(&Vec::from(map.bytes()));
        for page in map.frames()? {
            let at = page * PAGE as u64;
            match ranges.last_mut() {
                Some((start, len)) if *start + *len == at => *len += PAGE as u64,
                _ => ranges.push((at, PAGE as u64)),
            }
        }
    }
    let ranges: Vec<Value> = ranges
        .into_iter()
        .map(|(addr, len)| json!({ "addr": addr, "len": len }))
        .collect();
    Ok(json!({
        "name": path,
        "size": path.metadata()?.len(),
        "blake3": digest.to_hex().as_str(),
        "mem": ranges,
    }))
}

/// KiB that are mapped by huge pages of the mapping at an address.
fn huge_kib(at: usize) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps").context("reading smaps")?;
    let begin = format!("{at:x}-");
    let lines = text.lines().skip_while(|line| !line.starts_with(&begin));
    let found = lines
        .filter_map(|line| line.strip_prefix("FilePmdMapped:"))
        .next()
        .context("no such mapping")?;
    let kib = found.split_whitespace().next().context("no number")?;
    Ok(kib.parse()?)
}

/// The most that the file of [`cut`] has.
const REACH: u64 = 7 << 20;

fn cut(path: &Path, seed: u64, steps: u32) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("making {}", path.display()))?;
    let mut random = Random(seed);
    let mut model: Vec<u8> = Vec::new();
    // Mapped all the time, so that what is cut off has to be unmapped.
    let map = Map::with(&file, usize::try_from(REACH)?, MapFlags::SHARED)?;
    for step in 0..steps {
        let said = cut_step(&file, &map, &mut random, &mut model)
            .with_context(|| format!("step {step}"))?;
        let len = usize::try_from(file.metadata()?.len())?;
        ensure!(
            len == model.len(),
            "step {step}, {said}: {len} bytes for {}",
            model.len()
        );
        let mut content = vec![0; len];
        file.read_exact_at(&mut content, 0)?;
        for (what, bytes) in [("read", content.as_slice()), ("mapped", map.part(len))] {
            // Compared as a whole first: that is what takes the time.
            if bytes != model.as_slice() {
                let at = bytes.iter().zip(&model).position(|(a, b)| a != b);
                anyhow::bail!("step {step}, {said}: byte {at:#x?} is wrong as {what}");
            }
        }
    }
    println!("{}", file.metadata()?.blocks());
    Ok(())
}

/// One operation, on the file and on what it should be; says which.
fn cut_step(file: &File, map: &Map, random: &mut Random, model: &mut Vec<u8>) -> Result<String> {
    let at = random.below(REACH - (4 << 20));
    // Now and then what begins and ends where a huge page does.
    let at = match random.below(3) {
        0 => at & !((2 << 20) - 1),
        _ => at,
    };
    let len = match random.below(4) {
        0 => 2 << 20,
        1 => random.below(4 << 20),
        _ => random.below(20_000),
    } + 1;
    let (first, count) = (usize::try_from(at)?, usize::try_from(len)?);
    let grow = |model: &mut Vec<u8>, to: usize| {
        if model.len() < to {
            model.resize(to, 0);
        }
    };
    Ok(match random.below(10) {
        0..=3 => {
            let mut bytes = Vec::new();
            random.write(len, &mut bytes)?;
            file.write_all_at(&bytes, at)?;
            grow(model, first + count);
            model[first..first + count].copy_from_slice(&bytes);
            format!("write of {len:#x} at {at:#x}")
        }
        4..=5 => {
            file.set_len(at + len)?;
            model.resize(first + count, 0);
            format!("truncate to {:#x}", at + len)
        }
        6..=7 => {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, how, at, len)?;
            let end = (first + count).min(model.len());
            if first < end {
                model[first..end].fill(0);
            }
            format!("hole of {len:#x} at {at:#x}")
        }
        8 => {
            fallocate(file, FallocateFlags::empty(), at, len)?;
            grow(model, first + count);
            format!("allocation of {len:#x} at {at:#x}")
        }
        _ => {
            let end = (first + count).min(model.len());
            let value = u8::try_from(random.below(255))? + 1;
            if first < end {
                map.part_mut(end)[first..].fill(value);
                model[first..end].fill(value);
            }
            format!("mapped write of {len:#x} at {at:#x}")
        }
    })
}

/// A mapping of a whole file.
///
/// # Invariants
///
/// `len` readable and writable bytes at `at`, mapped until the process ends.
pub struct Map {
    at: *mut u8,
    len: usize,
}

impl Map {
    /// Of a file with at least one page.
    fn of(path: &Path, flags: MapFlags) -> Result<Self> {
        Self::at_least(path, flags, PAGE)
    }

    /// Of a file with at least so many bytes, of which there is one.
    fn at_least(path: &Path, flags: MapFlags, least: usize) -> Result<Self> {
        let file: File = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("opening {}", path.display()))?;
        let len = usize::try_from(file.metadata()?.len())?;
        ensure!(
            len >= least,
            "{} has {len} bytes, not {least}",
            path.display()
        );
        Self::with(&file, len, flags)
    }

    /// Of that many bytes. Behind the end of the file there is nothing to touch, says the kernel.
    pub fn with(file: &File, len: usize, flags: MapFlags) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let at = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, file, 0) }
            .context("mapping the file")?;
        // INVARIANT: just mapped, and never unmapped.
        Ok(Self { at: at.cast(), len })
    }

    /// The first word of each page.
    fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        (0..self.len / PAGE).map(|page| {
            // SAFETY: inside of the mapping, by the # Invariants and the bound of the range above.
            let word = unsafe { self.at.add(page * PAGE) };
            // SAFETY: page-aligned and mapped by the # Invariants; everybody uses it as an atomic.
            unsafe { AtomicU64::from_ptr(word.cast()) }
        })
    }

    /// Reads the first word of each page, or adds one to it.
    pub fn touch(&self, write: bool) {
        for page in self.counters() {
            std::hint::black_box(match write {
                true => page.fetch_add(1, Ordering::Relaxed),
                false => page.load(Ordering::Relaxed),
            });
        }
    }

    /// Puts the page at a multiple of 4096 into a pipe: not copied, so that the pipe holds the page itself.
    pub fn lend(&self, at: usize, pipe: &OwnedFd) -> Result<()> {
        let page = [IoSliceRaw::from_slice(&self.part(at + PAGE)[at..])];
        // SAFETY: of a mapping that stays until this process ends, by the # Invariants.
        let lent = unsafe { vmsplice(pipe, &page, SpliceFlags::empty()) }.context("vmsplice")?;
        ensure!(lent == PAGE, "{lent} bytes are in the pipe");
        Ok(())
    }

    /// The first word of a page.
    fn page(&self, page: usize) -> Result<&AtomicU64> {
        self.counters()
            .nth(page)
            .with_context(|| format!("there is no page {page}"))
    }

    /// The page frames that hold it, in order. All of them must be present: Documentation/admin-guide/mm/pagemap.rst,
    /// bit 63 of an entry; the number is in bits 0 to 54.
    fn frames(&self) -> Result<Vec<u64>> {
        let pagemap = File::open("/proc/self/pagemap").context("opening the page map")?;
        let mut entries = vec![0; self.len.div_ceil(PAGE) * 8];
        let offset = (self.at.addr() / PAGE * 8) as u64;
        pagemap
            .read_exact_at(&mut entries, offset)
            .context("reading the page map")?;
        let frame = |(index, entry): (usize, &[u8; 8])| {
            let entry = u64::from_ne_bytes(*entry);
            let frame = entry & ((1 << 55) - 1);
            ensure!(
                entry >> 63 == 1 && frame != 0,
                "page {index} has no frame: {entry:#x}"
            );
            Ok(frame)
        };
        entries
            .as_chunks::<8>()
            .0
            .iter()
            .enumerate()
            .map(frame)
            .collect()
    }

    /// The first bytes, if the file has as many.
    pub fn part(&self, len: usize) -> &[u8] {
        // SAFETY: as in `bytes`, and no more than is mapped.
        unsafe { std::slice::from_raw_parts(self.at, len.min(self.len)) }
    }

    /// The same, to write to, by the one thread that there is.
    #[allow(
        clippy::mut_from_ref,
        reason = "the file is what changes, as by any of its descriptors"
    )]
    pub fn part_mut(&self, len: usize) -> &mut [u8] {
        // SAFETY: as above, and the caller has no other part meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.at, len.min(self.len)) }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped by the # Invariants; nobody else writes the file meanwhile, as the test's script sees to.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}
