//! Errors of packing, reading and unpacking.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Reason why a path could not be packed. Packing never changes the file system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The path cannot be kept.
    #[error("cannot keep {path:?}: {why}")]
    BadPath {
        /// The path, as the caller gave it.
        path: PathBuf,
        /// Problem of the path, with a path that can be kept.
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
    /// The object is a socket, fifo or device, which a blob cannot hold.
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
    /// The object shows state of the running kernel (`/proc`, `/sys`, …), which has no meaning for the next kernel.
    #[error(
        "{path:?} is on {file_system}, which shows the state of the running kernel and is made anew by the next one; \
         keep paths that do not contain it, or stay on one file system"
    )]
    PseudoFileSystem {
        /// The first such object.
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
    /// The extended attributes of an object exceed the limit of an archive entry.
    #[error(
        "the extended attributes and names of {path:?} take {bytes:#x} bytes, at most {limit:#x} can be kept"
    )]
    AttributesTooLarge {
        /// The object.
        path: PathBuf,
        /// Number of bytes that its header would need.
        bytes: u64,
        /// Largest number of bytes of a header.
        limit: u64,
    },
    /// The extended attributes of a directory and of the directories above it exceed the number of bytes that unpacking
    /// holds in memory.
    #[error(
        "the extended attributes of {path:?} and of the kept directories above it take {bytes:#x} bytes, at most \
         {limit:#x} can be kept; remove some, or keep a directory further down"
    )]
    NestedAttributes {
        /// The directory.
        path: PathBuf,
        /// Number of bytes of all these names and values.
        bytes: u64,
        /// Largest number of such bytes.
        limit: u64,
    },
    /// The object can exist in a file system, and an archive cannot hold it.
    #[error("{path:?} cannot be kept: {what} cannot be written down: {why}")]
    Unrepresentable {
        /// The object.
        path: PathBuf,
        /// Part of the object that an archive cannot hold.
        what: &'static str,
        /// Reason why an archive cannot hold that part.
        why: &'static str,
    },
    /// The path is longer than the kernel accepts in one call.
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
        /// Number of bytes of the archive that were written before.
        offset: u64,
        /// Path of the object that was being packed.
        path: PathBuf,
        /// Error of the receiver.
        #[source]
        source: io::Error,
    },
    /// The archive has another size than was measured, although no object was seen to change.
    #[error(
        "{path:?} changed while it was being kept: {written:#x} bytes were packed, {measured:#x} were measured; try again"
    )]
    Length {
        /// The kept path.
        path: PathBuf,
        /// Number of bytes that were measured.
        measured: u64,
        /// Number of bytes that were written.
        written: u64,
    },
}

/// Kind of change of an object during packing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The object was removed.
    Removed,
    /// The name now belongs to an object of another kind.
    Kind {
        /// Kind at the first reading.
        was: &'static str,
        /// Current kind.
        now: &'static str,
    },
    /// The name now belongs to another object of the same kind.
    Replaced,
    /// The object shrank.
    Shrank {
        /// Size at the first reading, in bytes.
        was: u64,
        /// Current size, in bytes.
        now: u64,
    },
    /// The object grew.
    Grew {
        /// Size at the first reading, in bytes.
        was: u64,
        /// Current size, in bytes.
        now: u64,
    },
    /// The content was written to; the size is the same.
    Written,
    /// Owner, mode or extended attributes changed, or a hard link was added or removed.
    Attributes,
    /// An entry of the directory was added, removed or renamed.
    Listing,
    /// The walk found this object where another one was measured.
    Unexpected,
    /// The object was measured, and the walk did not find it again.
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

/// A stream that is not an archive made by this crate, with the place of the error.
#[derive(Debug, thiserror::Error)]
#[error("bad archive at byte {offset:#x}{}: {problem}", Entry(.entry))]
pub struct FormatError {
    /// Offset in the stream of the header with the error, or of the missing byte, in bytes.
    pub offset: u64,
    /// Path of the entry, as far as it is known.
    pub entry: Option<PathBuf>,
    /// Problem of the stream at that place.
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

/// Problem of a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The stream ends too early.
    #[error("the stream ends here, {missing:#x} bytes short of what this part needs")]
    Truncated {
        /// Number of missing bytes.
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
    /// The header is not a ustar header.
    #[error("no ustar header here")]
    Magic,
    /// A numeric field cannot be read or is out of range.
    #[error("field `{field}` holds no usable value")]
    Field {
        /// Name of the header field or pax record.
        field: &'static str,
    },
    /// The type of the entry never occurs in blobs.
    #[error("entries of type {code:?} ({meaning}) are not accepted")]
    Type {
        /// The type byte as a character.
        code: char,
        /// Kind of entry with that type.
        meaning: &'static str,
    },
    /// The name is not safe to use.
    #[error("unusable {what}: {why}")]
    Name {
        /// `name` or `link target`.
        what: &'static str,
        /// Reason why it is not safe.
        why: &'static str,
    },
    /// The extended records cannot be parsed.
    #[error("broken extended header: {0}")]
    Pax(&'static str),
    /// The extended records are larger than the limit.
    #[error("an extended header of {bytes:#x} bytes, at most {limit:#x} are accepted")]
    PaxTooLarge {
        /// Size of the header, in bytes.
        bytes: u64,
        /// Limit of the size, in bytes.
        limit: u64,
    },
    /// The attribute is outside of the name spaces that are kept.
    #[error("extended attribute {name:?} is in no name space that is kept")]
    Attribute {
        /// Name of the attribute.
        name: String,
    },
    /// The entry has content, and its type does not allow any.
    #[error("{bytes:#x} bytes of content for an entry that has none")]
    UnexpectedContent {
        /// Size in the header, in bytes.
        bytes: u64,
    },
    /// The sparse map contradicts itself or the header.
    #[error("sparse map: {0}")]
    Sparse(&'static str),
    /// The order is wrong: parents must come first, siblings must be sorted, and each entry must occur once.
    #[error("{0}")]
    Order(&'static str),
    /// The target of the hard link is not an earlier file.
    #[error("hard link to {target:?}, which is no file that came before it in this archive")]
    LinkTarget {
        /// Path of the target.
        target: PathBuf,
    },
    /// The archive exceeds a limit of the caller.
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

/// Reason why an archive could not be unpacked. Except for [`UnpackError::Incomplete`], the target is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The stream is not a valid archive.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The directory to unpack into cannot be used.
    #[error("cannot unpack into {path:?}: {source}")]
    Dest {
        /// Path of the directory.
        path: PathBuf,
        /// Error that the kernel returned.
        #[source]
        source: io::Error,
    },
    /// Existing objects are in the way of entries.
    #[error("{}", Conflicts(.first, .total, .forced))]
    Conflicts {
        /// The first conflicts, at most 8.
        first: Vec<Conflict>,
        /// Total number of conflicts.
        total: u64,
        /// Whether the caller asked to replace files. Then only conflicts of other kinds are listed.
        forced: bool,
    },
    /// A component of the path to the target is a symlink.
    #[error(
        "{path:?} is a symlink: nothing is restored through symlinks; remove it, or restore into another directory"
    )]
    Symlink {
        /// The symlink.
        path: PathBuf,
    },
    /// A component of the path to the target is not a directory.
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
        /// Path in the target.
        path: PathBuf,
        /// Offset of the entry's header in the stream.
        offset: u64,
        /// Error that the kernel returned.
        #[source]
        source: io::Error,
    },
    /// The caller's check of the whole archive refused it, before any of it was put in place.
    #[error("not put in place: {source}")]
    Refused {
        /// Error of the check.
        #[source]
        source: io::Error,
    },
    /// A directory was moved or replaced during the unpack.
    #[error(
        "{path:?} was replaced while it was being restored to; try again when nothing else changes it"
    )]
    Moved {
        /// The directory.
        path: PathBuf,
    },
    /// Unpacking failed, and the changes that were already made could not all be undone.
    #[error(
        "{cause}; and undoing it failed too: {left:?} could not be put back; what they replaced is in {stage:?}, \
         move it back by hand"
    )]
    Incomplete {
        /// The first failure.
        #[source]
        cause: Box<UnpackError>,
        /// Paths that are not in their earlier state.
        left: Vec<PathBuf>,
        /// Directories that may hold objects that were replaced. Only the user removes these directories.
        stage: Vec<PathBuf>,
    },
}

/// An object in the way of an entry.
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
