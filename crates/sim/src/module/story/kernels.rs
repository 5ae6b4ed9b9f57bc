//! Operations that start other kernels, and that load the module again.

use super::{Arrived, Outgoing, Story, nodes, said, within};
use crate::kernel::Library;
use crate::machine::set;
use crate::module::drivers::{Called, called};
use crate::module::hop;
use crate::module::machine::{state_pages, store, with};
use crate::op::Op;
use crate::sets::{minus, plus};
use crate::story::{Done, ensure};
use kho::{PhysAddr, RangeSet};
use kho_decide::pages::range_of;
use kho_decide::phase::Phase;
use kho_decide::store::Store;
use kho_decide::system::Tree as _;

impl Story {
    pub(super) fn hop(&mut self) -> Done {
        if self.loaded && self.active.is_none() && !self.activate()? {
            return self.repair();
        }
        if !hop::load(&mut self.rng)? {
            return match self.loaded {
                true => self.abort(),
                false => Ok(()),
            };
        }
        if self.loaded {
            match self.rng.below(16) {
                0 => self.abort()?,
                7..10 => {
                    self.abort()?;
                    self.activate()?;
                }
                2 => self.unregister_any()?,
                3..6 => self.rewrite()?,
                6 => self.claim()?,
                _ => {}
            }
            self.check()?;
        }
        let started = hop::start(&mut self.rng)?;
        self.tally.hops += 1;
        self.tally.without_module += u64::from(!self.loaded);
        let out = match self.active.take() {
            Some(active) => Some(active.out),
            None => self.pending.take(),
        };
        let part = started.generation;
        let expected = out.filter(|out| Some(out.generation) == part);
        self.refuse = part.is_some() && expected.is_none();
        if self.refuse {
            // Without the module, the loader does not hand the kernel's part on either.
            with(|m| m.world.part = None);
        }
        self.booted(expected, Some(started.chain));
        Ok(())
    }

    /// Notes that another kernel runs. `pending` is the kernel's part that arrived for the module, `chain` the chain of
    /// the boot.
    pub(super) fn booted(&mut self, pending: Option<Outgoing>, chain: Option<(PhysAddr, Library)>) {
        let kept = pending.iter().flat_map(|out| out.promise.values());
        let kept = set(kept.flat_map(|(_, mem)| mem.iter().copied()));
        self.contents
            .retain(|pfn, _| range_of(*pfn, 1).is_some_and(|page| kept.contains_range(page)));
        with(|m| m.booted(chain));
        // The new kernel has no memory of the kernel that ran before.
        self.phase = Phase::new();
        store(|s| *s = Store::new());
        called(|all| *all = Called::default());
        self.producers.clear();
        self.owners.clear();
        self.looked_at.clear();
        (self.lost, self.lost_lent) = (RangeSet::new(), RangeSet::new());
        self.foreign = RangeSet::new();
        let stays = with(|m| m.world.kernel.reserved.clone());
        self.arrived = Arrived {
            covered: stays.clone(),
            stays,
            ..Arrived::default()
        };
        (self.pending, self.active) = (pending, None);
        self.blobs = with(|m| {
            let blobs = m
                .world
                .blobs
                .iter()
                .filter_map(|blob| blob.arrived.as_ref());
            set(blobs.flat_map(|(pieces, _)| pieces.iter().copied()))
        });
        (self.told, self.given_back) = (None, None);
        self.loaded = false;
    }

    pub(super) fn power_failure(&mut self) -> Done {
        with(|m| m.world.step(&Op::PowerFailure))?;
        self.refuse = false;
        self.booted(None, None);
        self.open()
    }

    /// Loads the module, for the first time in this boot.
    pub(super) fn open(&mut self) -> Done {
        let (state, reserved) = with(|m| (state_pages(&m.world), m.world.kernel.reserved.clone()));
        let own = with(|m| m.world.part.take());
        let own = set(own.filter(|_| !self.refuse).map(|part| part.reference.mem));
        store(Store::open).map_err(|e| format!("the module is not loaded: {e:?}"))?;
        self.loaded = true;
        let pending = self.pending.take();
        if self.refuse {
            self.tally.aborted += 1;
            self.arrived.unclaimed = minus(&reserved, &state);
            self.arrived.stays = state;
        } else {
            let mem = pending.iter().flat_map(|out| out.promise.values());
            let mem = set(mem.flat_map(|(_, mem)| mem.iter().copied()));
            self.arrived.unclaimed = plus(&mem, &self.blobs);
            self.arrived.stays = plus(&state, &own);
        }
        let (arrived, refused) = store(|s| match s.arrival() {
            Ok(arrival) => Ok((
                arrival.kernel.as_ref().map(|tree| nodes(tree.reader())),
                arrival.refused,
            )),
            Err(nothing) => Err(format!("{nothing:?}")),
        })
        .or_else(|nothing| match with(|m| m.world.hop) {
            0 => Ok((None, None)),
            _ => Err(nothing),
        })?;
        ensure(refused.is_some() == self.refuse, || {
            format!("the part is refused: {refused:?}")
        })?;
        let promise = pending.map(|out| out.promise);
        let said = arrived.as_deref().map(said);
        ensure(said == promise, || {
            format!("arrived {said:x?}, not {promise:x?}")
        })?;
        self.arrived.nodes = arrived.unwrap_or_default();
        self.refuse = false;
        for _ in 0..self.rng.below(4) {
            self.register()?;
        }
        self.check()
    }

    pub(super) fn reload(&mut self) -> Done {
        if self.active.is_some() {
            return Ok(());
        }
        let handles: Vec<u64> = self.producers.keys().copied().collect();
        for handle in handles {
            self.unregister(handle, false)?;
        }
        self.check()?;
        store(Store::close);
        self.phase = Phase::new();
        // Blocks of which a driver lost a part stay allocated, and no later instance of the module knows them.
        let blocks = with(|m| std::mem::take(&mut m.blocks));
        ensure(!self.lost_lent.is_empty() || blocks.is_empty(), || {
            format!("the module kept {blocks:?}")
        })?;
        ensure(within(&self.lost_lent, &blocks), || {
            "the module freed what a driver has".into()
        })?;
        self.lost = plus(&self.lost, &blocks);
        self.lost_lent = RangeSet::new();
        self.reserve();
        store(Store::open).map_err(|e| format!("the module is not loaded again: {e:?}"))?;
        self.told = None;
        self.tally.reloads += 1;
        Ok(())
    }
}
