//! Pages on their way in and out of files.

use crate::boundary::handover::claim;
use crate::boundary::kernel;
use crate::boundary::vfs::{Content, Inode};
use crate::state::{Body, STATE, State};
use kho::PAGE_SIZE;
use kho_boundary::relax;
use kho_decide::errno::{EEXIST, EINVAL, ENOMEM, Errno};
use khofs_decide::bits::PAGES;
use khofs_decide::chunks::{Idle, Page};
use khofs_decide::extents::Extent;
use khofs_decide::options::Huge;
use khofs_decide::pack::range;

/// Input or output error: memory that arrived is somebody else's by now.
const EIO: Errno = Errno(5);

/// Free pages that an instance keeps for itself, besides an eighth of what it uses: 8 MiB.
const KEEP: u64 = 2048;

/// Pages of a large file: 64 MiB.
const LARGE: u64 = 16384;

/// Sizes in pages that are asked for when the system has no 2 MiB in one piece.
const PIECES: [u64; 3] = [64, 8, 1];

/// What a page is wanted for, `struct khofs_want`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Want {
    /// Pages that the file will have in all.
    pub pages: u64,
    /// First page that is wanted besides it.
    pub first: u64,
    /// The page after the last one.
    pub end: u64,
}

impl State {
    /// Puts a new page at `index`, or a folio that has it, into the page cache: locked, not uptodate, and zero if it is
    /// said to be clean. Gives the page.
    ///
    /// # Errors
    ///
    /// [`EEXIST`] when there is one already; [`ENOSPC`]; [`ENOMEM`].
    pub fn grow(
        &mut self,
        id: u32,
        content: &Content,
        inode: Inode<'_>,
        index: u64,
        want: Want,
    ) -> Result<Page, Errno> {
        if content.lazy.has(index) {
            return Err(EEXIST);
        }
        self.instance(id)?.room(1)?;
        if let Some(page) = self.grow_folio(id, content, inode, index, want)? {
            return Ok(page);
        }
        let page = self.pick(id, inode, index, want.pages)?;
        if let Err(error) = inode.insert(index, page.pfn, true) {
            self.give(page.pfn);
            return Err(error);
        }
        let instance = self.instance(id)?;
        instance.used = instance.used.saturating_add(1);
        Ok(page)
    }

    /// A folio of 2 MiB in the page cache, if one is wanted and can be had: its page for `index`.
    fn grow_folio(
        &mut self,
        id: u32,
        content: &Content,
        inode: Inode<'_>,
        index: u64,
        want: Want,
    ) -> Result<Option<Page>, Errno> {
        let first = index & !PAGES.saturating_sub(1);
        let end = first.saturating_add(PAGES);
        let wanted = kernel::large()
            && match self.instance(id)?.huge {
                Huge::Never => false,
                Huge::Advise => want.first <= first && end <= want.end,
                Huge::WithinSize => end <= want.pages,
                Huge::Always => true,
            };
        let empty = || {
            content.lazy.find(first, end).is_none()
                && inode.next_run(first).is_none_or(|run| run.index >= end)
        };
        if !wanted || self.instance(id)?.room(PAGES).is_err() || !empty() {
            return Ok(None);
        }
        let Some(page) = self.take_chunk(id) else {
            return Ok(None);
        };
        if !kernel::fold(page.pfn) {
            self.give_all(page.pfn);
            return Ok(None);
        }
        self.chunks.set_folded(page.pfn, true);
        if let Err(error) = inode.insert(first, page.pfn, true) {
            self.give_all(page.pfn);
            return Err(error);
        }
        let instance = self.instance(id)?;
        instance.used = instance.used.saturating_add(PAGES);
        let pfn = page.pfn.saturating_add(index.saturating_sub(first));
        Ok(Some(Page { pfn, ..page }))
    }

    /// A chunk that is not in use.
    fn take_chunk(&mut self, id: u32) -> Option<Page> {
        if let Some(page) = self.chunks.take_chunk(id, kernel::is_ready) {
            return Some(page);
        }
        let base = self.acquire(id, PAGES, true)?;
        self.chunks.take_all(base, kernel::is_ready)
    }

    /// The page for page `index` of a file: beside its neighbours, or where it keeps neighbours together.
    fn pick(&mut self, id: u32, inode: Inode<'_>, index: u64, pages: u64) -> Result<Page, Errno> {
        let first = index & !PAGES.saturating_sub(1);
        let end = first.saturating_add(PAGES);
        let near = inode.next_run(first).filter(|run| run.index < end);
        if let Some(near) = near {
            let wanted = near.pfn.wrapping_add(index).wrapping_sub(near.index);
            let same = wanted / PAGES == near.pfn / PAGES;
            let page = same.then(|| self.chunks.take_at(id, wanted, kernel::is_ready));
            if let Some(page) = page.flatten() {
                return Ok(page);
            }
        } else if self.has_place(id, inode, first, pages)
            && let Some(base) = self.acquire(id, PAGES, true)
        {
            let wanted = base.saturating_add(index.saturating_sub(first));
            let page = self.chunks.take_at(id, wanted, kernel::is_ready);
            return page.ok_or(ENOMEM);
        }
        // Holes first, when there are more of them than are kept for the files that they are beside: each new chunk is a
        // range more.
        let holes = self.has_slack(id);
        if let Some(page) = self.chunks.take(id, holes, kernel::is_ready) {
            return Ok(page);
        }
        if self.acquire(id, PAGES, false).is_none() {
            if let Some(page) = self.chunks.take(id, true, kernel::is_ready) {
                return Ok(page);
            }
            PIECES
                .into_iter()
                .find_map(|count| self.acquire(id, count, false))
                .ok_or(ENOMEM)?;
        }
        self.chunks.take(id, false, kernel::is_ready).ok_or(ENOMEM)
    }

    /// Whether 2 MiB of a file, from `first` on and without a page so far, get a chunk of their own: where it grows by one
    /// page after the other, and in large files. A few pages of each of many files of some MiB would leave little but
    /// holes otherwise.
    fn has_place(&self, id: u32, inode: Inode<'_>, first: u64, pages: u64) -> bool {
        let grows = || {
            let before = first.checked_sub(1);
            before.is_some_and(|before| {
                inode
                    .next_run(before)
                    .is_some_and(|run| run.index <= before)
            })
        };
        let fits = pages >= first.saturating_add(PAGES);
        grows() || (fits && (pages >= LARGE || !self.has_slack(id)))
    }

    /// Whether there are more free pages than an instance keeps.
    fn has_slack(&self, id: u32) -> bool {
        let (owned, free) = self.chunks.totals(id);
        free > keep(owned, free)
    }

    /// New memory from the system: the first page frame.
    fn acquire(&mut self, id: u32, count: u64, large: bool) -> Option<u64> {
        let pfn = kernel::take_pages(count)?;
        // A chunk that has pages of an instance that arrived is that instance's.
        let base = pfn & !PAGES.saturating_sub(1);
        let chunk = range(Extent {
            index: 0,
            pfn: base,
            count: PAGES,
        })?;
        let foreign = self.instances.iter().any(|other| {
            let arrived = match &other.body {
                Body::Arrived(arrived) => arrived.data.overlaps(chunk),
                _ => false,
            };
            arrived || (other.id != id && other.unclaimed.overlaps(chunk))
        });
        let added = !foreign && self.chunks.add(id, pfn, count, true, large).is_ok();
        if !added {
            for page in pfn..pfn.saturating_add(count) {
                kernel::put_page(page);
            }
        }
        added.then_some(pfn)
    }

    /// A page is free again.
    fn give(&mut self, pfn: u64) {
        if let Some(idle) = self.chunks.give(pfn) {
            put(&idle);
        }
    }

    /// All pages of a chunk are free again.
    fn give_all(&mut self, pfn: u64) {
        if let Some(idle) = self.chunks.give_all(pfn) {
            put(&idle);
        }
    }

    /// A folio of so many pages left the page cache.
    pub fn folio_freed(&mut self, pfn: u64, count: u64) {
        let Some(owner) = self.chunks.owner(pfn) else {
            return;
        };
        if let Ok(instance) = self.instance(owner) {
            instance.used = instance.used.saturating_sub(count);
        }
        if count == PAGES {
            self.give_all(pfn);
        } else {
            self.give(pfn);
        }
        if self.chunks.has_spare() || self.has_slack(owner) {
            kernel::reap_later();
        }
    }

    /// Makes pages that arrived ours: those of the chunks in which the pages of `extent` are.
    fn claim(&mut self, id: u32, extent: Extent) -> Result<(), Errno> {
        let last = extent.pfn.saturating_add(extent.count.saturating_sub(1));
        for number in extent.pfn / PAGES..=last / PAGES {
            let chunk = range(Extent {
                index: 0,
                pfn: number.saturating_mul(PAGES),
                count: PAGES,
            })
            .ok_or(EINVAL)?;
            loop {
                let instance = self.instance(id)?;
                let Some(part) = instance.unclaimed.first_overlap(chunk) else {
                    break;
                };
                let part = part.intersection(chunk).ok_or(EINVAL)?;
                let (pfn, count) = (part.start().get() / PAGE_SIZE, part.pages());
                // First whatever may lack memory.
                self.chunks.add(id, pfn, 0, false, false)?;
                self.instance(id)?.unclaimed.remove(part)?;
                claim(part).map_err(|_| EIO)?;
                self.chunks.add(id, pfn, count, false, false)?;
            }
        }
        let ours = |pfn: u64| self.chunks.owner(pfn) == Some(id) && !self.chunks.is_free(pfn);
        if (extent.pfn..=last).all(ours) {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Brings what arrived for page `index` into the page cache, with what is in the same 2 MiB of the file. Gives the
    /// number of pages.
    ///
    /// # Errors
    ///
    /// `EIO` when the memory was released, or its content lost; no memory.
    pub fn bring(
        &mut self,
        id: u32,
        content: &mut Content,
        inode: Inode<'_>,
        index: u64,
    ) -> Result<u64, Errno> {
        match content.lazy.find(index, index.saturating_add(1)) {
            None => return Ok(0),
            Some(extent) if extent.is_lost() => return Err(EIO),
            Some(_) => {}
        }
        let first = index & !PAGES.saturating_sub(1);
        let end = first.saturating_add(PAGES);
        let mut brought = 0u64;
        let mut from = first;
        while let Some(extent) = content.lazy.find(from, end) {
            from = extent.end();
            if extent.is_lost() {
                continue;
            }
            let mut done = 0u64;
            let mut result = self.claim(id, extent);
            if result.is_ok() && self.bring_folio(id, inode, extent)? {
                done = extent.count;
            }
            while result.is_ok() && done < extent.count {
                let (index, pfn) = (
                    extent.index.saturating_add(done),
                    extent.pfn.saturating_add(done),
                );
                result = inode.insert(index, pfn, false);
                if result.is_ok() {
                    done = done.saturating_add(1);
                }
            }
            content
                .lazy
                .take(extent.index, extent.index.saturating_add(done))?;
            inode.set_lazy(content.lazy.pages());
            brought = brought.saturating_add(done);
            match result {
                Err(error) if brought == 0 || content.lazy.has(index) => return Err(error),
                Err(_) => break,
                Ok(()) => {}
            }
        }
        Ok(brought)
    }

    /// Brings an extent that is a whole chunk, at a multiple of 2 MiB of the file, into the page cache as one folio; false
    /// when it is no such extent, or cannot be one now.
    fn bring_folio(&mut self, id: u32, inode: Inode<'_>, extent: Extent) -> Result<bool, Errno> {
        let whole = extent.count == PAGES && extent.pfn.is_multiple_of(PAGES);
        let aligned = extent.index.is_multiple_of(PAGES);
        let wanted = whole && aligned && self.instance(id)?.huge != Huge::Never;
        if !wanted || !kernel::large() || !kernel::fold(extent.pfn) {
            return Ok(false);
        }
        if let Err(error) = inode.insert(extent.index, extent.pfn, false) {
            // Nobody could get hold of it: it was in no page cache.
            if !kernel::unfold(extent.pfn) {
                self.chunks.set_folded(extent.pfn, true);
                return Err(error);
            }
            return Ok(false);
        }
        self.chunks.set_folded(extent.pfn, true);
        Ok(true)
    }

    /// What arrived for pages `first` to before `end` of a file is not wanted any more.
    ///
    /// # Errors
    ///
    /// No memory; then the rest is still there.
    pub fn forget(
        &mut self,
        id: u32,
        content: &mut Content,
        inode: Inode<'_>,
        first: u64,
        end: u64,
    ) -> Result<(), Errno> {
        while let Some(extent) = content.lazy.take(first, end)? {
            inode.set_lazy(content.lazy.pages());
            self.discard(id, extent);
        }
        Ok(())
    }

    /// Frees pages that arrived and never were in the page cache.
    fn discard(&mut self, id: u32, extent: Extent) {
        if let Ok(instance) = self.instance(id) {
            instance.used = instance.used.saturating_sub(extent.count);
        }
        if extent.is_lost() {
            return;
        }
        // What cannot be claimed was released by root, or stays reserved until the next hop.
        if self.claim(id, extent).is_err() {
            return;
        }
        for pfn in extent.pfn..extent.pfn.saturating_add(extent.count) {
            self.give(pfn);
        }
        if self.chunks.has_spare() {
            kernel::reap_later();
        }
    }
}

/// How many free pages a pool keeps that owns `owned` pages of which `free` are free.
fn keep(owned: u64, free: u64) -> u64 {
    (owned.saturating_sub(free) / 8).saturating_add(KEEP)
}

fn put(idle: &Idle) {
    if idle.folded {
        return kernel::put_folio(idle.base);
    }
    for page in idle.pages.iter() {
        kernel::put_page(idle.base.saturating_add(page));
    }
}

/// Gives memory that is not needed back to the system.
pub fn reap() {
    loop {
        let mut state = STATE.lock();
        let spare = state.chunks.next_spare();
        let Some(idle) = spare.or_else(|| state.chunks.trim(keep)) else {
            return;
        };
        drop(state);
        put(&idle);
        relax();
    }
}

/// An inode is gone. What arrived of it goes too, unless it goes because a superblock could not be filled. Others get
/// their turn in between: it may be a large file.
pub fn inode_gone(id: u32, mut content: Content) {
    {
        let mut state = STATE.lock();
        match state.instance(id) {
            Ok(instance) if matches!(instance.body, Body::Live(_) | Body::Ending) => {
                instance.inode_gone(&content);
            }
            _ => return,
        }
    }
    while let Some(index) = content.lazy.next(0) {
        let window = index | PAGES.saturating_sub(1);
        let Ok(Some(extent)) = content.lazy.take(index, window.saturating_add(1)) else {
            return;
        };
        STATE.lock().discard(id, extent);
        relax();
    }
}
