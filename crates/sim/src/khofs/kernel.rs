//! The kernel around khofs: pages, folios and page caches of the simulated machine.

use crate::machine::set;
use crate::module::machine::{Sim, store, with};
use kho::abi::{COMPATIBLE, MEM};
use kho::{PAGE_SIZE, PhysRange};
use kho_decide::errno::{EEXIST, EINVAL, ENOENT, ENOMEM, Errno};
use kho_decide::lend;
use kho_decide::pages::{pfns, range_of};
use kho_decide::session::Session;
use kho_decide::system::Failed;
use khofs_decide::bits::PAGES;
use khofs_decide::handover::{Input, Output};
use khofs_decide::system::{Cache, Run, System};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// The kernel's record of pages that khofs has.
#[derive(Default)]
pub struct Pages {
    /// Folios of 2 MiB, by their first page frame.
    pub folios: BTreeSet<u64>,
    /// Whether the kernel has folios of 2 MiB.
    pub large: bool,
    /// Whether khofs wants to return memory to the system soon.
    pub reaping: bool,
    /// Whether the kernel had no pages or no page-cache entry for khofs, or khofs returned a page on its own.
    pub short: bool,
    /// Number of allocations, for entries of the page cache and for claims, that succeed before the next one fails
    /// once; `None` if all succeed.
    pub entries: Option<u64>,
}

impl Pages {
    fn is_out_of_entries(&mut self) -> bool {
        self.entries = match self.entries {
            Some(0) => {
                self.short = true;
                return self.entries.take().is_some();
            }
            more => more.map(|more| more - 1),
        };
        false
    }
}

thread_local! {
    static PAGES_OF: RefCell<Pages> = RefCell::default();
}

/// Reads or changes the record of this thread's kernel.
pub fn known<T>(act: impl FnOnce(&mut Pages) -> T) -> T {
    PAGES_OF.with_borrow_mut(act)
}

/// Returns the first page frame of the chunk that contains this one.
pub fn base_of(pfn: u64) -> u64 {
    pfn - pfn % PAGES
}

/// Returns the first page frame of the folio of 2 MiB that contains the page `pfn`; `None` if the page is in no such folio.
pub fn folio_of(pfn: u64) -> Option<u64> {
    let base = base_of(pfn);
    known(|pages| pages.folios.contains(&base)).then_some(base)
}

/// Makes a run of page frames.
///
/// # Panics
///
/// If the run is empty.
pub fn run(pfn: u64, count: u64) -> PhysRange {
    range_of(pfn, count).expect("a run has pages")
}

/// Returns whether khofs is the only owner of a page, and its memory is good.
fn is_alone(pfn: u64) -> bool {
    with(|m| !m.mapped.contains(&pfn) && !m.failed.contains(&pfn))
}

fn broken(what: String) {
    with(|m| m.broken.push(what));
}

/// The simulated kernel.
pub enum Kernel {}

impl System for Kernel {
    /// Number of an instance.
    type Super = u32;
    type Node = Node;
    type Block = Block;

    fn ram_pages() -> u64 {
        with(|m| m.world.template.ram.total() / PAGE_SIZE)
    }

    fn large() -> bool {
        known(|pages| pages.large)
    }

    fn more_pages() -> Option<u64> {
        None
    }

    fn take_pages(count: u64) -> Option<u64> {
        let count = usize::try_from(count).ok()?;
        let taken = lend::give_away::<Sim>(count).ok();
        known(|pages| pages.short |= taken.is_none());
        taken.map(|range| pfns(range).start)
    }

    fn put_page(pfn: u64) {
        if folio_of(pfn).is_some() {
            broken(format!("page {pfn:#x} of a folio is freed by itself"));
        }
        known(|pages| pages.short = true);
        with(|m| m.free(run(pfn, 1)));
    }

    fn put_folio(base: u64) {
        if !known(|pages| pages.folios.remove(&base)) {
            broken(format!("{base:#x} is freed as a folio, and is none"));
        }
        with(|m| m.free(run(base, PAGES)));
    }

    fn is_ready(pfn: u64, folded: bool) -> bool {
        match folded {
            true => Self::unfold(base_of(pfn)),
            false => is_alone(pfn),
        }
    }

    fn good_pages(pfn: u64, count: u64) -> u64 {
        let failed = with(|m| m.first_failed(run(pfn, count)));
        failed.map_or(count, |failed| failed - pfn)
    }

    fn fold(base: u64) -> bool {
        if !base.is_multiple_of(PAGES)
            || !with(|m| m.world.kernel.held.contains_range(run(base, PAGES)))
        {
            broken(format!(
                "a folio at {base:#x} is of pages that are not khofs's"
            ));
        }
        (base..base + PAGES).all(is_alone) && known(|pages| pages.folios.insert(base))
    }

    fn unfold(base: u64) -> bool {
        (base..base + PAGES).all(is_alone) && known(|pages| pages.folios.remove(&base))
    }

    fn claim(range: PhysRange) -> Result<(), Errno> {
        match known(Pages::is_out_of_entries) {
            true => Err(ENOMEM),
            false => store(|s| s.claim(range, Failed::Taken)),
        }
    }

    fn reap_later() {
        known(|pages| pages.reaping = true);
    }
}

/// Pages of kho.ko's arenas, with content.
pub struct Block(PhysRange);

impl Block {
    /// Allocates as many pages as `bytes` need, and writes `bytes` into them.
    ///
    /// # Errors
    ///
    /// If no memory is left.
    pub fn with(bytes: &[u8]) -> Result<Self, Errno> {
        let count = bytes.len().div_ceil(4096);
        let range = lend::lend::<Sim>(count)?;
        let to = PhysRange::new(range.start(), bytes.len() as u64).map_err(|_| ENOMEM)?;
        with(|m| m.store(to, bytes));
        Ok(Self(range))
    }

    /// Returns the range of the pages.
    pub fn range(&self) -> PhysRange {
        self.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        store(|s| s.take_back(self.0));
    }
}

/// The page cache of a file: page frames by their index in the file.
#[derive(Default)]
pub struct PageCache(RefCell<BTreeMap<u64, u64>>);

impl PageCache {
    /// Returns the page frame at each index.
    pub fn pages(&self) -> BTreeMap<u64, u64> {
        self.0.borrow().clone()
    }

    /// Returns the page frame at an index.
    pub fn at(&self, index: u64) -> Option<u64> {
        self.0.borrow().get(&index).copied()
    }

    /// Returns index and page frame of the first page from `index` to before `end`.
    pub fn first(&self, index: u64, end: u64) -> Option<(u64, u64)> {
        let pages = self.0.borrow();
        let first = pages.range(index..index.max(end)).next();
        first.map(|(index, pfn)| (*index, *pfn))
    }

    /// Removes `count` pages from `index` on.
    pub fn remove(&self, index: u64, count: u64) {
        let mut pages = self.0.borrow_mut();
        for index in index..index + count {
            pages.remove(&index);
        }
    }
}

impl Cache for &PageCache {
    fn insert(self, index: u64, pfn: u64, _: bool) -> Result<(), Errno> {
        let count = match folio_of(pfn) {
            Some(base) if base == pfn => PAGES,
            Some(base) => {
                broken(format!(
                    "{pfn:#x} of the folio {base:#x} is put into a file"
                ));
                return Err(EINVAL);
            }
            None => 1,
        };
        let owned = with(|m| m.world.kernel.held.contains_range(run(pfn, count)));
        if !owned {
            broken(format!("{pfn:#x} is put into a file, and is not khofs's"));
        }
        let mut pages = self.0.borrow_mut();
        if pages.range(index..index + count).next().is_some() {
            return Err(EEXIST);
        }
        if known(Pages::is_out_of_entries) {
            return Err(ENOMEM);
        }
        pages.extend((index..index + count).zip(pfn..pfn + count));
        Ok(())
    }

    fn next_run(self, from: u64) -> Option<Run> {
        let pages = self.0.borrow();
        let (index, pfn) = pages.range(from..).next()?;
        Some(match folio_of(*pfn) {
            Some(base) => Run {
                index: index - (pfn - base),
                pfn: base,
                count: PAGES,
            },
            None => Run {
                index: *index,
                pfn: *pfn,
                count: 1,
            },
        })
    }

    fn set_lazy(self, _: u64) {}
}

/// The node of kho.ko's tree that is being written.
pub struct Context<'a>(pub &'a mut Session);

impl Output for Context<'_> {
    fn begin(&mut self, name: &str) -> Result<(), Errno> {
        self.0.begin(name)
    }

    fn end(&mut self) -> Result<(), Errno> {
        self.0.end()
    }

    fn u32(&mut self, name: &str, value: u32) -> Result<(), Errno> {
        self.0.prop(name, &value.to_ne_bytes())
    }

    fn u64(&mut self, name: &str, value: u64) -> Result<(), Errno> {
        self.0.prop(name, &value.to_ne_bytes())
    }

    fn text(&mut self, name: &str, value: &str) -> Result<(), Errno> {
        self.0.prop_str(name, value.as_bytes())
    }

    fn mem(&mut self, ranges: impl Iterator<Item = PhysRange>) -> Result<(), Errno> {
        let ranges: Vec<_> = ranges.map(Ok).collect();
        match ranges.is_empty() {
            true => Ok(()),
            false => self.0.mem::<Sim>(ranges.into_iter()),
        }
    }
}

/// Number of a node that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub i64);

impl Node {
    /// Returns the nodes with this `compatible`.
    pub fn all(compatible: &str) -> Vec<Self> {
        let mut nodes = Vec::new();
        let is = |node: &kho::tree::Node<'_>| {
            let value = node.prop(COMPATIBLE).map(|prop| prop.value());
            value.and_then(|value| value.str().ok()) == Some(compatible)
        };
        let mut from = 0;
        while let Ok(found) = store(|s| s.find(from, is)) {
            nodes.push(Self(found));
            from = usize::try_from(found).unwrap_or(0) + 1;
        }
        nodes
    }

    fn value<T>(
        self,
        name: &str,
        read: impl FnOnce(kho::tree::Value<'_>) -> Option<T>,
    ) -> Result<T, Errno> {
        store(|s| {
            let node = s.node(self.0)?;
            let prop = node.prop(name).ok_or(ENOENT)?;
            read(prop.value()).ok_or(EINVAL)
        })
    }
}

impl Input for Node {
    fn child(self, name: &str) -> Result<Self, Errno> {
        store(|s| s.find_child(self.0, name)).map(Self)
    }

    fn u32(self, name: &str) -> Result<u32, Errno> {
        self.value(name, |value| value.u32().ok())
    }

    fn u64(self, name: &str) -> Result<u64, Errno> {
        self.value(name, |value| value.u64().ok())
    }

    fn text(self, name: &str) -> Result<String, Errno> {
        self.value(name, |value| value.str().ok().map(str::to_owned))
    }

    fn mem(self) -> Result<Vec<PhysRange>, Errno> {
        match self.value(MEM, |value| {
            value.mem().ok()?.collect::<Result<_, _>>().ok()
        }) {
            Err(ENOENT) => Ok(Vec::new()),
            result => result,
        }
    }
}

/// Returns the bytes of a range that arrived and that no consumer has claimed.
///
/// # Errors
///
/// If the range is not reserved any more.
pub fn read_arrived(range: PhysRange, limit: usize) -> Result<Vec<u8>, Errno> {
    let len = range.len().min(limit as u64);
    let part = PhysRange::new(range.start(), len).map_err(|_| EINVAL)?;
    with(|m| {
        let reserved = m.world.kernel.reserved.contains_range(range);
        reserved.then(|| m.bytes(part)).ok_or(EINVAL)
    })
}

/// Returns whether a page is still reserved.
pub fn is_reserved(pfn: u64) -> bool {
    with(|m| m.world.kernel.reserved.overlaps(run(pfn, 1)))
}

/// Returns pages to the system that were claimed and are in no chunk.
pub fn put_claimed(range: PhysRange) {
    debug_assert!(!set([range]).is_empty());
    with(|m| m.free(range));
}
