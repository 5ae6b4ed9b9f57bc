//! Unpacks archives.

mod make;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use crate::commit::{Commit, Merged};
use crate::decode::{Decode, Entry};
use crate::error::{Conflict, Problem, UnpackError};
use crate::meta::Meta;
use crate::place::Place;
use crate::stage::Stage;
use crate::sys::{self, Stat};
use crate::walk::kind_name;
use crate::{BUFFER, Dest, Kind, UnpackOptions, UnpackStats};

/// Largest number of conflicts that the error lists. The others are only counted.
const NAMED_CONFLICTS: usize = 8;

/// A directory on the path from the root of the place to the current entry.
struct Frame {
    /// Length of the current path up to this directory.
    path_len: usize,
    state: State,
    /// Index of the innermost merged directory: this one, or one above it.
    merged: usize,
    /// Name of the last entry that is directly in this directory.
    last: Option<Vec<u8>>,
}

enum State {
    /// The directory existed before. The index is that of the merged directory.
    Merged(usize),
    /// The directory is in the stage. It gets this metadata when it is complete.
    New(Meta),
    /// Nothing is created any more; conflicts are still counted.
    Counting,
}

struct Unpack<'a, R> {
    decode: Decode<R>,
    place: Place,
    options: &'a UnpackOptions,
    progress: &'a mut dyn FnMut(u64),
    stats: UnpackStats,
    buffer: Vec<u8>,
    merged: Vec<Merged>,
    by_path: HashMap<Vec<u8>, usize>,
    stages: Vec<Stage>,
    frames: Vec<Frame>,
    path: Vec<u8>,
    conflicts: Vec<Conflict>,
    conflict_total: u64,
    /// Number of bytes of extended attributes of the new directories that are not complete.
    deferred: usize,
    /// The innermost directory in the target, if it existed before and is open now.
    there: Option<OwnedFd>,
    /// The innermost directory in the stage, if it is open now.
    here: Option<OwnedFd>,
}

/// Unpacks an archive: all of it or nothing.
///
/// First creates all objects in a stage, a directory of mode 0700 beside their place. If the whole stream is valid,
/// moves the content of the stage into place at the highest level that does not exist yet. So a tree that does not
/// exist appears in one step. If several directories existed before and the machine stops between the moves into them,
/// the earlier moves stay.
///
/// Existing directories are merged, and get the kept owner, mode, ACLs, attributes and time. Files and symlinks in the
/// way are replaced with [`UnpackOptions::force`]. Without it they are conflicts: the call counts all of them and then
/// fails. A symlink on the path to the target, or in the place of a directory of the archive, is always an error.
/// Missing parents of the target are created with mode 0755.
///
/// Calls `progress` with the number of bytes read so far. Does not read beyond the end of the archive.
///
/// # Errors
/// [`UnpackError`]. Nothing has changed then, except after [`UnpackError::Incomplete`].
pub fn unpack<R: Read>(
    reader: R,
    dest: &Dest,
    options: &UnpackOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<UnpackStats, UnpackError> {
    unpack_if(reader, dest, options, progress, |_| Ok(()))
}

/// Unpacks as [`unpack`] does, if `check` accepts the archive. The call of `check` comes when all of the archive is
/// staged and none of it is in place. `check` gets the reader and may read on.
///
/// # Errors
/// [`UnpackError::Refused`] if `check` fails; otherwise the errors of [`unpack`].
pub fn unpack_if<R: Read>(
    reader: R,
    dest: &Dest,
    options: &UnpackOptions,
    progress: &mut dyn FnMut(u64),
    check: impl FnOnce(&mut R) -> std::io::Result<()>,
) -> Result<UnpackStats, UnpackError> {
    let mut unpack = Unpack {
        decode: Decode::new(reader),
        place: Place::open(dest)?,
        options,
        progress,
        stats: UnpackStats::default(),
        buffer: vec![0; BUFFER],
        merged: Vec::new(),
        by_path: HashMap::new(),
        stages: Vec::new(),
        frames: Vec::new(),
        path: Vec::new(),
        conflicts: Vec::new(),
        conflict_total: 0,
        deferred: 0,
        there: None,
        here: None,
    };
    unpack.stream()?;
    check(unpack.decode.reader()).map_err(|source| UnpackError::Refused { source })?;
    Commit {
        place: &unpack.place,
        merged: &unpack.merged,
        stages: &mut unpack.stages,
        options,
        stats: &mut unpack.stats,
    }
    .run()?;
    Ok(unpack.stats)
}

/// Splits a path into the directory and the name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(i) => (
            path.get(..i).unwrap_or_default(),
            path.get(i + 1..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

/// Returns the part of `path` below `dir`; `None` if `path` is not below `dir`.
fn below<'a>(path: &'a [u8], dir: &[u8]) -> Option<&'a [u8]> {
    if dir.is_empty() {
        return Some(path);
    }
    path.strip_prefix(dir)?.strip_prefix(b"/")
}

/// Returns the path in a stage of the object whose path in merged directory number `index` is `rest`.
fn inside(index: usize, rest: &[u8]) -> Vec<u8> {
    let mut path = index.to_string().into_bytes();
    if !rest.is_empty() {
        path.push(b'/');
        path.extend_from_slice(rest);
    }
    path
}

impl<R: Read> Unpack<'_, R> {
    fn stream(&mut self) -> Result<(), UnpackError> {
        let Some(first) = self.next()? else {
            return Err(self.bad(Problem::Empty));
        };
        let root = first.path.clone();
        let kind = first.kind;
        if kind == Kind::HardLink {
            let target = PathBuf::from(OsStr::from_bytes(&first.link));
            return Err(self.bad(Problem::LinkTarget { target }));
        }
        self.base(&first)?;
        self.entry(first)?;
        while let Some(entry) = self.next()? {
            if kind != Kind::Directory || below(&entry.path, &root).is_none() {
                return Err(self.bad(Problem::Order(
                    "it is not below the path that the archive starts with",
                )));
            }
            self.entry(entry)?;
        }
        while !self.frames.is_empty() {
            self.leave()?;
        }
        if self.conflict_total > 0 {
            return Err(UnpackError::Conflicts {
                first: std::mem::take(&mut self.conflicts),
                total: self.conflict_total,
                forced: self.options.force,
            });
        }
        self.stats.archive_bytes = self.decode.offset();
        (self.progress)(self.decode.offset());
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let entry = self.decode.next(&mut buffer);
        self.buffer = buffer;
        let entry = entry?;
        (self.progress)(self.decode.offset());
        if entry.is_some() {
            self.stats.entries += 1;
            self.limit("entries", self.stats.entries, self.options.max_entries)?;
        }
        self.limit("bytes", self.decode.offset(), self.options.max_bytes)?;
        Ok(entry)
    }

    fn limit(&self, what: &'static str, n: u64, limit: u64) -> Result<(), UnpackError> {
        if n > limit {
            return Err(self.bad(Problem::Limit { what, limit }));
        }
        Ok(())
    }

    fn bad(&self, problem: Problem) -> UnpackError {
        UnpackError::Format(self.decode.bad(problem))
    }

    /// Finds the deepest existing parent of the target, and creates the missing parents in the stage.
    fn base(&mut self, first: &Entry) -> Result<(), UnpackError> {
        let offset = first.offset;
        let (parent, _) = split(&first.path);
        let open = sys::open_dir(self.place.root(), b"");
        let mut fd = open.map_err(|e| self.place.io("open", b"", offset, e))?;
        let mut missing: Vec<Vec<u8>> = Vec::new();
        for name in parent.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
            if !missing.is_empty() {
                missing.push(name.to_vec());
                continue;
            }
            let mut path = self.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            match sys::open_dir(fd.as_fd(), name) {
                Ok(next) => {
                    fd = next;
                    self.path = path;
                }
                Err(Errno::NOENT) => missing.push(name.to_vec()),
                Err(Errno::LOOP) => {
                    return Err(UnpackError::Symlink {
                        path: self.place.shown(&path),
                    });
                }
                Err(Errno::NOTDIR) => {
                    return Err(UnpackError::NotADirectory {
                        path: self.place.shown(&path),
                    });
                }
                Err(Errno::XDEV) => {
                    return Err(UnpackError::Moved {
                        path: self.place.shown(&path),
                    });
                }
                Err(e) => return Err(self.place.io("open", &path, offset, e)),
            }
        }
        self.merge(fd, None, offset)?;
        for name in missing {
            let meta = Meta {
                mode: 0o755,
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                offset,
                ..Meta::default()
            };
            self.directory(&name, meta)?;
        }
        Ok(())
    }

    /// Enters an existing directory with the current path.
    fn merge(&mut self, fd: OwnedFd, meta: Option<Meta>, offset: u64) -> Result<(), UnpackError> {
        let stat = sys::stat_fd(fd.as_fd())
            .map_err(|e| self.place.io("look at", &self.path, offset, e))?;
        let index = self.merged.len();
        self.by_path.insert(self.path.clone(), index);
        self.merged.push(Merged {
            path: self.path.clone(),
            stat,
            stage: None,
            meta,
        });
        self.frames.push(Frame {
            path_len: self.path.len(),
            state: State::Merged(index),
            merged: index,
            last: None,
        });
        self.there = Some(fd);
        self.here = None;
        Ok(())
    }

    /// Leaves the innermost directory.
    fn leave(&mut self) -> Result<(), UnpackError> {
        if matches!(self.frames.last().map(|f| &f.state), Some(State::New(_))) {
            self.open_here(0)?;
        }
        if let Some(Frame {
            state: State::New(meta),
            ..
        }) = self.frames.pop()
        {
            self.deferred = self.deferred.saturating_sub(meta.weight());
            if let Some(fd) = &self.here {
                meta.apply(
                    fd.as_fd(),
                    FileType::Directory,
                    self.options,
                    &mut self.stats,
                )
                .map_err(|(action, e)| self.place.io(action, &self.path, meta.offset, e))?;
            }
        }
        self.path
            .truncate(self.frames.last().map_or(0, |f| f.path_len));
        self.there = None;
        self.here = None;
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), UnpackError> {
        let (parent, name) = split(&entry.path);
        while self.path != parent {
            if below(parent, &self.path).is_some() || self.frames.len() <= 1 {
                return Err(self.bad(Problem::Order(
                    "its directory is not in the archive, or does not come right before it",
                )));
            }
            self.leave()?;
        }
        let Some(frame) = self.frames.last_mut() else {
            return Err(self.bad(Problem::Order("it is outside of the archive's path")));
        };
        if frame.last.as_deref().is_some_and(|last| last >= name) {
            return Err(self.bad(Problem::Order(
                "names in a directory are not sorted, or one comes twice",
            )));
        }
        frame.last = Some(name.to_vec());
        let merged = frame.merged;
        let name = name.to_vec();
        if let State::Merged(index) = frame.state {
            let there = self.open_there(index)?;
            match sys::stat_at(there, &name) {
                Err(Errno::NOENT) => {}
                Err(e) => return Err(self.place.io("look at", &entry.path, entry.offset, e)),
                Ok(stat) => {
                    if stat.is_dir() && entry.kind == Kind::Directory {
                        return self.merge_entry(&name, entry);
                    }
                    self.in_the_way(&entry, &stat)?;
                }
            }
        }
        if self.conflict_total > 0 {
            if entry.kind == Kind::Directory {
                self.path = entry.path;
                self.frames.push(Frame {
                    path_len: self.path.len(),
                    state: State::Counting,
                    merged,
                    last: None,
                });
                self.there = None;
                self.here = None;
            }
            return Ok(());
        }
        self.make(&name, entry)
    }

    fn merge_entry(&mut self, name: &[u8], entry: Entry) -> Result<(), UnpackError> {
        let Some(there) = &self.there else {
            return Err(UnpackError::Moved {
                path: self.place.shown(&entry.path),
            });
        };
        let fd = sys::open_dir(there.as_fd(), name).map_err(|e| match e {
            Errno::LOOP => UnpackError::Symlink {
                path: self.place.shown(&entry.path),
            },
            Errno::NOTDIR | Errno::NOENT | Errno::XDEV => UnpackError::Moved {
                path: self.place.shown(&entry.path),
            },
            e => self.place.io("open", &entry.path, entry.offset, e),
        })?;
        self.stats.merged += 1;
        let (offset, path) = (entry.offset, entry.path.clone());
        let meta = Meta::of(entry);
        self.path = path;
        self.merge(fd, Some(meta), offset)
    }

    /// Handles an existing object with the name of an entry. Succeeds if the object may be replaced, or was counted as
    /// a conflict.
    fn in_the_way(&mut self, entry: &Entry, stat: &Stat) -> Result<(), UnpackError> {
        if entry.kind == Kind::Directory && stat.kind == FileType::Symlink {
            return Err(UnpackError::Symlink {
                path: self.place.shown(&entry.path),
            });
        }
        let replaceable = !stat.is_dir() && entry.kind != Kind::Directory;
        if self.options.force && replaceable {
            return Ok(());
        }
        self.conflict_total += 1;
        if self.conflicts.len() < NAMED_CONFLICTS {
            self.conflicts.push(Conflict {
                path: self.place.shown(&entry.path),
                there: kind_name(stat.kind),
                wanted: entry.kind.name(),
            });
        }
        Ok(())
    }

    /// Returns the innermost directory in the target, which existed before. Opens it if necessary.
    fn open_there(&mut self, index: usize) -> Result<BorrowedFd<'_>, UnpackError> {
        if self.there.is_none() {
            let Some(merged) = self.merged.get(index) else {
                return Err(UnpackError::Moved {
                    path: self.place.shown(&self.path),
                });
            };
            self.there = Some(self.place.reopen(&merged.path, &merged.stat)?);
        }
        match &self.there {
            Some(fd) => Ok(fd.as_fd()),
            None => Ok(self.place.root()),
        }
    }

    /// Returns the place in the stage of the object with this path in the archive: the index of the innermost merged
    /// directory above the object, and the path in the stage.
    ///
    /// The parent of every merged directory except the first is merged too, so the search starts at the first one and
    /// goes down.
    fn staged(&self, path: &[u8]) -> Option<(usize, Vec<u8>)> {
        let first = self.merged.first()?;
        let mut rest = below(path, &first.path)?;
        let mut index = 0;
        while let Some(slash) = rest.iter().position(|b| *b == b'/') {
            let dir = path.get(..path.len() - rest.len() + slash)?;
            match self.by_path.get(dir) {
                Some(deeper) => index = *deeper,
                None => break,
            }
            rest = rest.get(slash + 1..)?;
        }
        Some((index, inside(index, rest)))
    }

    /// Opens the innermost directory in the stage.
    fn open_here(&mut self, offset: u64) -> Result<BorrowedFd<'_>, UnpackError> {
        if self.here.is_none() {
            let index = self.frames.last().map_or(0, |f| f.merged);
            let dir = self.merged.get(index).map(|m| m.path.as_slice());
            let rest = dir.and_then(|d| below(&self.path, d)).unwrap_or_default();
            let inner = inside(index, rest);
            let stage = self.stage(index, offset)?;
            let io = |e| self.place.io("open the stage of", &self.path, offset, e);
            let Some(stage) = self.stages.get(stage) else {
                return Err(io(Errno::NOENT));
            };
            match rustix::fs::mkdirat(&stage.fd, index.to_string(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(io(e)),
            }
            self.here = Some(sys::open_dir(stage.fd.as_fd(), &inner).map_err(io)?);
        }
        match &self.here {
            Some(fd) => Ok(fd.as_fd()),
            None => Err(self
                .place
                .io("open the stage of", &self.path, offset, Errno::NOENT)),
        }
    }

    /// Returns the index of the stage (the temporary directory) for objects that are restored into an existing directory.
    /// Makes the stage if there is none for that mount, in the highest directory of the mount that can be written to.
    fn stage(&mut self, index: usize, offset: u64) -> Result<usize, UnpackError> {
        let io = |e| self.place.io("make a stage in", &self.path, offset, e);
        let Some(merged) = self.merged.get(index) else {
            return Err(io(Errno::NOENT));
        };
        if let Some(stage) = merged.stage {
            return Ok(stage);
        }
        let mount = merged.stat.mount;
        if let Some(stage) = self.stages.iter().position(|s| s.mount == mount) {
            if let Some(m) = self.merged.get_mut(index) {
                m.stage = Some(stage);
            }
            return Ok(stage);
        }
        let mut last = Errno::NOENT;
        let candidates = self.merged.iter().take(index + 1);
        for dir in candidates.filter(|m| m.stat.mount == mount) {
            let fd = self.place.reopen(&dir.path, &dir.stat)?;
            match Stage::create(fd, &dir.path, mount) {
                Ok(stage) => {
                    self.stages.push(stage);
                    let stage = self.stages.len() - 1;
                    if let Some(m) = self.merged.get_mut(index) {
                        m.stage = Some(stage);
                    }
                    return Ok(stage);
                }
                Err(e @ (Errno::ACCESS | Errno::PERM)) => last = e,
                Err(e) => return Err(io(e)),
            }
        }
        Err(io(last))
    }
}
