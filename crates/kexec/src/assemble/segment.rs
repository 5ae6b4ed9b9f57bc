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
