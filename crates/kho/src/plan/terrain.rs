//! RAM, and the parts of it where nothing may be kept.

use super::error::{Barrier, PlanError};
use crate::addr::{PhysAddr, PhysRange};
use crate::image::LOW_MEMORY_END;
use crate::ranges::RangeSet;

/// The memory of one plan, derived once from the request.
pub(super) struct Terrain {
    /// RAM under the next command line.
    pub(super) ram: RangeSet,
    /// Memory that no kept byte and no slack may be in: holes, the low 1 MiB, pinned pages, scratch.
    pub(super) forbidden: RangeSet,
}

impl Terrain {
    pub(super) fn new(
        ram: RangeSet,
        pinned: &RangeSet,
        scratch: PhysRange,
    ) -> Result<Self, PlanError> {
        let mut forbidden = match PhysRange::from_bounds(PhysAddr::new(0), PhysAddr::new(u64::MAX))
        {
            Ok(everything) => ram.gaps(everything)?,
            Err(_) => RangeSet::new(),
        };
        for range in low_memory().into_iter().chain([scratch]) {
            forbidden.insert(range)?;
        }
        let forbidden = forbidden.union(pinned)?;
        Ok(Self { ram, forbidden })
    }
}

/// Refuses kept ranges that are not RAM, reach into the low 1 MiB or overlap pinned pages.
pub(super) fn check_kept(
    kept: &RangeSet,
    ram: &RangeSet,
    pinned: &RangeSet,
) -> Result<(), PlanError> {
    for range in kept.iter() {
        if !ram.contains_range(range) {
            // Rounding to pages can extend a range past the address space, where `gaps` finds no hole. The error then
            // names the whole range.
            let hole = ram.gaps(range)?.iter().next().unwrap_or(range);
            return Err(PlanError::OutsideRam { range, hole });
        }
        if range.start() < LOW_MEMORY_END {
            return Err(PlanError::Overlap {
                range,
                with: low_memory().unwrap_or(range),
                barrier: Barrier::LowMemory,
            });
        }
        if let Some(with) = pinned.first_overlap(range) {
            return Err(PlanError::Overlap {
                range,
                with,
                barrier: Barrier::Pinned,
            });
        }
    }
    Ok(())
}

/// The low 1 MiB.
fn low_memory() -> Option<PhysRange> {
    PhysRange::from_bounds(PhysAddr::new(0), LOW_MEMORY_END).ok()
}
