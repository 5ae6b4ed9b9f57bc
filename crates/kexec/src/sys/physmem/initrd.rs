//! The handover that arrived in files of the initrd, see [`crate::carrier::initrd`].

use super::arrived::{Arrived, Reserved};
use super::memory::{PhysError, PhysMemory, in_pieces};
use crate::carrier::initrd::{FOLDER, MOVED, TREE, content_name};
use crate::sys::root::{FactError, Root};
use kho::{PhysAddr, PhysRange};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` (`include/uapi/linux/magic.h`).
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Files that an initrd brought. The addresses of this memory are places in the files.
pub struct InitrdFiles {
    files: Vec<Piece>,
}

/// One of the files.
struct Piece {
    place: PhysRange,
    path: PathBuf,
    file: File,
}

/// Returns the folder with the files; `None` if the initrd brought none.
///
/// A file system on a disk keeps its files over a boot, so a folder there did not come with this boot's initrd.
fn folder(root: &Root) -> Option<PathBuf> {
    let there = |path: &Path| {
        rustix::fs::statfs(path).is_ok_and(|fs| IN_MEMORY.contains(&(fs.f_type as u64)))
    };
    [MOVED, FOLDER]
        .map(|folder| root.path(folder))
        .into_iter()
        .find(|path| path.is_dir() && there(path))
}

/// Looks for a state tree in files of the initrd.
///
/// # Errors
///
/// [`PhysError`] if a file cannot be read. A folder without a tree is [`Arrived::Corrupt`].
pub(super) fn find(root: &Root) -> Result<Arrived, PhysError> {
    let Some(folder) = folder(root) else {
        return Ok(Arrived::Nothing);
    };
    let path = folder.join(TREE);
    let mut bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Arrived::Corrupt {
                why: format!(
                    "{} is missing: the initrd was not unpacked in full",
                    path.display()
                ),
            });
        }
        Err(error) => return Err(FactError::io(&path, error).into()),
    };
    // The file has zeros up to whole pages. Whether the tree is whole is for its reader to judge.
    let total = bytes.get(4..8).and_then(|word| word.try_into().ok());
    let total = usize::try_from(total.map_or(0, u32::from_be_bytes)).unwrap_or(usize::MAX);
    if total > 0 {
        bytes.truncate(total);
    }
    Ok(Arrived::Tree {
        bytes,
        reserved: Reserved::Files,
    })
}

impl InitrdFiles {
    /// Opens the files.
    ///
    /// # Errors
    ///
    /// [`PhysError`] if a file cannot be opened.
    pub fn open(root: &Root) -> Result<Self, PhysError> {
        let folder = folder(root).unwrap_or_else(|| root.path(MOVED));
        let mut files: Vec<Piece> = Vec::new();
        let contents = (0..).map(content_name);
        for name in [TREE.to_owned()].into_iter().chain(contents) {
            let path = folder.join(name);
            // Write access is for the release of memory.
            let opened = OpenOptions::new().read(true).write(true).open(&path);
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !files.is_empty() => break,
                Err(error) => return Err(FactError::io(&path, error).into()),
            };
            let len = file
                .metadata()
                .map_err(|error| FactError::io(&path, error))?
                .len();
            let start = files
                .last()
                .map_or(PhysAddr::new(0), |last| last.place.end());
            let Ok(place) = PhysRange::new(start, len) else {
                return Err(PhysError::Short { path, offset: 0 });
            };
            files.push(Piece { place, path, file });
        }
        Ok(Self { files })
    }

    /// Gives the memory of these places back. Later reads find zeros there.
    ///
    /// # Errors
    ///
    /// If the file system cannot do that (ramfs).
    pub fn release(&self, places: &[PhysRange]) -> io::Result<()> {
        for piece in &self.files {
            let parts = places
                .iter()
                .filter_map(|place| place.intersection(piece.place));
            for part in parts {
                let offset = part.start().offset_from(piece.place.start()).unwrap_or(0);
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&piece.file, flags, offset, part.len())?;
            }
        }
        Ok(())
    }
}

impl PhysMemory for InitrdFiles {
    fn read_at(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), PhysError> {
        let find = |addr| {
            let piece = self.files.iter().find(|piece| piece.place.contains(addr));
            let last = || {
                self.files
                    .last()
                    .map_or(PathBuf::new(), |last| last.path.clone())
            };
            let piece = piece.ok_or_else(|| PhysError::NotMapped { path: last(), addr })?;
            Ok((piece.place, piece))
        };
        in_pieces(addr, buf, find, |piece: &Piece, offset, buf| {
            piece
                .file
                .read_exact_at(buf, offset)
                .map_err(|error| FactError::io(&piece.path, error).into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::physmem::read_range;
    use kho::PAGE_SIZE;

    /// Makes a root folder in memory, because files of the initrd are believed only there.
    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let root = Root::at(dir.path());
        (dir, root)
    }

    fn put(root: &Root, folder: &str, files: &[(&str, Vec<u8>)]) {
        let folder = root.path(folder);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }

    fn range(start: u64, pages: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start * PAGE_SIZE), pages * PAGE_SIZE).unwrap()
    }

    #[test]
    fn a_tree_in_the_initrd_is_found_before_and_after_the_move() {
        let mut tree = vec![0; 4096];
        tree[..8].copy_from_slice(&[0xd0, 0x0d, 0xfe, 0xed, 0, 0, 0, 100]);
        for folder in [FOLDER, MOVED] {
            let (_dir, root) = root();
            assert_eq!(find(&root).unwrap(), Arrived::Nothing);
            put(&root, folder, &[("content-0", vec![1; 4096])]);
            assert!(
                matches!(find(&root).unwrap(), Arrived::Corrupt { why } if why.contains("tree"))
            );
            put(&root, folder, &[(TREE, tree.clone())]);
            let Arrived::Tree { bytes, reserved } = find(&root).unwrap() else {
                panic!("no tree");
            };
            assert_eq!((bytes.len(), reserved), (100, Reserved::Files));
        }
    }

    #[test]
    fn a_folder_on_a_disk_did_not_come_with_this_boot() {
        // This folder of the build lies on a disk in some places and in memory in others.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let root = Root::at(dir.path());
        put(&root, FOLDER, &[(TREE, vec![0; 4096])]);
        let on_disk = rustix::fs::statfs(dir.path()).unwrap().f_type as u64;
        let found = find(&root).unwrap();
        assert_eq!(found == Arrived::Nothing, !IN_MEMORY.contains(&on_disk));
    }

    #[test]
    fn places_are_read_over_the_borders_of_files_and_released() {
        let (_dir, root) = root();
        let page = |byte: u8| vec![byte; 4096];
        let files = [
            (TREE, page(1)),
            ("content-0", [page(2), page(3)].concat()),
            ("content-1", page(4)),
        ];
        put(&root, MOVED, &files);
        let files = InitrdFiles::open(&root).unwrap();
        let all = read_range(&files, range(0, 4)).unwrap();
        assert_eq!(all, [page(1), page(2), page(3), page(4)].concat());
        assert!(
            read_range(&files, range(3, 2)).is_err(),
            "content that is missing"
        );
        files.release(&[range(2, 2)]).unwrap();
        let left = read_range(&files, range(1, 3)).unwrap();
        assert_eq!(left, [page(2), page(0), page(0)].concat());
    }
}
