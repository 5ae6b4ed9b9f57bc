//! What is kept for an inode besides the kernel's.

use crate::extents::Extents;
use crate::xattr::Attributes;
use core::cell::Cell;

/// What is kept for an inode besides the kernel's.
#[derive(Default)]
pub struct Content {
    /// What arrived and is not in the page cache.
    pub lazy: Extents,
    /// Extended attributes.
    pub attributes: Attributes,
    /// Pages that the target of a symbolic link counts as.
    pub target_pages: u64,
    /// While the tree is written down: the activation, and the number of the inode in the order of writing.
    pub written: Cell<(u64, u64)>,
}
