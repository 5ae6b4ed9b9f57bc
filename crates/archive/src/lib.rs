//! Archives of kept paths: packing into a stream of bytes, and unpacking.
//!
//! [`measure`] and [`Measure::pack`] turn a file, a directory or a symlink into an ordinary pax tar stream. `tar -x`
//! can read it too. [`unpack`] restores all of a stream or nothing. [`list`] shows its entries.
//!
//! # Properties that are kept
//!
//! Kept: content with its holes, names of any bytes, owner and group as numbers, mode, modification time to the
//! nanosecond, symlinks, hard links among the kept files, both POSIX ACLs, and the extended attributes of the name
//! spaces `user`, `trusted` and `security`. Not kept: access times, inode flags (`chattr`), names of owners.
//!
//! # Mount points
//!
//! Like `cp -a` and `tar`, packing enters file systems that are mounted below the kept path, because a user who keeps a
//! directory means all that the directory shows. With [`PackOptions::one_file_system`] only the mount point itself is
//! kept. File systems that show kernel state (`proc`, `sysfs`, …) are refused in both cases. Unpacking writes into the
//! file systems that are then mounted below the target.
//!
//! # Order
//!
//! The stream starts with the kept path, every directory comes before its entries, and siblings are sorted by the bytes
//! of their names. So the same tree always gives the same bytes, and [`unpack`] can refuse duplicates without
//! remembering names.
//!
//! # Trust
//!
//! Packing reads a tree that may change meanwhile. Unpacking reads a stream that the previous kernel left in memory,
//! and writes into a tree that may hold symlinks from another user. Both resolve every name with `openat2(2)` below
//! directories that they hold open, and follow no symlink. No stream makes [`unpack`] or [`list`] use more memory than
//! 1 MiB for headers, 16 MiB for a sparse map, 16 MiB for the attributes of new directories that are not complete, the
//! attributes of every directory that existed before, and about 100 bytes and the name for every entry that is put into
//! one of those. Every tree that [`measure`] accepts is within these bounds (`limits.rs`), so every packed tree can be
//! unpacked.
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

/// Size of a block, in bytes: a tar stream consists of blocks of 512 bytes.
pub(crate) const BLOCK: u64 = 512;
/// Length of the two zero blocks at the end of an archive, in bytes.
pub(crate) const END_LEN: u64 = 2 * BLOCK;
/// Number of bytes that are copied at a time.
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
    /// Another name of an earlier file or symlink.
    HardLink,
}

impl Kind {
    /// Returns the name of the kind, for messages.
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
    /// Leave out sockets, fifos and devices, and count them, instead of failing.
    pub skip_special: bool,
    /// Keep mount points below the path as empty directories, and count them, instead of packing the mounted file
    /// systems.
    pub one_file_system: bool,
}

/// Counts of the objects and bytes that were packed or will be packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackStats {
    /// All entries.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Further names of files and symlinks that are counted above.
    pub hard_links: u64,
    /// Bytes of content, without holes.
    pub content_bytes: u64,
    /// Special files that were left out.
    pub skipped_special: u64,
    /// Mount points that were kept as empty directories.
    pub not_entered: u64,
    /// Files and directories with the flag of `chattr +i` or `+a`, which an archive does not keep.
    pub locked: u64,
}

/// Place to unpack an archive into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// The path that the archive was packed from.
    Original,
    /// This existing directory. The whole path is created below it.
    Into(PathBuf),
}

/// Options of unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Replace files and symlinks that are in the way. Directories are merged with or without this option. Nothing
    /// replaces a directory, and no directory replaces anything.
    pub force: bool,
    /// Restore setuid and setgid bits of files and `security.*` attributes.
    pub privileged: bool,
    /// Restore SELinux labels (`security.selinux`), for a system that has a policy. There, a service cannot use a file
    /// without the right label. Only root could give such a label to a packed object.
    pub labels: bool,
    /// Leave out extended attributes that the target file system does not support, and count them, instead of failing.
    pub drop_unsupported_xattrs: bool,
    /// Write content, names and attributes to disk before the call returns, so that all of it survives a power cut.
    /// Content is written before it is put in place. Has no cost on file systems in memory.
    pub fsync: bool,
    /// Largest number of entries.
    pub max_entries: u64,
    /// Largest number of bytes of the stream.
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

/// Counts of the objects and bytes that were unpacked, replaced or left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnpackStats {
    /// All entries.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Directories that were created.
    pub directories: u64,
    /// Directories that existed before. They now have the owner, mode, times and attributes in the archive.
    pub merged: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Hard links.
    pub hard_links: u64,
    /// Bytes of content that were written, without holes.
    pub content_bytes: u64,
    /// Bytes of the stream that were read.
    pub archive_bytes: u64,
    /// Files and symlinks that were replaced.
    pub replaced: u64,
    /// Files that lost a setuid or setgid bit.
    pub setid_dropped: u64,
    /// `security.*` attributes that were left out.
    pub security_dropped: u64,
    /// SELinux labels that were left out because this system's policy does not accept them.
    pub labels_dropped: u64,
    /// Attributes that were left out because the file system does not support them.
    pub unsupported_dropped: u64,
    /// Names of those attributes: the first 8, without repetitions.
    pub unsupported: Vec<String>,
    /// Path in the archive of the first entry with such an attribute.
    pub first_unsupported: Option<PathBuf>,
    /// Stage directories that could not be removed after all objects were in place. The next [`unpack`] there, or
    /// [`clean_stale`], removes them.
    pub leftover: Vec<PathBuf>,
}
