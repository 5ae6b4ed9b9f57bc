//! System calls of both directions. Each call is safe if names change meanwhile.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, IFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Timespec,
    Timestamps, Uid,
};
use rustix::io::{Errno, Result};

/// Largest value of an extended attribute, in bytes (`XATTR_SIZE_MAX`, include/uapi/linux/limits.h, 6.1 to 7.3).
pub(crate) const XATTR_SIZE_MAX: usize = 65536;

/// Names and values of extended attributes.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Properties of an inode that this crate uses, the same on every architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub kind: FileType,
    /// Permission bits, with set-id and sticky, without the file type.
    pub mode: u32,
    pub dev: u64,
    pub ino: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub blocks: u64,
    pub mtime: Time,
    pub ctime: Time,
    /// Number of the mount, or the device number if the kernel does not report the mount.
    pub mount: u64,
}

/// Time since 1970, in seconds and nanoseconds. Before 1970 the seconds are negative, and the nanoseconds still count
/// upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl Stat {
    fn new(s: &Statx) -> Self {
        let dev = device(s.stx_dev_major, s.stx_dev_minor);
        let mode = u32::from(s.stx_mode);
        Self {
            kind: FileType::from_raw_mode(mode),
            mode: mode & 0o7777,
            dev,
            ino: s.stx_ino,
            nlink: s.stx_nlink,
            uid: s.stx_uid,
            gid: s.stx_gid,
            size: s.stx_size,
            blocks: s.stx_blocks,
            mtime: Time {
                seconds: s.stx_mtime.tv_sec,
                nanoseconds: s.stx_mtime.tv_nsec,
            },
            ctime: Time {
                seconds: s.stx_ctime.tv_sec,
                nanoseconds: s.stx_ctime.tv_nsec,
            },
            mount: if s.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
                s.stx_mnt_id
            } else {
                dev
            },
        }
    }

    /// Returns whether both describe the same inode, of the same kind.
    pub(crate) fn same_object(&self, other: &Self) -> bool {
        self.dev == other.dev && self.ino == other.ino && self.kind == other.kind
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }
}

/// Returns whether the object has a flag that forbids changes (`chattr +i`, `+a`); `false` on file systems without
/// flags.
pub(crate) fn locked(fd: BorrowedFd<'_>) -> bool {
    let locks = IFlags::IMMUTABLE | IFlags::APPEND;
    rustix::fs::ioctl_getflags(fd).is_ok_and(|flags| flags.intersects(locks))
}

/// Combines the major and minor number of a device into one number.
pub(crate) fn device(major: u32, minor: u32) -> u64 {
    (u64::from(major) << 32) | u64::from(minor)
}

fn flags() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::MNT_ID
}

/// Returns the properties of the open object.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, flags()).map(|s| Stat::new(&s))
}

/// Returns the properties of `name` in `dir`. Does not follow a symlink.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat> {
    let how = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, how, flags()).map(|s| Stat::new(&s))
}

/// Opens `path` below `dir`. No component may be a symlink, be a magic link or lead out of `dir`.
///
/// The kernel returns EAGAIN if a rename elsewhere interfered with the walk; the open is then tried again. The kernel
/// returns EXDEV if the object was moved out of `dir` before the walk was complete (complete_walk in fs/namei.c, 6.1 to
/// 7.3).
pub(crate) fn open_beneath(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut flags = flags | OFlags::CLOEXEC;
    if flags.contains(OFlags::PATH) && !flags.contains(OFlags::DIRECTORY) {
        // With this flag, the call opens the symlink itself. Other calls do not set it: NO_SYMLINKS alone returns ELOOP
        // for a symlink, and NOFOLLOW with DIRECTORY would return ENOTDIR, which has another meaning.
        flags |= OFlags::NOFOLLOW;
    }
    let mode = if flags.contains(OFlags::CREATE) {
        Mode::RUSR | Mode::WUSR
    } else {
        Mode::empty()
    };
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(dir, path, flags, mode, resolve) {
            Err(Errno::AGAIN) if tries < 64 => tries += 1,
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a directory for reading below `dir`.
pub(crate) fn open_dir(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open_beneath(dir, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Returns the names in a directory, unsorted, without `.` and `..`.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<Box<[u8]>>> {
    let mut out = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            out.push(Box::from(name));
        }
    }
    Ok(out)
}

/// An object whose extended attributes are read or changed.
///
/// `fgetxattr` on an `O_PATH` descriptor fails with EBADF, and a symlink cannot be opened in another way. The
/// descriptor's link in `/proc/self/fd` refers to the inode of the symlink itself, not to its target.
pub(crate) enum XattrTarget<'a> {
    Fd(BorrowedFd<'a>),
    Link(CString),
}

impl<'a> XattrTarget<'a> {
    pub(crate) fn new(fd: BorrowedFd<'a>, kind: FileType) -> Self {
        if kind == FileType::Symlink {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            // A number after a fixed prefix has no NUL, so the fallback is never used. It would fail with EBADF.
            CString::new(path).map_or(Self::Fd(fd), Self::Link)
        } else {
            Self::Fd(fd)
        }
    }

    fn list_into(&self, buf: &mut [u8]) -> Result<usize> {
        match self {
            Self::Fd(fd) => rustix::fs::flistxattr(fd, buf),
            Self::Link(path) => rustix::fs::listxattr(path, buf),
        }
    }

    /// Returns the names of all attributes; empty if the file system has no attributes.
    pub(crate) fn list(&self) -> Result<Vec<Vec<u8>>> {
        let query = match self {
            Self::Fd(fd) => rustix::fs::flistxattr_query(fd),
            Self::Link(path) => rustix::fs::listxattr_query(path),
        };
        let mut size = match query {
            Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
            Ok(n) => n,
            Err(e) => return Err(e),
        };
        loop {
            let mut buf = vec![0; size];
            match self.list_into(&mut buf) {
                Ok(n) => {
                    buf.truncate(n);
                    return Ok(buf
                        .split(|b| *b == 0)
                        .filter(|n| !n.is_empty())
                        .map(<[u8]>::to_vec)
                        .collect());
                }
                Err(Errno::RANGE) if size < 1 << 20 => size *= 2,
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads the value of one attribute.
    pub(crate) fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        let query = || match self {
            Self::Fd(fd) => rustix::fs::fgetxattr_query(fd, name),
            Self::Link(path) => rustix::fs::getxattr_query(path, name),
        };
        let mut buf = vec![0; query()?.clamp(1, XATTR_SIZE_MAX)];
        let read = |buf: &mut [u8]| match self {
            Self::Fd(fd) => rustix::fs::fgetxattr(fd, name, buf),
            Self::Link(path) => rustix::fs::getxattr(path, name, buf),
        };
        let mut got = read(&mut buf);
        if got == Err(Errno::RANGE) {
            buf = vec![0; XATTR_SIZE_MAX];
            got = read(&mut buf);
        }
        buf.truncate(got?);
        Ok(buf)
    }

    pub(crate) fn set(&self, name: &[u8], value: &[u8]) -> Result<()> {
        let flags = rustix::fs::XattrFlags::empty();
        match self {
            Self::Fd(fd) => rustix::fs::fsetxattr(fd, name, value, flags),
            Self::Link(path) => rustix::fs::setxattr(path, name, value, flags),
        }
    }

    /// Removes an attribute. Succeeds if the object has no such attribute.
    pub(crate) fn remove(&self, name: &[u8]) -> Result<()> {
        let r = match self {
            Self::Fd(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Link(path) => rustix::fs::removexattr(path, name),
        };
        match r {
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            other => other,
        }
    }
}

/// Returns the arguments of `utimensat` that set the modification time and keep the access time.
pub(crate) fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanoseconds.into(),
        },
    }
}

/// Sets owner and group through the descriptor.
pub(crate) fn chown_fd(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Sets owner and group of `name` in `dir`. Does not follow a symlink.
pub(crate) fn chown_at(dir: BorrowedFd<'_>, name: &[u8], uid: u32, gid: u32) -> Result<()> {
    rustix::fs::chownat(
        dir,
        name,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}
