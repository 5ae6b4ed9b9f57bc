//! Calls of the kernel about pages, time and the log.

use super::ffi;
use alloc::vec::Vec;
use kho::{PAGE_SIZE, PhysRange};
use kho_decide::errno::{EINVAL, ENOMEM, Errno};

/// Pages of the machine.
pub fn ram_pages() -> u64 {
    ffi::khofs_c_ram_pages()
}

/// Freezes everything that is written down, or ends the freeze. The caller must not hold the state's lock.
pub fn freeze(frozen: bool) {
    ffi::khofs_c_freeze(frozen);
}

/// Makes the kernel call [`crate::pages::reap`] in a while.
pub fn reap_later() {
    ffi::khofs_c_reap_later();
}

/// Seconds since 1970 and nanoseconds.
pub fn now() -> (i64, u32) {
    let (mut seconds, mut nanoseconds) = (0, 0);
    // SAFETY: writable variables.
    unsafe { ffi::khofs_c_now(&raw mut seconds, &raw mut nanoseconds) };
    (seconds, nanoseconds)
}

/// Takes `count` contiguous zeroed pages from the system, each with one reference. Returns the first page frame.
pub fn take_pages(count: u64) -> Option<u64> {
    let count = usize::try_from(count).ok()?;
    Some(ffi::khofs_c_take_pages(count)).filter(|pfn| *pfn != 0)
}

/// Whether only khofs holds a free page that [`khofs_decide::chunks::Chunks`] owns, and the page's memory is good. If
/// the page is in a folio (`folded`), splits that folio into pages.
pub fn is_ready(pfn: u64, folded: bool) -> bool {
    if folded {
        return unfold(pfn & !khofs_decide::bits::PAGES.saturating_sub(1));
    }
    // SAFETY: asked for pages that are owned, so they are RAM.
    let held_once = unsafe { ffi::khofs_c_page_count(pfn) } == 1;
    held_once && good_pages(pfn, 1) == 1
}

/// Number of good pages among the `count` pages from `pfn` on, before the first one whose memory failed. All of these
/// pages belong to files.
pub fn good_pages(pfn: u64, count: u64) -> u64 {
    // SAFETY: owned, or arrived and believed by kho.ko, so they are RAM with page frames.
    unsafe { ffi::khofs_c_good_pages(pfn, count) }
}

/// Whether there are folios of 2 MiB.
pub fn large() -> bool {
    ffi::khofs_c_large()
}

/// Makes one folio of the pages of a chunk, all of which were taken from the free ones or arrived, and are in no file.
/// False if one of them has another holder.
pub fn fold(base: u64) -> bool {
    // SAFETY: RAM with page frames, as only pages that `Chunks` owns are folded, and a folio is made of none that
    // others hold.
    unsafe { ffi::khofs_c_fold(base) }
}

/// Splits a folio that is in no file into pages. False if the folio has another holder, or a part of its memory failed.
pub fn unfold(base: u64) -> bool {
    // SAFETY: the head of a folio that `Chunks` owns and noted as one (`folded`), so it has page frames.
    unsafe { ffi::khofs_c_unfold(base) }
}

/// Gives a folio back to the system that [`khofs_decide::chunks::Chunks`] has forgotten.
pub fn put_folio(base: u64) {
    // SAFETY: as for `put_page`, and the caller noted it as a folio.
    unsafe { ffi::khofs_c_put_folio(base) }
}

/// Gives a page back to the system that [`khofs_decide::chunks::Chunks`] has forgotten.
pub fn put_page(pfn: u64) {
    // SAFETY: khofs has one reference on each page that it owns, and this was forgotten just now.
    unsafe { ffi::khofs_c_page_put(pfn) }
}

/// Whether a page of what arrived is still reserved, so not claimed.
pub fn is_reserved(pfn: u64) -> bool {
    // SAFETY: kho.ko believed the range, so it is RAM with page frames.
    unsafe { ffi::khofs_c_reserved(pfn) }
}

/// Pages of kho.ko's arenas with content.
///
/// # Invariants
///
/// The pages come from `khofs_c_alloc_pages` and were not given back yet.
pub struct Block {
    pfn: u64,
    pages: usize,
}

impl Block {
    /// Allocates as many pages as `bytes` need, and copies `bytes` into them.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn with(bytes: &[u8]) -> Result<Self, Errno> {
        let pages = bytes.len().div_ceil(PAGE_SIZE as usize);
        let pfn = ffi::khofs_c_alloc_pages(pages);
        if pfn == 0 {
            return Err(ENOMEM);
        }
        // INVARIANT: just allocated.
        let block = Self { pfn, pages };
        let to = ffi::kho_c_virt(pfn.saturating_mul(PAGE_SIZE)).cast::<u8>();
        // SAFETY: `pages` pages in the direct map that only this block uses, enough for the bytes.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(block)
    }

    /// Physical range of the pages.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn range(&self) -> Result<PhysRange, Errno> {
        khofs_decide::pack::range(khofs_decide::extents::Extent {
            index: 0,
            pfn: self.pfn,
            count: self.pages as u64,
        })
        .ok_or(EINVAL)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: by the # Invariants.
        unsafe { ffi::khofs_c_free_pages(self.pfn, self.pages) }
    }
}

/// Appends to `to` the bytes of a range that arrived and is unclaimed, at most `limit` bytes.
///
/// # Errors
///
/// [`EINVAL`] if the range is not reserved any more; no memory.
pub fn read_arrived(range: PhysRange, limit: usize, to: &mut Vec<u8>) -> Result<(), Errno> {
    let first = range.start().get() / PAGE_SIZE;
    if !(first..first.saturating_add(range.pages())).all(is_reserved) {
        return Err(EINVAL);
    }
    let len = usize::try_from(range.len()).map_err(|_| EINVAL)?.min(limit);
    to.try_reserve_exact(len)?;
    let from = ffi::kho_c_virt(range.start().get()).cast::<u8>();
    // SAFETY: RAM that arrived and is reserved (checked above), so it is in the direct map and nobody writes it.
    to.extend_from_slice(unsafe { core::slice::from_raw_parts(from, len) });
    Ok(())
}
