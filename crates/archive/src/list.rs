//! List of the entries of an archive, without unpacking it.

use std::ffi::OsStr;
use std::io::Read;
use std::iter::FusedIterator;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::decode::{Decode, Entry};
use crate::error::FormatError;
use crate::sys::Time;
use crate::{BUFFER, Kind};

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntrySummary {
    /// Absolute path of the object that was packed.
    pub path: PathBuf,
    /// Kind of the entry.
    pub kind: Kind,
    /// Unpacked size in bytes, including holes.
    pub size: u64,
    /// Bytes of data in the archive, without holes.
    pub data: u64,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// User ID of the owner.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Text of a symlink, or absolute path of the first name for a hard link.
    pub link: Option<PathBuf>,
    /// Number of extended attributes.
    pub xattrs: usize,
    /// Offset of the entry's headers in the stream.
    pub offset: u64,
}

impl EntrySummary {
    fn new(e: Entry) -> Self {
        let path = |p: &[u8]| Path::new("/").join(OsStr::from_bytes(p));
        Self {
            path: path(&e.path),
            kind: e.kind,
            size: e.size,
            data: e
                .sparse
                .as_ref()
                .map_or(e.size, |m| m.iter().map(|x| x.len).sum()),
            mode: e.mode,
            uid: e.uid,
            gid: e.gid,
            mtime: e.mtime,
            link: match e.kind {
                Kind::Symlink => Some(PathBuf::from(OsStr::from_bytes(&e.link))),
                Kind::HardLink => Some(path(&e.link)),
                Kind::File | Kind::Directory => None,
            },
            xattrs: e.xattrs.len(),
            offset: e.offset,
        }
    }
}

/// Iterator over the entries of an archive. Ends after the first error.
#[derive(Debug)]
pub struct List<R> {
    decode: Decode<R>,
    buffer: Vec<u8>,
    ended: bool,
}

/// Lists the entries of an archive. Skips their content.
///
/// Checks names and fields as [`crate::unpack`] does. Does not check the order of entries, or whether the target of a
/// hard link came before. Uses no file, so fuzzing can test the parser here.
pub fn list<R: Read>(reader: R) -> List<R> {
    List {
        decode: Decode::new(reader),
        buffer: vec![0; BUFFER],
        ended: false,
    }
}

impl<R: Read> Iterator for List<R> {
    type Item = Result<EntrySummary, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.decode.next(&mut self.buffer).transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item.map(|r| r.map(EntrySummary::new))
    }
}

impl<R: Read> FusedIterator for List<R> {}
