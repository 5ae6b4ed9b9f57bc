//! The tree of an instance as bytes, which khofs writes before the kexec and reads after it. Layout:
//! `docs/src/abi/khofs.md`.
//!
//! The reader does not validate the tree: [`crate::check`] decides whether to trust it.

use crate::extents::Extent;
use alloc::vec::Vec;
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_decide::errno::{EBADMSG, Errno};

/// First bytes of a tree.
const MAGIC: [u8; 8] = *b"khofs\0v1";

/// Mask of the file type in `mode` (`include/uapi/linux/stat.h`).
const S_IFMT: u32 = 0o170_000;
/// Directory.
pub const S_IFDIR: u32 = 0o040_000;
/// Regular file.
pub const S_IFREG: u32 = 0o100_000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120_000;

/// Attributes of an inode, besides its data.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Last access, in seconds since 1970.
    pub atime: i64,
    /// Last write, in seconds since 1970.
    pub mtime: i64,
    /// Last change of the inode, in seconds since 1970.
    pub ctime: i64,
    /// Nanoseconds of `atime`.
    pub atime_ns: u32,
    /// Nanoseconds of `mtime`.
    pub mtime_ns: u32,
    /// Nanoseconds of `ctime`.
    pub ctime_ns: u32,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links. It is not written, but counted when khofs reads the tree.
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

/// Writes a tree as bytes.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a tree with the header.
    ///
    /// # Errors
    ///
    /// No memory; the same holds for the methods below.
    pub fn new(next_ino: u64) -> Result<Self, Errno> {
        let mut writer = Self::default();
        writer.raw(&MAGIC)?;
        writer.number(next_ino)?;
        Ok(writer)
    }

    /// Returns the bytes that were written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.bytes.try_reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes a number: seven bits in each byte, the lowest first. The top bit is set in all bytes but the last.
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

    /// Writes a signed number in a form that is short for small negative numbers too.
    fn signed(&mut self, value: i64) -> Result<(), Errno> {
        self.number((value.wrapping_shl(1) ^ (value >> 63)) as u64)
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.number(bytes.len() as u64)?;
        self.raw(bytes)
    }

    /// Writes an inode. The root comes first and has no entry.
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

    /// Writes an extent of the last inode, which is a regular file. Extents must ascend.
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

    /// Writes an entry: its name, and the number of its directory and of its inode in the order in which inodes are
    /// written. If the inode's number is the next unused one, the inode follows.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn entry(&mut self, parent: u64, name: &[u8], inode: u64) -> Result<(), Errno> {
        self.text(name)?;
        self.number(parent)?;
        self.number(inode)
    }

    /// Ends the tree.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn end(&mut self) -> Result<(), Errno> {
        self.number(0)
    }
}

/// An inode, as read from a tree.
pub struct Inode<'a> {
    /// Attributes of the inode.
    pub attr: Attr,
    /// Target of a symbolic link; empty for other inodes.
    pub target: &'a [u8],
    /// Reader at the start of the extended attributes.
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

/// An entry, as read from a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Number of the directory.
    pub parent: u64,
    /// Name.
    pub name: &'a [u8],
    /// Number of the inode.
    pub inode: u64,
}

/// Reads a tree from bytes.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Makes a reader behind the header. Returns it, and the next inode number.
    ///
    /// # Errors
    ///
    /// [`EBADMSG`] if the bytes are malformed; the same holds for the methods below.
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

    /// Whether all bytes were read.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next inode. If it is a regular file, the caller must read its extents next.
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

/// Physical range of an extent; `None` if the range is not valid.
pub fn range(extent: Extent) -> Option<PhysRange> {
    let start = extent.pfn.checked_mul(PAGE_SIZE)?;
    PhysRange::new(PhysAddr::new(start), extent.count.checked_mul(PAGE_SIZE)?).ok()
}
