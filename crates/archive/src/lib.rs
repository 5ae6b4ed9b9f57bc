//! A kept path as one run of bytes, and back.
//!
//! [`measure`] and [`Measure::pack`] turn a file, a directory or a symlink into an ordinary pax tar stream, which
//! `tar -x` reads as well; [`unpack`] puts one back, all of it or nothing; [`list`] shows what is in one.
//!
//! # What is kept
//!
//! Content with its holes, names of any bytes, owner and group as numbers, mode, modification time to the nanosecond,
//! symlinks, hard links among what is kept, and the extended attributes of the name spaces `user`, `trusted` and
//! `security` and both POSIX ACLs. Not kept: access times, inode flags (`chattr`), names of owners.
//!
//! # Mount points
//!
//! Like `cp -a` and `tar`, packing goes on into file systems mounted below the kept path, because what a user sees
//! below a directory is what they mean by it; with [`PackOptions::one_file_system`] only the mount point itself is
//! kept. File systems that show kernel state (`proc`, `sysfs`, …) are refused either way. Unpacking puts things into
//! whatever is mounted below the target then.
//!
//! # Order
//!
//! The stream starts with the kept path, every directory comes before its entries, and siblings are sorted by the bytes
//! of their names. So the same tree always gives the same bytes, and [`unpack`] can refuse duplicates without
//! remembering names.
//!
//! # Trust
//!
//! Packing reads a tree that may change beneath it; unpacking reads a stream that the previous kernel left in memory
//! into a tree that may hold symlinks set up by another user. Both resolve every name with `openat2(2)` below
//! directories they hold open and follow no symlink. No stream makes [`unpack`] or [`list`] use more memory than 1 MiB
//! for headers, 16 MiB for a sparse map, 16 MiB for the attributes of new directories not finished yet, the attributes
//! of every directory that existed before, and about 100 bytes and its name for every entry put into one of those.
//! Every tree that [`measure`] accepts keeps these bounds (`limits.rs`): every packed tree can be unpacked.
#![forbid(unsafe_code)]

#[cfg(test)]
mod agree;
mod commit;
mod decode;
mod encode;
mod error;
mod limits;
mod list;
mod meta;
mod pack;
mod pax;
mod place;
mod sparse;
mod stage;
mod sys;
mod target;
mod unpack;
mod walk;

pub use error::{Change, Conflict, FormatError, PackError, Problem, UnpackError};
pub use list::{EntrySummary, List, list};
pub use pack::{Measure, measure, pack};
pub use stage::{RESCUE_PREFIX, STAGE_PREFIX, clean_stale};
pub use sys::Time;
pub use target::Target;
pub use unpack::{unpack, unpack_if};

use std::path::PathBuf;

/// Size of a block in bytes: everything in a tar stream comes in blocks of 512 bytes.
pub(crate) const BLOCK: u64 = 512;
/// Length of the two zero blocks at the end of an archive, in bytes.
pub(crate) const END_LEN: u64 = 2 * BLOCK;
/// Bytes moved at a time.
pub(crate) const BUFFER: usize = 256 * 1024;

/// Kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symlink.
    Symlink,
    /// Another name of a file or symlink that came before.
    HardLink,
}

impl Kind {
    /// Returns the name of the kind, as used in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::HardLink => "hard link",
        }
    }
}

/// Options of packing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// Leave out sockets, fifos and devices and count them, instead of failing.
    pub skip_special: bool,
    /// Keep mount points below the path as empty directories and count them, instead of packing what is mounted there.
    pub one_file_system: bool,
}

/// Numbers of the objects and bytes that were packed or will be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackStats {
    /// Entries in all.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Further names of files and symlinks counted above.
    pub hard_links: u64,
    /// Bytes of content, without holes.
    pub content_bytes: u64,
    /// Special files left out.
    pub skipped_special: u64,
    /// Mount points kept as empty directories.
    pub not_entered: u64,
    /// Files and directories that `chattr +i` or `+a` locks: an archive does not hold the lock.
    pub locked: u64,
}

/// Place to unpack an archive to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// The path that the archive was packed from.
    Original,
    /// Below this existing directory, with the whole path kept below it.
    Into(PathBuf),
}

/// Options of unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Replace files and symlinks that are in the way. Directories are merged with or without it, and nothing replaces
    /// a directory or is replaced by one.
    pub force: bool,
    /// Restore setuid and setgid bits of files and `security.*` attributes.
    pub privileged: bool,
    /// Restore SELinux labels (`security.selinux`): for a system that has a policy, where a file without the right
    /// label is as good as lost to its service. Only root could give such a label to a packed object.
    pub labels: bool,
    /// Leave out extended attributes that the target file system does not support and count them, instead of failing.
    pub drop_unsupported_xattrs: bool,
    /// Write content, names and attributes to the disk before returning, so that everything in place survives a power
    /// cut. Content is written before it is put in place. Costs nothing on file systems in memory.
    pub fsync: bool,
    /// Largest number of entries accepted.
    pub max_entries: u64,
    /// Largest number of bytes of the stream accepted.
    pub max_bytes: u64,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self {
            force: false,
            privileged: false,
            labels: false,
            drop_unsupported_xattrs: false,
            fsync: false,
            max_entries: u64::MAX,
            max_bytes: u64::MAX,
        }
    }
}

/// Numbers of the objects and bytes that were unpacked, replaced or left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnpackStats {
    /// Entries in all.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Directories made.
    pub directories: u64,
    /// Directories that existed and were merged into. Owner, mode, times and attributes are the kept ones now.
    pub merged: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Hard links.
    pub hard_links: u64,
    /// Bytes of content written, without holes.
    pub content_bytes: u64,
    /// Bytes of the stream used.
    pub archive_bytes: u64,
    /// Files and symlinks that were replaced.
    pub replaced: u64,
    /// Files that lost a setuid or setgid bit.
    pub setid_dropped: u64,
    /// `security.*` attributes left out.
    pub security_dropped: u64,
    /// SELinux labels left out because this system's policy does not take them.
    pub labels_dropped: u64,
    /// Attributes left out because the file system does not support them.
    pub unsupported_dropped: u64,
    /// Names of those attributes, each once, the first eight.
    pub unsupported: Vec<String>,
    /// Path in the archive of the entry that the first of those attributes belonged to.
    pub first_unsupported: Option<PathBuf>,
    /// Stage directories that could not be removed after everything was in place; the next [`unpack`] there, or
    /// [`clean_stale`], removes them.
    pub leftover: Vec<PathBuf>,
}
