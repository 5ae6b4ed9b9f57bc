//! The landing zone: memory of the loader at the physical addresses that are the destinations of segments.
//!
//! # Why `kexec_load` is quadratic, and how the loader makes it linear
//!
//! For every page of the image the kernel allocates a source page (`kimage_alloc_page`, `kernel/kexec_core.c`, the same
//! in 6.1, 6.12 and 7.3), and must never use as a *source* a page that is the *destination* of another page of the
//! image, because the copy at the jump would overwrite it too early. If the destinations are free memory, the allocator
//! hands out such pages. Then
//!
//! - if that destination is loaded already, the kernel searches the list of all pages from its start
//!   (`kimage_dst_used`), and swaps the pages;
//! - if it is not loaded yet, the kernel puts the page on `dest_pages`, and walks this list from its start for *every*
//!   later page.
//!
//! Both walks grow with the image: loads of 100 MB took 12 to 74 s on arm64 under TCG. If the destinations are *not
//! free*, the allocator never hands them out, the kernel does neither walk, and each page costs a comparison with at
//! most 16 segments. So the loader owns the destinations while it loads: it takes memory, reads the physical addresses
//! from `/proc/self/pagemap`, and makes these addresses the destinations. The kernel copies the segments from the same
//! memory, so the loader needs no second buffer: an image of N bytes needs N bytes here and N in the kernel, as it
//! would with any buffer. After the load the loader can free the zone: the kernel has its own copy, and the copy at the
//! jump does not depend on the owner of the destination.
//!
//! **Ranges that an earlier hop reserved need no zone**: they are outside the page allocator (PageReserved), so it
//! never hands them out. The loader uses plain buffers for them; the reuse of an old reservation costs nothing.
//!
//! Segments in **scratch** (kernel, initrd, parameters) have free destinations. The loader puts these segments *first*.
//! If the allocator hands out a scratch page later, `kimage_dst_used` finds the page among the first entries, once per
//! page. The other order would put up to all scratch pages on `dest_pages` for the whole load. The loader also keeps
//! the free part of scratch away from the allocator during the load, with [`Withheld`].
//!
//! Measured in a 2 GiB guest with 6.1 that had just booted (one CPU, instructions as time, 1 ns each):
//!
//! | load | seconds |
//! | --- | --- |
//! | 64, 128, 256, 400 MiB into a zone | 0.22, 0.44, 0.88, 1.37 |
//! | 100 MiB into a zone and 110 MiB into scratch, scratch last | 17 to 19 |
//! | the same, scratch first | 8.0 |
//! | the same, scratch first and withheld (0.44 more to draw it) | 0.67 |
//!
//! # Guarantees
//!
//! The kernel does not swap, compact or collapse hugetlb pages. It can still move them when memory goes offline, when
//! it soft-offlines a page after an error, or for a contiguous allocation (CMA). The loader locks transparent huge
//! pages and small pages (`mlock`). That keeps them in memory, but *not in place*: compaction
//! (`vm.compact_unevictable_allowed`), NUMA balancing and khugepaged may migrate them. User space cannot forbid this.
//!
//! **A page that moved costs time, not correctness.** The kernel copies the segment from the *virtual* address, which
//! stays valid when the page moves. The destination stays the planned physical address: ordinary movable RAM that the
//! planner checked against everything that must not be overwritten. This RAM is then free, or has another owner.
//! `kimage_alloc_page` handles both cases as above, and the jump ends both.
//!
//! # Cost to the system
//!
//! hugetlb pages come from the pool's free pages first, and then as *surplus* pages: the loader raises the limit
//! `nr_overcommit_hugepages` while it takes the zone, and restores the limit at once. Surplus pages return to the
//! system when they are unmapped, so even a killed process leaks no memory. If a killed process left the limit raised,
//! the next command lowers it ([`lower_after_kill`]). [`Request::reserve`] keeps the machine away from OOM: the loader
//! takes no memory that would leave less than the reserve available, the kernel's own copy included.

mod budget;
mod choose;
mod error;
mod huge;
mod knob;
mod map;
mod withhold;

use crate::sys::facts::meminfo::MemInfo;
use crate::sys::root::Root;
use budget::pool;
use choose::{Piece, choose};
use kho::{PhysAddr, PhysRange, RangeSet};
use map::Mapping;

pub use budget::{Need, slow_load};
pub use error::LandingError;
pub use huge::HUGE;
pub use knob::lower_after_kill;
pub use withhold::{DRAW_LIMIT, Withheld};

/// Bytes taken at a time. After each step the loader checks the available memory.
const STEP: u64 = 64 << 20;
/// Largest number of pieces: more would come near `vm.max_map_count` (65530 by default).
const MAX_PIECES: usize = 30_000;

/// Requirements on the zone.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Number of bytes, rounded up to whole huge pages if the memory has them.
    pub bytes: u64,
    /// Largest number of contiguous runs. Each run becomes at least one of the 16 segments.
    pub max_runs: usize,
    /// `MemAvailable` that must remain, see [`default_reserve`].
    pub reserve: u64,
    /// Memory that may be a destination: firmware RAM without scratch, the first MiB, pinned pages and all other memory
    /// that the planner excludes. The loader holds pages outside of it while it takes the zone, because the kernel
    /// would hand them out again, and returns them afterwards.
    pub allowed: &'a RangeSet,
}

/// Returns a sixteenth of `mem_total`, at least 64 MiB and at most 2 GiB, in bytes.
pub fn default_reserve(mem_total: u64) -> u64 {
    (mem_total / 16).clamp(64 << 20, 2 << 30)
}

/// Pages that back a zone, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Backing {
    /// Bytes in hugetlb pages.
    pub hugetlb: u64,
    /// Bytes in ordinary pages, and in transparent huge pages if the kernel had some.
    pub ordinary: u64,
}

/// One run: contiguous physical memory behind contiguous virtual memory.
#[derive(Debug)]
struct Run {
    range: PhysRange,
    memory: Mapping,
}

/// Memory at known physical addresses, zeroed at first. Dropping it returns the memory to the system.
#[derive(Debug)]
pub struct LandingZone {
    runs: Vec<Run>,
    set: RangeSet,
    backing: Backing,
}

/// One mapping as it was taken, with its kind of pages and its usable pieces.
struct Taken {
    mapping: Mapping,
    hugetlb: bool,
    pieces: Vec<Piece>,
}

impl LandingZone {
    /// Takes memory.
    ///
    /// # Errors
    ///
    /// [`LandingError`]. In that case all memory has been returned to the system.
    pub fn take(root: &Root, request: &Request<'_>) -> Result<Self, LandingError> {
        let available = Need {
            zone: request.bytes,
            reserve: request.reserve,
            ..Need::default()
        }
        .check(root)?;
        // In search of longer runs the loader takes as much memory as the kernel will take for its copy afterwards, so
        // the search costs the machine no more page cache than the load itself. Memory that is not allowed, such as
        // scratch on a machine that has just booted, comes on top: the loader returns it before the copy.
        let accept = request.bytes.saturating_mul(2).saturating_add(STEP);
        let mut taker = Taker::new(root, request, u64::MAX, available);
        let runs = taker.take_enough(accept)?;
        let taken = core::mem::take(&mut taker.taken);
        drop(taker); // restores the limit
        assemble(taken, &runs)
    }

    /// Returns the physical ranges, sorted. Together they have at least the number of bytes in the request.
    pub fn runs(&self) -> &RangeSet {
        &self.set
    }

    /// Returns the pages that back the runs, by kind.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Returns the memory of every run, with its physical range. The caller writes the content of the segment with this
    /// destination into it.
    pub fn memory_mut(&mut self) -> impl Iterator<Item = (PhysRange, &mut [u8])> {
        let runs = self.runs.iter_mut();
        runs.map(|run| (run.range, run.memory.bytes_mut()))
    }
}

struct Taker<'a> {
    root: &'a Root,
    request: &'a Request<'a>,
    taken: Vec<Taken>,
    /// Bytes taken in all; at most `draw_limit`.
    drawn: u64,
    draw_limit: u64,
    /// Number of free bytes in the pool of huge pages. `MemAvailable` does not count them.
    pool: u64,
    /// Bytes taken in memory that the request allows.
    accepted: u64,
    step: u64,
    knob: Option<knob::Overcommit>,
}

impl<'a> Taker<'a> {
    /// Makes a taker that has taken no memory yet and will take at most `draw_limit` bytes. `available` is the present
    /// `MemAvailable`.
    fn new(root: &'a Root, request: &'a Request<'a>, draw_limit: u64, available: u64) -> Self {
        let most = draw_limit.min(available.saturating_sub(request.reserve));
        Self {
            root,
            request,
            taken: Vec::new(),
            drawn: 0,
            pool: pool(root),
            draw_limit,
            accepted: 0,
            step: STEP,
            knob: knob::Overcommit::raise(root, most.div_ceil(HUGE)),
        }
    }

    /// Takes memory until few enough runs are long enough, and returns these runs. Stops if there are more than
    /// `accept` bytes to choose from, or if no memory is left to take.
    fn take_enough(&mut self, accept: u64) -> Result<RangeSet, LandingError> {
        let want = self
            .request
            .bytes
            .checked_next_multiple_of(HUGE)
            .unwrap_or(u64::MAX);
        let mut goal = want;
        loop {
            while self.accepted < goal && self.take_one()? {}
            let pieces = self.taken.iter().flat_map(|t| &t.pieces);
            let all = RangeSet::from_ranges(pieces.map(|p| p.phys))?;
            let (runs, covered) = choose(&all, self.request.bytes, self.request.max_runs)?;
            if covered >= self.request.bytes {
                return Ok(runs);
            }
            if self.accepted < goal || goal >= accept {
                return Err(LandingError::Fragmented {
                    bytes: self.request.bytes,
                    covered,
                    max_runs: self.request.max_runs,
                });
            }
            goal = self
                .accepted
                .saturating_add((want / 8).max(STEP))
                .min(accept);
        }
    }

    /// Takes one more mapping; `false` if the limit is reached.
    fn take_one(&mut self) -> Result<bool, LandingError> {
        let available = MemInfo::read(self.root)?.available;
        let spare = available.saturating_sub(self.request.reserve);
        let limit = self.draw_limit.saturating_sub(self.drawn);
        let room = spare.min(limit);
        if self.knob.is_some() {
            // The kernel takes pages of the pool first (`hugetlb_acct_memory`, `mm/hugetlb.c`).
            let bytes = self.step.min(spare.saturating_add(self.pool)).min(limit) / HUGE * HUGE;
            match Mapping::hugetlb(bytes) {
                Ok(mapping) => {
                    self.pool = self.pool.saturating_sub(bytes);
                    return self.keep(mapping, true).map(|()| true);
                }
                Err(_) if bytes > HUGE => {
                    // The kernel gives all pages of a mapping or none: ask for fewer.
                    self.step = (bytes / 2).max(HUGE);
                    return Ok(true);
                }
                // The kernel has no huge page left, or no hugetlb.
                Err(_) => {
                    self.knob = None;
                    self.step = STEP;
                }
            }
        }
        let bytes = self.step.min(room) / HUGE * HUGE;
        if bytes == 0 {
            return Ok(false);
        }
        let mapping = Mapping::ordinary(bytes)?;
        self.keep(mapping, false)?;
        Ok(true)
    }

    fn keep(&mut self, mapping: Mapping, hugetlb: bool) -> Result<(), LandingError> {
        let unit = if hugetlb { HUGE } else { kho::PAGE_SIZE };
        let mut pieces = Vec::new();
        for (offset, phys) in map::locate(self.root, &mapping)? {
            choose::usable(offset, phys, unit, self.request.allowed, &mut pieces)?;
        }
        self.drawn = self.drawn.saturating_add(mapping.len() as u64);
        let accepted: u64 = pieces.iter().map(|p| p.phys.len()).sum();
        self.accepted = self.accepted.saturating_add(accepted);
        self.taken.push(Taken {
            mapping,
            hugetlb,
            pieces,
        });
        Ok(())
    }
}

/// Moves the chosen pages behind contiguous virtual memory and returns the rest to the system.
fn assemble(taken: Vec<Taken>, chosen: &RangeSet) -> Result<LandingZone, LandingError> {
    let mut runs = Vec::new();
    for range in chosen.iter() {
        runs.push(Run {
            range,
            memory: Mapping::window(range)?,
        });
    }
    let mut backing = Backing::default();
    let mut cuts_of = Vec::with_capacity(taken.len());
    let mut count = 0usize;
    for one in &taken {
        let cuts = choose::cuts(&one.pieces, chosen);
        count = count.saturating_add(cuts.len());
        let bytes: u64 = cuts.iter().map(|c| c.phys.len()).sum();
        *(if one.hugetlb {
            &mut backing.hugetlb
        } else {
            &mut backing.ordinary
        }) += bytes;
        cuts_of.push(cuts);
    }
    if count > MAX_PIECES {
        return Err(LandingError::Fragmented {
            bytes: chosen.total(),
            covered: 0,
            max_runs: chosen.len(),
        });
    }
    for (one, cuts) in taken.into_iter().zip(cuts_of) {
        let mut rest = one.mapping;
        let mut gone = 0usize;
        for cut in cuts {
            // The pieces are in the order of their offsets: cut off the memory before the piece, then the piece.
            let (before, from) = rest.split(cut.offset - gone);
            drop(before);
            let len = usize::try_from(cut.phys.len()).unwrap_or(usize::MAX);
            let (piece, after) = from.split(len);
            gone = cut.offset + len;
            rest = after;
            let Some(run) = runs.iter_mut().find(|r| r.range.contains_range(cut.phys)) else {
                continue; // not reachable: a cut is inside a chosen run
            };
            let at = cut.phys.start().offset_from(run.range.start()).unwrap_or(0);
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            run.memory.accept(at, piece)?;
        }
    }
    for run in &runs {
        run.memory.lock()?;
    }
    Ok(LandingZone {
        runs,
        set: chosen.try_clone()?,
        backing,
    })
}

/// Returns the first MiB, in which no segment is ever placed.
pub fn low_memory() -> Option<PhysRange> {
    PhysRange::from_bounds(PhysAddr::new(0), PhysAddr::new(1 << 20)).ok()
}

#[cfg(test)]
mod tests;
