//! Physical addresses and ranges whose arithmetic cannot wrap.
//!
//! Neither type implements `+` or `-`: every operation that can leave the address space is a named method that returns
//! `Option` or `Result`, so that an integer from a hostile image or tree never turns into an unchecked address.

use core::fmt;
use thiserror::Error;

/// Bytes in a base page on x86_64 and on arm64 as Debian configures it.
///
/// Early boot reserves byte ranges, but memory is owned by the page, so every range that is handed over is rounded to
/// this size.
pub const PAGE_SIZE: u64 = 4096;

/// A physical byte address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// The address `raw`.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The address as an integer, in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `self + bytes`, or `None` past the end of the 64-bit address space.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// `self - bytes`, or `None` below zero.
    pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
        match self.0.checked_sub(bytes) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// Bytes from `earlier` up to `self`, or `None` when `earlier` is above `self`.
    pub const fn offset_from(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The highest multiple of `align` that is not above `self`; `None` unless `align` is a power of two.
    pub const fn align_down(self, align: u64) -> Option<Self> {
        if !align.is_power_of_two() {
            return None;
        }
        Some(Self(self.0 & !(align.wrapping_sub(1))))
    }

    /// The lowest multiple of `align` that is not below `self`; `None` unless `align` is a power of two
    /// and the result is representable.
    pub const fn align_up(self, align: u64) -> Option<Self> {
        if !align.is_power_of_two() {
            return None;
        }
        match self.0.checked_next_multiple_of(align) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// Whether the address is a multiple of `align` (false for an `align` of zero).
    pub const fn is_aligned(self, align: u64) -> bool {
        self.0.is_multiple_of(align) && align != 0
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Why a `(start, length)` pair is not a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RangeError {
    /// The length is zero.
    #[error("range at {start} is empty")]
    Empty {
        /// Start of the pair.
        start: PhysAddr,
    },
    /// `start + len` is not representable in 64 bits.
    #[error("range at {start} with length {len:#x} wraps past the end of the address space")]
    Wraps {
        /// Start of the pair.
        start: PhysAddr,
        /// The length in bytes that does not fit.
        len: u64,
    },
    /// The end is below the start.
    #[error("range from {start} to {end} ends before it starts")]
    Reversed {
        /// The claimed start.
        start: PhysAddr,
        /// The claimed end (exclusive).
        end: PhysAddr,
    },
}

/// A non-empty half-open range of physical bytes, `[start, end)`.
///
/// # Invariants
///
/// `start < end`. The last page of the 64-bit address space cannot be named, because `end` would not be
/// representable; no machine has memory there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysRange {
    start: PhysAddr,
    end: PhysAddr,
}

impl PhysRange {
    /// The range of `len` bytes at `start`.
    ///
    /// # Errors
    ///
    /// [`RangeError::Empty`] for a length of zero, [`RangeError::Wraps`] when the end is not representable.
    pub const fn new(start: PhysAddr, len: u64) -> Result<Self, RangeError> {
        if len == 0 {
            return Err(RangeError::Empty { start });
        }
        match start.checked_add(len) {
            // INVARIANT: len > 0 and the sum did not wrap, so start < end.
            Some(end) => Ok(Self { start, end }),
            None => Err(RangeError::Wraps { start, len }),
        }
    }

    /// The range from `start` up to but not including `end`.
    ///
    /// # Errors
    ///
    /// [`RangeError::Empty`] when both are equal, [`RangeError::Reversed`] when `end` is below `start`.
    pub const fn from_bounds(start: PhysAddr, end: PhysAddr) -> Result<Self, RangeError> {
        if start.0 == end.0 {
            return Err(RangeError::Empty { start });
        }
        if end.0 < start.0 {
            return Err(RangeError::Reversed { start, end });
        }
        // INVARIANT: start < end was just checked.
        Ok(Self { start, end })
    }

    /// First byte.
    pub const fn start(self) -> PhysAddr {
        self.start
    }

    /// First byte after the range.
    pub const fn end(self) -> PhysAddr {
        self.end
    }

    /// Length in bytes, at least 1.
    pub const fn len(self) -> u64 {
        // INVARIANT: start < end, so the subtraction does not wrap.
        self.end.0.wrapping_sub(self.start.0)
    }

    /// Always false, because a range is never empty. Exists because `len` does.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Number of base pages the range touches.
    pub const fn pages(self) -> u64 {
        let first = self.start.0 / PAGE_SIZE;
        let last = self.end.0.wrapping_sub(1) / PAGE_SIZE;
        last.wrapping_sub(first).wrapping_add(1)
    }

    /// Whether `addr` lies inside.
    pub const fn contains(self, addr: PhysAddr) -> bool {
        self.start.0 <= addr.0 && addr.0 < self.end.0
    }

    /// Whether all of `other` lies inside.
    pub const fn contains_range(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// Whether the two ranges share at least one byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end.0 && other.start.0 < self.end.0
    }

    /// The bytes that are in both ranges; `None` if they share no byte.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::from_bounds(self.start.max(other.start), self.end.min(other.end)).ok()
    }

    /// Whether start and end are multiples of [`PAGE_SIZE`].
    pub const fn is_page_aligned(self) -> bool {
        self.start.is_aligned(PAGE_SIZE) && self.end.is_aligned(PAGE_SIZE)
    }

    /// The smallest page-aligned range that covers this one; `None` when its end is not representable.
    pub fn page_outer(self) -> Option<Self> {
        Self::from_bounds(
            self.start.align_down(PAGE_SIZE)?,
            self.end.align_up(PAGE_SIZE)?,
        )
        .ok()
    }

    /// The largest range inside this range that starts and ends at a multiple of `align`; `None` if no such range
    /// exists, or if `align` is not a power of two.
    pub fn align_inner(self, align: u64) -> Option<Self> {
        Self::from_bounds(self.start.align_up(align)?, self.end.align_down(align)?).ok()
    }

    /// The first `len` bytes, and the rest; `None` unless `0 < len < self.len()`.
    pub fn split_at(self, len: u64) -> Option<(Self, Self)> {
        let mid = self.start.checked_add(len)?;
        Some((
            Self::from_bounds(self.start, mid).ok()?,
            Self::from_bounds(mid, self.end).ok()?,
        ))
    }
}

impl fmt::Display for PhysRange {
    /// Prints `[0xSTART-0xEND)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}-{})", self.start, self.end)
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    #[test]
    fn refuses_what_is_not_a_range() {
        let at = PhysAddr::new;
        assert_eq!(
            PhysRange::new(at(5), 0),
            Err(RangeError::Empty { start: at(5) })
        );
        assert_eq!(
            PhysRange::new(at(u64::MAX), 1),
            Err(RangeError::Wraps {
                start: at(u64::MAX),
                len: 1
            })
        );
        assert_eq!(
            PhysRange::from_bounds(at(9), at(8)),
            Err(RangeError::Reversed {
                start: at(9),
                end: at(8)
            })
        );
        assert!(PhysRange::new(at(u64::MAX - 1), 1).is_ok());
    }

    #[test]
    fn pages_counts_every_page_touched() {
        assert_eq!(range(0, 1).pages(), 1);
        assert_eq!(range(4095, 2).pages(), 2);
        assert_eq!(range(4096, 8192).pages(), 2);
    }

    #[test]
    fn outer_grows_and_inner_shrinks() {
        let r = range(0x1001, 0x2000);
        assert_eq!(r.page_outer(), Some(range(0x1000, 0x3000)));
        assert_eq!(r.align_inner(PAGE_SIZE), Some(range(0x2000, 0x1000)));
        assert_eq!(range(0x1001, 0x100).align_inner(PAGE_SIZE), None);
        let top =
            PhysRange::from_bounds(PhysAddr::new(u64::MAX - 5), PhysAddr::new(u64::MAX)).unwrap();
        assert_eq!(top.page_outer(), None);
    }

    #[test]
    fn alignment_refuses_what_is_not_a_power_of_two() {
        let a = PhysAddr::new(0x1234);
        assert_eq!(a.align_up(0), None);
        assert_eq!(a.align_down(3), None);
        assert!(!a.is_aligned(0));
        assert_eq!(PhysAddr::new(u64::MAX).align_up(PAGE_SIZE), None);
    }
}
