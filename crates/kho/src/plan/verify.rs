//! An independent check of a finished plan, which shares no code with the planner.

use super::{Content, Plan, PlanRequest, STATE_RESERVATIONS, ScratchSource};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::headroom::{self, CmdlineMemory, HeadroomError, HeadroomInput};
use crate::image::{FOUR_GIB, ImagePart, LOW_MEMORY_END, Placement};
use crate::ranges::{OutOfMemory, RangeSet};
use thiserror::Error;

/// A safety property that a plan lacks. Any of these is a bug, or the plan belongs to another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A range is not on whole pages.
    #[error("{range} is not on whole pages")]
    Unaligned {
        /// The range.
        range: PhysRange,
    },
    /// A range includes bytes that are not RAM.
    #[error("{range} is not all RAM")]
    NotRam {
        /// The range.
        range: PhysRange,
    },
    /// Two ranges share memory that must not.
    #[error("{a} overlaps {b}")]
    Overlap {
        /// The first range.
        a: PhysRange,
        /// The second range.
        b: PhysRange,
    },
    /// The plan's scratch is not the recorded one.
    #[error("scratch is {have}, which is not what was recorded")]
    WrongScratch {
        /// The plan's scratch.
        have: PhysRange,
    },
    /// A part of the image lies outside scratch, is too short, or breaks an address limit.
    #[error("{part} at {at} does not meet the image's constraints")]
    Image {
        /// The part.
        part: ImagePart,
        /// Memory of the part.
        at: PhysRange,
    },
    /// State or blobs are not completely and exactly placed.
    #[error("the pieces of {content:?} do not make up the {need:#x} bytes that it has")]
    Incomplete {
        /// The state, or a blob at the offset where it goes wrong.
        content: Content,
        /// Length of the state or of the blob, in bytes; 0 for a piece too many.
        need: u64,
    },
    /// A segment has bytes that no piece fills, or a piece is not in its segment.
    #[error("segment {dest} and its pieces do not agree")]
    Segment {
        /// The segment's destination.
        dest: PhysRange,
    },
    /// Too many segments.
    #[error("{have} segments for the payload, {cap} allowed")]
    TooManySegments {
        /// Planned.
        have: usize,
        /// Allowed.
        cap: usize,
    },
    /// Too many early reservations.
    #[error("{have} early reservations, {cap} allowed")]
    TooManyRanges {
        /// Planned.
        have: usize,
        /// Allowed.
        cap: usize,
    },
    /// The mem cache does not cover all memory that is kept.
    #[error("{range} is kept but not covered by the mem cache")]
    Uncovered {
        /// The first such range.
        range: PhysRange,
    },
    /// The mem-cache entry that should hold the state segment does not hold it.
    #[error("mem-cache entry {index} does not hold the state segment")]
    StateEntry {
        /// The index in the plan.
        index: usize,
    },
    /// The mem cache's accounts are wrong.
    #[error("the mem cache's kept and slack bytes do not add up")]
    Accounts,
    /// The segments are more than `kexec_load` accepts.
    #[error("{need:#x} bytes to load, {limit:#x} accepted")]
    LoadLimit {
        /// Bytes planned.
        need: u64,
        /// Bytes accepted.
        limit: u64,
    },
    /// The next kernel would find too little free memory.
    #[error(transparent)]
    Headroom(HeadroomError),
    /// An allocation failed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl Plan {
    /// Checks every safety property of this plan for `request` again, independently of how it was made.
    ///
    /// # Errors
    ///
    /// The first [`Violation`].
    pub fn check_invariants(&self, request: &PlanRequest<'_>) -> Result<(), Violation> {
        let cmdline = CmdlineMemory::parse(request.cmdline, request.ram.total())?;
        let ram = cmdline.usable(request.ram)?;
        self.check_scratch(request, &ram)?;
        self.check_image(request, &ram)?;
        self.check_payload(request, &ram)?;
        self.check_mem_cache(request, &ram)?;
        let need = self
            .destinations()
            .fold(0u64, |sum, r| sum.saturating_add(r.len()));
        if need > request.limits.load_limit {
            return Err(Violation::LoadLimit {
                need,
                limit: request.limits.load_limit,
            });
        }
        headroom::check(&HeadroomInput {
            ram: &ram,
            reserved: &self.mem_cache.covered()?,
            scratch: self.scratch,
            image: &request.image,
            cmdline: &cmdline,
            user_space: request.user_space,
        })
        .map_err(Violation::Headroom)?;
        Ok(())
    }

    fn check_scratch(&self, request: &PlanRequest<'_>, ram: &RangeSet) -> Result<(), Violation> {
        let scratch = self.scratch;
        whole_pages(scratch)?;
        above_low_memory(scratch)?;
        apart(scratch, request.in_place)?;
        match request.scratch {
            ScratchSource::Recorded(recorded) if recorded != Some(scratch) => {
                Err(Violation::WrongScratch { have: scratch })
            }
            ScratchSource::Choose { .. } => {
                in_ram(scratch, ram)?;
                apart(scratch, request.pinned)
            }
            // A scratch that was recorded at an earlier hop may hold memory that has failed since.
            ScratchSource::Recorded(_) => Ok(()),
        }
    }

    fn check_image(&self, request: &PlanRequest<'_>, ram: &RangeSet) -> Result<(), Violation> {
        let (needs, image) = (&request.image, &self.image);
        let kernel = image.kernel.reserved;
        let address_max = if needs.kernel.above_4g {
            PhysAddr::new(u64::MAX)
        } else {
            FOUR_GIB
        };
        let kernel_ok = kernel.len() >= needs.kernel.mem_size.max(needs.kernel.file_len)
            && image.kernel.len == needs.kernel.file_len
            && kernel.start() >= needs.kernel.preferred
            && kernel.end() <= address_max
            && kernel.start().is_aligned(needs.kernel.align.max(PAGE_SIZE));
        self.check_part(ImagePart::Kernel, image.kernel, kernel_ok)?;
        match (image.initrd, needs.initrd()) {
            (None, None) => {}
            (Some(initrd), Some(wanted)) => {
                let last = initrd
                    .reserved
                    .start()
                    .checked_add(wanted.len.saturating_sub(1));
                let below = last.is_some_and(|l| l <= wanted.max_addr);
                let ok = initrd.len == wanted.len && (needs.kernel.above_4g || below);
                self.check_part(ImagePart::Initrd, initrd, ok)?;
                apart_from(initrd.reserved, kernel)?;
                apart_from(initrd.reserved, image.params.reserved)?;
            }
            (_, _) => {
                return Err(Violation::Image {
                    part: ImagePart::Initrd,
                    at: self.scratch,
                });
            }
        }
        let params_ok =
            image.params.len == needs.params_len && image.params.reserved.end() <= address_max;
        self.check_part(ImagePart::Params, image.params, params_ok)?;
        let initrd = image.initrd.map(|initrd| initrd.reserved);
        for part in [kernel, image.params.reserved].into_iter().chain(initrd) {
            in_ram(part, ram)?;
        }
        apart_from(image.params.reserved, kernel)
    }

    fn check_part(&self, part: ImagePart, place: Placement, ok: bool) -> Result<(), Violation> {
        let at = place.reserved;
        whole_pages(at)?;
        let inside = self.scratch.contains_range(at)
            && at.contains_range(place.segment())
            && place.segment().start() == at.start()
            && place.segment().len() >= place.len;
        if ok && inside {
            Ok(())
        } else {
            Err(Violation::Image { part, at })
        }
    }

    fn check_payload(&self, request: &PlanRequest<'_>, ram: &RangeSet) -> Result<(), Violation> {
        let cap = request.limits.max_payload_segments;
        if self.segments.len() > cap {
            return Err(Violation::TooManySegments {
                have: self.segments.len(),
                cap,
            });
        }
        for (index, segment) in self.segments.iter().enumerate() {
            let dest = segment.dest;
            whole_pages(dest)?;
            in_ram(dest, ram)?;
            above_low_memory(dest)?;
            apart(dest, request.pinned)?;
            apart(dest, request.in_place)?;
            apart_from(dest, self.scratch)?;
            for other in self.segments.iter().skip(index.saturating_add(1)) {
                apart_from(dest, other.dest)?;
            }
            // The pieces lie inside their segments at the offsets that they claim, share no byte and leave no byte
            // over.
            let mut filled = RangeSet::new();
            let mut bytes = 0u64;
            for piece in self.pieces.iter().filter(|p| p.segment == index) {
                let at = dest.start().checked_add(piece.segment_offset);
                if at != Some(piece.dest.start()) || filled.overlaps(piece.dest) {
                    return Err(Violation::Segment { dest });
                }
                filled.insert(piece.dest)?;
                bytes = bytes.saturating_add(piece.dest.len());
            }
            if filled.as_slice() != [dest] || bytes != dest.len() {
                return Err(Violation::Segment { dest });
            }
        }
        self.check_pieces(request)
    }

    /// The pieces, in order, are the state and then every byte of every blob once.
    fn check_pieces(&self, request: &PlanRequest<'_>) -> Result<(), Violation> {
        let mut pieces = self.pieces.iter().peekable();
        let state = request.payload.state;
        let whole_state = pieces.next().is_some_and(|p| {
            p.content == Content::State && p.len == state && p.dest.len() >= state
        });
        if !whole_state || state == 0 {
            return Err(Violation::Incomplete {
                content: Content::State,
                need: state,
            });
        }
        for (index, need) in request.payload.blobs.iter().copied().enumerate() {
            let mut offset = 0u64;
            while let Some(piece) = pieces.next_if(|p| p.content == Content::Blob { index, offset })
            {
                whole_pages(piece.dest)?;
                let pages = piece.len.checked_next_multiple_of(PAGE_SIZE);
                let last = offset.checked_add(piece.len) == Some(need);
                let full = piece.len.is_multiple_of(PAGE_SIZE) || last;
                if piece.len == 0 || pages != Some(piece.dest.len()) || !full {
                    break;
                }
                offset = offset.saturating_add(piece.len);
            }
            if offset != need {
                return Err(Violation::Incomplete {
                    content: Content::Blob { index, offset },
                    need,
                });
            }
        }
        match pieces.next() {
            None => Ok(()),
            Some(extra) => Err(Violation::Incomplete {
                content: extra.content,
                need: 0,
            }),
        }
    }

    fn check_mem_cache(&self, request: &PlanRequest<'_>, ram: &RangeSet) -> Result<(), Violation> {
        let entries = self.mem_cache.entries();
        let have = entries.len().saturating_add(STATE_RESERVATIONS);
        if have > request.limits.max_entries {
            return Err(Violation::TooManyRanges {
                have,
                cap: request.limits.max_entries,
            });
        }
        let mut before: Option<PhysRange> = None;
        let (mut kept, mut slack) = (0u64, 0u64);
        for entry in entries {
            let range = entry.range;
            whole_pages(range)?;
            in_ram(range, ram)?;
            above_low_memory(range)?;
            apart_from(range, self.scratch)?;
            apart(range, request.pinned)?;
            if let Some(before) = before.filter(|b| b.end() > range.start()) {
                return Err(Violation::Overlap {
                    a: before,
                    b: range,
                });
            }
            if entry.kept_bytes.checked_add(entry.slack_bytes) != Some(range.len()) {
                return Err(Violation::Accounts);
            }
            kept = kept.saturating_add(entry.kept_bytes);
            slack = slack.saturating_add(entry.slack_bytes);
            before = Some(range);
        }
        let accounts = kept == self.mem_cache.kept_bytes()
            && slack == self.mem_cache.slack_bytes()
            && slack == self.mem_cache.slack().total();
        if !accounts {
            return Err(Violation::Accounts);
        }
        let covered = self.mem_cache.covered()?;
        let destinations = self.segments.iter().map(|s| s.dest);
        for range in request.in_place.iter().chain(destinations) {
            if !covered.contains_range(range) {
                return Err(Violation::Uncovered { range });
            }
        }
        let holds_state = entries
            .get(self.state_entry)
            .zip(self.state())
            .is_some_and(|(entry, state)| entry.range.contains_range(state));
        if holds_state {
            Ok(())
        } else {
            Err(Violation::StateEntry {
                index: self.state_entry,
            })
        }
    }
}

fn whole_pages(range: PhysRange) -> Result<(), Violation> {
    if range.is_page_aligned() {
        Ok(())
    } else {
        Err(Violation::Unaligned { range })
    }
}

fn in_ram(range: PhysRange, ram: &RangeSet) -> Result<(), Violation> {
    if ram.contains_range(range) {
        Ok(())
    } else {
        Err(Violation::NotRam { range })
    }
}

fn above_low_memory(range: PhysRange) -> Result<(), Violation> {
    match PhysRange::from_bounds(PhysAddr::new(0), LOW_MEMORY_END) {
        Ok(low) => apart_from(range, low),
        Err(_) => Ok(()),
    }
}

fn apart(range: PhysRange, set: &RangeSet) -> Result<(), Violation> {
    match set.first_overlap(range) {
        None => Ok(()),
        Some(b) => Err(Violation::Overlap { a: range, b }),
    }
}

fn apart_from(a: PhysRange, b: PhysRange) -> Result<(), Violation> {
    if a.overlaps(b) {
        Err(Violation::Overlap { a, b })
    } else {
        Ok(())
    }
}
