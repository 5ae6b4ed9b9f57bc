//! A page allocator like the kernel's: blocks of 2^order pages, split and joined with their buddies
//! (`mm/page_alloc.c`). It has no migrate types, zones or per-CPU lists.
//!
//! The allocator always joins two free buddies. So the set of free memory determines the blocks, and an allocator can
//! be made from a range set at any time.

use crate::sets::{Rng, aligned};
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};
use std::collections::BTreeSet;

/// Largest order: 4 MiB (`MAX_PAGE_ORDER` on x86_64).
pub const MAX_ORDER: u8 = 10;

/// Free blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buddy {
    /// Page numbers of the free blocks of each order.
    blocks: Vec<BTreeSet<u64>>,
}

impl Buddy {
    /// Makes the allocator that has the whole pages of this memory.
    pub fn of(free: &RangeSet) -> Self {
        let mut this = Self {
            blocks: vec![BTreeSet::new(); usize::from(MAX_ORDER) + 1],
        };
        for run in aligned(free, PAGE_SIZE).iter() {
            let (mut at, end) = (run.start().get() / PAGE_SIZE, run.end().get() / PAGE_SIZE);
            while at < end {
                let fits = (end - at).ilog2().min(at.trailing_zeros());
                let order = u8::try_from(fits).unwrap_or(MAX_ORDER).min(MAX_ORDER);
                this.list(order).insert(at);
                at += 1 << order;
            }
        }
        this
    }

    fn list(&mut self, order: u8) -> &mut BTreeSet<u64> {
        &mut self.blocks[usize::from(order)]
    }

    /// Allocates 2^`order` pages from a free block of the smallest order that is large enough; a random number chooses
    /// the block. `None` if no free block is large enough.
    pub fn allocate(&mut self, order: u8, rng: &mut Rng) -> Option<PhysRange> {
        let mut from = (order..=MAX_ORDER).find(|order| !self.list(*order).is_empty())?;
        let count = self.list(from).len() as u64;
        let which = usize::try_from(rng.below(count)).unwrap_or(0);
        let at = self.list(from).iter().nth(which).copied()?;
        self.list(from).remove(&at);
        while from > order {
            from -= 1;
            self.list(from).insert(at + (1 << from));
        }
        PhysRange::new(PhysAddr::new(at * PAGE_SIZE), PAGE_SIZE << order).ok()
    }

    /// Frees a block that [`Self::allocate`] returned.
    pub fn free(&mut self, block: PhysRange) {
        let mut at = block.start().get() / PAGE_SIZE;
        let order = (block.len() / PAGE_SIZE).ilog2();
        let mut order = u8::try_from(order).unwrap_or(MAX_ORDER);
        while order < MAX_ORDER && self.list(order).remove(&(at ^ (1 << order))) {
            at &= !(1 << order);
            order += 1;
        }
        self.list(order).insert(at);
    }

    /// Returns the free memory as a set of ranges.
    pub fn memory(&self) -> RangeSet {
        let mut blocks = Vec::new();
        for (order, list) in (0..).zip(&self.blocks) {
            blocks.extend(list.iter().filter_map(|at| {
                PhysRange::new(PhysAddr::new(at * PAGE_SIZE), PAGE_SIZE << order).ok()
            }));
        }
        crate::machine::set(blocks)
    }

    /// Returns the number of free blocks of each order, as `/proc/buddyinfo` shows them.
    pub fn counts(&self) -> Vec<usize> {
        self.blocks.iter().map(BTreeSet::len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Template, range, set};
    use crate::sets::{Rng, minus, plus};
    use proptest::prelude::*;

    #[test]
    fn small_blocks_are_used_up_first() {
        // A page, and a block of four that is aligned.
        let mut buddy = Buddy::of(&set([range(0x3000, 0x8000)]));
        assert_eq!(buddy.counts()[..3], [1, 0, 1]);
        let mut rng = Rng::new(1);
        assert_eq!(buddy.allocate(0, &mut rng), Some(range(0x3000, 0x4000)));
        assert_eq!(buddy.allocate(0, &mut rng), Some(range(0x4000, 0x5000)));
        assert_eq!(buddy.counts()[..3], [1, 1, 0]);
        assert_eq!(buddy.allocate(2, &mut rng), None);
        buddy.free(range(0x4000, 0x5000));
        assert_eq!(buddy.counts()[..3], [0, 0, 1]);
    }

    proptest! {
        #[test]
        fn no_page_twice_and_none_lost(seed in any::<u64>(), steps in proptest::collection::vec((any::<bool>(), 0..=MAX_ORDER, any::<u8>()), 0..200)) {
            let ram = Template::uefi_4g().ram;
            let whole = aligned(&ram, PAGE_SIZE);
            let (mut buddy, mut rng) = (Buddy::of(&ram), Rng::new(seed));
            prop_assert_eq!(&buddy.memory(), &whole);
            let mut taken: Vec<PhysRange> = Vec::new();
            for (take, order, which) in steps {
                if take || taken.is_empty() {
                    let Some(block) = buddy.allocate(order, &mut rng) else { continue };
                    prop_assert_eq!(block.len(), PAGE_SIZE << order);
                    prop_assert_eq!(block.start().get() % block.len(), 0);
                    taken.push(block);
                } else {
                    buddy.free(taken.swap_remove(usize::from(which) % taken.len()));
                }
            }
            let gone = set(taken.iter().copied());
            prop_assert_eq!(gone.total(), taken.iter().map(|block| block.len()).sum::<u64>());
            prop_assert_eq!(&buddy.memory(), &minus(&whole, &gone));
            prop_assert_eq!(&plus(&buddy.memory(), &gone), &whole);
            // Blocks are joined as far as possible: the allocator equals one that is made of the free memory.
            prop_assert_eq!(&buddy, &Buddy::of(&buddy.memory()));
        }
    }
}
