//! `kho-guest speed`: the time that common operations on a file system take, by the guest's clock.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::MapFlags;

use crate::map::Map;

const PAGE: u64 = 4096;

/// Bytes of the large file.
const LARGE: u64 = 32 << 20;

/// Small files.
const SMALL: u64 = 2000;

/// Prints the time of each work: `WORK NANOSECONDS PARTS`. Parts are pages or files.
struct Clock {
    since: Instant,
}

impl Clock {
    fn begin(&mut self) {
        self.since = Instant::now();
    }

    fn end(&self, work: &str, parts: u64) {
        println!("{work} {} {parts}", self.since.elapsed().as_nanos());
    }

    fn time(&mut self, work: &str, parts: u64, act: impl FnOnce() -> Result<()>) -> Result<()> {
        self.begin();
        act().with_context(|| work.to_owned())?;
        self.end(work, parts);
        Ok(())
    }
}

/// Runs all operations in a directory, which is empty afterwards.
pub fn run(dir: &Path) -> Result<()> {
    let mut clock = Clock {
        since: Instant::now(),
    };
    let name = dir.join("large");
    let pages = LARGE / PAGE;
    for size in [4 << 10, 64 << 10, 4 << 20] {
        let unit = match size >> 20 {
            0 => format!("{}k", size >> 10),
            mib => format!("{mib}m"),
        };
        let mut buffer = vec![1u8; size];
        let file = make(&name)?;
        let each = |act: &mut dyn FnMut(u64) -> Result<()>| -> Result<()> {
            (0..LARGE).step_by(size).try_for_each(&mut *act)
        };
        clock.time(&format!("write-{unit}"), pages, || {
            each(&mut |at| Ok(file.write_all_at(&buffer, at)?))
        })?;
        clock.time(&format!("overwrite-{unit}"), pages, || {
            each(&mut |at| Ok(file.write_all_at(&buffer, at)?))
        })?;
        clock.time(&format!("read-{unit}"), pages, || {
            each(&mut |at| Ok(file.read_exact_at(&mut buffer, at)?))
        })?;
        if size == 4 << 10 {
            // An order without a pattern that visits each page once: 8192 pages, and an odd multiplier.
            clock.time("read-random-4k", pages, || {
                (0..pages)
                    .map(|n| n * 2_654_435_761 % pages * PAGE)
                    .try_for_each(|at| Ok(file.read_exact_at(&mut buffer, at)?))
            })?;
            clock.time("map-read", pages, || touch(&file, false))?;
            clock.time("map-overwrite", pages, || touch(&file, true))?;
        }
        drop(file);
        // A mapped file stays until this process ends.
        let remove = || Ok(std::fs::remove_file(&name)?);
        match size == 4 << 10 {
            true => remove()?,
            false => clock.time(&format!("remove-{unit}"), pages, remove)?,
        }
    }
    let file = make(&name)?;
    file.set_len(LARGE)?;
    clock.time("map-write", pages, || touch(&file, true))?;
    drop(file);
    std::fs::remove_file(&name)?;
    let file = make(&name)?;
    clock.time("fallocate", pages, || {
        Ok(fallocate(&file, FallocateFlags::empty(), 0, LARGE)?)
    })?;
    clock.time("map-write-allocated", pages, || touch(&file, true))?;
    clock.time("truncate", pages, || Ok(file.set_len(0)?))?;
    drop(file);
    std::fs::remove_file(&name)?;

    let small = |n: u64| dir.join(format!("small-{n}"));
    let content = [7u8; 3000];
    clock.time("create", SMALL, || {
        (0..SMALL).try_for_each(|n| Ok(std::fs::write(small(n), content)?))
    })?;
    clock.time("open-read", SMALL, || {
        (0..SMALL).try_for_each(|n| {
            let found = std::fs::read(small(n))?;
            ensure!(found == content, "other content");
            Ok(())
        })
    })?;
    clock.time("stat", SMALL, || {
        (0..SMALL).try_for_each(|n| {
            ensure!(std::fs::metadata(small(n))?.len() == 3000, "other size");
            Ok(())
        })
    })?;
    clock.time("unlink", SMALL, || {
        (0..SMALL).try_for_each(|n| Ok(std::fs::remove_file(small(n))?))
    })
}

/// Runs a command and prints its time.
pub fn timed(command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    let since = Instant::now();
    let status = std::process::Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("starting {program}"))?;
    let took = since.elapsed();
    ensure!(status.success(), "{program}: {status}");
    println!("{}", took.as_nanos());
    Ok(())
}

fn make(name: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(name)
        .with_context(|| format!("making {}", name.display()))
}

/// Reads or writes one word of each page through a mapping.
fn touch(file: &File, write: bool) -> Result<()> {
    Map::with(file, usize::try_from(LARGE)?, MapFlags::SHARED)?.touch(write);
    Ok(())
}
