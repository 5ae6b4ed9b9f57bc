//! Walks over pages.

use crate::errno::{EINVAL, Errno};
use crate::iomem::Map;
use core::ops::Range;
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

/// Largest piece, in bytes, that is accounted or freed at once: 2 MiB, so that no piece crosses a zone.
pub const CHUNK: u64 = 2 << 20;

/// The page frames of a page-aligned range.
pub fn pfns(range: PhysRange) -> Range<u64> {
    range.start().get() / PAGE_SIZE..range.end().get() / PAGE_SIZE
}

/// The range of `count` pages from `pfn`.
pub fn range_of(pfn: u64, count: u64) -> Option<PhysRange> {
    PhysRange::new(
        PhysAddr::new(pfn.checked_mul(PAGE_SIZE)?),
        count.checked_mul(PAGE_SIZE)?,
    )
    .ok()
}

/// `range` in pieces that end at multiples of [`CHUNK`].
pub fn chunks(range: PhysRange) -> impl Iterator<Item = PhysRange> {
    let mut rest = Some(range);
    core::iter::from_fn(move || {
        let now = rest?;
        let next = now.start().checked_add(1).and_then(|a| a.align_up(CHUNK));
        let end = next.filter(|n| *n < now.end()).unwrap_or(now.end());
        rest = PhysRange::from_bounds(end, now.end()).ok();
        PhysRange::from_bounds(now.start(), end).ok()
    })
}

/// Runs of the pages of `range` that are not `bad`.
pub fn good_runs(range: PhysRange, bad: impl Fn(u64) -> bool) -> impl Iterator<Item = PhysRange> {
    let mut rest = pfns(range);
    core::iter::from_fn(move || {
        let first = rest.find(|pfn| !bad(*pfn))?;
        let bad = rest.find(|pfn| bad(*pfn));
        let end = bad.unwrap_or(rest.end);
        range_of(first, end.saturating_sub(first))
    })
}

/// The pages of `wanted` for which `still` is true, and the number of the other pages.
///
/// # Errors
///
/// [`EINVAL`] if a range of `wanted` is not page-aligned, not RAM outside of this kernel's image, or not `handed` over;
/// no memory.
pub fn left_of(
    wanted: &RangeSet,
    map: &Map,
    handed: &RangeSet,
    still: impl Fn(u64) -> bool,
) -> Result<(RangeSet, u64), Errno> {
    for range in wanted.iter() {
        if !range.is_page_aligned()
            || !map.ram.contains_range(range)
            || map.taken.overlaps(range)
            || !handed.contains_range(range)
        {
            return Err(EINVAL);
        }
    }
    let mut set = RangeSet::new();
    for run in wanted
        .iter()
        .flat_map(|range| good_runs(range, |pfn| !still(pfn)))
    {
        set.insert(run)?;
    }
    let missing = wanted.total().saturating_sub(set.total()) / PAGE_SIZE;
    Ok((set, missing))
}

/// Pages in order, neighbours merged.
pub struct Runs<I> {
    pages: I,
    last: Option<PhysRange>,
}

impl<I: Iterator<Item = Result<PhysRange, Errno>>> Runs<I> {
    /// Merges the neighbours among `pages`.
    pub fn new(pages: I) -> Self {
        Self { pages, last: None }
    }
}

impl<I: Iterator<Item = Result<PhysRange, Errno>>> Iterator for Runs<I> {
    type Item = Result<PhysRange, Errno>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let page = match self.pages.next() {
                Some(Ok(page)) => page,
                Some(Err(error)) => return Some(Err(error)),
                None => return self.last.take().map(Ok),
            };
            match self.last {
                Some(last) if last.end() == page.start() => {
                    self.last = PhysRange::from_bounds(last.start(), page.end()).ok();
                }
                _ => {
                    if let Some(last) = self.last.replace(page) {
                        return Some(Ok(last));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn set(list: &[(u64, u64)]) -> RangeSet {
        RangeSet::from_ranges(
            list.iter()
                .map(|(pfn, count)| range_of(*pfn, *count).unwrap()),
        )
        .unwrap()
    }

    #[test]
    fn pieces_end_at_multiples_of_two_mib() {
        let pieces = |first, count| {
            let range = range_of(first, count).unwrap();
            chunks(range)
                .map(pfns)
                .map(|pfns| (pfns.start, pfns.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(pieces(510, 515), [(510, 512), (512, 1024), (1024, 1025)]);
        assert_eq!(pieces(512, 512), [(512, 1024)]);
        assert_eq!(pieces(600, 1), [(600, 601)]);
    }

    #[test]
    fn good_runs_leave_out_what_failed() {
        for bad in [
            vec![],
            vec![10],
            vec![19],
            vec![10, 11, 15, 19],
            (10..20).collect(),
        ] {
            let all = range_of(10, 10).unwrap();
            let runs = good_runs(all, |pfn| bad.contains(&pfn));
            let good = RangeSet::from_ranges(runs).unwrap();
            let left: Vec<u64> = (10..20).filter(|pfn| !bad.contains(pfn)).collect();
            assert_eq!(good.iter().flat_map(pfns).collect::<Vec<_>>(), left);
        }
    }

    #[test]
    fn what_is_not_there_any_more_is_counted_and_what_cannot_be_there_is_refused() {
        let map = Map {
            ram: set(&[(300, 700)]),
            taken: set(&[(400, 10)]),
            ..Map::default()
        };
        let handed = set(&[(310, 50), (395, 10), (2000, 5)]);
        let left =
            |wanted: &RangeSet| left_of(wanted, &map, &handed, |pfn| !(320..323).contains(&pfn));
        assert_eq!(
            left(&set(&[(312, 10), (330, 2)])),
            Ok((set(&[(312, 8), (330, 2)]), 2))
        );
        assert_eq!(left(&set(&[(320, 3)])), Ok((RangeSet::new(), 3)));
        let odd = PhysRange::new(PhysAddr::new(312 * PAGE_SIZE + 1), PAGE_SIZE).unwrap();
        for bad in [
            set(&[(359, 2)]),
            set(&[(2000, 1)]),
            set(&[(399, 2)]),
            RangeSet::from_ranges([odd]).unwrap(),
        ] {
            assert_eq!(left(&bad), Err(EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn pages_that_follow_each_other_are_one_run_and_others_keep_their_order() {
        let runs = |pages: &[Result<u64, Errno>]| {
            let pages = pages
                .iter()
                .map(|pfn| pfn.map(|pfn| range_of(pfn, 1).unwrap()));
            Runs::new(pages)
                .map(|run| run.map(|run| (pfns(run).start, run.pages())))
                .collect::<Vec<_>>()
        };
        assert_eq!(runs(&[]), []);
        let all = runs(&[Ok(7), Ok(8), Ok(3), Ok(4), Ok(5), Ok(5), Ok(1)]);
        assert_eq!(all, [(7, 2), (3, 3), (5, 1), (1, 1)].map(Ok));
        let some = runs(&[Ok(7), Err(EINVAL), Ok(8)]);
        assert_eq!(some.first(), Some(&Err(EINVAL)));
    }
}
