//! `kho-guest map-…`: files used through mappings.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use serde_json::{Value, json};

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

/// A mapping of a whole file.
///
/// # Invariants
///
/// `len` readable and writable bytes at `at`, mapped until the process ends.
struct Map {
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
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let at = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, &file, 0) }
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

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped by the # Invariants; nobody else writes the file meanwhile, as the test's script sees to.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}
