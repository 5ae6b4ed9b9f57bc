//! Creates the entries of an archive in the stage.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Frame, State, Unpack, split};
use crate::decode::Entry;
use crate::error::{Problem, UnpackError};
use crate::meta::Meta;
use crate::sparse::Extent;
use crate::{BUFFER, Kind, limits, sys};

impl<R: Read> Unpack<'_, R> {
    pub(super) fn make(&mut self, name: &[u8], entry: Entry) -> Result<(), UnpackError> {
        match entry.kind {
            Kind::Directory => {
                self.directory(name, Meta::of(entry))?;
                self.stats.directories += 1;
            }
            Kind::File => self.file(name, entry)?,
            Kind::Symlink => self.symlink(name, entry)?,
            Kind::HardLink => self.hard_link(name, &entry)?,
        }
        Ok(())
    }

    /// Creates a directory in the current one and enters it.
    pub(super) fn directory(&mut self, name: &[u8], meta: Meta) -> Result<(), UnpackError> {
        let offset = meta.offset;
        self.deferred += meta.weight();
        self.limit(
            "bytes of extended attributes of open directories",
            self.deferred as u64,
            limits::MAX_OPEN_ATTRIBUTES as u64,
        )?;
        let here = self.open_here(offset)?;
        let made =
            rustix::fs::mkdirat(here, name, Mode::RWXU).and_then(|()| sys::open_dir(here, name));
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let fd = made.map_err(|e| self.place.io("make the directory", &self.path, offset, e))?;
        self.here = Some(fd);
        self.there = None;
        let merged = self.frames.last().map_or(0, |f| f.merged);
        self.frames.push(Frame {
            path_len: self.path.len(),
            state: State::New(meta),
            merged,
            last: None,
        });
        Ok(())
    }

    fn file(&mut self, name: &[u8], mut entry: Entry) -> Result<(), UnpackError> {
        let (path, offset, size) = (entry.path.clone(), entry.offset, entry.size);
        let here = self.open_here(offset)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let opened = sys::open_beneath(here, name, flags);
        let fd = opened.map_err(|e| self.place.io("make the file", &path, offset, e))?;
        if let Some(map) = entry.sparse.take() {
            rustix::fs::ftruncate(&fd, size)
                .map_err(|e| self.place.io("set the size of", &path, offset, e))?;
            for extent in map {
                self.data(fd.as_fd(), &path, offset, extent)?;
            }
        } else {
            let whole = Extent {
                offset: 0,
                len: size,
            };
            self.data(fd.as_fd(), &path, offset, whole)?;
        }
        Meta::of(entry)
            .apply(
                fd.as_fd(),
                FileType::RegularFile,
                self.options,
                &mut self.stats,
            )
            .map_err(|(action, e)| self.place.io(action, &path, offset, e))?;
        self.stats.files += 1;
        Ok(())
    }

    /// Copies the next `extent.len` bytes of content into the file, at `extent.offset`.
    fn data(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &[u8],
        offset: u64,
        extent: Extent,
    ) -> Result<(), UnpackError> {
        let mut at = extent.offset;
        let end = extent.offset.saturating_add(extent.len);
        while at < end {
            let want = usize::try_from(end - at).map_or(BUFFER, |n| n.min(BUFFER));
            let got = self
                .decode
                .read(self.buffer.get_mut(..want).unwrap_or_default())?;
            let mut rest = self.buffer.get(..got).unwrap_or_default();
            if rest.is_empty() {
                return Err(self.bad(Problem::Sparse("its extents hold more than the entry")));
            }
            while !rest.is_empty() {
                match rustix::io::pwrite(fd, rest, at) {
                    Ok(0) => return Err(self.place.io("write", path, offset, Errno::NOSPC)),
                    Ok(n) => {
                        rest = rest.get(n..).unwrap_or_default();
                        at += n as u64;
                        self.stats.content_bytes += n as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(self.place.io("write", path, offset, e)),
                }
            }
            (self.progress)(self.decode.offset());
            self.limit("bytes", self.decode.offset(), self.options.max_bytes)?;
        }
        Ok(())
    }

    fn symlink(&mut self, name: &[u8], mut entry: Entry) -> Result<(), UnpackError> {
        let (path, offset) = (entry.path.clone(), entry.offset);
        let text = std::mem::take(&mut entry.link);
        let meta = Meta::of(entry);
        let mut stats = std::mem::take(&mut self.stats);
        let options = self.options;
        let here = self.open_here(offset)?;
        let done = rustix::fs::symlinkat(text.as_slice(), here, name)
            .and_then(|()| sys::open_beneath(here, name, OFlags::PATH))
            .map_err(|e| ("make the symlink", e))
            .and_then(|fd| meta.apply_symlink(here, name, fd.as_fd(), options, &mut stats));
        self.stats = stats;
        done.map_err(|(action, e)| self.place.io(action, &path, offset, e))?;
        self.stats.symlinks += 1;
        Ok(())
    }

    fn hard_link(&mut self, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let unknown = || Problem::LinkTarget {
            target: PathBuf::from(OsStr::from_bytes(&entry.link)),
        };
        self.open_here(entry.offset)?;
        let found = self.staged(&entry.link).and_then(|(index, inner)| {
            let stage = self.merged.get(index)?.stage?;
            let stage = self.stages.get(stage)?;
            let (dir, file) = split(&inner);
            if dir.is_empty() {
                return None;
            }
            let dir = sys::open_dir(stage.fd.as_fd(), dir).ok()?;
            let stat = sys::stat_at(dir.as_fd(), file).ok()?;
            (!stat.is_dir()).then(|| (dir, file.to_vec()))
        });
        let (Some((dir, file)), Some(here)) = (found, &self.here) else {
            return Err(self.bad(unknown()));
        };
        rustix::fs::linkat(&dir, file, here, name, AtFlags::empty()).map_err(|e| {
            self.place
                .io("make the hard link", &entry.path, entry.offset, e)
        })?;
        self.stats.hard_links += 1;
        Ok(())
    }
}
