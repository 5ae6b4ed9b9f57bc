//! Inodes that khofs makes from a written tree, after [`check`](crate::check) has decided to trust it.

use crate::account::target_pages;
use crate::content::Content;
use crate::options::INODE;
use crate::pack::{Attr, Reader, S_IFDIR, S_IFREG};
use crate::xattr::Attribute;
use kho_decide::errno::Errno;

/// Amounts that a tree uses of its instance's limits, see [`crate::account`].
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Used {
    /// Number of pages that count for targets of symbolic links.
    pub pages: u64,
    /// Inode space in bytes.
    pub space: u64,
}

impl Used {
    /// Counts a further name of an inode.
    pub fn name(&mut self) {
        self.space = self.space.saturating_add(INODE);
    }
}

/// An inode to make.
pub struct Made<'a> {
    /// Attributes of the inode.
    pub attr: Attr,
    /// Target of a symbolic link; empty for other inodes.
    pub target: &'a [u8],
    /// Data that khofs keeps for the inode.
    pub content: Content,
}

impl Made<'_> {
    /// Whether the inode is a directory.
    pub fn is_dir(&self) -> bool {
        self.attr.kind() == S_IFDIR
    }
}

/// Reads the next inode, with its extents, and counts it.
///
/// # Errors
///
/// No memory; every error that [`check`](crate::check::check) finds.
pub fn inode<'a>(reader: &mut Reader<'a>, used: &mut Used) -> Result<Made<'a>, Errno> {
    let read = reader.inode()?;
    let mut content = Content {
        target_pages: target_pages(read.target.len() as u64),
        ..Content::default()
    };
    for attribute in read.attributes() {
        let (name, value) = attribute?;
        let attribute = Attribute::new(name, value)?;
        content.attributes.set(name, Some(attribute), 0)?;
    }
    let space = INODE.saturating_add(content.attributes.space());
    used.pages = used.pages.saturating_add(content.target_pages);
    used.space = used.space.saturating_add(space);
    if read.attr.kind() == S_IFREG {
        while let Some(extent) = reader.extent()? {
            content.lazy.push(extent)?;
        }
    }
    Ok(Made {
        attr: Attr {
            nlink: 1,
            ..read.attr
        },
        target: read.target,
        content,
    })
}
