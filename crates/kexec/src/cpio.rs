//! Writer, and reader as far as kho needs one, of cpio archives in the "newc" format, which the kernel unpacks into its
//! root file system: `Documentation/driver-api/early-userspace/buffer-format.rst`, `init/initramfs.c`.
//!
//! The writer is deterministic: the same calls give the same bytes. Owner and group are root, times are 0.

use std::fmt::Write as _;
use std::ops::Range;

use thiserror::Error;

use crate::bytes::len64;

/// Longest path: the kernel's `PATH_MAX`, with the terminating NUL.
pub const MAX_NAME: usize = 4096;

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;
const HEADER_LEN: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
/// Archives are padded to a multiple of this many bytes, as cpio(1) pads them.
const BLOCK: usize = 512;

/// Reason why the writer refuses an entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CpioError {
    /// The name is empty, has a NUL, begins with `/`, is too long, or is the name that ends an archive.
    #[error("{name:?} cannot be the name of a cpio entry: it has to be relative, without NUL, and at most {} bytes long", MAX_NAME - 1)]
    Name {
        /// The name, with invalid UTF-8 replaced.
        name: String,
    },
    /// The content is too long: the format has a 32-bit field for its length.
    #[error("{name:?} is {len:#x} bytes long, a cpio entry holds less than 4 GiB")]
    TooLarge {
        /// The entry.
        name: String,
        /// Bytes of its content.
        len: u64,
    },
    /// The mode has bits other than permission bits.
    #[error("mode {mode:o} of {name:?} has more than permission bits")]
    Mode {
        /// The entry.
        name: String,
        /// The mode that was given.
        mode: u32,
    },
    /// More entries than inode numbers.
    #[error("too many cpio entries")]
    TooMany,
}

/// Kind of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Character device with major and minor number.
    Char(u32, u32),
    /// Block device with major and minor number.
    Block(u32, u32),
}

/// An archive being written.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
    last_inode: u32,
}

impl Writer {
    /// Makes an empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty archive with memory for `bytes` bytes; `None` if there is not so much.
    pub fn with_room(bytes: u64) -> Option<Self> {
        let mut out = Vec::new();
        out.try_reserve_exact(usize::try_from(bytes).ok()?).ok()?;
        Some(Self { out, last_inode: 0 })
    }

    /// Adds a directory, which must come before the entries in it. `mode` is its permission bits.
    ///
    /// # Errors
    ///
    /// [`CpioError`], as for every other entry.
    pub fn dir(&mut self, name: &[u8], mode: u32) -> Result<(), CpioError> {
        let inode = self.inode()?;
        self.entry(
            name,
            S_IFDIR | permissions(name, mode)?,
            inode,
            2,
            (0, 0),
            b"",
        )
    }

    /// Adds a regular file.
    ///
    /// # Errors
    ///
    /// See [`dir`](Self::dir).
    pub fn file(&mut self, name: &[u8], mode: u32, data: &[u8]) -> Result<(), CpioError> {
        self.linked(&[name], mode, data)
    }

    /// Adds a regular file of `len` zeros. Returns the offsets of its content in the archive, where the caller fills it
    /// in.
    ///
    /// # Errors
    ///
    /// See [`dir`](Self::dir).
    pub fn zeros(&mut self, name: &[u8], mode: u32, len: u64) -> Result<Range<usize>, CpioError> {
        let too_large = |_| CpioError::TooLarge {
            name: String::from_utf8_lossy(name).into_owned(),
            len,
        };
        let field = u32::try_from(len).map_err(too_large)?;
        let inode = self.inode()?;
        check_name(name)?;
        let mode = S_IFREG | permissions(name, mode)?;
        self.header(name, mode, inode, 1, (0, 0), field);
        let start = self.out.len();
        let end = start.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        self.out.resize(end, 0);
        self.pad();
        Ok(start..end)
    }

    /// Adds a regular file with several names. The last name's entry has the content, as the kernel (`maybe_link`) and
    /// cpio(1) expect.
    ///
    /// # Errors
    ///
    /// See [`dir`](Self::dir).
    pub fn linked(&mut self, names: &[&[u8]], mode: u32, data: &[u8]) -> Result<(), CpioError> {
        let inode = self.inode()?;
        let links = u32::try_from(names.len()).map_err(|_| CpioError::TooMany)?;
        let Some((last, others)) = names.split_last() else {
            return Ok(());
        };
        for name in others {
            self.entry(
                name,
                S_IFREG | permissions(name, mode)?,
                inode,
                links,
                (0, 0),
                b"",
            )?;
        }
        self.entry(
            last,
            S_IFREG | permissions(last, mode)?,
            inode,
            links,
            (0, 0),
            data,
        )
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    ///
    /// See [`dir`](Self::dir).
    pub fn symlink(&mut self, name: &[u8], target: &[u8]) -> Result<(), CpioError> {
        check_target(target)?;
        let inode = self.inode()?;
        self.entry(name, S_IFLNK | 0o777, inode, 1, (0, 0), target)
    }

    /// Adds a device node.
    ///
    /// # Errors
    ///
    /// See [`dir`](Self::dir).
    pub fn device(&mut self, name: &[u8], mode: u32, device: Device) -> Result<(), CpioError> {
        let (kind, numbers) = match device {
            Device::Char(major, minor) => (S_IFCHR, (major, minor)),
            Device::Block(major, minor) => (S_IFBLK, (major, minor)),
        };
        let inode = self.inode()?;
        self.entry(
            name,
            kind | permissions(name, mode)?,
            inode,
            1,
            numbers,
            b"",
        )
    }

    /// Ends the archive and returns its bytes, whose number is a multiple of 512.
    pub fn finish(mut self) -> Vec<u8> {
        self.header(TRAILER, 0, 0, 1, (0, 0), 0);
        self.out.resize(self.out.len().next_multiple_of(BLOCK), 0);
        self.out
    }

    fn inode(&mut self) -> Result<u32, CpioError> {
        self.last_inode = self.last_inode.checked_add(1).ok_or(CpioError::TooMany)?;
        Ok(self.last_inode)
    }

    fn entry(
        &mut self,
        name: &[u8],
        mode: u32,
        inode: u32,
        links: u32,
        device: (u32, u32),
        data: &[u8],
    ) -> Result<(), CpioError> {
        check_name(name)?;
        let len = u32::try_from(data.len()).map_err(|_| CpioError::TooLarge {
            name: String::from_utf8_lossy(name).into_owned(),
            len: len64(data.len()),
        })?;
        self.header(name, mode, inode, links, device, len);
        self.out.extend_from_slice(data);
        self.pad();
        Ok(())
    }

    fn header(
        &mut self,
        name: &[u8],
        mode: u32,
        inode: u32,
        links: u32,
        (major, minor): (u32, u32),
        len: u32,
    ) {
        // At most MAX_NAME, so it fits.
        let name_len = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // uid, gid, mtime, and the device of the file are 0; so is the checksum, which newc does not use.
        let fields = [
            inode, mode, 0, 0, links, 0, len, 0, 0, major, minor, name_len, 0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            // Writing to a string cannot fail.
            let _ = write!(header, "{field:08x}");
        }
        self.out.extend_from_slice(header.as_bytes());
        self.out.extend_from_slice(name);
        self.out.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }
}

fn check_name(name: &[u8]) -> Result<(), CpioError> {
    let bad = name.is_empty() || name.starts_with(b"/") || name.contains(&0);
    if bad || name.len() >= MAX_NAME || name == TRAILER {
        return Err(CpioError::Name {
            name: String::from_utf8_lossy(name).into_owned(),
        });
    }
    Ok(())
}

fn permissions(name: &[u8], mode: u32) -> Result<u32, CpioError> {
    if mode & !0o7777 != 0 {
        return Err(CpioError::Mode {
            name: String::from_utf8_lossy(name).into_owned(),
            mode,
        });
    }
    Ok(mode)
}

/// Checks a link's target: the kernel reads it into a buffer of `PATH_MAX`.
fn check_target(target: &[u8]) -> Result<(), CpioError> {
    if target.is_empty() || target.len() >= MAX_NAME || target.contains(&0) {
        return Err(CpioError::Name {
            name: String::from_utf8_lossy(target).into_owned(),
        });
    }
    Ok(())
}

/// An entry of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path of the entry.
    pub name: &'a [u8],
    /// File type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Inode number. Entries with the same inode number and more than one link are names of the same file.
    pub inode: u32,
    /// Number of links.
    pub links: u32,
    /// Major and minor number of a device node.
    pub device: (u32, u32),
    /// Content, or the target of a link.
    pub data: &'a [u8],
}

/// Returns the entries of one archive, up to its trailer. The iterator ends early at the first bytes that are not an
/// entry, and does not panic on any bytes.
pub fn entries(archive: &[u8]) -> Entries<'_> {
    Entries {
        rest: archive,
        offset: 0,
    }
}

/// Iterator over the entries of an archive.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl Entries<'_> {
    /// Returns the number of bytes of the archive that the iterator has read.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let header = self.rest.get(..HEADER_LEN)?;
        if !header.starts_with(b"070701") {
            return None;
        }
        let field = |n: usize| -> Option<u32> {
            let text = header.get(6 + 8 * n..)?.first_chunk::<8>()?;
            if !text.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
        };
        let name_len = usize::try_from(field(11)?).ok()?;
        let data_len = usize::try_from(field(6)?).ok()?;
        let data_at = HEADER_LEN
            .checked_add(name_len)?
            .checked_next_multiple_of(4)?;
        let name = self
            .rest
            .get(HEADER_LEN..HEADER_LEN.checked_add(name_len.checked_sub(1)?)?)?;
        let data_end = data_at.checked_add(data_len)?;
        let data = self.rest.get(data_at..data_end)?;
        if name == TRAILER {
            return None;
        }
        let entry = Entry {
            name,
            mode: field(1)?,
            inode: field(0)?,
            links: field(4)?,
            device: (field(9)?, field(10)?),
            data,
        };
        let end = data_end.checked_next_multiple_of(4)?.min(self.rest.len());
        self.rest = self.rest.get(end..)?;
        self.offset = self.offset.checked_add(end)?;
        Some(entry)
    }
}
