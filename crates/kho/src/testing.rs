//! Parts from which the unit tests of several modules make their cases.

use crate::image::KernelNeeds;
use crate::{PhysAddr, PhysRange, RangeSet};

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// The range from `start` up to but not including `end`.
pub fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

pub fn set(ranges: impl IntoIterator<Item = PhysRange>) -> RangeSet {
    RangeSet::from_ranges(ranges).unwrap()
}

/// Sizes like those of Debian's 6.12: a file of 12 MiB, `init_size` of 60 MiB.
pub const KERNEL: KernelNeeds = KernelNeeds {
    file_len: 12 * MIB,
    mem_size: 60 * MIB,
    align: 2 * MIB,
    preferred: PhysAddr::new(16 * MIB),
    above_4g: true,
    random: None,
};
