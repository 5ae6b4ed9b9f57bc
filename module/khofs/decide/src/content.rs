//! Data that khofs keeps for an inode, besides the kernel's inode.

use crate::extents::Extents;
use crate::xattr::Attributes;
use core::cell::Cell;

/// Data that khofs keeps for an inode, besides the kernel's inode.
#[derive(Default)]
pub struct Content {
    /// Extents that arrived and are not in the page cache yet.
    pub lazy: Extents,
    /// Extended attributes.
    pub attributes: Attributes,
    /// Number of pages that count for the target of a symbolic link.
    pub target_pages: u64,
    /// Number of the last activation that wrote the inode, and number of the inode in the order of writing.
    pub written: Cell<(u64, u64)>,
}
