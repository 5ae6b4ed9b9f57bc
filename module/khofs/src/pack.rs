//! The tree of an instance as bytes: what is written down before kexec and read after it. Layout:
//! `docs/src/abi/khofs.md`.
//!
//! The reader believes nothing: it checks the whole before anything is made of it ([`check`]), so that
//! what is made later cannot fail for what is written.

use crate::errno::{EBADMSG, Errno};
use crate::extents::Extent;
use alloc::vec::Vec;
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

/// First bytes.
const MAGIC: [u8; 8] = *b"khofs\0v1";

/// Types of files in `mode` (`include/uapi/linux/stat.h`).
const S_IFMT: u32 = 0o170_000;
/// Directory.
pub const S_IFDIR: u32 = 0o040_000;
/// Regular file.
pub const S_IFREG: u32 = 0o100_000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// FIFO, character device, block device, socket.
const OTHERS: [u32; 4] = [0o010_000, 0o020_000, 0o060_000, 0o140_000];

/// Longest name (`NAME_MAX`) and symbolic link (`PATH_MAX`).
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// Largest size of a file, `MAX_LFS_FILESIZE` of a 64-bit kernel.
const MAX_SIZE: u64 = i64::MAX as u64;

/// What is known of an inode besides its data.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Times: seconds since 1970.
    pub atime: i64,
    /// Last write.
    pub mtime: i64,
    /// Last change of the inode.
    pub ctime: i64,
    /// Their nanoseconds.
    pub atime_ns: u32,
    /// As above.
    pub mtime_ns: u32,
    /// As above.
    pub ctime_ns: u32,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Links; not written, but counted.
    pub nlink: u32,
    /// Device number (`new_encode_dev`).
    pub rdev: u32,
}

const _: () = assert!(size_of::<Attr>() == 72);

impl Attr {
    /// The type in `mode`.
    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }
}

/// Writes bytes.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins with the header.
    ///
    /// # Errors
    ///
    /// No memory; so for all that follow.
    pub fn new(next_ino: u64) -> Result<Self, Errno> {
        let mut writer = Self::default();
        writer.raw(&MAGIC)?;
        writer.number(next_ino)?;
        Ok(writer)
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.bytes.try_reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Seven bits a byte, the lowest first, the top bit set in all but the last.
    fn number(&mut self, value: u64) -> Result<(), Errno> {
        let mut buf = [0u8; 10];
        let mut len = 0usize;
        let mut rest = value;
        for slot in &mut buf {
            *slot = (rest & 0x7f) as u8;
            rest >>= 7;
            len = len.saturating_add(1);
            if rest == 0 {
                break;
            }
            *slot |= 0x80;
        }
        self.raw(buf.get(..len).unwrap_or(&[]))
    }

    /// Small negative numbers are short too.
    fn signed(&mut self, value: i64) -> Result<(), Errno> {
        self.number((value.wrapping_shl(1) ^ (value >> 63)) as u64)
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.number(bytes.len() as u64)?;
        self.raw(bytes)
    }

    /// The root comes first, as an inode without an entry.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn inode<'a>(
        &mut self,
        attr: &Attr,
        target: &[u8],
        attributes: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), Errno> {
        self.number(attr.ino)?;
        self.number(u64::from(attr.mode))?;
        self.number(u64::from(attr.uid))?;
        self.number(u64::from(attr.gid))?;
        self.number(u64::from(attr.rdev))?;
        self.number(attr.size)?;
        for (seconds, nanoseconds) in [
            (attr.atime, attr.atime_ns),
            (attr.mtime, attr.mtime_ns),
            (attr.ctime, attr.ctime_ns),
        ] {
            self.signed(seconds)?;
            self.number(u64::from(nanoseconds))?;
        }
        self.number(attributes.len() as u64)?;
        for (name, value) in attributes {
            self.text(name)?;
            self.text(value)?;
        }
        if attr.kind() == S_IFLNK {
            self.text(target)?;
        }
        Ok(())
    }

    /// An extent of the regular file that was written last, ascending.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn extent(&mut self, extent: Extent) -> Result<(), Errno> {
        self.number(extent.count)?;
        self.number(extent.index)?;
        self.number(extent.pfn)
    }

    /// Ends the extents of a regular file.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn extents_end(&mut self) -> Result<(), Errno> {
        self.number(0)
    }

    /// An entry: the number of its directory and of its inode in the order in which inodes are written. The
    /// number after the last one means that the inode follows.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn entry(&mut self, parent: u64, name: &[u8], inode: u64) -> Result<(), Errno> {
        self.text(name)?;
        self.number(parent)?;
        self.number(inode)
    }

    /// Ends the whole.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn end(&mut self) -> Result<(), Errno> {
        self.number(0)
    }
}

/// An inode as it is read.
pub struct Inode<'a> {
    /// What is known of it.
    pub attr: Attr,
    /// Of a symbolic link.
    pub target: &'a [u8],
    /// Bytes of the attributes.
    attributes: Reader<'a>,
    count: u64,
}

impl<'a> Inode<'a> {
    /// Names and values of its extended attributes.
    pub fn attributes(
        &self,
    ) -> impl Iterator<Item = Result<(&'a [u8], &'a [u8]), Errno>> + use<'a> {
        let mut reader = self.attributes.clone();
        (0..self.count).map(move |_| Ok((reader.text()?, reader.text()?)))
    }
}

/// An entry as it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Number of the directory.
    pub parent: u64,
    /// Name.
    pub name: &'a [u8],
    /// Number of the inode.
    pub inode: u64,
}

/// Reads bytes.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The reader behind the header, and the next inode number.
    ///
    /// # Errors
    ///
    /// [`EBADMSG`] for what is malformed; so for all that follow.
    pub fn new(bytes: &'a [u8]) -> Result<(Self, u64), Errno> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(EBADMSG)?;
        let mut reader = Self { rest };
        let next_ino = reader.number()?;
        Ok((reader, next_ino))
    }

    fn number(&mut self) -> Result<u64, Errno> {
        let mut value = 0u64;
        for shift in (0..64u32).step_by(7) {
            let (first, rest) = self.rest.split_first().ok_or(EBADMSG)?;
            self.rest = rest;
            let bits = u64::from(first & 0x7f);
            let shifted = bits.wrapping_shl(shift);
            if shifted >> shift != bits {
                return Err(EBADMSG);
            }
            value |= shifted;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(EBADMSG)
    }

    fn small(&mut self) -> Result<u32, Errno> {
        u32::try_from(self.number()?).map_err(|_| EBADMSG)
    }

    fn signed(&mut self) -> Result<i64, Errno> {
        let value = self.number()?;
        Ok(((value >> 1) as i64) ^ ((value & 1) as i64).wrapping_neg())
    }

    fn text(&mut self) -> Result<&'a [u8], Errno> {
        let len = usize::try_from(self.number()?).map_err(|_| EBADMSG)?;
        let (text, rest) = self.rest.split_at_checked(len).ok_or(EBADMSG)?;
        self.rest = rest;
        Ok(text)
    }

    /// The next inode; its extents, if it is a regular file, have to be read behind it.
    ///
    /// # Errors
    ///
    /// [`EBADMSG`].
    pub fn inode(&mut self) -> Result<Inode<'a>, Errno> {
        let mut attr = Attr {
            ino: self.number()?,
            mode: self.small()?,
            uid: self.small()?,
            gid: self.small()?,
            rdev: self.small()?,
            size: self.number()?,
            ..Attr::default()
        };
        (attr.atime, attr.atime_ns) = (self.signed()?, self.small()?);
        (attr.mtime, attr.mtime_ns) = (self.signed()?, self.small()?);
        (attr.ctime, attr.ctime_ns) = (self.signed()?, self.small()?);
        let count = self.number()?;
        let attributes = self.clone();
        for _ in 0..count {
            self.text()?;
            self.text()?;
        }
        let target: &[u8] = if attr.kind() == S_IFLNK {
            self.text()?
        } else {
            &[]
        };
        Ok(Inode {
            attr,
            target,
            attributes,
            count,
        })
    }

    /// The next extent of a regular file, `None` after the last.
    ///
    /// # Errors
    ///
    /// [`EBADMSG`].
    pub fn extent(&mut self) -> Result<Option<Extent>, Errno> {
        let count = self.number()?;
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(Extent {
            count,
            index: self.number()?,
            pfn: self.number()?,
        }))
    }

    /// The next entry, `None` after the last.
    ///
    /// # Errors
    ///
    /// [`EBADMSG`].
    pub fn entry(&mut self) -> Result<Option<Entry<'a>>, Errno> {
        let name = self.text()?;
        if name.is_empty() {
            return Ok(None);
        }
        Ok(Some(Entry {
            name,
            parent: self.number()?,
            inode: self.number()?,
        }))
    }
}

/// What [`check`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Links of each inode, in order.
    pub links: Vec<u32>,
    /// The next inode number.
    pub next_ino: u64,
    /// Pages of data.
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

/// Reads everything, and compares the pages that it names with `mem`: each page of `mem` belongs to exactly one place
/// in one file.
///
/// # Errors
///
/// [`EBADMSG`]; no memory.
pub fn check(bytes: &[u8], mem: &RangeSet) -> Result<Summary, Errno> {
    let (mut reader, next_ino) = Reader::new(bytes)?;
    let mut links: Vec<u32> = Vec::new();
    // Of each inode: whether it is a directory.
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
    if !reader.rest.is_empty() {
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
    // A directory has its entry and its own ".", and the ".." of each in it.
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
        runs.try_reserve(1)?;
        runs.push(range(extent).ok_or(EBADMSG)?);
    }
    Ok(())
}

/// Where an extent is in memory.
pub fn range(extent: Extent) -> Option<PhysRange> {
    let start = extent.pfn.checked_mul(PAGE_SIZE)?;
    PhysRange::new(PhysAddr::new(start), extent.count.checked_mul(PAGE_SIZE)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// A directory with a file of two names, a link and a directory.
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
