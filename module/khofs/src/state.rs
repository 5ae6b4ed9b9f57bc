//! Instances, their limits, and pages on their way in and out of files.

use crate::boundary::handover::{claim, release};
use crate::boundary::kernel::{self, Block};
use crate::boundary::sync::Lock;
use crate::boundary::vfs::{Content, Inode, Super};
use crate::chunks::{Chunks, Idle, PAGES, Page};
use crate::errno::{EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, Errno};
use crate::extents::Extent;
use crate::options::{Huge, Options};
use crate::pack::range;
use alloc::string::String;
use alloc::vec::Vec;
use kho::{PAGE_SIZE, PhysRange, RangeSet};

/// Everything.
pub static STATE: Lock<State, 0> = Lock::new(State::new());

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

/// What arrived of an instance that was not mounted yet.
pub struct Arrived {
    /// Where its tree is written down.
    pub tree: Vec<PhysRange>,
    /// Bytes of that.
    pub size: usize,
    /// CRC-32 of that.
    pub checksum: u32,
    /// The pages of its files.
    pub data: RangeSet,
    /// Number of inodes, for the status.
    pub inodes: u64,
}

/// What an instance consists of.
pub enum Body {
    /// Nothing yet.
    New,
    /// It arrived, and all of it is still reserved.
    Arrived(Arrived),
    /// Its files are there.
    Live(Super),
}

/// A file system that has a name.
pub struct Instance {
    /// Its number, not 0.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Pages that may be used.
    pub limit: u64,
    /// Inodes that may be used.
    pub inode_limit: u64,
    /// Pages in files.
    pub used: u64,
    /// Inodes.
    pub inodes: u64,
    /// Number of the next inode.
    pub next_ino: u64,
    /// What there is of it.
    pub body: Body,
    /// Mounts under way.
    pub mounting: u32,
    /// Pages of live files that are still reserved.
    pub unclaimed: RangeSet,
    /// When new memory is a folio of 2 MiB.
    pub huge: Huge,
}

/// Everything that the lock is around.
pub struct State {
    /// All instances.
    pub instances: Vec<Instance>,
    /// Their memory.
    pub chunks: Chunks,
    /// Whether names and sizes must not change.
    pub frozen: bool,
    /// Number of the activation.
    pub epoch: u64,
    /// Trees that were written down for this activation.
    pub written: Vec<Block>,
    last_id: u32,
}

impl State {
    const fn new() -> Self {
        Self {
            instances: Vec::new(),
            chunks: Chunks::new(),
            frozen: false,
            epoch: 0,
            written: Vec::new(),
            last_id: 0,
        }
    }

    /// The instance with this number.
    ///
    /// # Errors
    ///
    /// [`ENOENT`].
    pub fn instance(&mut self, id: u32) -> Result<&mut Instance, Errno> {
        self.instances.iter_mut().find(|i| i.id == id).ok_or(ENOENT)
    }

    /// Adds an instance.
    ///
    /// # Errors
    ///
    /// [`EEXIST`] for a name that is taken; no memory.
    pub fn add(&mut self, name: String, body: Body) -> Result<&mut Instance, Errno> {
        if self.instances.iter().any(|i| i.name == name) {
            return Err(EEXIST);
        }
        self.instances.try_reserve(1)?;
        self.last_id = self.last_id.checked_add(1).ok_or(ENOMEM)?;
        let ram = kernel::ram_pages();
        let instance = Instance {
            id: self.last_id,
            name,
            limit: ram / 2,
            inode_limit: ram / 2,
            used: 0,
            inodes: 0,
            next_ino: 2, // 1 is the root
            body,
            mounting: 0,
            unclaimed: RangeSet::new(),
            huge: Huge::default(),
        };
        self.instances.push(instance);
        self.instances.last_mut().ok_or(ENOMEM)
    }

    /// The number of the instance that a mount wants, which is made unless it exists.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] in the active phase when it is not live; no memory.
    pub fn mount(&mut self, options: &Options) -> Result<u32, Errno> {
        let frozen = self.frozen;
        let at = self.instances.iter().position(|i| i.name == options.name());
        let live = at
            .and_then(|at| self.instances.get(at))
            .is_some_and(|i| matches!(i.body, Body::Live(_)));
        if frozen && !live {
            return Err(EBUSY);
        }
        let instance = match at {
            Some(at) => self.instances.get_mut(at).ok_or(ENOENT)?,
            None => {
                let mut name = String::new();
                name.try_reserve_exact(options.name().len())?;
                name.push_str(options.name());
                self.add(name, Body::New)?
            }
        };
        instance.mounting = instance.mounting.saturating_add(1);
        Ok(instance.id)
    }

    /// The mount that [`mount`](Self::mount) began is done or has failed.
    pub fn mount_done(&mut self, id: u32) {
        if let Ok(instance) = self.instance(id) {
            instance.mounting = instance.mounting.saturating_sub(1);
        }
        self.tidy();
    }

    /// A superblock is gone: the instance was released, or could not be filled.
    pub fn super_gone(&mut self, id: u32) {
        if let Ok(instance) = self.instance(id)
            && matches!(instance.body, Body::Live(_))
        {
            instance.body = Body::New;
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        self.instances
            .retain(|i| !(matches!(i.body, Body::New) && i.mounting == 0));
    }

    /// Sets limits.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for less than is used.
    pub fn limit(&mut self, id: u32, options: &Options) -> Result<(), Errno> {
        let instance = self.instance(id)?;
        let too_small = |wanted: Option<u64>, used: u64| wanted.is_some_and(|w| w < used);
        if too_small(options.pages, instance.used) || too_small(options.inodes, instance.inodes) {
            return Err(EINVAL);
        }
        instance.limit = options.pages.unwrap_or(instance.limit);
        instance.inode_limit = options.inodes.unwrap_or(instance.inode_limit);
        instance.huge = options.huge.unwrap_or(instance.huge);
        Ok(())
    }

    /// Counts a new inode, and gives its number.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`].
    pub fn new_inode(&mut self, id: u32) -> Result<u64, Errno> {
        let instance = self.instance(id)?;
        if instance.inodes >= instance.inode_limit {
            return Err(ENOSPC);
        }
        let ino = instance.next_ino;
        instance.next_ino = ino.checked_add(1).ok_or(ENOSPC)?;
        instance.inodes = instance.inodes.saturating_add(1);
        Ok(ino)
    }

    /// Whether so many pages more may be used.
    ///
    /// # Errors
    ///
    /// [`ENOSPC`].
    pub fn room(&mut self, id: u32, pages: u64) -> Result<(), Errno> {
        let instance = self.instance(id)?;
        let left = instance.limit.saturating_sub(instance.used);
        if left < pages { Err(ENOSPC) } else { Ok(()) }
    }

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
        self.room(id, 1)?;
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
        if !wanted || self.room(id, PAGES).is_err() || !empty() {
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
    /// `EIO` when the memory was released; no memory.
    pub fn bring(
        &mut self,
        id: u32,
        content: &mut Content,
        inode: Inode<'_>,
        index: u64,
    ) -> Result<u64, Errno> {
        if !content.lazy.has(index) {
            return Ok(0);
        }
        let first = index & !PAGES.saturating_sub(1);
        let end = first.saturating_add(PAGES);
        let mut brought = 0u64;
        while let Some(extent) = content.lazy.find(first, end) {
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

    /// Takes an instance that arrived and was never mounted off the list.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] for no such name; [`EBUSY`] when it is live or being mounted, or in the active phase.
    pub fn forget_arrived(&mut self, name: &str) -> Result<Arrived, Errno> {
        let frozen = self.frozen;
        let at = self
            .instances
            .iter()
            .position(|i| i.name == name)
            .ok_or(ENOENT)?;
        let instance = self.instances.get(at).ok_or(ENOENT)?;
        if frozen || instance.mounting != 0 || !matches!(instance.body, Body::Arrived(_)) {
            return Err(EBUSY);
        }
        match self.instances.swap_remove(at).body {
            Body::Arrived(arrived) => Ok(arrived),
            _ => Err(EBUSY),
        }
    }
}

/// How many free pages a pool keeps that owns `owned` pages of which `free` are free.
fn keep(owned: u64, free: u64) -> u64 {
    (owned.saturating_sub(free) / 8).saturating_add(KEEP)
}

fn put(idle: &Idle) {
    if idle.folded {
        return kernel::put_page(idle.base);
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
        kernel::relax();
    }
}

/// An inode is gone. What arrived of it goes too, unless it goes because a superblock could not be filled. Others get
/// their turn in between: it may be a large file.
pub fn inode_gone(id: u32, mut content: Content) {
    {
        let mut state = STATE.lock();
        match state.instance(id) {
            Ok(instance) if matches!(instance.body, Body::Live(_)) => {
                instance.inodes = instance.inodes.saturating_sub(1);
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
        kernel::relax();
    }
}

/// Ends an instance, with all its files.
///
/// # Errors
///
/// [`ENOENT`] for no such name; [`EBUSY`] when it is mounted, being mounted, or in the active phase.
pub fn release_instance(name: &str) -> Result<(), Errno> {
    let live = {
        let mut state = STATE.lock();
        let frozen = state.frozen;
        let instance = state.instances.iter_mut().find(|i| i.name == name);
        let instance = instance.ok_or(ENOENT)?;
        match instance.body {
            Body::Live(sb) if !frozen && instance.mounting == 0 => Some(sb),
            Body::Live(_) => return Err(EBUSY),
            _ => None,
        }
    };
    if let Some(sb) = live {
        return sb.let_go();
    }
    let arrived = STATE.lock().forget_arrived(name)?;
    release(&RangeSet::from_ranges(arrived.tree.iter().copied())?);
    release(&arrived.data);
    Ok(())
}
