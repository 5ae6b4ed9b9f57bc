//! Measures and writes archives.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::encode::{Head, padding};
use crate::error::{Change, PackError};
use crate::limits::{self, MAX_HEAD};
use crate::sparse::{self, Extent};
use crate::sys::{self, Stat};
use crate::target::{Target, Through};
use crate::walk::{Found, Visitor, Walk, changed, difference, io, name_still_leads_to, shown};
use crate::{END_LEN, Kind, PackOptions, PackStats};

/// Size and state of a tree at one time, measured without reading file content.
///
/// Holds 40 bytes per entry and the maps of sparse files, so that [`Measure::pack`] can report later changes.
#[derive(Debug, Clone)]
pub struct Measure {
    /// Length of the archive in bytes. [`Measure::pack`] writes exactly this number.
    pub bytes: u64,
    /// Counts of the objects and bytes that will be packed.
    pub stats: PackStats,
    /// BLAKE3 over path, kind, device, inode, size, mtime, ctime, mode, uid and gid of every entry in order.
    ///
    /// Two measures of an unchanged tree have the same fingerprint. A write can go unnoticed if it keeps the size and
    /// comes within the granularity of the kernel's file times (a tick, up to 10 ms; since 6.13 finer on file systems
    /// with multigrain times).
    pub fingerprint: [u8; 32],
    /// Path of the first object with the flag of `chattr +i` or `+a`.
    first_locked: Option<PathBuf>,
    path: PathBuf,
    options: PackOptions,
    seen: Vec<Seen>,
    maps: BTreeMap<usize, Vec<Extent>>,
}

/// Measured values of an entry. The hashes only tell the kind of a change. The fingerprint decides whether there is
/// one.
#[derive(Debug, Clone, Copy)]
struct Seen {
    kind: Kind,
    head: u32,
    path: u32,
    object: u32,
    owner: u32,
    mtime: u32,
    ctime: u32,
    size: u64,
}

fn short(parts: &[&[u8]]) -> u32 {
    let mut h = DefaultHasher::new();
    for p in parts {
        h.write(p);
    }
    let [a, b, c, d, ..] = h.finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn object(dev: u64, ino: u64) -> u32 {
    short(&[&dev.to_le_bytes(), &ino.to_le_bytes()])
}

impl Seen {
    fn new(found: &Found<'_>, head: usize) -> Self {
        let s = &found.stat;
        let time = |t: sys::Time| short(&[&t.seconds.to_le_bytes(), &t.nanoseconds.to_le_bytes()]);
        Self {
            kind: found.kind,
            // At most MAX_HEAD, so this cannot fail.
            head: u32::try_from(head).unwrap_or(u32::MAX),
            path: short(&[found.path]),
            object: object(s.dev, s.ino),
            owner: short(&[
                &s.mode.to_le_bytes(),
                &s.uid.to_le_bytes(),
                &s.gid.to_le_bytes(),
            ]),
            mtime: time(s.mtime),
            ctime: time(s.ctime),
            size: s.size,
        }
    }

    fn difference(&self, now: &Self) -> Option<Change> {
        let (was_size, now_size) = (self.size, now.size);
        if self.path != now.path {
            Some(Change::Unexpected)
        } else if self.kind != now.kind {
            Some(Change::Kind {
                was: self.kind.name(),
                now: now.kind.name(),
            })
        } else if self.object != now.object {
            Some(Change::Replaced)
        } else if self.kind == Kind::Directory && self.mtime != now.mtime {
            Some(Change::Listing)
        } else if self.kind != Kind::Directory && now_size < was_size {
            Some(Change::Shrank {
                was: was_size,
                now: now_size,
            })
        } else if self.kind != Kind::Directory && now_size > was_size {
            Some(Change::Grew {
                was: was_size,
                now: now_size,
            })
        } else if self.mtime != now.mtime {
            Some(Change::Written)
        } else if self.owner != now.owner || self.ctime != now.ctime || self.head != now.head {
            Some(Change::Attributes)
        } else {
            None
        }
    }
}

#[derive(Default)]
struct ListingHash(blake3::Hasher);

impl ListingHash {
    fn add(&mut self, found: &Found<'_>) {
        let s: &Stat = &found.stat;
        let h = &mut self.0;
        h.update(&(found.path.len() as u64).to_le_bytes());
        h.update(found.path);
        h.update(&[found.kind.name().as_bytes().first().copied().unwrap_or(0)]);
        for n in [s.dev, s.ino, s.size] {
            h.update(&n.to_le_bytes());
        }
        for t in [s.mtime, s.ctime] {
            h.update(&t.seconds.to_le_bytes());
            h.update(&t.nanoseconds.to_le_bytes());
        }
        for n in [s.mode, s.uid, s.gid] {
            h.update(&n.to_le_bytes());
        }
    }

    fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

fn head<'a>(found: &Found<'a>, sparse: Option<&'a [Extent]>) -> Head<'a> {
    Head {
        kind: found.kind,
        path: found.path,
        mode: found.stat.mode,
        uid: found.stat.uid,
        gid: found.stat.gid,
        mtime: found.stat.mtime,
        link: found.link,
        xattrs: found.xattrs,
        size: if found.kind == Kind::File {
            found.stat.size
        } else {
            0
        },
        sparse,
    }
}

fn count(stats: &mut PackStats, head: &Head<'_>, found: &Found<'_>) {
    stats.entries += 1;
    // A symlink has no flags, and its kind of descriptor could not show any.
    if matches!(head.kind, Kind::File | Kind::Directory) && found.fd.is_some_and(sys::locked) {
        stats.locked += 1;
    }
    match head.kind {
        Kind::File => stats.files += 1,
        Kind::Directory => stats.directories += 1,
        Kind::Symlink => stats.symlinks += 1,
        Kind::HardLink => stats.hard_links += 1,
    }
    stats.content_bytes += match head.sparse {
        Some(map) => map.iter().map(|e| e.len).sum(),
        None => head.size,
    };
}

struct Measuring {
    bytes: u64,
    first_locked: Option<PathBuf>,
    /// Number of bytes of extended attributes of each directory above the current object.
    open: Vec<usize>,
    stats: PackStats,
    fingerprint: ListingHash,
    seen: Vec<Seen>,
    maps: BTreeMap<usize, Vec<Extent>>,
}

impl Measuring {
    /// Refuses an object that can exist in a file system and that an archive cannot hold.
    fn representable(&mut self, found: &Found<'_>) -> Result<(), PackError> {
        let bad = |what, why| PackError::Unrepresentable {
            path: shown(found.path),
            what,
            why,
        };
        limits::path(found.path).map_err(|why| bad("its path", why))?;
        if found.kind == Kind::Symlink {
            limits::symlink(found.link).map_err(|why| bad("its text", why))?;
        }
        if !limits::owner(found.stat.uid) || !limits::owner(found.stat.gid) {
            return Err(bad(
                "its owner or group",
                "nothing can be given to the number 4294967295",
            ));
        }
        self.open.truncate(found.depth);
        if found.kind == Kind::Directory {
            self.open.push(limits::weight(found.xattrs));
            let bytes: usize = self.open.iter().sum();
            if bytes > limits::MAX_OPEN_ATTRIBUTES {
                return Err(PackError::NestedAttributes {
                    path: shown(found.path),
                    bytes: bytes as u64,
                    limit: limits::MAX_OPEN_ATTRIBUTES as u64,
                });
            }
        }
        Ok(())
    }
}

impl Visitor for Measuring {
    fn found(&mut self, found: &Found<'_>) -> Result<(), PackError> {
        self.representable(found)?;
        let s = &found.stat;
        let mut map = None;
        if let (Kind::File, Some(fd)) = (found.kind, found.fd)
            && s.blocks.saturating_mul(512) < s.size
        {
            map = sparse::find(fd, s.size).map_err(|e| io("find the holes of", found.path, e))?;
        }
        let head = head(found, map.as_deref());
        let encoded = head.encode().len();
        if encoded > MAX_HEAD {
            return Err(PackError::AttributesTooLarge {
                path: shown(found.path),
                bytes: encoded as u64,
                limit: MAX_HEAD as u64,
            });
        }
        let stored = head.stored();
        self.bytes = self
            .bytes
            .saturating_add(encoded as u64)
            .saturating_add(stored)
            .saturating_add(padding(stored) as u64);
        count(&mut self.stats, &head, found);
        if self.stats.locked > 0 && self.first_locked.is_none() {
            self.first_locked = Some(shown(found.path));
        }
        self.fingerprint.add(found);
        if let Some(map) = map {
            self.maps.insert(self.seen.len(), map);
        }
        self.seen.push(Seen::new(found, encoded));
        Ok(())
    }

    fn skipped(&mut self) {
        self.stats.skipped_special += 1;
    }

    fn not_entered(&mut self) {
        self.stats.not_entered += 1;
    }
}

/// Walks `path` and measures its archive.
///
/// `path` must be absolute and normal, and no parent of it may be a symlink. If `path` itself is a symlink, it is kept
/// as a symlink.
///
/// # Errors
/// [`PackError`], for example for a special file (unless the options skip it), for a pseudo file system, or for a tree
/// that changes during the walk.
pub fn measure(path: &Path, options: &PackOptions) -> Result<Measure, PackError> {
    let mut m = Measuring {
        bytes: 0,
        first_locked: None,
        open: Vec::new(),
        stats: PackStats::default(),
        fingerprint: ListingHash::default(),
        seen: Vec::new(),
        maps: BTreeMap::new(),
    };
    Walk::run(path, options, &mut m)?;
    if m.seen.is_empty() {
        return Err(PackError::BadPath {
            path: path.to_path_buf(),
            why: "it is a special file, and those are skipped, so nothing is left to keep",
        });
    }
    Ok(Measure {
        bytes: m.bytes.saturating_add(END_LEN),
        stats: m.stats,
        fingerprint: m.fingerprint.finish(),
        first_locked: m.first_locked,
        path: path.to_path_buf(),
        options: *options,
        seen: m.seen,
        maps: m.maps,
    })
}

/// Measures and packs in one call; see [`Measure::pack`].
///
/// # Errors
/// The errors of [`measure`] and [`Measure::pack`].
pub fn pack(
    path: &Path,
    options: &PackOptions,
    out: &mut impl Write,
    progress: &mut dyn FnMut(u64),
) -> Result<PackStats, PackError> {
    measure(path, options)?.pack(out, progress)
}

struct Packing<'a, T> {
    measure: &'a Measure,
    out: &'a mut T,
    progress: &'a mut dyn FnMut(u64),
    written: u64,
    index: usize,
    stats: PackStats,
    fingerprint: ListingHash,
}

impl Measure {
    /// Returns the measured path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the first object that [`PackStats::locked`] counts.
    #[must_use]
    pub fn first_locked(&self) -> Option<&Path> {
        self.first_locked.as_deref()
    }

    /// Returns whether the measured tree contains the regular file with this device (major and minor number in the form
    /// of statx(2)) and this inode. The answer is wrong for one in 2^32 other files.
    #[must_use]
    pub fn holds(&self, device: (u32, u32), inode: u64) -> bool {
        let object = object(sys::device(device.0, device.1), inode);
        self.seen
            .iter()
            .any(|seen| seen.kind == Kind::File && seen.object == object)
    }

    /// Writes the archive as [`Measure::pack_into`] does, through a buffer of 256 KiB.
    ///
    /// # Errors
    /// The errors of [`Measure::pack_into`].
    pub fn pack(
        &self,
        out: &mut impl Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<PackStats, PackError> {
        self.pack_into(&mut Through::new(out), progress)
    }

    /// Writes the archive: exactly [`Measure::bytes`] bytes.
    ///
    /// Calls `progress` with the number of bytes written so far, at every entry and at every read of content.
    ///
    /// Compares every file with its measure before and after reading it, and every directory after its last entry. Does
    /// not notice a change to a file after that file was packed. To find such changes, compare [`Measure::fingerprint`]
    /// with that of a new measure.
    ///
    /// # Errors
    /// [`PackError::Changed`] with the first path that differs from the measure; [`PackError::Output`] if `out` fails.
    /// The bytes that were written before have no use then.
    pub fn pack_into(
        &self,
        out: &mut impl Target,
        progress: &mut dyn FnMut(u64),
    ) -> Result<PackStats, PackError> {
        let mut p = Packing {
            measure: self,
            out,
            progress,
            written: 0,
            index: 0,
            stats: PackStats::default(),
            fingerprint: ListingHash::default(),
        };
        Walk::run(&self.path, &self.options, &mut p)?;
        if p.index != self.seen.len() {
            return Err(PackError::Changed {
                path: self.path.clone(),
                change: Change::Missing,
            });
        }
        if p.fingerprint.finish() != self.fingerprint {
            return Err(PackError::Changed {
                path: self.path.clone(),
                change: Change::Attributes,
            });
        }
        p.write(&[0; 1024], b"")?;
        let flushed = p.out.flush();
        flushed.map_err(|source| PackError::Output {
            offset: p.written,
            path: self.path.clone(),
            source,
        })?;
        (p.progress)(p.written);
        if p.written != self.bytes {
            return Err(PackError::Length {
                path: self.path.clone(),
                measured: self.bytes,
                written: p.written,
            });
        }
        Ok(p.stats)
    }
}

impl<T: Target> Packing<'_, T> {
    fn write(&mut self, bytes: &[u8], path: &[u8]) -> Result<(), PackError> {
        let put = self.out.put(bytes);
        put.map_err(|source| no_output(self.written, path, source))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Copies `extent` of the file into the archive.
    fn data(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &[u8],
        size: u64,
        extent: Extent,
    ) -> Result<(), PackError> {
        let mut at = extent.offset;
        let end = extent.offset.saturating_add(extent.len);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX);
            let room = match self.out.room(want) {
                Ok(room) => room,
                Err(source) => return Err(no_output(self.written, path, source)),
            };
            let len = room.len().min(want);
            let got = match rustix::io::pread(fd, room.get_mut(..len).unwrap_or_default(), at) {
                Ok(0) => {
                    return Err(changed(path, Change::Shrank { was: size, now: at }));
                }
                Ok(n) => n,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(io("read", path, e)),
            };
            let filled = self.out.filled(got);
            filled.map_err(|source| no_output(self.written, path, source))?;
            self.written += got as u64;
            at += got as u64;
            (self.progress)(self.written);
        }
        Ok(())
    }
}

fn no_output(offset: u64, path: &[u8], source: std::io::Error) -> PackError {
    PackError::Output {
        offset,
        path: shown(path),
        source,
    }
}

impl<T: Target> Visitor for Packing<'_, T> {
    fn found(&mut self, found: &Found<'_>) -> Result<(), PackError> {
        let map = self.measure.maps.get(&self.index).map(Vec::as_slice);
        let head = head(found, map);
        let encoded = head.encode();
        let now = Seen::new(found, encoded.len());
        let was = self.measure.seen.get(self.index);
        match was.map(|was| was.difference(&now)) {
            Some(None) => {}
            Some(Some(change)) => return Err(changed(found.path, change)),
            None => return Err(changed(found.path, Change::Unexpected)),
        }
        self.index += 1;
        self.fingerprint.add(found);
        count(&mut self.stats, &head, found);
        self.write(&encoded, found.path)?;
        (self.progress)(self.written);
        let (Kind::File, Some(fd)) = (found.kind, found.fd) else {
            return Ok(());
        };
        let size = found.stat.size;
        if let Some(map) = map {
            self.write(&sparse::encode(map, size), found.path)?;
            for extent in map {
                self.data(fd, found.path, size, *extent)?;
            }
        } else {
            let whole = Extent {
                offset: 0,
                len: size,
            };
            self.data(fd, found.path, size, whole)?;
        }
        let stored = head.stored();
        self.write(
            [0; 512].get(..padding(stored)).unwrap_or_default(),
            found.path,
        )?;
        let after = sys::stat_fd(fd.as_fd()).map_err(|e| io("look at", found.path, e))?;
        let change = difference(&found.stat, &after)
            .or_else(|| name_still_leads_to(found.parent, found.name, &found.stat));
        match change {
            Some(Change::Attributes) => {
                // A rename over the file changes only the attributes of the old object, so the name is checked too.
                let better = name_still_leads_to(found.parent, found.name, &found.stat);
                Err(changed(found.path, better.unwrap_or(Change::Attributes)))
            }
            Some(change) => Err(changed(found.path, change)),
            None => Ok(()),
        }
    }

    fn skipped(&mut self) {
        self.stats.skipped_special += 1;
    }

    fn not_entered(&mut self) {
        self.stats.not_entered += 1;
    }
}
