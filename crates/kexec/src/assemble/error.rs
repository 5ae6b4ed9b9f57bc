//! Errors of the assembly of a load.

use kho::{PhysAddr, PhysRange};
use thiserror::Error;

use super::arrival::ArrivalError;
use super::segment::SegmentKind;
use crate::bootparam::BootParamsError;
use crate::carrier::CarrierError;
use crate::cmdline::CmdlineError;
use crate::devicetree::DeviceTreeError;

/// Reason why a load was not assembled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// The parameters were not made.
    #[error(transparent)]
    BootParams(#[from] BootParamsError),
    /// The state segment was not made.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    /// The arrival archive was not made.
    #[error(transparent)]
    Arrival(#[from] ArrivalError),
    /// The command line is refused.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// The hardware description was not made.
    #[error(transparent)]
    DeviceTree(#[from] DeviceTreeError),
    /// The initrd is farther from the kernel than an arm64 kernel can reach.
    #[error(
        "the initrd at {at:?} and the kernel at {kernel:?} are not in one window of 32 GiB that begins at a multiple of 1 GiB"
    )]
    InitrdFar {
        /// Range of the initrd.
        at: PhysRange,
        /// Range of the kernel.
        kernel: PhysRange,
    },
    /// The load has a state tree and no arrival program, so every user could read the memory that is handed over.
    #[error("a state tree can only be handed over through the arrival program")]
    NoArrival,
    /// The image does not state that its kernel knows `SETUP_INDIRECT`.
    #[error(
        "this kernel does not know SETUP_INDIRECT (bit 31 of kernel_info.setup_type_max, boot protocol 2.15, Linux 5.5): it would not reserve what is handed over, and would overwrite it"
    )]
    NoSetupIndirect,
    /// The running kernel uses five-level paging, and the image's kernel does not know it.
    #[error(
        "the running kernel uses five-level paging (la57), and this kernel cannot be entered with it (bit 5 of xloadflags is clear)"
    )]
    FiveLevel,
    /// The image's kernel cannot run in the range that the planner chose.
    #[error(
        "the kernel cannot go to {at:?}: it needs {mem_size:#x} bytes at a multiple of {alignment:#x}, at {lowest} or above"
    )]
    KernelPlace {
        /// Range that the planner chose.
        at: PhysRange,
        /// Bytes that the kernel needs.
        mem_size: u64,
        /// Alignment that the kernel needs, in bytes.
        alignment: u64,
        /// Lowest address that the kernel can go to.
        lowest: PhysAddr,
    },
    /// The planner chose no range for a segment.
    #[error("there is no place for the {} segment", kind.name())]
    NotPlaced {
        /// Kind of the segment.
        kind: SegmentKind,
    },
    /// The initrd ends above the highest address that the image allows.
    #[error("the initrd at {at:?} ends above {max}, the highest address this kernel takes")]
    InitrdTooHigh {
        /// Range that the planner chose.
        at: PhysRange,
        /// Highest address that the image takes.
        max: PhysAddr,
    },
    /// The range of a segment is not whole pages.
    #[error("the {} segment at {dest:?} is not whole pages", kind.name())]
    Misaligned {
        /// Kind of the segment.
        kind: SegmentKind,
        /// Range that the planner chose.
        dest: PhysRange,
    },
    /// The range of a segment is shorter than its bytes.
    #[error("the {} segment needs {needed:#x} bytes, {dest:?} has {:#x}", kind.name(), dest.len())]
    TooShort {
        /// Kind of the segment.
        kind: SegmentKind,
        /// Range that the planner chose.
        dest: PhysRange,
        /// Bytes needed.
        needed: u64,
    },
    /// Two segments have memory in common.
    #[error("the {} segment at {dest:?} overlaps the {} segment at {other_dest:?}", kind.name(), other.name())]
    Overlap {
        /// Kind of one segment.
        kind: SegmentKind,
        /// Range of the segment.
        dest: PhysRange,
        /// Kind of the other segment.
        other: SegmentKind,
        /// Range of the other segment.
        other_dest: PhysRange,
    },
    /// A segment would overwrite memory that is handed over.
    #[error("the {} segment at {dest:?} would overwrite memory that is handed over, {kept:?}", kind.name())]
    OntoKept {
        /// Kind of the segment.
        kind: SegmentKind,
        /// Range of the segment.
        dest: PhysRange,
        /// Mem-cache entry that the segment overlaps.
        kept: PhysRange,
    },
    /// The state segment is in no mem-cache entry.
    #[error(
        "the state segment at {dest:?} lies in no entry of the mem cache: the next kernel would reuse it"
    )]
    StateNotReserved {
        /// Range of the segment.
        dest: PhysRange,
    },
}
