//! Pages of the driver.

use crate::ffi;
use crate::{Errno, PAGE_SIZE, Range};
use core::ops::{Deref, DerefMut};

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
