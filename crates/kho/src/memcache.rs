//! The mem cache: the bounded list of ranges that the next kernel honours in early boot.
//!
//! Early boot has room for few reservations (memblock's table is static until the memory map is
//! known), while the ranges to keep may number hundreds of thousands. [`cover`] merges neighbours until
//! at most `N` entries remain. Merging two neighbours costs their gap, which becomes *slack*: covered,
//! but not handed over. The total slack is the sum of the gaps that were closed, so closing the smallest
//! ones, that is keeping the `N - 1` largest, is optimal.
//!
//! Some gaps must not be closed. A gap may hold a byte that was never ordinary memory (firmware tables, holes): the
//! reservation is eventually released, and would then put that byte into the page allocator. Or the next kernel needs
//! the gap free (scratch). These *forced gaps* are kept first, and the rest of the budget goes to the largest of the
//! other gaps.

use crate::addr::PhysRange;
use crate::ranges::{OutOfMemory, RangeSet, push};
use alloc::vec::Vec;
use thiserror::Error;

/// One range of the mem cache and its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Range that early boot reserves, page-aligned.
    pub range: PhysRange,
    /// Bytes of `range` that are handed over (kept ranges rounded out to pages).
    pub kept_bytes: u64,
    /// Bytes of `range` that are not handed over: memory lost until the next kernel's user space releases it.
    pub slack_bytes: u64,
    /// Number of separate kept ranges (after rounding to pages) in this entry.
    pub kept_ranges: usize,
}

/// The result of [`cover`].
///
/// # Invariants
///
/// The entries are page-aligned, sorted by address and disjoint. Together they are exactly the kept pages
/// and the slack, which share no byte.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct MemCache {
    entries: Vec<Entry>,
    slack: RangeSet,
    kept_bytes: u64,
    slack_bytes: u64,
}

impl MemCache {
    /// The entries, sorted by address.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The ranges of the entries, sorted by address.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = PhysRange> + ExactSizeIterator + '_ {
        self.entries.iter().map(|e| e.range)
    }

    /// The bytes of all entries as a set.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn covered(&self) -> Result<RangeSet, OutOfMemory> {
        RangeSet::from_ranges(self.ranges())
    }

    /// The memory that is covered but not handed over.
    pub fn slack(&self) -> &RangeSet {
        &self.slack
    }

    /// Bytes handed over, in whole pages.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Bytes covered but not handed over.
    pub fn slack_bytes(&self) -> u64 {
        self.slack_bytes
    }

    /// Index of the entry that holds all of `range`. O(log n).
    pub fn entry_of(&self, range: PhysRange) -> Option<usize> {
        let index = self
            .entries
            .partition_point(|e| e.range.end() <= range.start());
        self.entries
            .get(index)
            .filter(|e| e.range.contains_range(range))
            .map(|_| index)
    }
}

/// Why no mem cache exists for the given ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CoverError {
    /// A kept range, rounded out to pages, contains bytes that must not be reserved.
    #[error(
        "{kept} is to be kept, but its pages overlap {forbidden}, which must stay out of every reservation"
    )]
    Forbidden {
        /// The range to keep.
        kept: PhysRange,
        /// The forbidden range that the pages of `kept` overlap.
        forbidden: PhysRange,
    },
    /// A kept range cannot be rounded out to pages: it ends in the last page of the address space.
    #[error("{kept} is to be kept, but rounded to pages it leaves the address space")]
    Unrepresentable {
        /// The range to keep.
        kept: PhysRange,
    },
    /// Gaps that may not be closed leave more entries than there is room for.
    #[error(
        "the kept memory needs {need} separate reservations even with every permitted merge, and early boot has room for {cap}: hand over less, or fewer and larger pieces"
    )]
    TooMany {
        /// The smallest possible number of entries.
        need: usize,
        /// The number allowed.
        cap: usize,
    },
    /// An allocation failed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Returns at most `max_entries` sorted, disjoint, page-aligned ranges that cover every page of `kept`, no byte of
/// `forbidden`, and as few other bytes as any such list can.
///
/// Between gaps of the same size the one at the lower address is kept open, so the result is a function of the input.
///
/// O(n log f) for n kept ranges and f forbidden ranges.
///
/// # Errors
///
/// See [`CoverError`].
///
/// # Example
///
/// ```
/// use kho::{PhysAddr, PhysRange, RangeSet, memcache};
/// let page = |n: u64| PhysRange::new(PhysAddr::new(n * 4096), 4096).unwrap();
/// let kept = RangeSet::from_ranges([page(16), page(18), page(30)]).unwrap();
/// let cache = memcache::cover(&kept, &RangeSet::new(), 2).unwrap();
/// assert_eq!(cache.entries().len(), 2);
/// assert_eq!(cache.slack_bytes(), 4096); // page 17: the smaller of the two gaps
/// ```
pub fn cover(
    kept: &RangeSet,
    forbidden: &RangeSet,
    max_entries: usize,
) -> Result<MemCache, CoverError> {
    let pieces = page_pieces(kept, forbidden)?;
    let cuts = choose_cuts(&pieces, forbidden, max_entries)?;
    assemble(&pieces, &cuts)
}

/// The kept ranges in whole pages, sorted, merged where they touch.
fn page_pieces(kept: &RangeSet, forbidden: &RangeSet) -> Result<Vec<PhysRange>, CoverError> {
    let mut pages: Vec<PhysRange> = Vec::new();
    pages
        .try_reserve_exact(kept.len())
        .map_err(|_| OutOfMemory)?;
    for range in kept.iter() {
        let outer = range
            .page_outer()
            .ok_or(CoverError::Unrepresentable { kept: range })?;
        if let Some(hit) = forbidden.first_overlap(outer) {
            return Err(CoverError::Forbidden {
                kept: range,
                forbidden: hit,
            });
        }
        match pages.last_mut() {
            Some(last) if outer.start() <= last.end() => {
                *last = PhysRange::from_bounds(last.start(), outer.end().max(last.end()))
                    .unwrap_or(outer);
            }
            _ => push(&mut pages, outer)?,
        }
    }
    Ok(pages)
}

/// For each piece but the last, whether an entry ends after it.
fn choose_cuts(
    pieces: &[PhysRange],
    forbidden: &RangeSet,
    max_entries: usize,
) -> Result<Vec<bool>, CoverError> {
    let gap_count = pieces.len().saturating_sub(1);
    let mut cuts = Vec::new();
    cuts.try_reserve_exact(gap_count).map_err(|_| OutOfMemory)?;
    let mut closable: Vec<(u64, usize)> = Vec::new();
    closable
        .try_reserve_exact(gap_count)
        .map_err(|_| OutOfMemory)?;
    for (index, pair) in pieces.windows(2).enumerate() {
        let &[before, after] = pair else { continue };
        let gap = PhysRange::from_bounds(before.end(), after.start());
        let forced = gap.is_ok_and(|gap| forbidden.overlaps(gap));
        cuts.push(forced);
        if !forced {
            let size = after.start().offset_from(before.end()).unwrap_or(0);
            push(&mut closable, (size, index))?;
        }
    }
    let forced = gap_count.saturating_sub(closable.len());
    let least = if pieces.is_empty() {
        0
    } else {
        forced.saturating_add(1)
    };
    if least > max_entries {
        return Err(CoverError::TooMany {
            need: least,
            cap: max_entries,
        });
    }
    let open = max_entries.saturating_sub(least).min(closable.len());
    if open < closable.len() && open > 0 {
        // Largest first, and the lower address first among equals. Only the order of the first `open` gaps matters.
        closable.select_nth_unstable_by(open, |a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    }
    for (_, index) in closable.iter().take(open) {
        if let Some(cut) = cuts.get_mut(*index) {
            *cut = true;
        }
    }
    Ok(cuts)
}

/// Entries and slack from the pieces and where to cut between them.
fn assemble(pieces: &[PhysRange], cuts: &[bool]) -> Result<MemCache, CoverError> {
    let mut cache = MemCache::default();
    // An entry starts at the first piece, and at every piece that follows a cut.
    let starts = core::iter::once(true).chain(cuts.iter().copied());
    for (piece, starts_entry) in pieces.iter().zip(starts) {
        cache.kept_bytes = cache.kept_bytes.saturating_add(piece.len());
        match cache.entries.last_mut() {
            Some(entry) if !starts_entry => {
                if let Ok(gap) = PhysRange::from_bounds(entry.range.end(), piece.start()) {
                    entry.slack_bytes = entry.slack_bytes.saturating_add(gap.len());
                    cache.slack_bytes = cache.slack_bytes.saturating_add(gap.len());
                    cache.slack.push_merged(gap)?;
                }
                entry.range =
                    PhysRange::from_bounds(entry.range.start(), piece.end()).unwrap_or(entry.range);
                entry.kept_bytes = entry.kept_bytes.saturating_add(piece.len());
                entry.kept_ranges = entry.kept_ranges.saturating_add(1);
            }
            _ => push(
                &mut cache.entries,
                Entry {
                    range: *piece,
                    kept_bytes: piece.len(),
                    slack_bytes: 0,
                    kept_ranges: 1,
                },
            )?,
        }
    }
    Ok(cache)
}

#[cfg(test)]
mod tests;
