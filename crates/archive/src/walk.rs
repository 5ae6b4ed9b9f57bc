//! Walk through a tree: depth first, names sorted, never through a symlink, and with a bounded number of descriptors.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Change, PackError};
use crate::limits::{MAX_HEAD, MAX_PATH};
use crate::pax::kept_attribute;
use crate::sys::{self, Stat, XattrTarget, Xattrs};
use crate::{Kind, PackOptions};

/// Number of directory levels whose descriptors stay open during the walk below them. Deeper ones are opened again by
/// path.
const OPEN_LEVELS: usize = 64;

/// An object that was opened and examined.
pub(crate) struct Found<'a> {
    /// Path without the leading slash.
    pub path: &'a [u8],
    pub kind: Kind,
    /// Number of directories of the archive above the object.
    pub depth: usize,
    pub stat: Stat,
    /// Directory that contains the object under `name`.
    pub parent: BorrowedFd<'a>,
    pub name: &'a [u8],
    /// The open object; `None` for a hard link to an earlier object.
    pub fd: Option<BorrowedFd<'a>>,
    /// Text of a symlink; path of the first name for a hard link.
    pub link: &'a [u8],
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Receiver of the objects that the walk finds.
pub(crate) trait Visitor {
    fn found(&mut self, found: &Found<'_>) -> Result<(), PackError>;
    /// Called when a special file is left out.
    fn skipped(&mut self) {}
    /// Called when a directory on another file system is not entered.
    fn not_entered(&mut self) {}
}

struct Level {
    /// Names still to visit, in reverse order.
    names: Vec<Box<[u8]>>,
    stat: Stat,
    /// Length of the path of the walk up to this directory.
    path_len: usize,
    /// Descriptor of this directory, while the walk is below it.
    fd: Option<OwnedFd>,
}

pub(crate) struct Walk<'a, V> {
    options: &'a PackOptions,
    visitor: &'a mut V,
    root: OwnedFd,
    path: Vec<u8>,
    /// First name of every object with several names, by mount, device and inode. A link cannot lead from one mount to
    /// another, not even to one of the same file system (do_linkat in fs/namei.c, 6.1 to 7.3).
    links: HashMap<(u64, u64, u64), Box<[u8]>>,
    /// Device of the kept path.
    device: Option<u64>,
}

/// Returns the path with a leading slash, for messages.
pub(crate) fn shown(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}

pub(crate) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "object of unknown kind",
    }
}

/// Returns the name of a file system that only shows kernel state, by its magic number in include/uapi/linux/magic.h
/// (6.1 to 7.3); `None` for other file systems.
fn pseudo(magic: u64) -> Option<&'static str> {
    Some(match magic {
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        0x6462_6720 => "debugfs",
        0x7472_6163 => "tracefs",
        0x7363_6673 => "securityfs",
        0xf97c_ff8c => "selinuxfs",
        0x0027_e0eb => "cgroup",
        0x6367_7270 => "cgroup2",
        0xcafe_4a11 => "bpf",
        0x6265_6570 => "configfs",
        0x4249_4e4d => "binfmt_misc",
        0x1cd1 => "devpts",
        _ => return None,
    })
}

/// Checks a path to keep, and returns it without the leading slash.
fn relative(path: &Path) -> Result<Vec<u8>, PackError> {
    let bad = |why| PackError::BadPath {
        path: path.to_path_buf(),
        why,
    };
    let bytes = path.as_os_str().as_bytes();
    let Some(rest) = bytes.strip_prefix(b"/") else {
        return Err(bad("it is not absolute; give it from the root"));
    };
    if rest.is_empty() {
        return Err(bad(
            "it is the whole system; name the directories that matter",
        ));
    }
    if bytes.contains(&0) {
        return Err(bad("it holds a NUL byte"));
    }
    if !path
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)))
        || rest
            .split(|b| *b == b'/')
            .any(|c| c.is_empty() || c == b"." || c == b"..")
    {
        return Err(bad(
            "it is not normal; give it without `.`, `..` and doubled or trailing slashes",
        ));
    }
    Ok(rest.to_vec())
}

impl<'a, V: Visitor> Walk<'a, V> {
    /// Visits `path` and all objects below it.
    pub(crate) fn run(
        path: &Path,
        options: &'a PackOptions,
        visitor: &'a mut V,
    ) -> Result<(), PackError> {
        let path = relative(path)?;
        let root = rustix::fs::open(
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| io("open", b"", e))?;
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(i) => path.split_at(i),
            None => (b"".as_slice(), path.as_slice()),
        };
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let fd = sys::open_beneath(root.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|e| match e {
                Errno::LOOP => PackError::BadPath {
                    path: shown(&path),
                    why: "a directory on the way to it is a symlink; give the path that the symlink leads to",
                },
                e => io("open the parent directory of", &path, e),
            })?;
        let mut walk = Self {
            options,
            visitor,
            root,
            path: path.clone(),
            links: HashMap::new(),
            device: None,
        };
        walk.tree(fd.as_fd(), name)
    }

    fn tree(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), PackError> {
        let mut levels = Vec::new();
        let mut current = self.visit(parent, name, true, &mut levels)?;
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path_len);
            let Some(fd) = current.take().or_else(|| level.fd.take()) else {
                current = Some(self.reopen(level)?);
                continue;
            };
            let Some(name) = level.names.pop() else {
                self.unchanged(fd.as_fd(), &level.stat)?;
                levels.pop();
                continue;
            };
            self.path.push(b'/');
            self.path.extend_from_slice(&name);
            let depth = levels.len();
            let child = self.visit(fd.as_fd(), &name, false, &mut levels)?;
            if child.is_none() {
                current = Some(fd);
            } else {
                if depth <= OPEN_LEVELS
                    && let Some(level) = levels.get_mut(depth - 1)
                {
                    level.fd = Some(fd);
                }
                current = child;
            }
        }
        Ok(())
    }

    /// Opens a directory again to which the walk returns, and checks that it is the same one.
    fn reopen(&self, level: &Level) -> Result<OwnedFd, PackError> {
        let fd = sys::open_dir(self.root.as_fd(), &self.path)
            .map_err(|e| self.vanished(e, &level.stat))?;
        let now = sys::stat_fd(fd.as_fd()).map_err(|e| io("look at", &self.path, e))?;
        if now.same_object(&level.stat) {
            Ok(fd)
        } else {
            Err(changed(&self.path, Change::Replaced))
        }
    }

    fn unchanged(&self, fd: BorrowedFd<'_>, was: &Stat) -> Result<(), PackError> {
        let now = sys::stat_fd(fd).map_err(|e| io("look at", &self.path, e))?;
        match difference(was, &now) {
            None => Ok(()),
            Some(change) => Err(changed(&self.path, change)),
        }
    }

    /// Makes the error for an open that failed right after a successful stat. In most cases the cause is a change,
    /// which the error then names.
    fn vanished(&self, e: Errno, was: &Stat) -> PackError {
        match e {
            Errno::NOENT => changed(&self.path, Change::Removed),
            Errno::XDEV => changed(&self.path, Change::Replaced),
            Errno::LOOP | Errno::NOTDIR | Errno::NXIO => {
                let now = match e {
                    Errno::LOOP => "symlink",
                    Errno::NXIO => "socket",
                    _ => "object of another kind",
                };
                changed(
                    &self.path,
                    Change::Kind {
                        was: kind_name(was.kind),
                        now,
                    },
                )
            }
            e => io("open", &self.path, e),
        }
    }

    fn open(&self, parent: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<OwnedFd, PackError> {
        let flags = match stat.kind {
            FileType::Symlink => OFlags::PATH,
            FileType::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
            // If a fifo has taken the name meanwhile, the open must not wait for the other end of the fifo.
            _ => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
        };
        let mut opened = if flags.contains(OFlags::PATH) {
            sys::open_beneath(parent, name, flags)
        } else {
            sys::open_beneath(parent, name, flags | OFlags::NOATIME)
        };
        if opened.as_ref().err() == Some(&Errno::PERM) {
            // The kernel allows NOATIME only to the owner of the file.
            opened = sys::open_beneath(parent, name, flags);
        }
        opened.map_err(|e| self.vanished(e, stat))
    }

    /// Visits one name. For a directory to walk, pushes its level and returns its descriptor.
    fn visit(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        first: bool,
        levels: &mut Vec<Level>,
    ) -> Result<Option<OwnedFd>, PackError> {
        if self.path.len() > MAX_PATH {
            return Err(PackError::PathTooLong {
                path: shown(&self.path),
                bytes: self.path.len(),
                limit: MAX_PATH,
            });
        }
        let seen = sys::stat_at(parent, name).map_err(|e| match e {
            Errno::NOENT if !first => changed(&self.path, Change::Removed),
            e => io("look at", &self.path, e),
        })?;
        let kind = match seen.kind {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            _ if self.options.skip_special => {
                self.visitor.skipped();
                return Ok(None);
            }
            other => {
                return Err(PackError::Special {
                    path: shown(&self.path),
                    kind: kind_name(other),
                });
            }
        };
        if kind != Kind::Directory
            && seen.nlink > 1
            && let Some(link) = self.links.get(&(seen.mount, seen.dev, seen.ino))
        {
            self.visitor.found(&Found {
                path: &self.path,
                kind: Kind::HardLink,
                depth: levels.len(),
                stat: seen,
                parent,
                name,
                fd: None,
                link,
                xattrs: &[],
            })?;
            return Ok(None);
        }
        let fd = self.open(parent, name, &seen)?;
        let stat = sys::stat_fd(fd.as_fd()).map_err(|e| io("look at", &self.path, e))?;
        if stat.kind != seen.kind {
            let (was, now) = (kind_name(seen.kind), kind_name(stat.kind));
            return Err(changed(&self.path, Change::Kind { was, now }));
        }
        // Opening an automount point mounts a file system over it, so another mount is no replacement.
        let mounted = kind == Kind::Directory && stat.mount != seen.mount;
        if !stat.same_object(&seen) && !mounted {
            return Err(changed(&self.path, Change::Replaced));
        }
        let own_device = *self.device.get_or_insert(stat.dev);
        let parent_device = levels.last().map(|l: &Level| l.stat.dev);
        if parent_device != Some(stat.dev) {
            self.refuse_pseudo(fd.as_fd(), stat.kind)?;
        }
        let link = if kind == Kind::Symlink {
            rustix::fs::readlinkat(&fd, c"", Vec::new())
                .map_err(|e| io("read the symlink", &self.path, e))?
                .into_bytes()
        } else {
            Vec::new()
        };
        let xattrs = self.xattrs(fd.as_fd(), stat.kind)?;
        self.visitor.found(&Found {
            path: &self.path,
            kind,
            depth: levels.len(),
            stat,
            parent,
            name,
            fd: Some(fd.as_fd()),
            link: &link,
            xattrs: &xattrs,
        })?;
        if kind != Kind::Directory {
            if stat.nlink > 1 {
                let path = Box::from(self.path.as_slice());
                self.links.insert((stat.mount, stat.dev, stat.ino), path);
            }
            return Ok(None);
        }
        let mut names = Vec::new();
        if self.options.one_file_system && stat.dev != own_device {
            self.visitor.not_entered();
        } else {
            names = sys::names(fd.as_fd()).map_err(|e| io("list", &self.path, e))?;
        }
        // The walk takes names from the end of the list, so that each name is freed after its visit.
        names.sort_unstable_by(|a, b| b.cmp(a));
        // After a rename during the listing, a name may occur twice. An archive must not have it twice.
        names.dedup();
        levels.push(Level {
            names,
            stat,
            path_len: self.path.len(),
            fd: None,
        });
        Ok(Some(fd))
    }

    fn refuse_pseudo(&self, fd: BorrowedFd<'_>, kind: FileType) -> Result<(), PackError> {
        if kind == FileType::Symlink {
            return Ok(());
        }
        let fs =
            rustix::fs::fstatfs(fd).map_err(|e| io("look at the file system of", &self.path, e))?;
        // The type of the field differs between architectures. The magic numbers have 32 bits.
        #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
        let magic = fs.f_type as u64 & 0xffff_ffff;
        match pseudo(magic) {
            Some(file_system) => Err(PackError::PseudoFileSystem {
                path: shown(&self.path),
                file_system,
            }),
            None => Ok(()),
        }
    }

    fn xattrs(&self, fd: BorrowedFd<'_>, kind: FileType) -> Result<Xattrs, PackError> {
        let target = XattrTarget::new(fd, kind);
        let mut names = target
            .list()
            .map_err(|e| io("list the extended attributes of", &self.path, e))?;
        names.retain(|n| kept_attribute(n));
        names.sort_unstable();
        let mut out = Vec::new();
        let mut bytes = 0;
        for name in names {
            let value = match target.get(&name) {
                Ok(v) => v,
                // The attribute was removed after the listing. This change is visible in ctime, which pack compares.
                Err(Errno::NODATA) => continue,
                Err(e) => return Err(io("read an extended attribute of", &self.path, e)),
            };
            bytes += name.len() + value.len();
            if bytes > MAX_HEAD {
                return Err(PackError::AttributesTooLarge {
                    path: shown(&self.path),
                    bytes: bytes as u64,
                    limit: MAX_HEAD as u64,
                });
            }
            out.push((name, value));
        }
        Ok(out)
    }
}

/// Compares an object with its earlier state, and returns the change; `None` if there is none. The times decide only if
/// everything else is equal.
pub(crate) fn difference(was: &Stat, now: &Stat) -> Option<Change> {
    if was.kind != now.kind {
        return Some(Change::Kind {
            was: kind_name(was.kind),
            now: kind_name(now.kind),
        });
    }
    if was.dev != now.dev || was.ino != now.ino {
        return Some(Change::Replaced);
    }
    if now.nlink == 0 {
        return Some(Change::Removed);
    }
    if was.is_dir() {
        if was.mtime != now.mtime {
            return Some(Change::Listing);
        }
    } else if now.size < was.size {
        return Some(Change::Shrank {
            was: was.size,
            now: now.size,
        });
    } else if now.size > was.size {
        return Some(Change::Grew {
            was: was.size,
            now: now.size,
        });
    } else if was.mtime != now.mtime {
        return Some(Change::Written);
    }
    (was.ctime != now.ctime || was.mode != now.mode || was.uid != now.uid || was.gid != now.gid)
        .then_some(Change::Attributes)
}

/// Returns the change if `name` no longer leads to the object `was`. The object was open and may have been replaced.
pub(crate) fn name_still_leads_to(
    parent: BorrowedFd<'_>,
    name: &[u8],
    was: &Stat,
) -> Option<Change> {
    match sys::stat_at(parent, name) {
        Ok(now) if now.same_object(was) => None,
        Ok(now) if now.kind != was.kind => Some(Change::Kind {
            was: kind_name(was.kind),
            now: kind_name(now.kind),
        }),
        Ok(_) => Some(Change::Replaced),
        Err(_) => Some(Change::Removed),
    }
}

pub(crate) fn changed(path: &[u8], change: Change) -> PackError {
    PackError::Changed {
        path: shown(path),
        change,
    }
}

pub(crate) fn io(action: &'static str, path: &[u8], e: Errno) -> PackError {
    PackError::Io {
        action,
        path: shown(path),
        source: e.into(),
    }
}
