//! What decisions ask of the kernel, and what they have it do.
//!
//! khofs.ko implements these on its boundary, which does as it is told: that a page is free, and whose it is, is decided
//! here. A test implements them on a machine of its own.

use crate::content::Content;
use crate::extents::Extent;
use kho::PhysRange;
use kho_decide::errno::Errno;

/// The machine, and names for what it keeps.
pub trait System {
    /// A superblock.
    type Super: Copy;
    /// A node that arrived.
    type Node: Copy;
    /// Pages with a tree that was written down.
    type Block;

    /// Pages of the machine.
    fn ram_pages() -> u64;

    /// Whether there are folios of 2 MiB.
    fn large() -> bool;

    /// `count` pages from the system, zero, next to each other, each with one reference: the first page frame.
    fn take_pages(count: u64) -> Option<u64>;

    /// Gives a page back that [`Chunks`](crate::chunks::Chunks) has forgotten.
    fn put_page(pfn: u64);

    /// The same for a folio.
    fn put_folio(base: u64);

    /// Whether nobody but khofs holds a free page, and its memory is good. A folio (`folded`) is made pages then.
    fn is_ready(pfn: u64, folded: bool) -> bool;

    /// How many of `count` pages, from `pfn` on, are good before the first whose memory failed.
    fn good_pages(pfn: u64, count: u64) -> u64;

    /// Makes one folio of the pages of a chunk that are in no file. False when somebody holds one of them.
    fn fold(base: u64) -> bool;

    /// Makes pages of a folio that is in no file. False when somebody holds it, or a part of its memory failed.
    fn unfold(base: u64) -> bool;

    /// Takes pages that arrived, each with one reference from here on.
    ///
    /// # Errors
    ///
    /// When they are somebody else's by now.
    fn claim(range: PhysRange) -> Result<(), Errno>;

    /// Gives memory that is not needed back in a while.
    fn reap_later();
}

/// A run of pages in the page cache, `struct khofs_run`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Run {
    /// First page in the file.
    pub index: u64,
    /// Its page frame.
    pub pfn: u64,
    /// Pages.
    pub count: u64,
}

/// The page cache of an inode.
pub trait Cache: Copy {
    /// Puts a page that an instance owns and that was taken from the free ones, or arrived, into it: `locked` and not
    /// uptodate, or ready for use.
    ///
    /// # Errors
    ///
    /// `EEXIST`; no memory.
    fn insert(self, index: u64, pfn: u64, locked: bool) -> Result<(), Errno>;

    /// The first run that ends behind page `from`.
    fn next_run(self, from: u64) -> Option<Run>;

    /// Tells how many pages are not in it yet.
    fn set_lazy(self, pages: u64);

    /// The first page from `index` on that has data, `u64::MAX` for none.
    fn next_data(self, content: &Content, index: u64) -> u64 {
        let cached = self.next_run(index).map(|run| run.index.max(index));
        let lazy = content.lazy.next(index);
        cached.into_iter().chain(lazy).min().unwrap_or(u64::MAX)
    }

    /// The first page from `index` on that has none.
    fn next_hole(self, content: &Content, index: u64) -> u64 {
        let mut at = index;
        loop {
            let gap = content.lazy.gap(at);
            match self.next_run(gap).filter(|run| run.index <= gap) {
                Some(run) => at = run.index.saturating_add(run.count),
                None => return gap,
            }
        }
    }

    /// All extents of a regular file: what is in the page cache and what is not, ascending.
    fn extents(self, content: &Content) -> impl Iterator<Item = Extent> {
        let mut at = Some(0u64);
        core::iter::from_fn(move || {
            let from = at?;
            let cached = self.next_run(from).map(|run| Extent {
                index: run.index,
                pfn: run.pfn,
                count: run.count,
            });
            let lazy = content.lazy.find(from, u64::MAX);
            let next = match (cached, lazy) {
                (Some(a), Some(b)) => Some(if a.index < b.index { a } else { b }),
                (a, b) => a.or(b),
            };
            at = next.map(|e| e.end());
            next
        })
    }
}
