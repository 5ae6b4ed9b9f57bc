//! The kernel in the form that the decisions of this crate use: queries and actions.
//!
//! khofs.ko implements these traits in its boundary, which decides nothing: this crate decides whether a page is free,
//! and which instance owns it. A test implements the traits on a simulated machine.

use crate::content::Content;
use crate::extents::Extent;
use kho::PhysRange;
use kho_decide::errno::Errno;

/// The machine, and the types of the objects that it keeps.
pub trait System {
    /// A superblock.
    type Super: Copy;
    /// A node that arrived.
    type Node: Copy;
    /// Pages with a written tree.
    type Block;

    /// Number of pages of the machine.
    fn ram_pages() -> u64;

    /// Whether the kernel has folios of 2 MiB.
    fn large() -> bool;

    /// Number of pages that khofs may keep beyond what it kept at the last serialization (`kho_room` in
    /// `include/kho.h`); `None` if no late load is armed.
    fn more_pages() -> Option<u64>;

    /// Takes `count` contiguous zeroed pages from the system, each with one reference. Returns the first page frame.
    fn take_pages(count: u64) -> Option<u64>;

    /// Returns a page to the system that [`Chunks`](crate::chunks::Chunks) has removed.
    fn put_page(pfn: u64);

    /// Returns a folio to the system that [`Chunks`](crate::chunks::Chunks) has removed.
    fn put_folio(base: u64);

    /// Whether khofs has the only reference on a free page, and the page's memory is good. If the page is in a folio
    /// (`folded`), splits that folio into pages.
    fn is_ready(pfn: u64, folded: bool) -> bool;

    /// Number of good pages among the `count` pages from `pfn` on, before the first one whose memory failed.
    fn good_pages(pfn: u64, count: u64) -> u64;

    /// Makes one folio of the pages of a chunk, which are in no file. Returns false if one of the pages has another
    /// holder.
    fn fold(base: u64) -> bool;

    /// Splits a folio that is in no file into pages. Returns false if the folio has another holder, or if a part of its
    /// memory failed.
    fn unfold(base: u64) -> bool;

    /// Claims pages that arrived, each with one reference from then on.
    ///
    /// # Errors
    ///
    /// If the pages were claimed or released before.
    fn claim(range: PhysRange) -> Result<(), Errno>;

    /// Makes khofs return memory that it does not need to the system after a while.
    fn reap_later();
}

/// A run of pages in the page cache, `struct khofs_run`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Run {
    /// First page in the file.
    pub index: u64,
    /// Page frame of the first page.
    pub pfn: u64,
    /// Number of pages.
    pub count: u64,
}

/// The page cache of an inode.
pub trait Cache: Copy {
    /// Puts a page of an instance into the page cache. The page was free, or arrived. It goes in locked and not
    /// uptodate if `locked`, else ready for use.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is a page at `index` already; no memory.
    fn insert(self, index: u64, pfn: u64, locked: bool) -> Result<(), Errno>;

    /// The first run that ends behind page `from`, if any.
    fn next_run(self, from: u64) -> Option<Run>;

    /// Sets the number of pages of the inode that arrived and are not in the page cache yet.
    fn set_lazy(self, pages: u64);

    /// The first page from `index` on that has data; `u64::MAX` if there is none.
    fn next_data(self, content: &Content, index: u64) -> u64 {
        let cached = self.next_run(index).map(|run| run.index.max(index));
        let lazy = content.lazy.next(index);
        cached.into_iter().chain(lazy).min().unwrap_or(u64::MAX)
    }

    /// The first page from `index` on that has no data.
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

    /// All extents of a regular file, ascending: those in the page cache, and those that are not in it yet.
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
