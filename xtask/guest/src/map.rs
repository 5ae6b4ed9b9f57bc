//! A mapped file.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use rustix::pipe::{IoSliceRaw, SpliceFlags, vmsplice};

/// Bytes of a page.
pub const PAGE: usize = 4096;

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
    /// Maps a file with at least one page.
    pub fn of(path: &Path, flags: MapFlags) -> Result<Self> {
        Self::at_least(path, flags, PAGE)
    }

    /// Maps a file with at least `least` bytes, which must not be 0.
    pub fn at_least(path: &Path, flags: MapFlags, least: usize) -> Result<Self> {
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

    /// Maps `len` bytes of a file. The caller must not touch the part behind the end of the file: the kernel has no
    /// page there.
    pub fn with(file: &File, len: usize, flags: MapFlags) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let at = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, file, 0) }
            .context("mapping the file")?;
        // INVARIANT: mapped above, and never unmapped.
        Ok(Self { at: at.cast(), len })
    }

    /// Address of the mapping.
    pub fn address(&self) -> usize {
        self.at.addr()
    }

    /// Tells the kernel that the memory of a page failed. Returns the kernel's answer.
    pub fn poison(&self, page: usize) -> rustix::io::Result<()> {
        let at = self.page(page).map_err(|_| rustix::io::Errno::INVAL)?;
        // SAFETY: a page of this mapping, which is not used after this call.
        unsafe { madvise(at.as_ptr().cast(), PAGE, Advice::LinuxHwPoison) }
    }

    /// Binds the memory to the nodes of these bits (`MPOL_BIND`, `include/uapi/linux/mempolicy.h`).
    pub fn bind(&self, nodes: u64) -> nix::Result<()> {
        // SAFETY: a policy for memory does not change what is in it, and the mask has as many bits as are said.
        let result = unsafe {
            nix::libc::syscall(
                nix::libc::SYS_mbind,
                self.at,
                self.len.next_multiple_of(PAGE),
                2,
                &raw const nodes,
                u64::BITS,
                0,
            )
        };
        nix::errno::Errno::result(result).map(drop)
    }

    /// Asks the kernel for huge pages.
    pub fn ask_for_huge_pages(&self) -> Result<()> {
        // SAFETY: the advice concerns this mapping and does not change its content.
        unsafe { madvise(self.at.cast(), self.len, Advice::LinuxHugepage) }
            .context("asking for huge pages")
    }

    /// The first word of each page.
    pub fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        (0..self.len / PAGE).map(|page| {
            // SAFETY: inside the mapping, by the # Invariants and the bound of the range above.
            let word = unsafe { self.at.add(page * PAGE) };
            // SAFETY: page-aligned and mapped by the # Invariants; all users of the word use it as an atomic.
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

    /// Puts the page at a multiple of 4096 into a pipe without a copy, so that the pipe holds the page itself.
    pub fn lend(&self, at: usize, pipe: &OwnedFd) -> Result<()> {
        let page = [IoSliceRaw::from_slice(&self.part(at + PAGE)[at..])];
        // SAFETY: a page of a mapping that stays until this process ends, by the # Invariants.
        let lent = unsafe { vmsplice(pipe, &page, SpliceFlags::empty()) }.context("vmsplice")?;
        ensure!(lent == PAGE, "{lent} bytes are in the pipe");
        Ok(())
    }

    /// The first word of a page.
    pub fn page(&self, page: usize) -> Result<&AtomicU64> {
        self.counters()
            .nth(page)
            .with_context(|| format!("there is no page {page}"))
    }

    /// Frame numbers of the file's pages, in order. All pages must be present:
    /// Documentation/admin-guide/mm/pagemap.rst, bit 63 of an entry; the number of the frame is in bits 0 to 54.
    pub fn frames(&self) -> Result<Vec<u64>> {
        self.some_frames(0, self.len.div_ceil(PAGE))
    }

    /// Frame numbers of pages `first..first + count`.
    pub fn some_frames(&self, first: usize, count: usize) -> Result<Vec<u64>> {
        let pagemap = File::open("/proc/self/pagemap").context("opening the page map")?;
        let mut entries = vec![0; count * 8];
        let offset = ((self.at.addr() / PAGE + first) * 8) as u64;
        pagemap
            .read_exact_at(&mut entries, offset)
            .context("reading the page map")?;
        let frame = |(index, entry): (usize, &[u8; 8])| {
            let entry = u64::from_ne_bytes(*entry);
            let frame = entry & ((1 << 55) - 1);
            ensure!(
                entry >> 63 == 1 && frame != 0,
                "page {} has no frame: {entry:#x}",
                first + index
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

    /// The first `len` bytes, if the file has as many.
    pub fn part(&self, len: usize) -> &[u8] {
        // SAFETY: as in `bytes`, and not longer than the mapping.
        unsafe { std::slice::from_raw_parts(self.at, len.min(self.len)) }
    }

    /// The first `len` bytes, for writing by the only thread.
    #[allow(
        clippy::mut_from_ref,
        reason = "the file is what changes, as by any of its descriptors"
    )]
    pub fn part_mut(&self, len: usize) -> &mut [u8] {
        // SAFETY: as above, and the caller holds no other part meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.at, len.min(self.len)) }
    }

    /// All bytes of the mapping.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped by the # Invariants; the test's script makes sure that no one else writes the file meanwhile.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    /// All bytes of the mapping, to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

/// Makes an empty file, or empties the one that exists, to be read and written.
pub fn new_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("making {}", path.display()))
}
