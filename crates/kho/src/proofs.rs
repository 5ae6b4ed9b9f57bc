//! Harnesses in the form that Kani runs (`cargo kani -p kho`). They were **not run**: Kani's own bundle could not be had where
//! this was written, so they are not compiled either. `tests/exhaustive.rs` checks the same claims for small cases.

use crate::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

fn any_range() -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(kani::any()), kani::any()).ok()
}

/// A range never wraps, and its end is its start and length.
#[kani::proof]
fn ranges_do_not_wrap() {
    if let Some(range) = any_range() {
        assert!(range.len() > 0);
        assert!(range.start().get().checked_add(range.len()) == Some(range.end().get()));
    }
}

/// Two ranges overlap exactly when they share a byte.
#[kani::proof]
fn overlap_is_a_shared_byte() {
    let (Some(a), Some(b)) = (any_range(), any_range()) else {
        return;
    };
    let byte = PhysAddr::new(kani::any());
    if a.contains(byte) && b.contains(byte) {
        assert!(a.overlaps(b));
    }
    if a.overlaps(b) {
        let first = a.start().max(b.start());
        assert!(a.contains(first) && b.contains(first));
        assert!(a.intersection(b).is_some_and(|both| both.start() == first));
    }
}

/// Rounding out covers, and adds less than a page at each end.
#[kani::proof]
fn rounding_out_covers() {
    let Some(range) = any_range() else { return };
    if let Some(outer) = range.page_outer() {
        assert!(outer.is_page_aligned() && outer.contains_range(range));
        assert!(range.start().get() - outer.start().get() < PAGE_SIZE);
        assert!(outer.end().get() - range.end().get() < PAGE_SIZE);
    }
}

/// What was removed is gone, and nothing else is.
#[kani::proof]
#[kani::unwind(4)]
fn removing_removes() {
    let (Some(a), Some(b), Some(gone)) = (any_range(), any_range(), any_range()) else {
        return;
    };
    let (Ok(before), Ok(mut set)) = (RangeSet::from_ranges([a, b]), RangeSet::from_ranges([a, b]))
    else {
        return;
    };
    if set.remove(gone).is_ok() {
        let byte = PhysAddr::new(kani::any());
        let holds = |set: &RangeSet| set.iter().any(|range| range.contains(byte));
        assert!(holds(&set) == (holds(&before) && !gone.contains(byte)));
    }
}
