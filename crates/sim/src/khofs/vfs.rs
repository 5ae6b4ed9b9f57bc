//! Superblocks and inodes, as far as khofs uses them.

use crate::khofs::kernel::{Kernel, PageCache, base_of, folio_of, known, run};
use crate::module::machine::with;
use khofs_decide::bits::PAGES;
use khofs_decide::content::Content;
use khofs_decide::pack::{Attr, S_IFDIR};
use khofs_decide::state::State;
use std::collections::BTreeMap;

/// An inode.
#[derive(Default)]
pub struct Inode {
    /// Attributes that stat(2) shows.
    pub attr: Attr,
    /// Target, if the inode is a symbolic link.
    pub target: Vec<u8>,
    /// Inode numbers by name, if the inode is a directory.
    pub entries: BTreeMap<Vec<u8>, u64>,
    /// Content that khofs keeps for the inode.
    pub content: Content,
    /// Page cache of the inode.
    pub cache: PageCache,
}

impl Inode {
    /// Returns whether the inode is a directory.
    pub fn is_dir(&self) -> bool {
        self.attr.kind() == S_IFDIR
    }

    /// Splits into pages the folio that a cut at `index` would cross, unless a user has a page of it mapped.
    fn split(&self, state: &mut State<Kernel>, index: u64) {
        let base = self.cache.at(index).and_then(folio_of);
        let Some(base) = base.filter(|base| self.cache.at(index) != Some(*base)) else {
            return;
        };
        if with(|m| m.mapped.range(base..base + PAGES).next().is_none()) {
            known(|pages| pages.folios.remove(&base));
            state.chunks.set_folded(base, false);
        }
    }

    /// Makes a folio of the 2 MiB of a file that begin at page `index`, if they are contiguous in memory. Returns
    /// whether it made one.
    pub fn collapse(&self, state: &mut State<Kernel>, index: u64) -> bool {
        let Some(base) = self.cache.at(index).filter(|pfn| base_of(*pfn) == *pfn) else {
            return false;
        };
        let alone = (0..PAGES).all(|n| {
            let pfn = base + n;
            let good = with(|m| !m.mapped.contains(&pfn) && !m.failed.contains(&pfn));
            self.cache.at(index + n) == Some(pfn) && good
        });
        if !alone || folio_of(base).is_some() {
            return false;
        }
        known(|pages| pages.folios.insert(base));
        state.chunks.set_folded(base, true);
        true
    }

    /// Takes pages `first` to before `end` out of the file, as a truncation does.
    ///
    /// # Errors
    ///
    /// If no memory is left.
    pub fn cut(
        &mut self,
        state: &mut State<Kernel>,
        id: u32,
        first: u64,
        end: u64,
    ) -> Result<(), kho_decide::errno::Errno> {
        while state.forget(id, &mut self.content, &self.cache, first, end)? {}
        self.split(state, first);
        self.split(state, end);
        self.drop_pages(state, first, end);
        Ok(())
    }

    /// Takes pages out of the page cache. If only a part of a folio is taken out, its pages stay and become zero.
    fn drop_pages(&self, state: &mut State<Kernel>, first: u64, end: u64) {
        let mut at = first;
        while let Some((index, pfn)) = self.cache.first(at, end) {
            let Some(base) = folio_of(pfn) else {
                self.cache.remove(index, 1);
                state.folio_freed(pfn, 1);
                at = index + 1;
                continue;
            };
            let start = index - (pfn - base);
            at = start + PAGES;
            if start >= first && at <= end {
                self.cache.remove(start, PAGES);
                state.folio_freed(base, PAGES);
            } else {
                let zeroed = end.min(at) - index;
                with(|m| m.zero(run(pfn, zeroed)));
            }
        }
    }

    /// Removes the inode, with all its pages.
    pub fn evict(mut self, state: &mut State<Kernel>, id: u32) {
        self.drop_pages(state, 0, u64::MAX);
        if !state.inode_gone(id, &self.content) {
            return;
        }
        while let Some(index) = self.content.lazy.next(0) {
            let window = index | (PAGES - 1);
            let Ok(Some(extent)) = self.content.lazy.take(index, window + 1) else {
                return;
            };
            state.discard(id, extent);
        }
    }
}

/// A superblock: inodes by number. The root is 1.
#[derive(Default)]
pub struct Super {
    /// Inodes of the file system.
    pub inodes: BTreeMap<u64, Inode>,
    /// Number of mounts.
    pub mounts: u64,
}
