//! Pages of the driver.

use crate::ffi;
use crate::{Errno, PAGE_SIZE, Range};
use core::ffi::c_void;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// Contiguous whole pages that a driver owns and may keep in place. Dropping the value frees them.
///
/// # Invariants
///
/// Only this value uses the pages, and they are in the direct map. `claimed` determines how they are freed.
#[derive(Debug)]
pub struct Memory {
    range: Range,
    /// Whether the pages arrived and were claimed; otherwise they come from kho.ko's arenas.
    claimed: bool,
}

impl Memory {
    /// Allocates `pages` zeroed pages outside scratch, from a few large arenas, so that many small pieces form few
    /// ranges.
    ///
    /// # Errors
    ///
    /// [`Errno::ENOMEM`].
    pub fn new(pages: usize) -> Result<Self, Errno> {
        let len = pages.checked_mul(PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let len = u64::try_from(len).map_err(|_| Errno::ENOMEM)?;
        match ffi::kho_alloc_range(pages) {
            0 => Err(Errno::ENOMEM),
            // INVARIANT: the pages were allocated just now.
            addr => Ok(Self {
                range: Range { addr, len },
                claimed: false,
            }),
        }
    }

    /// Makes a value from pages that the caller has claimed.
    pub(crate) const fn claimed(range: Range) -> Self {
        Self {
            range,
            claimed: true,
        }
    }

    /// Physical range of the pages.
    pub const fn range(&self) -> Range {
        self.range
    }

    fn len(&self) -> usize {
        // INVARIANT: an allocated or claimed range fits into the address space.
        usize::try_from(self.range.len).unwrap_or(0)
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the value owns the pages by the # Invariants.
        let at = unsafe { ffi::kho_range_address(self.range.addr) };
        // SAFETY: the pages are owned and mapped by the # Invariants.
        unsafe { core::slice::from_raw_parts(at.cast(), self.len()) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the value owns the pages by the # Invariants.
        let at = unsafe { ffi::kho_range_address(self.range.addr) };
        // SAFETY: the pages are owned and mapped by the # Invariants, and borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(at.cast(), self.len()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let pages = self.len() / PAGE_SIZE;
        if self.claimed {
            // SAFETY: the pages are claimed by the # Invariants, and this happens once.
            unsafe { ffi::kho_put_range(self.range.addr, pages) }
        } else {
            // SAFETY: the pages are allocated by the # Invariants, and this happens once.
            unsafe { ffi::kho_free_range(self.range.addr, pages) }
        }
    }
}

/// Pages that arrived and that the driver claimed, mapped one behind the other. Dropping the value frees them.
///
/// # Invariants
///
/// Only this value uses the pages, which are mapped at `at`, `len` bytes of them.
#[derive(Debug)]
pub struct Area {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is the same for all threads, and the value owns it by the # Invariants.
unsafe impl Send for Area {}
// SAFETY: shared references only read.
unsafe impl Sync for Area {}

impl Area {
    /// Makes a value from an area that the caller has just restored, or the error that the pointer encodes: the last 4095
    /// addresses are negative errnos (`include/linux/err.h`, 6.1 to 7.3).
    pub(crate) fn restored(at: *mut c_void, len: usize) -> Result<Self, Errno> {
        let code = i64::try_from(at.addr().wrapping_neg()).unwrap_or(0);
        if (1..4096).contains(&code) {
            return Err(Errno::check(code.saturating_neg())
                .err()
                .unwrap_or(Errno::EINVAL));
        }
        let at = NonNull::new(at.cast()).ok_or(Errno::EINVAL)?;
        // INVARIANT: kho.ko gave the area to this caller only.
        Ok(Self { at, len })
    }
}

impl Deref for Area {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the pages are owned and mapped by the # Invariants.
        unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl DerefMut for Area {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the pages are owned and mapped by the # Invariants, and borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the area was restored, and this happens once.
        unsafe { ffi::vfree(self.at.as_ptr().cast()) }
    }
}
