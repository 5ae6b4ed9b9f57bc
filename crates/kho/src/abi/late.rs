//! The late block: the part of the `setup_data` chain that a module writes after the image was loaded, at the latest
//! moment before the jump.
//!
//! An image that is loaded names one *late block*: two pages that the module allocated before the load, that lie
//! outside scratch and outside every destination of the image, and that the module never frees. The loader's chain ends
//! with a link to the block, and the loader's mem cache covers it. So the next kernel reserves in early boot what the
//! module wrote into the block, and the loader did not have to know it.
//!
//! # `/kernel` in the loader's tree: `kho-kernel-part-v2`
//!
//! | property | type | meaning |
//! | --- | --- | --- |
//! | `compatible` | string | [`KERNEL_PART_V2`] |
//! | `mem` | one pair | the late block |
//! | [`nonce`](NONCE) | u64 | random number of this load, not 0 |
//!
//! # The block
//!
//! Integers are little-endian.
//!
//! | page | content |
//! | --- | --- |
//! | 0 | the chain: a `setup_data` node that points to page 1, then one node for each range of the late mem cache, packed. Every node is a `SETUP_INDIRECT` of type [`SETUP_KHO_LATE`] |
//! | 1 | the header, zero while nothing is handed over |
//!
//! | at, in page 1 | type | meaning |
//! | --- | --- | --- |
//! | 0 | 8 bytes | [`MAGIC`] |
//! | 8 | u64 | the nonce of the load |
//! | 16 | u64 | generation of the kernel's part |
//! | 24 | u64, u64 | address and length of the pages of the kernel's part |
//! | 40 | u64 | size of the kernel's part, in bytes |
//! | 48 | u32 | number of ranges of the late mem cache |
//! | 52 | u32 | CRC-32/ISO-HDLC of the header up to the last range, these four bytes taken as zero |
//! | 56 | u64, u64 | address and length of each range, ascending |
//!
//! # States
//!
//! The block holds a valid chain at all times, because the jump can come at any time. It is *empty* while the `next` of
//! its first node is 0: the next kernel then reserves nothing more, and nothing of the kernel's arrives. A store of
//! these eight bytes *publishes* the rest, which the module wrote before; another store empties the block. A header
//! whose nonce is not the one in the tree belongs to another load: nothing arrived.
//!
//! The block has no sequence number. The nonce is new for each load, and the generation for each active phase, so the
//! two name a publication.

use super::kernel_part::{KERNEL, Reference, one_range};
use super::setup_data::{SETUP_INDIRECT, SETUP_KHO_LATE};
use super::{COMPATIBLE, MEM};
use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::bytes::{u32_at, u64_at};
use crate::chain::{Policy, ShortIndirect, walk};
use crate::ranges::{OutOfMemory, RangeSet, push};
use crate::tree::{Node, WriteError, Writer, sum};
use alloc::vec::Vec;
use thiserror::Error;

/// `compatible` of the node [`KERNEL`] of a tree that names a late block.
pub const KERNEL_PART_V2: &str = "kho-kernel-part-v2";

/// Property of the node [`KERNEL`], u64: random number of the load, not 0.
pub const NONCE: &str = "nonce";

/// Length of the late block, in bytes.
pub const BLOCK_LEN: u64 = 2 * PAGE_SIZE;

/// Largest number of ranges of the late mem cache.
pub const MAX_RANGES: usize = 96;

/// First bytes of the header.
pub const MAGIC: [u8; 8] = *b"kholate1";

/// One page, as a length in memory.
const PAGE: usize = 1 << PAGE_SIZE.trailing_zeros();
/// `struct setup_data` with a `struct setup_indirect`, in bytes.
const NODE: usize = 40;
const INDIRECT: u32 = 24;
const HEADER: usize = 56;
const COUNT: usize = 48;
const CRC: usize = 52;
const PAIR: usize = 16;

// One page has room for all nodes, and one for the header with all ranges.
const _: () = assert!(NODE * (MAX_RANGES + 1) <= PAGE && HEADER + PAIR * MAX_RANGES <= PAGE);

/// Reference of a loader's tree to a late block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateReference {
    /// The late block.
    pub block: PhysRange,
    /// Random number of the load, not 0.
    pub nonce: u64,
}

/// Content of a published late block.
#[derive(Debug, PartialEq, Eq)]
pub struct Late {
    /// The kernel's part.
    pub part: Reference,
    /// Ranges that early boot reserves because of the block, ascending and disjoint.
    pub cache: Vec<PhysRange>,
}

/// Why a late block hands over nothing, or cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LateError {
    /// The header is all zero.
    #[error("the kernel wrote nothing before the jump")]
    Empty,
    /// The header belongs to another load.
    #[error(
        "what the kernel wrote belongs to another load: nonce {found:#x} instead of {wanted:#x}"
    )]
    Nonce {
        /// Nonce in the header.
        found: u64,
        /// Nonce in the tree.
        wanted: u64,
    },
    /// The header is not what a module writes.
    #[error("what the kernel wrote before the jump is damaged")]
    Damaged,
    /// Early boot was not asked to reserve a range.
    #[error("{range} was handed over late, and early boot was not asked to reserve it")]
    NotReserved {
        /// The range.
        range: PhysRange,
    },
    /// The late mem cache has too many ranges.
    #[error("{count} ranges are handed over late, the block has room for {MAX_RANGES}")]
    TooMany {
        /// Number of ranges.
        count: usize,
    },
    /// The block or a range cannot be used.
    #[error("{range} cannot be in a late block")]
    Range {
        /// The range.
        range: PhysRange,
    },
    /// An allocation failed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl LateReference {
    /// Writes the node [`KERNEL`], for [`write_handover_with`](super::write_handover_with).
    ///
    /// # Errors
    ///
    /// As [`Writer`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        writer.begin_node(KERNEL)?;
        writer.prop_str(COMPATIBLE, KERNEL_PART_V2)?;
        writer.prop_u64(NONCE, self.nonce)?;
        writer.prop_mem(MEM, [self.block])?;
        writer.end_node()
    }

    /// Reads a node for which [`is_late_reference`] is true; `None` if the node is malformed.
    pub fn read(node: &Node<'_>) -> Option<Self> {
        let block = one_range(node)?;
        let nonce = node.prop(NONCE)?.value().u64().ok()?;
        let fits = block.is_page_aligned() && block.len() == BLOCK_LEN;
        (fits && nonce != 0).then_some(Self { block, nonce })
    }

    /// The page of the header; `None` if the block is shorter than [`BLOCK_LEN`].
    pub fn header(&self) -> Option<PhysRange> {
        header_of(self.block)
    }
}

/// Whether `node` refers to a late block.
pub fn is_late_reference(node: &Node<'_>) -> bool {
    node.prop(COMPATIBLE).map(|prop| prop.value().str()) == Some(Ok(KERNEL_PART_V2))
}

/// The page of the header.
fn header_of(block: PhysRange) -> Option<PhysRange> {
    PhysRange::new(block.start().checked_add(PAGE_SIZE)?, PAGE_SIZE).ok()
}

/// Makes the bytes of an empty block at `block`.
///
/// # Errors
///
/// [`LateError::Range`] if `block` is not page-aligned or has another length than [`BLOCK_LEN`];
/// [`LateError::OutOfMemory`].
pub fn empty(block: PhysRange) -> Result<Vec<u8>, LateError> {
    let header = header_of(block).filter(|_| block.is_page_aligned() && block.len() == BLOCK_LEN);
    let header = header.ok_or(LateError::Range { range: block })?;
    let len = 2 * PAGE;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| OutOfMemory)?;
    bytes.resize(len, 0);
    put_node(&mut bytes, 0, 0, header);
    Ok(bytes)
}

/// Makes the bytes of a block at `block` that hands over `late` for the load with this nonce. In these bytes the block
/// is still empty. Returns them with the value that the first eight bytes must get to publish the block; that is 0 if
/// there are no ranges.
///
/// Walks the chain as early boot will, and compares.
///
/// # Errors
///
/// As [`empty`]; [`LateError::TooMany`]; [`LateError::Range`] if a range is not page-aligned, or does not ascend.
pub fn encode(block: PhysRange, nonce: u64, late: &Late) -> Result<(Vec<u8>, u64), LateError> {
    let mut bytes = empty(block)?;
    let count = late.cache.len();
    if count > MAX_RANGES {
        return Err(LateError::TooMany { count });
    }
    let mut before = PhysAddr::new(0);
    for range in &late.cache {
        if !range.is_page_aligned() || range.start() < before {
            return Err(LateError::Range { range: *range });
        }
        before = range.end();
    }
    let at = |number: usize| {
        block
            .start()
            .get()
            .saturating_add(NODE.saturating_mul(number) as u64)
    };
    for (number, range) in (1usize..).zip(&late.cache) {
        let next = if number == count {
            0
        } else {
            at(number.saturating_add(1))
        };
        put_node(&mut bytes, number, next, *range);
    }
    put_header(&mut bytes, nonce, late);
    let next = if count == 0 { 0 } else { at(1) };
    check_walk(block, &bytes, next, late)?;
    Ok((bytes, next))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let end = at.saturating_add(value.len());
    if let Some(slot) = bytes.get_mut(at..end) {
        slot.copy_from_slice(value);
    }
}

fn put_node(bytes: &mut [u8], number: usize, next: u64, range: PhysRange) {
    let at = NODE.saturating_mul(number);
    let Some(node) = bytes.get_mut(at..at.saturating_add(NODE)) else {
        return;
    };
    put(node, 0, &next.to_le_bytes());
    put(node, 8, &SETUP_INDIRECT.to_le_bytes());
    put(node, 12, &INDIRECT.to_le_bytes());
    put(node, 16, &SETUP_KHO_LATE.to_le_bytes());
    put(node, 24, &range.len().to_le_bytes());
    put(node, 32, &range.start().get().to_le_bytes());
}

fn put_header(bytes: &mut [u8], nonce: u64, late: &Late) {
    let Some(header) = bytes.get_mut(PAGE..) else {
        return;
    };
    put(header, 0, &MAGIC);
    let part = &late.part;
    let words = [
        nonce,
        part.generation,
        part.mem.start().get(),
        part.mem.len(),
        part.size,
    ];
    for (number, word) in (1usize..).zip(words) {
        put(header, 8usize.saturating_mul(number), &word.to_le_bytes());
    }
    let count = u32::try_from(late.cache.len()).unwrap_or(u32::MAX);
    put(header, COUNT, &count.to_le_bytes());
    let words = late
        .cache
        .iter()
        .flat_map(|range| [range.start().get(), range.len()]);
    for (number, word) in (0usize..).zip(words) {
        let at = HEADER.saturating_add(8usize.saturating_mul(number));
        put(header, at, &word.to_le_bytes());
    }
    if let Some(crc) = header_sum(header, late.cache.len()) {
        put(header, CRC, &crc.to_le_bytes());
    }
}

/// The checksum of a header with `count` ranges; `None` if the bytes are too few.
fn header_sum(header: &[u8], count: usize) -> Option<u32> {
    let end = HEADER.checked_add(PAIR.checked_mul(count)?)?;
    let (before, rest) = header.get(..end)?.split_at_checked(CRC)?;
    Some(sum(&[before, &[0; 4], rest.get(4..)?]))
}

/// Walks the chain in `bytes` as early boot will, once the first eight bytes are `next`.
fn check_walk(block: PhysRange, bytes: &[u8], next: u64, late: &Late) -> Result<(), LateError> {
    let policy = Policy {
        max_nodes: MAX_RANGES + 1,
        short_indirect: ShortIndirect::Refuse,
    };
    let read = |at: PhysAddr, buf: &mut [u8]| {
        let from = at
            .offset_from(block.start())
            .and_then(|at| usize::try_from(at).ok());
        let from = from.ok_or(LateError::Damaged)?;
        let end = from.checked_add(buf.len()).ok_or(LateError::Damaged)?;
        buf.copy_from_slice(bytes.get(from..end).ok_or(LateError::Damaged)?);
        if from == 0 {
            put(buf, 0, &next.to_le_bytes());
        }
        Ok::<(), LateError>(())
    };
    let mut wanted = header_of(block)
        .into_iter()
        .chain(late.cache.iter().copied());
    for node in walk(block.start().get(), policy, read) {
        let node = node.map_err(|_| LateError::Damaged)?;
        if node.range_of(SETUP_KHO_LATE) != wanted.next() {
            return Err(LateError::Damaged);
        }
    }
    match wanted.next() {
        None => Ok(()),
        Some(_) => Err(LateError::Damaged),
    }
}

impl Late {
    /// Reads a header that arrived, for a load with this nonce. The caller has to check that this boot's chain reserved
    /// the ranges: see [`check_reserved`](Self::check_reserved).
    ///
    /// # Errors
    ///
    /// [`LateError`]; nothing arrived then.
    pub fn read(header: &[u8], nonce: u64) -> Result<Self, LateError> {
        if header.iter().all(|byte| *byte == 0) {
            return Err(LateError::Empty);
        }
        let word = |at: usize| u64_at(header, at).ok_or(LateError::Damaged);
        if header.first_chunk() != Some(&MAGIC) {
            return Err(LateError::Damaged);
        }
        let count = u32_at(header, COUNT).and_then(|count| usize::try_from(count).ok());
        let count = count.filter(|count| *count <= MAX_RANGES);
        let count = count.ok_or(LateError::Damaged)?;
        if u32_at(header, CRC) != header_sum(header, count) {
            return Err(LateError::Damaged);
        }
        let found = word(8)?;
        if found != nonce {
            return Err(LateError::Nonce {
                found,
                wanted: nonce,
            });
        }
        let range = |at: usize| {
            let range = PhysRange::new(PhysAddr::new(word(at)?), word(at.saturating_add(8))?);
            let range = range.ok().filter(|range| range.is_page_aligned());
            range.ok_or(LateError::Damaged)
        };
        let part = Reference {
            generation: word(16)?,
            mem: range(24)?,
            size: word(40)?,
        };
        if part.generation == 0 || part.size == 0 || part.size > part.mem.len() {
            return Err(LateError::Damaged);
        }
        let mut cache: Vec<PhysRange> = Vec::new();
        for number in 0..count {
            let range = range(HEADER.saturating_add(PAIR.saturating_mul(number)))?;
            if cache
                .last()
                .is_some_and(|before| range.start() < before.end())
            {
                return Err(LateError::Damaged);
            }
            push(&mut cache, range)?;
        }
        Ok(Self { part, cache })
    }

    /// Checks the ranges against `reserved`, the memory that the nodes of the type [`SETUP_KHO_LATE`] of this boot's
    /// chain name.
    ///
    /// # Errors
    ///
    /// [`LateError::NotReserved`] for the first range that is not in `reserved`.
    pub fn check_reserved(&self, reserved: &RangeSet) -> Result<(), LateError> {
        match self
            .cache
            .iter()
            .find(|range| !reserved.contains_range(**range))
        {
            Some(range) => Err(LateError::NotReserved { range: *range }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Reader;
    use std::vec;

    fn pages(first: u64, count: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(first * PAGE_SIZE), count * PAGE_SIZE).unwrap()
    }

    fn late(ranges: u64) -> Late {
        Late {
            part: Reference {
                mem: pages(1000, 2),
                size: 5000,
                generation: 7,
            },
            cache: (0..ranges).map(|n| pages(1000 + 4 * n, 3)).collect(),
        }
    }

    fn set(late: &Late) -> RangeSet {
        RangeSet::from_ranges(late.cache.iter().copied()).unwrap()
    }

    const BLOCK: u64 = 64;

    fn header(bytes: &[u8]) -> &[u8] {
        &bytes[PAGE..]
    }

    #[test]
    fn every_number_of_ranges_is_written_and_read() {
        for count in 0..=MAX_RANGES as u64 {
            let late = late(count);
            let (bytes, next) = encode(pages(BLOCK, 2), 9, &late).unwrap();
            assert_eq!(
                next,
                if count == 0 {
                    0
                } else {
                    BLOCK * PAGE_SIZE + 40
                }
            );
            // Before the last store the chain is the empty one.
            assert_eq!(bytes[..40], empty(pages(BLOCK, 2)).unwrap()[..40]);
            assert_eq!(late.check_reserved(&set(&late)), Ok(()));
            assert_eq!(Late::read(header(&bytes), 9), Ok(late));
        }
        let many = late(MAX_RANGES as u64 + 1);
        let refused = encode(pages(BLOCK, 2), 9, &many).unwrap_err();
        assert_eq!(refused, LateError::TooMany { count: 97 });
    }

    #[test]
    fn a_block_that_is_empty_or_of_another_load_hands_over_nothing() {
        let none = RangeSet::new();
        let bytes = empty(pages(BLOCK, 2)).unwrap();
        assert_eq!(Late::read(header(&bytes), 9), Err(LateError::Empty));
        let late = late(3);
        let (bytes, _) = encode(pages(BLOCK, 2), 9, &late).unwrap();
        assert_eq!(
            Late::read(header(&bytes), 8),
            Err(LateError::Nonce {
                found: 9,
                wanted: 8
            })
        );
        // The header was written, and the jump came before the store that publishes the chain.
        assert_eq!(
            late.check_reserved(&none),
            Err(LateError::NotReserved {
                range: late.cache[0]
            })
        );
    }

    #[test]
    fn no_changed_bit_of_a_header_goes_unseen() {
        let late = late(3);
        let (bytes, _) = encode(pages(BLOCK, 2), 9, &late).unwrap();
        let good = header(&bytes);
        for at in 0..HEADER + 3 * PAIR {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                assert!(Late::read(&bad, 9).is_err(), "{at} {bit}");
            }
        }
        for len in 0..HEADER + 3 * PAIR {
            assert!(Late::read(&good[..len], 9).is_err());
        }
    }

    #[test]
    fn ranges_that_no_planner_makes_are_refused() {
        let odd = PhysRange::new(PhysAddr::new(4097), 4096).unwrap();
        for cache in [
            vec![odd],
            vec![pages(9, 1), pages(8, 1)],
            vec![pages(8, 2), pages(9, 1)],
        ] {
            let late = Late { cache, ..late(0) };
            assert!(matches!(
                encode(pages(BLOCK, 2), 9, &late),
                Err(LateError::Range { .. })
            ));
        }
        for block in [pages(BLOCK, 1), pages(BLOCK, 3), odd] {
            assert_eq!(empty(block), Err(LateError::Range { range: block }));
        }
    }

    #[test]
    fn a_reference_is_written_and_read() {
        let said = LateReference {
            block: pages(BLOCK, 2),
            nonce: 9,
        };
        let tree = |said: LateReference| {
            let mut buf = vec![0; 1024];
            let mut w = Writer::new(&mut buf);
            w.begin_node("").unwrap();
            said.write(&mut w).unwrap();
            w.end_node().unwrap();
            w.finish().unwrap();
            let tree = Reader::new(&buf).unwrap();
            let node = tree.path("/kernel").unwrap();
            assert!(is_late_reference(&node));
            LateReference::read(&node)
        };
        assert_eq!(tree(said), Some(said));
        assert_eq!(said.header(), Some(pages(BLOCK + 1, 1)));
        assert_eq!(tree(LateReference { nonce: 0, ..said }), None);
        let long = LateReference {
            block: pages(BLOCK, 3),
            ..said
        };
        assert_eq!(tree(long), None);
    }
}
