//! The plan: the places of everything at one hop, or the reason why the hop must not happen.
//!
//! [`plan`] takes a description of the machine and of the content to be handed over. It decides the places of the
//! kernel, the initrd and the boot parameters (inside scratch) and of the state segment and the blobs (outside), and
//! the mem cache that covers everything that is kept. Rather than plan a boot onto handed-over memory it refuses, with
//! one [`PlanError`] variant per reason.
//!
//! [`Plan::check_invariants`] derives every safety property again from the finished plan and the request, and shares no
//! code with the planner. A loader calls it right before the system call.

mod error;
mod payload;
mod request;
mod terrain;
mod verify;

pub use error::{Barrier, PlanError};
pub use payload::{Content, PayloadSegment, Piece};
pub use request::{Limits, PayloadNeeds, PlanRequest, STATE_RESERVATIONS, ScratchSource};
pub use verify::Violation;

use crate::addr::{PAGE_SIZE, PhysRange};
use crate::headroom::{self, CmdlineMemory, HeadroomInput, HeadroomReport};
use crate::image::{ImagePlacement, place_image};
use crate::memcache::{self, CoverError, MemCache};
use crate::ranges::{OutOfMemory, RangeSet};
use crate::scratch::{self, ScratchRequest};
use alloc::vec::Vec;
use terrain::{Terrain, check_kept};

/// Sums over a plan, in bytes unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    /// Copied into scratch: kernel, initrd, parameters, in whole pages.
    pub image: u64,
    /// Copied outside scratch: state and blobs, in whole pages.
    pub payload: u64,
    /// Part of `payload` that lies in a landing zone. The rest lands in busy memory, which loads slowly.
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
    /// Places of the image's parts inside scratch.
    pub image: ImagePlacement,
    /// The `kexec_load` segments of state and blobs, sorted by address.
    pub segments: Vec<PayloadSegment>,
    /// Content of those segments: the state first, then every blob's pieces in order.
    pub pieces: Vec<Piece>,
    /// Ranges that the next kernel reserves.
    pub mem_cache: MemCache,
    /// Index of the mem-cache entry that holds the state segment.
    pub state_entry: usize,
    /// Memory that the next kernel needs, and memory that it finds free.
    pub headroom: HeadroomReport,
    /// Sums over the plan.
    pub totals: Totals,
}

impl Plan {
    /// Destination of the state segment.
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
    let terrain = Terrain::new(ram, request.pinned, scratch)?;
    let space = payload::Space::new(request, &terrain, &in_place, &cmdline)?;

    // Landing zones first. If that leaves too little memory or takes too many ranges, the planner prefers high memory,
    // and then as few runs as possible. If all orders fail, it reports the error of the first order.
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

    /// The largest payload, state included, that no bound of this plan would refuse. (Slack may still exceed a bound,
    /// but a payload this large is one or a few runs.)
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
            user_space: self.request.user_space,
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
        let mem_cache = memcache::cover(
            &kept,
            &self.terrain.forbidden,
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
