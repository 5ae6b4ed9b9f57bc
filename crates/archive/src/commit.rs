//! Moves a finished stage into place, and back if that fails.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use crate::error::{Conflict, UnpackError};
use crate::meta::{Before, Meta};
use crate::place::Place;
use crate::stage::Stage;
use crate::sys::{self, Stat};
use crate::walk::kind_name;
use crate::{UnpackOptions, UnpackStats};

/// A directory of the target that existed before the unpack.
pub(crate) struct Merged {
    pub path: Vec<u8>,
    pub stat: Stat,
    /// Index of the stage on the file system of the directory; `None` until an entry needs a stage. In the stage,
    /// `<index of this>/` holds the objects that belong directly in the directory.
    pub stage: Option<usize>,
    /// Metadata of the directory in the archive; `None` for the directory that the target is created in.
    pub meta: Option<Meta>,
}

/// A change that the commit made and can undo. The first field is the index of the merged directory.
enum Done {
    /// A name was moved from the stage to the merged directory, which did not have it.
    Moved(usize, Box<[u8]>),
    /// A name in the stage was exchanged with the same name in the merged directory.
    Swapped(usize, Box<[u8]>),
    /// The metadata of the merged directory were changed from these.
    Meta(usize, Before),
}

pub(crate) struct Commit<'a> {
    pub place: &'a Place,
    pub merged: &'a [Merged],
    pub stages: &'a mut [Stage],
    pub options: &'a UnpackOptions,
    pub stats: &'a mut UnpackStats,
}

impl Commit<'_> {
    /// Puts all objects in place, or none.
    pub(crate) fn run(mut self) -> Result<(), UnpackError> {
        self.sync_stages()?;
        let mut log = Vec::new();
        let done = self
            .put(&mut log)
            .and_then(|()| self.times())
            .and_then(|()| self.sync_all());
        if let Err(cause) = done {
            return Err(self.undo(log, cause));
        }
        let mut held_stage = false;
        for stage in self.stages.iter_mut() {
            held_stage = true;
            if stage.remove().is_err() {
                let dir = self.place.shown(&stage.dir);
                self.stats.leftover.push(dir.join(&stage.name));
            }
        }
        if held_stage {
            // Removing a stage changes the directory that holds it. If a power cut brings a removed stage back, nothing
            // is lost: the next unpack there removes it.
            self.times()?;
        }
        Ok(())
    }

    /// Writes the stages to disk, so that no name can be in place without its content.
    fn sync_stages(&self) -> Result<(), UnpackError> {
        if self.options.fsync {
            for stage in self.stages.iter() {
                rustix::fs::syncfs(&stage.fd)
                    .map_err(|e| self.place.io("write back", &stage.dir, 0, e))?;
            }
        }
        Ok(())
    }

    /// Writes all changes to disk, once for each mount.
    fn sync_all(&self) -> Result<(), UnpackError> {
        self.sync_stages()?;
        if !self.options.fsync {
            return Ok(());
        }
        let mut done: Vec<u64> = self.stages.iter().map(|stage| stage.mount).collect();
        // A mount on which nothing was created has no stage, but a directory may have a new owner, mode or time.
        for merged in self.merged.iter().filter(|m| m.meta.is_some()) {
            if !done.contains(&merged.stat.mount) {
                let dir = self.place.reopen(&merged.path, &merged.stat)?;
                rustix::fs::syncfs(&dir)
                    .map_err(|e| self.place.io("write back", &merged.path, 0, e))?;
                done.push(merged.stat.mount);
            }
        }
        Ok(())
    }

    fn put(&mut self, log: &mut Vec<Done>) -> Result<(), UnpackError> {
        for (index, merged) in self.merged.iter().enumerate() {
            let content = self.content(index, merged)?;
            if content.is_none() && merged.meta.is_none() {
                continue;
            }
            let dest = self.place.reopen(&merged.path, &merged.stat)?;
            if let Some(meta) = &merged.meta {
                self.metadata(index, meta, dest.as_fd(), log)?;
            }
            let Some(source) = content else {
                continue;
            };
            let mut names = sys::names(source.as_fd())
                .map_err(|e| self.place.io("list the stage of", &merged.path, 0, e))?;
            names.sort_unstable();
            for name in names {
                self.one(index, merged, source.as_fd(), dest.as_fd(), name, log)?;
            }
        }
        Ok(())
    }

    /// Opens the directory in the stage that holds the objects of a merged directory; `None` if there is no stage for
    /// it, or if the stage has no objects for it.
    fn content(
        &self,
        index: usize,
        merged: &Merged,
    ) -> Result<Option<rustix::fd::OwnedFd>, UnpackError> {
        let Some(stage) = merged.stage.and_then(|s| self.stages.get(s)) else {
            return Ok(None);
        };
        match sys::open_dir(stage.fd.as_fd(), index.to_string().as_bytes()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.place.io("open the stage of", &merged.path, 0, e)),
        }
    }

    fn metadata(
        &mut self,
        index: usize,
        meta: &Meta,
        dest: BorrowedFd<'_>,
        log: &mut Vec<Done>,
    ) -> Result<(), UnpackError> {
        let path = self.path(index);
        let failed = |(action, e)| self.place.io(action, &path, meta.offset, e);
        let before = Before::of(dest, meta).map_err(failed)?;
        let acls = before.drop_acls(dest);
        log.push(Done::Meta(index, before));
        acls.map_err(failed)?;
        meta.apply(dest, FileType::Directory, self.options, self.stats)
            .map_err(|(action, e)| self.place.io(action, &path, meta.offset, e))
    }

    fn path(&self, index: usize) -> Vec<u8> {
        self.merged
            .get(index)
            .map(|m| m.path.clone())
            .unwrap_or_default()
    }

    fn one(
        &mut self,
        index: usize,
        merged: &Merged,
        source: BorrowedFd<'_>,
        dest: BorrowedFd<'_>,
        name: Box<[u8]>,
        log: &mut Vec<Done>,
    ) -> Result<(), UnpackError> {
        let path = [merged.path.as_slice(), b"/", &name].concat();
        let path = path.strip_prefix(b"/").unwrap_or(&path);
        let io = |e| self.place.io("move into place", path, 0, e);
        match rename(source, dest, &name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                log.push(Done::Moved(index, name));
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(e) => return Err(io(e)),
        }
        let wanted = sys::stat_at(source, &name).map_err(io)?;
        let there = sys::stat_at(dest, &name).map_err(io)?;
        let conflict = |there: &Stat| UnpackError::Conflicts {
            first: vec![Conflict {
                path: self.place.shown(path),
                there: kind_name(there.kind),
                wanted: kind_name(wanted.kind),
            }],
            total: 1,
            forced: self.options.force,
        };
        if !self.options.force || wanted.is_dir() || there.is_dir() {
            return Err(conflict(&there));
        }
        rename(source, dest, &name, RenameFlags::EXCHANGE).map_err(io)?;
        // The object that was exchanged is deleted with the stage. A directory that another process just put there must
        // not be deleted.
        let came = sys::stat_at(source, &name).map_err(io)?;
        if came.is_dir() {
            rename(source, dest, &name, RenameFlags::EXCHANGE).map_err(io)?;
            return Err(conflict(&came));
        }
        log.push(Done::Swapped(index, name));
        self.stats.replaced += 1;
        Ok(())
    }

    /// Sets the times of the merged directories, children before parents. This is the last step, because every change
    /// in a directory changes its time.
    fn times(&self) -> Result<(), UnpackError> {
        for merged in self.merged.iter().rev() {
            if let Some(meta) = &merged.meta {
                let dest = self.place.reopen(&merged.path, &merged.stat)?;
                meta.time(dest.as_fd())
                    .map_err(|(action, e)| self.place.io(action, &merged.path, meta.offset, e))?;
            }
        }
        Ok(())
    }

    fn undo(&mut self, log: Vec<Done>, cause: UnpackError) -> UnpackError {
        let mut left: Vec<PathBuf> = Vec::new();
        for done in log.into_iter().rev() {
            let (Done::Moved(index, _) | Done::Swapped(index, _) | Done::Meta(index, _)) = &done;
            let Some(merged) = self.merged.get(*index) else {
                continue;
            };
            if self.revert(*index, merged, &done).is_err() {
                left.push(match &done {
                    Done::Moved(_, name) | Done::Swapped(_, name) => {
                        let path = [merged.path.as_slice(), b"/", name].concat();
                        self.place.shown(path.strip_prefix(b"/").unwrap_or(&path))
                    }
                    Done::Meta(..) => self.place.shown(&merged.path),
                });
            }
        }
        if left.is_empty() {
            return cause;
        }
        let mut stage = Vec::new();
        for s in self.stages.iter_mut() {
            let dir = self.place.shown(&s.dir);
            stage.push(dir.join(s.rescue()));
        }
        UnpackError::Incomplete {
            cause: Box::new(cause),
            left,
            stage,
        }
    }

    fn revert(&self, index: usize, merged: &Merged, done: &Done) -> Result<(), UnpackError> {
        let dest = self.place.reopen(&merged.path, &merged.stat)?;
        let io = |e| self.place.io("put back", &merged.path, 0, e);
        match done {
            Done::Meta(_, before) => before.restore(dest.as_fd()).map_err(io),
            Done::Moved(_, name) | Done::Swapped(_, name) => {
                let Some(source) = self.content(index, merged)? else {
                    return Err(io(Errno::NOENT));
                };
                let how = match done {
                    Done::Swapped(..) => RenameFlags::EXCHANGE,
                    _ => RenameFlags::NOREPLACE,
                };
                rename(dest.as_fd(), source.as_fd(), name, how).map_err(io)
            }
        }
    }
}

fn rename(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &[u8],
    how: RenameFlags,
) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(from, name, to, name, how)
}
