//! Where the state segment and the blobs go.
//!
//! They are laid out as one stream of whole pages, the state first, over as few runs of free memory as
//! possible: every run becomes one `kexec_load` segment, and there are few of those. A blob may be split
//! between runs at any page; the state may not.

use super::{FOUR_GIB, PlanError, PlanRequest, Terrain};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::headroom::CmdlineMemory;
use crate::ranges::{OutOfMemory, RangeSet, push};
use alloc::vec::Vec;
use core::cmp::Reverse;

/// What a piece holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// The state segment: chain and tree.
    State,
    /// A part of a blob.
    Blob {
        /// Index of the blob in the request.
        index: usize,
        /// Where in the blob the piece begins, in bytes; a multiple of the page size.
        offset: u64,
    },
}

/// A contiguous part of the state or of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it holds.
    pub content: Content,
    /// Bytes of content. The rest of the last page is to be zero.
    pub len: u64,
    /// Its destination: whole pages.
    pub dest: PhysRange,
    /// Index of the segment that `dest` lies in.
    pub segment: usize,
    /// Where in that segment it begins, in bytes; a multiple of the page size.
    pub segment_offset: u64,
}

/// A `kexec_load` segment outside scratch. Its buffer is the concatenation of its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadSegment {
    /// Where it goes: whole pages, all of them filled with pieces.
    pub dest: PhysRange,
}

/// Which memory to prefer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Every landing zone before any other memory.
    LandingFirst,
    /// All memory above 4 GiB before any below.
    HighFirst,
    /// As few runs as possible, landing zones or not.
    FewestRuns,
}

impl Order {
    /// In the order in which they are tried.
    pub(super) const ALL: [Self; 3] = [Self::LandingFirst, Self::HighFirst, Self::FewestRuns];
}

/// Segments and pieces of a placed payload.
pub(super) struct Layout {
    pub(super) segments: Vec<PayloadSegment>,
    pub(super) pieces: Vec<Piece>,
}

/// The memory where the payload may go.
pub(super) struct Space<'a> {
    request: &'a PlanRequest<'a>,
    /// The landing zones, in order, then the rest of RAM; disjoint.
    tiers: Vec<RangeSet>,
    /// All landing zones together.
    landing: RangeSet,
    state: u64,
    need: u64,
}

/// Below this is the ISA DMA zone, which is small enough to leave alone.
const ISA_DMA_END: PhysAddr = PhysAddr::new(16 << 20);

impl<'a> Space<'a> {
    pub(super) fn new(
        request: &'a PlanRequest<'a>,
        terrain: &Terrain,
        in_place: &RangeSet,
        cmdline: &CmdlineMemory,
    ) -> Result<Self, PlanError> {
        let state = whole_pages(request.payload.state);
        let need = request
            .payload
            .blobs
            .iter()
            .try_fold(state.unwrap_or(0), |sum, len| {
                sum.checked_add(whole_pages(*len)?)
            });
        let (Some(state @ 1..), Some(need)) = (state, need) else {
            return Err(PlanError::BadPayload {
                state: request.payload.state,
                blobs: request.payload.blobs.len(),
            });
        };
        let allowed = terrain
            .ram
            .subtract(&terrain.forbidden)?
            .subtract(in_place)?
            .align_inner(PAGE_SIZE)?;
        let mut tiers = Vec::new();
        let mut landing = RangeSet::new();
        for zone in request.landing {
            let usable = zone
                .intersect(&allowed)?
                .align_inner(PAGE_SIZE)?
                .subtract(&landing)?;
            landing = landing.union(&usable)?;
            push(&mut tiers, usable)?;
        }
        let mut rest = allowed.subtract(&landing)?;
        let crash_kernel = cmdline
            .crash_at
            .and_then(|at| PhysRange::new(at, cmdline.crash).ok())
            .and_then(PhysRange::page_outer);
        let isa_dma = PhysRange::from_bounds(PhysAddr::new(0), ISA_DMA_END).ok();
        for avoid in crash_kernel.into_iter().chain(isa_dma) {
            rest.remove(avoid)?;
        }
        push(&mut tiers, rest)?;
        Ok(Self {
            request,
            tiers,
            landing,
            state,
            need,
        })
    }

    /// Bytes of state and blobs, in whole pages.
    pub(super) fn need(&self) -> u64 {
        self.need
    }

    /// The most that fits, whatever the order: what the largest runs of all the memory hold.
    pub(super) fn capacity(&self) -> Result<u64, OutOfMemory> {
        let mut all = RangeSet::new();
        for tier in &self.tiers {
            all = all.union(tier)?;
        }
        let runs = self.runs(&all)?;
        if runs.first().is_none_or(|r| r.len() < self.state) {
            return Ok(0);
        }
        Ok(runs
            .iter()
            .take(self.max_segments())
            .fold(0, |sum, r| sum.saturating_add(r.len())))
    }

    /// Bytes of `placed` that lie in a landing zone.
    pub(super) fn landed(&self, placed: &RangeSet) -> Result<u64, OutOfMemory> {
        Ok(placed.intersect(&self.landing)?.total())
    }

    fn max_segments(&self) -> usize {
        self.request.limits.max_payload_segments
    }

    /// The runs of `set`, cut at node borders, largest first.
    fn runs(&self, set: &RangeSet) -> Result<Vec<PhysRange>, OutOfMemory> {
        let mut runs = Vec::new();
        for range in set.iter() {
            push(&mut runs, range)?;
        }
        for border in self.request.borders.iter().copied() {
            let Some(border) = border.align_down(PAGE_SIZE) else {
                continue;
            };
            let crossed = runs
                .iter()
                .position(|r: &PhysRange| r.start() < border && border < r.end());
            if let Some(slot) = crossed.and_then(|i| runs.get_mut(i))
                && let Some(below) = border.offset_from(slot.start())
                && let Some((first, second)) = slot.split_at(below)
            {
                *slot = first;
                push(&mut runs, second)?;
            }
        }
        runs.sort_unstable_by_key(|r| (Reverse(r.len()), r.start()));
        Ok(runs)
    }

    /// The tiers in the given order of preference, cut at 4 GiB.
    fn ordered(&self, order: Order) -> Result<Vec<RangeSet>, OutOfMemory> {
        let low = RangeSet::from_ranges(PhysRange::from_bounds(PhysAddr::new(0), FOUR_GIB).ok())?;
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for tier in &self.tiers {
            push(&mut first, tier.subtract(&low)?)?;
            let below = tier.intersect(&low)?;
            match order {
                Order::LandingFirst => push(&mut first, below)?,
                Order::HighFirst | Order::FewestRuns => push(&mut last, below)?,
            }
        }
        for tier in last {
            push(&mut first, tier)?;
        }
        Ok(first)
    }

    /// Places state and blobs.
    pub(super) fn place(&self, order: Order) -> Result<Layout, PlanError> {
        let tiers = self.ordered(order)?;
        let preferred = match order {
            Order::LandingFirst | Order::HighFirst => self.by_preference(&tiers)?,
            Order::FewestRuns => None,
        };
        let runs = match preferred {
            Some(runs) => Some(runs),
            None => self.fewest(&tiers)?,
        };
        match runs {
            Some(runs) => Ok(self.lay_out(&runs)?),
            None => Err(PlanError::PayloadDoesNotFit {
                need: self.need,
                largest: self.capacity()?,
            }),
        }
    }

    /// Runs from the most preferred tiers; the first one is for the state. `None` if that takes too many.
    fn by_preference(&self, tiers: &[RangeSet]) -> Result<Option<Vec<PhysRange>>, OutOfMemory> {
        let mut lists = Vec::new();
        for tier in tiers {
            push(&mut lists, self.runs(tier)?)?;
        }
        let mut chosen = Vec::new();
        let mut open = self.need;
        // The state needs one whole run: from the first tier that has one large enough.
        if let Some(list) = lists
            .iter_mut()
            .find(|l| l.first().is_some_and(|r| r.len() >= self.state))
            && let Some(run) = take_best(list, open)
        {
            open = open.saturating_sub(run.len());
            push(&mut chosen, run)?;
        } else {
            return Ok(None);
        }
        for list in &mut lists {
            while open > 0 && chosen.len() < self.max_segments() {
                let Some(run) = take_best(list, open) else {
                    break;
                };
                open = open.saturating_sub(run.len());
                push(&mut chosen, run)?;
            }
        }
        Ok((open == 0 && chosen.len() <= self.max_segments()).then_some(chosen))
    }

    /// The largest runs of as few tiers as suffice, joined where they touch.
    fn fewest(&self, tiers: &[RangeSet]) -> Result<Option<Vec<PhysRange>>, OutOfMemory> {
        let mut joined = RangeSet::new();
        for tier in tiers {
            joined = joined.union(tier)?;
            let mut list = self.runs(&joined)?;
            let mut chosen: Vec<PhysRange> = Vec::new();
            let mut open = self.need;
            while open > 0 && chosen.len() < self.max_segments() {
                let Some(run) = take_best(&mut list, open) else {
                    break;
                };
                open = open.saturating_sub(run.len());
                push(&mut chosen, run)?;
            }
            if open == 0 && chosen.first().is_some_and(|r| r.len() >= self.state) {
                return Ok(Some(chosen));
            }
        }
        Ok(None)
    }

    /// Fills `runs` in order. The first is large enough for the state.
    fn lay_out(&self, runs: &[PhysRange]) -> Result<Layout, OutOfMemory> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut used: Vec<PhysRange> = Vec::new();
        let mut runs = runs.iter().copied();
        let mut free = runs.next();
        let state = core::iter::once((None, self.request.payload.state));
        let blobs = self.request.payload.blobs.iter().copied().enumerate();
        for (blob, total) in state.chain(blobs.map(|(i, len)| (Some(i), len))) {
            let mut offset = 0u64;
            while offset < total {
                let Some(run) = free else { break };
                let left = total.saturating_sub(offset);
                let len = left.min(run.len());
                let (dest, rest) = match run.split_at(whole_pages(len).unwrap_or(run.len())) {
                    Some((dest, rest)) => (dest, Some(rest)),
                    None => (run, None),
                };
                let content = match blob {
                    None => Content::State,
                    Some(index) => Content::Blob { index, offset },
                };
                push(
                    &mut pieces,
                    Piece {
                        content,
                        len,
                        dest,
                        segment: 0,
                        segment_offset: 0,
                    },
                )?;
                push(&mut used, dest)?;
                offset = offset.saturating_add(len);
                free = rest.or_else(|| runs.next());
            }
        }
        let mut segments = Vec::new();
        // Joins pieces that touch, also those of different runs.
        for dest in RangeSet::from_ranges(used)?.iter() {
            push(&mut segments, PayloadSegment { dest })?;
        }
        for piece in &mut pieces {
            let index =
                segments.partition_point(|s: &PayloadSegment| s.dest.end() <= piece.dest.start());
            if let Some(segment) = segments.get(index) {
                piece.segment = index;
                piece.segment_offset = piece
                    .dest
                    .start()
                    .offset_from(segment.dest.start())
                    .unwrap_or(0);
            }
        }
        Ok(Layout { segments, pieces })
    }
}

/// Takes from `runs` (largest first) the smallest run that holds `len` bytes, or else the largest.
fn take_best(runs: &mut Vec<PhysRange>, len: u64) -> Option<PhysRange> {
    let enough = runs.partition_point(|r| r.len() >= len);
    let index = enough.saturating_sub(1);
    (index < runs.len()).then(|| runs.remove(index))
}

/// `len` rounded up to whole pages.
fn whole_pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE_SIZE)
}
