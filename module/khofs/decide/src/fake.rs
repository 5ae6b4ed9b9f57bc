//! A machine for tests, one for each test's thread.

use crate::system::{Cache, Run, System};
use core::cell::RefCell;
use kho::{PAGE_SIZE, PhysRange};
use kho_decide::errno::{EBUSY, EEXIST, ENOMEM, Errno};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// State that the functions of [`Fake`] read and change.
#[derive(Default)]
pub struct Machine {
    /// First page frames of the page allocator's free blocks, of 2 MiB each. An allocation takes the last block.
    pub blocks: Vec<u64>,
    /// Page frames of the page allocator's free pages outside `blocks`. An allocation takes the last page.
    pub singles: Vec<u64>,
    /// For each number of contiguous pages: how often the system was asked for so many and did not have them.
    pub lacked: BTreeMap<u64, u64>,
    /// Whether a function holds the lock of the state, so that others wait.
    pub is_locked: bool,
    /// Page frames of the pages that were returned to the system.
    pub put: BTreeSet<u64>,
    /// Folios, by their first page frame.
    pub folios: BTreeSet<u64>,
    /// Pages with another holder.
    pub held: BTreeSet<u64>,
    /// Whether the kernel has folios of 2 MiB.
    pub large: bool,
    /// Pages that arrived and are unclaimed.
    pub arrived: BTreeSet<u64>,
    /// Number of the next claims that fail for lack of memory.
    pub no_claims: u64,
    /// Number of the next pages or folios for which the page cache has no memory.
    pub no_entries: u64,
    /// Page that gets another holder when the page cache has no memory.
    pub holder: Option<u64>,
    /// Whether khofs will return memory to the system soon.
    pub reaping: bool,
    /// Pages that an armed load has room for beyond those at the last serialization; `None` without a late load.
    pub more_pages: Option<u64>,
}

std::thread_local! {
    static MACHINE: RefCell<Machine> = RefCell::default();
}

/// Reads or changes this thread's machine.
pub fn with<T>(act: impl FnOnce(&mut Machine) -> T) -> T {
    MACHINE.with_borrow_mut(act)
}

/// The machine.
pub enum Fake {}

fn chunk(base: u64) -> core::ops::Range<u64> {
    assert!(base.is_multiple_of(512));
    base..base + 512
}

impl System for Fake {
    type Super = ();
    type Node = ();
    type Block = ();

    fn ram_pages() -> u64 {
        0
    }

    fn large() -> bool {
        with(|machine| machine.large)
    }

    fn more_pages() -> Option<u64> {
        with(|machine| machine.more_pages)
    }

    fn take_pages(count: u64) -> Option<u64> {
        with(|machine| {
            assert!(!machine.is_locked, "somebody waits for it");
            let taken = match count {
                512 => machine.blocks.pop(),
                1 => machine.singles.pop(),
                _ => None,
            };
            if taken.is_none() && count > 1 {
                *machine.lacked.entry(count).or_default() += 1;
            }
            taken
        })
    }

    fn put_page(pfn: u64) {
        with(|machine| assert!(machine.put.insert(pfn), "{pfn} is put twice"));
    }

    fn put_folio(base: u64) {
        assert!(with(|machine| machine.folios.remove(&base)));
        chunk(base).for_each(Self::put_page);
    }

    fn is_ready(pfn: u64, folded: bool) -> bool {
        match folded {
            true => Self::unfold(pfn & !511),
            false => with(|machine| !machine.held.contains(&pfn)),
        }
    }

    fn good_pages(_: u64, count: u64) -> u64 {
        count
    }

    fn fold(base: u64) -> bool {
        with(|machine| {
            let free = chunk(base).all(|pfn| !machine.held.contains(&pfn));
            free && machine.folios.insert(base)
        })
    }

    fn unfold(base: u64) -> bool {
        with(|machine| {
            let free = chunk(base).all(|pfn| !machine.held.contains(&pfn));
            free && machine.folios.remove(&base)
        })
    }

    fn claim(range: PhysRange) -> Result<(), Errno> {
        let first = range.start().get() / PAGE_SIZE;
        with(|machine| {
            if machine.no_claims > 0 {
                machine.no_claims -= 1;
                return Err(ENOMEM);
            }
            let mut all = first..first + range.pages();
            match all.all(|pfn| machine.arrived.remove(&pfn)) {
                true => Ok(()),
                false => Err(EBUSY),
            }
        })
    }

    fn reap_later() {
        with(|machine| machine.reaping = true);
    }
}

/// The page cache of a file: page frames by index.
#[derive(Default)]
pub struct Pages {
    /// The pages.
    pub map: RefCell<BTreeMap<u64, u64>>,
}

impl Cache for &Pages {
    fn insert(self, index: u64, pfn: u64, _: bool) -> Result<(), Errno> {
        let mut map = self.map.borrow_mut();
        let folio = with(|machine| machine.folios.contains(&(pfn & !511)));
        let count = if folio { 512 } else { 1 };
        assert!(!folio || pfn.is_multiple_of(512), "{pfn} is in a folio");
        if (index..index + count).any(|index| map.contains_key(&index)) {
            return Err(EEXIST);
        }
        let short = with(|machine| {
            let short = machine.no_entries > 0;
            if short {
                machine.no_entries -= 1;
                machine.held.extend(machine.holder.take());
            }
            short
        });
        if short {
            return Err(ENOMEM);
        }
        map.extend((index..index + count).zip(pfn..pfn + count));
        Ok(())
    }

    fn next_run(self, from: u64) -> Option<Run> {
        let map = self.map.borrow();
        let (&(mut index), &(mut pfn)) = map.range(from..).next()?;
        while index > 0 && pfn > 0 && map.get(&(index - 1)) == Some(&(pfn - 1)) {
            (index, pfn) = (index - 1, pfn - 1);
        }
        let mut count = 1;
        while map.get(&(index + count)) == Some(&(pfn + count)) {
            count += 1;
        }
        Some(Run { index, pfn, count })
    }

    fn set_lazy(self, _: u64) {}
}
