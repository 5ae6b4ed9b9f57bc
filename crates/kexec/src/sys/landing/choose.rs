//! Choice of the pages that form the zone, among the pages that were taken. Pure arithmetic.

use super::huge::HUGE;
use kho::{OutOfMemory, PhysRange, RangeSet};

/// Physically contiguous memory at an offset of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Bytes from the start of the mapping.
    pub(super) offset: usize,
    /// Physical range of the piece.
    pub(super) phys: PhysRange,
}

/// Adds the usable parts of a contiguous stretch, in whole units of `unit` bytes (the size of a page that cannot be
/// split).
pub(super) fn usable(
    offset: usize,
    phys: PhysRange,
    unit: u64,
    allowed: &RangeSet,
    out: &mut Vec<Piece>,
) -> Result<(), OutOfMemory> {
    let inside = allowed.intersect(&RangeSet::from_ranges([phys])?)?;
    for part in inside.align_inner(unit)?.iter() {
        let skip = part.start().offset_from(phys.start()).unwrap_or(0);
        let Ok(skip) = usize::try_from(skip) else {
            continue;
        };
        out.push(Piece {
            offset: offset.saturating_add(skip),
            phys: part,
        });
    }
    Ok(())
}

/// Returns the smallest number of runs that hold `bytes`, at most `max_runs`, and the number of bytes that they hold.
/// The last run is cut to the necessary length, at a boundary of huge pages.
pub(super) fn choose(
    runs: &RangeSet,
    bytes: u64,
    max_runs: usize,
) -> Result<(RangeSet, u64), OutOfMemory> {
    let mut by_length: Vec<PhysRange> = runs.iter().collect();
    // Runs of equal length go from low to high addresses, so that the result does not depend on the order of
    // allocation.
    by_length.sort_by_key(|r| (core::cmp::Reverse(r.len()), r.start()));
    let mut chosen = RangeSet::new();
    let mut covered = 0u64;
    for run in by_length.into_iter().take(max_runs) {
        if covered >= bytes {
            break;
        }
        let missing = bytes - covered;
        let cut = run
            .start()
            .checked_add(missing)
            .and_then(|end| end.align_up(HUGE))
            .filter(|end| *end < run.end());
        let run = match cut {
            Some(end) => PhysRange::from_bounds(run.start(), end).unwrap_or(run),
            None => run,
        };
        covered = covered.saturating_add(run.len());
        chosen.insert(run)?;
    }
    Ok((chosen, covered))
}

/// Returns the parts of pieces that form the chosen runs, in order of their offsets.
pub(super) fn cuts(pieces: &[Piece], chosen: &RangeSet) -> Vec<Piece> {
    let mut out = Vec::new();
    for piece in pieces {
        // A piece is contiguous, so it is in at most one run. A run may end inside the piece.
        let Some(part) = chosen
            .first_overlap(piece.phys)
            .and_then(|run| run.intersection(piece.phys))
        else {
            continue;
        };
        let skip = part.start().offset_from(piece.phys.start()).unwrap_or(0);
        let Ok(skip) = usize::try_from(skip) else {
            continue;
        };
        out.push(Piece {
            offset: piece.offset.saturating_add(skip),
            phys: part,
        });
    }
    out.sort_by_key(|p| p.offset);
    out
}

#[cfg(test)]
mod tests {
    use super::super::huge::HUGE_LEN;
    use super::*;
    use kho::PhysAddr;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    #[test]
    fn the_fewest_runs_and_no_more_than_needed() {
        let all = RangeSet::from_ranges([
            range(HUGE, 2 * HUGE),
            range(10 * HUGE, 8 * HUGE),
            range(100 * HUGE, 4 * HUGE),
        ])
        .unwrap();
        let pick = |bytes, max| choose(&all, bytes, max).unwrap();
        let (one, covered) = pick(3 * HUGE - 5, 12);
        assert_eq!(one.as_slice(), [range(10 * HUGE, 3 * HUGE)]);
        assert_eq!(covered, 3 * HUGE);
        let (two, covered) = pick(9 * HUGE, 12);
        assert_eq!(
            two.as_slice(),
            [range(10 * HUGE, 8 * HUGE), range(100 * HUGE, HUGE)]
        );
        assert_eq!(covered, 9 * HUGE);
        assert_eq!(pick(14 * HUGE, 12).1, 14 * HUGE);
        assert_eq!(pick(14 * HUGE, 2).1, 12 * HUGE);
        assert_eq!(pick(15 * HUGE, 12).1, 14 * HUGE);
        assert_eq!(pick(1, 0).1, 0);
    }

    #[test]
    fn only_whole_pages_of_the_allowed_memory_are_used() {
        let allowed = RangeSet::from_ranges([range(HUGE / 2, 4 * HUGE)]).unwrap();
        let mut out = Vec::new();
        usable(HUGE_LEN, range(0, 8 * HUGE), HUGE, &allowed, &mut out).unwrap();
        assert_eq!(
            out,
            [Piece {
                offset: 2 * HUGE_LEN,
                phys: range(HUGE, 3 * HUGE)
            }]
        );
        out.clear();
        usable(0, range(0, 8 * HUGE), 4096, &allowed, &mut out).unwrap();
        assert_eq!(out[0].phys, range(HUGE / 2, 4 * HUGE));
        out.clear();
        usable(0, range(16 * HUGE, HUGE), HUGE, &allowed, &mut out).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn cuts_follow_the_offsets() {
        let pieces = [
            Piece {
                offset: 0,
                phys: range(20 * HUGE, 2 * HUGE),
            },
            Piece {
                offset: 4 * HUGE_LEN,
                phys: range(10 * HUGE, 4 * HUGE),
            },
        ];
        let chosen =
            RangeSet::from_ranges([range(11 * HUGE, HUGE), range(21 * HUGE, HUGE)]).unwrap();
        assert_eq!(
            cuts(&pieces, &chosen),
            [
                Piece {
                    offset: HUGE_LEN,
                    phys: range(21 * HUGE, HUGE)
                },
                Piece {
                    offset: 5 * HUGE_LEN,
                    phys: range(11 * HUGE, HUGE)
                },
            ]
        );
    }
}
