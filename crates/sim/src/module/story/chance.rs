//! Random operations of users and root.

use super::{Story, any_of, failed_pages, overlap};
use crate::machine::{MIB, set};
use crate::module::machine::{store, with};
use crate::op::Op;
use crate::sets::{add, both, minus};
use crate::story::Done;
use kho::PAGE_SIZE;
use kho_decide::pages::{pfns, range_of};

impl Story {
    pub(super) fn user(&mut self) -> Done {
        let pick = u8::try_from(self.rng.below(200)).unwrap_or(0);
        let size = u32::try_from(self.rng.below(3 * MIB)).unwrap_or(0);
        let op = match self.rng.below(7) {
            0..2 => Op::Keep(size),
            2 => Op::Touch(pick, size),
            3 => Op::Drop(pick),
            4 => Op::Restore(pick),
            5 => Op::Busy(pick % 16, pick % 7),
            _ => Op::Churn,
        };
        with(|m| m.world.step(&op)).map(|_| ())
    }

    pub(super) fn tell_scratch(&mut self) -> Done {
        let first = with(|m| m.world.hop) == 0;
        let ram = with(|m| m.world.template.ram.clone());
        let Some(mut place) = self.rng.place(&ram, 64 * MIB, 2 * MIB) else {
            return Ok(());
        };
        // Sometimes the block is beside memory that drivers have already.
        if let Some(block) = with(|m| m.blocks.iter().next())
            && self.chance(2)
            && ram.contains_range(block)
        {
            place = block;
        }
        let told = self.expect("to tell scratch", first, || {
            store(|s| s.tell_scratch(place))
        })?;
        if told.is_some() {
            self.told = Some(place);
        }
        Ok(())
    }

    pub(super) fn shortage(&mut self) -> Done {
        let short = with(|m| m.exhausted || m.largest < 10);
        let (largest, exhausted) = match self.rng.below(4) {
            _ if short => (10, false),
            0 => (10, true),
            1 => (u32::try_from(self.rng.below(9)).unwrap_or(0), false),
            _ => (10, false),
        };
        with(|m| (m.largest, m.exhausted) = (largest, exhausted));
        Ok(())
    }

    /// Makes the memory of a page fail: of a driver's page, of a page that arrived, or of any page.
    pub(super) fn fail(&mut self) -> Done {
        if self.chance(2) {
            return Ok(());
        }
        let owned: Vec<u64> = self.owners.keys().copied().collect();
        let page = match self.rng.below(3) {
            0 => any_of(&mut self.rng, owned.len()).and_then(|n| owned.get(n).copied()),
            1 => {
                let unclaimed = &self.arrived.unclaimed;
                let place = self.rng.place(unclaimed, PAGE_SIZE, PAGE_SIZE);
                place.map(|page| page.start().get() / PAGE_SIZE)
            }
            _ => with(|m| {
                m.fails_next = self.rng.below(2) == 0;
                // The page is one that kho.ko has, or one that the allocator gives next: the allocator gives small
                // blocks first.
                let own = self.active.as_ref().map(|active| active.own.clone());
                let ours = minus(&m.blocks, &own.unwrap_or_default());
                let free = m.world.kernel.free(&m.world.template);
                let smallest = set(free.iter().min_by_key(|run| run.len()));
                let from = match self.rng.below(3) {
                    0 => free,
                    1 => smallest,
                    // Memory that kho.ko lends next.
                    _ => {
                        let owned = set(owned.iter().filter_map(|pfn| range_of(*pfn, 1)));
                        let rest = minus(&ours, &owned).iter().next()?;
                        let first = rest.split_at(4 * PAGE_SIZE);
                        set([first.map_or(rest, |(first, _)| first)])
                    }
                };
                let place = self.rng.place(&from, PAGE_SIZE, PAGE_SIZE)?;
                Some(place.start().get() / PAGE_SIZE)
            }),
        };
        if let Some(pfn) = page {
            with(|m| m.failed.insert(pfn));
            self.contents.remove(&pfn);
            self.looked_at.remove(&pfn);
            self.tally.failed += 1;
        }
        Ok(())
    }

    /// Reserves, for another part of the kernel, a page that had arrived and is free by now.
    pub(super) fn reserve(&mut self) {
        let gone = minus(&self.arrived.covered, &self.arrived.unclaimed);
        // The loader assumes that a restored blob is still where it arrived while its pages are reserved.
        let gone = minus(&gone, &self.blobs);
        let page = with(|m| {
            let free = both(&gone, &m.world.kernel.free(&m.world.template));
            // The page is mostly beside memory of a driver.
            let near = both(&free, &self.held());
            let free = if near.is_empty() { free } else { near };
            let page = m.world.rng.place(&free, PAGE_SIZE, PAGE_SIZE)?;
            add(&mut m.world.kernel.reserved, page);
            Some(page)
        });
        if let Some(page) = page {
            add(&mut self.foreign, page);
        }
    }

    /// Makes a driver take and free a page of a node that it has, and another part of the kernel reserve that page.
    pub(super) fn recycle(&mut self) -> Done {
        let holds = &self.arrived.holds;
        let hold = any_of(&mut self.rng, holds.len()).and_then(|n| holds.iter().nth(n));
        if let Some((node, handle)) = hold.map(|(node, handle)| (*node, *handle)) {
            let left = both(&self.below(node), &self.arrived.unclaimed);
            if let Some(page) = self.rng.place(&left, PAGE_SIZE, PAGE_SIZE) {
                self.claim_range(handle, page)?;
                let producer = self.producers.get_mut(&handle);
                let piece = producer.and_then(|p| p.pieces.pop_if(|p| p.range == page));
                if let Some(piece) = piece {
                    self.give_back(piece);
                }
            }
        }
        self.reserve();
        // The driver may not notice this.
        self.activate()?;
        Ok(())
    }

    /// Releases memory that arrived and failed. The rest can be handed over again after that.
    pub(super) fn repair(&mut self) -> Done {
        if self.active.is_some() {
            return Ok(());
        }
        let failed = both(&failed_pages(), &self.arrived.unclaimed);
        let holds: Vec<(usize, u64)> = self.arrived.holds.iter().map(|(n, h)| (*n, *h)).collect();
        for (node, handle) in holds {
            if overlap(&self.below(node), &failed) {
                self.release_held_of(handle, node)?;
            }
        }
        let failed = both(&failed, &self.arrived.unclaimed);
        for pfn in failed.iter().flat_map(pfns) {
            if let Some(page) = range_of(pfn, 1) {
                self.release_range(page)?;
            }
        }
        Ok(())
    }

    /// Maps or unmaps a driver's page for a user.
    pub(super) fn map(&mut self) -> Done {
        let owned: Vec<u64> = self.owners.keys().copied().collect();
        if let Some(pfn) = any_of(&mut self.rng, owned.len()).and_then(|n| owned.get(n)) {
            with(|m| m.mapped.insert(*pfn));
        }
        let mapped: Vec<u64> = with(|m| m.mapped.iter().copied().collect());
        if mapped.len() > 3
            && let Some(pfn) = any_of(&mut self.rng, mapped.len()).and_then(|n| mapped.get(n))
        {
            self.unmap(*pfn);
        }
        Ok(())
    }

    pub(super) fn unmap(&mut self, pfn: u64) {
        self.looked_at.remove(&pfn);
        with(|m| m.unmap(pfn));
    }
}
