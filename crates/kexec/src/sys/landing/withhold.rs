//! Free destinations kept away from the allocator.

use super::{LandingError, MAX_PIECES, Mapping, Request, Taken, Taker};
use crate::sys::facts::meminfo::MemInfo;
use crate::sys::root::Root;
use kho::RangeSet;

/// Pages of scratch that the allocator would have handed out, held until dropped.
///
/// The destinations of kernel, initrd and parameters are free memory at addresses that cannot be chosen (the
/// recorded scratch). They can be kept out of the load all the same: draw as much memory as the kernel is
/// going to take for its copy, keep what happens to lie in scratch, and give the rest back. The allocator
/// hands out first what was given back last, so the kernel gets pages that were looked at.
///
/// This only saves time; a page that slips through costs a walk (see the [module](super)'s documentation).
#[derive(Debug)]
pub struct Withheld {
    pages: RangeSet,
    _memory: Vec<Mapping>,
}

impl Withheld {
    /// Draws `bytes` (what all segments together take, since the kernel copies them all) and keeps the pages in
    /// `ranges`. Draws less when `reserve` would not stay available.
    ///
    /// # Errors
    ///
    /// [`LandingError`], when physical addresses are hidden or a call fails. A loader goes on without.
    pub fn draw(
        root: &Root,
        ranges: &RangeSet,
        bytes: u64,
        reserve: u64,
    ) -> Result<Self, LandingError> {
        let available = MemInfo::read(root)?.available;
        let limit = available.saturating_sub(reserve).min(bytes);
        let request = Request {
            bytes: limit,
            max_runs: 0,
            reserve,
            allowed: ranges,
        };
        let mut taker = Taker::new(root, &request, limit, available);
        while taker.drawn < limit && taker.take_one()? {}
        let taken = core::mem::take(&mut taker.taken);
        drop(taker); // restores the knob
        let mut pages = RangeSet::new();
        let mut memory = Vec::new();
        for one in taken {
            if memory.len().saturating_add(one.pieces.len()) > MAX_PIECES {
                break;
            }
            for piece in &one.pieces {
                pages.insert(piece.phys)?;
            }
            keep_pieces(one, &mut memory);
        }
        Ok(Self {
            pages,
            _memory: memory,
        })
    }

    /// What is held, all of it in the ranges that were asked for.
    pub fn pages(&self) -> &RangeSet {
        &self.pages
    }
}

/// Keeps the pieces where they are and gives the rest of the mapping back.
fn keep_pieces(one: Taken, memory: &mut Vec<Mapping>) {
    let Taken {
        mapping: mut rest,
        mut pieces,
        ..
    } = one;
    pieces.sort_by_key(|p| p.offset);
    let mut gone = 0usize;
    for piece in pieces {
        let len = usize::try_from(piece.phys.len()).unwrap_or(usize::MAX);
        let (before, from) = rest.split(piece.offset.saturating_sub(gone));
        drop(before);
        let (kept, after) = from.split(len);
        memory.push(kept);
        gone = piece.offset.saturating_add(len);
        rest = after;
    }
}
