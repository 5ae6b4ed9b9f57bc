//! Decoder of archives that another kernel left in memory. It checks every field, and its memory use has a bound that
//! no stream can exceed.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use tar::{EntryType, Header};

use crate::encode::padding;
use crate::error::{FormatError, Problem};
use crate::limits::{self, MAX_HEAD};
use crate::pax::Pax;
use crate::sparse::{Decoder, Extent};
use crate::sys::{Time, Xattrs};
use crate::{BLOCK, Kind};

const BLOCK_SIZE: usize = 512;

/// A checked entry whose content is still in the stream.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Offset of its first header block.
    pub offset: u64,
    /// Path of the entry: relative, normal, without a slash at either end.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub link: Vec<u8>,
    pub xattrs: Xattrs,
    /// Size of the unpacked file, in bytes.
    pub size: u64,
    pub sparse: Option<Vec<Extent>>,
}

/// Decoder of an archive, entry by entry.
#[derive(Debug)]
pub(crate) struct Decode<R> {
    inner: R,
    offset: u64,
    /// Number of unread bytes in the content of the current entry.
    content: u64,
    pad: usize,
    done: bool,
    /// Offset of the current entry's first header block, for messages.
    entry_offset: u64,
    entry: Option<PathBuf>,
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

impl<R: Read> Decode<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            offset: 0,
            content: 0,
            pad: 0,
            done: false,
            entry_offset: 0,
            entry: None,
        }
    }

    /// Returns the number of bytes read from the stream so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the reader of the stream.
    pub(crate) fn reader(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Makes an error about the current entry.
    pub(crate) fn bad(&self, problem: Problem) -> FormatError {
        FormatError {
            offset: self.entry_offset,
            entry: self.entry.clone(),
            problem,
        }
    }

    fn bad_here(&self, problem: Problem) -> FormatError {
        FormatError {
            offset: self.offset,
            entry: self.entry.clone(),
            problem,
        }
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), FormatError> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) => {
                    let missing = rest.len() as u64 + self.content;
                    return Err(self.bad_here(Problem::Truncated { missing }));
                }
                Ok(n) => {
                    done += n;
                    self.offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.bad_here(Problem::Read(e))),
            }
        }
        Ok(())
    }

    /// Fills `buf` with content of the current entry, and returns the number of bytes. The number is 0 at the end of
    /// the content.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize, FormatError> {
        let n = usize::try_from(self.content).map_or(buf.len(), |c| c.min(buf.len()));
        let Some(part) = buf.get_mut(..n) else {
            return Ok(0);
        };
        self.content -= n as u64;
        self.fill(part)?;
        Ok(n)
    }

    /// Skips the rest of the current entry. Uses `buf` for reading.
    pub(crate) fn skip(&mut self, buf: &mut [u8]) -> Result<(), FormatError> {
        while self.read(buf)? > 0 {}
        self.skip_padding()
    }

    fn skip_padding(&mut self) -> Result<(), FormatError> {
        let mut rest = [0; BLOCK_SIZE];
        let n = std::mem::take(&mut self.pad);
        if let Some(part) = rest.get_mut(..n) {
            self.fill(part)?;
        }
        Ok(())
    }

    /// Reads the next header block; `None` if it is the first of the two zero blocks at the end of an archive.
    fn block(&mut self) -> Result<Option<Header>, FormatError> {
        let mut block = [0; BLOCK_SIZE];
        self.fill(&mut block)?;
        if block.iter().all(|b| *b == 0) {
            self.fill(&mut block)?;
            if block.iter().any(|b| *b != 0) {
                return Err(self.bad(Problem::Order("a lone zero block between entries")));
            }
            return Ok(None);
        }
        let mut header = Header::new_old();
        *header.as_mut_bytes() = block;
        self.checksum(&header)?;
        if header.as_ustar().is_none() {
            return Err(self.bad(Problem::Magic));
        }
        Ok(Some(header))
    }

    fn checksum(&self, header: &Header) -> Result<(), FormatError> {
        let stored = header
            .cksum()
            .map_err(|_| self.bad(Problem::Field { field: "checksum" }))?;
        let computed = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(i, b)| {
                // For the checksum, the bytes of the checksum field count as spaces.
                if (148..156).contains(&i) {
                    32
                } else {
                    u32::from(*b)
                }
            })
            .sum();
        if stored == computed {
            Ok(())
        } else {
            Err(self.bad(Problem::Checksum { stored, computed }))
        }
    }

    /// Skips the rest of the current entry and reads the headers of the next one; `None` at the end of the archive.
    ///
    /// The decoder does not check the order of entries, or whether a directory is complete before the next one begins.
    pub(crate) fn next(&mut self, buf: &mut [u8]) -> Result<Option<Entry>, FormatError> {
        if self.done {
            return Ok(None);
        }
        self.skip(buf)?;
        self.entry_offset = self.offset;
        self.entry = None;
        let Some(mut header) = self.block()? else {
            self.done = true;
            return Ok(None);
        };
        let mut pax = Pax::default();
        if header.entry_type() == EntryType::XHeader {
            pax = self.pax(&header)?;
            header = self
                .block()?
                .ok_or_else(|| self.bad(Problem::Pax("no entry follows it")))?;
        }
        self.entry(&header, pax, buf).map(Some)
    }

    fn field<T, E>(&self, field: &'static str, r: Result<T, E>) -> Result<T, FormatError> {
        r.map_err(|_| self.bad(Problem::Field { field }))
    }

    fn pax(&mut self, header: &Header) -> Result<Pax, FormatError> {
        let bytes = self.field("size", header.entry_size())?;
        let len = usize::try_from(bytes)
            .ok()
            .filter(|n| *n <= MAX_HEAD)
            .ok_or_else(|| {
                self.bad(Problem::PaxTooLarge {
                    bytes,
                    limit: MAX_HEAD as u64,
                })
            })?;
        let mut data = vec![0; len];
        self.fill(&mut data)?;
        self.pad = padding(bytes);
        self.skip_padding()?;
        Pax::parse(&data).map_err(|p| self.bad(p))
    }

    fn kind(&self, header: &Header) -> Result<Kind, FormatError> {
        let ty = header.entry_type();
        let meaning = match ty {
            EntryType::Regular => return Ok(Kind::File),
            EntryType::Directory => return Ok(Kind::Directory),
            EntryType::Symlink => return Ok(Kind::Symlink),
            EntryType::Link => return Ok(Kind::HardLink),
            EntryType::Char => "a character device",
            EntryType::Block => "a block device",
            EntryType::Fifo => "a fifo",
            EntryType::XHeader => "a second extended header",
            EntryType::XGlobalHeader => "a global extended header",
            EntryType::GNULongName | EntryType::GNULongLink => "a GNU long name",
            EntryType::GNUSparse => "an old GNU sparse file",
            EntryType::Continuous => "a contiguous file",
            _ => "unknown",
        };
        Err(self.bad(Problem::Type {
            code: ty.as_byte().into(),
            meaning,
        }))
    }

    fn id(
        &self,
        field: &'static str,
        pax: Option<u64>,
        header: io::Result<u64>,
    ) -> Result<u32, FormatError> {
        let n = match pax {
            Some(n) => n,
            None => self.field(field, header)?,
        };
        match u32::try_from(n) {
            Ok(n) if limits::owner(n) => Ok(n),
            _ => Err(self.bad(Problem::Field { field })),
        }
    }

    fn entry(&mut self, header: &Header, pax: Pax, buf: &mut [u8]) -> Result<Entry, FormatError> {
        let name = match pax.sparse_name.or(pax.path) {
            Some(p) => p,
            None => header.path_bytes().into_owned(),
        };
        self.entry = Some(to_path(&name));
        let kind = self.kind(header)?;
        let path = if kind == Kind::Directory {
            name.strip_suffix(b"/").unwrap_or(&name)
        } else {
            &name
        };
        let path = check_path("name", path).map_err(|p| self.bad(p))?;
        self.entry = Some(to_path(&path));

        let link = match (kind, pax.linkpath) {
            (Kind::Symlink | Kind::HardLink, Some(l)) => l,
            (Kind::Symlink | Kind::HardLink, None) => header
                .link_name_bytes()
                .map(|l| l.into_owned())
                .unwrap_or_default(),
            (_, None) => Vec::new(),
            (_, Some(_)) => return Err(self.bad(Problem::Pax("link path for no link"))),
        };
        let link = match kind {
            Kind::HardLink => check_path("link target", &link).map_err(|p| self.bad(p))?,
            Kind::Symlink => check_symlink(link).map_err(|p| self.bad(p))?,
            Kind::File | Kind::Directory => link,
        };

        let mtime = match pax.mtime {
            Some(t) => t,
            None => Time {
                seconds: self
                    .field("mtime", header.mtime().map(i64::try_from))?
                    .map_err(|_| self.bad(Problem::Field { field: "mtime" }))?,
                nanoseconds: 0,
            },
        };
        let mode = self.field("mode", header.mode())?;
        if mode > 0o7777 {
            return Err(self.bad(Problem::Field { field: "mode" }));
        }
        let uid = self.id("uid", pax.uid, header.uid())?;
        let gid = self.id("gid", pax.gid, header.gid())?;
        let stored = match pax.size {
            Some(n) => n,
            None => self.field("size", header.entry_size())?,
        };
        if stored.checked_next_multiple_of(BLOCK).is_none() || i64::try_from(stored).is_err() {
            return Err(self.bad(Problem::Field { field: "size" }));
        }
        if kind != Kind::File && stored != 0 {
            return Err(self.bad(Problem::UnexpectedContent { bytes: stored }));
        }
        self.content = stored;
        self.pad = padding(stored);

        let (size, sparse) = match pax.sparse_size {
            Some(size) if kind == Kind::File && i64::try_from(size).is_ok() => {
                (size, Some(self.map(size, stored, buf)?))
            }
            Some(_) => {
                return Err(self.bad(Problem::Field {
                    field: "GNU.sparse.realsize",
                }));
            }
            None => (stored, None),
        };
        Ok(Entry {
            offset: self.entry_offset,
            path,
            kind,
            mode,
            uid,
            gid,
            mtime,
            link,
            xattrs: pax.xattrs,
            size,
            sparse,
        })
    }

    fn map(&mut self, size: u64, stored: u64, buf: &mut [u8]) -> Result<Vec<Extent>, FormatError> {
        let mut decoder = Decoder::new(size, stored);
        let mut bytes = 0;
        loop {
            let Some(block) = buf.get_mut(..BLOCK_SIZE) else {
                return Err(self.bad(Problem::Sparse("no room to read it")));
            };
            if self.read(block)? < BLOCK_SIZE {
                return Err(self.bad(Problem::Sparse("it is longer than the entry")));
            }
            bytes += BLOCK;
            let end = decoder
                .block(block)
                .map_err(|why| self.bad(Problem::Sparse(why)))?;
            if end {
                return decoder
                    .finish(bytes)
                    .map_err(|why| self.bad(Problem::Sparse(why)));
            }
        }
    }
}

/// Checks that a path stays below the directory that it is relative to: it has no leading slash, no `.`, no `..` and no
/// empty component.
fn check_path(what: &'static str, path: &[u8]) -> Result<Vec<u8>, Problem> {
    limits::path(path)
        .map(|()| path.to_vec())
        .map_err(|why| Problem::Name { what, why })
}

fn check_symlink(link: Vec<u8>) -> Result<Vec<u8>, Problem> {
    limits::symlink(&link).map_err(|why| Problem::Name {
        what: "link target",
        why,
    })?;
    Ok(link)
}
