//! The plan: where everything goes at one hop, or why the hop must not happen.
//!
//! [`plan`] takes what is known about the machine and what is to be handed over, and decides the place of the
//! kernel, the initrd and the boot parameters (inside scratch), of the state segment and the blobs (outside),
//! and the mem cache that covers all that is kept. It refuses, with one [`PlanError`] variant per reason,
//! rather than plan a boot onto handed-over memory.
//!
//! [`Plan::check_invariants`] re-derives every safety property from the finished plan and the request with
//! none of the code that built it. A loader calls it right before the system call.

mod image;
mod payload;
mod verify;

pub use image::{
    FOUR_GIB, ImageNeeds, ImagePart, ImagePlacement, InitrdNeeds, KernelNeeds, LOW_MEMORY_END,
    Placement, PlacementError, place_image,
};
pub use payload::{Content, PayloadSegment, Piece};
pub use verify::Violation;

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::headroom::{self, CmdlineMemory, HeadroomError, HeadroomInput, HeadroomReport};
use crate::memcache::{self, CoverError, MemCache};
use crate::ranges::{OutOfMemory, RangeSet};
use crate::scratch::{self, ScratchError, ScratchRequest};
use alloc::vec::Vec;
use core::fmt;
use thiserror::Error;

/// Early reservations that the state segment costs besides the entry that covers it.
///
/// The next kernel reserves the chain's nodes and the tree as it walks to them. They lie in one
/// mem-cache entry, with which they merge once it is reserved too; until then they count as one more.
pub const STATE_RESERVATIONS: usize = 1;

/// `KEXEC_SEGMENT_MAX` of `include/uapi/linux/kexec.h`.
pub const KEXEC_SEGMENTS: usize = 16;

/// Where scratch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScratchSource {
    /// This boot arrived by a handover: the interval it recorded. `None` if it recorded none.
    Recorded(Option<PhysRange>),
    /// The first boot: choose one, of this many bytes if the user gave a size.
    Choose {
        /// From `kho_scratch=`.
        size: Option<u64>,
    },
}

/// Bounds that come from the running and the next kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Early reservations that the next kernel is known to take from us on this firmware, the state
    /// segment's own ([`STATE_RESERVATIONS`]) included.
    pub max_entries: usize,
    /// Segments left for state and blobs (of [`KEXEC_SEGMENTS`], less those for the image).
    pub max_payload_segments: usize,
    /// Bytes that `kexec_load` accepts in all segments together: half of the running kernel's
    /// `totalram_pages()` (`sanity_check_segment_list` in `kernel/kexec_core.c`).
    pub load_limit: u64,
}

/// What is handed over by copying.
#[derive(Clone, Copy, Debug)]
pub struct PayloadNeeds<'a> {
    /// Bytes of the state segment (chain and tree): an upper bound, since the tree describes the plan.
    /// It is placed in one contiguous piece.
    pub state: u64,
    /// Bytes of each blob. A blob of zero bytes gets no piece.
    pub blobs: &'a [u64],
}

/// Everything a plan depends on. All ranges are physical bytes.
#[derive(Clone, Copy, Debug)]
pub struct PlanRequest<'a> {
    /// RAM according to the map that the next kernel gets: the firmware's, without memory that failed.
    pub ram: &'a RangeSet,
    /// Pages in RAM that are PageReserved in the running kernel (or have no `struct page`), without those
    /// that arrived by the previous hop. Some of them are firmware data that no map names: they are never
    /// covered by the mem cache, never a destination of the payload, never in a first scratch.
    pub pinned: &'a RangeSet,
    /// Ranges that are kept where they are.
    pub in_place: &'a RangeSet,
    /// First addresses of NUMA nodes: no mem-cache entry crosses one. May be empty.
    pub borders: &'a [PhysAddr],
    /// Where scratch comes from.
    pub scratch: ScratchSource,
    /// What goes into scratch.
    pub image: ImageNeeds,
    /// What is copied besides.
    pub payload: PayloadNeeds<'a>,
    /// Places for the payload in order of preference: memory that is still reserved from the previous hop and no
    /// longer needed, then memory taken for the purpose. What does not fit goes anywhere in RAM.
    pub landing: &'a [RangeSet],
    /// The next kernel's command line.
    pub cmdline: &'a [u8],
    /// Bounds.
    pub limits: Limits,
}

/// Sums over a plan, in bytes unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    /// Copied into scratch: kernel, initrd, parameters, in whole pages.
    pub image: u64,
    /// Copied outside scratch: state and blobs, in whole pages.
    pub payload: u64,
    /// Of `payload`, inside one of the landing zones (the rest lands in busy memory, which loads slowly).
    pub landed: u64,
    /// Kept without copying, in whole pages.
    pub in_place: u64,
    /// Covered by the mem cache but not handed over.
    pub slack: u64,
    /// Memory that must be free while loading: every segment in the caller's buffer and in the kernel's pages.
    pub memory_at_load: u64,
    /// Early reservations in the next kernel at their most, counted as in [`Limits::max_entries`].
    pub early_entries: usize,
    /// Segments of `kexec_load`, image included.
    pub segments: usize,
}

/// A finished plan. All its ranges are page-aligned.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The scratch region, to be recorded in the state tree.
    pub scratch: PhysRange,
    /// Where the image goes inside it.
    pub image: ImagePlacement,
    /// Where state and blobs go: one `kexec_load` segment each, sorted by address.
    pub segments: Vec<PayloadSegment>,
    /// What each part of those segments holds: the state first, then every blob's pieces in order.
    pub pieces: Vec<Piece>,
    /// What the next kernel reserves.
    pub mem_cache: MemCache,
    /// Index of the mem-cache entry that holds the state segment.
    pub state_entry: usize,
    /// What the next kernel needs and finds.
    pub headroom: HeadroomReport,
    /// Sums.
    pub totals: Totals,
}

impl Plan {
    /// Where the state segment goes.
    pub fn state(&self) -> Option<PhysRange> {
        self.pieces
            .iter()
            .find(|p| p.content == Content::State)
            .map(|p| p.dest)
    }

    /// The mem cache in the order of the state tree and the `setup_data` chain: the entry with the state
    /// first, the others by address.
    pub fn mem_cache_state_first(&self) -> impl Iterator<Item = PhysRange> + '_ {
        let state = self.mem_cache.entries().get(self.state_entry);
        let others = self.mem_cache.ranges().enumerate();
        state.map(|e| e.range).into_iter().chain(
            others
                .filter(|(index, _)| *index != self.state_entry)
                .map(|(_, range)| range),
        )
    }

    /// The pieces of blob `index`, in order.
    pub fn blob_pieces(&self, index: usize) -> impl Iterator<Item = &Piece> + '_ {
        self.pieces
            .iter()
            .filter(move |p| matches!(p.content, Content::Blob { index: i, .. } if i == index))
    }

    /// The destinations of all `kexec_load` segments: kernel, initrd if any, parameters, then the payload.
    pub fn destinations(&self) -> impl Iterator<Item = PhysRange> + '_ {
        [
            Some(self.image.kernel),
            self.image.initrd,
            Some(self.image.params),
        ]
        .into_iter()
        .flatten()
        .map(|p| p.segment())
        .chain(self.segments.iter().map(|s| s.dest))
    }
}

/// Memory that nothing handed over may lie in, for messages.
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

/// Why there is no plan. Nothing has been changed when one of these is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A range to be kept is not all RAM.
    #[error("{range} is to be kept but is not all RAM under the next kernel's map: {hole} is not")]
    OutsideRam {
        /// The range.
        range: PhysRange,
        /// The first part of it that is not RAM.
        hole: PhysRange,
    },
    /// A range to be kept lies where nothing may be kept.
    #[error("{range} is to be kept but overlaps {with}, which belongs to {barrier}")]
    Overlap {
        /// The range.
        range: PhysRange,
        /// What it overlaps.
        with: PhysRange,
        /// What that is.
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
        /// The smallest possible number, [`STATE_RESERVATIONS`] included.
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

/// What is forbidden to whom, derived once.
struct Terrain {
    /// RAM under the next command line.
    ram: RangeSet,
    /// What no kept byte and no slack may be in: holes, the low 1 MiB, pinned pages, scratch.
    forbidden: RangeSet,
}

/// Makes the plan for one hop. A pure function of the request.
///
/// # Errors
///
/// One variant of [`PlanError`] for each reason to refuse.
pub fn plan(request: &PlanRequest<'_>) -> Result<Plan, PlanError> {
    let cmdline = CmdlineMemory::parse(request.cmdline, request.ram.total())?;
    if cmdline.exactmap {
        return Err(PlanError::ExactMap);
    }
    let ram = cmdline.usable(request.ram)?;
    let in_place = request.in_place.page_outer()?;
    check_kept(&in_place, &ram, request.pinned)?;
    let scratch = match request.scratch {
        ScratchSource::Recorded(recorded) => {
            scratch::reuse(recorded, &ram, &in_place, &request.image)?
        }
        ScratchSource::Choose { size } => scratch::choose(&ScratchRequest {
            ram: &ram,
            kept: &in_place,
            pinned: request.pinned,
            prefer: &RangeSet::new(),
            size,
            image: &request.image,
        })?,
    };
    let image = place_image(scratch, &ram, &request.image)?;
    let terrain = terrain(ram, request.pinned, scratch)?;
    let space = payload::Space::new(request, &terrain, &in_place, &cmdline)?;

    // Landing zones first. If that leaves too little memory or takes too many ranges: high memory first, then
    // as few runs as possible. The reason to refuse is the first order's.
    let attempt = Attempt {
        request,
        terrain: &terrain,
        in_place: &in_place,
        cmdline: &cmdline,
        scratch,
        image,
    };
    attempt.check_load_limit(&space)?;
    let mut refusal = None;
    for order in payload::Order::ALL {
        match attempt.build(&space, order) {
            Err(error @ (PlanError::Headroom(_) | PlanError::TooManyRanges { .. })) => {
                refusal = refusal.or(Some(error));
            }
            Err(error) => return Err(refusal.unwrap_or(error)),
            Ok(plan) => return Ok(plan),
        }
    }
    Err(refusal.unwrap_or(PlanError::OutOfMemory(OutOfMemory)))
}

/// Refuses kept ranges that are not RAM or belong to somebody else.
fn check_kept(kept: &RangeSet, ram: &RangeSet, pinned: &RangeSet) -> Result<(), PlanError> {
    for range in kept.iter() {
        if !ram.contains_range(range) {
            // A range that is page-rounded past representable memory has no gap; name it whole.
            let hole = ram.gaps(range)?.iter().next().unwrap_or(range);
            return Err(PlanError::OutsideRam { range, hole });
        }
        if range.start() < LOW_MEMORY_END {
            return Err(PlanError::Overlap {
                range,
                with: low_memory().unwrap_or(range),
                barrier: Barrier::LowMemory,
            });
        }
        if let Some(with) = pinned.first_overlap(range) {
            return Err(PlanError::Overlap {
                range,
                with,
                barrier: Barrier::Pinned,
            });
        }
    }
    Ok(())
}

/// The low 1 MiB.
fn low_memory() -> Option<PhysRange> {
    PhysRange::from_bounds(PhysAddr::new(0), LOW_MEMORY_END).ok()
}

fn terrain(ram: RangeSet, pinned: &RangeSet, scratch: PhysRange) -> Result<Terrain, PlanError> {
    let mut forbidden = match PhysRange::from_bounds(PhysAddr::new(0), PhysAddr::new(u64::MAX)) {
        Ok(everything) => ram.gaps(everything)?,
        Err(_) => RangeSet::new(),
    };
    for range in low_memory().into_iter().chain([scratch]) {
        forbidden.insert(range)?;
    }
    let forbidden = forbidden.union(pinned)?;
    Ok(Terrain { ram, forbidden })
}

struct Attempt<'a> {
    request: &'a PlanRequest<'a>,
    terrain: &'a Terrain,
    in_place: &'a RangeSet,
    cmdline: &'a CmdlineMemory,
    scratch: PhysRange,
    image: ImagePlacement,
}

impl Attempt<'_> {
    /// Refuses a payload that is too large for the system call.
    fn check_load_limit(&self, space: &payload::Space<'_>) -> Result<(), PlanError> {
        // `kexec_load` counts the whole pages of all segments.
        let need = self
            .request
            .image
            .copied_bytes()
            .saturating_add(space.need());
        let limit = self.request.limits.load_limit;
        if need <= limit {
            return Ok(());
        }
        Err(PlanError::LoadLimit {
            need,
            limit,
            largest: self.largest_payload(space)?,
        })
    }

    /// The largest payload, with the state, that no bound of this plan would refuse. (Slack can still do so, but
    /// a payload this large is one or a few runs.)
    fn largest_payload(&self, space: &payload::Space<'_>) -> Result<u64, OutOfMemory> {
        let bare = headroom::report(&self.headroom_input(self.in_place))?;
        let limit = self.request.limits.load_limit;
        let largest = limit
            .saturating_sub(self.request.image.copied_bytes())
            .min(space.capacity()?)
            .min(bare.free_total.saturating_sub(bare.need_total));
        Ok(largest.saturating_sub(largest.checked_rem(PAGE_SIZE).unwrap_or(0)))
    }

    fn headroom_input<'r>(&'r self, reserved: &'r RangeSet) -> HeadroomInput<'r> {
        HeadroomInput {
            ram: &self.terrain.ram,
            reserved,
            scratch: self.scratch,
            image: &self.request.image,
            cmdline: self.cmdline,
        }
    }

    fn build(&self, space: &payload::Space<'_>, order: payload::Order) -> Result<Plan, PlanError> {
        let request = self.request;
        let Some(layout) = space.place(order)? else {
            return Err(PlanError::PayloadDoesNotFit {
                need: space.need(),
                largest: self.largest_payload(space)?,
            });
        };
        let payload_set = RangeSet::from_ranges(layout.segments.iter().map(|s| s.dest))?;
        let kept = self.in_place.union(&payload_set)?;
        let cap = request.limits.max_entries;
        let mem_cache = memcache::cover_with_borders(
            &kept,
            &self.terrain.forbidden,
            request.borders,
            cap.saturating_sub(STATE_RESERVATIONS),
        )
        .map_err(|error| self.cover_error(error))?;
        let covered = mem_cache.covered()?;
        let headroom = headroom::check(&self.headroom_input(&covered))?;
        let state_entry = layout
            .pieces
            .first()
            .and_then(|state| mem_cache.entry_of(state.dest))
            .ok_or(PlanError::TooManyRanges {
                need: cap.saturating_add(1),
                cap,
            })?;
        let image_bytes = request.image.copied_bytes();
        let totals = Totals {
            image: image_bytes,
            payload: payload_set.total(),
            landed: space.landed(&payload_set)?,
            in_place: self.in_place.total(),
            slack: mem_cache.slack_bytes(),
            memory_at_load: image_bytes
                .saturating_add(payload_set.total())
                .saturating_mul(2),
            early_entries: mem_cache.entries().len().saturating_add(STATE_RESERVATIONS),
            segments: layout
                .segments
                .len()
                .saturating_add(2)
                .saturating_add(usize::from(self.image.initrd.is_some())),
        };
        Ok(Plan {
            scratch: self.scratch,
            image: self.image,
            segments: layout.segments,
            pieces: layout.pieces,
            mem_cache,
            state_entry,
            headroom,
            totals,
        })
    }

    fn cover_error(&self, error: CoverError) -> PlanError {
        match error {
            CoverError::TooMany { need, .. } => PlanError::TooManyRanges {
                need: need.saturating_add(STATE_RESERVATIONS),
                cap: self.request.limits.max_entries,
            },
            CoverError::Forbidden { kept, forbidden } => PlanError::Overlap {
                range: kept,
                with: forbidden,
                barrier: if forbidden.overlaps(self.scratch) {
                    Barrier::Scratch
                } else {
                    Barrier::Pinned
                },
            },
            CoverError::Unrepresentable { kept } => PlanError::OutsideRam {
                range: kept,
                hole: kept,
            },
            CoverError::OutOfMemory(inner) => inner.into(),
        }
    }
}

#[cfg(test)]
mod tests;
