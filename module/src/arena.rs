//! Memory for producers: few large contiguous arenas outside scratch, cut into pages.
//!
//! Small pieces that a driver keeps would each be a range of the mem cache, of which there are few. Pieces
//! out of one arena are neighbours, so they merge. An arena is 2 MiB where the system has that in one piece,
//! less where it has not, and larger for a request that is.

use crate::boundary::pages::Block;
use crate::errno::{ENOMEM, Errno};
use crate::iomem::Map;
use alloc::vec::Vec;
use kho::{PAGE_SIZE, PhysAddr, PhysRange};

/// Pages of an ordinary arena: 2 MiB.
const ARENA: u64 = 512;

/// The largest order that the page allocator serves on every kernel (`MAX_ORDER` of 6.1 less one).
const MAX_ORDER: u32 = 10;

/// How often the page allocator is asked again when what it gave lies in scratch.
const TRIES: usize = 8;

/// How many places outside scratch are tried by name after that.
const PLACES: usize = 256;

/// Where zones end: the kernel moves pages out of the way inside one zone only. `MAX_DMA_PFN`, `MAX_DMA32_PFN`
/// (`arch/x86/include/asm/dma.h`).
const ZONE_ENDS: [u64; 2] = [16 << 20, 4 << 30];

/// One arena.
struct Arena {
    block: Block,
    /// One entry for each page: whether it is lent.
    lent: Vec<bool>,
}

impl Arena {
    fn new(block: Block) -> Result<Self, Errno> {
        let pages = usize::try_from(block.range().pages()).map_err(|_| ENOMEM)?;
        let mut lent = Vec::new();
        lent.try_reserve_exact(pages)?;
        lent.resize(pages, false);
        Ok(Self { block, lent })
    }

    fn is_idle(&self) -> bool {
        !self.lent.contains(&true)
    }

    /// The range of pages `first..first + count`.
    fn range(&self, first: usize, count: usize) -> Option<PhysRange> {
        let at = u64::try_from(first).ok()?.checked_mul(PAGE_SIZE)?;
        let len = u64::try_from(count).ok()?.checked_mul(PAGE_SIZE)?;
        PhysRange::new(self.block.range().start().checked_add(at)?, len).ok()
    }

    fn lend(&mut self, count: usize) -> Option<PhysRange> {
        let first = self.lent.windows(count).position(|w| !w.contains(&true))?;
        let range = self.range(first, count)?;
        for page in self.lent.iter_mut().skip(first).take(count) {
            *page = true;
        }
        self.block.zero(range);
        Some(range)
    }

    /// Takes back what was lent; false, and nothing changed, when it was not.
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
            .and_then(|end| self.lent.get_mut(first..end))
        else {
            return false;
        };
        if pages.contains(&false) {
            return false;
        }
        pages.fill(false);
        true
    }
}

/// All arenas.
#[derive(Default)]
pub struct Arenas {
    list: Vec<Arena>,
}

impl Arenas {
    /// None.
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// `count` contiguous zeroed pages outside `scratch`.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], also for a count of 0.
    pub fn lend(
        &mut self,
        map: &Map,
        scratch: Option<PhysRange>,
        count: usize,
    ) -> Result<PhysRange, Errno> {
        if count == 0 {
            return Err(ENOMEM);
        }
        let apart = |arena: &Arena| !scratch.is_some_and(|s| s.overlaps(arena.block.range()));
        for arena in self.list.iter_mut().filter(|a| apart(a)) {
            if let Some(range) = arena.lend(count) {
                return Ok(range);
            }
        }
        let want = u64::try_from(count).map_err(|_| ENOMEM)?;
        let block = match block(map, scratch, want.max(ARENA)) {
            Ok(block) => block,
            Err(_) if want < ARENA => block(map, scratch, want)?,
            Err(error) => return Err(error),
        };
        let mut arena = Arena::new(block)?;
        let range = arena.lend(count).ok_or(ENOMEM)?;
        self.list.try_reserve(1)?;
        self.list.push(arena);
        Ok(range)
    }

    /// Takes back what was lent; false, and nothing changed, when it was not. An arena that is idle goes
    /// back to the system.
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

    /// Bytes that are lent.
    pub fn lent_bytes(&self) -> u64 {
        let pages = self.list.iter().flat_map(|a| &a.lent).filter(|l| **l);
        u64::try_from(pages.count())
            .unwrap_or(u64::MAX)
            .saturating_mul(PAGE_SIZE)
    }

    /// Forgets arenas that are lent out, whose memory must stay, and frees the others.
    pub fn abandon(&mut self) {
        for arena in self.list.drain(..) {
            if !arena.is_idle() {
                core::mem::forget(arena.block);
            }
        }
    }
}

/// A block of `pages` pages outside `scratch`, zeroed.
///
/// # Errors
///
/// [`ENOMEM`].
pub fn block(map: &Map, scratch: Option<PhysRange>, pages: u64) -> Result<Block, Errno> {
    let order = pages.checked_next_power_of_two().ok_or(ENOMEM)?.ilog2();
    if order <= MAX_ORDER {
        // Kept until the end, so that the same pages are not given again.
        let mut refused: [Option<Block>; TRIES] = Default::default();
        for slot in &mut refused {
            let Some(block) = Block::any(order) else {
                break;
            };
            if scratch.is_some_and(|s| s.overlaps(block.range())) {
                *slot = Some(block);
                continue;
            }
            return block.shorten(pages).ok_or(ENOMEM);
        }
    }
    place(map, scratch, pages).ok_or(ENOMEM)
}

/// A block at some place of RAM outside `scratch`, from the top of memory down.
fn place(map: &Map, scratch: Option<PhysRange>, pages: u64) -> Option<Block> {
    let len = pages.checked_mul(PAGE_SIZE)?;
    let step = len.checked_next_multiple_of(ARENA.checked_mul(PAGE_SIZE)?)?;
    let mut free = map.ram.subtract(&map.taken).ok()?;
    if let Some(scratch) = scratch {
        free.remove(scratch).ok()?;
    }
    let mut tries = 0usize;
    for range in free.iter().rev() {
        let mut end = range.end();
        while let Some(start) = end
            .checked_sub(step)
            .and_then(|s| s.align_down(ARENA.saturating_mul(PAGE_SIZE)))
            .filter(|s| *s >= range.start())
        {
            end = start;
            let Ok(window) = PhysRange::new(start, len) else {
                break;
            };
            if ZONE_ENDS.iter().any(|z| splits(window, *z)) {
                continue;
            }
            tries = tries.saturating_add(1);
            if tries > PLACES {
                return None;
            }
            if let Ok(block) = Block::at(map, window) {
                return Some(block);
            }
        }
    }
    None
}

/// Whether `border` is inside `range`, not at an end.
fn splits(range: PhysRange, border: u64) -> bool {
    range.start() < PhysAddr::new(border) && PhysAddr::new(border) < range.end()
}
