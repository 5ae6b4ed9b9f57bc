//! The lock that allows one `kho` at a time.
//!
//! A load takes memory, raises a limit and replaces the loaded image; a start destroys the machine's state. Two of
//! these at once would invalidate each other's checks, so both take this lock. It is an `flock`, so the kernel drops
//! the lock when the process that holds it ends for any reason.

use crate::sys::root::Root;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Interval at which a waiting process tries again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Path of the lock, below a [`Root`].
pub const DEFAULT: &str = "run/kho/lock";

/// Reason why the lock was not taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has the lock.
    #[error("another kho is working{}: wait for it, or stop it ({})", holder(*pid), path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Process that has the lock, if the file names it.
        pid: Option<u32>,
    },
    /// The directory belongs to another user, or other users can write to it. Such a user could hold or replace the
    /// lock.
    #[error(
        "{} is not a directory of ours: owner {uid}, mode {mode:#o}; remove it or make it 0700 and root's",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Owner of the directory.
        uid: u32,
        /// Permission bits of the directory.
        mode: u32,
    },
    /// A system call failed.
    #[error("cannot use the lock {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |p| format!(" (process {p})"))
}

/// The lock, held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of this machine without waiting.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub fn take(root: &Root) -> Result<Self, LockError> {
        Self::take_at(&root.path(DEFAULT))
    }

    /// Takes the lock at another path without waiting. Makes the lock's directory with mode 0700 if it is missing. Only
    /// the user of this process may have access to the directory.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub fn take_at(path: &Path) -> Result<Self, LockError> {
        let fail = |path: &Path, source: io::Error| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let dir = path.parent().unwrap_or(Path::new("."));
        if let Err(e) = std::fs::DirBuilder::new()
            .recursive(false)
            .mode(0o700)
            .create(dir)
            && e.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(fail(dir, e));
        }
        let meta = std::fs::symlink_metadata(dir).map_err(|e| fail(dir, e))?;
        let mine = meta.uid() == rustix::process::geteuid().as_raw();
        if !meta.is_dir() || !mine || meta.mode() & 0o022 != 0 {
            return Err(LockError::Directory {
                path: dir.to_owned(),
                uid: meta.uid(),
                mode: meta.mode() & 0o7777,
            });
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| fail(path, e.into()))?;
        let mut file = File::from(fd);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held {
                    path: path.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(e) => return Err(fail(path, e.into())),
        }
        // The number is only for the message of a later process: the lock itself is the flock.
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(|e| fail(path, e))?;
        Ok(Self { file })
    }
}

impl Lock {
    /// Takes the lock as [`take_at`](Self::take_at) does, waiting at most `limit` for the process that has it.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub fn take_within(path: &Path, limit: Duration) -> Result<Self, LockError> {
        let started = Instant::now();
        loop {
            match Self::take_at(path) {
                Err(LockError::Held { .. }) if started.elapsed() < limit => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                result => return result,
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays: removing it would let two processes lock two different files.
        let _ = self.file.set_len(0);
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_second_is_told_who_has_it() {
        let f = Fixture::new();
        f.put("run/x", "");
        let first = Lock::take(&f.root()).unwrap();
        let error = Lock::take(&f.root()).unwrap_err();
        let me = std::process::id();
        assert!(
            matches!(error, LockError::Held { pid: Some(p), .. } if p == me),
            "{error}"
        );
        assert!(error.to_string().contains(&me.to_string()));
        drop(first);
        drop(Lock::take(&f.root()).unwrap());
        let mode = |p: &str| std::fs::metadata(f.root().path(p)).unwrap().mode() & 0o777;
        assert_eq!(mode("run/kho"), 0o700);
        assert_eq!(mode("run/kho/lock"), 0o600);
    }

    #[test]
    fn waiting_ends_with_the_lock_or_with_the_limit() {
        let f = Fixture::new();
        f.put("run/x", "");
        let path = f.root().path(DEFAULT);
        let first = Lock::take_at(&path).unwrap();
        let error = Lock::take_within(&path, Duration::from_millis(150)).unwrap_err();
        assert!(matches!(error, LockError::Held { .. }), "{error}");
        let second = std::thread::spawn(move || Lock::take_within(&path, Duration::from_secs(60)));
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let f = Fixture::new();
        f.put("run/kho/x", "");
        let dir = f.root().path("run/kho");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            Lock::take(&f.root()),
            Err(LockError::Directory { mode: 0o777, .. })
        ));
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("lock")).unwrap();
        assert!(matches!(Lock::take(&f.root()), Err(LockError::Io { .. })));
    }
}
