//! Extents of a file that arrived and are not in the page cache yet.

use alloc::vec::Vec;
use kho_decide::errno::Errno;

/// A run of pages of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First page, as an index in the file.
    pub index: u64,
    /// Page frame of the first page.
    pub pfn: u64,
    /// Number of pages.
    pub count: u64,
}

impl Extent {
    /// An extent of one page whose content is lost, because its memory failed.
    pub fn lost(index: u64) -> Self {
        Self {
            index,
            pfn: 0, // never handed over: below 1 MiB
            count: 1,
        }
    }

    /// Whether the content of the extent is lost, see [`lost`](Self::lost).
    pub fn is_lost(&self) -> bool {
        self.pfn == 0
    }

    /// Index behind the last page.
    pub fn end(&self) -> u64 {
        self.index.saturating_add(self.count)
    }

    /// The part behind the first `pages` pages.
    pub fn behind(&self, pages: u64) -> Option<Self> {
        self.part(self.index.saturating_add(pages), u64::MAX)
    }

    /// The part from page `first` to before page `end`.
    fn part(&self, first: u64, end: u64) -> Option<Self> {
        let from = self.index.max(first);
        let count = self.end().min(end).checked_sub(from).filter(|c| *c > 0)?;
        Some(Self {
            index: from,
            pfn: self.pfn.saturating_add(from.saturating_sub(self.index)),
            count,
        })
    }
}

/// Extents of a file, ascending, without overlaps.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Extents {
    list: Vec<Extent>,
    pages: u64,
}

impl Extents {
    /// Adds an extent behind the others, and merges it with the last one if it continues that extent.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn push(&mut self, extent: Extent) -> Result<(), Errno> {
        self.pages = self.pages.saturating_add(extent.count);
        if let Some(last) = self.list.last_mut()
            && last.end() == extent.index
            && last.pfn.saturating_add(last.count) == extent.pfn
        {
            last.count = last.count.saturating_add(extent.count);
            return Ok(());
        }
        self.list.try_reserve(1)?;
        self.list.push(extent);
        Ok(())
    }

    /// Number of pages of all extents.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// All extents.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.list.iter().copied()
    }

    fn first_after(&self, index: u64) -> usize {
        self.list.partition_point(|e| e.end() <= index)
    }

    /// Whether page `index` is in an extent.
    pub fn has(&self, index: u64) -> bool {
        let found = self.list.get(self.first_after(index));
        found.is_some_and(|e| e.index <= index)
    }

    /// The first page from `index` on that is in an extent and whose content is not lost.
    pub fn next_good(&self, index: u64) -> Option<u64> {
        let mut rest = self.list.iter().skip(self.first_after(index));
        let found = rest.find(|extent| !extent.is_lost())?;
        Some(found.index.max(index))
    }

    /// The first page from `index` on that is in an extent.
    pub fn next(&self, index: u64) -> Option<u64> {
        let found = self.list.get(self.first_after(index))?;
        Some(found.index.max(index))
    }

    /// The first page from `index` on that is in no extent.
    pub fn gap(&self, index: u64) -> u64 {
        let mut at = index;
        for extent in self.list.iter().skip(self.first_after(index)) {
            if extent.index > at {
                break;
            }
            at = extent.end();
        }
        at
    }

    /// The first extent that has pages from `first` to before `end`, cut to them.
    pub fn find(&self, first: u64, end: u64) -> Option<Extent> {
        self.list.get(self.first_after(first))?.part(first, end)
    }

    /// Removes the first run of pages from `first` to before `end`, and returns it.
    ///
    /// # Errors
    ///
    /// If there is no memory to split an extent. Then nothing has changed.
    pub fn take(&mut self, first: u64, end: u64) -> Result<Option<Extent>, Errno> {
        let at = self.first_after(first);
        let Some(extent) = self.list.get(at).copied() else {
            return Ok(None);
        };
        let Some(part) = extent.part(first, end) else {
            return Ok(None);
        };
        let before = extent.part(0, part.index);
        let after = extent.part(part.end(), u64::MAX);
        match (before, after) {
            (None, None) => {
                self.list.remove(at);
            }
            (Some(rest), None) | (None, Some(rest)) => {
                if let Some(slot) = self.list.get_mut(at) {
                    *slot = rest;
                }
            }
            (Some(before), Some(after)) => {
                self.list.try_reserve(1)?;
                if let Some(slot) = self.list.get_mut(at) {
                    *slot = before;
                }
                self.list.insert(at.saturating_add(1), after);
            }
        }
        self.pages = self.pages.saturating_sub(part.count);
        Ok(Some(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(index: u64, pfn: u64, count: u64) -> Extent {
        Extent { index, pfn, count }
    }

    fn some() -> Extents {
        let mut extents = Extents::default();
        for e in [extent(0, 100, 4), extent(4, 104, 4), extent(10, 200, 5)] {
            extents.push(e).unwrap();
        }
        extents
    }

    #[test]
    fn neighbours_merge_and_lookups_agree() {
        let extents = some();
        assert_eq!(extents.iter().count(), 2);
        assert_eq!(extents.pages(), 13);
        for index in 0..20 {
            let has = index < 8 || (10..15).contains(&index);
            assert_eq!(extents.has(index), has, "{index}");
            let next = (index..20).find(|i| extents.has(*i));
            assert_eq!(extents.next(index), next, "{index}");
            let gap = (index..).find(|i| !extents.has(*i)).unwrap();
            assert_eq!(extents.gap(index), gap, "{index}");
        }
    }

    #[test]
    fn lost_pages_do_not_merge_and_come_out_one_by_one() {
        let mut extents = Extents::default();
        for e in [
            extent(0, 100, 2),
            Extent::lost(2),
            Extent::lost(3),
            extent(4, 104, 1),
        ] {
            extents.push(e).unwrap();
        }
        assert_eq!((extents.iter().count(), extents.pages()), (4, 5));
        assert_eq!(extents.next_good(1), Some(1));
        assert_eq!(extents.next_good(2), Some(4));
        assert_eq!(extents.next(2), Some(2));
        assert_eq!(extents.take(3, 4), Ok(Some(Extent::lost(3))));
        assert_eq!(extents.take(0, 9), Ok(Some(extent(0, 100, 2))));
        assert!(extents.find(0, 9).is_some_and(|e| e.is_lost()));
        let rest = extent(0, 100, 5).behind(2);
        assert_eq!(rest, Some(extent(2, 102, 3)));
        assert_eq!(extent(0, 100, 5).behind(5), None);
    }

    #[test]
    fn taking_from_the_middle_leaves_both_ends() {
        let mut extents = some();
        assert_eq!(extents.take(2, 5), Ok(Some(extent(2, 102, 3))));
        assert_eq!(extents.take(2, 5), Ok(None));
        assert_eq!(
            extents.iter().collect::<Vec<_>>(),
            [extent(0, 100, 2), extent(5, 105, 3), extent(10, 200, 5)]
        );
        assert_eq!(extents.take(0, u64::MAX), Ok(Some(extent(0, 100, 2))));
        assert_eq!(extents.take(6, 12), Ok(Some(extent(6, 106, 2))));
        assert_eq!(extents.take(6, 12), Ok(Some(extent(10, 200, 2))));
        assert_eq!(extents.pages(), 4);
    }
}
