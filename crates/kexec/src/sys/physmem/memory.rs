//! Readable physical memory.

use crate::sys::root::FactError;
use kho::{PhysAddr, PhysRange};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Reason why physical memory could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PhysError {
    /// A file of `/proc` or `/sys` could not be read.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// The file does not have the expected form.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Fault of the file's form, with the value.
        what: String,
    },
    /// No part of the file holds this address.
    #[error("{} does not hold physical address {addr}", path.display())]
    NotMapped {
        /// The file.
        path: PathBuf,
        /// The first address that is missing.
        addr: PhysAddr,
    },
    /// A kernel virtual address that the file does not hold.
    #[error("{} does not hold kernel address {addr:#x}", path.display())]
    NotMappedVirtual {
        /// The file.
        path: PathBuf,
        /// The address.
        addr: u64,
    },
    /// The file ended early.
    #[error("{}: nothing to read at offset {offset:#x}", path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Offset at which the file ended.
        offset: u64,
    },
    /// The range of the read goes past the end of the address space.
    #[error("a read of {len:#x} bytes at {addr} leaves the address space")]
    Wraps {
        /// Address of the read.
        addr: PhysAddr,
        /// Length of the read, in bytes.
        len: u64,
    },
    /// The pieces are smaller than their content.
    #[error("{size:#x} bytes do not fit in pieces of {room:#x} bytes")]
    PiecesTooSmall {
        /// Size of the content, in bytes.
        size: u64,
        /// Size of all pieces, in bytes.
        room: u64,
    },
}

impl From<PhysError> for io::Error {
    fn from(error: PhysError) -> Self {
        Self::other(error)
    }
}

/// Physical memory that one thread at a time can read: `/proc/kcore` copies through one buffer for each open file
/// (`read_kcore_iter`, `fs/proc/kcore.c`, 6.1 to 7.3).
pub trait PhysMemory {
    /// Fills `buf` with the bytes at `addr`.
    ///
    /// # Errors
    ///
    /// [`PhysError`]. In that case a part of `buf` may have been filled.
    fn read_at(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), PhysError>;
}

impl<M: PhysMemory + ?Sized> PhysMemory for &M {
    fn read_at(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), PhysError> {
        (**self).read_at(addr, buf)
    }
}

impl<M: PhysMemory + ?Sized> PhysMemory for Box<M> {
    fn read_at(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), PhysError> {
        (**self).read_at(addr, buf)
    }
}

/// Fills `buf` with the bytes at `addr`, piece by piece: `find` returns the piece that contains an address, `read`
/// fills a part of the buffer with the bytes at an offset in the piece.
pub(super) fn in_pieces<P>(
    addr: PhysAddr,
    buf: &mut [u8],
    find: impl Fn(PhysAddr) -> Result<(PhysRange, P), PhysError>,
    read: impl Fn(P, u64, &mut [u8]) -> Result<(), PhysError>,
) -> Result<(), PhysError> {
    let mut at = addr;
    let mut rest = buf;
    while !rest.is_empty() {
        let (range, piece) = find(at)?;
        let skip = at.offset_from(range.start()).unwrap_or(0);
        let here = usize::try_from(range.len() - skip)
            .unwrap_or(usize::MAX)
            .min(rest.len());
        let (now, later) = rest.split_at_mut(here);
        read(piece, skip, now)?;
        rest = later;
        at = at.checked_add(here as u64).ok_or(PhysError::Wraps {
            addr,
            len: here as u64,
        })?;
    }
    Ok(())
}

/// Reads all bytes of one range.
///
/// # Errors
///
/// [`PhysError`], also if the range is longer than the address space of this process.
pub fn read_range(memory: &dyn PhysMemory, range: PhysRange) -> Result<Vec<u8>, PhysError> {
    let mut out = Vec::new();
    let len = usize::try_from(range.len()).map_err(|_| FactError::from(kho::OutOfMemory))?;
    out.try_reserve_exact(len)
        .map_err(|_| FactError::from(kho::OutOfMemory))?;
    out.resize(len, 0);
    memory.read_at(range.start(), &mut out)?;
    Ok(out)
}
