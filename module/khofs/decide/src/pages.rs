//! Pages that go into files and leave them.

use crate::bits::PAGES;
use crate::chunks::{Idle, Page};
use crate::content::Content;
use crate::extents::Extent;
use crate::options::Huge;
use crate::pack::range;
use crate::state::{Body, State};
use crate::supply::{Scarcity, Supply};
use crate::system::{Cache, System};
use kho::PAGE_SIZE;
use kho_decide::errno::{EEXIST, EINVAL, ENOMEM, Errno};

/// Input or output error: the memory that arrived has another owner by now, or its content is lost.
const EIO: Errno = Errno(5);

/// Number of free pages that an instance keeps, besides an eighth of its used pages: 8 MiB.
const KEEP: u64 = 2048;

/// Number of pages from which a file is large: 64 MiB.
const LARGE: u64 = 16384;

/// Numbers of contiguous pages that khofs requests if the system has no 2 MiB in one piece.
const PIECES: [u64; 3] = [64, 8, 1];

/// Purpose for which a page is wanted, `struct khofs_want`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Want {
    /// Number of pages that the file will have.
    pub pages: u64,
    /// First of the pages of the file that the caller wants besides the page itself.
    pub first: u64,
    /// Index behind the last of these pages.
    pub end: u64,
}

impl<S: System> State<S> {
    /// Puts a new page at `index`, or a folio with that page, into the page cache: locked and not uptodate. Returns the
    /// page, which is zeroed if it is clean.
    ///
    /// # Errors
    ///
    /// [`EEXIST`] if there is a page at `index` already; [`ENOSPC`]; [`ENOMEM`]; the error with which `supply` asks for
    /// memory. In that last case nothing has changed.
    pub fn grow(
        &mut self,
        id: u32,
        content: &Content,
        inode: impl Cache,
        index: u64,
        want: Want,
        supply: &mut Supply,
    ) -> Result<Page, Errno> {
        if content.lazy.has(index) {
            return Err(EEXIST);
        }
        self.room(id, 1)?;
        if let Some(page) = self.grow_folio(id, content, inode, index, want, supply)? {
            return Ok(page);
        }
        let page = self.pick(id, inode, index, want.pages, supply)?;
        if let Err(error) = inode.insert(index, page.pfn, true) {
            self.give(page.pfn);
            return Err(error);
        }
        let instance = self.instance(id)?;
        instance.used = instance.used.saturating_add(1);
        Ok(page)
    }

    /// Puts a folio of 2 MiB into the page cache, if one is wanted and available. Returns its page for `index`.
    fn grow_folio(
        &mut self,
        id: u32,
        content: &Content,
        inode: impl Cache,
        index: u64,
        want: Want,
        supply: &mut Supply,
    ) -> Result<Option<Page>, Errno> {
        let first = index & !PAGES.saturating_sub(1);
        let end = first.saturating_add(PAGES);
        let wanted = S::large()
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
        if !wanted || self.room(id, PAGES).is_err() || !empty() {
            return Ok(None);
        }
        let Some(page) = self.take_chunk(id, supply)? else {
            return Ok(None);
        };
        if !S::fold(page.pfn) {
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

    /// Takes all pages of a chunk that is not in use.
    fn take_chunk(&mut self, id: u32, supply: &mut Supply) -> Result<Option<Page>, Errno> {
        if let Some(page) = self.chunks.take_chunk(id, S::is_ready) {
            return Ok(Some(page));
        }
        let base = self.acquire(id, PAGES, true, supply)?;
        Ok(base.and_then(|base| self.chunks.take_all(base, S::is_ready)))
    }

    /// Takes a page for page `index` of a file: next to the file's other pages, or at a place that keeps pages of the
    /// file together.
    fn pick(
        &mut self,
        id: u32,
        inode: impl Cache,
        index: u64,
        pages: u64,
        supply: &mut Supply,
    ) -> Result<Page, Errno> {
        let first = index & !PAGES.saturating_sub(1);
        let end = first.saturating_add(PAGES);
        let near = inode.next_run(first).filter(|run| run.index < end);
        if let Some(near) = near {
            let wanted = near.pfn.wrapping_add(index).wrapping_sub(near.index);
            let same = wanted / PAGES == near.pfn / PAGES;
            let page = same.then(|| self.chunks.take_at(id, wanted, S::is_ready));
            if let Some(page) = page.flatten() {
                return Ok(page);
            }
        } else if self.has_place(id, inode, first, pages)
            && let Some(base) = self.acquire(id, PAGES, true, supply)?
        {
            let wanted = base.saturating_add(index.saturating_sub(first));
            let page = self.chunks.take_at(id, wanted, S::is_ready);
            return page.ok_or(ENOMEM);
        }
        // If the instance has more free pages than it keeps, it uses these first, even beside other files: each new
        // chunk is one more range.
        let holes = self.has_slack(id);
        if let Some(page) = self.chunks.take(id, holes, S::is_ready) {
            return Ok(page);
        }
        if self.acquire(id, PAGES, false, supply)?.is_some() {
            return self.chunks.take(id, false, S::is_ready).ok_or(ENOMEM);
        }
        if let Some(page) = self.chunks.take(id, true, S::is_ready) {
            return Ok(page);
        }
        for count in PIECES {
            if self.acquire(id, count, false, supply)?.is_some() {
                return self.chunks.take(id, false, S::is_ready).ok_or(ENOMEM);
            }
        }
        Err(ENOMEM)
    }

    /// Whether 2 MiB of a file, from `first` on and without a page so far, get a chunk of their own: if the file grows
    /// page by page, or is large. Otherwise many files of some MiB, with a few pages each, would leave mostly holes.
    fn has_place(&self, id: u32, inode: impl Cache, first: u64, pages: u64) -> bool {
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

    /// Whether the instance has more free pages than it keeps.
    fn has_slack(&self, id: u32) -> bool {
        let (owned, free) = self.chunks.totals(id);
        free > keep(owned, free)
    }

    /// Takes new memory from the system for an instance. Returns the first page frame; `None` if the system does not
    /// have that much in one piece.
    fn acquire(
        &mut self,
        id: u32,
        count: u64,
        large: bool,
        supply: &mut Supply,
    ) -> Result<Option<u64>, Errno> {
        if self.scarcity.forbids(count) && !supply.has(count) {
            return Ok(None);
        }
        let Some(pfn) = supply.take(count)? else {
            self.scarcity.lacked(count);
            return Ok(None);
        };
        if self.chunks.add(id, pfn, count, true, large).is_err() {
            supply.put(pfn, count);
            return Ok(None);
        }
        self.scarcity.gave(count);
        Ok(Some(pfn))
    }

    /// Frees a page.
    fn give(&mut self, pfn: u64) {
        if let Some(idle) = self.chunks.give(pfn) {
            put::<S>(&idle);
        }
    }

    /// Frees all pages of a chunk.
    fn give_all(&mut self, pfn: u64) {
        if let Some(idle) = self.chunks.give_all(pfn) {
            put::<S>(&idle);
        }
    }

    /// Frees a folio of `count` pages that left the page cache.
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
            S::reap_later();
        }
    }

    /// Claims memory that arrived for the instance: all its unclaimed pages in the chunks that have pages of `extent`.
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
                // The steps that may lack memory come first.
                self.chunks.add(id, pfn, 0, false, false)?;
                self.instance(id)?.unclaimed.remove(part)?;
                if let Err(error) = S::claim(part) {
                    if error != ENOMEM {
                        return Err(EIO);
                    }
                    // Nothing was claimed, and the next attempt may succeed. The set has room for the part that was
                    // just removed.
                    self.instance(id)?.unclaimed.insert(part)?;
                    return Err(ENOMEM);
                }
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

    /// Brings the memory that arrived for page `index` into the page cache, with all that arrived for the same 2 MiB of
    /// the file. Returns the number of pages.
    ///
    /// # Errors
    ///
    /// `EIO` if the memory was released, or its content is lost; no memory.
    pub fn bring(
        &mut self,
        id: u32,
        content: &mut Content,
        inode: impl Cache,
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

    /// Brings an extent that is a whole chunk, at a multiple of 2 MiB of the file, into the page cache as one folio.
    /// Returns false if the extent is not a whole chunk, or cannot become a folio now; its pages are then single ones.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if the pages are still a folio, after an attempt for which the page cache had no memory.
    fn bring_folio(&mut self, id: u32, inode: impl Cache, extent: Extent) -> Result<bool, Errno> {
        let whole = extent.count == PAGES && extent.pfn.is_multiple_of(PAGES);
        let aligned = extent.index.is_multiple_of(PAGES);
        let wanted = whole && aligned && S::large() && self.instance(id)?.huge != Huge::Never;
        if !self.chunks.is_folded(extent.pfn) {
            if !wanted || !S::fold(extent.pfn) {
                return Ok(false);
            }
            self.chunks.set_folded(extent.pfn, true);
        } else if !wanted {
            return self.unfolded(extent.pfn).then_some(false).ok_or(ENOMEM);
        }
        match inode.insert(extent.index, extent.pfn, false) {
            Ok(()) => Ok(true),
            // The folio was in no page cache, but another part of the kernel that walks over all pages may have a
            // reference on it.
            Err(error) => self.unfolded(extent.pfn).then_some(false).ok_or(error),
        }
    }

    /// Splits the folio of the chunk of `pfn`, if it is one; its pages are in no file. Returns whether the pages are
    /// single ones.
    fn unfolded(&mut self, pfn: u64) -> bool {
        let base = pfn & !PAGES.saturating_sub(1);
        if self.chunks.is_folded(base) {
            if !S::unfold(base) {
                return false;
            }
            self.chunks.set_folded(base, false);
        }
        true
    }

    /// Discards memory that arrived for pages `first` to before `end` of a file and is no longer needed. One call
    /// covers at most one 2 MiB part of the file, because other callers wait for the lock. Returns whether more may be
    /// left.
    ///
    /// # Errors
    ///
    /// No memory; then the rest is unchanged.
    pub fn forget(
        &mut self,
        id: u32,
        content: &mut Content,
        inode: impl Cache,
        first: u64,
        end: u64,
    ) -> Result<bool, Errno> {
        let Some(next) = content.lazy.next(first).filter(|next| *next < end) else {
            return Ok(false);
        };
        let part = (next | PAGES.saturating_sub(1)).saturating_add(1).min(end);
        while let Some(extent) = content.lazy.take(next, part)? {
            inode.set_lazy(content.lazy.pages());
            self.discard(id, extent);
        }
        Ok(true)
    }

    /// Frees pages that arrived and never were in the page cache.
    pub fn discard(&mut self, id: u32, extent: Extent) {
        if let Ok(instance) = self.instance(id) {
            instance.used = instance.used.saturating_sub(extent.count);
        }
        if extent.is_lost() {
            return;
        }
        // If the claim fails, root released the pages, or they stay reserved until the next hop.
        if self.claim(id, extent).is_err() {
            return;
        }
        let end = extent.pfn.saturating_add(extent.count);
        let mut pfn = extent.pfn;
        while pfn < end {
            let next = (pfn | PAGES.saturating_sub(1)).saturating_add(1);
            let here = pfn..next.min(end);
            if self.chunks.is_folded(pfn) && here == (next.saturating_sub(PAGES)..next) {
                self.give_all(pfn);
            } else if self.unfolded(pfn) {
                here.for_each(|pfn| self.give(pfn));
            }
            // Otherwise the folio of this part has another holder, and stays in use until the next hop.
            pfn = next;
        }
        if self.chunks.has_spare() {
            S::reap_later();
        }
    }
}

impl<S: System> State<S> {
    /// Takes memory that is not needed, at most one chunk at a time; `None` if there is no more.
    pub fn take_idle(&mut self) -> Option<Idle> {
        let spare = self.chunks.next_spare();
        let idle = spare.or_else(|| self.chunks.trim(keep));
        if idle.is_some() {
            self.scarcity = Scarcity::none();
        }
        idle
    }

    /// Subtracts a removed inode. Returns whether the memory that arrived for the inode is discarded too: not if the
    /// inode is removed because khofs could not fill a superblock.
    pub fn inode_gone(&mut self, id: u32, content: &Content) -> bool {
        match self.instance(id) {
            Ok(instance) if matches!(instance.body, Body::Live(_) | Body::Ending) => {
                instance.inode_gone(content);
                true
            }
            _ => false,
        }
    }
}

/// Number of free pages that a pool keeps that owns `owned` pages, `free` of them free.
fn keep(owned: u64, free: u64) -> u64 {
    (owned.saturating_sub(free) / 8).saturating_add(KEEP)
}

/// Returns memory that an instance does not need to the system.
pub fn put<S: System>(idle: &Idle) {
    if idle.folded {
        return S::put_folio(idle.base);
    }
    for page in idle.pages.iter() {
        S::put_page(idle.base.saturating_add(page));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Pages, with};
    use kho_decide::errno::ENOSPC;
    use std::vec::Vec;

    /// A file that grows page by page and wants no folio.
    const ONE: Want = Want {
        pages: 1,
        first: 0,
        end: 0,
    };

    /// Makes a live instance without limits, on a machine with this number of chunks, the first at page frame 1024.
    fn live(chunks: u64) -> (State<Fake>, u32) {
        with(|machine| machine.blocks = (2..2 + chunks).rev().map(|n| n * PAGES).collect());
        let mut state = State::new();
        let instance = state.add("a".into(), Body::Live(())).unwrap();
        instance.limit = 1 << 20;
        let id = instance.id;
        (state, id)
    }

    /// Makes a request for a page, with the lock held.
    fn grow(
        state: &mut State<Fake>,
        id: u32,
        content: &Content,
        file: &Pages,
        index: u64,
        want: Want,
    ) -> Result<Page, Errno> {
        Supply::serve::<Fake, _>(|supply| {
            with(|machine| machine.is_locked = true);
            let result = state.grow(id, content, file, index, want, supply);
            with(|machine| machine.is_locked = false);
            result
        })
    }

    /// Forgets pages of a file, part by part.
    fn forget(
        state: &mut State<Fake>,
        id: u32,
        content: &mut Content,
        file: &Pages,
        first: u64,
        end: u64,
    ) {
        while state.forget(id, content, file, first, end).unwrap() {}
    }

    fn used(state: &mut State<Fake>, id: u32) -> u64 {
        state.instance(id).unwrap().used
    }

    /// Makes the content of a file that arrived, in an instance that is live. An extent is its first page in the file,
    /// its page frame and its number of pages.
    fn arrived(state: &mut State<Fake>, id: u32, extents: &[(u64, u64, u64)]) -> Content {
        let mut content = Content::default();
        let instance = state.instance(id).unwrap();
        for &(index, pfn, count) in extents {
            let extent = Extent { index, pfn, count };
            content.lazy.push(extent).unwrap();
            instance.used += count;
            if !extent.is_lost() {
                instance.unclaimed.insert(range(extent).unwrap()).unwrap();
                with(|machine| machine.arrived.extend(pfn..pfn + count));
            }
        }
        content
    }

    #[test]
    fn pages_of_a_file_are_neighbours_and_small_files_share_a_chunk() {
        let (mut state, id) = live(2);
        let (content, one, other) = (Content::default(), Pages::default(), Pages::default());
        let mut next = |file, index| {
            let page = grow(&mut state, id, &content, file, index, ONE).unwrap();
            assert!(page.clean);
            page.pfn
        };
        assert_eq!(next(&one, 0), 1024);
        assert_eq!(next(&other, 0), 1025);
        // The page beside the first one is the other file's, so the file goes on at 1026; its next page is beside that.
        assert_eq!(next(&one, 1), 1026);
        assert_eq!(next(&one, 2), 1027);
        assert_eq!(used(&mut state, id), 4);
    }

    #[test]
    fn a_page_is_there_once_and_within_the_limit() {
        let (mut state, id) = live(1);
        let file = Pages::default();
        let content = arrived(&mut state, id, &[(3, 9000, 1)]);
        assert_eq!(grow(&mut state, id, &content, &file, 3, ONE), Err(EEXIST));
        grow(&mut state, id, &content, &file, 0, ONE).unwrap();
        // The page for it is free again.
        assert_eq!(grow(&mut state, id, &content, &file, 0, ONE), Err(EEXIST));
        assert_eq!(
            (used(&mut state, id), state.chunks.totals(id)),
            (2, (512, 511))
        );
        state.instance(id).unwrap().limit = 2;
        assert_eq!(grow(&mut state, id, &content, &file, 1, ONE), Err(ENOSPC));
        state.instance(id).unwrap().limit = 1000;
        for index in 4..515 {
            grow(&mut state, id, &content, &file, index, ONE).unwrap();
        }
        assert_eq!(grow(&mut state, id, &content, &file, 600, ONE), Err(ENOMEM));
    }

    #[test]
    fn a_page_that_somebody_holds_is_not_used() {
        let (mut state, id) = live(1);
        let (content, file) = (Content::default(), Pages::default());
        with(|machine| machine.held.extend([1024, 1026]));
        let pfns: Vec<u64> = (0..3)
            .map(|index| {
                grow(&mut state, id, &content, &file, index, ONE)
                    .unwrap()
                    .pfn
            })
            .collect();
        assert_eq!(pfns, [1025, 1027, 1028]);
    }

    #[test]
    fn a_folio_is_made_where_one_is_wanted() {
        let whole = Want {
            pages: 1024,
            first: 512,
            end: 1024,
        };
        for (huge, want, folio) in [
            (Huge::Never, whole, false),
            (Huge::Advise, whole, true),
            (Huge::Advise, Want { end: 1023, ..whole }, false),
            (Huge::WithinSize, whole, true),
            (
                Huge::WithinSize,
                Want {
                    pages: 1023,
                    ..whole
                },
                false,
            ),
            (Huge::Always, ONE, true),
        ] {
            for (large, held) in [(true, false), (false, false), (true, true)] {
                let (mut state, id) = live(1);
                with(|machine| {
                    (machine.large, machine.folios) = (large, Default::default());
                    machine.held = held.then_some(1535).into_iter().collect();
                });
                state.instance(id).unwrap().huge = huge;
                let (content, file) = (Content::default(), Pages::default());
                let page = grow(&mut state, id, &content, &file, 700, want).unwrap();
                let made = folio && large && !held;
                let expected = if made {
                    (1024 + 188, 512, 1)
                } else {
                    (page.pfn, 1, 0)
                };
                let folios = state.chunks.folios(id);
                assert_eq!((page.pfn, used(&mut state, id), folios), expected);
                assert_eq!(with(|machine| machine.folios.len()), usize::from(made));
            }
        }
    }

    #[test]
    fn a_folio_is_none_beside_pages_that_are_there() {
        let (mut state, id) = live(3);
        with(|machine| machine.large = true);
        state.instance(id).unwrap().huge = Huge::Always;
        let file = Pages::default();
        let content = arrived(&mut state, id, &[(511, 9000, 1)]);
        grow(&mut state, id, &content, &file, 0, ONE).unwrap();
        grow(&mut state, id, &content, &file, 512, ONE).unwrap();
        assert_eq!(file.map.borrow().len(), 513);
        // The limit has no room for all of another folio.
        state.instance(id).unwrap().limit = 600;
        grow(&mut state, id, &content, &file, 1024, ONE).unwrap();
        assert_eq!(file.map.borrow().len(), 514);
    }

    #[test]
    fn what_arrived_is_brought_with_what_is_beside_it() {
        let (mut state, id) = live(0);
        let file = Pages::default();
        let mut content = arrived(
            &mut state,
            id,
            &[(0, 9000, 3), (5, 0, 1), (7, 9010, 1), (600, 9020, 1)],
        );
        assert_eq!(state.bring(id, &mut content, &file, 4), Ok(0));
        assert_eq!(state.bring(id, &mut content, &file, 5), Err(EIO));
        assert_eq!(state.bring(id, &mut content, &file, 1), Ok(4));
        let there: Vec<_> = file.map.borrow().clone().into_iter().collect();
        assert_eq!(there, [(0, 9000), (1, 9001), (2, 9002), (7, 9010)]);
        assert!(content.lazy.has(5) && content.lazy.has(600));
        assert_eq!((content.lazy.pages(), used(&mut state, id)), (2, 6));
        assert_eq!(state.chunks.owner(9001), Some(id));
        // The claim of its neighbours in the chunk included it.
        assert_eq!(state.chunks.owner(9020), Some(id));
        assert!(with(|machine| machine.arrived.is_empty()));
    }

    #[test]
    fn what_was_released_meanwhile_is_an_error() {
        let (mut state, id) = live(0);
        let file = Pages::default();
        let mut content = arrived(&mut state, id, &[(0, 9000, 1)]);
        with(|machine| machine.arrived.clear());
        assert_eq!(state.bring(id, &mut content, &file, 0), Err(EIO));
        assert!(content.lazy.has(0) && file.map.borrow().is_empty());
    }

    #[test]
    fn a_claim_without_memory_can_be_made_again() {
        let (mut state, id) = live(0);
        let file = Pages::default();
        let mut content = arrived(&mut state, id, &[(0, 9000, 4), (600, 9010, 1)]);
        with(|machine| machine.no_claims = 2);
        for _ in 0..2 {
            assert_eq!(state.bring(id, &mut content, &file, 0), Err(ENOMEM));
            assert!(file.map.borrow().is_empty());
        }
        assert_eq!(state.bring(id, &mut content, &file, 0), Ok(4));
        assert_eq!(state.bring(id, &mut content, &file, 600), Ok(1));
    }

    /// Brings a folio for which the page cache has no memory, and which another holder has at that time.
    fn held_folio(state: &mut State<Fake>, id: u32, file: &Pages) -> Content {
        with(|machine| {
            (machine.large, machine.folios) = (true, Default::default());
            (machine.no_entries, machine.holder) = (1, Some(9300));
        });
        state.instance(id).unwrap().huge = Huge::Advise;
        let mut content = arrived(state, id, &[(512, 9216, 512)]);
        assert_eq!(state.bring(id, &mut content, file, 600), Err(ENOMEM));
        assert_eq!(content.lazy.pages(), 512);
        content
    }

    #[test]
    fn a_folio_that_could_not_be_brought_is_brought_later() {
        let (mut state, id) = live(0);
        let file = Pages::default();
        let mut content = held_folio(&mut state, id, &file);
        // The pages are a folio already.
        assert_eq!(state.bring(id, &mut content, &file, 600), Ok(512));
        assert_eq!((file.map.borrow().len(), state.chunks.folios(id)), (512, 1));
    }

    #[test]
    fn a_folio_that_could_not_be_brought_comes_apart_for_pages() {
        let (mut state, id) = live(0);
        let file = Pages::default();
        let mut content = held_folio(&mut state, id, &file);
        state.instance(id).unwrap().huge = Huge::Never;
        assert_eq!(state.bring(id, &mut content, &file, 600), Err(ENOMEM));
        with(|machine| machine.held.clear());
        assert_eq!(state.bring(id, &mut content, &file, 600), Ok(512));
        assert_eq!((file.map.borrow().len(), state.chunks.folios(id)), (512, 0));
        assert!(with(|machine| machine.folios.is_empty()));
    }

    #[test]
    fn a_folio_that_could_not_be_brought_is_given_back() {
        for end in [1024, 700] {
            let (mut state, id) = live(0);
            let file = Pages::default();
            let mut content = held_folio(&mut state, id, &file);
            // A whole folio can be discarded while it has another holder; a part of it, only without one.
            if end != 1024 {
                with(|machine| machine.held.clear());
            }
            forget(&mut state, id, &mut content, &file, 0, end);
            let folios = with(|machine| machine.folios.len());
            assert_eq!(folios, usize::from(end == 1024));
            assert_eq!(state.chunks.totals(id), (512, end - 512));
        }
        let (mut state, id) = live(0);
        let file = Pages::default();
        let mut content = held_folio(&mut state, id, &file);
        forget(&mut state, id, &mut content, &file, 0, 700);
        // A page of a folio is not freed by itself.
        assert_eq!(state.chunks.totals(id), (512, 0));
    }

    #[test]
    fn a_whole_chunk_that_arrived_is_a_folio_again() {
        for (large, held) in [(true, false), (false, false), (true, true)] {
            let (mut state, id) = live(0);
            with(|machine| {
                (machine.large, machine.folios) = (large, Default::default());
                machine.held = held.then_some(9300).into_iter().collect();
            });
            state.instance(id).unwrap().huge = Huge::Advise;
            let file = Pages::default();
            let mut content = arrived(&mut state, id, &[(512, 9216, 512)]);
            assert_eq!(state.bring(id, &mut content, &file, 600), Ok(512));
            assert_eq!(file.map.borrow().len(), 512);
            assert_eq!(state.chunks.folios(id), u64::from(large && !held));
        }
    }

    #[test]
    fn what_is_forgotten_is_free_and_given_back() {
        let (mut state, id) = live(0);
        let file = Pages::default();
        let mut content = arrived(&mut state, id, &[(0, 9216, 4), (4, 0, 1), (9, 9727, 1)]);
        forget(&mut state, id, &mut content, &file, 1, 5);
        assert_eq!(used(&mut state, id), 2);
        assert!(content.lazy.has(0) && content.lazy.has(9) && !content.lazy.has(1));
        assert!(state.chunks.is_free(9217) && !state.chunks.is_free(9216));
        forget(&mut state, id, &mut content, &file, 0, u64::MAX);
        assert_eq!((content.lazy.pages(), used(&mut state, id)), (0, 0));
        // The chunk has no used page, and the reaper will return it.
        assert!(with(|machine| machine.reaping));
        let idle = state.take_idle().unwrap();
        assert_eq!(state.take_idle(), None);
        put::<Fake>(&idle);
        with(|machine| assert_eq!(machine.put, [9216, 9217, 9218, 9219, 9727].into()));
    }

    #[test]
    fn a_large_file_is_forgotten_part_by_part() {
        let (mut state, id) = live(0);
        let file = Pages::default();
        let mut content = arrived(&mut state, id, &[(100, 9216, 2000)]);
        let mut left = Vec::new();
        while state.forget(id, &mut content, &file, 200, 1900).unwrap() {
            left.push(content.lazy.pages());
        }
        assert_eq!(left, [1688, 1176, 664, 300]);
        assert_eq!(used(&mut state, id), 300);
    }

    #[test]
    fn a_page_that_leaves_the_page_cache_is_free() {
        let (mut state, id) = live(2);
        let (content, file) = (Content::default(), Pages::default());
        let page = grow(&mut state, id, &content, &file, 0, ONE).unwrap();
        state.folio_freed(5, 1);
        assert_eq!(used(&mut state, id), 1);
        state.folio_freed(page.pfn, 1);
        assert_eq!(
            (used(&mut state, id), state.chunks.totals(id)),
            (0, (512, 512))
        );
        assert!(with(|machine| machine.reaping));
    }

    #[test]
    fn memory_beside_pages_of_another_instance_is_used() {
        let (mut state, id) = live(0);
        let other = state.add("b".into(), Body::Live(())).unwrap();
        other.limit = 1 << 20;
        let other = other.id;
        with(|machine| machine.singles = [1502, 1501].into());
        let (content, file, others) = (Content::default(), Pages::default(), Pages::default());
        let mut theirs = arrived(&mut state, other, &[(0, 1500, 1), (1, 1510, 1)]);
        assert_eq!(state.bring(other, &mut theirs, &others, 0), Ok(2));
        for (index, pfn) in [(0, 1501), (1, 1502)] {
            let page = grow(&mut state, id, &content, &file, index, ONE);
            assert_eq!(page.map(|page| page.pfn), Ok(pfn));
        }
        assert_eq!(state.chunks.totals(id), (2, 0));
        assert_eq!(state.chunks.totals(other), (2, 0));
        for (pfn, owner) in [(1500, other), (1501, id), (1502, id), (1510, other)] {
            assert_eq!(state.chunks.owner(pfn), Some(owner));
            state.folio_freed(pfn, 1);
            assert_eq!(used(&mut state, owner), state.chunks.runs(owner));
        }
        let idle: Vec<_> = core::iter::from_fn(|| state.take_idle()).collect();
        assert_eq!(idle.len(), 2);
        idle.iter().for_each(put::<Fake>);
        with(|machine| assert_eq!(machine.put, [1500, 1501, 1502, 1510].into()));
    }

    #[test]
    fn a_size_that_is_not_there_is_not_asked_for_again_for_each_page() {
        let (mut state, id) = live(0);
        with(|machine| machine.singles = (5000..6000).collect());
        let (content, file) = (Content::default(), Pages::default());
        state.instance(id).unwrap().huge = Huge::Always;
        with(|machine| machine.large = true);
        for index in 0..1000 {
            grow(&mut state, id, &content, &file, index, ONE).unwrap();
        }
        // The system is asked for each amount at first, and again after 512 pages in smaller pieces.
        with(|machine| assert_eq!(machine.lacked, [(8, 2), (64, 2), (512, 2)].into()));
        assert_eq!(
            grow(&mut state, id, &content, &file, 1000, ONE),
            Err(ENOMEM)
        );
        // Memory that was returned is used.
        state.folio_freed(5000, 1);
        while state.take_idle().is_some() {}
        with(|machine| machine.blocks = [1024].into());
        assert!(grow(&mut state, id, &content, &file, 5000, ONE).is_ok());
    }

    #[test]
    fn memory_that_is_not_needed_any_more_goes_back() {
        let (mut state, id) = live(2);
        let (content, file) = (Content::default(), Pages::default());
        let mut first = true;
        let page = Supply::serve::<Fake, _>(|supply| {
            let result = state.grow(id, &content, &file, 0, ONE, supply);
            // Meanwhile another caller got pages for the same instance.
            if core::mem::take(&mut first) {
                assert!(result.is_err());
                state.chunks.add(id, 9216, 1, true, false).unwrap();
            }
            result
        });
        assert_eq!(page.map(|page| page.pfn), Ok(9216));
        with(|machine| assert_eq!(machine.put.len(), 512));
    }

    #[test]
    fn the_inode_of_a_superblock_that_was_not_filled_gives_nothing_back() {
        let (mut state, id) = live(0);
        state.instance(id).unwrap().inodes = 1;
        let content = Content::default();
        assert!(state.inode_gone(id, &content));
        assert_eq!(state.instance(id).unwrap().inodes, 0);
        state.instance(id).unwrap().body = Body::New;
        assert!(!state.inode_gone(id, &content));
        assert!(!state.inode_gone(id + 1, &content));
    }
}
