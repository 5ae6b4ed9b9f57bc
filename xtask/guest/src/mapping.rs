//! `kho-guest map-…`: files used through mappings.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::MapFlags;
use rustix::pipe::{SpliceFlags, splice};
use serde_json::{Value, json};

use crate::map::{Map, PAGE, new_file};
use crate::tree::Random;

/// Use of a mapping.
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
        /// Source file.
        from: PathBuf,
        /// Destination; at least as large.
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
        /// Offset in the file, in bytes.
        at: usize,
    },
    /// Punch a hole of a page.
    Hole {
        /// File.
        file: PathBuf,
        /// Offset in the file, in bytes.
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
    /// Read each page of a file through a private mapping, which is read only, and say `reading`; then again and again,
    /// until each page begins with something else than zeros.
    Follow {
        /// File.
        file: PathBuf,
    },
    /// Bind the memory of a file to NUMA nodes (mbind, MPOL_BIND).
    Bind {
        /// File.
        file: PathBuf,
        /// A bit for each node.
        #[arg(long)]
        nodes: u64,
    },
    /// Splice a file of three pages into a pipe, the second of which is a hole, write to it, and print what is in the pipe.
    Spliced {
        /// File; made anew.
        file: PathBuf,
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
            // Hash a copy, because QEMU's TCG reads 32 bytes for the 16 of a vinsertf128, also past the end.
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
            ensure!(map.bytes().len() >= room, "{} is too small", to.display());
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
            // Only a write maps a huge page as writable.
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
            // The kernel decides by the mapped page, so map it first.
            std::hint::black_box(map.page(*page)?.load(Ordering::Relaxed));
            let frame = map.some_frames(*page, 1)?[0];
            // Print now: the kernel may kill processes that have the page mapped.
            println!("page {page} is at {}", frame * PAGE as u64);
            let result = map.poison(*page);
            // The kernel may report that it does not know such pages; it has recorded the failure nevertheless.
            println!("madvise: {result:?}");
            Ok(())
        }
        Tool::Touch { file, page } => {
            let map = Map::of(file, MapFlags::SHARED)?;
            println!("{}", map.page(*page)?.load(Ordering::Relaxed) & 0xff);
            Ok(())
        }
        Tool::Follow { file } => {
            let map = Map::of(file, MapFlags::PRIVATE)?;
            map.touch(false);
            println!("reading");
            std::io::stdout().flush()?;
            while map.counters().any(|page| page.load(Ordering::Relaxed) == 0) {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            Ok(())
        }
        Tool::Bind { file, nodes } => Ok(Map::of(file, MapFlags::SHARED)?.bind(*nodes)?),
        Tool::Spliced { file } => spliced(file),
        Tool::Cut { file, seed, steps } => cut(file, *seed, *steps),
        Tool::Huge { file, advise } => {
            let map = Map::of(file, MapFlags::SHARED)?;
            if *advise {
                map.ask_for_huge_pages()?;
            }
            // Both kinds of faults: a run with advice writes, a run without it reads.
            map.touch(*advise);
            println!("{}", huge_kib(map.address())?);
            Ok(())
        }
    }
}

fn spliced(path: &Path) -> Result<()> {
    let mut file = new_file(path)?;
    file.write_all(b"old")?;
    file.write_all_at(b"old end", 2 * PAGE as u64)?;
    let (from, to) = rustix::pipe::pipe()?;
    let mut len = 0;
    loop {
        let got = splice(
            &file,
            Some(&mut len),
            &to,
            None,
            PAGE,
            SpliceFlags::NONBLOCK,
        )?;
        if got == 0 {
            break;
        }
    }
    drop(to);
    file.rewind()?;
    file.write_all(b"new")?;
    file.write_all_at(b"new end", 2 * PAGE as u64)?;
    let mut bytes = Vec::new();
    File::from(from).read_to_end(&mut bytes)?;
    ensure!(bytes.len() == 2 * PAGE + 7, "{} bytes", bytes.len());
    ensure!(
        bytes[3..2 * PAGE].iter().all(|byte| *byte == 0),
        "a hole that is none"
    );
    let text = |at: usize, len| String::from_utf8_lossy(&bytes[at..at + len]).into_owned();
    println!("{}, {}", text(0, 3), text(2 * PAGE, 7));
    Ok(())
}

/// Returns the JSON that `where` prints about a file.
fn place(path: &Path) -> Result<Value> {
    let mut digest = blake3::hash(&[]);
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        let map = Map::at_least(path, MapFlags::SHARED, 1)?;
        // Reading brings every page into the page table. `hash` explains the copy.
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

/// Largest size of the file of [`cut`], in bytes.
const REACH: u64 = 7 << 20;

fn cut(path: &Path, seed: u64, steps: u32) -> Result<()> {
    let file = new_file(path)?;
    let mut random = Random(seed);
    let mut model: Vec<u8> = Vec::new();
    // The file stays mapped, so that the kernel has to unmap the parts that are cut off.
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
            // Compare the whole content first, because comparing byte by byte takes long.
            if bytes != model.as_slice() {
                let at = bytes.iter().zip(&model).position(|(a, b)| a != b);
                anyhow::bail!("step {step}, {said}: byte {at:#x?} is wrong as {what}");
            }
        }
    }
    println!("{}", file.metadata()?.blocks());
    Ok(())
}

/// Does one operation on the file and on the model of its content. Returns a description of the operation.
fn cut_step(file: &File, map: &Map, random: &mut Random, model: &mut Vec<u8>) -> Result<String> {
    let at = random.below(REACH - (4 << 20));
    // One offset in three begins at the border of a huge page.
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
