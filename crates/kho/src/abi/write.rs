//! Writer of trees of version 1.

use super::numbered::begin_numbered;
use super::{
    ARRIVED_HOP, AbiError, BLAKE3, BLOB_PREFIX, BLOB_V1, BLOBS, BLOBS_V1, CARRIER, CARRIER_INITRD,
    CHECKSUM, COMPATIBLE, Carrier, Content, GENERATION, HANDOVER_V1, HOP, Handover, KIND,
    KIND_FILES, KIND_RAW, LABEL, Label, MACHINE, MEM, MEM_CACHE, ONE_FILE_SYSTEM, PAGE_BYTES,
    PAGE_SIZE_NAME, PATH, PREVIOUS_RELEASE, SCRATCH, SIZE, SKIP_SPECIAL, TAKEN, TIME,
};
use crate::addr::PhysRange;
use crate::tree::{ChecksumError, Reader, TreeError, WriteError, Writer, seal};
use thiserror::Error;

/// Content of a tree to be written. The fields are those of the root, see the [module documentation](super).
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// The random number that binds plan, load and exec.
    pub generation: u64,
    /// Handovers since the cold boot, this one counted.
    pub hop: u64,
    /// Release of the running kernel.
    pub previous_release: &'a str,
    /// The kind of machine, such as [`MACHINE_X86_64`](super::MACHINE_X86_64).
    pub machine: &'a str,
    /// Time of writing, in ns since the Unix epoch.
    pub time: u64,
    /// Carrier of the content.
    pub carrier: Carrier,
    /// The scratch region.
    pub scratch: PhysRange,
    /// Every range to reserve. Entry 0 covers the chain and the tree; the others ascend. The size of the tree depends
    /// on the number of ranges, not on their addresses.
    pub mem_cache: &'a [PhysRange],
    /// The blobs, in order.
    pub blobs: &'a [BlobDescription<'a>],
}

/// Content of the node of one blob.
#[derive(Clone, Copy, Debug)]
pub struct BlobDescription<'a> {
    /// The name that the user sees.
    pub label: Label<'a>,
    /// Kind of the content.
    pub content: Content<'a>,
    /// Bytes of content.
    pub size: u64,
    /// Memory that holds the content: page-aligned pieces in order.
    pub mem: &'a [PhysRange],
    /// BLAKE3 of the content.
    pub blake3: [u8; 32],
    /// When the content was read, in ns since the Unix epoch.
    pub taken: u64,
    /// `hop` of the first tree that carries the content.
    pub arrived_hop: u64,
}

/// Why a tree of version 1 could not be written.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandoverWriteError {
    /// The writer of the container refused the tree, with [`WriteError::BufferTooSmall`] for example.
    #[error("the state tree cannot be written")]
    Write(#[from] WriteError),
    /// The written bytes are not a valid container, for example because a node has two children of the same name.
    #[error("the state tree that was written is not valid")]
    Tree(#[from] TreeError),
    /// The checksum could not be stored.
    #[error("the state tree that was written cannot be sealed")]
    Seal(#[from] ChecksumError),
    /// The description breaks a rule of the contract.
    #[error("no next kernel would accept the state tree that was written")]
    Invalid(#[from] AbiError),
}

/// Bytes that the tree of `description` takes.
///
/// # Errors
///
/// [`WriteError`]s that do not depend on a buffer.
pub fn measure_handover(description: &Description<'_>) -> Result<usize, WriteError> {
    measure_handover_with(description, |_| Ok(()))
}

/// Writes the tree of `description` into `buf`, seals it, reads it back as the next kernel will, and returns
/// its size.
///
/// # Errors
///
/// [`HandoverWriteError`] if a reader would refuse the tree: readers accept every tree that this function writes
/// without an error. After an error the content of `buf` is undefined.
pub fn write_handover(
    description: &Description<'_>,
    buf: &mut [u8],
) -> Result<usize, HandoverWriteError> {
    write_handover_with(description, buf, |_| Ok(()))
}

/// As [`measure_handover`], with the nodes that `others` adds below the root.
///
/// # Errors
///
/// As [`measure_handover`], and those of `others`.
pub fn measure_handover_with(
    description: &Description<'_>,
    others: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
) -> Result<usize, WriteError> {
    let mut writer = Writer::measuring();
    fill(&mut writer, description, others)?;
    writer.finish()
}

/// As [`write_handover`], with the nodes that `others` adds below the root, after `/blobs`. `others` is called while
/// the root is open and leaves it open. Each node that `others` adds needs a `compatible`, and the `mem` ranges of that
/// node have to be in the description's mem cache.
///
/// # Errors
///
/// As [`write_handover`], and those of `others`.
pub fn write_handover_with(
    description: &Description<'_>,
    buf: &mut [u8],
    others: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
) -> Result<usize, HandoverWriteError> {
    let mut writer = Writer::new(buf);
    fill(&mut writer, description, others)?;
    let size = writer.finish()?;
    seal(buf)?;
    Handover::parse(&Reader::new(buf)?)?;
    Ok(size)
}

/// Writes the whole tree.
fn fill(
    w: &mut Writer<'_>,
    description: &Description<'_>,
    others: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    w.begin_node("")?;
    w.prop_str(COMPATIBLE, HANDOVER_V1)?;
    w.prop_u64(GENERATION, description.generation)?;
    w.prop_u64(HOP, description.hop)?;
    w.prop_str(PREVIOUS_RELEASE, description.previous_release)?;
    w.prop_str(MACHINE, description.machine)?;
    w.prop_u64(TIME, description.time)?;
    if description.carrier == Carrier::Initrd {
        w.prop_str(CARRIER, CARRIER_INITRD)?;
    }
    w.prop_mem(SCRATCH, [description.scratch])?;
    w.prop_mem(MEM_CACHE, description.mem_cache.iter().copied())?;
    w.prop_u32(PAGE_SIZE_NAME, PAGE_BYTES)?;
    w.prop_u32(CHECKSUM, 0)?;
    w.begin_node(BLOBS)?;
    w.prop_str(COMPATIBLE, BLOBS_V1)?;
    for (number, blob) in (0u64..).zip(description.blobs) {
        write_blob(w, number, blob)?;
    }
    w.end_node()?;
    others(w)?;
    w.end_node()
}

/// Writes the node of one blob.
fn write_blob(
    w: &mut Writer<'_>,
    number: u64,
    blob: &BlobDescription<'_>,
) -> Result<(), WriteError> {
    begin_numbered(w, BLOB_PREFIX, number)?;
    w.prop_str(COMPATIBLE, BLOB_V1)?;
    w.prop_str(LABEL, blob.label.as_str())?;
    match blob.content {
        Content::Files { path, leave_out } => {
            w.prop_str(KIND, KIND_FILES)?;
            w.prop_bytes(PATH, path)?;
            if leave_out.special {
                w.prop_empty(SKIP_SPECIAL)?;
            }
            if leave_out.other_file_systems {
                w.prop_empty(ONE_FILE_SYSTEM)?;
            }
        }
        Content::Raw => w.prop_str(KIND, KIND_RAW)?,
    }
    w.prop_u64(SIZE, blob.size)?;
    w.prop_mem(MEM, blob.mem.iter().copied())?;
    w.prop_bytes(BLAKE3, &blob.blake3)?;
    w.prop_u64(TAKEN, blob.taken)?;
    w.prop_u64(ARRIVED_HOP, blob.arrived_hop)?;
    w.end_node()
}
