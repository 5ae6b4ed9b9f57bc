//! Calls of the kernel about pages, time and the log.

use super::ffi;
use alloc::vec::Vec;
use kho::{PAGE_SIZE, PhysRange};
use kho_decide::errno::{EINVAL, ENOMEM, Errno};

/// Number of pages of the machine.
pub fn ram_pages() -> u64 {
    ffi::khofs_c_ram_pages()
}

/// Freezes all state that the handover serializes, or ends the freeze. The caller must not hold the state's lock.
pub fn freeze(frozen: bool) {
    ffi::khofs_c_freeze(frozen);
}

/// Makes the kernel call [`crate::pages::reap`] after a while.
pub fn reap_later() {
    ffi::khofs_c_reap_later();
}

/// The present time: seconds since 1970, and nanoseconds.
pub fn now() -> (i64, u32) {
    let (mut seconds, mut nanoseconds) = (0, 0);
    // SAFETY: both pointers are writable variables.
    unsafe { ffi::khofs_c_now(&raw mut seconds, &raw mut nanoseconds) };
    (seconds, nanoseconds)
}

/// See [`System::more_pages`](khofs_decide::system::System::more_pages).
pub fn more_pages() -> Option<u64> {
    match ffi::kho_room() {
        u64::MAX => None,
        bytes => Some(bytes / PAGE_SIZE),
    }
}

/// Takes `count` contiguous zeroed pages from the system, each with one reference. Returns the first page frame.
pub fn take_pages(count: u64) -> Option<u64> {
    let count = usize::try_from(count).ok()?;
    Some(ffi::khofs_c_take_pages(count)).filter(|pfn| *pfn != 0)
}

/// Whether khofs has the only reference on a free page that [`khofs_decide::chunks::Chunks`] owns, and the page's
/// memory is good. If the page is in a folio (`folded`), splits that folio into pages.
pub fn is_ready(pfn: u64, folded: bool) -> bool {
    if folded {
        return unfold(pfn & !khofs_decide::bits::PAGES.saturating_sub(1));
    }
    // SAFETY: the page is owned, so it is RAM.
    let held_once = unsafe { ffi::khofs_c_page_count(pfn) } == 1;
    held_once && good_pages(pfn, 1) == 1
}

/// Number of good pages among the `count` pages from `pfn` on, before the first one whose memory failed. All of these
/// pages belong to files.
pub fn good_pages(pfn: u64, count: u64) -> u64 {
    // SAFETY: the pages are owned, or arrived and are trusted by kho.ko, so they are RAM with page frames.
    unsafe { ffi::khofs_c_good_pages(pfn, count) }
}

/// Whether the kernel has folios of 2 MiB.
pub fn large() -> bool {
    ffi::khofs_c_large()
}

/// Makes one folio of the pages of a chunk, all of which were free or arrived, and are in no file. Returns false if one
/// of them has another holder.
pub fn fold(base: u64) -> bool {
    // SAFETY: only pages that `Chunks` owns are folded, so they are RAM with page frames; and khofs_c_fold refuses
    // pages that have another holder.
    unsafe { ffi::khofs_c_fold(base) }
}

/// Splits a folio that is in no file into pages. Returns false if the folio has another holder, or if a part of its
/// memory failed.
pub fn unfold(base: u64) -> bool {
    // SAFETY: the first page of a folio that `Chunks` owns and records as one (`folded`), so it has page frames.
    unsafe { ffi::khofs_c_unfold(base) }
}

/// Returns a folio to the system that [`khofs_decide::chunks::Chunks`] has removed.
pub fn put_folio(base: u64) {
    // SAFETY: as for `put_page`, and the caller recorded the pages as a folio.
    unsafe { ffi::khofs_c_put_folio(base) }
}

/// Returns a page to the system that [`khofs_decide::chunks::Chunks`] has removed.
pub fn put_page(pfn: u64) {
    // SAFETY: khofs has one reference on each page that it owns, and `Chunks` removed this page just now.
    unsafe { ffi::khofs_c_page_put(pfn) }
}

/// Whether a page that arrived is still reserved, so not claimed.
pub fn is_reserved(pfn: u64) -> bool {
    // SAFETY: kho.ko trusts the range, so it is RAM with page frames.
    unsafe { ffi::khofs_c_reserved(pfn) }
}

/// Pages of kho.ko's arenas, with content.
///
/// # Invariants
///
/// The pages come from `khofs_c_alloc_pages` and were not freed yet.
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
        // INVARIANT: the pages were allocated just now.
        let block = Self { pfn, pages };
        let to = ffi::kho_c_virt(pfn.saturating_mul(PAGE_SIZE)).cast::<u8>();
        // SAFETY: `to` points to `pages` pages in the direct map that only this block uses, enough for the bytes.
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
        // SAFETY: by the # Invariants the pages are allocated, and this happens once.
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
    // SAFETY: RAM that arrived and is reserved (checked above), so it is in the direct map and no code writes to it.
    to.extend_from_slice(unsafe { core::slice::from_raw_parts(from, len) });
    Ok(())
}
