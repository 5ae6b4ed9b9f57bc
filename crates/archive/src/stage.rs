//! Stage directories, in which an archive is unpacked before any of it is visible.
//!
//! A stage is a directory of mode 0700 with a random name, beside the place of its content. Its process holds a `flock`
//! on it. So the next run can tell a stage that a dead process left from a stage in use, and removes it.

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::pax::{ACL_ACCESS, ACL_DEFAULT};
use crate::sys::{self, Stat, XattrTarget};

/// Start of the name of a stage directory. 32 hexadecimal digits follow.
pub const STAGE_PREFIX: &str = ".kho-restore-";

/// Start of the new name of a stage that holds objects which could not be put back. No clean-up removes such a stage.
pub const RESCUE_PREFIX: &str = ".kho-rescued-";

/// A stage in use. Its drop removes it with its content.
pub(crate) struct Stage {
    pub fd: OwnedFd,
    pub mount: u64,
    /// Path of the directory that holds the stage, relative to the place.
    pub dir: Vec<u8>,
    pub name: String,
    parent: OwnedFd,
    keep: bool,
}

impl Stage {
    /// Makes a stage in `parent`. First removes stages there that no process uses.
    pub(crate) fn create(parent: OwnedFd, dir: &[u8], mount: u64) -> Result<Self> {
        // A stale stage that cannot be removed does not stop the restore.
        let _ = clean(parent.as_fd());
        for _ in 0..16 {
            let name = random_name()?;
            match rustix::fs::mkdirat(&parent, name.as_str(), Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(e) => return Err(e),
            }
            let fd = match sys::open_dir(parent.as_fd(), name.as_bytes()) {
                Ok(fd) => fd,
                // Another run took it for a stale one between the two calls.
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e),
            };
            if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err()
                || sys::stat_fd(fd.as_fd())?.nlink == 0
            {
                continue;
            }
            let stage = Self {
                fd,
                mount,
                dir: dir.to_vec(),
                name,
                parent,
                keep: false,
            };
            stage.bare()?;
            return Ok(stage);
        }
        Err(Errno::EXIST)
    }

    /// Removes the ACLs that the stage inherited, and resets its owner, group and mode. Objects in the stage would
    /// inherit these too.
    fn bare(&self) -> Result<()> {
        let target = XattrTarget::Fd(self.fd.as_fd());
        target.remove(ACL_DEFAULT)?;
        target.remove(ACL_ACCESS)?;
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        sys::chown_fd(&self.fd, uid, gid)?;
        rustix::fs::fchmod(&self.fd, Mode::RWXU)
    }

    /// Keeps the stage permanently, under a name that starts with [`RESCUE_PREFIX`] if the rename succeeds. Returns the
    /// name.
    pub(crate) fn rescue(&mut self) -> &str {
        self.keep = true;
        let digits = self.name.strip_prefix(STAGE_PREFIX).unwrap_or_default();
        let name = format!("{RESCUE_PREFIX}{digits}");
        if rustix::fs::renameat(
            &self.parent,
            self.name.as_str(),
            &self.parent,
            name.as_str(),
        )
        .is_ok()
        {
            self.name = name;
        }
        &self.name
    }

    /// Removes the stage and its content.
    pub(crate) fn remove(&mut self) -> Result<()> {
        self.keep = true;
        remove_content(self.fd.as_fd())?;
        rustix::fs::unlinkat(&self.parent, self.name.as_str(), AtFlags::REMOVEDIR)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.keep {
            // A drop cannot report an error. If the stage remains, the next run removes it as a stale one.
            let _ = self.remove();
        }
    }
}

fn random_name() -> Result<String> {
    let mut random = [0_u8; 16];
    let mut done = 0;
    while let Some(rest) = random.get_mut(done..).filter(|r| !r.is_empty()) {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    let mut name = String::from(STAGE_PREFIX);
    for b in random {
        // Writing to a string cannot fail.
        let _ = write!(name, "{b:02x}");
    }
    Ok(name)
}

/// Removes stage directories directly in `dir` that belong to this user and that no process holds. Returns their
/// number.
///
/// # Errors
/// The error of opening, listing or removing. Stages that were removed before the error stay removed.
pub fn clean_stale(dir: &Path) -> std::io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())?;
    Ok(clean(fd.as_fd())?)
}

fn clean(dir: BorrowedFd<'_>) -> Result<u64> {
    let mut removed = 0;
    for name in sys::names(dir)? {
        let digits = name.strip_prefix(STAGE_PREFIX.as_bytes());
        let ours = digits.is_some_and(|d| d.len() == 32 && d.iter().all(u8::is_ascii_hexdigit));
        if !ours {
            continue;
        }
        let Ok(stat) = sys::stat_at(dir, &name) else {
            continue;
        };
        let owner = rustix::process::geteuid().as_raw();
        // In a place that others can write to, a directory of another user may have the name of a stage.
        if !stat.is_dir() || stat.uid != owner || stat.mode & 0o777 != 0o700 {
            continue;
        }
        let Ok(fd) = sys::open_dir(dir, &name) else {
            continue;
        };
        let same = sys::stat_fd(fd.as_fd()).is_ok_and(|s| s.same_object(&stat));
        if !same || rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        remove_content(fd.as_fd())?;
        rustix::fs::unlinkat(dir, &*name, AtFlags::REMOVEDIR)?;
        removed += 1;
    }
    Ok(removed)
}

struct Level {
    directories: Vec<Box<[u8]>>,
    path_len: usize,
}

/// Removes the content of a directory of any depth. Follows no symlink and enters no other mount.
fn remove_content(top: BorrowedFd<'_>) -> Result<()> {
    let mount = sys::stat_fd(top)?.mount;
    let mut path: Vec<u8> = Vec::new();
    let mut levels = vec![Level {
        directories: sweep(top, mount)?,
        path_len: 0,
    }];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path_len);
        if let Some(name) = level.directories.pop() {
            let parent = sys::open_dir(top, &path)?;
            match rustix::fs::unlinkat(&parent, &*name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            let fd = match sys::open_dir(parent.as_fd(), &name) {
                Err(Errno::ACCESS) => {
                    // The mode of a restored directory may exclude its owner. Root can enter it anyway.
                    rustix::fs::chmodat(&parent, &*name, Mode::RWXU, AtFlags::empty())?;
                    sys::open_dir(parent.as_fd(), &name)?
                }
                other => other?,
            };
            let stat: Stat = sys::stat_fd(fd.as_fd())?;
            if stat.mount != mount {
                return Err(Errno::XDEV);
            }
            if stat.mode & 0o700 != 0o700 {
                rustix::fs::fchmod(&fd, Mode::RWXU)?;
            }
            let directories = sweep(fd.as_fd(), mount)?;
            // The directory is removed later, when it is empty.
            level.directories.push(name.clone());
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            levels.push(Level {
                directories,
                path_len: path.len(),
            });
        } else {
            levels.pop();
        }
    }
    Ok(())
}

/// Unlinks all entries of a directory except directories, and returns the names of the directories.
fn sweep(dir: BorrowedFd<'_>, mount: u64) -> Result<Vec<Box<[u8]>>> {
    let mut directories = Vec::new();
    for name in sys::names(dir)? {
        let stat = match sys::stat_at(dir, &name) {
            Ok(s) => s,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e),
        };
        if stat.is_dir() {
            if stat.mount != mount {
                return Err(Errno::XDEV);
            }
            directories.push(name);
        } else {
            match rustix::fs::unlinkat(dir, &*name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(directories)
}
