//! The landing zone: memory of ours at the physical addresses where segments will land.
//!
//! # Why `kexec_load` is quadratic, and what makes it linear
//!
//! For every page of the image the kernel allocates a source page (`kimage_alloc_page`,
//! `kernel/kexec_core.c`, the same in 6.1, 6.12 and 7.3), and must never use as a *source* a page that is the
//! *destination* of another page of the image, because the copy at the jump would overwrite it too early.
//! When the allocator hands out such a page, which it does as long as destinations are free memory,
//!
//! - and that destination was loaded already, the kernel looks for its entry from the start of the list of
//!   all pages (`kimage_dst_used`) and swaps;
//! - and it was not loaded yet, the page is put on `dest_pages`, a list that is walked from the start for
//!   *every* later page.
//!
//! Both walks grow with the image: loads of 100 MB took 12 to 74 s on arm64 under TCG. When the destinations
//! are *not free* the allocator never hands them out, neither happens, and a page costs a look at the at most
//! 16 segments. So the loader owns the destinations while it loads: it takes memory, asks `/proc/self/pagemap`
//! where it is, and makes these addresses the destinations. The same memory is the buffer that the kernel
//! copies the segments from, so nothing is held twice: an image of N bytes needs N here and N in the kernel,
//! as it would with any buffer. After the load the zone can go: the kernel has its own copy, and the copy at
//! the jump does not ask who owns the destination.
//!
//! **Ranges that an earlier hop reserved need no zone**: they are outside the page allocator (PageReserved),
//! so they are owned already. Plain buffers do for these; reusing an old reservation costs nothing.
//!
//! Segments in **scratch** (kernel, initrd, parameters) have free destinations. Put these segments *first*: a scratch
//! page that the allocator hands out later is then found by `kimage_dst_used` among the first entries, once per page,
//! while the other order puts up to all of them on `dest_pages` for the whole load. And keep the free part of scratch
//! away from the allocator meanwhile, with [`Withheld`].
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
//! # What is guaranteed
//!
//! hugetlb pages are not swapped, compacted or collapsed; they can still move when memory is taken offline,
//! soft-offlined after an error, or wanted by a contiguous allocation (CMA). Transparent huge pages and
//! small pages are locked (`mlock`), which keeps them in memory and *not in place*: compaction
//! (`vm.compact_unevictable_allowed`), NUMA balancing and khugepaged may migrate them. Nothing in user space
//! can forbid this.
//!
//! **A page that moved costs time, not correctness.** The kernel copies the segment from the *virtual* address, which
//! is right wherever the page is. The destination stays the planned physical address, which is ordinary movable RAM
//! that was checked against everything that must not be overwritten; it is merely free again, or another owner's, and
//! both are handled by `kimage_alloc_page` as above and end with the jump anyway.
//!
//! # What it costs the system
//!
//! hugetlb pages come from the pool's free pages first and then as *surplus* pages: the limit
//! `nr_overcommit_hugepages` is raised while the zone is taken and restored at once. Surplus pages go back to
//! the system when unmapped, so even a killed process leaves no memory behind; a limit that it left raised is
//! lowered by the next command ([`lower_after_kill`]). A limit
//! ([`Request::reserve`]) keeps the machine away from OOM: nothing is taken that would leave less available,
//! and the kernel's own copy is counted.

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

/// Bytes taken at a time, so that the available memory is looked at often enough.
const STEP: u64 = 64 << 20;
/// Most pieces: more would come near `vm.max_map_count` (65530 by default).
const MAX_PIECES: usize = 30_000;

/// Requirements on the zone.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Bytes in all; rounded up to whole huge pages where the memory has them.
    pub bytes: u64,
    /// At most this many contiguous runs: each becomes at least one of the 16 segments.
    pub max_runs: usize,
    /// `MemAvailable` that must remain, see [`default_reserve`].
    pub reserve: u64,
    /// Memory in which segments may land: firmware RAM without scratch, the first MiB, pinned pages and all other
    /// memory that the planner excludes. Pages outside are held while the zone is taken (or they would be handed out
    /// again) and then returned.
    pub allowed: &'a RangeSet,
}

/// Returns a sixteenth of memory, at least 64 MiB and at most 2 GiB.
pub fn default_reserve(mem_total: u64) -> u64 {
    (mem_total / 16).clamp(64 << 20, 2 << 30)
}

/// Pages that back a zone, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Backing {
    /// Bytes in hugetlb pages.
    pub hugetlb: u64,
    /// Bytes in ordinary pages, transparent huge ones where the kernel had some.
    pub ordinary: u64,
}

/// One run: contiguous physical memory behind contiguous virtual memory.
#[derive(Debug)]
struct Run {
    range: PhysRange,
    memory: Mapping,
}

/// Memory at known physical addresses. Zeroed at first. Given back when dropped.
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
    /// [`LandingError`]; everything that was taken is given back then.
    pub fn take(root: &Root, request: &Request<'_>) -> Result<Self, LandingError> {
        let available = Need {
            zone: request.bytes,
            reserve: request.reserve,
            ..Need::default()
        }
        .check(root)?;
        // In search of longer runs as much is taken as the kernel will take for its copy afterwards, so the
        // machine loses no more page cache than to the load itself. What turns out not to be allowed, such as
        // scratch on a machine that has just booted, comes on top: it is given back before the copy.
        let accept = request.bytes.saturating_mul(2).saturating_add(STEP);
        let mut taker = Taker::new(root, request, u64::MAX, available);
        let runs = taker.take_enough(accept)?;
        let taken = core::mem::take(&mut taker.taken);
        drop(taker); // restores the knob
        assemble(taken, &runs)
    }

    /// Returns the physical ranges, sorted. Together they have at least the bytes that were asked for.
    pub fn runs(&self) -> &RangeSet {
        &self.set
    }

    /// Returns the pages that back the runs, by kind.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    /// Returns the memory of every run, with its physical range: the bytes written here are those that a segment with
    /// this destination brings.
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
    /// Bytes of the pool of huge pages that are free: they are not in `MemAvailable`.
    pool: u64,
    /// Bytes taken that lie where the request allows.
    accepted: u64,
    step: u64,
    knob: Option<knob::Overcommit>,
}

impl<'a> Taker<'a> {
    /// Makes a taker that has taken nothing yet and takes at most `draw_limit` bytes later. `available` is
    /// `MemAvailable` now.
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

    /// Takes memory until few enough runs are long enough, and returns these runs. Gives up if there are more than
    /// `accept` bytes to choose from, or no more memory.
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

    /// Takes one more mapping; `false` at the limit.
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
                    // The kernel gives all pages of a mapping or none: ask for less.
                    self.step = (bytes / 2).max(HUGE);
                    return Ok(true);
                }
                // No huge page left to be had, or no hugetlb in this kernel.
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

/// Moves the chosen pages behind contiguous virtual memory and gives the rest back.
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
            // Pieces are in the order of their offsets: cut off what is before, then the piece.
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

/// Returns the first MiB, in which nothing ever lands.
pub fn low_memory() -> Option<PhysRange> {
    PhysRange::from_bounds(PhysAddr::new(0), PhysAddr::new(1 << 20)).ok()
}

#[cfg(test)]
mod tests;
