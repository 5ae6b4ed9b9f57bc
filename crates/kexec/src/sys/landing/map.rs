//! The mappings of the landing zone: the only raw memory in this crate.
#![allow(unsafe_code)] // mmap, mremap and the slices over the memory that they return

use super::error::LandingError;
use super::huge::{HUGE, HUGE_LEN};
use crate::sys::root::{FactError, Root};
use core::ffi::c_void;
use core::ptr::NonNull;
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A range of this process's address space that no other value uses: private anonymous memory.
///
/// # Invariants
///
/// `start..start + len` is mapped, belongs to this value alone, and `start` and `len` are multiples of the size of the
/// pages behind it. `len` may be 0; then nothing is mapped. All of it can be read and written, unless it is a window
/// with parts that are not filled.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is reached only through `&self` and `&mut self`, and unmapping from another thread is
// allowed.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&self` only reads.
unsafe impl Sync for Mapping {}

fn fail(call: &'static str, bytes: u64) -> impl Fn(rustix::io::Errno) -> LandingError {
    move |errno| LandingError::Call {
        call,
        bytes,
        source: errno.into(),
    }
}

fn anonymous(len: usize, prot: ProtFlags, flags: MapFlags) -> rustix::io::Result<Mapping> {
    // SAFETY: without MAP_FIXED and with a null hint the kernel picks a range that is free.
    let start = unsafe {
        rustix::mm::mmap_anonymous(core::ptr::null_mut(), len, prot, flags | MapFlags::PRIVATE)
    }?;
    match NonNull::new(start.cast()) {
        Some(start) => Ok(Mapping { start, len }),
        None => Err(rustix::io::Errno::NOMEM), // not reachable: the kernel never picks page 0
    }
}

const RW: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

impl Mapping {
    /// Maps `bytes` (a multiple of 2 MiB) in hugetlb pages, all of them present.
    pub(super) fn hugetlb(bytes: u64) -> Result<Self, LandingError> {
        let failed = fail("mmap(MAP_HUGETLB)", bytes);
        let len = usize::try_from(bytes).unwrap_or(0);
        if len == 0 {
            return Err(failed(rustix::io::Errno::INVAL));
        }
        let flags = MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        let mapping = anonymous(len, RW, flags).map_err(failed)?;
        mapping.advise(Advice::LinuxDontFork, "madvise(MADV_DONTFORK)")?;
        mapping.advise(Advice::LinuxPopulateWrite, "madvise(MADV_POPULATE_WRITE)")?;
        Ok(mapping)
    }

    /// Maps `bytes` (a multiple of 2 MiB) in ordinary pages, all of them present, and in huge pages if the kernel has
    /// some.
    pub(super) fn ordinary(bytes: u64) -> Result<Self, LandingError> {
        let failed = fail("mmap", bytes);
        let huge = HUGE_LEN;
        let len = usize::try_from(bytes).unwrap_or(0);
        let Some(room) = len.checked_add(huge).filter(|_| len > 0) else {
            return Err(failed(rustix::io::Errno::INVAL));
        };
        let all = anonymous(room, RW, MapFlags::empty()).map_err(failed)?;
        // A huge page needs an aligned address.
        let address = all.start.as_ptr() as usize;
        let (_, aligned) = all.split(address.next_multiple_of(huge) - address);
        let (mapping, _) = aligned.split(len);
        // Kernels without transparent huge pages refuse this call; small pages serve as well.
        let _ = mapping.advise(Advice::LinuxHugepage, "madvise(MADV_HUGEPAGE)");
        mapping.advise(Advice::LinuxDontFork, "madvise(MADV_DONTFORK)")?;
        mapping.advise(Advice::LinuxPopulateWrite, "madvise(MADV_POPULATE_WRITE)")?;
        Ok(mapping)
    }

    /// Reserves address space for the run `range`, without memory, to be filled with [`Mapping::accept`]. Its address
    /// and the physical one agree modulo 2 MiB, so that huge pages fit.
    pub(super) fn window(range: PhysRange) -> Result<Self, LandingError> {
        let failed = fail("mmap(PROT_NONE)", range.len());
        let huge = HUGE_LEN;
        let len = usize::try_from(range.len()).ok();
        let skew = usize::try_from(range.start().get() % HUGE).unwrap_or(0);
        let (Some(len), Some(room)) = (len, len.and_then(|l| l.checked_add(2 * huge))) else {
            return Err(failed(rustix::io::Errno::NOMEM));
        };
        let flags = MapFlags::NORESERVE;
        let all = anonymous(room, ProtFlags::empty(), flags).map_err(failed)?;
        let address = all.start.as_ptr() as usize;
        let (_, aligned) = all.split(address.next_multiple_of(huge) + skew - address);
        Ok(aligned.split(len).0)
    }

    /// Returns the length of the mapping, in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Splits the mapping into the first `at` bytes and the rest; `at` is a multiple of the page size. Only
    /// bookkeeping.
    pub(super) fn split(self, at: usize) -> (Self, Self) {
        let at = at.min(self.len);
        let (start, len) = (self.start, self.len);
        core::mem::forget(self);
        // SAFETY: `at <= len`, so the result is inside the mapping or one past its end.
        let second = unsafe { start.add(at) };
        (
            Self { start, len: at },
            Self {
                start: second,
                len: len - at,
            },
        )
    }

    /// Moves the pages of `piece` to `at` bytes from the start of this window. The pages stay where they are
    /// physically.
    pub(super) fn accept(&mut self, at: usize, piece: Self) -> Result<(), LandingError> {
        let failed = fail("mremap", piece.len as u64);
        if piece.len == 0 {
            return Ok(());
        }
        if at.checked_add(piece.len).is_none_or(|end| end > self.len) {
            return Err(failed(rustix::io::Errno::INVAL));
        }
        // SAFETY: `at` is inside the window, as was just checked.
        let target = unsafe { self.start.add(at) };
        // SAFETY: the old range belongs to `piece` alone and no reference to it exists, because `piece` is owned here.
        // The new range is part of this window, which `&mut self` borrows exclusively; the call unmaps the mapping
        // there, which is address space without memory.
        let moved = unsafe {
            rustix::mm::mremap_fixed(
                piece.start.as_ptr().cast::<c_void>(),
                piece.len,
                piece.len,
                MremapFlags::MAYMOVE,
                target.as_ptr().cast::<c_void>(),
            )
        };
        match moved {
            Ok(_) => {
                // No value owns the old addresses now, so `drop` must not unmap them.
                core::mem::forget(piece);
                Ok(())
            }
            Err(errno) => {
                // This part of the window may be unmapped by now, and another thread may use its addresses. So `drop`
                // must not unmap the window as a whole: the window and the pieces moved into it stay until the process
                // ends.
                self.len = 0;
                Err(failed(errno))
            }
        }
    }

    /// Locks the pages in memory. They may still move to another physical address.
    pub(super) fn lock(&self) -> Result<(), LandingError> {
        // SAFETY: the range is mapped and belongs to this value; locking changes no content.
        unsafe { rustix::mm::mlock(self.start.as_ptr().cast(), self.len) }
            .map_err(fail("mlock", self.len as u64))
    }

    fn advise(&self, advice: Advice, call: &'static str) -> Result<(), LandingError> {
        // SAFETY: the range is mapped, belongs to this value and is not borrowed; none of the advice used here (huge
        // pages, not inherited by children, populate) changes its content.
        unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.len, advice) }
            .map_err(fail(call, self.len as u64))
    }

    /// Returns the memory. Only for mappings without gaps.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: by the invariant `len` bytes from `start` can be read and written and belong to this value, which the
        // result borrows exclusively; anonymous memory is initialised with zeros.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the range is mapped, belongs to this value alone, and no reference outlives it.
            let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}

/// Finds the pages of a mapping: returns physically contiguous stretches with their offset in the mapping, in order.
///
/// `/proc/self/pagemap` has a `u64` per page: bit 63 says present, bits 0 to 54 are the frame
/// (`Documentation/admin-guide/mm/pagemap.rst`), which reads as 0 without CAP_SYS_ADMIN. A page that is not
/// present is left out.
pub(super) fn locate(
    root: &Root,
    mapping: &Mapping,
) -> Result<Vec<(usize, PhysRange)>, LandingError> {
    const BATCH: usize = 64 * 1024;
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let path = root.path("proc/self/pagemap");
    let io = |e| LandingError::Fact(FactError::io(&path, e));
    let file = File::open(&path).map_err(io)?;
    let first = mapping.start.as_ptr() as u64 / PAGE_SIZE;
    let pages = mapping.len as u64 / PAGE_SIZE;
    let mut out: Vec<(usize, PhysRange)> = Vec::new();
    let mut entries = vec![0u64; BATCH];
    let mut done = 0u64;
    while done < pages {
        let count = usize::try_from(pages - done).map_or(BATCH, |n| n.min(BATCH));
        let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut entries[..count]);
        file.read_exact_at(bytes, (first + done) * 8).map_err(io)?;
        for (page, entry) in (done..).zip(&entries[..count]) {
            if entry & PRESENT == 0 {
                continue;
            }
            let frame = entry & FRAME;
            if frame == 0 {
                return Err(LandingError::Hidden);
            }
            // Frame numbers have at most 52 bits on every machine; a number that does not fit is not memory.
            let Some(Ok(range)) = frame
                .checked_mul(PAGE_SIZE)
                .map(|at| PhysRange::new(PhysAddr::new(at), PAGE_SIZE))
            else {
                continue;
            };
            let Ok(offset) = usize::try_from(page * PAGE_SIZE) else {
                continue;
            };
            if let Some((start, last)) = out.last_mut()
                && last.end() == range.start()
                && offset as u64 == *start as u64 + last.len()
                && let Ok(longer) = PhysRange::from_bounds(last.start(), range.end())
            {
                *last = longer;
            } else {
                out.push((offset, range));
            }
        }
        done += count as u64;
    }
    Ok(out)
}
