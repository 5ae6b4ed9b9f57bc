use super::*;
use crate::testing::set;
use crate::{PAGE_SIZE, PhysAddr};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec as StdVec;

fn pages(first: u64, count: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(first * PAGE_SIZE), count * PAGE_SIZE).unwrap()
}

fn page_set(set: &RangeSet) -> BTreeSet<u64> {
    set.iter()
        .flat_map(|r| r.start().get() / PAGE_SIZE..r.end().get().div_ceil(PAGE_SIZE))
        .collect()
}

/// The least slack of any cover with at most `max` entries, found by trying every subset of gaps; `None` if no cover
/// exists. Works on page numbers and shares no code with `cover`.
fn brute_force(kept: &BTreeSet<u64>, forbidden: &BTreeSet<u64>, max: usize) -> Option<u64> {
    let list: StdVec<u64> = kept.iter().copied().collect();
    // Between two consecutive kept pages the entry either continues or ends.
    let joints = list.len().saturating_sub(1);
    let mut best = None;
    'subset: for mask in 0..1u32 << joints {
        let mut entries = usize::from(!list.is_empty());
        let mut slack = 0;
        for (i, pair) in list.windows(2).enumerate() {
            if mask & 1 << i != 0 {
                entries += 1;
                continue;
            }
            if (pair[0] + 1..pair[1]).any(|p| forbidden.contains(&p)) {
                continue 'subset;
            }
            slack += pair[1] - pair[0] - 1;
        }
        if entries <= max && best.is_none_or(|b| slack < b) {
            best = Some(slack);
        }
    }
    best
}

fn some_pages(count: usize) -> impl Strategy<Value = RangeSet> {
    proptest::collection::vec(0..60u64, 0..count)
        .prop_map(|v| set(v.into_iter().map(|p| pages(p, 1))))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn is_optimal_and_well_formed(
        kept in some_pages(11),
        forbidden in some_pages(8),
        max in 0..8usize,
    ) {
        let forbidden = forbidden.subtract(&kept).unwrap();
        let (kept_pages, forbidden_pages) = (page_set(&kept), page_set(&forbidden));
        let want = brute_force(&kept_pages, &forbidden_pages, max);
        match cover(&kept, &forbidden, max) {
            Err(CoverError::TooMany { need, cap }) => {
                prop_assert_eq!(want, None);
                prop_assert_eq!(cap, max);
                // The number in the error is the exact number of entries needed.
                prop_assert!(brute_force(&kept_pages, &forbidden_pages, need).is_some());
                prop_assert!(brute_force(&kept_pages, &forbidden_pages, need - 1).is_none());
            }
            Err(other) => prop_assert!(false, "{}", other),
            Ok(cache) => {
                prop_assert_eq!(want, Some(cache.slack_bytes() / PAGE_SIZE));
                prop_assert!(cache.entries().len() <= max);
                prop_assert!(cache.entries().windows(2).all(|w| w[0].range.end() <= w[1].range.start()));
                let covered = cache.covered().unwrap();
                prop_assert!(covered.intersect(&forbidden).unwrap().is_empty());
                prop_assert_eq!(&covered.subtract(&kept).unwrap(), cache.slack());
                prop_assert!(kept.subtract(&covered).unwrap().is_empty());
                prop_assert_eq!(cache.kept_bytes(), kept.total());
                for (index, entry) in cache.entries().iter().enumerate() {
                    prop_assert!(entry.range.is_page_aligned());
                    prop_assert_eq!(entry.kept_bytes + entry.slack_bytes, entry.range.len());
                    prop_assert_eq!(cache.entry_of(entry.range), Some(index));
                    let inside = set([entry.range]).intersect(&kept).unwrap();
                    prop_assert_eq!(inside.total(), entry.kept_bytes);
                    prop_assert_eq!(inside.len(), entry.kept_ranges);
                }
            }
        }
    }

    #[test]
    fn odd_bytes_never_panic(
        kept in proptest::collection::vec((any::<u64>(), 1..u64::MAX), 0..6),
        forbidden in proptest::collection::vec((any::<u64>(), 1..u64::MAX), 0..6),
        max in 0..9usize,
    ) {
        let build = |v: StdVec<(u64, u64)>| set(v.into_iter().filter_map(|(s, l)| PhysRange::new(PhysAddr::new(s), l).ok()));
        let (kept, forbidden) = (build(kept), build(forbidden));
        if let Ok(cache) = cover(&kept, &forbidden, max) {
            let covered = cache.covered().unwrap();
            prop_assert!(kept.subtract(&covered).unwrap().is_empty());
            prop_assert!(covered.intersect(&forbidden).unwrap().is_empty());
        }
    }
}

#[test]
fn rounding_into_something_forbidden_is_an_error_that_names_both() {
    let kept = PhysRange::new(PhysAddr::new(0x20_0010), 0x20).unwrap();
    let table = PhysRange::new(PhysAddr::new(0x20_0f00), 0x10).unwrap();
    assert_eq!(
        cover(&set([kept]), &set([table]), 5),
        Err(CoverError::Forbidden {
            kept,
            forbidden: table
        })
    );
}

#[test]
fn the_last_page_of_the_address_space_is_refused() {
    let kept = PhysRange::new(PhysAddr::new(u64::MAX - 16), 8).unwrap();
    assert_eq!(
        cover(&set([kept]), &RangeSet::new(), 5),
        Err(CoverError::Unrepresentable { kept })
    );
}

#[test]
fn nothing_kept_needs_no_entry() {
    let cache = cover(&RangeSet::new(), &set([pages(1, 1)]), 0).unwrap();
    assert_eq!((cache.entries().len(), cache.slack_bytes()), (0, 0));
}

#[test]
fn one_byte_of_firmware_in_the_smallest_gap_moves_the_merge() {
    let kept = set([pages(300, 1), pages(302, 1), pages(400, 1)]);
    let tpm_log = PhysRange::new(PhysAddr::new(301 * PAGE_SIZE + 7), 1).unwrap();
    let cache = cover(&kept, &set([tpm_log]), 2).unwrap();
    let ranges: StdVec<PhysRange> = cache.ranges().collect();
    assert_eq!(ranges, [pages(300, 1), pages(302, 99)]);
    assert_eq!(cache.entries()[1].slack_bytes, 97 * PAGE_SIZE);
}

/// One TiB in 2 MiB chunks with gaps of many sizes. Prints its time; the budget is checked by the benches,
/// never by a test that a busy machine can fail.
#[test]
fn a_tebibyte_in_small_chunks() {
    const CHUNK: u64 = 2 << 20;
    let mut at = 1u64 << 32;
    let mut kept = StdVec::new();
    for i in 0..524_288u64 {
        kept.push(PhysRange::new(PhysAddr::new(at), CHUNK).unwrap());
        at += CHUNK + (1 + i.wrapping_mul(2_654_435_761) % 1024) * PAGE_SIZE;
    }
    let kept = set(kept);
    let begin = std::time::Instant::now();
    let cache = cover(&kept, &set([pages(0, 256)]), 100).unwrap();
    std::eprintln!("cover of {} ranges: {:?}", kept.len(), begin.elapsed());
    assert_eq!(cache.entries().len(), 100);
    assert_eq!(cache.kept_bytes(), 1 << 40);
    // Sizes repeat: exactly 99 gaps of the largest size exist, and those stay open.
    let open = kept.span().unwrap().len() - cache.kept_bytes() - cache.slack_bytes();
    assert_eq!(open, 99 * 1024 * PAGE_SIZE);
}
