//! Operations of drivers and root that take or release memory that arrived.

use super::{How, Piece, Story, any_of, failed_pages, of, overlap, within};
use crate::machine::set;
use crate::module::machine::{store, with};
use crate::sets::{add, both, minus, plus};
use crate::story::{Done, ensure};
use kho::abi::MEM;
use kho::{PAGE_SIZE, PhysRange, RangeSet};
use kho_decide::pages::{pfns, range_of};
use kho_decide::system::{Failed, Tree as _};
use std::ops::ControlFlow;

impl Story {
    /// Returns the memory of a node and of the nodes below it.
    pub(super) fn below(&self, number: usize) -> RangeSet {
        let nodes = self.arrived.nodes.get(number);
        let end = nodes.map_or(number, |node| node.end);
        let nodes = self.arrived.nodes.get(number..end);
        set(nodes
            .into_iter()
            .flatten()
            .flat_map(|node| node.mem.iter().copied()))
    }

    pub(super) fn held(&self) -> RangeSet {
        let holds = self.arrived.holds.keys();
        holds.fold(RangeSet::new(), |all, node| plus(&all, &self.below(*node)))
    }

    /// Returns the memory of nodes that drivers other than this one have.
    pub(super) fn held_by_others(&self, handle: u64) -> RangeSet {
        let holds = self.arrived.holds.iter();
        let others = holds.filter(|(_, holder)| **holder != handle);
        others.fold(RangeSet::new(), |all, (node, _)| {
            plus(&all, &self.below(*node))
        })
    }

    pub(super) fn frozen(&self) -> RangeSet {
        self.active
            .as_ref()
            .map_or_else(RangeSet::new, |a| a.frozen.clone())
    }

    pub(super) fn handed_over(&self) -> RangeSet {
        let named = self.active.as_ref().map(|a| plus(&a.frozen, &a.named));
        named.unwrap_or_default()
    }

    /// Returns whether root may release `wanted`.
    pub(super) fn may_release(&self, wanted: &RangeSet) -> bool {
        within(wanted, &self.arrived.unclaimed)
            && !overlap(wanted, &self.handed_over())
            && !overlap(wanted, &self.held())
    }

    pub(super) fn any_node(&mut self) -> Option<usize> {
        any_of(&mut self.rng, self.arrived.nodes.len())
    }

    /// Returns some pages that arrived, and sometimes pages beside them.
    pub(super) fn any_range(&mut self) -> Option<PhysRange> {
        let arrived: Vec<PhysRange> = match self.rng.below(2) {
            0 => self.arrived.unclaimed.iter().collect(),
            _ => {
                let nodes = self.arrived.nodes.iter().flat_map(|node| &node.mem);
                nodes.copied().collect()
            }
        };
        let range = *arrived.get(any_of(&mut self.rng, arrived.len())?)?;
        let first = self.rng.below(range.pages());
        let count = 1 + self.rng.below(range.pages() - first);
        let more = u64::from(self.rng.below(12) == 0);
        range_of(range.start().get() / PAGE_SIZE + first, count + more)
    }

    /// Makes memory that a driver claimed the driver's own.
    pub(super) fn claimed(&mut self, handle: u64, what: &RangeSet) -> Done {
        self.arrived.unclaimed = minus(&self.arrived.unclaimed, what);
        self.tally.claimed += what.total() / PAGE_SIZE;
        for range in what.iter() {
            self.own(
                handle,
                Piece {
                    range,
                    how: How::Own,
                },
            )?;
        }
        Ok(())
    }

    pub(super) fn claim(&mut self) -> Done {
        match (self.any_producer(), self.any_range()) {
            (Some(handle), Some(range)) => self.claim_range(handle, range),
            _ => Ok(()),
        }
    }

    pub(super) fn claim_range(&mut self, handle: u64, range: PhysRange) -> Done {
        let wanted = set([range]);
        // A driver must not claim memory of another driver, or a user's blob. kho.ko cannot refuse, because it does not
        // know which driver calls.
        if overlap(&wanted, &plus(&self.held_by_others(handle), &self.blobs)) {
            return Ok(());
        }
        let (failed, good) = match self.rng.below(3) {
            0 => (Failed::Taken, true),
            _ => (Failed::Refused, !overlap(&wanted, &failed_pages())),
        };
        let may =
            good && within(&wanted, &self.arrived.unclaimed) && !overlap(&wanted, &self.frozen());
        match self.expect("a claim", may, || store(|s| s.claim(range, failed)))? {
            Some(()) => self.claimed(handle, &wanted),
            None => Ok(()),
        }
    }

    pub(super) fn claim_node(&mut self) -> Done {
        let (Some(handle), Some(node)) = (self.any_producer(), self.any_node()) else {
            return Ok(());
        };
        let wanted = of(&self
            .arrived
            .nodes
            .get(node)
            .map(|n| n.mem.clone())
            .unwrap_or_default());
        if overlap(&wanted, &self.held_by_others(handle)) {
            return Ok(());
        }
        let may = within(&wanted, &self.arrived.unclaimed)
            && !overlap(&wanted, &self.frozen())
            && !overlap(&wanted, &failed_pages())
            && !self.arrived.claimed.contains(&node);
        let number = i64::try_from(node).unwrap_or(-1);
        let what = "the claim of a node";
        if self
            .expect(what, may, || store(|s| s.claim_node(number)))?
            .is_some()
        {
            self.arrived.claimed.insert(node);
            self.tally.nodes += 1;
            self.claimed(handle, &wanted)?;
        }
        Ok(())
    }

    pub(super) fn hold(&mut self) -> Done {
        let (Some(handle), Some(node)) = (self.any_producer(), self.any_node()) else {
            return Ok(());
        };
        let wanted = self.below(node);
        let may = within(&wanted, &self.arrived.unclaimed)
            && !overlap(&wanted, &self.frozen())
            && !overlap(&wanted, &self.held())
            && !self.arrived.holds.contains_key(&node);
        let number = i64::try_from(node).unwrap_or(-1);
        let result = self.phase.hold(handle, number);
        if self.expect("a hold", may, || result)?.is_some() {
            self.arrived.holds.insert(node, handle);
            self.tally.holds += 1;
        }
        Ok(())
    }

    pub(super) fn release_held(&mut self) -> Done {
        let (Some(handle), Some(node)) = (self.any_producer(), self.any_node()) else {
            return Ok(());
        };
        // The node is mostly one that a driver has.
        let holds = &self.arrived.holds;
        let held = any_of(&mut self.rng, holds.len()).and_then(|n| holds.keys().nth(n));
        let held = held.copied().filter(|_| self.rng.below(4) != 0);
        let node = held.unwrap_or(node);
        let holder = self.arrived.holds.get(&node).copied();
        let holder = holder.filter(|_| self.rng.below(4) != 0);
        self.release_held_of(holder.unwrap_or(handle), node)
    }

    pub(super) fn release_held_of(&mut self, handle: u64, node: usize) -> Done {
        let name = self.producers.get(&handle).map_or("", |p| p.name);
        let wanted = both(&self.below(node), &self.arrived.unclaimed);
        let may = self.arrived.holds.get(&node) == Some(&handle)
            && !overlap(&wanted, &self.handed_over());
        let number = i64::try_from(node).unwrap_or(-1);
        let act = || store(|s| s.release_held(name, number));
        if self.expect("a release by its driver", may, act)?.is_some() {
            self.arrived.holds.remove(&node);
            self.released(&wanted)?;
        }
        Ok(())
    }

    /// Notes that pages went back to the system.
    pub(super) fn released(&mut self, what: &RangeSet) -> Done {
        self.tally.released += what.total() / PAGE_SIZE;
        let failed = both(what, &failed_pages());
        let good = minus(what, &failed);
        self.arrived.unclaimed = minus(&self.arrived.unclaimed, what);
        self.arrived.stays = plus(&self.arrived.stays, &failed);
        for range in good.iter() {
            ensure(with(|m| m.is_zero(range)), || {
                format!("{range} was released, not zeroed")
            })?;
        }
        for pfn in what.iter().flat_map(pfns) {
            self.contents.remove(&pfn);
        }
        // A blob that was not restored is lost with its pages.
        with(|m| {
            m.world.blobs.retain(|blob| {
                let pieces = blob.arrived.iter().flat_map(|(pieces, _)| pieces);
                blob.live || !pieces.into_iter().any(|piece| what.overlaps(*piece))
            });
        });
        Ok(())
    }

    /// Returns whether a loaded image needs `wanted`.
    pub(super) fn is_promised(wanted: &RangeSet) -> bool {
        with(|m| {
            let blobs = m.world.armed.iter().flat_map(|armed| &armed.promise.blobs);
            let pieces = blobs.filter_map(|blob| blob.arrived.as_ref());
            let mut pieces = pieces.flat_map(|(pieces, _)| pieces);
            pieces.any(|piece| wanted.overlaps(*piece))
        })
    }

    pub(super) fn release(&mut self) -> Done {
        let Some(range) = self.any_range() else {
            return Ok(());
        };
        self.release_range(range)
    }

    pub(super) fn release_range(&mut self, range: PhysRange) -> Done {
        let wanted = set([range]);
        if Self::is_promised(&wanted) {
            return Ok(());
        }
        let may = self.may_release(&wanted);
        match self.expect("a release", may, || store(|s| s.release(range)))? {
            Some(()) => self.released(&wanted),
            None => Ok(()),
        }
    }

    pub(super) fn release_path(&mut self) -> Done {
        let mut paths = vec![("all".to_owned(), self.arrived.unclaimed.clone())];
        let mut told = 0;
        let heard = |path: &str, bytes: u64, _: Option<&str>| {
            told += bytes;
            paths.push((path.to_owned(), RangeSet::new()));
            ControlFlow::Continue(())
        };
        store(|s| s.leftovers(heard)).map_err(|e| format!("leftovers: {e:?}"))?;
        if !self.arrived.nodes.is_empty() {
            let all = self.arrived.unclaimed.total();
            ensure(told == all, || format!("{told} bytes are told of {all}"))?;
            paths.push(("/".to_owned(), RangeSet::new()));
            paths.push(("/kernel".to_owned(), RangeSet::new()));
        }
        let which = match self.rng.below(8) {
            0 => 0,
            _ => any_of(&mut self.rng, paths.len()).unwrap_or(0),
        };
        let (path, mut wanted) = paths.swap_remove(which);
        let everything = path == "all";
        if !everything {
            wanted = both(&below_path(&path), &self.arrived.unclaimed);
        }
        if Self::is_promised(&wanted) {
            return Ok(());
        }
        let may = (everything || !wanted.is_empty()) && self.may_release(&wanted);
        let freed = minus(&wanted, &failed_pages()).total();
        let what = format!("the release of {path}");
        match self.expect(&what, may, || store(|s| s.release_path(&path)))? {
            Some(bytes) => {
                ensure(bytes == freed, || {
                    format!("{what} gave {bytes} bytes, not {freed}")
                })?;
                self.released(&wanted)
            }
            None => Ok(()),
        }
    }
}

/// Returns all memory of the node at `path` and below: of the user's tree, else of the kernel's part.
fn below_path(path: &str) -> RangeSet {
    store(|s| {
        let Ok(arrival) = s.arrival() else {
            return RangeSet::new();
        };
        let user = arrival.user.reader().path(path).filter(|_| path != "/");
        let part = arrival.kernel.as_ref();
        let node = user.or_else(|| part.and_then(|tree| tree.reader().path(path)));
        let mut all = RangeSet::new();
        for event in node.iter().flat_map(kho::tree::Node::walk) {
            if let kho::tree::Event::Begin(node) = event {
                let mem = node.prop(MEM).and_then(|prop| prop.value().mem().ok());
                mem.into_iter()
                    .flatten()
                    .flatten()
                    .for_each(|range| add(&mut all, range));
            }
        }
        all
    })
}
