//! Sets of physical bytes kept as sorted, disjoint, merged ranges.

use crate::addr::{PhysAddr, PhysRange};
use alloc::vec::Vec;
use thiserror::Error;

/// An allocation failed. In a kernel this is an ordinary event and maps to `-ENOMEM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("out of memory")]
pub struct OutOfMemory;

/// A set of physical bytes.
///
/// # Invariants
///
/// The ranges are sorted by start and neither overlap nor touch, so a set has exactly one
/// representation and equality of sets is equality of the lists.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RangeSet {
    ranges: Vec<PhysRange>,
}

impl RangeSet {
    /// The empty set. Allocates nothing.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// The union of `ranges`, in any order, overlapping or not. O(n log n).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn from_ranges<I: IntoIterator<Item = PhysRange>>(ranges: I) -> Result<Self, OutOfMemory> {
        let mut list = Vec::new();
        for range in ranges {
            push(&mut list, range)?;
        }
        crate::sort::sort(&mut list);
        let mut set = Self::new();
        for range in list {
            set.push_merged(range)?;
        }
        Ok(set)
    }

    /// A copy, without the infallible allocation of `Clone`.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn try_clone(&self) -> Result<Self, OutOfMemory> {
        let mut ranges = Vec::new();
        ranges
            .try_reserve_exact(self.ranges.len())
            .map_err(|_| OutOfMemory)?;
        ranges.extend_from_slice(&self.ranges);
        Ok(Self { ranges })
    }

    /// The ranges, sorted by start.
    pub fn as_slice(&self) -> &[PhysRange] {
        &self.ranges
    }

    /// The ranges, sorted by start.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = PhysRange> + ExactSizeIterator + '_ {
        self.ranges.iter().copied()
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the set holds no byte.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of bytes in the set.
    pub fn total(&self) -> u64 {
        // INVARIANT: the ranges are disjoint in one 64-bit space, so the sum is below 2^64.
        self.ranges
            .iter()
            .fold(0u64, |sum, r| sum.saturating_add(r.len()))
    }

    /// The range from the lowest to the highest byte of the set; `None` if the set is empty.
    pub fn span(&self) -> Option<PhysRange> {
        let (first, last) = (self.ranges.first()?, self.ranges.last()?);
        PhysRange::from_bounds(first.start(), last.end()).ok()
    }

    /// Index of the first range that ends after `addr`.
    fn first_ending_after(&self, addr: PhysAddr) -> usize {
        self.ranges.partition_point(|r| r.end() <= addr)
    }

    /// The lowest range of the set that shares a byte with `range`. O(log n).
    pub fn first_overlap(&self, range: PhysRange) -> Option<PhysRange> {
        self.ranges
            .get(self.first_ending_after(range.start()))
            .copied()
            .filter(|r| r.overlaps(range))
    }

    /// Whether any byte of `range` is in the set.
    pub fn overlaps(&self, range: PhysRange) -> bool {
        self.first_overlap(range).is_some()
    }

    /// Number of bytes of `range` that are in the set. O(log n + k) for k ranges of the set that overlap `range`.
    pub fn overlap_len(&self, range: PhysRange) -> u64 {
        let from = self.first_ending_after(range.start());
        let rest = self.ranges.get(from..).unwrap_or_default();
        rest.iter()
            .map_while(|r| r.intersection(range))
            .fold(0, |sum, both| sum.saturating_add(both.len()))
    }

    /// Whether every byte of `range` is in the set.
    pub fn contains_range(&self, range: PhysRange) -> bool {
        self.first_overlap(range)
            .is_some_and(|r| r.contains_range(range))
    }

    /// Adds `range`. O(n) in the worst case, O(1) amortised when called in ascending order.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`]; the set is then unchanged.
    pub fn insert(&mut self, range: PhysRange) -> Result<(), OutOfMemory> {
        // `range` and everything that overlaps or touches it become one range.
        let from = self.ranges.partition_point(|r| r.end() < range.start());
        let to = self.ranges.partition_point(|r| r.start() <= range.end());
        let touched = self.ranges.get(from..to).unwrap_or(&[]);
        match (touched.first(), touched.last()) {
            (Some(first), Some(last)) => {
                let start = range.start().min(first.start());
                let end = range.end().max(last.end());
                let Ok(merged) = PhysRange::from_bounds(start, end) else {
                    return Ok(()); // not reachable: start <= range.start() < range.end() <= end
                };
                if let Some(slot) = self.ranges.get_mut(from) {
                    *slot = merged;
                }
                self.ranges.drain(from.saturating_add(1)..to);
            }
            _ => {
                self.ranges.try_reserve(1).map_err(|_| OutOfMemory)?;
                self.ranges.insert(from.min(self.ranges.len()), range);
            }
        }
        Ok(())
    }

    /// Removes every byte of `range`.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] when a range has to be split in two; the set is then unchanged.
    pub fn remove(&mut self, range: PhysRange) -> Result<(), OutOfMemory> {
        let from = self.first_ending_after(range.start());
        let to = self.ranges.partition_point(|r| r.start() < range.end());
        let touched = self.ranges.get(from..to).unwrap_or(&[]);
        let (Some(first), Some(last)) = (touched.first(), touched.last()) else {
            return Ok(());
        };
        let left = PhysRange::from_bounds(first.start(), range.start()).ok();
        let right = PhysRange::from_bounds(range.end(), last.end()).ok();
        // The set grows by at most one range. Reserving first makes a failed allocation change nothing.
        self.ranges.try_reserve(1).map_err(|_| OutOfMemory)?;
        self.ranges.splice(from..to, left.into_iter().chain(right));
        Ok(())
    }

    /// Bytes in either set. O(n + m).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn union(&self, other: &Self) -> Result<Self, OutOfMemory> {
        let mut out = Self::new();
        let (mut a, mut b) = (self.iter().peekable(), other.iter().peekable());
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if y < x => b.next(),
                (Some(_), _) => a.next(),
                (None, _) => b.next(),
            };
            match next {
                Some(range) => out.push_merged(range)?,
                None => return Ok(out),
            }
        }
    }

    /// Bytes in `self` that are not in `other`. O(n + m).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn subtract(&self, other: &Self) -> Result<Self, OutOfMemory> {
        let mut out = Self::new();
        let mut holes = other.ranges.as_slice();
        for range in self.iter() {
            let mut start = range.start();
            while let Some(hole) = holes.first() {
                if hole.end() <= start {
                    holes = holes.get(1..).unwrap_or(&[]);
                    continue;
                }
                if hole.start() >= range.end() {
                    break;
                }
                if let Ok(piece) = PhysRange::from_bounds(start, hole.start()) {
                    out.push_merged(piece)?;
                }
                start = hole.end();
                if start >= range.end() {
                    break;
                }
            }
            if let Ok(piece) = PhysRange::from_bounds(start, range.end()) {
                out.push_merged(piece)?;
            }
        }
        Ok(out)
    }

    /// Bytes in both sets. O(n + m).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn intersect(&self, other: &Self) -> Result<Self, OutOfMemory> {
        let mut out = Self::new();
        let (mut a, mut b) = (self.ranges.as_slice(), other.ranges.as_slice());
        while let (Some(x), Some(y)) = (a.first(), b.first()) {
            if let Some(both) = x.intersection(*y) {
                out.push_merged(both)?;
            }
            if x.end() <= y.end() {
                a = a.get(1..).unwrap_or(&[]);
            } else {
                b = b.get(1..).unwrap_or(&[]);
            }
        }
        Ok(out)
    }

    /// The bytes of `within` that are not in the set: its gaps. O(n).
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn gaps(&self, within: PhysRange) -> Result<Self, OutOfMemory> {
        Self::from_ranges([within])?.subtract(self)
    }

    /// Every range rounded outwards to whole pages; a range that cannot be rounded stays unchanged.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn page_outer(&self) -> Result<Self, OutOfMemory> {
        let mut out = Self::new();
        for range in self.iter() {
            out.push_merged(range.page_outer().unwrap_or(range))?;
        }
        Ok(out)
    }

    /// Every range rounded inwards to multiples of `align`; ranges without any are dropped.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn align_inner(&self, align: u64) -> Result<Self, OutOfMemory> {
        let mut out = Self::new();
        for range in self.iter().filter_map(|r| r.align_inner(align)) {
            out.push_merged(range)?;
        }
        Ok(out)
    }

    /// Appends a range that starts at or after the start of the last one.
    pub(crate) fn push_merged(&mut self, range: PhysRange) -> Result<(), OutOfMemory> {
        if let Some(last) = self.ranges.last_mut()
            && range.start() <= last.end()
        {
            if let Ok(merged) = PhysRange::from_bounds(last.start(), last.end().max(range.end())) {
                *last = merged;
            }
            return Ok(());
        }
        push(&mut self.ranges, range)
    }
}

/// `list.push(item)` that reports a failed allocation.
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), OutOfMemory> {
    list.try_reserve(1).map_err(|_| OutOfMemory)?;
    list.push(item);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec;

    const UNIVERSE: u64 = 200;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    fn bytes(set: &RangeSet) -> BTreeSet<u64> {
        set.iter()
            .flat_map(|r| r.start().get()..r.end().get())
            .collect()
    }

    fn well_formed(set: &RangeSet) -> bool {
        set.as_slice().windows(2).all(|w| w[0].end() < w[1].start())
    }

    fn some_ranges() -> impl Strategy<Value = Vec<PhysRange>> {
        proptest::collection::vec(
            (0..UNIVERSE, 1..20u64).prop_map(|(s, l)| range(s, l)),
            0..20,
        )
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_bytes(a in some_ranges(), b in some_ranges()) {
            let (sa, sb) = (RangeSet::from_ranges(a.clone()).unwrap(), RangeSet::from_ranges(b.clone()).unwrap());
            let (ba, bb) = (bytes(&sa), bytes(&sb));
            let naive: BTreeSet<u64> = a.iter().flat_map(|r| r.start().get()..r.end().get()).collect();
            prop_assert_eq!(&ba, &naive);
            for (got, want) in [
                (sa.union(&sb).unwrap(), ba.union(&bb).copied().collect::<BTreeSet<_>>()),
                (sa.subtract(&sb).unwrap(), ba.difference(&bb).copied().collect()),
                (sa.intersect(&sb).unwrap(), ba.intersection(&bb).copied().collect()),
                (sa.gaps(range(10, 150)).unwrap(), (10..160).filter(|x| !ba.contains(x)).collect()),
            ] {
                prop_assert!(well_formed(&got), "{:?}", got);
                prop_assert_eq!(bytes(&got), want);
            }
            let mut one_by_one = RangeSet::new();
            for r in &a { one_by_one.insert(*r).unwrap(); }
            prop_assert_eq!(&one_by_one, &sa);
            for r in &b { one_by_one.remove(*r).unwrap(); }
            prop_assert_eq!(&one_by_one, &sa.subtract(&sb).unwrap());
            prop_assert_eq!(sa.total(), ba.len() as u64);
            for r in b {
                let inside: vec::Vec<bool> = (r.start().get()..r.end().get()).map(|x| ba.contains(&x)).collect();
                prop_assert_eq!(sa.overlaps(r), inside.iter().any(|x| *x));
                prop_assert_eq!(sa.contains_range(r), inside.iter().all(|x| *x));
                let in_it = inside.iter().filter(|x| **x).count() as u64;
                prop_assert_eq!(sa.overlap_len(r), in_it);
            }
        }
    }

    #[test]
    fn touching_ranges_become_one() {
        let set = RangeSet::from_ranges([range(10, 5), range(15, 5), range(0, 10)]).unwrap();
        assert_eq!(set.as_slice(), &[range(0, 20)]);
        assert_eq!(set.span(), Some(range(0, 20)));
    }
}
