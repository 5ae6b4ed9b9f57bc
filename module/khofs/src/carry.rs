//! The handover: writes every instance into a tree and freezes the instances; finds the instances that arrived.

use crate::boundary::handover::{Context, Node};
use crate::boundary::kernel::{self, Block};
use crate::boundary::system::{Linux, State, content};
use crate::boundary::vfs::{Dentry, Inode, Super};
use crate::state::STATE;
use alloc::vec::Vec;
use kho::abi::COMPATIBLE;
use kho::abi::khofs::{INSTANCE_V1, KHOFS_V1};
use kho::{PAGE_SIZE, PhysRange, RangeSet};
use kho_boundary::log;
use kho_boundary::relax;
use kho_decide::errno::{ENOMEM, Errno};
use kho_decide::text::Level;
use khofs_decide::draft::{Draft, Written};
use khofs_decide::handover::{self, Output, checksum};
use khofs_decide::pack::S_IFDIR;
use khofs_decide::state::{Arrived, Body, Instance};
use khofs_decide::system::Cache;

/// Maximum length, in bytes, of a piece of memory that holds a part of a tree. The page allocator has that much in one
/// piece.
const PIECE: usize = 2 << 20;

/// The memory failed.
const EHWPOISON: Errno = Errno(133);

/// Writes every instance into a tree, and freezes all instances.
///
/// # Errors
///
/// No memory; the error of kho.ko; `EHWPOISON` if memory of an instance that is not mounted failed. Then no instance is
/// frozen.
pub fn serialize(ctx: &mut Context<'_>) -> Result<(), Errno> {
    // The freeze waits for changes under way, and a task in the middle of a change needs the lock to finish it: so the
    // lock is not held here.
    kernel::freeze(true);
    let result = {
        let mut state = STATE.lock();
        state.frozen = true;
        state.epoch = state.epoch.wrapping_add(1).max(1);
        state.serialized_pages = state.pages_used();
        write(&mut state, ctx)
    };
    if result.is_err() {
        thaw();
    }
    result
}

/// Ends the freeze.
pub fn thaw() {
    {
        let mut state = STATE.lock();
        state.frozen = false;
        state.written = Vec::new();
    }
    kernel::freeze(false);
}

fn write(state: &mut State, ctx: &mut Context<'_>) -> Result<(), Errno> {
    ctx.text(COMPATIBLE, KHOFS_V1)?;
    let mut blocks = Vec::new();
    for instance in &state.instances {
        match &instance.body {
            Body::New | Body::Ending => {}
            Body::Arrived(arrived) => {
                all_good(instance, &arrived.data)?;
                handover::write(ctx, instance, arrived)?;
            }
            Body::Live(sb) => {
                let Written { bytes, data, .. } = tree(state, instance, *sb)?;
                let first = blocks.len();
                for piece in bytes.chunks(PIECE) {
                    blocks.try_reserve(1)?;
                    blocks.push(Block::with(piece)?);
                }
                let pieces = blocks.iter().skip(first).map(Block::range);
                let mut ranges: Vec<PhysRange> = Vec::new();
                for range in pieces {
                    ranges.try_reserve(1)?;
                    ranges.push(range?);
                }
                let what = Arrived {
                    tree: ranges,
                    size: bytes.len(),
                    checksum: checksum(&bytes),
                    data,
                    inodes: instance.inodes,
                };
                handover::write(ctx, instance, &what)?;
            }
        }
    }
    state.written = blocks;
    Ok(())
}

/// Makes the tree of an instance. Returns its bytes, and the pages of the instance's files.
fn tree(state: &State, instance: &Instance<Linux>, sb: Super) -> Result<Written, Errno> {
    let mut draft = Draft::new(instance.next_ino)?;
    let root = sb.root()?;
    inode(&mut draft, state, root.inode())?;
    let mut dirs: Vec<(Dentry, u64)> = Vec::new();
    dirs.try_reserve(1)?;
    dirs.push((root, 0));
    let mut next = 0usize;
    while let Some((dir, number)) = dirs.get(next).copied() {
        next = next.saturating_add(1);
        dir.children(|entry, name, child| {
            let (epoch, known) = content(child.file()?, state).written.get();
            if epoch == state.epoch {
                return draft.entry(number, name, known);
            }
            let fresh = draft.next();
            draft.entry(number, name, fresh)?;
            if inode(&mut draft, state, child)? {
                dirs.try_reserve(1)?;
                dirs.push((entry, fresh));
            }
            Ok(())
        })?;
        relax();
    }
    let written = draft.finish()?;
    if written.lost > 0 {
        log!(
            Level::Warning,
            "{} pages of files of instance {} are lost to failures of memory: to read them is an error",
            written.lost,
            instance.name
        );
    }
    Ok(written)
}

/// Writes an inode. Returns whether it is a directory.
fn inode(draft: &mut Draft, state: &State, inode: Inode<'_>) -> Result<bool, Errno> {
    let content = content(inode.file()?, state);
    content.written.set((state.epoch, draft.next()));
    let attr = inode.attr();
    let pairs = content.attributes.iter().map(|a| (a.name(), a.value()));
    let extents = inode.extents(content);
    draft.inode(&attr, inode.target(), pairs, extents, kernel::good_pages)?;
    Ok(attr.kind() == S_IFDIR)
}

/// Checks that no memory of an instance that is not mounted failed. Such an instance is handed over unchanged, so its
/// tree cannot state that a page is lost.
fn all_good(instance: &Instance<Linux>, data: &RangeSet) -> Result<(), Errno> {
    for range in data.iter() {
        let (first, count) = (range.start().get() / PAGE_SIZE, range.pages());
        let good = kernel::good_pages(first, count);
        if good != count {
            log!(
                Level::Error,
                "memory of instance {} failed at page frame {:#x}: mount it, so that its files are handed over without",
                instance.name,
                first.saturating_add(good)
            );
            return Err(EHWPOISON);
        }
        relax();
    }
    Ok(())
}

/// Records the instances that the previous kernel handed over.
///
/// # Errors
///
/// No memory. If khofs cannot read an instance, the instance stays reserved, and khofs logs this.
pub fn receive() -> Result<(), Errno> {
    for node in Node::all(INSTANCE_V1) {
        match arrived(node) {
            Ok(()) => {}
            Err(ENOMEM) => return Err(ENOMEM),
            Err(error) => log!(
                Level::Error,
                "an instance that arrived is not understood (error {}) and stays reserved",
                error.0
            ),
        }
    }
    Ok(())
}

fn arrived(node: Node) -> Result<(), Errno> {
    let found = handover::read(node)?;
    if !kernel::is_reserved(found.first) {
        // An earlier instance of this module mounted or released it.
        return Ok(());
    }
    let pages = found.arrived.data.total() / PAGE_SIZE;
    let (inodes, ranges) = (found.arrived.inodes, found.arrived.data.len());
    let id = STATE.lock().add_found(found, node)?.id;
    // From here on only khofs can release these pages. khofs hands on either all of them or none.
    let held = node.hold();
    let mut state = STATE.lock();
    let name = &state.instance(id)?.name;
    if let Err(error) = held {
        log!(
            Level::Error,
            "the memory of instance {name} is not all there (error {})",
            error.0
        );
        state.instances.retain(|i| i.id != id);
        return Err(error);
    }
    log!(
        Level::Info,
        "instance {name} arrived: {inodes} inodes, {} KiB in {ranges} ranges",
        pages.saturating_mul(PAGE_SIZE / 1024)
    );
    Ok(())
}
