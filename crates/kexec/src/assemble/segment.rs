//! The segments of a load.

use std::borrow::Cow;

use kho::PhysRange;

/// Kind of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SegmentKind {
    /// The kernel image.
    Kernel,
    /// Arrival archive and initrd.
    Initrd,
    /// `boot_params`, command line, entry code.
    Params,
    /// Chain and state tree.
    State,
}

impl SegmentKind {
    /// Returns the name of the kind, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Params => "parameters",
            Self::State => "state",
        }
    }
}

/// A segment for `kexec_load`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Kind of the segment.
    pub kind: SegmentKind,
    /// Destination: whole pages, at least as long as `bytes`. The rest becomes zeros.
    pub dest: PhysRange,
    /// Content of the segment.
    pub bytes: Cow<'a, [u8]>,
}

/// Destinations of the segments, chosen by the planner. Each range is whole pages and at least as long as
/// [`params_len`](super::params_len), [`initrd_len`](super::initrd_len), [`ImageHeader::mem_size`](crate::image::ImageHeader::mem_size) and
/// [`Carrier::state_len`](crate::carrier::Carrier::state_len) require.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The kernel's load address and memory.
    pub kernel: PhysRange,
    /// The initrd; `None` only if there is neither an initrd nor an arrival archive.
    pub initrd: Option<PhysRange>,
    /// The parameters.
    pub params: PhysRange,
    /// The state segment, outside scratch.
    pub state: PhysRange,
}
