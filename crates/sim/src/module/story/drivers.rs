//! Operations that load and unload drivers, and their pages.

use super::{How, NAMES, Piece, Producer, Story, any_of, failed_pages, overlap, snapshot};
use crate::machine::{MIB, set};
use crate::module::drivers::called;
use crate::module::machine::{Sim, store, with};
use crate::sets::{add, outer};
use crate::story::{Done, ensure};
use kho::{PAGE_SIZE, PhysRange};
use kho_decide::lend;
use kho_decide::pages::{pfns, range_of};

impl Story {
    pub(super) fn register(&mut self) -> Done {
        let name = NAMES[any_of(&mut self.rng, NAMES.len()).unwrap_or(0)];
        let taken = self.producers.values().any(|p| p.name == name);
        let priority = i32::try_from(self.rng.below(5)).unwrap_or(0);
        self.last_handle += 1;
        let handle = self.last_handle;
        let phase = &mut self.phase;
        let result = phase.register(handle, name, priority);
        let may = !taken;
        if self.expect("a registration", may, || result)?.is_some() {
            let pieces = Vec::new();
            self.producers.insert(handle, Producer { name, pieces });
        }
        Ok(())
    }

    pub(super) fn unregister_any(&mut self) -> Done {
        match self.any_producer() {
            Some(handle) => {
                let leaks = self.chance(12);
                self.unregister(handle, leaks)
            }
            None => Ok(()),
        }
    }

    pub(super) fn unregister(&mut self, handle: u64, leaks: bool) -> Done {
        self.phase.unregister(handle);
        called(|all| all.drivers.remove(&handle));
        if self
            .active
            .as_ref()
            .is_some_and(|a| a.took_part.contains(&handle))
        {
            self.phase_is_left();
        }
        self.arrived.holds.retain(|_, holder| *holder != handle);
        let Some(producer) = self.producers.remove(&handle) else {
            return Ok(());
        };
        for piece in producer.pieces {
            if leaks {
                add(&mut self.lost, piece.range);
                if piece.how == How::Lent {
                    add(&mut self.lost_lent, piece.range);
                }
                self.owners
                    .retain(|pfn, _| !pfns(piece.range).contains(pfn));
            } else {
                self.give_back(piece);
            }
        }
        Ok(())
    }

    pub(super) fn lend(&mut self) -> Done {
        let Some(handle) = self.any_producer() else {
            return Ok(());
        };
        let count = match self.rng.below(12) {
            0 => 0,
            1 => 513 + self.rng.below(600),
            2 => 200 + self.rng.below(200),
            _ => 1 + self.rng.below(6),
        };
        let pages = usize::try_from(count).unwrap_or(0);
        let given = self.expect("a loan", true, || lend::lend::<Sim>(pages))?;
        self.given(handle, given, count, How::Lent)
    }

    pub(super) fn give(&mut self) -> Done {
        let Some(handle) = self.any_producer() else {
            return Ok(());
        };
        let count = 1 + self.rng.below(9);
        let pages = usize::try_from(count).unwrap_or(0);
        let given = self.expect("a gift", true, || lend::give_away::<Sim>(pages))?;
        self.given(handle, given, count, How::Own)
    }

    /// Checks pages that kho.ko gave to a driver: they can be kept, are zero, and have no other owner. Then the driver
    /// owns them and writes into them.
    pub(super) fn given(
        &mut self,
        handle: u64,
        given: Option<PhysRange>,
        count: u64,
        how: How,
    ) -> Done {
        let Some(range) = given else {
            return Ok(());
        };
        ensure(range.pages() == count, || {
            format!("{range}, not {count} pages")
        })?;
        let why = self.why_not_kept(range);
        ensure(why.is_none(), || {
            format!("{range} is given to a driver, and {why:?}")
        })?;
        with(|m| {
            let kernel = &m.world.kernel;
            let wrong = [
                ("pinned", &kernel.pinned),
                ("reserved", &kernel.reserved),
                ("the firmware's", &outer(&m.world.template.hidden)),
            ];
            let found = wrong.iter().find(|(_, set)| set.overlaps(range));
            ensure(found.is_none(), || {
                format!("{range} is a driver's and {found:?}")
            })?;
            ensure(kernel.held.contains_range(range), || {
                format!("{range} was not allocated")
            })?;
            ensure(m.is_zero(range), || format!("{range} is not zero"))
        })?;
        self.tally.lent += count;
        self.own(handle, Piece { range, how })?;
        self.write(range);
        Ok(())
    }

    /// Gives a driver pages of the page allocator, at arbitrary addresses.
    pub(super) fn scatter(&mut self) -> Done {
        let Some(handle) = self.any_producer() else {
            return Ok(());
        };
        for _ in 0..1 + self.rng.below(6) {
            let Some(range) = with(|m| m.allocate(0)) else {
                break;
            };
            self.own(
                handle,
                Piece {
                    range,
                    how: How::Own,
                },
            )?;
            self.write(range);
        }
        Ok(())
    }

    /// Reason why a driver may not name pages in the active phase; `None` if it may.
    pub(super) fn why_not_kept(&self, range: PhysRange) -> Option<&'static str> {
        let ram = with(|m| m.world.template.ram.contains_range(range));
        if !ram || range.start().get() < MIB {
            Some("is not RAM for a handover")
        } else if self.scratch().is_some_and(|s| s.overlaps(range)) {
            Some("is in scratch")
        } else if overlap(&set([range]), &failed_pages()) {
            Some("has failed")
        } else {
            None
        }
    }

    /// Returns a driver and one of its pieces that it may give up now.
    pub(super) fn any_piece(&mut self) -> Option<(u64, usize)> {
        let handle = self.any_producer()?;
        if self
            .active
            .as_ref()
            .is_some_and(|a| a.took_part.contains(&handle))
        {
            return None;
        }
        let count = self.producers.get(&handle)?.pieces.len();
        Some((handle, any_of(&mut self.rng, count)?))
    }

    pub(super) fn give_back_some(&mut self) -> Done {
        let Some((handle, which)) = self.any_piece() else {
            return Ok(());
        };
        let Some(producer) = self.producers.get_mut(&handle) else {
            return Ok(());
        };
        let piece = producer.pieces.swap_remove(which);
        let cut = PAGE_SIZE * self.rng.below(piece.range.pages());
        match piece.range.split_at(cut).filter(|_| self.rng.below(2) == 0) {
            Some((first, rest)) => {
                producer.pieces.push(Piece {
                    range: first,
                    ..piece
                });
                self.give_back(Piece {
                    range: rest,
                    ..piece
                });
            }
            None => self.give_back(piece),
        }
        Ok(())
    }

    pub(super) fn give_back(&mut self, piece: Piece) {
        for pfn in pfns(piece.range) {
            self.owners.remove(&pfn);
            if let Some(content) = self.contents.remove(&pfn)
                && with(|m| m.mapped.contains(&pfn))
            {
                self.looked_at.insert(pfn, content);
            }
        }
        match piece.how {
            How::Lent => {
                self.given_back = Some(piece.range);
                store(|s| s.take_back(piece.range));
            }
            How::Own => with(|m| m.free(piece.range)),
        }
    }

    /// Makes a driver return memory that it has returned before, or more than it has.
    pub(super) fn give_back_wrongly(&mut self) -> Done {
        let owned = |pfn: &u64| self.owners.contains_key(pfn);
        let lent = self.producers.values().flat_map(|p| &p.pieces);
        let lent: Vec<Piece> = lent.filter(|p| p.how == How::Lent).copied().collect();
        let more = any_of(&mut self.rng, lent.len()).and_then(|n| lent.get(n));
        let wrong = match more.filter(|_| self.rng.below(2) == 0) {
            Some(piece) => {
                let pages = pfns(piece.range);
                let more = range_of(pages.start, piece.range.pages() + 1);
                more.filter(|_| !owned(&pages.end))
            }
            None => self
                .given_back
                .filter(|last| !pfns(*last).any(|pfn| owned(&pfn))),
        };
        let Some(wrong) = wrong.filter(|wrong| !overlap(&self.lost_lent, &set([*wrong]))) else {
            return Ok(());
        };
        let before = (snapshot(), store(|s| s.lent()));
        store(|s| s.take_back(wrong));
        ensure(before == (snapshot(), store(|s| s.lent())), || {
            format!("{wrong} was given back, and was not lent")
        })
    }

    pub(super) fn rewrite(&mut self) -> Done {
        let Some(handle) = self.any_producer() else {
            return Ok(());
        };
        let pieces = self.producers.get(&handle).map(|p| p.pieces.clone());
        for piece in pieces.into_iter().flatten() {
            self.write(piece.range);
        }
        Ok(())
    }
}
