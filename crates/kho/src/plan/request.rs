//! The request to the planner.

use crate::addr::PhysRange;
use crate::headroom::UserSpace;
use crate::image::ImageNeeds;
use crate::ranges::RangeSet;

/// Early reservations that the state segment takes besides the entry that covers it.
///
/// The next kernel reserves the chain's nodes and the tree as it walks to them. They lie in one
/// mem-cache entry, with which they merge once it is reserved too; until then they count as one more.
pub const STATE_RESERVATIONS: usize = 1;

/// Source of the scratch region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScratchSource {
    /// This boot arrived by a handover: the interval that the handover recorded. `None` if it recorded no interval.
    Recorded(Option<PhysRange>),
    /// The first boot: the planner chooses a region, of `size` bytes if the user gave a size.
    Choose {
        /// Size in bytes, from `kho_scratch=`; `None` if the user gave no size.
        size: Option<u64>,
    },
}

/// Bounds that come from the running and the next kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Early reservations that the next kernel is known to accept on this firmware, those of the state segment
    /// ([`STATE_RESERVATIONS`]) included.
    pub max_entries: usize,
    /// Segments left for state and blobs (of `KEXEC_SEGMENT_MAX`, 16, in `include/uapi/linux/kexec.h`, less those for
    /// the image).
    pub max_payload_segments: usize,
    /// Bytes that `kexec_load` accepts in all segments together: half of the running kernel's
    /// `totalram_pages()` (`sanity_check_segment_list` in `kernel/kexec_core.c`).
    pub load_limit: u64,
}

/// Sizes of the content that is handed over by copying.
#[derive(Clone, Copy, Debug)]
pub struct PayloadNeeds<'a> {
    /// Bytes of the state segment (chain and tree): an upper bound, since the tree describes the plan.
    /// The state segment is placed in one contiguous piece.
    pub state: u64,
    /// Bytes of each blob. A blob of zero bytes gets no piece.
    pub blobs: &'a [u64],
}

/// Everything a plan depends on. All ranges are physical bytes.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// RAM according to the map that the next kernel gets: the firmware's, without memory that failed.
    pub ram: &'a RangeSet,
    /// Pages in RAM that are PageReserved in the running kernel (or have no `struct page`), without those that arrived
    /// by the previous hop. Some of them are firmware data that no map names. The mem cache never covers them, and the
    /// planner never places the payload or a first scratch on them.
    pub pinned: &'a RangeSet,
    /// Ranges that are kept where they are.
    pub in_place: &'a RangeSet,
    /// Source of the scratch region.
    pub scratch: ScratchSource,
    /// Needs of the image, which goes into scratch.
    pub image: ImageNeeds,
    /// Sizes of the state and the blobs, which are copied to places outside scratch.
    pub payload: PayloadNeeds<'a>,
    /// Places for the payload in order of preference: memory that is still reserved from the previous hop and no
    /// longer needed, then memory taken for the purpose. Content that does not fit there goes anywhere in RAM.
    pub landing: &'a [RangeSet],
    /// The next kernel's command line.
    pub cmdline: &'a [u8],
    /// Memory use of the next kernel's user space.
    pub user_space: UserSpace,
    /// Bounds that come from the running and the next kernel.
    pub limits: Limits,
}
