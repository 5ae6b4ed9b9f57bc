//! Directory that the paths of an archive are relative to.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::Dest;
use crate::error::UnpackError;
use crate::sys::{self, Stat};

pub(crate) struct Place {
    root: OwnedFd,
    shown: PathBuf,
}

impl Place {
    pub(crate) fn open(dest: &Dest) -> Result<Self, UnpackError> {
        let shown = match dest {
            Dest::Original => PathBuf::from("/"),
            Dest::Into(dir) => dir.clone(),
        };
        // The caller chose this path, so its symlinks are followed.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&shown, flags, Mode::empty()) {
            Ok(root) => Ok(Self { root, shown }),
            Err(e) => Err(UnpackError::Dest {
                path: shown,
                source: e.into(),
            }),
        }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns a path of the archive in the form that the user knows.
    pub(crate) fn shown(&self, path: &[u8]) -> PathBuf {
        self.shown.join(Path::new(OsStr::from_bytes(path)))
    }

    pub(crate) fn io(
        &self,
        action: &'static str,
        path: &[u8],
        offset: u64,
        e: Errno,
    ) -> UnpackError {
        UnpackError::Io {
            action,
            path: self.shown(path),
            offset,
            source: e.into(),
        }
    }

    /// Opens a known directory again, and checks that it is the same one.
    pub(crate) fn reopen(&self, path: &[u8], was: &Stat) -> Result<OwnedFd, UnpackError> {
        let fd = match sys::open_dir(self.root(), path) {
            Ok(fd) => fd,
            Err(Errno::LOOP) => {
                return Err(UnpackError::Symlink {
                    path: self.shown(path),
                });
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV) => {
                return Err(UnpackError::Moved {
                    path: self.shown(path),
                });
            }
            Err(e) => return Err(self.io("open", path, 0, e)),
        };
        let now = sys::stat_fd(fd.as_fd()).map_err(|e| self.io("look at", path, 0, e))?;
        if now.same_object(was) && now.mount == was.mount {
            Ok(fd)
        } else {
            Err(UnpackError::Moved {
                path: self.shown(path),
            })
        }
    }
}
