//! The decision whether to trust a written tree ([`crate::pack`]). khofs checks the whole tree before it makes an
//! inode, so that a fault of the tree cannot make it fail halfway.

use crate::pack::{Inode, Reader, S_IFDIR, S_IFLNK, S_IFREG, range};
use alloc::vec::Vec;
use kho::{PAGE_SIZE, PhysRange, RangeSet};
use kho_decide::errno::{EBADMSG, Errno};

/// FIFO, character device, block device, socket.
const OTHERS: [u32; 4] = [0o010_000, 0o020_000, 0o060_000, 0o140_000];

/// Longest name (`NAME_MAX`) and symbolic link (`PATH_MAX`).
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// Largest size of a file, `MAX_LFS_FILESIZE` of a 64-bit kernel.
const MAX_SIZE: u64 = i64::MAX as u64;

/// Result of [`check`].
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of links of each inode, in order.
    pub links: Vec<u32>,
    /// The next inode number.
    pub next_ino: u64,
    /// Number of pages of data.
    pub pages: u64,
}

fn check_inode(inode: &Inode<'_>) -> Result<(), Errno> {
    let attr = &inode.attr;
    let known = [S_IFDIR, S_IFREG, S_IFLNK].contains(&attr.kind()) || OTHERS.contains(&attr.kind());
    let times = [attr.atime_ns, attr.mtime_ns, attr.ctime_ns];
    let link = attr.kind() != S_IFLNK
        || (1..=PATH_MAX).contains(&inode.target.len())
            && !inode.target.contains(&0)
            && attr.size == inode.target.len() as u64;
    let named = inode.attributes().all(|attribute| {
        attribute.is_ok_and(|(name, _)| (1..=NAME_MAX).contains(&name.len()) && !name.contains(&0))
    });
    let good = known
        && link
        && named
        && attr.mode <= 0o177_777
        && attr.ino != 0
        && attr.size <= MAX_SIZE
        && ![attr.uid, attr.gid].contains(&u32::MAX)
        && times.iter().all(|ns| *ns < 1_000_000_000);
    if good { Ok(()) } else { Err(EBADMSG) }
}

fn check_name(name: &[u8]) -> bool {
    name.len() <= NAME_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&0)
        && !name.contains(&b'/')
}

/// Reads the whole tree, and compares its pages with `mem`: each page of `mem` must be at exactly one place in one
/// file.
///
/// # Errors
///
/// [`EBADMSG`] if the tree is malformed, or its pages are not those of `mem`; no memory.
pub fn check(bytes: &[u8], mem: &RangeSet) -> Result<Summary, Errno> {
    let (mut reader, next_ino) = Reader::new(bytes)?;
    let mut links: Vec<u32> = Vec::new();
    // For each inode: whether it is a directory.
    let mut dirs: Vec<bool> = Vec::new();
    let mut runs: Vec<PhysRange> = Vec::new();
    let mut pages = 0u64;
    read_inode(&mut reader, &mut links, &mut dirs, &mut runs, &mut pages)?;
    if dirs.first() != Some(&true) {
        return Err(EBADMSG);
    }
    while let Some(entry) = reader.entry()? {
        let parent = usize::try_from(entry.parent).map_err(|_| EBADMSG)?;
        let inode = usize::try_from(entry.inode).map_err(|_| EBADMSG)?;
        if !check_name(entry.name) || dirs.get(parent) != Some(&true) || inode > links.len() {
            return Err(EBADMSG);
        }
        if inode == links.len() {
            read_inode(&mut reader, &mut links, &mut dirs, &mut runs, &mut pages)?;
        } else if dirs.get(inode) == Some(&true) {
            return Err(EBADMSG);
        }
        let to = if dirs.get(inode) == Some(&true) {
            parent
        } else {
            inode
        };
        let count = links.get_mut(to).ok_or(EBADMSG)?;
        *count = count.checked_add(1).ok_or(EBADMSG)?;
    }
    if !reader.is_at_end() {
        return Err(EBADMSG);
    }
    kho::sort::sort(&mut runs);
    if runs
        .windows(2)
        .any(|w| matches!(w, [a, b] if a.end() > b.start()))
    {
        return Err(EBADMSG);
    }
    if RangeSet::from_ranges(runs)? != *mem {
        return Err(EBADMSG);
    }
    Ok(Summary {
        links,
        next_ino,
        pages,
    })
}

fn read_inode(
    reader: &mut Reader<'_>,
    links: &mut Vec<u32>,
    dirs: &mut Vec<bool>,
    runs: &mut Vec<PhysRange>,
    pages: &mut u64,
) -> Result<(), Errno> {
    let inode = reader.inode()?;
    check_inode(&inode)?;
    let dir = inode.attr.kind() == S_IFDIR;
    links.try_reserve(1)?;
    // A directory has its entry, its own ".", and the ".." of each directory in it.
    links.push(if dir { 2 } else { 0 });
    dirs.try_reserve(1)?;
    dirs.push(dir);
    if inode.attr.kind() != S_IFREG {
        return Ok(());
    }
    let mut from = 0u64;
    while let Some(extent) = reader.extent()? {
        let end = extent.index.checked_add(extent.count).ok_or(EBADMSG)?;
        if extent.index < from || end > MAX_SIZE / PAGE_SIZE {
            return Err(EBADMSG);
        }
        from = end;
        *pages = pages.checked_add(extent.count).ok_or(EBADMSG)?;
        if extent.is_lost() {
            if extent.count != 1 {
                return Err(EBADMSG);
            }
            continue;
        }
        runs.try_reserve(1)?;
        runs.push(range(extent).ok_or(EBADMSG)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extents::Extent;
    use crate::pack::{Attr, Writer};

    fn attr(ino: u64, mode: u32) -> Attr {
        Attr {
            ino,
            mode,
            atime: -5,
            mtime: 1_700_000_000,
            mtime_ns: 999_999_999,
            uid: 1000,
            ..Attr::default()
        }
    }

    fn none<'a>() -> core::array::IntoIter<(&'a [u8], &'a [u8]), 0> {
        [].into_iter()
    }

    fn mem() -> RangeSet {
        RangeSet::from_ranges([range(Extent {
            index: 0,
            pfn: 100,
            count: 5,
        })
        .unwrap()])
        .unwrap()
    }

    /// Makes the tree of a directory with a file of two names, a link and a directory.
    fn sample() -> Vec<u8> {
        let mut w = Writer::new(9).unwrap();
        w.inode(&attr(1, S_IFDIR | 0o755), b"", none()).unwrap();
        w.entry(0, b"file", 1).unwrap();
        let file = Attr {
            size: 50_000,
            ..attr(2, S_IFREG | 0o644)
        };
        let attributes = [(&b"user.x"[..], &b"\0\xff"[..])];
        w.inode(&file, b"", attributes.into_iter()).unwrap();
        w.extent(Extent {
            index: 0,
            pfn: 102,
            count: 3,
        })
        .unwrap();
        w.extent(Extent {
            index: 9,
            pfn: 100,
            count: 2,
        })
        .unwrap();
        w.extents_end().unwrap();
        w.entry(0, b"dir", 2).unwrap();
        w.inode(&attr(3, S_IFDIR), b"", none()).unwrap();
        w.entry(2, b"again", 1).unwrap();
        w.entry(2, b"link", 3).unwrap();
        let link = Attr {
            size: 4,
            ..attr(4, S_IFLNK | 0o777)
        };
        w.inode(&link, b"../x", none()).unwrap();
        w.end().unwrap();
        w.finish()
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = sample();
        let summary = check(&bytes, &mem()).unwrap();
        assert_eq!(summary.links, [3, 2, 2, 1]);
        assert_eq!((summary.next_ino, summary.pages), (9, 5));
        let (mut r, _) = Reader::new(&bytes).unwrap();
        assert_eq!(r.inode().unwrap().attr, attr(1, S_IFDIR | 0o755));
        let entry = r.entry().unwrap().unwrap();
        assert_eq!(
            (entry.parent, entry.name, entry.inode),
            (0, &b"file"[..], 1)
        );
        let file = r.inode().unwrap();
        assert_eq!(file.attr.size, 50_000);
        let all: Vec<_> = file.attributes().map(Result::unwrap).collect();
        assert_eq!(all, [(&b"user.x"[..], &b"\0\xff"[..])]);
        assert_eq!(
            r.extent().unwrap(),
            Some(Extent {
                index: 0,
                pfn: 102,
                count: 3
            })
        );
    }

    #[test]
    fn pages_have_to_be_those_of_mem() {
        let bytes = sample();
        let all = mem();
        let mut less = all.try_clone().unwrap();
        less.remove(
            range(Extent {
                index: 0,
                pfn: 104,
                count: 1,
            })
            .unwrap(),
        )
        .unwrap();
        let mut more = all.try_clone().unwrap();
        more.insert(
            range(Extent {
                index: 0,
                pfn: 105,
                count: 1,
            })
            .unwrap(),
        )
        .unwrap();
        assert_eq!(check(&bytes, &less), Err(EBADMSG));
        assert_eq!(check(&bytes, &more), Err(EBADMSG));
    }

    #[test]
    fn lost_pages_are_no_pages_of_mem() {
        let build = |count: u64| {
            let mut w = Writer::new(9).unwrap();
            w.inode(&attr(1, S_IFDIR), b"", none()).unwrap();
            w.entry(0, b"file", 1).unwrap();
            w.inode(&attr(2, S_IFREG), b"", none()).unwrap();
            for (index, pfn, count) in [(0, 100, 2), (2, 0, count), (9, 102, 3)] {
                w.extent(Extent { index, pfn, count }).unwrap();
            }
            w.extents_end().unwrap();
            w.end().unwrap();
            check(&w.finish(), &mem()).map(|summary| summary.pages)
        };
        assert_eq!(build(1), Ok(6));
        assert_eq!(build(2), Err(EBADMSG));
    }

    #[test]
    fn any_cut_and_any_changed_byte_is_survived() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert_eq!(
                check(bytes.get(..len).unwrap(), &mem()),
                Err(EBADMSG),
                "{len}"
            );
        }
        for at in 0..bytes.len() {
            for value in 0..=255u8 {
                let mut bad = bytes.clone();
                *bad.get_mut(at).unwrap() = value;
                let _ = check(&bad, &mem());
            }
        }
    }

    #[test]
    fn trees_that_are_none_are_refused() {
        let build = |entries: &[(u64, &[u8], u64)]| {
            let mut w = Writer::new(1).unwrap();
            w.inode(&attr(1, S_IFDIR), b"", none()).unwrap();
            for (parent, name, inode) in entries {
                w.entry(*parent, name, *inode).unwrap();
                if *inode == 1 {
                    w.inode(&attr(2, S_IFDIR), b"", none()).unwrap();
                }
            }
            w.end().unwrap();
            check(&w.finish(), &RangeSet::new())
        };
        assert!(build(&[(0, b"d", 1)]).is_ok());
        for bad in [
            &[(1, &b"d"[..], 1)][..],
            &[(0, b"d", 2)],
            &[(0, b"d", 0)],
            &[(0, b"..", 1)],
            &[(0, b"a/b", 1)],
        ] {
            assert_eq!(build(bad), Err(EBADMSG), "{bad:?}");
        }
    }
}
