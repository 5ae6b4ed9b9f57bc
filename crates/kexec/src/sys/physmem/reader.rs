//! A stream over pieces of physical memory.

use super::memory::{PhysError, PhysMemory};
use kho::PhysRange;
use std::io::{self, Read};

/// Stream of the bytes of a list of ranges, one after the other, `size` bytes in all.
///
/// A blob is stored as whole pages in one or more ranges; its node in the tree has its exact size, and the rest of its
/// last page is not content.
#[derive(Debug)]
pub struct Reader<'a, M: PhysMemory + ?Sized> {
    memory: &'a M,
    pieces: &'a [PhysRange],
    /// Number of bytes of the first remaining piece that have been read.
    skip: u64,
    left: u64,
}

impl<'a, M: PhysMemory + ?Sized> Reader<'a, M> {
    /// Makes a stream of the first `size` bytes of `pieces`.
    ///
    /// # Errors
    ///
    /// [`PhysError::PiecesTooSmall`].
    pub fn new(memory: &'a M, pieces: &'a [PhysRange], size: u64) -> Result<Self, PhysError> {
        let room = pieces
            .iter()
            .fold(0u64, |sum, r| sum.saturating_add(r.len()));
        if size > room {
            return Err(PhysError::PiecesTooSmall { size, room });
        }
        Ok(Self {
            memory,
            pieces,
            skip: 0,
            left: size,
        })
    }

    /// Skips the next `bytes` bytes, or the rest if fewer are left.
    pub fn skip(&mut self, bytes: u64) {
        let mut bytes = bytes.min(self.left);
        self.left -= bytes;
        while let Some((piece, later)) = self.pieces.split_first() {
            let here = bytes.min(piece.len() - self.skip);
            self.skip += here;
            bytes -= here;
            if bytes == 0 {
                break;
            }
            self.pieces = later;
            self.skip = 0;
        }
    }
}

impl<M: PhysMemory + ?Sized> Read for Reader<'_, M> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some((piece, later)) = self.pieces.split_first() {
            let here = (piece.len() - self.skip).min(self.left);
            if here == 0 {
                if self.left == 0 {
                    break;
                }
                self.pieces = later;
                self.skip = 0;
                continue;
            }
            let count = usize::try_from(here).unwrap_or(usize::MAX).min(buf.len());
            if let Some(addr) = piece.start().checked_add(self.skip) {
                self.memory.read_at(addr, &mut buf[..count])?;
            }
            self.skip += count as u64;
            self.left -= count as u64;
            return Ok(count);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho::PhysAddr;

    /// Memory in which every byte is its address.
    struct Ramp;
    impl PhysMemory for Ramp {
        fn read_at(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), PhysError> {
            for (i, b) in buf.iter_mut().enumerate() {
                *b = (addr.get() + i as u64).to_le_bytes()[0];
            }
            Ok(())
        }
    }

    #[test]
    fn pieces_become_one_stream_of_the_exact_size() {
        let r = |s, n| PhysRange::new(PhysAddr::new(s), n).unwrap();
        let pieces = [r(10, 3), r(100, 2), r(7, 5)];
        let want: [u8; 10] = [10, 11, 12, 100, 101, 7, 8, 9, 10, 11];
        for size in 0..=10u64 {
            for step in 1..4 {
                let mut reader = Reader::new(&Ramp, &pieces, size).unwrap();
                let mut got: Vec<u8> = Vec::new();
                let mut buf = vec![0; step];
                loop {
                    let n = reader.read(&mut buf).unwrap();
                    if n == 0 {
                        break;
                    }
                    got.extend(&buf[..n]);
                }
                assert_eq!(got, want[..usize::try_from(size).unwrap()]);
            }
            for skip in 0..=size + 1 {
                let mut reader = Reader::new(&Ramp, &pieces, size).unwrap();
                reader.skip(skip / 2);
                reader.skip(skip - skip / 2);
                let mut got: Vec<u8> = Vec::new();
                reader.read_to_end(&mut got).unwrap();
                let all = &want[..usize::try_from(size).unwrap()];
                let skip = usize::try_from(skip.min(size)).unwrap();
                assert_eq!(got, all[skip..]);
            }
        }
        assert!(matches!(
            Reader::new(&Ramp, &pieces, 11),
            Err(PhysError::PiecesTooSmall { size: 11, room: 10 })
        ));
        let mut none: &[u8] = &[];
        let _ = none.read(&mut []).unwrap();
    }
}
