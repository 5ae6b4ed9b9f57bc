//! The places of the state segment and of the blobs.
//!
//! The planner lays them out as one stream of whole pages, the state first, over as few runs of free memory as
//! possible: every run becomes one `kexec_load` segment, and the number of segments is small. A blob may be split
//! between runs at any page; the state may not.

use super::error::PlanError;
use super::request::PlanRequest;
use super::terrain::Terrain;
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::headroom::CmdlineMemory;
use crate::image::FOUR_GIB;
use crate::ranges::{OutOfMemory, RangeSet, push};
use alloc::vec::Vec;

/// Content of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// The state segment: chain and tree.
    State,
    /// A part of a blob.
    Blob {
        /// Index of the blob in the request.
        index: usize,
        /// Offset of the piece in the blob, in bytes; a multiple of the page size.
        offset: u64,
    },
}

/// A contiguous part of the state or of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Content of the piece.
    pub content: Content,
    /// Bytes of content. The rest of the last page is to be zero.
    pub len: u64,
    /// Destination of the piece: whole pages.
    pub dest: PhysRange,
    /// Index of the segment that `dest` lies in.
    pub segment: usize,
    /// Offset of the piece in that segment, in bytes; a multiple of the page size.
    pub segment_offset: u64,
}

/// A `kexec_load` segment outside scratch. Its buffer is the concatenation of its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadSegment {
    /// Destination of the segment: whole pages, all of them filled with pieces.
    pub dest: PhysRange,
}

/// Order of preference among the free memory.
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
    /// All orders of preference, in the order in which the planner tries them.
    pub(super) const ALL: [Self; 3] = [Self::LandingFirst, Self::HighFirst, Self::FewestRuns];
}

/// A part of the address space.
#[derive(Clone, Copy)]
enum Zone {
    /// From 4 GiB on.
    High,
    /// Below 4 GiB.
    Low,
    /// Everything.
    Any,
}

impl Zone {
    /// The part of `range` in this zone.
    fn clip(self, range: PhysRange) -> Option<PhysRange> {
        match self {
            Self::High => PhysRange::from_bounds(range.start().max(FOUR_GIB), range.end()).ok(),
            Self::Low => PhysRange::from_bounds(range.start(), range.end().min(FOUR_GIB)).ok(),
            Self::Any => Some(range),
        }
    }
}

/// Memory of one degree of preference.
#[derive(Clone, Copy)]
struct Tier<'a> {
    set: &'a RangeSet,
    zone: Zone,
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

/// End of the ISA DMA zone, which is small enough to leave alone.
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
        // Both operands are whole pages afterwards. Rounding the few ranges first avoids a copy of the many.
        let allowed = terrain
            .ram
            .align_inner(PAGE_SIZE)?
            .subtract(&terrain.forbidden.page_outer()?)?
            .subtract(in_place)?;
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
        let mut rest = if landing.is_empty() {
            allowed
        } else {
            allowed.subtract(&landing)?
        };
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

    /// Most bytes that fit in any order of preference: the sum of the largest runs of all the memory.
    pub(super) fn capacity(&self) -> Result<u64, OutOfMemory> {
        let mut all = RangeSet::new();
        for tier in &self.tiers {
            all = all.union(tier)?;
        }
        let all = Tier {
            set: &all,
            zone: Zone::Any,
        };
        let mut taken = Vec::new();
        let mut sum = 0u64;
        while taken.len() < self.max_segments() {
            let Some(run) = self.pick(all, &taken, u64::MAX) else {
                break;
            };
            if taken.is_empty() && run.len() < self.state {
                break;
            }
            sum = sum.saturating_add(run.len());
            push(&mut taken, run)?;
        }
        Ok(sum)
    }

    /// Bytes of `placed` that lie in a landing zone.
    pub(super) fn landed(&self, placed: &RangeSet) -> Result<u64, OutOfMemory> {
        Ok(placed.intersect(&self.landing)?.total())
    }

    fn max_segments(&self) -> usize {
        self.request.limits.max_payload_segments
    }

    /// The run of `tier` to take next for `len` bytes: the smallest that holds them, or else the largest;
    /// of equals the lowest. Runs are cut at the zone's end; those in `taken` do not count.
    ///
    /// A scan rather than a sorted list, because few runs are taken and there may be very many.
    fn pick(&self, tier: Tier<'_>, taken: &[PhysRange], len: u64) -> Option<PhysRange> {
        let mut best: Option<PhysRange> = None;
        let mut consider = |run: PhysRange| {
            let better = best.is_none_or(|b| match (b.len() >= len, run.len() >= len) {
                (false, false) => run.len() > b.len(),
                (false, true) => true,
                (true, false) => false,
                (true, true) => run.len() < b.len(),
            });
            if better && !taken.contains(&run) {
                best = Some(run);
            }
        };
        for range in tier.set.iter() {
            if let Some(run) = tier.zone.clip(range) {
                consider(run);
            }
        }
        best
    }

    /// The tiers in the given order of preference, cut at 4 GiB.
    fn ordered(&self, order: Order) -> Result<Vec<Tier<'_>>, OutOfMemory> {
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for set in &self.tiers {
            let high = Zone::High;
            push(&mut first, Tier { set, zone: high })?;
            let low = Tier {
                set,
                zone: Zone::Low,
            };
            match order {
                Order::LandingFirst => push(&mut first, low)?,
                Order::HighFirst | Order::FewestRuns => push(&mut last, low)?,
            }
        }
        for tier in last {
            push(&mut first, tier)?;
        }
        Ok(first)
    }

    /// Places state and blobs; `None` if they do not fit.
    pub(super) fn place(&self, order: Order) -> Result<Option<Layout>, OutOfMemory> {
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
            Some(runs) => Ok(Some(self.lay_out(&runs)?)),
            None => Ok(None),
        }
    }

    /// Runs from the most preferred tiers; the first one is for the state. `None` if that takes too many.
    fn by_preference(&self, tiers: &[Tier<'_>]) -> Result<Option<Vec<PhysRange>>, OutOfMemory> {
        // The state needs one whole run: it comes from the first tier that has a run of that length.
        let first = tiers.iter().find_map(|tier| {
            self.pick(*tier, &[], self.need)
                .filter(|run| run.len() >= self.state)
        });
        let mut chosen = Vec::new();
        let mut open = self.need;
        if let Some(run) = first {
            open = open.saturating_sub(run.len());
            push(&mut chosen, run)?;
        }
        for tier in tiers {
            self.take(*tier, &mut chosen, &mut open)?;
        }
        Ok(self.enough(chosen, open))
    }

    /// The largest runs of as few tiers as suffice, joined where they touch.
    fn fewest(&self, tiers: &[Tier<'_>]) -> Result<Option<Vec<PhysRange>>, OutOfMemory> {
        let mut joined = RangeSet::new();
        for tier in tiers {
            let clipped = tier.set.iter().filter_map(|r| tier.zone.clip(r));
            joined = joined.union(&RangeSet::from_ranges(clipped)?)?;
            let all = Tier {
                set: &joined,
                zone: Zone::Any,
            };
            let (mut chosen, mut open) = (Vec::new(), self.need);
            self.take(all, &mut chosen, &mut open)?;
            if let Some(chosen) = self.enough(chosen, open) {
                return Ok(Some(chosen));
            }
        }
        Ok(None)
    }

    /// Takes runs from `tier` until `open` is 0 or the number of runs reaches the limit.
    fn take(
        &self,
        tier: Tier<'_>,
        chosen: &mut Vec<PhysRange>,
        open: &mut u64,
    ) -> Result<(), OutOfMemory> {
        while *open > 0 && chosen.len() < self.max_segments() {
            let Some(run) = self.pick(tier, chosen, *open) else {
                break;
            };
            *open = open.saturating_sub(run.len());
            push(chosen, run)?;
        }
        Ok(())
    }

    /// Returns `chosen` if `open` is 0, the number of runs is within the limit, and the first run holds the state.
    fn enough(&self, chosen: Vec<PhysRange>, open: u64) -> Option<Vec<PhysRange>> {
        let fits = open == 0
            && chosen.len() <= self.max_segments()
            && chosen.first().is_some_and(|r| r.len() >= self.state);
        fits.then_some(chosen)
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
        // Pieces that touch become one segment, also if they belong to different runs.
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

/// `len` rounded up to whole pages.
fn whole_pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE_SIZE)
}
