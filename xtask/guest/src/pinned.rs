//! `kho-guest map pinned`: pipes hold pages of files while the files are cut.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::MapFlags;
use rustix::pipe::pipe;

use crate::map::{Map, PAGE, new_file};
use crate::tree::Random;

const MIB: usize = 1 << 20;

/// A page in a pipe: not copied, so that the pipe holds the page itself.
struct Held {
    out: File,
    content: Vec<u8>,
    _in: OwnedFd,
}

impl Held {
    /// The page at a multiple of 4096 of a mapping.
    fn of(map: &Map, at: usize) -> Result<Self> {
        let (out, into) = pipe()?;
        let content = map.part(at + PAGE)[at..].to_vec();
        map.lend(at, &into)?;
        Ok(Self {
            out: out.into(),
            content,
            _in: into,
        })
    }

    /// Releases the page. Its content must be unchanged; if the page `may` have been zeroed in place, zeros are allowed
    /// too.
    fn release(mut self, may: bool) -> Result<()> {
        let mut found = vec![0; PAGE];
        self.out.read_exact(&mut found)?;
        let zeros = may && found.iter().all(|byte| *byte == 0);
        ensure!(
            found == self.content || zeros,
            "what was held has other content"
        );
        Ok(())
    }
}

/// A file of 6 MiB, the content that it should have, and a mapping of all of it.
struct Cut {
    file: File,
    map: Map,
    model: Vec<u8>,
}

impl Cut {
    fn new(path: &Path, seed: u64) -> Result<Self> {
        let file = new_file(path)?;
        let len = 6 * MIB;
        fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
        let mut model = Vec::new();
        Random(seed).write(len as u64, &mut model)?;
        file.write_all_at(&model, 0)?;
        let map = Map::with(&file, len, MapFlags::SHARED)?;
        Ok(Self { file, map, model })
    }

    fn punch(&mut self, from: usize, to: usize) -> Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, how, from as u64, (to - from) as u64)?;
        self.model[from..to].fill(0);
        Ok(())
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.file.set_len(len as u64)?;
        self.model.resize(len, 0);
        Ok(())
    }

    fn write(&mut self, at: usize, len: usize, seed: u64) -> Result<()> {
        let mut bytes = Vec::new();
        Random(seed).write(len as u64, &mut bytes)?;
        self.file.write_all_at(&bytes, at as u64)?;
        self.model[at..at + len].copy_from_slice(&bytes);
        Ok(())
    }

    fn check(&self, what: &str) -> Result<()> {
        let len = usize::try_from(self.file.metadata()?.len())?;
        ensure!(len == self.model.len(), "{what}: {len} bytes");
        let mut read = vec![0; len];
        self.file.read_exact_at(&mut read, 0)?;
        for (how, bytes) in [("read", read.as_slice()), ("mapped", self.map.part(len))] {
            let at = bytes.iter().zip(&self.model).position(|(a, b)| a != b);
            ensure!(at.is_none(), "{what}: byte {at:#x?} is wrong as {how}");
        }
        Ok(())
    }
}

/// Cuts files at many kinds of places while pipes hold their pages.
pub fn run(path: &Path, past_end: bool) -> Result<()> {
    let mut cut = Cut::new(path, 1)?;
    // A hole in the folio of 2 MiB at 2 MiB, beside one held page and around another.
    let beside = Held::of(&cut.map, 3 * MIB)?;
    let within = Held::of(&cut.map, 2 * MIB + 32 * PAGE)?;
    cut.punch(2 * MIB + 16 * PAGE, 2 * MIB + 64 * PAGE)?;
    cut.check("a hole beside a held page")?;
    cut.punch(5 * MIB + 100, 5 * MIB + 3 * PAGE + 7)?;
    cut.check("a hole with odd ends, in another folio")?;
    cut.write(2 * MIB + 16 * PAGE, 20 * PAGE, 2)?;
    cut.check("a hole that was filled again")?;
    drop(within);
    beside.release(false)?;

    // The file ends in the middle of a held folio, and grows back.
    let kept = Held::of(&cut.map, 4 * MIB + PAGE)?;
    let gone = Held::of(&cut.map, 6 * MIB - PAGE)?;
    cut.truncate(5 * MIB + 5000)?;
    cut.check("cut")?;
    cut.truncate(6 * MIB)?;
    cut.check("grown after the cut")?;
    kept.release(false)?;
    gone.release(true)?;

    // A hole as large as a held folio: the kernel must not reuse the memory while it is held.
    let held = Held::of(&cut.map, MIB)?;
    cut.punch(0, 2 * MIB)?;
    cut.check("a hole of a whole folio")?;
    cut.write(0, 2 * MIB, 3)?;
    cut.check("the hole filled")?;
    held.release(false)?;

    // The same for a file that is removed.
    let held = Held::of(&cut.map, 3 * MIB)?;
    drop(cut);
    std::fs::remove_file(path)?;
    let mut cut = Cut::new(path, 4)?;
    cut.check("a new file")?;
    held.release(false)?;

    if past_end {
        // Bytes that a mapping wrote behind the end of the file do not become part of the file.
        cut.truncate(3 * MIB + 100)?;
        let page = 3 * MIB + PAGE;
        cut.map.part_mut(page)[3 * MIB + 100..].fill(7);
        cut.truncate(4 * MIB)?;
        cut.check("grown over what a mapping wrote behind the end")?;
    }
    Ok(())
}
