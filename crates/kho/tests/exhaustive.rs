//! Bounded exhaustive checks: every case up to a small size, against brute force that shares no idea with the code.
//!
//! Within its bounds each check is a proof of the real code, not of a model of it, because it leaves out no case. The
//! names of the constants state the bounds; docs/src/checked.md says what lies beyond the bounds.
#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers of test data are small"
)]

use kho::image::{ImageNeeds, InitrdNeeds, KernelNeeds, place_image};
use kho::memcache::{CoverError, cover};
use kho::tree::Reader;
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

/// A set of cells as bits, cell 0 lowest.
type Cells = u32;

/// Addresses of cell 0 for three places of the cells: at the bottom of the address space, in the middle, and at the
/// top, where the last cell ends at the top of the address space.
fn bases(cells: u32, size: u64) -> [u64; 3] {
    [0, 1 << 40, u64::MAX - u64::from(cells) * size]
}

fn runs(cells: Cells) -> impl Iterator<Item = (u32, u32)> {
    let mut rest = cells;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let first = rest.trailing_zeros();
        let len = (rest >> first).trailing_ones();
        rest &= !(((1 << len) - 1) << first);
        Some((first, len))
    })
}

fn range(base: u64, size: u64, first: u32, len: u32) -> PhysRange {
    PhysRange::new(
        PhysAddr::new(base + u64::from(first) * size),
        u64::from(len) * size,
    )
    .unwrap()
}

fn set(base: u64, size: u64, cells: Cells) -> RangeSet {
    RangeSet::from_ranges(runs(cells).map(|(first, len)| range(base, size, first, len))).unwrap()
}

/// The cells of a set; panics when it is not normalized or not made of whole cells.
fn cells(base: u64, size: u64, set: &RangeSet) -> Cells {
    let mut cells = 0;
    let mut last = None;
    for range in set.iter() {
        let (start, end) = (range.start().get() - base, range.end().get() - base);
        assert!(start.is_multiple_of(size) && end.is_multiple_of(size) && start < end);
        // The ranges are sorted and disjoint, and no two touch.
        assert!(last.is_none_or(|last| last < start), "{set:?}");
        last = Some(end);
        for cell in start / size..end / size {
            cells |= 1 << cell;
        }
    }
    cells
}

/// Every pair of sets over 7 cells, in three places: union, difference, intersection, gaps.
#[test]
fn sets_of_bytes() {
    const CELLS: u32 = 7;
    let all: Cells = (1 << CELLS) - 1;
    for base in bases(CELLS, 1) {
        let sets: Vec<RangeSet> = (0..=all).map(|bits| set(base, 1, bits)).collect();
        let whole = range(base, 1, 0, CELLS);
        for (a, x) in (0..).zip(&sets) {
            assert_eq!(cells(base, 1, x), a);
            assert_eq!(x.total(), u64::from(a.count_ones()));
            assert_eq!(cells(base, 1, &x.gaps(whole).unwrap()), !a & all);
            for (b, y) in (0..).zip(&sets) {
                assert_eq!(cells(base, 1, &x.union(y).unwrap()), a | b);
                assert_eq!(cells(base, 1, &x.subtract(y).unwrap()), a & !b);
                assert_eq!(cells(base, 1, &x.intersect(y).unwrap()), a & b);
            }
        }
    }
}

/// Every set over 9 cells with every interval: insert, remove, contains, overlaps, the first overlap.
#[test]
fn intervals_in_sets() {
    const CELLS: u32 = 9;
    let all: Cells = (1 << CELLS) - 1;
    for base in bases(CELLS, 1) {
        for a in 0..=all {
            let x = set(base, 1, a);
            for first in 0..CELLS {
                for len in 1..=CELLS - first {
                    let bits = ((1 << len) - 1) << first;
                    let interval = range(base, 1, first, len);
                    let mut more = x.try_clone().unwrap();
                    more.insert(interval).unwrap();
                    assert_eq!(cells(base, 1, &more), a | bits);
                    let mut less = x.try_clone().unwrap();
                    less.remove(interval).unwrap();
                    assert_eq!(cells(base, 1, &less), a & !bits);
                    assert_eq!(x.contains_range(interval), a & bits == bits);
                    assert_eq!(x.overlaps(interval), a & bits != 0);
                    let found = x
                        .first_overlap(interval)
                        .map(|range| range.start().get() - base);
                    let want = runs(a).find(|(at, len)| ((((1 << len) - 1) << at) & bits) != 0);
                    assert_eq!(found, want.map(|(at, _)| u64::from(at)));
                }
            }
        }
    }
}

/// Every set over 4 pages in quarters: rounding out and in.
#[test]
fn whole_pages() {
    const QUARTERS: u32 = 16;
    let size = PAGE_SIZE / 4;
    for base in [0, 1 << 40] {
        for a in 0..1_u32 << QUARTERS {
            let x = set(base, size, a);
            let (mut outer, mut inner) = (0, 0);
            for page in (0..QUARTERS).step_by(4) {
                let part = (a >> page) & 0xf;
                outer |= if part != 0 { 0xf << page } else { 0 };
                inner |= if part == 0xf { 0xf << page } else { 0 };
            }
            assert_eq!(cells(base, size, &x.page_outer().unwrap()), outer);
            assert_eq!(cells(base, size, &x.align_inner(PAGE_SIZE).unwrap()), inner);
        }
    }
}

/// Every choice of kept, forbidden and other pages among 9, every budget: the cover is complete, touches nothing
/// forbidden, keeps to the budget, and no cover of any kind is smaller.
#[test]
fn covers() {
    const PAGES: u32 = 9;
    const MOST: usize = 6;
    let all: Cells = (1 << PAGES) - 1;
    let base = 1 << 30;
    let mut cases = 0;
    for kept in 0..=all {
        // All subsets of the pages that are not kept.
        let mut forbidden = !kept & all;
        loop {
            let (x, y) = (set(base, PAGE_SIZE, kept), set(base, PAGE_SIZE, forbidden));
            // The smallest cover for each number of entries, over every superset of `kept` without forbidden pages.
            let mut best = [None; MOST + 1];
            let free = all & !kept & !forbidden;
            let mut more = free;
            loop {
                let cover = kept | more;
                for (budget, best) in best.iter_mut().enumerate() {
                    if runs(cover).count() <= budget
                        && best.is_none_or(|least| more.count_ones() < least)
                    {
                        *best = Some(more.count_ones());
                    }
                }
                if more == 0 {
                    break;
                }
                more = (more - 1) & free;
            }
            for (budget, best) in best.iter().enumerate() {
                cases += 1;
                match (cover(&x, &y, budget), best) {
                    (Ok(cache), Some(least)) => {
                        let mut cover = 0;
                        for entry in cache.entries() {
                            let one = RangeSet::from_ranges([entry.range]).unwrap();
                            let one = cells(base, PAGE_SIZE, &one);
                            assert_eq!(cover & one, 0, "entries overlap");
                            cover |= one;
                        }
                        assert_eq!(cover & kept, kept);
                        assert_eq!(cover & forbidden, 0);
                        assert!(cache.entries().len() <= budget);
                        assert_eq!(
                            (cover & !kept).count_ones(),
                            *least,
                            "{kept:b} {forbidden:b} {budget}"
                        );
                        assert_eq!(cells(base, PAGE_SIZE, cache.slack()), cover & !kept);
                    }
                    (Err(CoverError::TooMany { .. }), None) => {}
                    (found, want) => panic!("{kept:b} {forbidden:b} {budget}: {found:?}, {want:?}"),
                }
            }
            if forbidden == 0 {
                break;
            }
            forbidden = (forbidden - 1) & !kept & all;
        }
    }
    assert_eq!(cases, 3_usize.pow(PAGES) * (MOST + 1));
}

/// Number of nodes of a structure block, by the grammar of the format alone; `None` if `words` are not a structure
/// block.
fn grammar(words: &[u32]) -> Option<usize> {
    fn node(words: &[u32], mut at: usize, depth: usize) -> Option<(usize, usize)> {
        // BEGIN and the name: one letter, or the empty name. The bytes after its NUL are ignored.
        let name = *words.get(at + 1)?;
        if words[at] != 1 || (name >> 24 == 0) != (depth == 0) {
            return None;
        }
        at += 2;
        let (mut nodes, mut children, mut properties) = (1, Vec::new(), 0);
        loop {
            match *words.get(at)? {
                4 => at += 1,
                // Length, offset of the name, value. The only name is "p" at 0, so a node can have one property at
                // most.
                3 if children.is_empty() && properties == 0 => {
                    let len = *words.get(at + 1)? as usize;
                    if *words.get(at + 2)? != 0 || len > 4 * words.len() {
                        return None;
                    }
                    properties += 1;
                    at += 3 + len.div_ceil(4);
                }
                1 => {
                    let child = *words.get(at + 1)?;
                    if children.contains(&child) {
                        return None;
                    }
                    children.push(child);
                    let (more, next) = node(words, at, depth + 1)?;
                    (nodes, at) = (nodes + more, next);
                }
                2 => return Some((nodes, at + 1)),
                _ => return None,
            }
        }
    }
    let mut at = 0;
    while words.get(at) == Some(&4) {
        at += 1;
    }
    let (nodes, mut at) = if words.get(at) == Some(&1) {
        node(words, at, 0)?
    } else {
        return None;
    };
    while words.get(at) == Some(&4) {
        at += 1;
    }
    (words.get(at) == Some(&9) && at + 1 == words.len()).then_some(nodes)
}

/// Every structure block of up to 7 words over an alphabet of all tokens, a name and a zero: the reader accepts the
/// blocks that the grammar accepts, and counts the same number of nodes.
#[test]
fn structure_blocks() {
    const WORDS: u32 = 7;
    // BEGIN_NODE, END_NODE, PROP, NOP, END, the empty name or a zero, the name "a".
    const ALPHABET: [u32; 7] = [1, 2, 3, 4, 9, 0, 0x6100_0000];
    let mut accepted = 0;
    for len in 0..=WORDS {
        for number in 0..7_u32.pow(len) {
            let mut rest = number;
            let mut words = [0; WORDS as usize];
            for word in &mut words[..len as usize] {
                *word = ALPHABET[(rest % 7) as usize];
                rest /= 7;
            }
            let words = &words[..len as usize];
            let size = len * 4;
            let header = [
                0xd00d_feed,
                56 + size + 2,
                56,
                56 + size,
                40,
                17,
                16,
                0,
                2,
                size,
            ];
            let mut bytes = Vec::with_capacity(80);
            for word in header.iter().chain(&[0; 4]).chain(words) {
                bytes.extend(word.to_be_bytes());
            }
            bytes.extend(b"p\0");
            let found = Reader::new(&bytes).ok().map(|tree| tree.nodes().count());
            assert_eq!(found, grammar(words), "{words:x?}");
            accepted += u32::from(found.is_some());
        }
    }
    assert!(accepted > 20, "{accepted}");
}

/// Every scratch of up to 9 pages at 5 places, every image of up to 4 pages of kernel, 2 of initrd and 2 of parameters:
/// every placement of the planner is valid, and the planner finds one whenever the kernel at its lowest place leaves
/// room for the rest above it. (It may refuse tighter scratches although another arrangement exists.)
#[test]
fn image_places() {
    const SCRATCH: u64 = 9;
    let page = |n: u64| n * PAGE_SIZE;
    let (mut placed, mut random_places) = (0, 0);
    let (mut refused, mut missed) = (0, 0);
    for (start, kernel, initrd, params, align, preferred) in cases() {
        for len in 1..=SCRATCH {
            let scratch = PhysRange::new(PhysAddr::new(page(start)), page(len)).unwrap();
            let image = ImageNeeds {
                kernel: KernelNeeds {
                    file_len: page(kernel) - 5,
                    mem_size: page(kernel),
                    align: page(align),
                    preferred: PhysAddr::new(page(preferred)),
                    above_4g: true,
                    random: None,
                },
                initrd: (initrd > 0).then(|| InitrdNeeds {
                    len: page(initrd) - 7,
                    unpacked: 4 * page(initrd),
                    max_addr: PhysAddr::new(0x7fff_ffff),
                }),
                params_len: page(params) - 9,
            };
            let fits = |at: u64| {
                let allowed = at >= preferred && at.is_multiple_of(align);
                // The rest is two runs of pages, before and after the kernel, without further rules.
                let (before, after) = (at - start, start + len - at - kernel);
                let both = initrd + params;
                let apart =
                    (before >= initrd && after >= params) || (before >= params && after >= initrd);
                allowed && (before >= both || after >= both || apart)
            };
            let possible = (start..=(start + len).saturating_sub(kernel)).any(fits);
            let lowest = start.max(preferred).next_multiple_of(align);
            let plain =
                lowest >= start && lowest + kernel + initrd + params <= start + len && fits(lowest);
            match place_image(scratch, &RangeSet::from_ranges([scratch]).unwrap(), &image) {
                Ok(found) => {
                    placed += 1;
                    let kernel_at = found.kernel.reserved;
                    let mut parts = vec![kernel_at, found.params.reserved];
                    parts.extend(found.initrd.map(|initrd| initrd.reserved));
                    for (index, part) in parts.iter().enumerate() {
                        assert!(scratch.contains_range(*part));
                        assert!(parts[..index].iter().all(|other| !other.overlaps(*part)));
                    }
                    let at = kernel_at.start().get() / PAGE_SIZE;
                    assert!(possible && fits(at), "{image:?} in {scratch}: {found:?}");
                    random_places += check_random_places(scratch, image);
                }
                Err(_) => {
                    refused += 1;
                    assert!(!plain, "{image:?} fits in {scratch}");
                    missed += u32::from(possible);
                }
            }
            // The same checks with one failed page in scratch.
            for bad in start..start + len {
                let bad = PhysRange::new(PhysAddr::new(page(bad)), PAGE_SIZE).unwrap();
                let mut ram = RangeSet::from_ranges([scratch]).unwrap();
                ram.remove(bad).unwrap();
                if let Ok(found) = place_image(scratch, &ram, &image) {
                    let parts = [Some(found.kernel), found.initrd, Some(found.params)];
                    for part in parts.into_iter().flatten() {
                        assert!(ram.contains_range(part.reserved), "{image:?} on {bad}");
                    }
                }
            }
        }
    }
    eprintln!("{placed} placed, {refused} refused, of which {missed} had a place");
    assert!(placed > 1000 && refused > 1000, "{placed} {refused}");
    assert!(random_places > placed, "{random_places} {placed}");
}

/// Checks the places of an image that fits, for more random numbers than the kernel has places. Returns the number of
/// places.
fn check_random_places(scratch: PhysRange, mut image: ImageNeeds) -> usize {
    let ram = RangeSet::from_ranges([scratch]).unwrap();
    let mut starts = Vec::new();
    for random in 0..20 {
        image.kernel.random = Some(random);
        let found = place_image(scratch, &ram, &image).unwrap();
        let kernel = found.kernel.reserved;
        let start = kernel.start().get();
        assert!(start >= image.kernel.preferred.get() && start.is_multiple_of(image.kernel.align));
        let mut parts = vec![kernel, found.params.reserved];
        parts.extend(found.initrd.map(|initrd| initrd.reserved));
        for (index, part) in parts.iter().enumerate() {
            assert!(scratch.contains_range(*part));
            assert!(parts[..index].iter().all(|other| !other.overlaps(*part)));
        }
        starts.push(start);
    }
    // Each number picks the next place, so no place is picked more often than others.
    let places = starts
        .iter()
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    let again = starts.iter().skip(places);
    assert!(
        starts.iter().zip(again).all(|(one, two)| one == two),
        "{starts:?}"
    );
    places
}

/// Start of scratch, pages of kernel, initrd and parameters, alignment, preferred place.
fn cases() -> impl Iterator<Item = (u64, u64, u64, u64, u64, u64)> {
    let all = |n: u64, m: u64| n..=m;
    all(256, 260).flat_map(move |start| {
        all(1, 4).flat_map(move |kernel| {
            all(0, 2).flat_map(move |initrd| {
                all(1, 2).flat_map(move |params| {
                    [1, 2, 4].into_iter().flat_map(move |align| {
                        [0, 256, 258, 260]
                            .into_iter()
                            .map(move |preferred| (start, kernel, initrd, params, align, preferred))
                    })
                })
            })
        })
    })
}
