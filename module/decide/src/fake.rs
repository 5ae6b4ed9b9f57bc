//! A machine for tests, one for each test's thread. At the start its pages are ordinary ones, none of them reserved,
//! and the page allocator has no free memory.

use crate::chain::Chain;
use crate::errno::{EBUSY, EHWPOISON, EINVAL, ENOMEM, ENXIO, Errno};
use crate::iomem::Map;
use crate::pages::{good_runs, left_of, pfns, range_of};
use crate::system::{self, Failed, System};
use crate::text::Level;
use core::cell::RefCell;
use core::fmt;
use kho::tree::{Index, Reader, TreeError, Writer};
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};
use std::collections::{BTreeMap, BTreeSet};
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// State of a page. The default is an ordinary page that is not in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Whether the page is PageReserved.
    pub reserved: bool,
    /// Whether an instance of the module took the page over as one that arrived.
    pub marked: bool,
    /// Whether the page's memory failed.
    pub failed: bool,
    /// Number of references on the page.
    pub count: u32,
    /// Value of each byte of the page.
    pub content: u8,
}

/// State that the functions of [`Fake`] read and change.
#[derive(Default)]
pub struct Machine {
    /// Pages that differ from the default, by page frame.
    pub pages: BTreeMap<u64, Page>,
    /// Whether a function holds the lock of the store, so that others wait.
    pub is_locked: bool,
    /// Event during the next allocation.
    pub at_allocation: Option<fn()>,
    /// Number of allocations that asked for a certain address.
    pub places: usize,
    /// First pages of the places at which memory is free for an allocation by address.
    pub free_places: BTreeSet<u64>,
    /// First page frames of the blocks that the page allocator has. It gives the last one first.
    pub free: Vec<u64>,
    /// Page frames of the pages that were freed to the page allocator.
    pub freed: Vec<u64>,
    /// The chain that this boot honoured.
    pub chain: Chain,
    /// Bytes of the memory that the chain points to, by address.
    pub memory: BTreeMap<u64, Vec<u8>>,
    /// Whether the module handled the arrival.
    pub handled: bool,
    /// Recorded numbers of nodes; `None` before the record is made.
    pub record: Option<BTreeSet<usize>>,
    /// The text of `/proc/iomem`.
    pub iomem: String,
    /// Ranges that were searched for reserved pages.
    pub examined: Vec<PhysRange>,
    /// Lines of the log.
    pub log: Vec<String>,
}

impl Machine {
    /// The page with this page frame.
    pub fn page(&mut self, pfn: u64) -> &mut Page {
        self.pages.entry(pfn).or_default()
    }
}

std::thread_local! {
    static MACHINE: RefCell<Machine> = RefCell::default();
}

/// Reads or changes this thread's machine.
pub fn with<T>(act: impl FnOnce(&mut Machine) -> T) -> T {
    MACHINE.with_borrow_mut(act)
}

fn page(pfn: u64) -> Page {
    with(|machine| machine.pages.get(&pfn).copied().unwrap_or_default())
}

/// The machine.
pub enum Fake {}

impl System for Fake {
    type Block = Block;
    type Reserved = Unclaimed;
    type Boot = Boot;
    type Stays = ();
    type Record = Record;
    type Tree = Leaked;

    fn log(_: Level, message: fmt::Arguments<'_>) {
        with(|machine| machine.log.push(message.to_string()));
    }

    fn iomem() -> Result<Vec<u8>, Errno> {
        Ok(with(|machine| machine.iomem.clone().into_bytes()))
    }

    fn first_failed(range: PhysRange) -> Option<PhysRange> {
        range_of(pfns(range).find(|pfn| page(*pfn).failed)?, 1)
    }

    fn none_reserved(range: PhysRange) -> bool {
        !pfns(range).any(|pfn| page(pfn).reserved)
    }

    fn reserved_pages(range: PhysRange) -> Result<RangeSet, Errno> {
        with(|machine| machine.examined.push(range));
        let (first, end) = (pfns(range).start, pfns(range).end);
        let reserved = with(|machine| {
            let pages = machine.pages.range(first..end);
            pages
                .filter(|(_, page)| page.reserved)
                .filter_map(|(pfn, _)| range_of(*pfn, 1))
                .collect::<Vec<_>>()
        });
        Ok(RangeSet::from_ranges(reserved)?)
    }

    fn copy_reserved(map: &Map, range: PhysRange) -> Result<Vec<u8>, Errno> {
        let pages = range.page_outer().unwrap();
        let good = map.readable.contains_range(pages)
            && pfns(pages).all(|pfn| page(pfn).reserved && !page(pfn).failed);
        let there = with(|machine| machine.memory.get(&range.start().get()).cloned());
        let bytes = there.filter(|_| good).ok_or(ENXIO)?;
        let len = usize::try_from(range.len()).unwrap();
        bytes.get(..len).map(<[u8]>::to_vec).ok_or(ENXIO)
    }

    fn stays(range: PhysRange) -> Option<()> {
        page(pfns(range).start).reserved.then_some(())
    }

    fn find_record((): &(), _: usize) -> Option<Record> {
        with(|machine| machine.record.is_some()).then_some(Record)
    }

    fn make_record(
        (): &(),
        _: usize,
        block: impl FnOnce(u64) -> Result<Block, Errno>,
    ) -> Result<Record, Errno> {
        system::Block::give_away(block(1)?);
        with(|machine| machine.record = Some(BTreeSet::new()));
        Ok(Record)
    }
}

/// The record of the machine.
pub struct Record;

impl system::Record for Record {
    fn numbers(&self) -> impl Iterator<Item = usize> {
        with(|machine| machine.record.clone().unwrap()).into_iter()
    }

    fn add(&mut self, number: usize) {
        with(|machine| machine.record.as_mut().unwrap().insert(number));
    }
}

/// Pages that were allocated.
#[derive(Debug)]
pub struct Block {
    range: PhysRange,
}

impl system::Block for Block {
    fn any(order: u32) -> Option<Self> {
        assert!(!with(|machine| machine.is_locked), "somebody waits for it");
        if let Some(event) = with(|machine| machine.at_allocation.take()) {
            event();
        }
        let first = with(|machine| machine.free.pop())?;
        let range = range_of(first, 1 << order)?;
        with(|machine| pfns(range).for_each(|pfn| machine.page(pfn).count = 1));
        Some(Self { range })
    }

    fn at(_: &Map, range: PhysRange) -> Result<Self, Errno> {
        with(|machine| {
            machine.places += 1;
            if !machine.free_places.remove(&pfns(range).start) {
                return Err(EBUSY);
            }
            pfns(range).for_each(|pfn| machine.page(pfn).count = 1);
            Ok(Self { range })
        })
    }

    fn range(&self) -> PhysRange {
        self.range
    }

    fn is_good(&self) -> bool {
        Fake::first_failed(self.range).is_none()
    }

    fn is_only_ours(&self, at: PhysAddr) -> bool {
        assert!(self.range.contains(at));
        page(at.get() / PAGE_SIZE).count == 1
    }

    fn give_away(self) -> PhysRange {
        let range = self.range;
        core::mem::forget(self);
        range
    }

    fn shorten(self, count: u64) -> Option<Self> {
        let (first, rest) = match self.range.split_at(count * PAGE_SIZE) {
            Some((first, rest)) => (first, rest),
            None if count * PAGE_SIZE == self.range.len() => return Some(self),
            None => return None,
        };
        core::mem::forget(self);
        drop(Self { range: rest });
        Some(Self { range: first })
    }

    fn zero(&mut self, range: PhysRange) {
        let part = self.range.intersection(range).unwrap();
        for pfn in good_runs(part, |pfn| page(pfn).failed).flat_map(pfns) {
            with(|machine| {
                machine.page(pfn).content = 0;
                machine.memory.remove(&(pfn * PAGE_SIZE));
            });
        }
    }

    fn fill(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() as u64 > self.range.len() {
            return Err(ENOMEM);
        }
        let at = self.range.start().get();
        with(|machine| machine.memory.insert(at, bytes.to_vec()));
        Ok(())
    }

    fn store_first(&mut self, value: u64) {
        let at = self.range.start().get();
        with(|machine| {
            let bytes = machine.memory.get_mut(&at).unwrap();
            bytes[..8].copy_from_slice(&value.to_ne_bytes());
        });
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        with(|machine| {
            for pfn in pfns(self.range) {
                let page = machine.page(pfn);
                page.count -= 1;
                if page.count == 0 && !page.failed {
                    machine.freed.push(pfn);
                }
            }
        });
    }
}

/// Pages that arrived.
pub struct Unclaimed {
    set: RangeSet,
}

impl Unclaimed {
    /// Marks the pages of `set` as pages that arrived, on this machine.
    pub fn of(set: RangeSet) -> Self {
        for pfn in set.iter().flat_map(pfns) {
            with(|machine| machine.page(pfn).reserved = true);
        }
        Self::marked(set)
    }

    fn marked(set: RangeSet) -> Self {
        for pfn in set.iter().flat_map(pfns) {
            with(|machine| machine.page(pfn).marked = true);
        }
        Self { set }
    }

    fn take(&mut self, wanted: &RangeSet) -> Result<(), Errno> {
        for range in wanted.iter() {
            if !range.is_page_aligned() {
                return Err(EINVAL);
            }
            if !self.set.contains_range(range) {
                return Err(EBUSY);
            }
        }
        self.set = self.set.subtract(wanted)?;
        Ok(())
    }
}

impl system::Reserved for Unclaimed {
    type Boot = Boot;

    const NOTHING: Self = Self {
        set: RangeSet::new(),
    };

    fn adopt(boot: &Boot, map: &Map, wanted: &RangeSet, again: bool) -> Result<(Self, u64), Errno> {
        let (set, missing) = left_of(wanted, map, &boot.handed, |pfn| {
            let page = page(pfn);
            page.reserved && (page.marked || !again)
        })?;
        Ok((Self::marked(set), missing))
    }

    fn set(&self) -> &RangeSet {
        &self.set
    }

    fn claim(&mut self, wanted: &RangeSet, failed: Failed) -> Result<(), Errno> {
        let bad = wanted
            .iter()
            .any(|range| Fake::first_failed(range).is_some());
        if failed == Failed::Refused && bad {
            return Err(EHWPOISON);
        }
        self.take(wanted)?;
        for pfn in wanted.iter().flat_map(pfns) {
            with(|machine| {
                let page = machine.page(pfn);
                (page.reserved, page.marked, page.count) = (false, false, 1);
            });
        }
        Ok(())
    }

    fn free(&mut self, wanted: &RangeSet, _: bool) -> Result<u64, Errno> {
        self.take(wanted)?;
        let mut freed = 0;
        for pfn in wanted.iter().flat_map(pfns) {
            with(|machine| {
                let page = machine.page(pfn);
                page.marked = false;
                if !page.failed {
                    page.reserved = false;
                    freed += PAGE_SIZE;
                    machine.freed.push(pfn);
                }
            });
        }
        Ok(freed)
    }
}

/// The chain of the machine.
pub struct Boot {
    chain: Chain,
    handed: RangeSet,
}

impl system::Boot for Boot {
    fn read(_: &Map) -> Result<Self, Errno> {
        let chain = with(|machine| Chain {
            tree: machine.chain.tree,
            reserved: machine.chain.reserved.clone(),
            late: machine.chain.late.clone(),
            nodes: machine.chain.nodes.clone(),
        });
        let handed = chain.handed()?;
        Ok(Self { chain, handed })
    }

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn handed(&self) -> &RangeSet {
        &self.handed
    }

    fn was_handled(&self) -> bool {
        with(|machine| machine.handled)
    }

    fn mark_handled(&self) {
        with(|machine| machine.handled = true);
    }
}

/// A tree whose bytes are never freed; a test can afford that.
pub struct Leaked {
    reader: Reader<'static>,
    index: Index<'static>,
    bytes: &'static [u8],
}

impl Leaked {
    /// Validates `bytes`.
    pub fn new(bytes: Vec<u8>) -> Result<Self, TreeError> {
        let bytes = Vec::leak(bytes);
        let reader = Reader::new(bytes)?;
        Ok(Self {
            index: Index::new(&reader)?,
            reader,
            bytes,
        })
    }
}

impl system::Tree for Leaked {
    fn new(bytes: Vec<u8>) -> Result<Self, TreeError> {
        Self::new(bytes)
    }

    fn reader(&self) -> &Reader<'_> {
        &self.reader
    }

    fn index(&self) -> &Index<'_> {
        &self.index
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

/// Bytes of a tree.
pub fn tree_of(write: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
    let mut measure = Writer::measuring();
    write(&mut measure);
    let mut bytes = vec![0; measure.finish().unwrap()];
    let mut writer = Writer::new(&mut bytes);
    write(&mut writer);
    writer.finish().unwrap();
    bytes
}
