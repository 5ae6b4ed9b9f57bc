//! The initrd as a carrier: tree and content are files of the initrd, which `kexec_file_load(2)` takes as it is. So a
//! kernel can hand over that is locked down, or that has no `kexec_load(2)`.
//!
//! | path in the initrd | content |
//! | --- | --- |
//! | `/.kho/carried/` | mode 0700 |
//! | `/.kho/carried/tree` | the state tree, with zeros up to whole pages |
//! | `/.kho/carried/content-0`, `content-1`, … | the content, in pieces of [`PIECE`] bytes; the last one may be shorter |
//!
//! A *place* is an offset in these files, joined in this order. The ranges of the tree are places, see
//! [`kho::abi::CARRIER`]. The content of a payload begins at a page.
//!
//! The next kernel unpacks the files into its initial root file system, whose memory it frees when the real root file
//! system takes its place. Before that, [`MOVER`] (the arrival program, under another name) has to move the files to
//! [`MOVED`]. It moves them one by one, so the pieces bound the memory that is in use twice.

use crate::cpio::{CpioError, Writer};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use std::ops::Range;
use thiserror::Error;

/// Folder of the files in the initial root file system.
pub const FOLDER: &str = ".kho/carried";

/// Program in the initrd that moves the files. An initrd with this program promises to call it before the switch to the
/// real root file system.
pub const MOVER: &str = ".kho/carry";

/// Folder to which [`MOVER`] moves the files.
pub const MOVED: &str = "run/kho/carried";

/// Name of the file of the tree.
pub const TREE: &str = "tree";

/// Largest size of a file of the content, in bytes.
pub const PIECE: u64 = 64 << 20;

/// Largest size of an initrd, in bytes. 5.10 reads a file of at most `INT_MAX` bytes
/// (`kimage_file_prepare_segments`, `kernel/kexec_file.c`), 6.1 to 7.3 of 4 GiB.
pub const MOST: u64 = i32::MAX as u64;

/// Returns the name of file number `index` of the content.
pub fn content_name(index: usize) -> String {
    format!("content-{index}")
}

/// Reason why the archive was not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InitrdCarrierError {
    /// The content is larger than an initrd can be.
    #[error("{len:#x} bytes of content; an initrd can carry {MOST:#x}")]
    TooLarge {
        /// Bytes of the content, in whole pages.
        len: u64,
    },
    /// There is no memory for the archive.
    #[error("no memory for an archive of {len:#x} bytes")]
    Memory {
        /// Bytes of the archive.
        len: u64,
    },
    /// The archive cannot be written.
    #[error("cannot make the archive")]
    Cpio(#[from] CpioError),
}

/// Places of the tree and of every payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    tree: PhysRange,
    content: Option<PhysRange>,
    scratch: PhysRange,
    payloads: Vec<Option<PhysRange>>,
}

impl Layout {
    /// Places a tree of up to `tree` bytes, and payloads of `sizes` bytes after it.
    ///
    /// # Errors
    ///
    /// [`InitrdCarrierError::TooLarge`].
    pub fn new(tree: u64, sizes: &[u64]) -> Result<Self, InitrdCarrierError> {
        let mut end = 0u64;
        let mut place = |size: u64| -> Result<Option<PhysRange>, InitrdCarrierError> {
            let start = end;
            let pages = size
                .checked_next_multiple_of(PAGE_SIZE)
                .filter(|len| *len <= MOST);
            end = pages
                .and_then(|len| start.checked_add(len))
                .filter(|end| *end <= MOST)
                .ok_or_else(|| InitrdCarrierError::TooLarge {
                    len: size.saturating_add(start),
                })?;
            Ok(PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).ok())
        };
        let too_large = InitrdCarrierError::TooLarge { len: tree };
        let tree = place(tree.max(1))?.ok_or(too_large.clone())?;
        let payloads = sizes
            .iter()
            .map(|size| place(*size))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            content: PhysRange::from_bounds(tree.end(), PhysAddr::new(end)).ok(),
            scratch: PhysRange::new(PhysAddr::new(end), PAGE_SIZE).map_err(|_| too_large)?,
            tree,
            payloads,
        })
    }

    /// Returns the mem cache of the tree.
    pub fn mem_cache(&self) -> Vec<PhysRange> {
        [self.tree].into_iter().chain(self.content).collect()
    }

    /// Returns the empty place after the content that stands for the scratch region.
    pub fn scratch(&self) -> PhysRange {
        self.scratch
    }

    /// Returns the place of each payload; `None` for one without bytes.
    pub fn payloads(&self) -> &[Option<PhysRange>] {
        &self.payloads
    }

    /// Makes the archive, with zeros for tree and content. It has room for `behind` more bytes without another
    /// allocation.
    ///
    /// # Errors
    ///
    /// [`InitrdCarrierError::Memory`].
    pub fn archive(&self, behind: u64) -> Result<Archive, InitrdCarrierError> {
        let content = self.content.map_or(0, PhysRange::len);
        // A header has 110 bytes; with a name and padding, less than 256.
        let headers = (4 + content.div_ceil(PIECE)) * 256 + 512;
        let len = self.tree.len() + content + headers + behind;
        let mut cpio = Writer::with_room(len).ok_or(InitrdCarrierError::Memory { len })?;
        for (at, byte) in FOLDER.bytes().enumerate() {
            if byte == b'/' {
                cpio.dir(FOLDER.as_bytes().get(..at).unwrap_or_default(), 0o700)?;
            }
        }
        cpio.dir(FOLDER.as_bytes(), 0o700)?;
        let mut file = |name: &str, len: u64| {
            let name = format!("{FOLDER}/{name}");
            cpio.zeros(name.as_bytes(), 0o600, len)
        };
        let tree = file(TREE, self.tree.len())?;
        let mut files = Vec::new();
        let mut left = content;
        while left > 0 {
            let len = left.min(PIECE);
            files.push(file(&content_name(files.len()), len)?);
            left -= len;
        }
        Ok(Archive {
            layout: self.clone(),
            tree,
            files,
            bytes: cpio.finish(),
        })
    }
}

/// An archive whose tree and content are filled in.
pub struct Archive {
    layout: Layout,
    /// Offsets of the files in `bytes`.
    tree: Range<usize>,
    files: Vec<Range<usize>>,
    bytes: Vec<u8>,
}

impl Archive {
    /// Returns the memory of every payload, in their order.
    pub fn payloads(&mut self) -> Vec<Vec<&mut [u8]>> {
        let mut rest = self.bytes.as_mut_slice();
        let mut at = 0;
        // The files as slices, in order. `files` ascends and does not overlap.
        let mut files = self.files.iter().map(|file| {
            let (_, after) = std::mem::take(&mut rest).split_at_mut(file.start - at);
            let (here, after) = after.split_at_mut(file.len());
            (rest, at) = (after, file.end);
            here
        });
        let mut file: &mut [u8] = &mut [];
        let sizes = self.layout.payloads.iter();
        sizes
            .map(|place| {
                let mut left = place.map_or(0, |place| place.len());
                let mut slices = Vec::new();
                while left > 0 {
                    if file.is_empty() {
                        let Some(next) = files.next() else { break };
                        file = next;
                    }
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(file.len());
                    let (here, after) = std::mem::take(&mut file).split_at_mut(len);
                    slices.push(here);
                    file = after;
                    left -= len as u64;
                }
                slices
            })
            .collect()
    }

    /// Writes the tree; `None` if it does not fit its place.
    #[must_use]
    pub fn set_tree(&mut self, tree: &[u8]) -> Option<()> {
        let place = self.bytes.get_mut(self.tree.clone())?;
        place.get_mut(..tree.len())?.copy_from_slice(tree);
        Some(())
    }

    /// Appends the initrd of the next kernel, which begins at a multiple of 4 bytes, after `pad` times 4 zeros. Returns
    /// the bytes.
    pub fn followed_by(mut self, initrd: &[u8], pad: usize) -> Vec<u8> {
        self.bytes
            .resize(self.bytes.len().saturating_add(pad.saturating_mul(4)), 0);
        self.bytes.extend_from_slice(initrd);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::entries;

    #[test]
    fn tree_and_content_lie_in_files_in_the_order_of_their_places() {
        let sizes = [5000, 0, PIECE + 1, 1];
        let marks = [1, 2, 3, 4];
        let layout = Layout::new(700, &sizes).unwrap();
        let mut archive = layout.archive(3).unwrap();
        for (number, slices) in archive.payloads().into_iter().enumerate() {
            let len: usize = slices.iter().map(|slice| slice.len()).sum();
            assert_eq!(len as u64, sizes[number].next_multiple_of(PAGE_SIZE));
            for slice in slices {
                slice.fill(marks[number]);
            }
        }
        archive.set_tree(b"tree").unwrap();
        assert!(archive.set_tree(&[0; 4097]).is_none());
        let bytes = archive.followed_by(b"070", 5);
        assert!(bytes.ends_with(&[0, 0, 0, 0, b'0', b'7', b'0']));
        let found: Vec<_> = entries(&bytes).collect();
        let names: Vec<_> = found
            .iter()
            .map(|e| std::str::from_utf8(e.name).unwrap())
            .collect();
        assert_eq!(
            names,
            [
                ".kho",
                ".kho/carried",
                ".kho/carried/tree",
                ".kho/carried/content-0",
                ".kho/carried/content-1",
            ]
        );
        assert!(found.iter().all(|entry| entry.mode & 0o077 == 0));
        let joined: Vec<u8> = found.iter().flat_map(|e| e.data).copied().collect();
        assert!(joined.starts_with(b"tree\0"));
        for (number, place) in layout.payloads().iter().enumerate() {
            let Some(place) = place else {
                assert_eq!(sizes[number], 0);
                continue;
            };
            let place = usize::try_from(place.start().get()).unwrap()
                ..usize::try_from(place.end().get()).unwrap();
            assert!(joined[place].iter().all(|byte| *byte == marks[number]));
        }
        let cache = layout.mem_cache();
        assert_eq!(
            cache.iter().map(|range| range.len()).sum::<u64>(),
            joined.len() as u64
        );
        assert_eq!(layout.scratch().start(), cache[1].end());
    }

    #[test]
    fn an_archive_without_content_has_only_a_tree() {
        let layout = Layout::new(0, &[0]).unwrap();
        assert_eq!(layout.mem_cache().len(), 1);
        let bytes = layout.archive(0).unwrap().followed_by(b"", 0);
        assert_eq!(entries(&bytes).count(), 3);
    }

    #[test]
    fn content_that_no_initrd_can_carry_is_refused() {
        for sizes in [&[u64::MAX][..], &[MOST, 1], &[1 << 30, 1 << 30]] {
            let refused = Layout::new(1, sizes);
            assert!(
                matches!(refused, Err(InitrdCarrierError::TooLarge { .. })),
                "{sizes:?}"
            );
        }
    }
}
