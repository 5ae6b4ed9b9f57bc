//! Memory for producers: few large contiguous arenas outside scratch, cut into pages.
//!
//! Each small piece that a driver keeps would be a range of the mem cache, which has room for few ranges. Pieces of one
//! arena are neighbours, so they merge. An arena has 2 MiB if the system has 2 MiB in one piece, less if not, and more
//! if the request is larger.

use crate::errno::{ENOMEM, Errno};
use crate::iomem::Map;
use crate::system::{Block, System};
use alloc::vec::Vec;
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

/// Pages of an ordinary arena: 2 MiB.
const ARENA: u64 = 512;

/// Largest order that the page allocator serves on every kernel (`MAX_ORDER` of 6.1 less one).
const MAX_ORDER: u32 = 10;

/// Maximum number of blocks that kho.ko takes from the page allocator for one request: it takes another one if the
/// block must not be kept.
const TRIES: usize = 8;

/// Largest order of a block that the page allocator lacks only if it has no memory at all (`PAGE_ALLOC_COSTLY_ORDER`).
/// Then no memory is free at any other address either.
const SMALL_ORDER: u32 = 3;

/// Maximum number of addresses at which kho.ko tries to allocate, spread over all memory outside scratch, if the page
/// allocator gave no block that may be kept.
const PLACES: u64 = 512;

/// Number of addresses below the last place of a [`Search`] that kho.ko tries before.
const NEAR: usize = 64;

/// Physical addresses at which zones end. The kernel can free a range by moving its pages inside one zone only.
/// `MAX_DMA_PFN`, `MAX_DMA32_PFN` (`arch/x86/include/asm/dma.h`).
const ZONE_ENDS: [u64; 2] = [16 << 20, 4 << 30];

/// State of a page of an arena.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    /// The page was never lent.
    New,
    /// A producer has the page.
    Lent,
    /// A producer gave the page back. A process that has the page mapped, or the driver of a device, may still have a
    /// reference on it. kho.ko does not lend the page again before that reference is gone.
    Back,
}

/// One arena.
struct Arena<S: System> {
    block: S::Block,
    /// One entry for each page.
    pages: Vec<Page>,
}

impl<S: System> Arena<S> {
    fn new(block: S::Block) -> Result<Self, Errno> {
        let count = usize::try_from(block.range().pages()).map_err(|_| ENOMEM)?;
        let mut pages = Vec::new();
        pages.try_reserve_exact(count)?;
        pages.resize(count, Page::New);
        Ok(Self { block, pages })
    }

    fn is_idle(&self) -> bool {
        !self.pages.contains(&Page::Lent)
    }

    /// Whether page number `number`, whose state is `page`, may be lent.
    fn may_lend(&self, number: usize, page: Page) -> bool {
        let Some(range) = self.range(number, 1) else {
            return false;
        };
        let free = match page {
            Page::New => true,
            Page::Lent => false,
            Page::Back => self.block.is_only_ours(range.start()),
        };
        free && S::first_failed(range).is_none()
    }

    /// The range of pages `first..first + count`.
    fn range(&self, first: usize, count: usize) -> Option<PhysRange> {
        let at = u64::try_from(first).ok()?.checked_mul(PAGE_SIZE)?;
        let len = u64::try_from(count).ok()?.checked_mul(PAGE_SIZE)?;
        PhysRange::new(self.block.range().start().checked_add(at)?, len).ok()
    }

    fn lend(&mut self, count: usize) -> Option<PhysRange> {
        let mut run = 0usize;
        let last = self.pages.iter().enumerate().position(|(number, page)| {
            run = match self.may_lend(number, *page) {
                true => run.saturating_add(1),
                false => 0,
            };
            run == count
        })?;
        let first = last.saturating_add(1).checked_sub(count)?;
        let range = self.range(first, count)?;
        for page in self.pages.iter_mut().skip(first).take(count) {
            *page = Page::Lent;
        }
        self.block.zero(range);
        Some(range)
    }

    /// Takes lent pages back. Returns false, and changes nothing, if not all of them are lent.
    fn take_back(&mut self, range: PhysRange) -> bool {
        let Some(offset) = range.start().offset_from(self.block.range().start()) else {
            return false;
        };
        let (Ok(first), Ok(count)) = (
            usize::try_from(offset / PAGE_SIZE),
            usize::try_from(range.pages()),
        ) else {
            return false;
        };
        let Some(pages) = first
            .checked_add(count)
            .and_then(|end| self.pages.get_mut(first..end))
        else {
            return false;
        };
        if pages.iter().any(|page| *page != Page::Lent) {
            return false;
        }
        pages.fill(Page::Back);
        true
    }
}

/// All arenas.
pub struct Arenas<S: System> {
    list: Vec<Arena<S>>,
}

impl<S: System> Arenas<S> {
    /// Makes an empty list of arenas.
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Lends `count` contiguous zeroed pages outside `scratch`, if the arenas have as many.
    pub fn lend(&mut self, scratch: Option<PhysRange>, count: usize) -> Option<PhysRange> {
        let apart = |arena: &Arena<S>| !scratch.is_some_and(|s| s.overlaps(arena.block.range()));
        let mut arenas = self.list.iter_mut().filter(|a| apart(a));
        arenas.find_map(|arena| arena.lend(count))
    }

    /// Makes `block` an arena, and lends `count` contiguous pages of it.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], also if the block has fewer pages.
    pub fn lend_of(&mut self, block: S::Block, count: usize) -> Result<PhysRange, Errno> {
        let mut arena = Arena::new(block)?;
        let range = arena.lend(count).ok_or(ENOMEM)?;
        self.list.try_reserve(1)?;
        self.list.push(arena);
        Ok(range)
    }

    /// Takes lent pages back. Returns false, and changes nothing, if not all of them are lent. An idle arena goes back
    /// to the system.
    pub fn take_back(&mut self, range: PhysRange) -> bool {
        let Some(at) = self
            .list
            .iter()
            .position(|a| a.block.range().contains_range(range))
        else {
            return false;
        };
        let Some(arena) = self.list.get_mut(at) else {
            return false;
        };
        let taken = arena.take_back(range);
        if arena.is_idle() {
            self.list.swap_remove(at);
        }
        taken
    }

    /// Number of bytes that are lent.
    pub fn lent_bytes(&self) -> u64 {
        let pages = self.list.iter().flat_map(|a| &a.pages);
        u64::try_from(pages.filter(|page| **page == Page::Lent).count())
            .unwrap_or(u64::MAX)
            .saturating_mul(PAGE_SIZE)
    }

    /// Forgets arenas with lent pages, whose memory must stay, and frees the others.
    pub fn abandon(&mut self) {
        for arena in self.list.drain(..) {
            if !arena.is_idle() {
                core::mem::forget(arena.block);
            }
        }
    }
}

/// Progress of the search for free memory by address, from one allocation to the next.
///
/// Memory that may be kept can be a small part of the free memory, and then the page allocator offers other memory first:
/// memory that was plugged in after the boot. Without the progress each search would try the same addresses, and most
/// of the memory would never be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The last address at which memory was free, or the lowest one near it that was tried since.
    last: Option<PhysAddr>,
    /// Whether the page allocator offered only memory that may not be kept. It will most likely do so again, and a block
    /// that is refused costs as much as one that is kept.
    refused: bool,
}

impl Search {
    /// Makes a search that has not begun.
    pub const fn new() -> Self {
        Self {
            last: None,
            refused: false,
        }
    }
}

/// Allocates a block for an arena, of which the caller will lend `count` contiguous pages.
///
/// # Errors
///
/// [`ENOMEM`], also for a count of 0.
pub fn block_for<S: System>(
    map: &Map,
    scratch: Option<PhysRange>,
    search: &mut Search,
    count: usize,
) -> Result<S::Block, Errno> {
    let want = u64::try_from(count).map_err(|_| ENOMEM)?;
    match block::<S>(map, scratch, search, want.max(ARENA)) {
        Err(_) if want < ARENA => block::<S>(map, scratch, search, want),
        result => result,
    }
}

/// Allocates a block of `pages` zeroed pages outside `scratch`.
///
/// # Errors
///
/// [`ENOMEM`], also if `pages` is 0.
pub fn block<S: System>(
    map: &Map,
    scratch: Option<PhysRange>,
    search: &mut Search,
    pages: u64,
) -> Result<S::Block, Errno> {
    if pages == 0 {
        return Err(ENOMEM);
    }
    let order = pages.checked_next_power_of_two().ok_or(ENOMEM)?.ilog2();
    if order <= MAX_ORDER {
        // The refused blocks stay allocated until the end, so that the page allocator does not give the same pages
        // again.
        let mut refused: [Option<S::Block>; TRIES] = Default::default();
        let tries = if search.refused { 1 } else { TRIES };
        for (number, slot) in refused.iter_mut().take(tries).enumerate() {
            let Some(block) = S::Block::any(order) else {
                if order <= SMALL_ORDER && number == 0 {
                    return Err(ENOMEM);
                }
                break;
            };
            // Memory that was added after the boot, or by a driver, cannot be kept: the next kernel does not know it.
            let may_stay = map.ram.contains_range(block.range())
                && !scratch.is_some_and(|s| s.overlaps(block.range()));
            if !may_stay || !block.is_good() {
                *slot = Some(block);
                continue;
            }
            search.refused = false;
            return block.shorten(pages).ok_or(ENOMEM);
        }
        search.refused = refused.iter().any(Option::is_some);
    }
    place::<S>(map, scratch, search, pages).ok_or(ENOMEM)
}

/// Allocates a block at an address in RAM outside `scratch`.
fn place<S: System>(
    map: &Map,
    scratch: Option<PhysRange>,
    search: &mut Search,
    pages: u64,
) -> Option<S::Block> {
    let len = pages.checked_mul(PAGE_SIZE)?;
    let mut free = map.ram.subtract(&map.taken).ok()?;
    if let Some(scratch) = scratch {
        free.remove(scratch).ok()?;
    }
    let whole = |window: &PhysRange| !ZONE_ENDS.iter().any(|z| splits(*window, *z));
    let last = search.last;
    for window in near(&free, len, last).filter(whole) {
        search.last = Some(window.start());
        if let Ok(block) = S::Block::at(map, window) {
            return Some(block);
        }
    }
    // The next search tries other addresses, because `last` changed.
    let skip = last.and_then(|last| last.get().checked_div(step(len)));
    let skip = skip.unwrap_or(0);
    let (window, block) = windows(&free, len, skip)
        .filter(whole)
        .find_map(|window| Some((window, S::Block::at(map, window).ok()?)))?;
    search.last = Some(window.start());
    Some(block)
}

const fn align() -> u64 {
    ARENA.saturating_mul(PAGE_SIZE)
}

/// Distance of the places for blocks of `len` bytes.
fn step(len: u64) -> u64 {
    len.max(1)
        .checked_next_multiple_of(align())
        .unwrap_or(u64::MAX)
}

/// The [`NEAR`] ranges of `len` bytes in `free` that lie directly below `last`.
fn near(free: &RangeSet, len: u64, last: Option<PhysAddr>) -> impl Iterator<Item = PhysRange> {
    let below = last.unwrap_or_default();
    let step = step(len);
    let places = move |range: PhysRange| {
        let end = range.end().min(below);
        let first = end.checked_sub(step)?.align_down(align())?;
        let places = core::iter::successors(Some(first), move |at| at.checked_sub(step));
        let inside = places.take_while(move |at| *at >= range.start());
        Some(inside.filter_map(move |at| PhysRange::new(at, len).ok()))
    };
    let lower = free.iter().rev().filter(move |range| range.start() < below);
    lower.filter_map(places).flatten().take(NEAR)
}

/// At most [`PLACES`] ranges of `len` bytes, evenly spread over `free` from its end down. The last places alone would
/// not do: the kernel's map of all pages takes the last part of each node's memory, and on a large machine more than
/// the last [`PLACES`] places. `skip` places, modulo their distance, are not tried at the end.
fn windows(free: &RangeSet, len: u64, skip: u64) -> impl Iterator<Item = PhysRange> {
    let align = align();
    let step = step(len);
    // The last place in a range, and the number of places from there down.
    let places = move |range: PhysRange| {
        let last = range.end().checked_sub(step)?.align_down(align)?;
        let room = last.offset_from(range.start())?;
        Some((last, room.checked_div(step)?.checked_add(1)?))
    };
    let total = free
        .iter()
        .filter_map(places)
        .fold(0u64, |sum, (_, count)| sum.saturating_add(count));
    let stride = total.div_ceil(PLACES).max(1);
    // Number of places to skip before the next one that is tried.
    let mut pass = skip.checked_rem(stride).unwrap_or(0);
    let tried = move |(last, count): (PhysAddr, u64)| {
        let first = pass;
        let here = count.saturating_sub(first).div_ceil(stride);
        let next = here.saturating_mul(stride).saturating_add(first);
        pass = next.saturating_sub(count);
        (0..here).filter_map(move |number| {
            let below = number.checked_mul(stride)?.checked_add(first)?;
            PhysRange::new(last.checked_sub(below.checked_mul(step)?)?, len).ok()
        })
    };
    free.iter().rev().filter_map(places).flat_map(tried)
}

/// Whether `border` is inside `range`, not at one of its ends.
fn splits(range: PhysRange, border: u64) -> bool {
    range.start() < PhysAddr::new(border) && PhysAddr::new(border) < range.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Machine, with};
    use kho::RangeSet;

    /// 64 MiB of RAM above the first, and blocks of 2 MiB at these page frames.
    fn machine(blocks: &[u64]) -> Map {
        with(|machine| {
            *machine = Machine::default();
            machine.free = blocks.iter().rev().copied().collect();
        });
        let ram = PhysRange::new(PhysAddr::new(1 << 20), 63 << 20).unwrap();
        Map {
            ram: RangeSet::from_ranges([ram]).unwrap(),
            ..Map::default()
        }
    }

    fn lend(
        arenas: &mut Arenas<Fake>,
        map: &Map,
        scratch: Option<PhysRange>,
        count: usize,
    ) -> Result<PhysRange, Errno> {
        match arenas.lend(scratch, count) {
            Some(range) => Ok(range),
            None => arenas.lend_of(
                block_for::<Fake>(map, scratch, &mut Search::default(), count)?,
                count,
            ),
        }
    }

    fn pfn(range: Result<PhysRange, Errno>) -> u64 {
        range.unwrap().start().get() / PAGE_SIZE
    }

    fn pages(first: u64, count: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(first * PAGE_SIZE), count * PAGE_SIZE).unwrap()
    }

    #[test]
    fn what_is_given_back_is_lent_again_zeroed() {
        let map = machine(&[512]);
        let mut arenas = Arenas::<Fake>::new();
        assert_eq!(pfn(lend(&mut arenas, &map, None, 3)), 512);
        assert_eq!(pfn(lend(&mut arenas, &map, None, 1)), 515);
        with(|machine| machine.page(513).content = 7);
        assert!(arenas.take_back(pages(512, 3)));
        assert!(!arenas.take_back(pages(512, 3)));
        assert_eq!(pfn(lend(&mut arenas, &map, None, 2)), 512);
        assert!(with(|machine| machine.page(513).content == 0));
        assert_eq!(arenas.lent_bytes(), 3 * PAGE_SIZE);
    }

    #[test]
    fn a_page_that_somebody_else_refers_to_is_not_lent_again() {
        let map = machine(&[512]);
        let mut arenas = Arenas::<Fake>::new();
        assert_eq!(pfn(lend(&mut arenas, &map, None, 3)), 512);
        assert_eq!(pfn(lend(&mut arenas, &map, None, 1)), 515);
        // A process has the middle page mapped.
        with(|machine| {
            machine.page(513).count = 2;
            machine.page(513).content = 7;
        });
        assert!(arenas.take_back(pages(512, 3)));
        assert_eq!(pfn(lend(&mut arenas, &map, None, 2)), 516);
        assert_eq!(pfn(lend(&mut arenas, &map, None, 1)), 512);
        assert_eq!(pfn(lend(&mut arenas, &map, None, 1)), 514);
        assert!(with(|machine| machine.page(513).content == 7));
        with(|machine| machine.page(513).count = 1);
        assert_eq!(pfn(lend(&mut arenas, &map, None, 1)), 513);
        assert!(with(|machine| machine.page(513).content == 0));
    }

    #[test]
    fn a_page_that_was_never_lent_may_be_looked_at_by_the_kernel() {
        let map = machine(&[512]);
        let mut arenas = Arenas::<Fake>::new();
        assert_eq!(pfn(lend(&mut arenas, &map, None, 1)), 512);
        with(|machine| machine.page(513).count = 2);
        assert_eq!(pfn(lend(&mut arenas, &map, None, 511)), 513);
    }

    #[test]
    fn memory_that_failed_is_not_lent() {
        let map = machine(&[512]);
        let mut arenas = Arenas::<Fake>::new();
        assert_eq!(pfn(lend(&mut arenas, &map, None, 4)), 512);
        assert_eq!(pfn(lend(&mut arenas, &map, None, 1)), 516);
        with(|machine| {
            // A page that a producer has, and a page that was never lent.
            for bad in [513, 520] {
                machine.page(bad).failed = true;
                machine.page(bad).content = 7;
            }
        });
        assert!(arenas.take_back(pages(512, 4)));
        assert_eq!(pfn(lend(&mut arenas, &map, None, 4)), 521);
        assert_eq!(pfn(lend(&mut arenas, &map, None, 2)), 514);
        for bad in [513, 520] {
            assert!(with(|machine| machine.page(bad).content == 7));
        }
        // An idle arena goes back to the system, and the page allocator does not get the page whose memory failed.
        for range in [pages(521, 4), pages(514, 2), pages(516, 1)] {
            assert!(arenas.take_back(range));
        }
        with(|machine| {
            assert_eq!(machine.freed.len(), 510);
            assert!((512..1024).all(|pfn| machine.page(pfn).count == 0));
        });
    }

    #[test]
    fn memory_that_cannot_be_kept_is_not_lent() {
        // The first block is beyond the RAM that the next kernel will know; the second one reaches into scratch.
        let map = machine(&[1 << 15, 1024, 2048]);
        let mut arenas = Arenas::<Fake>::new();
        let scratch = Some(pages(1500, 10));
        assert_eq!(pfn(lend(&mut arenas, &map, scratch, 1)), 2048);
        with(|machine| assert_eq!(machine.page(1 << 15).count, 0));
    }

    #[test]
    fn a_block_in_which_memory_failed_is_no_arena() {
        let map = machine(&[512, 1024]);
        with(|machine| machine.page(700).failed = true);
        let mut arenas = Arenas::<Fake>::new();
        assert_eq!(pfn(lend(&mut arenas, &map, None, 1)), 1024);
        let found = block::<Fake>(&map, None, &mut Search::default(), 512);
        assert!(matches!(found, Err(ENOMEM)));
    }

    #[test]
    fn places_are_asked_for_where_one_may_be_free() {
        let places = |free: &[u64], scratch, pages| {
            let map = machine(free);
            assert!(block::<Fake>(&map, scratch, &mut Search::default(), pages).is_err());
            with(|machine| machine.places)
        };
        // No search by address if the page allocator has not even one page.
        for pages in [1, 8] {
            assert_eq!(places(&[], None, pages), 0);
        }
        assert_eq!(places(&[], None, 512), 31);
        // A search by address if all blocks from the page allocator are in scratch.
        let scratch = Some(pages(512, 1));
        assert_eq!(places(&[512], scratch, 1), 30);
    }

    #[test]
    fn every_free_place_is_found_by_and_by() {
        let map = machine(&[]);
        let map = Map {
            ram: set(&[(1 << 20, 4 << 30)]),
            ..map
        };
        let free: Vec<u64> = (0..100).map(|number| (1 + number * 19) * ARENA).collect();
        with(|machine| machine.free_places = free.iter().copied().collect());
        let mut search = Search::new();
        let (mut found, mut failed) = (0, 0);
        while found < free.len() {
            match block::<Fake>(&map, None, &mut search, ARENA) {
                Ok(block) => {
                    found += 1;
                    core::mem::forget(block);
                }
                Err(_) => failed += 1,
            }
            assert!(failed <= 4, "{found} found");
        }
        // Most searches need no more than the places between two free ones.
        let tried = with(|machine| machine.places);
        assert!(tried < 6000, "{tried}");
    }

    #[test]
    fn places_near_the_last_one_lie_below_it() {
        let free = set(&[(3 << 20, 9 << 20), (16 << 20, 20 << 20)]);
        let starts = |last: Option<u64>| -> Vec<u64> {
            let last = last.map(|mib| PhysAddr::new(mib << 20));
            let found = near(&free, 2 << 20, last);
            found.map(|window| window.start().get() >> 20).collect()
        };
        assert_eq!(starts(None), [0u64; 0]);
        assert_eq!(starts(Some(100)), [18, 16, 6, 4]);
        assert_eq!(starts(Some(18)), [16, 6, 4]);
        assert_eq!(starts(Some(17)), [6, 4]);
        assert_eq!(starts(Some(4)), [0u64; 0]);
    }

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        let range = |&(start, end): &(u64, u64)| {
            PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
        };
        RangeSet::from_ranges(ranges.iter().map(range)).unwrap()
    }

    fn starts(free: &RangeSet, len: u64) -> Vec<u64> {
        windows(free, len, 0)
            .map(|w| w.start().get() >> 20)
            .collect()
    }

    #[test]
    fn every_place_of_a_small_machine_is_tried_from_the_top() {
        let free = set(&[
            (3 << 20, 9 << 20),
            (12 << 20, 13 << 20),
            (16 << 20, 20 << 20),
        ]);
        assert_eq!(starts(&free, 2 << 20), [18, 16, 6, 4]);
        assert_eq!(starts(&free, 3 << 20), [16, 4]);
        assert_eq!(starts(&free, 8 << 20), [0u64; 0]);
        assert_eq!(starts(&RangeSet::new(), 4096), [0u64; 0]);
    }

    #[test]
    fn places_are_spread_over_all_of_a_large_machine() {
        const GIB: u64 = 1 << 30;
        // Eight nodes, with holes.
        let nodes: Vec<_> = (0..8)
            .map(|n| (n * 33 * GIB + (1 << 20), (n * 33 + 32) * GIB))
            .collect();
        let free = set(&nodes);
        let found = starts(&free, 2 << 20);
        assert!((506..=512).contains(&found.len()), "{}", found.len());
        assert!(found.is_sorted_by(|a, b| a > b));
        for (start, end) in nodes {
            // The last 16 MiB of each GiB of the node hold the kernel's map of pages.
            let free = found
                .iter()
                .filter(|at| **at >= start >> 20 && **at < (end >> 20) - 512);
            assert!(free.count() >= 56, "{start:#x}");
        }
        assert!(windows(&set(&[(0, u64::MAX - 4095)]), 4096, 0).count() <= 512);
        assert_eq!(windows(&free, u64::MAX, 3).count(), 0);
    }
}
