//! Why a load cannot be put together.

use kho::{PhysAddr, PhysRange};
use thiserror::Error;

use super::arrival::ArrivalError;
use super::segment::SegmentKind;
use crate::bootparam::BootParamsError;
use crate::carrier::CarrierError;
use crate::cmdline::CmdlineError;

/// Why a load cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// The parameters.
    #[error(transparent)]
    BootParams(#[from] BootParamsError),
    /// The state segment.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    /// The arrival archive.
    #[error(transparent)]
    Arrival(#[from] ArrivalError),
    /// The command line.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// A state tree without the arrival program: what is handed over would be readable by everybody.
    #[error("a state tree can only be handed over through the arrival program")]
    NoArrival,
    /// The image does not say that its kernel knows `SETUP_INDIRECT`.
    #[error(
        "this kernel does not know SETUP_INDIRECT (bit 31 of kernel_info.setup_type_max, boot protocol 2.15, Linux 5.5): it would not reserve what is handed over, and would overwrite it"
    )]
    NoSetupIndirect,
    /// The running kernel uses five-level paging, and the image's kernel knows nothing of it.
    #[error(
        "the running kernel uses five-level paging (la57), and this kernel cannot be entered with it (bit 5 of xloadflags is clear)"
    )]
    FiveLevel,
    /// The kernel does not fit where it was put.
    #[error(
        "the kernel cannot go to {at:?}: it needs {mem_size:#x} bytes at a multiple of {alignment:#x}, at {lowest} or above"
    )]
    KernelPlace {
        /// Where it was put.
        at: PhysRange,
        /// Bytes it needs.
        mem_size: u64,
        /// Alignment it needs.
        alignment: u64,
        /// Lowest address.
        lowest: PhysAddr,
    },
    /// A segment without a place.
    #[error("there is no place for the {} segment", kind.name())]
    NotPlaced {
        /// Which.
        kind: SegmentKind,
    },
    /// The image takes its initrd only below an address.
    #[error("the initrd at {at:?} ends above {max}, the highest address this kernel takes")]
    InitrdTooHigh {
        /// Where it was put.
        at: PhysRange,
        /// The limit.
        max: PhysAddr,
    },
    /// Not whole pages.
    #[error("the {} segment at {dest:?} is not whole pages", kind.name())]
    Misaligned {
        /// Which.
        kind: SegmentKind,
        /// Where it was put.
        dest: PhysRange,
    },
    /// The place is too small.
    #[error("the {} segment needs {needed:#x} bytes, {dest:?} has {:#x}", kind.name(), dest.len())]
    TooShort {
        /// Which.
        kind: SegmentKind,
        /// Where it was put.
        dest: PhysRange,
        /// Bytes needed.
        needed: u64,
    },
    /// Two segments on the same memory.
    #[error("the {} segment at {dest:?} overlaps the {} segment at {other_dest:?}", kind.name(), other.name())]
    Overlap {
        /// One.
        kind: SegmentKind,
        /// Its place.
        dest: PhysRange,
        /// The other.
        other: SegmentKind,
        /// Its place.
        other_dest: PhysRange,
    },
    /// The next kernel would overwrite what is handed over.
    #[error("the {} segment at {dest:?} would overwrite memory that is handed over, {kept:?}", kind.name())]
    OntoKept {
        /// Which.
        kind: SegmentKind,
        /// Its place.
        dest: PhysRange,
        /// The mem-cache entry it overlaps.
        kept: PhysRange,
    },
    /// The state segment is in no mem-cache entry.
    #[error(
        "the state segment at {dest:?} lies in no entry of the mem cache: the next kernel would reuse it"
    )]
    StateNotReserved {
        /// Its place.
        dest: PhysRange,
    },
}
