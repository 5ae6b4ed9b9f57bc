//! Range sets that cannot run out of memory, and a random number generator.

use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

const ROOM: &str = "a test machine has memory";

/// Returns the bytes in `a` but not in `b`.
pub fn minus(a: &RangeSet, b: &RangeSet) -> RangeSet {
    a.subtract(b).expect(ROOM)
}

/// Returns the bytes in either.
pub fn plus(a: &RangeSet, b: &RangeSet) -> RangeSet {
    a.union(b).expect(ROOM)
}

/// Returns the bytes in both.
pub fn both(a: &RangeSet, b: &RangeSet) -> RangeSet {
    a.intersect(b).expect(ROOM)
}

/// Returns the whole pages around every range.
pub fn outer(a: &RangeSet) -> RangeSet {
    a.page_outer().expect(ROOM)
}

/// Returns the whole aligned pieces inside every range.
pub fn aligned(a: &RangeSet, align: u64) -> RangeSet {
    a.align_inner(align).expect(ROOM)
}

/// Adds one range.
pub fn add(a: &mut RangeSet, range: PhysRange) {
    a.insert(range).expect(ROOM);
}

/// Takes `bytes` (whole pages) from the top of `free`, in as many runs as necessary; `None`, without a change, if
/// `free` is too small.
pub fn take_top(free: &mut RangeSet, bytes: u64) -> Option<RangeSet> {
    let mut open = bytes.next_multiple_of(PAGE_SIZE);
    let mut taken = Vec::new();
    for run in aligned(free, PAGE_SIZE).iter().rev() {
        if open == 0 {
            break;
        }
        let part = match run.split_at(run.len().saturating_sub(open)) {
            Some((_, top)) => top,
            None => run,
        };
        open -= part.len();
        taken.push(part);
    }
    if open > 0 {
        return None;
    }
    let taken = RangeSet::from_ranges(taken).expect(ROOM);
    *free = minus(free, &taken);
    Some(taken)
}

/// Generator of pseudo-random numbers from a seed (splitmix64).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng(u64);

impl Rng {
    /// Makes a generator with this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number in `0..n`; 0 for an `n` of 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.draw() % n }
    }

    /// Returns a random aligned range of `len` bytes in `free`.
    pub fn place(&mut self, free: &RangeSet, len: u64, align: u64) -> Option<PhysRange> {
        let slots = |run: PhysRange| -> u64 {
            let start = run.start().align_up(align);
            let room = start.and_then(|s| run.end().offset_from(s));
            room.filter(|r| *r >= len)
                .map_or(0, |r| (r - len) / align + 1)
        };
        let total: u64 = free.iter().map(slots).sum();
        let mut pick = self.below(total);
        for run in free.iter() {
            let here = slots(run);
            if pick < here {
                let start = run.start().align_up(align)?.get() + pick * align;
                return PhysRange::new(PhysAddr::new(start), len).ok();
            }
            pick -= here;
        }
        None
    }
}
