//! Owner, attributes, mode and times of unpacked objects.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use crate::decode::Entry;
use crate::limits;
use crate::pax::{ACL_ACCESS, ACL_DEFAULT};
use crate::sys::{self, Stat, Time, XattrTarget, Xattrs};
use crate::{UnpackOptions, UnpackStats};

/// Metadata of an inode, from an entry.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    /// Path of the entry in the archive; empty for a directory that is not in the archive.
    pub path: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Modification time; `None` if the kernel's own value stays.
    pub mtime: Option<Time>,
    pub xattrs: Xattrs,
    /// Offset of the entry, for messages.
    pub offset: u64,
}

/// The step that failed, with its error.
pub(crate) type Failed = (&'static str, Errno);

/// Name of the attribute with an SELinux label (`XATTR_NAME_SELINUX`, include/uapi/linux/xattr.h, 6.1 to 7.3).
const SELINUX: &[u8] = b"security.selinux";

/// Largest number of left-out attributes whose names are reported.
const NAMED: usize = 8;

const OWNER: &str = "set the owner of";
const ATTRIBUTE: &str = "set an extended attribute of";
const MODE: &str = "set the mode of";
const TIME: &str = "set the modification time of";

impl Meta {
    /// Takes the metadata from an entry.
    pub(crate) fn of(entry: Entry) -> Self {
        Self {
            path: entry.path,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: Some(entry.mtime),
            xattrs: entry.xattrs,
            offset: entry.offset,
        }
    }

    /// Returns the number of bytes of the extended attributes in this value.
    pub(crate) fn weight(&self) -> usize {
        limits::weight(&self.xattrs)
    }

    /// Sets owner, attributes, mode and time. In this order no step undoes an earlier one: a change of owner clears
    /// set-id bits and capabilities, and an ACL changes the mode.
    pub(crate) fn apply(
        &self,
        fd: BorrowedFd<'_>,
        kind: FileType,
        options: &UnpackOptions,
        stats: &mut UnpackStats,
    ) -> Result<(), Failed> {
        sys::chown_fd(fd, self.uid, self.gid).map_err(|e| (OWNER, e))?;
        self.attributes(fd, kind, options, stats)?;
        let mut mode = self.mode;
        if kind == FileType::RegularFile && mode & 0o6000 != 0 && !options.privileged {
            mode &= !0o6000;
            stats.setid_dropped += 1;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).map_err(|e| (MODE, e))?;
        self.time(fd)
    }

    /// Sets owner, attributes and time of a symlink, which has no mode. `fd` is an `O_PATH` descriptor of the symlink.
    pub(crate) fn apply_symlink(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        fd: BorrowedFd<'_>,
        options: &UnpackOptions,
        stats: &mut UnpackStats,
    ) -> Result<(), Failed> {
        sys::chown_at(dir, name, self.uid, self.gid).map_err(|e| (OWNER, e))?;
        self.attributes(fd, FileType::Symlink, options, stats)?;
        if let Some(t) = self.mtime {
            let how = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(dir, name, &sys::times(t), how).map_err(|e| (TIME, e))?;
        }
        Ok(())
    }

    pub(crate) fn time(&self, fd: BorrowedFd<'_>) -> Result<(), Failed> {
        match self.mtime {
            Some(t) => rustix::fs::futimens(fd, &sys::times(t)).map_err(|e| (TIME, e)),
            None => Ok(()),
        }
    }

    fn attributes(
        &self,
        fd: BorrowedFd<'_>,
        kind: FileType,
        options: &UnpackOptions,
        stats: &mut UnpackStats,
    ) -> Result<(), Failed> {
        let target = XattrTarget::new(fd, kind);
        for (name, value) in &self.xattrs {
            let label = options.labels && name == SELINUX;
            if name.starts_with(b"security.") && !options.privileged && !label {
                stats.security_dropped += 1;
                continue;
            }
            match target.set(name, value) {
                Ok(()) => {}
                // The policy of this system may not know a label from another system.
                Err(Errno::INVAL | Errno::ACCESS | Errno::PERM) if label => {
                    stats.labels_dropped += 1;
                }
                Err(Errno::NOTSUP) if options.drop_unsupported_xattrs => {
                    self.unsupported(name, stats);
                }
                Err(e) => return Err((ATTRIBUTE, e)),
            }
        }
        Ok(())
    }

    fn unsupported(&self, name: &[u8], stats: &mut UnpackStats) {
        stats.unsupported_dropped += 1;
        let name = String::from_utf8_lossy(name);
        if stats.unsupported.len() < NAMED && !stats.unsupported.iter().any(|n| *n == name) {
            stats.unsupported.push(name.into_owned());
        }
        if stats.first_unsupported.is_none() {
            stats.first_unsupported = Some(OsStr::from_bytes(&self.path).into());
        }
    }
}

/// Earlier metadata of a merged directory.
pub(crate) struct Before {
    stat: Stat,
    xattrs: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Before {
    /// Reads all metadata that [`Meta::apply`] may change.
    pub(crate) fn of(fd: BorrowedFd<'_>, meta: &Meta) -> Result<Self, Failed> {
        let look = |e| ("look at", e);
        let stat = sys::stat_fd(fd).map_err(look)?;
        let target = XattrTarget::Fd(fd);
        let mut xattrs = Vec::new();
        let names = meta.xattrs.iter().map(|(n, _)| n.as_slice());
        for name in names.chain([ACL_ACCESS, ACL_DEFAULT]) {
            let value = match target.get(name) {
                Ok(v) => Some(v),
                Err(Errno::NODATA | Errno::NOTSUP) => None,
                Err(e) => return Err(look(e)),
            };
            xattrs.push((name.to_vec(), value));
        }
        Ok(Self { stat, xattrs })
    }

    /// Removes the ACLs of the existing directory. If the kept directory had no such ACLs, they would admit users whom
    /// it excluded.
    pub(crate) fn drop_acls(&self, fd: BorrowedFd<'_>) -> Result<(), Failed> {
        for (name, value) in &self.xattrs {
            if value.is_some() && (name == ACL_ACCESS || name == ACL_DEFAULT) {
                let target = XattrTarget::Fd(fd);
                target.remove(name).map_err(|e| (ATTRIBUTE, e))?;
            }
        }
        Ok(())
    }

    /// Restores the metadata of the directory from this value.
    pub(crate) fn restore(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        sys::chown_fd(fd, self.stat.uid, self.stat.gid)?;
        let target = XattrTarget::Fd(fd);
        for (name, value) in &self.xattrs {
            match value {
                Some(v) => target.set(name, v)?,
                None => target.remove(name)?,
            }
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(self.stat.mode))?;
        rustix::fs::futimens(fd, &sys::times(self.stat.mtime))
    }
}
