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

/// Content of the segments of a load.
pub(crate) struct Contents<'a> {
    pub kernel: &'a [u8],
    pub initrd: Option<Cow<'a, [u8]>>,
    pub params: Vec<u8>,
    /// Chain and state tree; `None` if there is neither.
    pub state: Option<Cow<'a, [u8]>>,
}

impl<'a> Contents<'a> {
    /// Makes the segments with these destinations. An initrd without a destination makes no segment.
    pub fn segments(self, place: &Placement) -> Vec<Segment<'a>> {
        use SegmentKind::{Initrd, Kernel, Params, State};
        let parts = [
            (Kernel, Some(place.kernel), Some(Cow::Borrowed(self.kernel))),
            (Initrd, place.initrd, self.initrd),
            (Params, Some(place.params), Some(Cow::Owned(self.params))),
            (State, Some(place.state), self.state),
        ];
        let segment =
            |(kind, dest, bytes): (SegmentKind, Option<PhysRange>, Option<Cow<'a, [u8]>>)| {
                let (dest, bytes) = (dest?, bytes?);
                Some(Segment { kind, dest, bytes })
            };
        parts.into_iter().filter_map(segment).collect()
    }
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
