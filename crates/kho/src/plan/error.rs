//! The reasons for which the planner refuses.

use crate::addr::PhysRange;
use crate::headroom::HeadroomError;
use crate::image::PlacementError;
use crate::ranges::OutOfMemory;
use crate::scratch::ScratchError;
use core::fmt;
use thiserror::Error;

/// Kind of memory in which handed-over memory must not lie, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// The scratch region.
    Scratch,
    /// A page that the running kernel holds as reserved.
    Pinned,
    /// The low 1 MiB.
    LowMemory,
}

impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scratch => "scratch",
            Self::Pinned => "pages that the running kernel holds as reserved",
            Self::LowMemory => "the low 1 MiB",
        })
    }
}

/// Why no plan was made. Planning changes nothing, so the system is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A range to be kept includes bytes that are not RAM.
    #[error("{range} is to be kept but is not all RAM under the next kernel's map: {hole} is not")]
    OutsideRam {
        /// The range.
        range: PhysRange,
        /// The first part of the range that is not RAM.
        hole: PhysRange,
    },
    /// A range to be kept lies in memory where nothing may be kept.
    #[error("{range} is to be kept but overlaps {with}, which belongs to {barrier}")]
    Overlap {
        /// The range.
        range: PhysRange,
        /// The memory that the range overlaps.
        with: PhysRange,
        /// Kind of that memory.
        barrier: Barrier,
    },
    /// `memmap=exactmap` on the next command line.
    #[error(
        "memmap=exactmap on the next kernel's command line replaces the firmware's memory map, so no range can be known to be RAM: remove it"
    )]
    ExactMap,
    /// More reservations than early boot takes.
    #[error(
        "the kept memory needs {need} separate reservations and early boot has room for {cap}: hand over less, or fewer and larger pieces"
    )]
    TooManyRanges {
        /// The smallest possible number, [`STATE_RESERVATIONS`](crate::plan::STATE_RESERVATIONS) included.
        need: usize,
        /// The number allowed.
        cap: usize,
    },
    /// No scratch, or an unusable one.
    #[error(transparent)]
    Scratch(ScratchError),
    /// Scratch is large enough, but the image's alignment or address limits cannot be met in it.
    #[error(transparent)]
    ImageDoesNotFit(PlacementError),
    /// State and blobs do not fit.
    #[error(
        "the blobs take {need:#x} bytes with the state, in whole pages, and the largest that fits is {largest:#x}"
    )]
    PayloadDoesNotFit {
        /// Bytes of state and blobs, in whole pages.
        need: u64,
        /// The most that would fit, with the same state.
        largest: u64,
    },
    /// The request has a state segment of no bytes, or sizes that overflow.
    #[error("a state segment of {state:#x} bytes with {blobs} blobs is impossible")]
    BadPayload {
        /// Bytes of the state segment.
        state: u64,
        /// Number of blobs.
        blobs: usize,
    },
    /// More bytes than `kexec_load` accepts.
    #[error(
        "loading takes {need:#x} bytes and the running kernel accepts {limit:#x} (half of its memory): the largest payload that fits is {largest:#x}"
    )]
    LoadLimit {
        /// Bytes in all segments.
        need: u64,
        /// Bytes accepted.
        limit: u64,
        /// State and blobs that would be accepted with this image.
        largest: u64,
    },
    /// The next kernel would find too little memory.
    #[error(transparent)]
    Headroom(HeadroomError),
    /// An allocation failed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl From<ScratchError> for PlanError {
    fn from(error: ScratchError) -> Self {
        match error {
            ScratchError::Image(inner) => inner.into(),
            ScratchError::OutOfMemory(inner) => inner.into(),
            other => Self::Scratch(other),
        }
    }
}

impl From<PlacementError> for PlanError {
    fn from(error: PlacementError) -> Self {
        match error {
            PlacementError::OutOfMemory(inner) => inner.into(),
            other => Self::ImageDoesNotFit(other),
        }
    }
}

impl From<HeadroomError> for PlanError {
    fn from(error: HeadroomError) -> Self {
        match error {
            HeadroomError::OutOfMemory(inner) => inner.into(),
            other => Self::Headroom(other),
        }
    }
}
