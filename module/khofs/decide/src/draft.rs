//! A tree while khofs writes it: its bytes, its pages, and the pages whose content is lost.

use crate::extents::Extent;
use crate::pack::{Attr, S_IFREG, Writer, range};
use alloc::vec::Vec;
use kho::{PhysRange, RangeSet};
use kho_decide::errno::{EINVAL, Errno};

/// A tree that khofs is writing.
pub struct Draft {
    writer: Writer,
    runs: Vec<PhysRange>,
    count: u64,
    lost: u64,
}

/// A complete tree.
pub struct Written {
    /// Bytes of the tree.
    pub bytes: Vec<u8>,
    /// Pages of the files in the tree.
    pub data: RangeSet,
    /// Number of pages whose content is lost.
    pub lost: u64,
}

impl Draft {
    /// Begins a tree. The root is its first inode.
    ///
    /// # Errors
    ///
    /// No memory; the same holds for the methods below.
    pub fn new(next_ino: u64) -> Result<Self, Errno> {
        Ok(Self {
            writer: Writer::new(next_ino)?,
            runs: Vec::new(),
            count: 0,
            lost: 0,
        })
    }

    /// The number of the next inode.
    pub fn next(&self) -> u64 {
        self.count
    }

    /// Writes an entry, see [`Writer::entry`].
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn entry(&mut self, parent: u64, name: &[u8], inode: u64) -> Result<(), Errno> {
        self.writer.entry(parent, name, inode)
    }

    /// Writes an inode. Reads `extents` for a regular file only. `good` gets a page frame and a number of pages from
    /// there on, and returns the number of good pages before the first one whose memory failed.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn inode<'a>(
        &mut self,
        attr: &Attr,
        target: &[u8],
        attributes: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
        extents: impl Iterator<Item = Extent>,
        good: impl Fn(u64, u64) -> u64,
    ) -> Result<(), Errno> {
        self.count = self.count.saturating_add(1);
        self.writer.inode(attr, target, attributes)?;
        if attr.kind() == S_IFREG {
            self.extents(extents, good)?;
        }
        Ok(())
    }

    fn extents(
        &mut self,
        extents: impl Iterator<Item = Extent>,
        good: impl Fn(u64, u64) -> u64,
    ) -> Result<(), Errno> {
        let mut run: Option<Extent> = None;
        for next in extents {
            let mut rest = Some(next);
            while let Some(part) = rest {
                let good = match part.is_lost() {
                    true => 0,
                    false => good(part.pfn, part.count),
                };
                if good > 0 {
                    self.join(
                        &mut run,
                        Extent {
                            count: good,
                            ..part
                        },
                    )?;
                }
                if good < part.count {
                    // A reader of the page gets an error, here and in the next kernel: neither the present content of
                    // the memory nor zeros.
                    self.lost = self.lost.saturating_add(1);
                    self.join(&mut run, Extent::lost(part.index.saturating_add(good)))?;
                }
                rest = part.behind(good.saturating_add(1));
            }
        }
        self.extent(run)?;
        self.writer.extents_end()
    }

    /// Adds `next` to `run`, or writes `run` and begins a new run with `next`.
    fn join(&mut self, run: &mut Option<Extent>, next: Extent) -> Result<(), Errno> {
        match run {
            Some(run)
                if run.end() == next.index && run.pfn.saturating_add(run.count) == next.pfn =>
            {
                run.count = run.count.saturating_add(next.count);
                Ok(())
            }
            _ => {
                let before = run.replace(next);
                self.extent(before)
            }
        }
    }

    fn extent(&mut self, extent: Option<Extent>) -> Result<(), Errno> {
        let Some(extent) = extent else { return Ok(()) };
        self.writer.extent(extent)?;
        if extent.is_lost() {
            return Ok(());
        }
        let range = range(extent).ok_or(EINVAL)?;
        // Small files are neighbours.
        if let Some(last) = self.runs.last_mut()
            && last.end() == range.start()
            && let Ok(both) = PhysRange::from_bounds(last.start(), range.end())
        {
            *last = both;
            return Ok(());
        }
        self.runs.try_reserve(1)?;
        self.runs.push(range);
        Ok(())
    }

    /// Ends the tree.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn finish(mut self) -> Result<Written, Errno> {
        self.writer.end()?;
        Ok(Written {
            bytes: self.writer.finish(),
            data: RangeSet::from_ranges(self.runs)?,
            lost: self.lost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::pack::{Reader, S_IFDIR};
    use std::vec::Vec;

    fn none<'a>() -> core::array::IntoIter<(&'a [u8], &'a [u8]), 0> {
        [].into_iter()
    }

    /// Writes a file with these extents (index, page frame, pages), on a machine on which these pages failed.
    fn write(extents: &[(u64, u64, u64)], failed: &[u64]) -> (Written, Vec<(u64, u64, u64)>) {
        let dir = Attr {
            ino: 1,
            mode: S_IFDIR,
            ..Attr::default()
        };
        let file = Attr {
            ino: 2,
            mode: S_IFREG,
            ..Attr::default()
        };
        let good = |pfn: u64, count: u64| {
            let bad = (pfn..pfn + count).find(|pfn| failed.contains(pfn));
            bad.map_or(count, |bad| bad - pfn)
        };
        let mut draft = Draft::new(3).unwrap();
        draft
            .inode(&dir, b"", none(), core::iter::empty(), good)
            .unwrap();
        draft.entry(0, b"file", draft.next()).unwrap();
        let extents = extents
            .iter()
            .map(|&(index, pfn, count)| Extent { index, pfn, count });
        draft.inode(&file, b"", none(), extents, good).unwrap();
        assert_eq!(draft.next(), 2);
        let written = draft.finish().unwrap();
        // The next kernel trusts the tree.
        check(&written.bytes, &written.data).unwrap();
        let (mut reader, _) = Reader::new(&written.bytes).unwrap();
        reader.inode().unwrap();
        reader.entry().unwrap();
        reader.inode().unwrap();
        let mut read = Vec::new();
        while let Some(extent) = reader.extent().unwrap() {
            read.push((extent.index, extent.pfn, extent.count));
        }
        (written, read)
    }

    #[test]
    fn neighbours_are_one_extent_and_one_range() {
        let (written, read) = write(&[(0, 100, 2), (2, 102, 3), (7, 105, 1), (9, 50, 1)], &[]);
        assert_eq!(read, [(0, 100, 5), (7, 105, 1), (9, 50, 1)]);
        assert_eq!((written.data.len(), written.lost), (2, 0));
    }

    #[test]
    fn what_failed_is_lost_page_by_page() {
        // Failed pages at the ends, in the middle and side by side; one page was lost before.
        let (written, read) = write(
            &[(0, 100, 8), (8, 0, 1), (9, 108, 1)],
            &[100, 103, 104, 107],
        );
        assert_eq!(
            read,
            [
                (0, 0, 1),
                (1, 101, 2),
                (3, 0, 1),
                (4, 0, 1),
                (5, 105, 2),
                (7, 0, 1),
                (8, 0, 1),
                (9, 108, 1)
            ]
        );
        assert_eq!(written.lost, 5);
        assert_eq!(written.data.total(), 5 * kho::PAGE_SIZE);
        let (written, read) = write(&[(0, 100, 1)], &[100]);
        assert_eq!(read, [(0, 0, 1)]);
        assert!(written.data.is_empty());
    }
}
