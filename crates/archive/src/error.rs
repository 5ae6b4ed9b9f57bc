//! Every way in which packing, reading or unpacking can fail.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Reason why a path could not be packed. Packing never changes anything on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The given path cannot be kept.
    #[error("cannot keep {path:?}: {why}")]
    BadPath {
        /// The path as it was given.
        path: PathBuf,
        /// Fault of the path, and the path to give instead.
        why: &'static str,
    },
    /// A system call failed.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// Operation that failed, as a verb.
        action: &'static str,
        /// Object of the operation.
        path: PathBuf,
        /// Error that the kernel returned.
        #[source]
        source: io::Error,
    },
    /// A socket, fifo or device, which a blob cannot hold.
    #[error(
        "{path:?} is a {kind}: only files, directories and symlinks can be kept; remove it, keep paths that do not \
         contain it, or skip special files"
    )]
    Special {
        /// The object.
        path: PathBuf,
        /// `socket`, `fifo`, `block device` or `character device`.
        kind: &'static str,
    },
    /// A view of the kernel's own state (`/proc`, `/sys`, …), which means nothing to the next kernel.
    #[error(
        "{path:?} is on {file_system}, which shows the state of the running kernel and is made anew by the next one; \
         keep paths that do not contain it, or stay on one file system"
    )]
    PseudoFileSystem {
        /// The first object found there.
        path: PathBuf,
        /// Name of the file system type.
        file_system: &'static str,
    },
    /// The tree changed between measuring and the end of packing.
    #[error(
        "{path:?} changed while it was being kept: {change}; stop whatever writes there and try again"
    )]
    Changed {
        /// The object that changed.
        path: PathBuf,
        /// Kind of the change.
        change: Change,
    },
    /// The extended attributes of one object exceed what an archive entry may hold.
    #[error(
        "the extended attributes and names of {path:?} take {bytes:#x} bytes, at most {limit:#x} can be kept"
    )]
    AttributesTooLarge {
        /// The object.
        path: PathBuf,
        /// Bytes its header would take.
        bytes: u64,
        /// Bytes it may take.
        limit: u64,
    },
    /// The extended attributes of a directory and those of the directories above it exceed the bytes that are held
    /// while unpacking.
    #[error(
        "the extended attributes of {path:?} and of the kept directories above it take {bytes:#x} bytes, at most \
         {limit:#x} can be kept; remove some, or keep a directory further down"
    )]
    NestedAttributes {
        /// The directory.
        path: PathBuf,
        /// Bytes of names and values of all of them.
        bytes: u64,
        /// Bytes they may take.
        limit: u64,
    },
    /// An object that a file system can hold and an archive cannot.
    #[error("{path:?} cannot be kept: {what} cannot be written down: {why}")]
    Unrepresentable {
        /// The object.
        path: PathBuf,
        /// Part of the object that an archive cannot hold.
        what: &'static str,
        /// Reason why an archive cannot hold that part.
        why: &'static str,
    },
    /// A path longer than the kernel opens in one piece.
    #[error(
        "{path:?} is {bytes:#x} bytes long, at most {limit:#x} can be kept; keep a directory further down"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Length of the path, in bytes.
        bytes: usize,
        /// Longest length allowed, in bytes.
        limit: usize,
    },
    /// The receiver of the archive failed.
    #[error("writing the archive failed at byte {offset:#x} (packing {path:?}): {source}")]
    Output {
        /// Bytes of the archive written before.
        offset: u64,
        /// The object being packed.
        path: PathBuf,
        /// Error that the receiver returned.
        #[source]
        source: io::Error,
    },
    /// The archive came out with another size than was measured, although no object was seen to change.
    #[error(
        "{path:?} changed while it was being kept: {written:#x} bytes were packed, {measured:#x} were measured; try again"
    )]
    Length {
        /// The kept path.
        path: PathBuf,
        /// Bytes measured.
        measured: u64,
        /// Bytes written.
        written: u64,
    },
}

/// Kind of change that an object went through while it was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The object is gone.
    Removed,
    /// The name belongs to another kind of object now.
    Kind {
        /// Kind when it was first seen.
        was: &'static str,
        /// Kind now.
        now: &'static str,
    },
    /// Another object of the same kind has its name now.
    Replaced,
    /// The object shrank.
    Shrank {
        /// Size when it was first seen, bytes.
        was: u64,
        /// Size now.
        now: u64,
    },
    /// The object grew.
    Grew {
        /// Size when it was first seen, bytes.
        was: u64,
        /// Size now.
        now: u64,
    },
    /// The content of the object was written; the size is the same.
    Written,
    /// Owner, mode or extended attributes changed, or a hard link to it came or went.
    Attributes,
    /// An entry of the directory was added, removed or renamed.
    Listing,
    /// The walk came upon this object where another one was measured.
    Unexpected,
    /// An object was measured and the walk ended without it.
    Missing,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("it was removed"),
            Self::Kind { was, now } => write!(f, "it was a {was} and is a {now} now"),
            Self::Replaced => f.write_str("another object has taken its name"),
            Self::Shrank { was, now } => write!(f, "it shrank from {was:#x} to {now:#x} bytes"),
            Self::Grew { was, now } => write!(f, "it grew from {was:#x} to {now:#x} bytes"),
            Self::Written => f.write_str("its content was written"),
            Self::Attributes => {
                f.write_str("its owner, mode, links or extended attributes changed")
            }
            Self::Listing => f.write_str("an entry was added, removed or renamed in it"),
            Self::Unexpected => f.write_str("it was not there when the tree was measured"),
            Self::Missing => f.write_str("entries that were measured in it are gone"),
        }
    }
}

/// A stream that is not an archive made by this crate, with the place where that showed.
#[derive(Debug, thiserror::Error)]
#[error("bad archive at byte {offset:#x}{}: {problem}", Entry(.entry))]
pub struct FormatError {
    /// Byte offset in the stream of the header concerned, or of the byte missing.
    pub offset: u64,
    /// Name of the entry, as far as it is known.
    pub entry: Option<PathBuf>,
    /// Fault of the stream at that place.
    #[source]
    pub problem: Problem,
}

struct Entry<'a>(&'a Option<PathBuf>);

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(p) => write!(f, " (entry {p:?})"),
            None => Ok(()),
        }
    }
}

/// Fault of a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The stream ends too early.
    #[error("the stream ends here, {missing:#x} bytes short of what this part needs")]
    Truncated {
        /// Bytes that were still expected.
        missing: u64,
    },
    /// Reading failed.
    #[error("reading failed: {0}")]
    Read(#[source] io::Error),
    /// The header checksum does not match.
    #[error("header checksum is {stored:#o}, the header sums to {computed:#o}")]
    Checksum {
        /// Sum that the header stores.
        stored: u32,
        /// Sum of the header's bytes.
        computed: u32,
    },
    /// Not a ustar header at all.
    #[error("no ustar header here")]
    Magic,
    /// A numeric field cannot be read or is out of range.
    #[error("field `{field}` holds no usable value")]
    Field {
        /// Name of the header field or pax record.
        field: &'static str,
    },
    /// A type that blobs never hold.
    #[error("entries of type {code:?} ({meaning}) are not accepted")]
    Type {
        /// The type byte as a character.
        code: char,
        /// Kind of entry that the type byte stands for.
        meaning: &'static str,
    },
    /// The name cannot be used safely.
    #[error("unusable {what}: {why}")]
    Name {
        /// `name` or `link target`.
        what: &'static str,
        /// Reason why it cannot be used.
        why: &'static str,
    },
    /// Extended records that do not parse.
    #[error("broken extended header: {0}")]
    Pax(&'static str),
    /// Extended records larger than accepted.
    #[error("an extended header of {bytes:#x} bytes, at most {limit:#x} are accepted")]
    PaxTooLarge {
        /// Size of the header, in bytes.
        bytes: u64,
        /// Largest size accepted, in bytes.
        limit: u64,
    },
    /// An attribute outside the name spaces that are kept.
    #[error("extended attribute {name:?} is in no name space that is kept")]
    Attribute {
        /// Name of the attribute.
        name: String,
    },
    /// Content where there must be none.
    #[error("{bytes:#x} bytes of content for an entry that has none")]
    UnexpectedContent {
        /// The size claimed.
        bytes: u64,
    },
    /// A sparse map that cannot be true.
    #[error("sparse map: {0}")]
    Sparse(&'static str),
    /// Entries must come parent first, siblings sorted, each once.
    #[error("{0}")]
    Order(&'static str),
    /// A hard link whose target is not a file that came before.
    #[error("hard link to {target:?}, which is no file that came before it in this archive")]
    LinkTarget {
        /// The target named.
        target: PathBuf,
    },
    /// More than the caller is willing to take.
    #[error("more than {limit:#x} {what}")]
    Limit {
        /// Quantity that exceeds the limit.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The archive has no entry.
    #[error("the archive is empty")]
    Empty,
}

/// Reason why an archive could not be unpacked. Except for [`UnpackError::Incomplete`], the target is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The stream is not a good archive.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The place to unpack to cannot be used.
    #[error("cannot unpack into {path:?}: {source}")]
    Dest {
        /// The directory given.
        path: PathBuf,
        /// Error that the kernel returned.
        #[source]
        source: io::Error,
    },
    /// Objects are in the way of entries.
    #[error("{}", Conflicts(.first, .total, .forced))]
    Conflicts {
        /// The first conflicts, at most eight.
        first: Vec<Conflict>,
        /// Number of conflicts in all.
        total: u64,
        /// Whether the caller had asked for replacing files, so that only other kinds of conflict are listed.
        forced: bool,
    },
    /// A component on the way to the target is a symlink.
    #[error(
        "{path:?} is a symlink: nothing is restored through symlinks; remove it, or restore into another directory"
    )]
    Symlink {
        /// The symlink.
        path: PathBuf,
    },
    /// A component on the way to the target is no directory.
    #[error("{path:?} is not a directory, so nothing can be restored below it")]
    NotADirectory {
        /// The object in the way.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} {path:?} (archive byte {offset:#x}): {source}")]
    Io {
        /// Operation that failed, as a verb.
        action: &'static str,
        /// The target path concerned.
        path: PathBuf,
        /// Offset of the entry's header in the stream.
        offset: u64,
        /// Error that the kernel returned.
        #[source]
        source: io::Error,
    },
    /// The caller's check of the whole archive, made before it was put in place, refused it.
    #[error("not put in place: {source}")]
    Refused {
        /// Reason that the check gave.
        #[source]
        source: io::Error,
    },
    /// A directory was moved or replaced while unpacking.
    #[error(
        "{path:?} was replaced while it was being restored to; try again when nothing else changes it"
    )]
    Moved {
        /// The directory.
        path: PathBuf,
    },
    /// Unpacking failed, and so did undoing what had been put in place.
    #[error(
        "{cause}; and undoing it failed too: {left:?} could not be put back; what they replaced is in {stage:?}, \
         move it back by hand"
    )]
    Incomplete {
        /// The first failure.
        #[source]
        cause: Box<UnpackError>,
        /// Paths that are not as they were before.
        left: Vec<PathBuf>,
        /// Directories that may hold the objects that were replaced. Only the user removes these directories.
        stage: Vec<PathBuf>,
    },
}

/// One object in the way of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Path of the object in the way.
    pub path: PathBuf,
    /// Kind of the object in the way.
    pub there: &'static str,
    /// Kind of the entry in the archive.
    pub wanted: &'static str,
}

struct Conflicts<'a>(&'a [Conflict], &'a u64, &'a bool);

impl fmt::Display for Conflicts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(first, n, forced) = *self;
        let (s, are) = if *n == 1 { ("", "is") } else { ("s", "are") };
        write!(f, "{n} object{s} {are} in the way: ")?;
        for (i, c) in first.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(
                f,
                "{:?} ({}, the archive has a {})",
                c.path, c.there, c.wanted
            )?;
        }
        if *n > first.len() as u64 {
            f.write_str(", …")?;
        }
        f.write_str(if *forced {
            "; only files and symlinks are replaced by force: move the rest away, or restore into another directory"
        } else {
            "; move them away, ask for replacing (force), or restore into another directory"
        })
    }
}
