//! Checks of the segments of a load, whatever the architecture.

use kho::{PAGE_SIZE, PhysRange};

use super::error::AssembleError;
use super::segment::{Segment, SegmentKind};
use crate::bytes::len64;

/// Checks that the segments are whole pages, long enough and apart from each other, that none of them would overwrite
/// memory of `reserved`, which is handed over, and that the state segment lies in such memory if there is a state tree.
pub(crate) fn check_segments(
    segments: &[Segment<'_>],
    reserved: &[PhysRange],
    tree: bool,
) -> Result<(), AssembleError> {
    for (n, segment) in segments.iter().enumerate() {
        let (kind, dest) = (segment.kind, segment.dest);
        if !dest.start().is_aligned(PAGE_SIZE) || !dest.len().is_multiple_of(PAGE_SIZE) {
            return Err(AssembleError::Misaligned { kind, dest });
        }
        let needed = len64(segment.bytes.len());
        if dest.len() < needed {
            return Err(AssembleError::TooShort { kind, dest, needed });
        }
        for other in segments.iter().skip(n + 1) {
            if dest.overlaps(other.dest) {
                return Err(AssembleError::Overlap {
                    kind,
                    dest,
                    other: other.kind,
                    other_dest: other.dest,
                });
            }
        }
        let kept = reserved.iter().find(|r| r.overlaps(dest));
        match (kind, kept) {
            // The state segment is kept as the rest of the handover is, so it must lie in a mem-cache entry.
            (SegmentKind::State, _) if tree => {
                if !reserved.iter().any(|r| r.contains_range(dest)) {
                    return Err(AssembleError::StateNotReserved { dest });
                }
            }
            (_, Some(kept)) => {
                return Err(AssembleError::OntoKept {
                    kind,
                    dest,
                    kept: *kept,
                });
            }
            (_, None) => {}
        }
    }
    Ok(())
}
