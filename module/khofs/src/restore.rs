//! The content of a new superblock: only a root, or the tree that arrived.

use crate::boundary::handover::claim;
use crate::boundary::kernel::{self, read_arrived};
use crate::boundary::system::State;
use crate::boundary::vfs::{Loose, Super, Tree};
use crate::state::STATE;
use alloc::vec::Vec;
use kho::{PAGE_SIZE, RangeSet};
use kho_boundary::log;
use kho_boundary::relax;
use kho_decide::errno::{EBADMSG, EINVAL, Errno};
use kho_decide::text::Level;
use khofs_decide::check::{self, Summary};
use khofs_decide::content::Content;
use khofs_decide::handover::checksum;
use khofs_decide::options::INODE;
use khofs_decide::options::Options;
use khofs_decide::pack::{Attr, Reader, S_IFDIR};
use khofs_decide::restore::{self, Used};
use khofs_decide::state::Body;

/// Fills the superblock of an instance.
///
/// # Errors
///
/// No memory; [`EBADMSG`] if the tree that arrived is malformed. Its memory then stays reserved.
pub fn fill(id: u32, sb: Super, options: &Options) -> Result<(), Errno> {
    let arrived = {
        let mut state = STATE.lock();
        match &state.instance(id)?.body {
            Body::Arrived(arrived) => {
                let mut bytes = Vec::new();
                let mut left = arrived.size;
                for range in &arrived.tree {
                    read_arrived(*range, left, &mut bytes)?;
                    left = arrived.size.saturating_sub(bytes.len());
                }
                if bytes.len() != arrived.size || checksum(&bytes) != arrived.checksum {
                    log!(Level::Error, "the tree that arrived is damaged");
                    return Err(EBADMSG);
                }
                Some((bytes, arrived.data.try_clone()?))
            }
            Body::New => None,
            Body::Live(_) | Body::Ending => return Err(EINVAL),
        }
    };
    match arrived {
        Some((bytes, data)) => restore(id, sb, &bytes, data, options),
        None => begin(id, sb, options),
    }
}

/// Makes a new file system that has only a root.
fn begin(id: u32, sb: Super, options: &Options) -> Result<(), Errno> {
    let (seconds, nanoseconds) = kernel::now();
    let attr = Attr {
        ino: 1,
        mode: S_IFDIR | options.mode.unwrap_or(0o1777),
        uid: options.uid.unwrap_or(0),
        gid: options.gid.unwrap_or(0),
        atime: seconds,
        mtime: seconds,
        ctime: seconds,
        atime_ns: nanoseconds,
        mtime_ns: nanoseconds,
        ctime_ns: nanoseconds,
        nlink: 2,
        ..Attr::default()
    };
    let root = sb.make_inode(&attr, Content::default(), &[])?;
    Tree::new(sb, root)?;
    let mut state = STATE.lock();
    let instance = state.instance(id)?;
    instance.begin_with(options);
    instance.inodes = 1;
    instance.space = INODE;
    sb.hold();
    instance.body = Body::Live(sb);
    Ok(())
}

fn restore(
    id: u32,
    sb: Super,
    bytes: &[u8],
    data: RangeSet,
    options: &Options,
) -> Result<(), Errno> {
    let summary = check::check(bytes, &data).inspect_err(|_| {
        log!(Level::Error, "the tree that arrived is malformed");
    })?;
    let (mut reader, _) = Reader::new(bytes)?;
    let mut used = Used::default();
    let root = inode(&mut reader, sb, &mut used)?;
    let mut tree = Tree::new(sb, root.0)?;
    while let Some(entry) = reader.entry()? {
        let parent = usize::try_from(entry.parent).map_err(|_| EBADMSG)?;
        let number = usize::try_from(entry.inode).map_err(|_| EBADMSG)?;
        if number == tree.len() {
            let (inode, dir) = inode(&mut reader, sb, &mut used)?;
            tree.add(parent, entry.name, inode, dir)?;
            if number.is_multiple_of(256) {
                relax();
            }
        } else {
            tree.link(parent, entry.name, number)?;
            used.name();
        }
    }
    tree.set_links(&summary.links);
    used.pages = used.pages.saturating_add(summary.pages);
    let mut state = STATE.lock();
    finish(&mut state, id, tree.sb(), data, &summary)?;
    let instance = state.instance(id)?;
    (instance.used, instance.space) = (used.pages, used.space);
    instance.begin_with(options);
    if instance.is_over() {
        log!(
            Level::Warning,
            "instance {} uses {} KiB and {} inodes, and its limits are {} KiB and {}: it gets nothing more until less is used",
            instance.name,
            instance.used.saturating_mul(PAGE_SIZE / 1024),
            instance.inodes_used(),
            instance.limit.saturating_mul(PAGE_SIZE / 1024),
            instance.inode_limit
        );
    }
    Ok(())
}

/// Makes the instance live. It has files from then on.
fn finish(
    state: &mut State,
    id: u32,
    sb: Super,
    data: RangeSet,
    summary: &Summary,
) -> Result<(), Errno> {
    let instance = state.instance(id)?;
    sb.hold();
    let body = core::mem::replace(&mut instance.body, Body::Live(sb));
    instance.inodes = summary.links.len() as u64;
    instance.next_ino = summary.next_ino;
    instance.unclaimed = data;
    if let Body::Arrived(arrived) = body {
        // Inodes and dentries hold the content of the tree now. No activation has named these pages, because an
        // activation waits for mounts under way.
        for range in arrived.tree {
            if claim(range).is_err() {
                continue;
            }
            let first = range.start().get() / PAGE_SIZE;
            for pfn in first..first.saturating_add(range.pages()) {
                kernel::put_page(pfn);
            }
        }
    }
    Ok(())
}

/// Makes the next inode. Returns whether it is a directory.
fn inode(reader: &mut Reader<'_>, sb: Super, used: &mut Used) -> Result<(Loose, bool), Errno> {
    let read = restore::inode(reader, used)?;
    let dir = read.is_dir();
    Ok((sb.make_inode(&read.attr, read.content, read.target)?, dir))
}
