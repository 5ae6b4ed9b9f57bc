//! The late block of this machine: a load that kho.ko completes before the jump.
//!
//! `kho load --late` leaves drivers and khofs at work. The image that it loads names two pages, the late block
//! ([`kho::abi::late`]), and [`Phase`](crate::phase::Phase) writes into them what the active phase hands over, as the
//! last step before the jump.
//!
//! | step | by | on failure |
//! | --- | --- | --- |
//! | *prepare*: allocate the block, once; draw the nonce of the next load | `kho load --late` | nothing changed |
//! | *arm*: take the bounds of the load, and plan once with what the drivers keep now | the same, after it unloaded the old image | not armed |
//! | `kexec_load` | the same | *disarm* |
//! | *publish*: enter the active phase, plan the late mem cache, write the block, store its first eight bytes | `kho exec`, or the reboot notifier | empty block, drivers thaw, no reboot (the notifier cannot stop it, and says so) |
//! | leave the active phase | an abort, a driver that goes away | empty block; still armed |
//! | *disarm* | the unload, the next load | empty block |
//!
//! Invariants:
//!
//! - The block holds a valid chain from its allocation until the jump. It is never freed, and the module stays loaded:
//!   an image that is still loaded may point to it.
//! - The block hands something over only in an active phase of an armed load. What it then names is what the active
//!   phase froze.
//! - No kept page is in scratch or in a destination of the image: while a load is armed, kho.ko allocates no page there,
//!   a producer may keep none, and the plan forbids both.

use crate::errno::{EINVAL, ENODATA, ENOMEM, ENOSPC, Errno};
use crate::iomem::hex;
use crate::store::Store;
use crate::system::{Block, System, log};
use crate::text::Level;
use alloc::vec::Vec;
use kho::abi::kernel_part::Reference;
use kho::abi::late::{self, Late, LateError, MAX_RANGES};
use kho::memcache::{self, CoverError, MemCache};
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

/// End of the memory that 32-bit devices reach.
const FOUR_GIB: u64 = 1 << 32;

/// Bounds that a load fixes for what kho.ko writes later.
#[derive(Debug, Default)]
pub struct Bounds {
    /// Nonce of the block for which the load was planned.
    nonce: u64,
    /// Number of early reservations that are left.
    ranges: usize,
    /// Bytes that the late mem cache may cover, in all.
    total: u64,
    /// Bytes that it may cover below 4 GiB.
    low: u64,
    /// RAM that the next kernel knows.
    ram: RangeSet,
    /// Scratch and the destinations of the image.
    pub image: RangeSet,
}

impl Bounds {
    /// Parses the lines of an *arm*: `nonce N`, `ranges N`, `total N`, `low N`, and for each range `ram START LENGTH` or
    /// `image START LENGTH`. All numbers are hexadecimal, with `0x`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for any other line, or if there is no RAM or no image; no memory.
    pub fn parse(text: &[u8]) -> Result<Self, Errno> {
        let mut bounds = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let mut words = line.split(|byte| *byte == b' ');
            let name = words.next().ok_or(EINVAL)?;
            let mut number = || words.next()?.strip_prefix(b"0x").and_then(hex);
            let first = number().ok_or(EINVAL)?;
            match name {
                b"nonce" => bounds.nonce = first,
                b"ranges" => bounds.ranges = usize::try_from(first).map_err(|_| EINVAL)?,
                b"total" => bounds.total = first,
                b"low" => bounds.low = first,
                b"ram" | b"image" => {
                    let len = number().ok_or(EINVAL)?;
                    let range = PhysRange::new(PhysAddr::new(first), len).map_err(|_| EINVAL)?;
                    if !range.is_page_aligned() {
                        return Err(EINVAL);
                    }
                    match name {
                        b"ram" => bounds.ram.insert(range)?,
                        _ => bounds.image.insert(range)?,
                    }
                }
                _ => return Err(EINVAL),
            }
            if words.next().is_some() {
                return Err(EINVAL);
            }
        }
        if bounds.ram.is_empty() || bounds.image.is_empty() {
            return Err(EINVAL);
        }
        Ok(bounds)
    }
}

/// An armed load.
struct Armed {
    bounds: Bounds,
    /// Memory that the late mem cache must not cover.
    forbidden: RangeSet,
}

/// The late block.
pub struct LateBlock<S: System> {
    block: S::Block,
    /// Nonce of the load that names the block; 0 before the first one.
    nonce: u64,
    /// Nonce for the next load.
    next_nonce: u64,
    armed: Option<Armed>,
    published: bool,
}

/// State of the late block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No load names the block.
    Idle,
    /// A load names the block, which is empty.
    Armed,
    /// A load names the block, and the block hands over the active phase.
    Published,
}

impl State {
    /// Name of the state in the file `late`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Armed => "armed",
            Self::Published => "published",
        }
    }
}

impl<S: System> LateBlock<S> {
    /// Makes an empty late block of `block`, which has the right length.
    ///
    /// # Errors
    ///
    /// No memory; `block` is then freed, because no image can name it yet.
    pub fn new(mut block: S::Block) -> Result<Self, Errno> {
        let bytes = late::empty(block.range()).map_err(|_| ENOMEM)?;
        block.fill(&bytes)?;
        Ok(Self {
            block,
            nonce: 0,
            next_nonce: 0,
            armed: None,
            published: false,
        })
    }

    /// The place of the block.
    pub fn range(&self) -> PhysRange {
        self.block.range()
    }

    /// Nonce of the last load that named the block; 0 if there was none.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Nonce for the next load.
    pub fn next_nonce(&self) -> u64 {
        self.next_nonce
    }

    /// State of the block.
    pub fn state(&self) -> State {
        match (&self.armed, self.published) {
            (None, _) => State::Idle,
            (Some(_), false) => State::Armed,
            (Some(_), true) => State::Published,
        }
    }

    /// Sets the nonce for the next load. A load that names the block now stays as it is.
    pub fn prepare(&mut self, nonce: u64) {
        self.next_nonce = nonce.max(1);
    }

    /// Empties the block. The load stays armed.
    pub fn empty(&mut self) {
        if self.published {
            self.block.store_first(0);
            self.published = false;
            // A header without its chain would only look damaged to the next kernel.
            if let Some((_, header)) = self.block.range().split_at(PAGE_SIZE) {
                self.block.zero(header);
            }
        }
    }

    /// Empties the block, and forgets the load.
    pub fn disarm(&mut self) {
        self.empty();
        self.armed = None;
    }

    /// Takes the bounds of a load in place of those of an earlier one, whose image is not loaded any more. Empties the
    /// block. `store` allocates nothing in the image from now on.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the bounds are for another nonce, or the block is in the image; no
    /// memory.
    pub fn arm(&mut self, bounds: Bounds, store: &mut Store<S>) -> Result<(), Errno> {
        if bounds.nonce != self.next_nonce
            || self.next_nonce == self.nonce
            || bounds.image.overlaps(self.range())
        {
            return Err(EINVAL);
        }
        self.disarm();
        let everything = PhysRange::from_bounds(PhysAddr::new(0), PhysAddr::new(u64::MAX));
        let holes = bounds.ram.gaps(everything.map_err(|_| EINVAL)?)?;
        let mut forbidden = holes.union(&bounds.image)?;
        if let Ok(low) = PhysRange::new(PhysAddr::new(0), 1 << 20) {
            forbidden.insert(low)?;
        }
        store.set_image(bounds.image.try_clone()?);
        self.nonce = self.next_nonce;
        self.armed = Some(Armed { bounds, forbidden });
        Ok(())
    }

    /// Plans the late mem cache for the memory `kept`, which includes the pages of the kernel's part. `arrived` is
    /// memory that arrived and is unclaimed.
    ///
    /// # Errors
    ///
    /// [`ENODATA`] if no load is armed; [`ENOSPC`] if the memory needs more early reservations or more of the next
    /// kernel's memory than the load left; [`EINVAL`] if some of it is where the image goes; no memory.
    pub fn plan(&self, kept: &RangeSet, arrived: &RangeSet) -> Result<MemCache, Errno> {
        let armed = self.armed.as_ref().ok_or(ENODATA)?;
        let bounds = &armed.bounds;
        let most = bounds.ranges.min(MAX_RANGES);
        let pinned = pinned_between::<S>(kept, most, &armed.forbidden, arrived)?;
        let forbidden = armed.forbidden.union(&pinned)?;
        let cache = memcache::cover(kept, &forbidden, most).map_err(|error| {
            if let CoverError::OutOfMemory(_) = error {
                return ENOMEM;
            }
            log!(S, Level::Error, "cannot hand over: {error}");
            match error {
                CoverError::TooMany { .. } => ENOSPC,
                _ => EINVAL,
            }
        })?;
        let covered = cache.covered()?;
        let low = PhysRange::new(PhysAddr::new(0), FOUR_GIB).map_err(|_| EINVAL)?;
        let low = covered.overlap_len(low);
        if covered.total() > bounds.total || low > bounds.low {
            log!(
                S,
                Level::Error,
                "cannot hand over {} KiB, {} KiB of them below 4 GiB: the load left the next kernel room for {} KiB and {} KiB",
                covered.total() / 1024,
                low / 1024,
                bounds.total / 1024,
                bounds.low / 1024
            );
            return Err(ENOSPC);
        }
        Ok(cache)
    }

    /// Bytes that producers may keep beyond those of `cache`, which was planned now. A sixteenth of what the load left
    /// stays for what describes them: the trees and their pages.
    pub fn room(&self, cache: &MemCache) -> u64 {
        let total = self.armed.as_ref().map_or(0, |armed| armed.bounds.total);
        let covered = cache.kept_bytes().saturating_add(cache.slack_bytes());
        let left = total.saturating_sub(covered);
        left.saturating_sub(left / 16)
    }

    /// Writes the late mem cache for `kept` and the reference to the kernel's part into the block, and publishes it.
    ///
    /// # Errors
    ///
    /// As [`plan`](Self::plan). The block is then empty.
    pub fn publish(
        &mut self,
        part: Reference,
        kept: &RangeSet,
        arrived: &RangeSet,
    ) -> Result<(), Errno> {
        self.empty();
        let cache = self.plan(kept, arrived)?;
        let mut ranges = Vec::new();
        ranges.try_reserve_exact(cache.entries().len())?;
        ranges.extend(cache.ranges());
        let late = Late {
            part,
            cache: ranges,
        };
        let encoded = late::encode(self.block.range(), self.nonce, &late);
        let (bytes, next) = encoded.map_err(|error| match error {
            LateError::OutOfMemory(_) => ENOMEM,
            error => {
                log!(S, Level::Error, "cannot hand over: {error}");
                EINVAL
            }
        })?;
        self.block.fill(&bytes)?;
        self.block.store_first(next);
        self.published = true;
        log!(
            S,
            Level::Info,
            "published: {} early ranges, {} KiB kept, {} KiB of slack",
            late.cache.len(),
            cache.kept_bytes() / 1024,
            cache.slack_bytes() / 1024
        );
        Ok(())
    }
}

/// Pages that a mem cache of at most `most` ranges for `kept` must not cover: PageReserved ones that did not arrive, and
/// so may be the firmware's. Asks the kernel only about the smallest gaps between kept ranges, as many as have to be
/// covered; the result has all other gaps whole.
fn pinned_between<S: System>(
    kept: &RangeSet,
    most: usize,
    forbidden: &RangeSet,
    arrived: &RangeSet,
) -> Result<RangeSet, Errno> {
    let mut needed = kept.len().saturating_sub(most);
    if needed == 0 {
        return Ok(RangeSet::new());
    }
    let mut gaps = Vec::new();
    gaps.try_reserve_exact(kept.len())?;
    let ends = kept.iter().zip(kept.iter().skip(1));
    let between = ends.filter_map(|(a, b)| PhysRange::from_bounds(a.end(), b.start()).ok());
    gaps.extend(between.filter(|gap| !forbidden.overlaps(*gap)));
    gaps.sort_unstable_by_key(|gap| gap.len());
    let mut pinned = RangeSet::new();
    for gap in gaps {
        let inside = match needed {
            0 => RangeSet::from_ranges([gap])?,
            _ => S::reserved_pages(gap)?.subtract(arrived)?,
        };
        if inside.is_empty() {
            needed = needed.saturating_sub(1);
        }
        for range in inside.iter() {
            pinned.insert(range)?;
        }
    }
    Ok(pinned)
}
