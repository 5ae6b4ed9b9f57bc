//! What is made of a tree that was written down, once [`check`](crate::check) believes it.

use crate::account::target_pages;
use crate::content::Content;
use crate::options::INODE;
use crate::pack::{Attr, Reader, S_IFDIR, S_IFREG};
use crate::xattr::Attribute;
use kho_decide::errno::Errno;

/// What a tree uses of its instance's limits, see [`crate::account`].
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Used {
    /// Pages that targets of symbolic links count as.
    pub pages: u64,
    /// Bytes of inode space.
    pub space: u64,
}

impl Used {
    /// Counts one more name of an inode.
    pub fn name(&mut self) {
        self.space = self.space.saturating_add(INODE);
    }
}

/// An inode to make.
pub struct Made<'a> {
    /// What is known of it.
    pub attr: Attr,
    /// Of a symbolic link.
    pub target: &'a [u8],
    /// What is kept for it.
    pub content: Content,
}

impl Made<'_> {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.attr.kind() == S_IFDIR
    }
}

/// Reads the next inode, with its extents, and counts it.
///
/// # Errors
///
/// No memory; whatever [`check`](crate::check::check) finds wrong.
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
