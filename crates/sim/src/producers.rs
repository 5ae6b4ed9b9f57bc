//! Users of memory in place: drivers with their arenas, consumers, file systems in RAM.

use crate::buddy::{Buddy, MAX_ORDER};
use crate::machine::set;
use crate::memory::Content;
use crate::op::Outcome;
use crate::sets::{add, both, minus, plus};
use crate::world::{Held, World, pick};
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

impl World {
    /// Makes a producer allocate contiguous memory outside scratch.
    pub(crate) fn hold(&mut self, ranges: u8, pages: u8) -> Outcome {
        let len = (u64::from(pages) + 1) * PAGE_SIZE;
        let mut free = minus(&self.kernel.free(&self.template), &set(self.scratch));
        let mut mine = RangeSet::new();
        for _ in 0..=ranges {
            let Some(place) = self.rng.place(&free, len, PAGE_SIZE) else {
                return Outcome::Refused("no contiguous memory for a producer".into());
            };
            free = minus(&free, &set([place]));
            add(&mut mine, place);
        }
        self.take(mine);
        Outcome::Done
    }

    /// Makes a producer take pages at arbitrary addresses from the page allocator.
    pub(crate) fn scatter(&mut self, blocks: u8, order: u8) -> Outcome {
        let free = minus(&self.kernel.free(&self.template), &set(self.scratch));
        match self.every_other(&free, blocks, order) {
            Some(mine) => {
                self.take(mine);
                Outcome::Done
            }
            None => Outcome::Refused("no memory for a producer".into()),
        }
    }

    /// Makes the kernel use memory, a quarter of it at most.
    pub(crate) fn busy(&mut self, blocks: u8, order: u8) -> Outcome {
        let free = self.kernel.free(&self.template);
        let Some(mine) = self.every_other(&free, blocks, order) else {
            return Outcome::Refused("no memory for the kernel".into());
        };
        let busy = plus(&self.kernel.busy, &mine);
        if busy.total() > self.template.ram.total() / 4 {
            return Outcome::Refused("the kernel uses much already".into());
        }
        let id = self.fresh();
        for run in mine.iter() {
            self.memory.write(run, Content::start(id));
        }
        self.kernel.busy = busy;
        Outcome::Done
    }

    /// Returns this many blocks, with as many free blocks of the same size between them.
    fn every_other(&mut self, free: &RangeSet, blocks: u8, order: u8) -> Option<RangeSet> {
        let mut buddy = Buddy::of(free);
        let order = order % (MAX_ORDER + 1);
        let mut mine = RangeSet::new();
        for number in 0..=2 * u16::from(blocks) {
            let block = buddy.allocate(order, &mut self.rng)?;
            if number % 2 == 0 {
                add(&mut mine, block);
            }
        }
        Some(mine)
    }

    /// Makes a producer keep pages in place at addresses that it did not choose.
    pub(crate) fn foreign(&mut self, page: u32, pages: u8) -> Outcome {
        let top = self.template.ram.span().map_or(0, |s| s.end().get());
        let start = (u64::from(page) * PAGE_SIZE) % top;
        let Ok(wanted) = PhysRange::new(PhysAddr::new(start), (u64::from(pages) + 1) * PAGE_SIZE)
        else {
            return Outcome::Nothing;
        };
        if self.scratch.is_some_and(|s| s.overlaps(wanted)) {
            return Outcome::Refused(format!("{wanted} is in scratch"));
        }
        if !self.kernel.free(&self.template).contains_range(wanted) {
            return Outcome::Refused(format!("{wanted} is not this producer's to keep"));
        }
        self.take(set([wanted]));
        Outcome::Done
    }

    /// Makes a consumer claim the memory that arrived for it: the consumer owns the memory.
    pub(crate) fn claim(&mut self, which: u8) -> Outcome {
        let Some(held) = pick(&mut self.held, which) else {
            return Outcome::Nothing;
        };
        let arrived = both(&held.ranges, &self.kernel.reserved);
        if arrived.is_empty() {
            return Outcome::Refused("claimed before".into());
        }
        self.kernel.managed += arrived.total();
        self.kernel.reserved = minus(&self.kernel.reserved, &arrived);
        self.kernel.held = plus(&self.kernel.held, &arrived);
        Outcome::Done
    }

    /// Adds a piece of contiguous memory to an arena, outside scratch as the first.
    pub(crate) fn grow(&mut self, which: u8, pages: u8) -> Outcome {
        let len = (u64::from(pages) + 1) * PAGE_SIZE;
        let free = minus(&self.kernel.free(&self.template), &set(self.scratch));
        let place = self.rng.place(&free, len, PAGE_SIZE);
        let id = self.fresh();
        let Some(held) = pick(&mut self.held, which) else {
            return Outcome::Nothing;
        };
        if !both(&held.ranges, &self.kernel.reserved).is_empty() {
            return Outcome::Refused("not claimed yet".into());
        }
        let Some(place) = place else {
            return Outcome::Refused("no contiguous memory for an arena".into());
        };
        held.id = id;
        add(&mut held.ranges, place);
        let contents: Vec<_> = held.contents().collect();
        for (range, content) in contents {
            self.memory.write(range, content);
        }
        self.kernel.held = plus(&self.kernel.held, &set([place]));
        Outcome::Done
    }

    /// Makes a producer overwrite its data in place; the address stays the same.
    pub(crate) fn write(&mut self, which: u8) -> Outcome {
        let id = self.fresh();
        let Some(held) = pick(&mut self.held, which) else {
            return Outcome::Nothing;
        };
        let old = held.id;
        held.id = id;
        let contents: Vec<_> = held.contents().collect();
        for (range, content) in contents {
            self.memory.write(range, content);
        }
        if let Some(armed) = &mut self.armed {
            // The tree stays as it was written; the present content arrives.
            for promised in armed.promise.held.iter_mut().filter(|held| held.id == old) {
                promised.id = id;
            }
            let said = armed
                .rewritten
                .iter()
                .find(|(_, now)| **now == old)
                .map(|(said, _)| *said);
            armed.rewritten.insert(said.unwrap_or(old), id);
        }
        Outcome::Done
    }

    fn take(&mut self, ranges: RangeSet) {
        let held = Held {
            id: self.fresh(),
            ranges,
        };
        for (range, content) in held.contents() {
            self.memory.write(range, content);
        }
        self.kernel.held = plus(&self.kernel.held, &held.ranges);
        self.held.push(held);
    }
}
