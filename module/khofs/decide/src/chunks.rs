//! The pages that the file system owns, and the free ones among them.
//!
//! khofs takes memory from the system and returns it in chunks of 2 MiB (naturally aligned), so that the memory that
//! stays in place forms few ranges. Pages of small files share chunks; a large file fills chunks of its own, each page
//! at its offset in the file, modulo the chunk.

use crate::bits::{Bits, PAGES};
use alloc::boxed::Box;
use alloc::vec::Vec;
use kho_decide::errno::{ENOMEM, Errno};

/// Number of chunks that one table of the index covers: 8 GiB.
const TABLE: u64 = 4096;

/// The pages that an instance has of a chunk. Other instances may have other pages of the same chunk: khofs chooses
/// neither the addresses of memory that arrived nor those of single pages from the system.
struct Chunk {
    /// First page frame.
    base: u64,
    /// The instance.
    owner: u32,
    /// Slot plus one of the pages that another instance has of this chunk; 0 if there is no other or no further
    /// instance.
    next: u32,
    /// Whether the chunk is for one large file.
    large: bool,
    /// Position in the pool's list; `None` if it is not in the list.
    listed: Option<u32>,
    /// Whether the pages are one folio. Then all of them are in use, or all are free.
    folded: bool,
    owned: Bits,
    free: Bits,
    /// Free pages that are zeroed.
    clean: Bits,
}

/// The chunks of an instance.
struct Pool {
    owner: u32,
    /// Chunks for small files that may have free pages. khofs tries the last one first. Each chunk has its position in
    /// the list, so that its removal needs no search.
    small: Vec<u32>,
    /// Chunks for large files.
    large: Vec<u32>,
    /// A chunk without a used page that the pool keeps for a short time.
    spare: Option<u64>,
    owned: u64,
    free: u64,
}

impl Pool {
    fn list(&mut self, large: bool) -> &mut Vec<u32> {
        match large {
            true => &mut self.large,
            false => &mut self.small,
        }
    }
}

/// A page to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// Page frame.
    pub pfn: u64,
    /// Whether the page is zeroed.
    pub clean: bool,
}

/// Pages of one chunk that go back to the system.
#[derive(Debug, PartialEq, Eq)]
pub struct Idle {
    /// First page frame of the chunk.
    pub base: u64,
    /// The pages.
    pub pages: Bits,
    /// Whether the pages are one folio.
    pub folded: bool,
}

/// All chunks of all instances.
#[derive(Default)]
pub struct Chunks {
    /// For each chunk number: the slot plus one of the pages of the chunk's first instance; 0 if no instance has any.
    index: Vec<Option<Box<[u32]>>>,
    slots: Vec<Chunk>,
    /// Unused slots.
    vacant: Vec<u32>,
    pools: Vec<Pool>,
}

impl Chunks {
    /// Makes an empty set of chunks.
    pub const fn new() -> Self {
        Self {
            index: Vec::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            pools: Vec::new(),
        }
    }

    fn place(pfn: u64) -> (usize, usize) {
        let number = pfn / PAGES;
        let table = usize::try_from(number / TABLE).unwrap_or(usize::MAX);
        (table, usize::try_from(number % TABLE).unwrap_or(0))
    }

    /// The index's entry for the chunk of a page.
    fn cell(&mut self, pfn: u64) -> Option<&mut u32> {
        let (table, at) = Self::place(pfn);
        self.index.get_mut(table)?.as_mut()?.get_mut(at)
    }

    /// The slots of the instances that have pages of the chunk of `pfn`.
    fn slots_of(&self, pfn: u64) -> impl Iterator<Item = u32> + '_ {
        let (table, at) = Self::place(pfn);
        let table = self.index.get(table).and_then(Option::as_ref);
        let first = table.and_then(|table| table.get(at)).copied().unwrap_or(0);
        core::iter::successors(first.checked_sub(1), |slot| {
            self.chunk(*slot)?.next.checked_sub(1)
        })
    }

    /// The slot of the instance that has a page.
    fn slot(&self, pfn: u64) -> Option<u32> {
        self.slots_of(pfn)
            .find(|slot| self.chunk(*slot).is_some_and(|chunk| chunk.owned.has(pfn)))
    }

    /// The slot for pages of `owner` in the chunk of `pfn`.
    fn slot_for(&self, owner: u32, pfn: u64) -> Option<u32> {
        self.slots_of(pfn)
            .find(|slot| self.chunk(*slot).is_some_and(|chunk| chunk.owner == owner))
    }

    fn chunk(&self, slot: u32) -> Option<&Chunk> {
        self.slots.get(slot as usize)
    }

    fn chunk_mut(&mut self, slot: u32) -> Option<&mut Chunk> {
        self.slots.get_mut(slot as usize)
    }

    fn pool(&mut self, owner: u32) -> Result<&mut Pool, Errno> {
        let at = match self.pools.iter().position(|p| p.owner == owner) {
            Some(at) => at,
            None => {
                self.pools.try_reserve(1)?;
                self.pools.push(Pool {
                    owner,
                    small: Vec::new(),
                    large: Vec::new(),
                    spare: None,
                    owned: 0,
                    free: 0,
                });
                self.pools.len().saturating_sub(1)
            }
        };
        self.pools.get_mut(at).ok_or(ENOMEM)
    }

    /// The owner of a page; `None` if no instance owns it.
    pub fn owner(&self, pfn: u64) -> Option<u32> {
        Some(self.chunk(self.slot(pfn)?)?.owner)
    }

    /// Number of pages that `owner` owns, and number of free pages among them.
    pub fn totals(&self, owner: u32) -> (u64, u64) {
        let pool = self.pools.iter().find(|p| p.owner == owner);
        pool.map_or((0, 0), |p| (p.owned, p.free))
    }

    fn make(&mut self, pfn: u64, owner: u32, large: bool) -> Result<u32, Errno> {
        let (table, _) = Self::place(pfn);
        if table >= self.index.len() {
            let more = table.saturating_add(1).saturating_sub(self.index.len());
            self.index.try_reserve(more)?;
            self.index.resize_with(table.saturating_add(1), || None);
        }
        let entry = self.index.get_mut(table).ok_or(ENOMEM)?;
        if entry.is_none() {
            let mut fresh = Vec::new();
            fresh.try_reserve_exact(TABLE as usize)?;
            fresh.resize(TABLE as usize, 0u32);
            *entry = Some(fresh.into_boxed_slice());
        }
        let chunk = Chunk {
            base: pfn & !(PAGES.saturating_sub(1)),
            owner,
            next: self.cell(pfn).map_or(0, |cell| *cell),
            large,
            listed: None,
            folded: false,
            owned: Bits::default(),
            free: Bits::default(),
            clean: Bits::default(),
        };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                *self.slots.get_mut(slot as usize).ok_or(ENOMEM)? = chunk;
                slot
            }
            None => {
                let slot = u32::try_from(self.slots.len()).map_err(|_| ENOMEM)?;
                self.slots.try_reserve(1)?;
                // With this room, the return of a slot never allocates.
                let wanted = self.slots.len().saturating_add(1);
                self.vacant
                    .try_reserve(wanted.saturating_sub(self.vacant.len()))?;
                self.slots.push(chunk);
                slot
            }
        };
        if let Some(cell) = self.cell(pfn) {
            *cell = slot.saturating_add(1);
        }
        Ok(slot)
    }

    /// Adds `count` pages from `pfn` on, within one chunk, to the pages of `owner`, and of no other instance: free and
    /// zeroed, or in use.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn add(
        &mut self,
        owner: u32,
        pfn: u64,
        count: u64,
        free: bool,
        large: bool,
    ) -> Result<(), Errno> {
        self.pool(owner)?;
        let slot = match self.slot_for(owner, pfn) {
            Some(slot) => slot,
            None => self.make(pfn, owner, large)?,
        };
        let chunk = self.chunk_mut(slot).ok_or(ENOMEM)?;
        let mut fresh = 0u64;
        for page in pfn..pfn
            .saturating_add(count)
            .min(chunk.base.saturating_add(PAGES))
        {
            if chunk.owned.has(page) {
                continue;
            }
            fresh = fresh.saturating_add(1);
            chunk.owned.set(page);
            if free {
                chunk.free.set(page);
                chunk.clean.set(page);
            }
        }
        let pool = self.pool(owner)?;
        pool.owned = pool.owned.saturating_add(fresh);
        if free {
            pool.free = pool.free.saturating_add(fresh);
            self.list(slot);
        }
        Ok(())
    }

    /// Puts a chunk into its pool's list. Without memory for that, the next free of one of its pages tries again.
    fn list(&mut self, slot: u32) {
        let Some((owner, large)) = self
            .chunk(slot)
            .filter(|c| c.listed.is_none())
            .map(|c| (c.owner, c.large))
        else {
            return;
        };
        let Ok(pool) = self.pool(owner) else { return };
        let list = pool.list(large);
        let Ok(at) = u32::try_from(list.len()) else {
            return;
        };
        if list.try_reserve(1).is_err() {
            return;
        }
        list.push(slot);
        if let Some(chunk) = self.chunk_mut(slot) {
            chunk.listed = Some(at);
        }
    }

    /// Removes a chunk from its pool's list.
    fn unlist(&mut self, slot: u32) {
        let Some((owner, large, at)) = self
            .chunk_mut(slot)
            .and_then(|c| Some((c.owner, c.large, c.listed.take()?)))
        else {
            return;
        };
        let Ok(pool) = self.pool(owner) else { return };
        let list = pool.list(large);
        let place = at as usize;
        if place < list.len() {
            list.swap_remove(place);
        }
        // The last chunk of the list is now at this position.
        let moved = list.get(place).copied();
        if let Some(chunk) = moved.and_then(|slot| self.chunk_mut(slot)) {
            chunk.listed = Some(at);
        }
    }

    fn use_page(&mut self, slot: u32, pfn: u64) -> Option<Page> {
        let chunk = self.chunk_mut(slot)?;
        let page = Page {
            pfn,
            clean: chunk.clean.has(pfn),
        };
        chunk.free.clear(pfn);
        chunk.clean.clear(pfn);
        let (owner, base) = (chunk.owner, chunk.base);
        let pool = self.pool(owner).ok()?;
        pool.free = pool.free.saturating_sub(1);
        if pool.spare == Some(base) {
            pool.spare = None;
        }
        Some(page)
    }

    /// Takes page `pfn`, if it is a free page of `owner` and `ready`: only khofs has a reference on it. If the second
    /// argument of `ready` is true, the page is in a folio, and `ready` must split that folio into pages.
    pub fn take_at(
        &mut self,
        owner: u32,
        pfn: u64,
        ready: impl Fn(u64, bool) -> bool,
    ) -> Option<Page> {
        let slot = self.slot(pfn)?;
        let chunk = self.chunk_mut(slot)?;
        if chunk.owner != owner || !chunk.free.has(pfn) || !ready(pfn, chunk.folded) {
            return None;
        }
        chunk.folded = false;
        self.use_page(slot, pfn)
    }

    /// Takes all pages of the spare chunk of `owner`, if it has one. Calls `ready` only if the pages are a folio, which
    /// `ready` must split.
    pub fn take_chunk(&mut self, owner: u32, ready: impl Fn(u64, bool) -> bool) -> Option<Page> {
        let pool = self.pools.iter().find(|p| p.owner == owner)?;
        self.take_all(pool.spare?, ready)
    }

    /// Takes all pages of the chunk at `base`, none of which is in use; otherwise as [`take_chunk`](Self::take_chunk).
    pub fn take_all(&mut self, base: u64, ready: impl Fn(u64, bool) -> bool) -> Option<Page> {
        let slot = self.slot(base)?;
        let chunk = self.chunk_mut(slot)?;
        if !chunk.free.is_full() || (chunk.folded && !ready(base, true)) {
            return None;
        }
        let page = Page {
            pfn: chunk.base,
            clean: chunk.clean.is_full(),
        };
        chunk.folded = false;
        chunk.free = Bits::default();
        chunk.clean = Bits::default();
        let owner = chunk.owner;
        let pool = self.pool(owner).ok()?;
        pool.free = pool.free.saturating_sub(PAGES);
        if pool.spare == Some(page.pfn) {
            pool.spare = None;
        }
        Some(page)
    }

    /// Sets whether the pages of a chunk, all in use, are one folio.
    pub fn set_folded(&mut self, pfn: u64, folded: bool) {
        if let Some(chunk) = self.slot(pfn).and_then(|slot| self.chunk_mut(slot)) {
            chunk.folded = folded;
        }
    }

    /// Whether the pages of the chunk of `pfn` are one folio.
    pub fn is_folded(&self, pfn: u64) -> bool {
        let chunk = self.slot(pfn).and_then(|slot| self.chunk(slot));
        chunk.is_some_and(|chunk| chunk.folded)
    }

    /// Number of folios of `owner` that are in use.
    pub fn folios(&self, owner: u32) -> u64 {
        let folios = self.slots.iter().filter(|c| c.owner == owner && c.folded);
        folios.filter(|c| c.free.is_empty()).count() as u64
    }

    /// Takes a free page from the chunks for small files, or from any chunk if `any` is true.
    pub fn take(
        &mut self,
        owner: u32,
        any: bool,
        ready: impl Fn(u64, bool) -> bool,
    ) -> Option<Page> {
        self.take_from(owner, false, &ready)
            .or_else(|| any.then(|| self.take_from(owner, true, &ready)).flatten())
    }

    fn take_from(
        &mut self,
        owner: u32,
        large: bool,
        ready: &impl Fn(u64, bool) -> bool,
    ) -> Option<Page> {
        let mut depth = 0usize;
        loop {
            let pool = self.pools.iter_mut().find(|p| p.owner == owner)?;
            let list = pool.list(large);
            let at = list.len().checked_sub(depth.saturating_add(1))?;
            let slot = *list.get(at)?;
            let chunk = self.chunk(slot)?;
            if chunk.free.is_empty() {
                self.unlist(slot);
                continue;
            }
            let (base, folded) = (chunk.base, chunk.folded);
            // If one page of a folio is not ready, none is.
            let looked = if folded { 1 } else { 512 };
            let free = chunk.free.iter().take(looked);
            let found = free
                .map(|page| base.saturating_add(page))
                .find(|pfn| ready(*pfn, folded));
            if let Some(pfn) = found {
                self.chunk_mut(slot)?.folded = false;
                return self.use_page(slot, pfn);
            }
            // Another holder still has all free pages of this chunk: try a few other chunks.
            depth = depth.saturating_add(1);
            if depth > 8 {
                return None;
            }
        }
    }

    /// Frees a page. Returns the page's chunk if that was its last page in use and the pool has a spare chunk already.
    pub fn give(&mut self, pfn: u64) -> Option<Idle> {
        let slot = self.slot(pfn)?;
        let chunk = self.chunk_mut(slot)?;
        if chunk.free.has(pfn) {
            return None;
        }
        chunk.free.set(pfn);
        self.given(slot, 1)
    }

    /// Frees all pages of a chunk; otherwise as [`give`](Self::give).
    pub fn give_all(&mut self, pfn: u64) -> Option<Idle> {
        let slot = self.slot(pfn)?;
        let chunk = self.chunk_mut(slot)?;
        if !chunk.owned.is_full() || !chunk.free.is_empty() {
            return None;
        }
        chunk.free = chunk.owned;
        self.given(slot, PAGES)
    }

    fn given(&mut self, slot: u32, count: u64) -> Option<Idle> {
        let chunk = self.chunk(slot)?;
        let (owner, base, idle) = (chunk.owner, chunk.base, chunk.free == chunk.owned);
        let pool = self.pool(owner).ok()?;
        pool.free = pool.free.saturating_add(count);
        if !idle {
            self.list(slot);
            return None;
        }
        if pool.spare.is_none() {
            pool.spare = Some(base);
            self.list(slot);
            return None;
        }
        self.remove(slot)
    }

    /// Removes a chunk without a used page.
    fn remove(&mut self, slot: u32) -> Option<Idle> {
        let chunk = self.chunk(slot)?;
        if chunk.free != chunk.owned {
            return None;
        }
        let (owner, base, next) = (chunk.owner, chunk.base, chunk.next);
        let (pages, folded) = (chunk.owned, chunk.folded);
        self.unlist(slot);
        let itself = slot.saturating_add(1);
        let before = self
            .slots_of(base)
            .find(|other| self.chunk(*other).is_some_and(|c| c.next == itself));
        let link = match before {
            Some(before) => self.chunk_mut(before).map(|chunk| &mut chunk.next),
            None => self.cell(base),
        };
        *link? = next;
        let chunk = self.chunk_mut(slot)?;
        chunk.owned = Bits::default();
        chunk.free = Bits::default();
        chunk.clean = Bits::default();
        chunk.owner = u32::MAX;
        self.vacant.push(slot); // `make` reserved the room
        if let Ok(pool) = self.pool(owner) {
            pool.owned = pool.owned.saturating_sub(pages.count());
            pool.free = pool.free.saturating_sub(pages.count());
            if pool.spare == Some(base) {
                pool.spare = None;
            }
        }
        Some(Idle {
            base,
            pages,
            folded,
        })
    }

    /// Takes the spare chunk of the first pool that has one.
    pub fn next_spare(&mut self) -> Option<Idle> {
        let found = self.pools.iter().find_map(|p| Some((p.owner, p.spare?)));
        let (owner, base) = found?;
        self.remove(self.slot_for(owner, base)?)
    }

    /// Whether a pool has a spare chunk.
    pub fn has_spare(&self) -> bool {
        self.pools.iter().any(|p| p.spare.is_some())
    }

    /// Takes free pages from a chunk of a pool that has more free pages than `keep` allows, at most those of one chunk.
    pub fn trim(&mut self, keep: impl Fn(u64, u64) -> u64) -> Option<Idle> {
        let pool = self.pools.iter().find(|p| p.free > keep(p.owned, p.free))?;
        let owner = pool.owner;
        let slot = self
            .partly_free(owner, false)
            .or_else(|| self.partly_free(owner, true))?;
        self.unlist(slot);
        let chunk = self.slots.get_mut(slot as usize)?;
        let (base, pages) = (chunk.base, chunk.free);
        for page in pages.iter() {
            chunk.owned.clear(page);
        }
        chunk.free = Bits::default();
        chunk.clean = Bits::default();
        let pool = self.pool(owner).ok()?;
        pool.owned = pool.owned.saturating_sub(pages.count());
        pool.free = pool.free.saturating_sub(pages.count());
        Some(Idle {
            base,
            pages,
            folded: false,
        })
    }

    /// The chunk that is last in line for a free page, among those with free and used pages. Chunks without free pages
    /// leave the list, so that no later search visits them again.
    fn partly_free(&mut self, owner: u32, large: bool) -> Option<u32> {
        let mut at = 0usize;
        loop {
            let pool = self.pools.iter_mut().find(|p| p.owner == owner)?;
            let slot = *pool.list(large).get(at)?;
            let chunk = self.chunk(slot)?;
            if chunk.free.is_empty() {
                self.unlist(slot);
            } else if chunk.free == chunk.owned {
                // This is the spare chunk.
                at = at.saturating_add(1);
            } else {
                return Some(slot);
            }
        }
    }

    /// Number of runs of used pages of `owner`.
    pub fn runs(&self, owner: u32) -> u64 {
        let mut runs = 0u64;
        // The page before, if it is in use.
        let mut last = None;
        let cells = self.index.iter().flatten().flat_map(|t| t.iter());
        for first in cells.filter_map(|cell| cell.checked_sub(1)) {
            let all =
                core::iter::successors(Some(first), |slot| self.chunk(*slot)?.next.checked_sub(1));
            let mut all = all.filter_map(|slot| self.chunk(slot));
            let Some(chunk) = all.find(|chunk| chunk.owner == owner) else {
                continue;
            };
            let used = chunk.owned.without(&chunk.free);
            let before = last == chunk.base.checked_sub(1);
            runs = runs.saturating_add(used.runs(before));
            let end = chunk.base.saturating_add(PAGES.saturating_sub(1));
            last = used.has(end).then_some(end);
        }
        runs
    }

    /// Whether `pfn` is a free page.
    pub fn is_free(&self, pfn: u64) -> bool {
        let chunk = self.slot(pfn).and_then(|slot| self.chunk(slot));
        chunk.is_some_and(|c| c.free.has(pfn))
    }
}

#[cfg(test)]
mod tests;
