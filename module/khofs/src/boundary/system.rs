//! The kernel in the form that the decisions use.

use super::handover::{self, Node};
use super::kernel::{self, Block};
use super::vfs::{File, Super};
use kho::PhysRange;
use kho_decide::errno::Errno;
use khofs_decide::content::Content;
use khofs_decide::system::System;

/// The kernel in which this module runs.
pub enum Linux {}

/// The state of all instances, on this kernel.
pub type State = khofs_decide::state::State<Linux>;

/// The content of an inode.
pub fn content(file: File, _: &State) -> &Content {
    // SAFETY: the only state is behind its lock, so a caller with a borrow of the state holds the lock; contents change
    // only through a mutable borrow of the state.
    unsafe { file.get() }
}

impl System for Linux {
    type Super = Super;
    type Node = Node;
    type Block = Block;

    fn ram_pages() -> u64 {
        kernel::ram_pages()
    }

    fn large() -> bool {
        kernel::large()
    }

    fn more_pages() -> Option<u64> {
        kernel::more_pages()
    }

    fn take_pages(count: u64) -> Option<u64> {
        kernel::take_pages(count)
    }

    fn put_page(pfn: u64) {
        kernel::put_page(pfn);
    }

    fn put_folio(base: u64) {
        kernel::put_folio(base);
    }

    fn is_ready(pfn: u64, folded: bool) -> bool {
        kernel::is_ready(pfn, folded)
    }

    fn good_pages(pfn: u64, count: u64) -> u64 {
        kernel::good_pages(pfn, count)
    }

    fn fold(base: u64) -> bool {
        kernel::fold(base)
    }

    fn unfold(base: u64) -> bool {
        kernel::unfold(base)
    }

    fn claim(range: PhysRange) -> Result<(), Errno> {
        handover::claim(range)
    }

    fn reap_later() {
        kernel::reap_later();
    }
}
