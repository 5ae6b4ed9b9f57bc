//! Holes of sparse files, and the map before a file's data in the pax format "GNU.sparse 1.0".
//!
//! Format: GNU tar manual, "Storing Sparse Files", "PAX Format, Version 1.0". The map has the number of extents, then
//! offset and length of each, one decimal number per line, padded with NUL to a multiple of 512 bytes. The data of the
//! extents follow. GNU tar starts every extent at a block border, so only the length of the last one may not be a
//! multiple of 512.

use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::BLOCK;

/// Largest number of extents per file. After the last one, holes are stored as zeros.
///
/// So a map takes at most 16 MiB, for any file in packing and any stream in unpacking.
pub(crate) const MAX_EXTENTS: usize = 1 << 20;

/// A range of data in a sparse file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub offset: u64,
    pub len: u64,
}

/// Finds the extents of a file's data; `None` if the whole file needs no more space in the archive.
pub(crate) fn find(fd: BorrowedFd<'_>, size: u64) -> rustix::io::Result<Option<Vec<Extent>>> {
    let mut map: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(n) => n,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(None),
            Err(e) => return Err(e),
        };
        if start >= size {
            break;
        }
        let end = match rustix::fs::seek(fd, SeekFrom::Hole(start)) {
            Ok(n) => n,
            Err(Errno::NXIO) => size,
            Err(e) => return Err(e),
        };
        if end <= start {
            // Another process made a hole here between the two calls. The rest of the block reads as zeros.
            at = start.saturating_add(BLOCK);
            continue;
        }
        push(&mut map, start, end, size);
        if map.len() == MAX_EXTENTS {
            if let Some(last) = map.last_mut() {
                last.len = size - last.offset;
            }
            break;
        }
        at = end;
    }
    let data: u64 = map.iter().map(|e| e.len).sum();
    let stored = data.saturating_add(encoded_len(&map, size));
    Ok((stored < size).then_some(map))
}

/// Adds the extent `start..end`, widened to block borders. Merges it with the last extent if the two touch.
fn push(map: &mut Vec<Extent>, start: u64, end: u64, size: u64) {
    let start = start - start % BLOCK;
    let end = end
        .checked_next_multiple_of(BLOCK)
        .unwrap_or(size)
        .min(size);
    if let Some(last) = map.last_mut()
        && last.offset + last.len >= start
    {
        last.len = last.len.max(end - last.offset);
        return;
    }
    map.push(Extent {
        offset: start,
        len: end - start,
    });
}

/// Returns the extents that the archive contains. If the file ends in a hole, an empty extent marks its end.
fn written(map: &[Extent], size: u64) -> impl Iterator<Item = Extent> + '_ {
    let end = map.last().map_or(0, |e| e.offset + e.len);
    map.iter().copied().chain((end < size).then_some(Extent {
        offset: size,
        len: 0,
    }))
}

/// Encodes the map, padded to whole blocks.
pub(crate) fn encode(map: &[Extent], size: u64) -> Vec<u8> {
    let mut out = format!("{}\n", written(map, size).count()).into_bytes();
    for e in written(map, size) {
        out.extend_from_slice(format!("{}\n{}\n", e.offset, e.len).as_bytes());
    }
    let block = usize::try_from(BLOCK).unwrap_or(512);
    out.resize(out.len().next_multiple_of(block), 0);
    out
}

/// Returns the length of the result of [`encode`] in bytes, without making it.
pub(crate) fn encoded_len(map: &[Extent], size: u64) -> u64 {
    let digits = |n: u64| u64::from(n.checked_ilog10().unwrap_or(0)) + 2;
    let count = written(map, size).count() as u64;
    let body: u64 = written(map, size)
        .map(|e| digits(e.offset) + digits(e.len))
        .sum();
    (digits(count) + body).next_multiple_of(BLOCK)
}

/// Decoder of a map, which takes the bytes block by block.
///
/// The file has `size` bytes. The archive has `stored` bytes of it, including the map.
#[derive(Debug)]
pub(crate) struct Decoder {
    size: u64,
    stored: u64,
    number: Option<u64>,
    count: Option<u64>,
    offset: Option<u64>,
    map: Vec<Extent>,
    seen: u64,
    ends: u64,
    data: u64,
}

impl Decoder {
    pub(crate) fn new(size: u64, stored: u64) -> Self {
        Self {
            size,
            stored,
            number: None,
            count: None,
            offset: None,
            map: Vec::new(),
            seen: 0,
            ends: 0,
            data: 0,
        }
    }

    /// Takes the next block. Returns true if this block is the last one of the map.
    pub(crate) fn block(&mut self, bytes: &[u8]) -> Result<bool, &'static str> {
        for b in bytes {
            match b {
                b'0'..=b'9' => {
                    let n = self.number.unwrap_or(0);
                    self.number = Some(
                        n.checked_mul(10)
                            .and_then(|n| n.checked_add(u64::from(b - b'0')))
                            .ok_or("a number does not fit into 64 bits")?,
                    );
                }
                b'\n' => {
                    let n = self.number.take().ok_or("a number is missing")?;
                    if self.line(n)? {
                        return Ok(true);
                    }
                }
                _ => return Err("something that is no decimal number"),
            }
        }
        Ok(false)
    }

    fn line(&mut self, n: u64) -> Result<bool, &'static str> {
        let Some(count) = self.count else {
            if n > MAX_EXTENTS as u64 + 1 {
                return Err("more extents than are accepted");
            }
            self.count = Some(n);
            return Ok(n == 0);
        };
        let Some(offset) = self.offset.take() else {
            self.offset = Some(n);
            return Ok(false);
        };
        let end = offset
            .checked_add(n)
            .filter(|e| *e <= self.size)
            .ok_or("an extent exceeds the size of the file")?;
        if offset < self.ends {
            return Err("extents overlap or are not in order");
        }
        self.seen += 1;
        let last = self.seen == count || end == self.size;
        if !n.is_multiple_of(BLOCK) && !last {
            return Err("an extent before the last one ends inside a block");
        }
        self.ends = end;
        self.data = self
            .data
            .checked_add(n)
            .ok_or("the extents exceed 64 bits")?;
        if self.data > self.stored {
            return Err("the extents hold more than the entry");
        }
        if n > 0 {
            self.map
                .try_reserve(1)
                .map_err(|_| "no memory for the map")?;
            self.map.push(Extent { offset, len: n });
        }
        Ok(self.seen == count)
    }

    /// Returns the map, if its extents and the `map_bytes` bytes of the map itself have exactly the stored size.
    pub(crate) fn finish(self, map_bytes: u64) -> Result<Vec<Extent>, &'static str> {
        if self.data.checked_add(map_bytes) != Some(self.stored) {
            return Err("the extents do not add up to the stored size");
        }
        Ok(self.map)
    }
}
