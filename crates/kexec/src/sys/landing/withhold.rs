//! Free destinations, held so that the allocator does not hand them out.

use super::error::LandingError;
use super::huge::HUGE;
use super::{MAX_PIECES, Mapping, Request, Taken, Taker};
use crate::sys::facts::meminfo::MemInfo;
use crate::sys::pageflags::{PageFlags, flag};
use crate::sys::root::Root;
use kho::RangeSet;

/// Largest number of bytes to draw. The kernel needs about as long to zero that much memory as the walks would take.
pub const DRAW_LIMIT: u64 = 4 << 30;

/// Pages of scratch, held until dropped so that the allocator cannot hand them out.
///
/// The destinations of kernel, initrd and parameters are free memory at fixed addresses (the recorded scratch). The
/// loader keeps them away from the allocator: it draws memory and keeps the pages that lie in scratch, until it holds
/// all of scratch that is free in whole huge pages. Then it returns the rest.
///
/// This only saves time; a page that is not held costs a walk (see the [module](super)'s documentation). It helps most
/// on a system that has just booted, whose next free memory may be scratch itself. It does not reach free memory in
/// smaller pieces or on the per-CPU lists. An unload just before fills these lists.
#[derive(Debug)]
pub struct Withheld {
    pages: RangeSet,
    _memory: Vec<Mapping>,
}

impl Withheld {
    /// Holds the free huge pages of `ranges`. Stops, with the pages that it has, after it has drawn `limit` bytes
    /// ([`DRAW_LIMIT`]), or if less than `reserve` would stay available; the memory for the kernel's copy of the image
    /// belongs to the reserve. It also stops after it has drawn `copy` bytes outside of `ranges`, where `copy` is the
    /// size of the kernel's copy. A returned block goes to the head of its list (`__free_one_page`, `mm/page_alloc.c`,
    /// 6.1 to 7.3), so the kernel makes its copy in these blocks, before the allocator gets to memory that was not
    /// drawn.
    ///
    /// # Errors
    ///
    /// [`LandingError`] if pages or their addresses are hidden, or if a call fails. A loader can continue without
    /// withheld pages.
    pub fn draw(
        root: &Root,
        ranges: &RangeSet,
        limit: u64,
        copy: u64,
        reserve: u64,
    ) -> Result<Self, LandingError> {
        let flags = PageFlags::open(root)?;
        let free = flags.pages_with(ranges, flag::BUDDY)?.align_inner(HUGE)?;
        let available = MemInfo::read(root)?.available;
        let request = Request {
            bytes: free.total(),
            max_runs: 0,
            reserve,
            allowed: ranges,
        };
        let mut taker = Taker::new(root, &request, limit, available);
        while taker.accepted < free.total()
            && taker.drawn < limit
            && taker.drawn.saturating_sub(taker.accepted) < copy
            && taker.take_one()?
        {}
        let taken = core::mem::take(&mut taker.taken);
        drop(taker); // restores the limit
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

    /// Returns the pages that are held, all of them in the requested ranges.
    pub fn pages(&self) -> &RangeSet {
        &self.pages
    }
}

/// Keeps the pieces in place and returns the rest of the mapping to the system.
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
