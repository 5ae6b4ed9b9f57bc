//! Operations of users that write, read, cut and map files.

use super::files::at;
use super::{Page, Story};
use crate::khofs::kernel::{Kernel, folio_of, known, run};
use crate::khofs::module::khofs;
use crate::khofs::vfs::Inode;
use crate::memory::Content;
use crate::module::machine::with;
use crate::op::Op;
use crate::story::{Done, ensure};
use kho::PAGE_SIZE;
use kho_decide::errno::{EEXIST, ENOMEM, ENOSPC, Errno};
use khofs_decide::bits::PAGES;
use khofs_decide::pack::S_IFREG;
use khofs_decide::pages::Want;
use khofs_decide::state::State;
use khofs_decide::supply::Supply;
use khofs_decide::system::Cache as _;

type Decide = State<Kernel>;

/// Error of memory that failed, now or in an earlier kernel.
const EIO: Errno = Errno(5);

/// Largest size of a file, in pages.
const LONGEST: u64 = 40_000;

/// Looks up a page of a file as the kernel does. Allocates the page, as `want` describes, if it is in a hole.
fn page_at(
    state: &mut Decide,
    id: u32,
    inode: &mut Inode,
    index: u64,
    want: Option<Want>,
) -> Result<Option<u64>, Result<Errno, String>> {
    if inode.cache.at(index).is_none() && inode.content.lazy.has(index) {
        let brought = state.bring(id, &mut inode.content, &inode.cache, index);
        brought.map_err(Ok)?;
    }
    if let Some(pfn) = inode.cache.at(index) {
        let failed = with(|m| m.failed.contains(&pfn));
        return if failed { Err(Ok(EIO)) } else { Ok(Some(pfn)) };
    }
    let Some(want) = want else { return Ok(None) };
    let page = Supply::serve::<Kernel, _>(|supply| {
        state.grow(id, &inode.content, &inode.cache, index, want, supply)
    });
    let page = page.map_err(Ok)?;
    if inode.cache.at(index) != Some(page.pfn) {
        return Err(Err(format!("{page:?} is not at {index}")));
    }
    let whole = match folio_of(page.pfn) {
        Some(base) => run(base, PAGES),
        None => run(page.pfn, 1),
    };
    let stale = with(|m| {
        let stale = page.clean && !m.is_zero(whole);
        m.zero(whole);
        stale
    });
    match stale {
        true => Err(Err(format!("{whole} is said to be zero"))),
        false => Ok(Some(page.pfn)),
    }
}

/// Writes fresh content into a page.
fn fill(pfn: u64) -> Content {
    with(|m| {
        let content = Content::start(m.world.fresh());
        m.world.memory.write(run(pfn, 1), content);
        content
    })
}

impl Story {
    fn any_regular(&mut self) -> Option<(String, u64)> {
        let name = self.any_live()?;
        let ino = self.any_of_kind(&name, S_IFREG)?;
        Some((name, ino))
    }

    /// Returns a random run of pages in or behind a file.
    fn any_pages(&mut self, name: &str, ino: u64) -> (u64, u64) {
        let pages = self.instances.get(name).and_then(|i| i.files.get(&ino));
        let end = pages
            .and_then(|f| f.pages.keys().next_back())
            .map_or(0, |n| n + 1);
        let first = match self.rng.below(6) {
            // The file grows.
            0..2 => end,
            2 => 0,
            3 => self.rng.below(LONGEST) & !(PAGES - 1),
            4 => self.rng.below(end.max(1)),
            _ => self.rng.below(LONGEST),
        };
        let count = match self.rng.below(12) {
            0 => PAGES,
            1 => 100 + self.rng.below(1600),
            2..6 => 1 + self.rng.below(60),
            _ => 1 + self.rng.below(4),
        };
        (first, first + count)
    }

    fn want(&mut self, first: u64, end: u64, pages: u64) -> Want {
        match self.rng.below(2) {
            0 => Want {
                pages: pages.max(end),
                first,
                end,
            },
            _ => Want {
                pages: pages.max(end),
                first: 0,
                end: 0,
            },
        }
    }

    pub(super) fn write(&mut self) -> Done {
        let Some((name, ino)) = self.any_regular() else {
            return self.create();
        };
        let (first, end) = self.any_pages(&name, ino);
        self.write_pages(&name, ino, first, end)
    }

    fn write_pages(&mut self, name: &str, ino: u64, first: u64, end: u64) -> Done {
        let size = self.file(name, ino)?.attr.size.div_ceil(PAGE_SIZE);
        let want = self.want(first, end, size);
        known(|pages| pages.short = false);
        for index in first..end {
            let lost = self.file(name, ino)?.pages.get(&index) == Some(&Page::Lost);
            let limit = self.instances.get(name).map_or(0, |i| i.limit);
            let (result, room) = at(name, ino, |state, id, inode| {
                let used = state.instance(id).map_or(0, |i| i.used);
                let there = inode.cache.at(index).is_some() || inode.content.lazy.has(index);
                let result = page_at(state, id, inode, index, Some(want));
                (result, there || used < limit)
            })?;
            let result = match result {
                Err(Err(what)) => return Err(what),
                Err(Ok(error)) => Err(error),
                Ok(page) => Ok(page),
            };
            let why = match (lost, room) {
                (true, _) => Some(EIO),
                (_, false) => Some(ENOSPC),
                _ => None,
            };
            let Some(page) = self.expect("a write", why, result)?.flatten() else {
                if lost {
                    continue;
                }
                break;
            };
            let content = fill(page);
            self.tally.written += 1;
            let file = self.file(name, ino)?;
            file.pages.insert(index, Page::Holds(content));
            file.attr.size = file.attr.size.max((index + 1) * PAGE_SIZE);
            let size = file.attr.size;
            at(name, ino, |_, _, inode| inode.attr.size = size)?;
        }
        Ok(())
    }

    /// Reads a part of a file, whether it is in the page cache or not.
    pub(super) fn read(&mut self) -> Done {
        let Some((name, ino)) = self.any_regular() else {
            return Ok(());
        };
        let Some(index) = self.any_page_of(&name, ino) else {
            return Ok(());
        };
        self.read_page(&name, ino, index)?;
        let hole = self.rng.below(LONGEST);
        self.read_page(&name, ino, hole)
    }

    fn any_page_of(&mut self, name: &str, ino: u64) -> Option<u64> {
        let pages = &self.instances.get(name)?.files.get(&ino)?.pages;
        let which = usize::try_from(self.rng.below(pages.len() as u64)).unwrap_or(0);
        pages.keys().nth(which).copied()
    }

    fn read_page(&mut self, name: &str, ino: u64, index: u64) -> Done {
        let wanted = self.file(name, ino)?.pages.get(&index).copied();
        known(|pages| pages.short = false);
        // A page that arrived is content, and not a hole.
        let grown = at(name, ino, |state, id, inode| {
            let lazy = inode.content.lazy.has(index);
            lazy.then(|| {
                Supply::serve::<Kernel, _>(|supply| {
                    let (content, cache) = (&inode.content, &inode.cache);
                    state.grow(id, content, cache, index, Want::default(), supply)
                })
            })
        })?;
        ensure(matches!(grown, None | Some(Err(EEXIST))), || {
            format!("{ino}: page {index} grew over what arrived: {grown:?}")
        })?;
        let result = at(name, ino, |state, id, inode| {
            page_at(state, id, inode, index, None)
        })?;
        let result = match result {
            Err(Err(what)) => return Err(what),
            Err(Ok(error)) => Err(error),
            Ok(page) => Ok(page),
        };
        let why = (wanted == Some(Page::Lost)).then_some(EIO);
        let Some(page) = self.expect("a read", why, result)? else {
            return Ok(());
        };
        match (page, wanted) {
            (Some(pfn), Some(Page::Holds(content))) => with(|m| {
                let good = m.world.memory.first_difference(run(pfn, 1), content);
                ensure(good.is_none(), || format!("{ino}: page {index} is another"))
            }),
            (Some(pfn), _) => ensure(with(|m| m.is_zero(run(pfn, 1))), || {
                format!("{ino}: page {index} is not zero")
            }),
            (None, Some(_)) => Err(format!("{ino}: page {index} is not there")),
            (None, None) => Ok(()),
        }
    }

    /// Brings all extents that arrived into the page cache, as a kernel thread does.
    pub(super) fn bring_all(&mut self) -> Done {
        let Some(name) = self.any_live() else {
            return Ok(());
        };
        let inos = self
            .instances
            .get(&name)
            .map(|i| i.files.keys().copied().collect());
        let inos: Vec<u64> = inos.unwrap_or_default();
        for ino in inos {
            let mut index = 0;
            loop {
                let brought = at(&name, ino, |state, id, inode| {
                    index = inode.content.lazy.next_good(index)?;
                    Some(state.bring(id, &mut inode.content, &inode.cache, index))
                })?;
                match brought {
                    None => break,
                    Some(Ok(count)) if count > 0 => {}
                    Some(Err(ENOMEM)) if known(|pages| pages.short) => return Ok(()),
                    Some(other) => return Err(format!("{ino}: page {index}: {other:?}")),
                }
            }
        }
        Ok(())
    }

    /// Truncates a file, or cuts a hole into it.
    pub(super) fn cut(&mut self) -> Done {
        let Some((name, ino)) = self.any_regular() else {
            return Ok(());
        };
        let (first, mut end) = self.any_pages(&name, ino);
        if self.chance(3) {
            end = u64::MAX;
        }
        self.cut_pages(&name, ino, first, end)
    }

    fn cut_pages(&mut self, name: &str, ino: u64, first: u64, end: u64) -> Done {
        self.remember_mapped_of(name, ino, first, end);
        let cut = at(name, ino, |state, id, inode| {
            inode.cut(state, id, first, end)
        })?;
        cut.map_err(|e| format!("a cut: {e:?}"))?;
        // Pages of a folio that a user has mapped stay in the file, zeroed.
        let there = at(name, ino, |_, _, inode| inode.cache.pages())?;
        self.looked_at
            .retain(|pfn, _| !there.values().any(|there| there == pfn));
        let file = self.file(name, ino)?;
        file.pages.retain(|index, _| !(first..end).contains(index));
        if end == u64::MAX {
            file.attr.size = first * PAGE_SIZE;
            at(name, ino, |_, _, inode| inode.attr.size = first * PAGE_SIZE)?;
        }
        Ok(())
    }

    /// Writes a large file, and then cuts it so that little of each 2 MiB stays.
    pub(super) fn sieve(&mut self) -> Done {
        let Some((name, ino)) = self.any_regular() else {
            return Ok(());
        };
        let pages = &self.file(&name, ino)?.pages;
        let end = pages.keys().next_back().map_or(0, |last| last + 1);
        let first = end.next_multiple_of(PAGES);
        self.write_pages(&name, ino, first, first + 6 * PAGES)?;
        for chunk in 0..6 {
            let chunk = first + chunk * PAGES;
            self.cut_pages(&name, ino, chunk + 1, chunk + PAGES)?;
        }
        self.reap()
    }

    /// Allocates memory of a file before it is written.
    pub(super) fn allocate(&mut self) -> Done {
        let Some((name, ino)) = self.any_regular() else {
            return Ok(());
        };
        let (first, end) = self.any_pages(&name, ino);
        let want = Want {
            pages: end,
            first,
            end,
        };
        known(|pages| pages.short = false);
        let limit = self.instances.get(&name).map_or(0, |i| i.limit);
        let (missing, used) = at(&name, ino, |state, id, inode| {
            let there =
                |index: &u64| inode.cache.at(*index).is_some() || inode.content.lazy.has(*index);
            let missing = (first..end).filter(|index| !there(index)).count() as u64;
            (missing, state.instance(id).map_or(0, |i| i.used))
        })?;
        let why = (limit.saturating_sub(used) < missing).then_some(ENOSPC);
        let room = at(&name, ino, |state, id, _| state.instance(id)?.room(missing))?;
        if self.expect("an allocation", why, room)?.is_none() {
            return Ok(());
        }
        loop {
            let (result, room) = at(&name, ino, |state, id, inode| {
                let used = state.instance(id).map_or(0, |i| i.used);
                let hole = (&inode.cache).next_hole(&inode.content, first);
                let result = (hole < end).then(|| page_at(state, id, inode, hole, Some(want)));
                (result, used < limit)
            })?;
            match result {
                None => return Ok(()),
                Some(Err(Err(what))) => return Err(what),
                Some(Err(Ok(error))) => {
                    // Earlier folios may have used up the limit.
                    let why = (!room).then_some(ENOSPC);
                    return self
                        .expect("an allocation", why, Err::<(), _>(error))
                        .map(drop);
                }
                Some(Ok(_)) => {}
            }
        }
    }

    /// Overwrites pages of a file, which is allowed in the active phase too.
    pub(super) fn overwrite(&mut self) -> Done {
        let Some((name, ino)) = self.any_regular() else {
            return Ok(());
        };
        let Some(first) = self.any_page_of(&name, ino) else {
            return Ok(());
        };
        for index in first..first + 1 + self.rng.below(40) {
            let Some(Page::Holds(_)) = self.file(&name, ino)?.pages.get(&index) else {
                continue;
            };
            self.read_page(&name, ino, index)?;
            // The read may have had no memory for the page.
            let Some(pfn) = at(&name, ino, |_, _, inode| inode.cache.at(index))? else {
                continue;
            };
            let content = fill(pfn);
            self.file(&name, ino)?
                .pages
                .insert(index, Page::Holds(content));
        }
        Ok(())
    }

    /// Remembers the content of pages that a user has mapped: it must not change when the pages leave their file.
    pub(super) fn remember_mapped_of(&mut self, name: &str, ino: u64, first: u64, end: u64) {
        let pages = at(name, ino, |_, _, inode| inode.cache.pages());
        for (_, pfn) in pages.iter().flat_map(|pages| pages.range(first..end)) {
            if with(|m| m.mapped.contains(pfn) && !m.failed.contains(pfn)) {
                let content = with(|m| m.world.memory.at(run(*pfn, 1).start()));
                self.looked_at.insert(*pfn, content);
            }
        }
    }

    /// Remembers the content of the mapped pages of all files of an instance.
    pub(super) fn remember_mapped(&mut self, name: &str) {
        let Some(instance) = self.instances.get(name) else {
            return;
        };
        if !instance.live || instance.mounts > 0 || self.active.is_some() {
            return;
        }
        let inos: Vec<u64> = instance.files.keys().copied().collect();
        for ino in inos {
            self.remember_mapped_of(name, ino, 0, u64::MAX);
        }
    }

    /// Maps a page of a file for a user, and unmaps one if more than four are mapped.
    pub(super) fn map(&mut self) -> Done {
        if let Some((name, ino)) = self.any_regular()
            && let Some(index) = self.any_page_of(&name, ino)
            && let Some(pfn) = at(&name, ino, |_, _, inode| inode.cache.at(index))?
        {
            with(|m| m.mapped.insert(pfn));
        }
        let mapped: Vec<u64> = with(|m| m.mapped.iter().copied().collect());
        if mapped.len() > 4 {
            let which = usize::try_from(self.rng.below(mapped.len() as u64)).unwrap_or(0);
            self.looked_at.remove(&mapped[which]);
            with(|m| m.unmap(mapped[which]));
        }
        Ok(())
    }

    /// Makes the memory of a page fail.
    pub(super) fn fail(&mut self) -> Done {
        let Some((name, ino)) = self.any_regular() else {
            return Ok(());
        };
        let Some(index) = self.any_page_of(&name, ino) else {
            return Ok(());
        };
        let pfn = at(&name, ino, |_, _, inode| {
            let lazy = inode.content.lazy.find(index, index + 1);
            let lazy = lazy.filter(|e| !e.is_lost()).map(|e| e.pfn);
            inode.cache.at(index).or(lazy)
        })?;
        if let Some(pfn) = pfn {
            with(|m| m.failed.insert(pfn));
            self.file(&name, ino)?.pages.insert(index, Page::Lost);
            self.tally.lost += 1;
        }
        Ok(())
    }

    /// Makes folios, as a user requests.
    pub(super) fn collapse(&mut self) -> Done {
        let Some((name, ino)) = self.any_regular() else {
            return Ok(());
        };
        let firsts: Vec<u64> = (0..LONGEST).step_by(512).collect();
        if known(|pages| pages.large) {
            at(&name, ino, |state, _, inode| {
                for first in firsts {
                    inode.collapse(state, first);
                }
            })?;
        }
        Ok(())
    }

    /// Takes or frees memory for other users of the machine.
    pub(super) fn user(&mut self) -> Done {
        let pick = u8::try_from(self.rng.below(200)).unwrap_or(0);
        let size = u32::try_from(self.rng.below(3 << 20)).unwrap_or(0);
        let op = match self.rng.below(6) {
            0 => Op::Keep(size),
            1 => Op::Drop(pick),
            2 => Op::Restore(pick),
            3 => Op::Busy(pick % 16, pick % 7),
            _ => Op::Churn,
        };
        khofs(|_| with(|m| m.world.step(&op)).map(drop))
    }
}
