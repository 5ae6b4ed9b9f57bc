//! Checks of kho.ko and of every page against the model.

use super::{How, Story, within};
use crate::machine::{MIB, range, set};
use crate::module::drivers::called;
use crate::module::machine::{store, with};
use crate::sets::{minus, plus};
use crate::story::{Done, ensure};
use kho_decide::pages::range_of;

impl Story {
    pub(super) fn check(&self) -> Done {
        with(|m| m.world.check())?;
        let broken = with(|m| m.broken.clone());
        ensure(broken.is_empty(), || broken.join(", "))?;
        let broken = called(|all| all.broken.clone());
        ensure(broken.is_empty(), || broken.join(", "))?;
        self.check_contents()?;
        self.check_phase()?;
        self.check_places()
    }

    pub(super) fn check_contents(&self) -> Done {
        with(|m| {
            for (pfn, content) in self.contents.iter().chain(&self.looked_at) {
                let page = range_of(*pfn, 1).ok_or("no page")?;
                let good = m.world.memory.first_difference(page, *content).is_none();
                ensure(good, || {
                    format!(
                        "page {pfn:#x} was overwritten: {:?}",
                        m.world.memory.at(page.start())
                    )
                })?;
            }
            ensure(m.notes_are_good(), || {
                "what was noted was overwritten".into()
            })
        })
    }

    pub(super) fn check_phase(&self) -> Done {
        let took_part = self.active.as_ref().map(|active| active.took_part.clone());
        let references = took_part.as_ref().map_or(0, |all| all.len() as i64 + 1);
        let active = self.active.is_some();
        called(|all| {
            ensure(all.references == references, || {
                format!("{} references, not {references}", all.references)
            })?;
            ensure(
                all.sealed.is_empty() != active && all.published == active,
                || "the file does not fit the phase".into(),
            )?;
            let mut frozen = all.frozen.clone();
            frozen.sort_unstable();
            ensure(frozen == took_part.unwrap_or_default(), || {
                format!("frozen: {frozen:?}")
            })
        })?;
        ensure(self.phase.generation().is_some() == active, || {
            "another phase".into()
        })?;
        ensure(self.phase.producers() == self.producers.len(), || {
            "other producers".into()
        })
    }

    pub(super) fn check_places(&self) -> Done {
        let pieces = || {
            self.producers
                .values()
                .flat_map(|producer| &producer.pieces)
        };
        let sum = |how| {
            set(pieces()
                .filter(|piece| piece.how == how)
                .map(|piece| piece.range))
        };
        let (lent, own) = (sum(How::Lent), sum(How::Own));
        let unclaimed = &self.arrived.unclaimed;
        if self.loaded {
            let (said, told) = store(|s| (s.unclaimed(), s.lent()));
            ensure(said == unclaimed.total(), || {
                format!("{said:#x} bytes are unclaimed, not {unclaimed:?}")
            })?;
            let out = plus(&lent, &self.lost_lent).total();
            ensure(told == out, || {
                format!("{told:#x} bytes are lent, not {out:#x}")
            })?;
        }
        with(|m| {
            let kernel = &m.world.kernel;
            let reserved = plus(&plus(unclaimed, &self.arrived.stays), &self.foreign);
            ensure(kernel.reserved == reserved, || {
                format!("{:?} is reserved, not {reserved:?}", kernel.reserved)
            })?;
            let active = self
                .active
                .as_ref()
                .map(|a| a.own.clone())
                .unwrap_or_default();
            ensure(within(&plus(&lent, &active), &m.blocks), || {
                "freed under a driver".into()
            })?;
            if lent.is_empty() && self.lost_lent.is_empty() {
                ensure(m.blocks == active, || {
                    format!("{:?} is idle", minus(&m.blocks, &active))
                })?;
            }
            // All allocated memory has an owner, and all memory with an owner is allocated.
            let noted = set(m.noted.iter().map(|noted| noted.pages));
            let orphans = set(m.orphans.iter().filter_map(|pfn| range_of(*pfn, 1)));
            let known = [&own, &noted, &orphans, &self.lost]
                .into_iter()
                .fold(m.blocks.clone(), |a, b| plus(&a, b));
            let known = minus(&known, &set([range(0, MIB)]));
            ensure(kernel.held == known, || {
                let (more, less) = (minus(&kernel.held, &known), minus(&known, &kernel.held));
                format!("{more:?} is lost, {less:?} is used and free")
            })
        })
    }

    /// Returns all memory, and checks that the page allocator has every page.
    pub(super) fn give_all_back(&mut self) -> Done {
        if !self.loaded {
            self.open()?;
        }
        self.abort()?;
        let handles: Vec<u64> = self.producers.keys().copied().collect();
        for handle in handles {
            self.unregister(handle, false)?;
        }
        let mapped: Vec<u64> = with(|m| m.mapped.iter().copied().collect());
        mapped.into_iter().for_each(|pfn| self.unmap(pfn));
        with(|m| m.world.unload())?;
        let wanted = self.arrived.unclaimed.clone();
        let released = self.expect("the release of all", true, || {
            store(|s| s.release_path("all"))
        });
        if released?.is_some() {
            self.released(&wanted)?;
        }
        self.check()?;
        with(|m| {
            let noted = set(m.noted.iter().map(|noted| noted.pages));
            let left = minus(&minus(&m.world.kernel.held, &noted), &self.lost);
            let left = if self.lost_lent.is_empty() {
                left
            } else {
                minus(&left, &m.blocks)
            };
            ensure(left.is_empty(), || format!("{left:?} is not given back"))?;
            let stays = plus(&self.arrived.stays, &self.foreign);
            ensure(m.world.kernel.reserved == stays, || {
                "something is reserved still".into()
            })
        })
    }
}
