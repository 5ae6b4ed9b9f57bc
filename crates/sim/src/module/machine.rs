//! The simulated machine, as the decisions of kho.ko see it. Each thread has one machine, because the decisions get no
//! machine as an argument: a kernel has only one.

use crate::buddy::Buddy;
use crate::kernel::{Library, Stored};
use crate::machine::{range, set};
use crate::memory::Content;
use crate::sets::{add, both, minus, outer, plus};
use crate::world::World;
use kho::tree::{Index, Reader, TreeError};
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};
use kho_decide::chain::{self, Chain};
use kho_decide::errno::{EBUSY, EHWPOISON, EINVAL, ENOMEM, ENXIO, Errno};
use kho_decide::iomem::Map;
use kho_decide::pages::{good_runs, left_of, pfns, range_of};
use kho_decide::store::Store;
use kho_decide::system::{self, Failed, System};
use kho_decide::text::Level;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::rc::Rc;

/// Identity of zeros: a zeroed byte at address `a` is byte `a` of this content.
const ZEROS: u64 = u64::MAX / 2;

/// Ends of zones, as physical addresses. No contiguous allocation crosses one (`MAX_DMA_PFN`, `MAX_DMA32_PFN`).
const ZONES: [u64; 2] = [16 << 20, 4 << 30];

/// Offset of `hdr.setup_data` in `boot_params` (`Documentation/arch/x86/boot.rst`).
const SETUP_DATA: usize = 0x250;

/// The module's record of the nodes that drivers took over.
pub struct Noted {
    /// Pages of the record. They have no other use.
    pub pages: PhysRange,
    numbers: BTreeSet<usize>,
    content: Content,
}

/// The machine with a kernel, and the kernel's record of its pages.
pub struct Machine {
    /// RAM, the kernel, the loader.
    pub world: World,
    /// Number of kernels that ran. Memory that an earlier kernel allocated ended with that kernel.
    boot: u64,
    /// Address of the first node of this boot's chain, and the bytes of its tree and of the kernel's part. `None` if
    /// the boot had no handover.
    arrived: Option<(PhysAddr, Library)>,
    /// Reserved pages that an instance of the module took over.
    marked: RangeSet,
    /// Page frames whose memory failed.
    pub failed: BTreeSet<u64>,
    /// Page frames that a user refers to, beside their owner.
    pub mapped: BTreeSet<u64>,
    /// Page frames of `mapped` that have no owner any more.
    pub orphans: BTreeSet<u64>,
    /// Free memory of the first MiB, which no handover may use.
    low: RangeSet,
    /// Pages of allocations that kho.ko still has.
    pub blocks: RangeSet,
    /// Largest order of the page allocator.
    pub largest: u32,
    /// Whether the page allocator has no memory at all.
    pub exhausted: bool,
    /// Whether memory fails in the next block that kho.ko allocates.
    pub fails_next: bool,
    /// Pages that were freed last. As in a real kernel, the next allocation of their size often gets them.
    last: Option<PhysRange>,
    /// Whether the random number 0 was drawn in this boot.
    pub drew_zero: bool,
    handled: bool,
    /// The module's record; `None` if the module made none.
    pub noted: Option<Noted>,
    /// Messages about mistakes that would crash a real kernel.
    pub broken: Vec<String>,
}

thread_local! {
    static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
    static STORE: RefCell<Store<Sim>> = const { RefCell::new(Store::new()) };
}

/// Reads or changes this thread's machine.
///
/// # Panics
///
/// If the thread has no machine.
pub fn with<T>(act: impl FnOnce(&mut Machine) -> T) -> T {
    MACHINE.with_borrow_mut(|machine| act(machine.as_mut().expect("a machine")))
}

/// Reads or changes the store of the running module.
pub fn store<T>(act: impl FnOnce(&mut Store<Sim>) -> T) -> T {
    STORE.with_borrow_mut(act)
}

/// Gives this thread a machine that was just switched on.
pub fn install(world: World) {
    let machine = Machine {
        world,
        boot: 1,
        arrived: None,
        marked: RangeSet::new(),
        failed: BTreeSet::new(),
        mapped: BTreeSet::new(),
        orphans: BTreeSet::new(),
        low: set([range(0x1_0000, 0x9_0000)]),
        blocks: RangeSet::new(),
        largest: 10,
        exhausted: false,
        fails_next: false,
        last: None,
        drew_zero: false,
        handled: false,
        noted: None,
        broken: Vec::new(),
    };
    let old = MACHINE.replace(Some(machine));
    // An earlier test's memory must not be freed into this machine.
    let boot = old.map_or(0, |machine| machine.boot);
    with(|machine| machine.boot += boot);
    STORE.set(Store::new());
}

fn page(pfn: u64) -> PhysRange {
    range_of(pfn, 1).unwrap_or_else(|| range(0, 1))
}

fn page_set(pfns: &BTreeSet<u64>, within: PhysRange) -> impl Iterator<Item = u64> + '_ {
    let bounds = within.start().get() / PAGE_SIZE..within.end().get().div_ceil(PAGE_SIZE);
    pfns.range(bounds).copied()
}

impl Machine {
    /// Starts another kernel. `arrived` is the address of the first node of its chain, and the contents that can be
    /// read back; `None` if the kernel has no handover.
    pub fn booted(&mut self, arrived: Option<(PhysAddr, Library)>) {
        self.boot += 1;
        // A kernel without the module may hand on contents of an earlier kernel.
        let before = self.arrived.take().map(|(_, library)| library);
        self.arrived = arrived.map(|(head, mut library)| {
            library.extend(before.into_iter().flatten());
            (head, library)
        });
        (self.marked, self.blocks) = (RangeSet::new(), RangeSet::new());
        self.low = set([range(0x1_0000, 0x9_0000)]);
        (self.failed, self.mapped) = (BTreeSet::new(), BTreeSet::new());
        self.orphans = BTreeSet::new();
        (self.exhausted, self.largest) = (false, 10);
        (self.fails_next, self.last) = (false, None);
        (self.handled, self.noted, self.drew_zero) = (false, None, false);
    }

    /// Allocates a block of 2^`order` pages from the page allocator, zeroed.
    pub fn allocate(&mut self, order: u32) -> Option<PhysRange> {
        if self.exhausted || order > self.largest {
            return None;
        }
        let world = &mut self.world;
        let low = (order < 4 && world.rng.below(6) == 0)
            .then(|| {
                world
                    .rng
                    .place(&self.low, PAGE_SIZE << order, PAGE_SIZE << order)
            })
            .flatten();
        let block = match low {
            Some(block) => {
                self.low = minus(&self.low, &set([block]));
                block
            }
            None => {
                let free = world.kernel.free(&world.template);
                let last = self
                    .last
                    .take()
                    .filter(|last| last.pages() == 1 << order && free.contains_range(*last));
                let block = match last.filter(|_| world.rng.below(2) == 0) {
                    Some(last) => last,
                    None => {
                        let order = u8::try_from(order).ok()?;
                        Buddy::of(&free).allocate(order, &mut world.rng)?
                    }
                };
                add(&mut world.kernel.held, block);
                block
            }
        };
        self.zero(block);
        Some(block)
    }

    /// Returns pages to the page allocator. Either all of them are overwritten at once, or they keep their content for
    /// now. A page that a user has mapped becomes an orphan instead.
    pub fn free(&mut self, pages: PhysRange) {
        let overwrite = self.world.rng.below(2) == 0;
        self.last = Some(pages);
        for pfn in pfns(pages) {
            if self.mapped.contains(&pfn) {
                self.orphans.insert(pfn);
            } else {
                self.free_page(pfn, overwrite);
            }
        }
    }

    fn free_page(&mut self, pfn: u64, overwrite: bool) {
        let one = set([page(pfn)]);
        let low = pfn < 256;
        if !low && both(&self.world.kernel.held, &one).is_empty() {
            self.broken
                .push(format!("page {pfn:#x} is freed, and was not allocated"));
        }
        self.world.kernel.held = minus(&self.world.kernel.held, &one);
        if self.failed.contains(&pfn) {
            if !low {
                self.world.kernel.pinned = plus(&self.world.kernel.pinned, &one);
            }
        } else {
            if overwrite {
                let garbage = self.world.fresh();
                self.world.memory.write(page(pfn), Content::start(garbage));
            }
            if low {
                self.low = plus(&self.low, &one);
            }
        }
    }

    /// Removes the reference of a user to the page, and frees the page if it has no owner any more.
    pub fn unmap(&mut self, pfn: u64) {
        self.mapped.remove(&pfn);
        if self.orphans.remove(&pfn) {
            self.free_page(pfn, true);
        }
    }

    /// Zeroes the pages whose memory did not fail.
    pub fn zero(&mut self, pages: PhysRange) {
        for run in good_runs(pages, |pfn| self.failed.contains(&pfn)) {
            self.world.memory.write(run, zeros(run));
        }
    }

    /// Returns whether all bytes of `pages` are zero.
    pub fn is_zero(&self, pages: PhysRange) -> bool {
        self.world
            .memory
            .first_difference(pages, zeros(pages))
            .is_none()
    }

    /// Returns whether the module's record is intact in memory.
    pub fn notes_are_good(&self) -> bool {
        self.noted.iter().all(|noted| {
            let memory = &self.world.memory;
            memory
                .first_difference(noted.pages, noted.content)
                .is_none()
        })
    }

    /// Adds the number of a node to the module's record, if `number` is `Some`, and writes the record into its pages.
    fn note(&mut self, number: Option<usize>) {
        let content = Content::start(self.world.fresh());
        if let Some(noted) = &mut self.noted {
            noted.numbers.extend(number);
            noted.content = content;
            self.world.memory.write(noted.pages, content);
        }
    }

    /// Returns the first page frame of `range` whose memory failed.
    pub fn first_failed(&self, range: PhysRange) -> Option<u64> {
        page_set(&self.failed, range).next()
    }

    /// Writes bytes that the simulation can read back.
    pub fn store(&mut self, to: PhysRange, bytes: &[u8]) {
        let id = self.world.fresh();
        self.world.memory.write(to, Content::start(id));
        let stored = Rc::new(Stored::State(bytes.to_vec()));
        self.world.library.insert(id, stored);
    }

    /// Returns the bytes of memory that the simulation can read back. Zeroed memory reads as zeros, all other memory as
    /// bytes of 0xa5.
    pub fn bytes(&self, at: PhysRange) -> Vec<u8> {
        let here = self.world.memory.at(at.start());
        let len = usize::try_from(at.len()).unwrap_or(0);
        let stored = self
            .arrived
            .as_ref()
            .and_then(|(_, library)| library.get(&here.id));
        let from = usize::try_from(here.offset).unwrap_or(usize::MAX);
        match stored.map(Rc::as_ref) {
            Some(Stored::State(bytes))
                if self.world.memory.first_difference(at, here).is_none() =>
            {
                let there = bytes.get(from..).and_then(|rest| rest.get(..len));
                there.map_or_else(|| vec![0xa5; len], <[u8]>::to_vec)
            }
            _ if here.id == ZEROS => vec![0; len],
            _ => vec![0xa5; len],
        }
    }
}

fn zeros(at: PhysRange) -> Content {
    Content {
        id: ZEROS,
        offset: at.start().get(),
    }
}

/// The simulated kernel.
pub enum Sim {}

impl System for Sim {
    type Block = Block;
    type Reserved = Reserved;
    type Boot = Boot;
    type Stays = Stays;
    type Record = Record;
    type Tree = Tree;

    fn log(_: Level, _: fmt::Arguments<'_>) {}

    fn iomem() -> Result<Vec<u8>, Errno> {
        let mut text = String::new();
        with(|machine| {
            let image = machine.world.kernel.image;
            for ram in machine.world.template.ram.iter() {
                let mut line = |indent, what: PhysRange, name| {
                    let (start, last) = (what.start().get(), what.end().get() - 1);
                    writeln!(text, "{indent}{start:08x}-{last:08x} : {name}")
                };
                line("", ram, "System RAM")?;
                if ram.overlaps(image) {
                    line("  ", image, "Kernel code")?;
                }
            }
            Ok(())
        })
        .map_err(|_: fmt::Error| ENOMEM)?;
        Ok(text.into_bytes())
    }

    fn first_failed(range: PhysRange) -> Option<PhysRange> {
        with(|machine| machine.first_failed(range)).map(page)
    }

    fn none_reserved(range: PhysRange) -> bool {
        with(|machine| !machine.world.kernel.reserved.overlaps(range))
    }

    fn reserved_pages(range: PhysRange) -> Result<RangeSet, Errno> {
        Ok(with(|machine| {
            both(&machine.world.kernel.reserved, &set([range]))
        }))
    }

    fn copy_reserved(map: &Map, range: PhysRange) -> Result<Vec<u8>, Errno> {
        let pages = range.page_outer().ok_or(ENXIO)?;
        with(|machine| {
            let reserved = machine.world.kernel.reserved.contains_range(pages);
            let good = machine.first_failed(pages).is_none();
            let readable = map.readable.contains_range(pages);
            (reserved && good && readable)
                .then(|| machine.bytes(range))
                .ok_or(ENXIO)
        })
    }

    fn stays(range: PhysRange) -> Option<Stays> {
        with(|machine| machine.world.kernel.reserved.contains_range(range)).then_some(Stays)
    }

    fn find_record(_: &Stays, _: usize) -> Option<Record> {
        with(|machine| machine.noted.is_some()).then_some(Record)
    }

    fn make_record(
        _: &Stays,
        nodes: usize,
        block: impl FnOnce(u64) -> Result<Block, Errno>,
    ) -> Result<Record, Errno> {
        let bytes = u64::try_from(nodes.div_ceil(8)).map_err(|_| EINVAL)?;
        let pages = system::Block::give_away(block(bytes.div_ceil(PAGE_SIZE).max(1))?);
        with(|machine| {
            machine.noted = Some(Noted {
                pages,
                numbers: BTreeSet::new(),
                content: Content::start(0),
            });
            machine.note(None);
        });
        Ok(Record)
    }
}

/// Pages of a tree that arrived.
pub struct Stays;

/// The module's record, which the machine stores.
pub struct Record;

impl system::Record for Record {
    fn numbers(&self) -> impl Iterator<Item = usize> {
        with(|machine| machine.noted.as_ref().map(|noted| noted.numbers.clone()))
            .into_iter()
            .flatten()
    }

    fn add(&mut self, number: usize) {
        with(|machine| machine.note(Some(number)));
    }
}

/// Pages that kho.ko allocated.
pub struct Block {
    range: PhysRange,
    boot: u64,
}

impl Block {
    fn of(machine: &mut Machine, range: PhysRange) -> Self {
        add(&mut machine.blocks, range);
        Self {
            range,
            boot: machine.boot,
        }
    }
}

impl system::Block for Block {
    fn any(order: u32) -> Option<Self> {
        with(|machine| {
            let range = machine.allocate(order)?;
            if std::mem::take(&mut machine.fails_next) {
                let page = machine.world.rng.below(range.pages());
                machine.failed.insert(pfns(range).start + page);
            }
            Some(Self::of(machine, range))
        })
    }

    fn at(map: &Map, range: PhysRange) -> Result<Self, Errno> {
        let crosses = |end: &u64| range.start().get() < *end && *end < range.end().get();
        with(|machine| {
            if !range.is_page_aligned()
                || !map.ram.contains_range(range)
                || ZONES.iter().any(crosses)
            {
                machine.broken.push(format!("{range} was asked for"));
                return Err(EINVAL);
            }
            let world = &mut machine.world;
            if machine.exhausted || !world.kernel.free(&world.template).contains_range(range) {
                return Err(EBUSY);
            }
            add(&mut world.kernel.held, range);
            if machine.first_failed(range).is_some() {
                machine.free(range);
                return Err(EHWPOISON);
            }
            machine.zero(range);
            Ok(Self::of(machine, range))
        })
    }

    fn range(&self) -> PhysRange {
        self.range
    }

    fn is_good(&self) -> bool {
        Sim::first_failed(self.range).is_none()
    }

    fn is_only_ours(&self, at: PhysAddr) -> bool {
        with(|machine| !machine.mapped.contains(&(at.get() / PAGE_SIZE)))
    }

    fn give_away(self) -> PhysRange {
        let range = self.range;
        with(|machine| machine.blocks = minus(&machine.blocks, &set([range])));
        std::mem::forget(self);
        range
    }

    fn shorten(self, count: u64) -> Option<Self> {
        let (range, boot) = (self.range, self.boot);
        match range.split_at(count * PAGE_SIZE) {
            Some((first, rest)) => {
                std::mem::forget(self);
                drop(Self { range: rest, boot });
                Some(Self { range: first, boot })
            }
            None => (count * PAGE_SIZE == range.len()).then_some(self),
        }
    }

    fn zero(&mut self, range: PhysRange) {
        if let Some(part) = self.range.intersection(range) {
            with(|machine| machine.zero(part));
        }
    }

    fn fill(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let to = PhysRange::new(self.range.start(), bytes.len() as u64).map_err(|_| ENOMEM)?;
        if !self.range.contains_range(to) {
            return Err(ENOMEM);
        }
        with(|machine| machine.store(to, bytes));
        Ok(())
    }

    fn store_first(&mut self, value: u64) {
        with(|machine| {
            let here = machine.world.memory.at(self.range.start());
            let stored = machine.world.library.get(&here.id).map(Rc::as_ref);
            if let Some(Stored::State(bytes)) = stored {
                let mut bytes = bytes.clone();
                bytes[..8].copy_from_slice(&value.to_ne_bytes());
                let start = self.range.start().get();
                let to = range(start, start + bytes.len() as u64);
                machine.store(to, &bytes);
            }
        });
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        with(|machine| {
            if machine.boot == self.boot {
                machine.blocks = minus(&machine.blocks, &set([self.range]));
                machine.free(self.range);
            }
        });
    }
}

/// Pages that arrived.
pub struct Reserved {
    set: RangeSet,
}

impl Reserved {
    fn take(&mut self, wanted: &RangeSet) -> Result<(), Errno> {
        if wanted.iter().any(|range| !range.is_page_aligned()) {
            return Err(EINVAL);
        }
        let marked = with(|machine| minus(wanted, &machine.marked).is_empty());
        if !marked || !minus(wanted, &self.set).is_empty() {
            return Err(EBUSY);
        }
        self.set = minus(&self.set, wanted);
        with(|machine| machine.marked = minus(&machine.marked, wanted));
        Ok(())
    }
}

impl system::Reserved for Reserved {
    type Boot = Boot;

    const NOTHING: Self = Self {
        set: RangeSet::new(),
    };

    fn adopt(boot: &Boot, map: &Map, wanted: &RangeSet, again: bool) -> Result<(Self, u64), Errno> {
        let (reserved, marked) = with(|machine| {
            (
                machine.world.kernel.reserved.clone(),
                machine.marked.clone(),
            )
        });
        let still = |pfn| {
            let page = page(pfn);
            reserved.contains_range(page) && (!again || marked.contains_range(page))
        };
        let (set, missing) = left_of(wanted, map, &boot.handed, still)?;
        with(|machine| machine.marked = plus(&machine.marked, &set));
        Ok((Self { set }, missing))
    }

    fn set(&self) -> &RangeSet {
        &self.set
    }

    fn claim(&mut self, wanted: &RangeSet, failed: Failed) -> Result<(), Errno> {
        if failed == Failed::Refused && wanted.iter().any(|r| Sim::first_failed(r).is_some()) {
            return Err(EHWPOISON);
        }
        self.take(wanted)?;
        with(|machine| {
            let kernel = &mut machine.world.kernel;
            kernel.give_back(wanted);
            kernel.held = plus(&kernel.held, wanted);
        });
        Ok(())
    }

    fn free(&mut self, wanted: &RangeSet, zero: bool) -> Result<u64, Errno> {
        self.take(wanted)?;
        Ok(with(|machine| {
            let failed = set(wanted
                .iter()
                .flat_map(|range| page_set(&machine.failed, range))
                .map(page));
            let good = minus(wanted, &failed);
            machine.world.kernel.give_back(&good);
            let garbage = machine.world.fresh();
            for run in good.iter() {
                let content = if zero {
                    zeros(run)
                } else {
                    Content::start(garbage)
                };
                machine.world.memory.write(run, content);
            }
            good.total()
        }))
    }
}

/// The chain of the running kernel.
pub struct Boot {
    chain: Chain,
    handed: RangeSet,
}

impl system::Boot for Boot {
    fn read(map: &Map) -> Result<Self, Errno> {
        let head = with(|machine| machine.arrived.as_ref().map(|(head, _)| head.get()));
        let mut params = vec![0; 4096];
        params[SETUP_DATA..SETUP_DATA + 8].copy_from_slice(&head.unwrap_or(0).to_ne_bytes());
        let chain = chain::walk(&params, |range| Sim::copy_reserved(map, range))?;
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
pub struct Tree {
    reader: Reader<'static>,
    index: Index<'static>,
}

impl system::Tree for Tree {
    fn new(bytes: Vec<u8>) -> Result<Self, TreeError> {
        let reader = Reader::new(bytes.leak())?;
        Ok(Self {
            index: Index::new(&reader)?,
            reader,
        })
    }

    fn reader(&self) -> &Reader<'_> {
        &self.reader
    }

    fn index(&self) -> &Index<'_> {
        &self.index
    }

    fn bytes(&self) -> &[u8] {
        self.reader.bytes()
    }
}

/// Returns the pages of chain and tree, which stay reserved because kho.ko reads them later too.
pub fn state_pages(world: &World) -> RangeSet {
    outer(&set(world.state))
}
