//! The contract of a handover, version 1: names and meanings of the nodes and properties of a state tree, and the rules
//! that make a tree valid.
//!
//! The container is described in [`tree`](crate::tree). The loader of the next kernel *writes* the tree
//! ([`write_handover`]); a consumer in the next kernel *reads* it and believes nothing ([`Handover::parse`]).
//! Integers are native endian, times are nanoseconds since the Unix epoch (`CLOCK_REALTIME`), sizes and
//! lengths are bytes, strings are UTF-8 and ended by one NUL that their length counts, and a *pair* is
//! `{u64 addr; u64 len}`.
//!
//! # `/`, the root: `kho-handover-v1`
//!
//! | property | type | meaning |
//! | --- | --- | --- |
//! | [`compatible`](COMPATIBLE) | string | [`HANDOVER_V1`]. Mainline kernels use `kho-v1` to `kho-v4` for other layouts |
//! | [`generation`](GENERATION) | u64 | random; binds the plan, the loaded image and the exec to each other |
//! | [`hop`](HOP) | u64 | handovers since the cold boot, this one counted: 1 at the first |
//! | [`previous-release`](PREVIOUS_RELEASE) | string | `uname -r` of the kernel that ran when the tree was written |
//! | [`machine`](MACHINE) | string | `uname -m` of it, [`MACHINE_X86_64`] |
//! | [`time`](TIME) | u64 | when the tree was written |
//! | [`scratch`](SCRATCH) | one pair | the scratch region, page-aligned; nothing handed over lies in it, and the next hop uses it again |
//! | [`mem-cache`](MEM_CACHE) | pairs, 1 or more | every reserved range, see below |
//! | [`carrier`](CARRIER) | string, optional | [`CARRIER_INITRD`] if the content lies in files of the initrd, see below; without it, memory was kept in place |
//! | [`page-size`](PAGE_SIZE_NAME) | u32 | size of the page to which all ranges are aligned, in bytes: 4096 in version 1 |
//! | [`checksum`](CHECKSUM) | u32 | CRC-32 over the tree, see [`verify`](crate::tree::verify) |
//! | [`kernel-part`](KERNEL_PART) | reserved | optional; will say where the page with the kernel's part of the tree is. A version 1 reader skips it |
//!
//! The mem cache holds page-aligned ranges that do not overlap (they may touch). Entry 0 is the *state*: it covers the
//! `setup_data` chain and this tree, at any address. The entries after entry 0 ascend.
//!
//! # A tree in an initrd
//!
//! A kernel that is loaded by `kexec_file_load` gets nothing but a command line and an initrd. With [`CARRIER`] =
//! [`CARRIER_INITRD`], the tree and the content are files of the initrd, and all ranges of the tree are *places in these
//! files* instead of physical memory: address N is byte N of the content files joined in order. Entry 0 of the mem cache
//! stands for the tree, which is a file of its own; scratch is an empty place after the content. Nothing is reserved,
//! and the next load chooses a scratch region. All other rules are the same.
//!
//! # `/blobs`: `kho-blobs-v1`
//!
//! Bytes that were copied into the image at load time. Optional; no properties but `compatible`. Its
//! children are `blob-0`, `blob-1`, … without a gap, in this order.
//!
//! # `/blobs/blob-N`: `kho-blob-v1`
//!
//! | property | type | meaning |
//! | --- | --- | --- |
//! | `compatible` | string | [`BLOB_V1`] |
//! | [`label`](LABEL) | string | the name that the user sees, a [`Label`], unique among the blobs |
//! | [`kind`](KIND) | string | [`KIND_FILES`]: a pax archive of a kept path; [`KIND_RAW`]: bytes as they came |
//! | [`path`](PATH) | bytes, for files only | the absolute path that the content came from, as on disk, without a NUL; see [`check_path`] |
//! | [`skip-special`](SKIP_SPECIAL) | empty, optional, for files only | when the path is read again, sockets, devices and pipes are left out |
//! | [`one-file-system`](ONE_FILE_SYSTEM) | empty, optional, for files only | when the path is read again, file systems mounted below it are left out |
//! | [`size`](SIZE) | u64 | length of the content |
//! | [`mem`](MEM) | pairs | where the content is: page-aligned pieces in order, in all `size` rounded up to a page; empty when `size` is 0 |
//! | [`blake3`](BLAKE3) | 32 bytes | BLAKE3 of the `size` bytes of content |
//! | [`taken`](TAKEN) | u64 | when the content was read |
//! | [`arrived-hop`](ARRIVED_HOP) | u64 | the `hop` of the first tree that carried these bytes: 1 up to this tree's `hop`, equal when they were read for this handover |
//!
//! # `/ftrace`: `kho-ftrace-v1`
//!
//! Traces of earlier kernels, optional: see [`ftrace`].
//!
//! # Every node
//!
//! A node may have a `mem` property: ranges that the next kernel leaves alone. In every node, known or not, these
//! ranges are page-aligned and not empty, inside the mem cache, outside of scratch, and no two in the whole tree
//! overlap. Every child of the root, and of `/blobs`, has a `compatible`. A `compatible` that a reader does not know is
//! not an error: the reader leaves the node alone, keeps its ranges, and reports the node ([`Handover::unknown`]).
//! Readers ignore properties that are not listed here.
//!
//! # Versions
//!
//! The number at the end of a `compatible` is raised if a reader of the old number would act wrongly: if a property
//! changes its meaning or type, if a property goes away, if readers may not ignore a new property, or if a rule on this
//! page gets weaker. A property that a reader may ignore is added without raising the number. A reader refuses a
//! `kho-handover-v2` as a whole with [`ProblemKind::RootVersion`]; its ranges stay reserved, because the `setup_data`
//! chain names them too.
//!
//! # Where the tree is
//!
//! On x86 a `setup_data` node points at the tree, see [`setup_data`].
//!
//! # Limits
//!
//! Labels 1 to [`MAX_LABEL`] bytes, paths 1 to [`MAX_PATH`] bytes, `previous-release` and `machine` 1 to
//! [`MAX_UTS`] bytes without control characters; the container's own limits for everything else.

mod check;
pub mod ftrace;
mod handover;
pub mod kernel_part;
pub mod khofs;
mod label;
pub mod late;
mod numbered;
mod problem;
pub mod setup_data;
mod write;

pub use handover::{Blob, Carrier, Content, Handover, LeaveOut, Unknown};
pub use label::{Label, LabelError, PathError, check_path};
pub use problem::{AbiError, Problem, ProblemKind, StateError};
pub use write::{
    BlobDescription, Description, HandoverWriteError, measure_handover, measure_handover_with,
    write_handover, write_handover_with,
};

/// Property of every node: the versioned name of its layout. Written by the producer of the node.
pub const COMPATIBLE: &str = "compatible";

/// `compatible` of the root.
pub const HANDOVER_V1: &str = "kho-handover-v1";

/// Root, u64: the random number that binds plan, load and exec.
pub const GENERATION: &str = "generation";

/// Root, u64: handovers since the cold boot, this one counted; at least 1.
pub const HOP: &str = "hop";

/// Root, string: release of the kernel that ran when the tree was written.
pub const PREVIOUS_RELEASE: &str = "previous-release";

/// Root, string: the kind of machine.
pub const MACHINE: &str = "machine";

/// Value of [`MACHINE`] on 64-bit x86.
pub const MACHINE_X86_64: &str = "x86_64";

/// Root, u64: when the tree was written, in ns since the Unix epoch.
pub const TIME: &str = "time";

/// Root, one pair: the scratch region.
pub const SCRATCH: &str = "scratch";

/// Root, pairs: every reserved range; entry 0 covers the chain and the tree.
pub const MEM_CACHE: &str = "mem-cache";

/// Root, string and optional: carrier of the content, [`CARRIER_INITRD`]. Without it the content is in memory that the
/// next kernel left alone.
pub const CARRIER: &str = "carrier";

/// Value of [`CARRIER`] for content in files of the initrd.
pub const CARRIER_INITRD: &str = "initrd";

/// Root, u32: bytes of a page.
pub const PAGE_SIZE_NAME: &str = "page-size";

/// Value of [`PAGE_SIZE_NAME`] in version 1.
pub const PAGE_BYTES: u32 = 4096;

// The contract and the arithmetic of this crate use one page size.
const _: () = assert!(PAGE_BYTES as u64 == crate::addr::PAGE_SIZE);

pub use crate::tree::CHECKSUM;

/// Root, reserved for the place of the kernel's own part of the tree. Version 1 neither writes nor reads the property;
/// a writer must not use the name for anything else.
pub const KERNEL_PART: &str = "kernel-part";

/// Name of the node below the root that holds the blobs.
pub const BLOBS: &str = "blobs";

/// `compatible` of the node [`BLOBS`].
pub const BLOBS_V1: &str = "kho-blobs-v1";

/// First part of the names of blob nodes; a dash and their number follow, decimal, from 0.
pub const BLOB_PREFIX: &str = "blob";

/// `compatible` of a blob node.
pub const BLOB_V1: &str = "kho-blob-v1";

/// Blob, string: the name that the user sees.
pub const LABEL: &str = "label";

/// Blob, string: [`KIND_FILES`] or [`KIND_RAW`].
pub const KIND: &str = "kind";

/// Value of [`KIND`]: the content is a pax archive of a kept path.
pub const KIND_FILES: &str = "files";

/// Value of [`KIND`]: the content is bytes as they came.
pub const KIND_RAW: &str = "raw";

/// Blob of [`KIND_FILES`], bytes: the absolute path that was kept.
pub const PATH: &str = "path";

/// Blob of [`KIND_FILES`], empty and optional: leave out sockets, devices and pipes when reading again.
pub const SKIP_SPECIAL: &str = "skip-special";

/// Blob of [`KIND_FILES`], empty and optional: leave out other file systems when reading again.
pub const ONE_FILE_SYSTEM: &str = "one-file-system";

/// Blob, u64: length of the content in bytes.
pub const SIZE: &str = "size";

/// Any node, pairs: physical ranges that the next kernel leaves alone.
pub const MEM: &str = "mem";

/// Blob, 32 bytes: BLAKE3 of the content.
pub const BLAKE3: &str = "blake3";

/// Blob, u64: when the content was read, in ns since the Unix epoch.
pub const TAKEN: &str = "taken";

/// Blob, u64: [`HOP`] of the first tree that carried the content.
pub const ARRIVED_HOP: &str = "arrived-hop";

/// Longest label, in bytes.
pub const MAX_LABEL: usize = 255;

/// Longest path, in bytes: Linux's `PATH_MAX` without the NUL (`include/uapi/linux/limits.h`).
pub const MAX_PATH: usize = 4095;

/// Longest [`PREVIOUS_RELEASE`] or [`MACHINE`], in bytes: Linux's `__NEW_UTS_LEN` (`include/uapi/linux/utsname.h`).
pub const MAX_UTS: usize = 64;
