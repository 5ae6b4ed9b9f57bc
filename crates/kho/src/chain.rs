//! Iteration over a `setup_data` chain in untrusted memory.
//!
//! A node is `struct setup_data` `{u64 next; u32 type; u32 len; u8 data[len]}`. The data of a node of type
//! [`SETUP_INDIRECT`] is `struct setup_indirect` `{u32 type; u32 reserved; u64 len; u64 addr}`, which points to a range
//! elsewhere (`arch/x86/include/uapi/asm/setup_data.h`; in 6.1 `bootparam.h` beside it). All of it is little-endian.
//! The first node's address is `hdr.setup_data` of the boot parameters.
//!
//! # Example
//!
//! ```
//! use kho::abi::setup_data::SETUP_KHO_TREE;
//! use kho::chain::{ChainError, Policy, ShortIndirect, walk};
//!
//! // One node at 0x1000, which points to 5 bytes at 0x8000.
//! let mut memory = Vec::new();
//! memory.extend(0u64.to_le_bytes()); // no next node
//! memory.extend((1u32 << 31).to_le_bytes()); // SETUP_INDIRECT
//! memory.extend(24u32.to_le_bytes());
//! memory.extend(u64::from(SETUP_KHO_TREE).to_le_bytes()); // type and the reserved word
//! memory.extend(5u64.to_le_bytes());
//! memory.extend(0x8000u64.to_le_bytes());
//!
//! let policy = Policy { max_nodes: 256, short_indirect: ShortIndirect::Refuse };
//! let nodes = walk(0x1000, policy, |at, buf| {
//!     let from = (at.get() - 0x1000) as usize;
//!     buf.copy_from_slice(memory.get(from..from + buf.len()).ok_or(core::fmt::Error)?);
//!     Ok(())
//! });
//! let nodes = nodes.collect::<Result<Vec<_>, ChainError<core::fmt::Error>>>()?;
//! let tree = nodes[0].range_of(SETUP_KHO_TREE).unwrap();
//! assert_eq!((tree.start().get(), tree.len()), (0x8000, 5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::abi::setup_data::{SETUP_INDIRECT, SETUP_KHO_LATE, SETUP_KHO_RESERVE, SETUP_KHO_TREE};
use crate::addr::{PhysAddr, PhysRange, RangeError};
use crate::bytes::{u32_at, u64_at};
use thiserror::Error;

/// Bytes of `struct setup_data` without its data.
pub const HEADER_LEN: usize = 16;

/// Bytes of `struct setup_indirect`.
pub const INDIRECT_LEN: usize = 24;

/// Choices of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most nodes that are read. A chain with more nodes is refused.
    pub max_nodes: usize,
    /// Treatment of a `SETUP_INDIRECT` node with less data than `struct setup_indirect`. The kernel reads behind the
    /// end of such a node.
    pub short_indirect: ShortIndirect,
}

/// The treatment of a `SETUP_INDIRECT` node that is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortIndirect {
    /// The chain is refused. For a caller that knows that only this project wrote the chain.
    Refuse,
    /// The node counts as a node without a range. For a caller that reads a chain of any boot loader.
    Ignore,
}

/// One node of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node itself with its data.
    pub place: PhysRange,
    /// `setup_data.type`.
    pub kind: u32,
    /// `setup_data.len`: bytes of data, which follow the header. The kernel sets it to 0 in a `SETUP_RNG_SEED` node
    /// once the seed was used.
    pub len: u32,
    /// The range that a `SETUP_INDIRECT` node points to, with the inner type; `None` for any other node, and for a node
    /// whose inner type is none of [`SETUP_KHO_TREE`], [`SETUP_KHO_RESERVE`] and [`SETUP_KHO_LATE`].
    pub indirect: Option<(u32, PhysRange)>,
}

impl Node {
    /// The range of the given inner type, if this node has one.
    pub fn range_of(&self, kind: u32) -> Option<PhysRange> {
        self.indirect
            .filter(|(inner, _)| *inner == kind)
            .map(|(_, range)| range)
    }
}

/// Why a chain is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChainError<E> {
    /// Memory could not be read.
    #[error("cannot read setup_data node {index} at {at}")]
    Read {
        /// Index of the node, from 0.
        index: usize,
        /// Address of the node.
        at: PhysAddr,
        /// The error of the read.
        #[source]
        source: E,
    },
    /// The chain leads back to an earlier node.
    #[error("setup_data node {index} at {at} was visited before: the chain is a loop")]
    Loop {
        /// Index of the node, from 0. Not always the first node that is visited again.
        index: usize,
        /// Address of the node.
        at: PhysAddr,
    },
    /// The chain has more nodes than [`Policy::max_nodes`].
    #[error("the setup_data chain has more than {max} nodes")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// The node does not fit into the address space.
    #[error("setup_data node {index} at {at} with {len:#x} bytes of data leaves the address space")]
    Wraps {
        /// Index of the node, from 0.
        index: usize,
        /// Address of the node.
        at: PhysAddr,
        /// Length of the node's data, in bytes.
        len: u32,
    },
    /// A `SETUP_INDIRECT` node too small for a `struct setup_indirect`.
    #[error(
        "setup_data node {index} at {at} is SETUP_INDIRECT, but has {len:#x} bytes of data instead of {INDIRECT_LEN:#x}"
    )]
    Short {
        /// Index of the node, from 0.
        index: usize,
        /// Address of the node.
        at: PhysAddr,
        /// Length of the node's data, in bytes.
        len: u32,
    },
    /// A kho node whose pointer and length are not a valid range.
    #[error("setup_data node {index} at {at} points to no range")]
    BadRange {
        /// Index of the node, from 0.
        index: usize,
        /// Address of the node.
        at: PhysAddr,
        /// Error of the range.
        #[source]
        source: RangeError,
    },
}

/// Follows the chain from `first` (0: no chain). `read` fills its whole buffer with the bytes at a physical address, or
/// fails.
///
/// The walk ends with the last node or after the first error.
pub fn walk<E, R>(first: u64, policy: Policy, read: R) -> Walk<R>
where
    R: FnMut(PhysAddr, &mut [u8]) -> Result<(), E>,
{
    Walk {
        next: first,
        index: 0,
        policy,
        read,
        mark: 0,
        until_mark: 1,
    }
}

/// The walk that [`walk`] begins.
#[derive(Clone, Debug)]
pub struct Walk<R> {
    /// Address of the next node; 0 at the end of the chain.
    next: u64,
    index: usize,
    policy: Policy,
    read: R,
    /// A node that was visited, to find loops without a list of all: the last whose index is a power of two (Brent).
    mark: u64,
    /// The index at which the mark moves on.
    until_mark: usize,
}

impl<E, R> Walk<R>
where
    R: FnMut(PhysAddr, &mut [u8]) -> Result<(), E>,
{
    fn node(&mut self) -> Result<Node, ChainError<E>> {
        let (index, at) = (self.index, PhysAddr::new(self.next));
        if index >= self.policy.max_nodes {
            return Err(ChainError::TooLong {
                max: self.policy.max_nodes,
            });
        }
        if index > 0 && self.mark == self.next {
            return Err(ChainError::Loop { index, at });
        }
        if index == 0 || index == self.until_mark {
            self.mark = self.next;
            self.until_mark = index.saturating_mul(2).max(1);
        }
        let failed = |source| ChainError::Read { index, at, source };
        let mut header = [0; HEADER_LEN];
        (self.read)(at, &mut header).map_err(failed)?;
        // The header is 16 bytes long, so these reads succeed.
        let next = u64_at(&header, 0).unwrap_or(0);
        let kind = u32_at(&header, 8).unwrap_or(0);
        let len = u32_at(&header, 12).unwrap_or(0);
        let wraps = ChainError::Wraps { index, at, len };
        let whole = u64::from(len).saturating_add(HEADER_LEN as u64);
        let (Ok(place), Some(data)) =
            (PhysRange::new(at, whole), at.checked_add(HEADER_LEN as u64))
        else {
            return Err(wraps);
        };
        let mut node = Node {
            place,
            kind,
            len,
            indirect: None,
        };
        if kind == SETUP_INDIRECT {
            if len as usize >= INDIRECT_LEN {
                let mut inner = [0; INDIRECT_LEN];
                (self.read)(data, &mut inner).map_err(failed)?;
                node.indirect = pointed_to(&inner).map_err(|source| ChainError::BadRange {
                    index,
                    at,
                    source,
                })?;
            } else if self.policy.short_indirect == ShortIndirect::Refuse {
                return Err(ChainError::Short { index, at, len });
            }
        }
        self.next = next;
        self.index = index.saturating_add(1);
        Ok(node)
    }
}

/// Inner type and range of a `struct setup_indirect`; `None` if the type is not one of kho's.
fn pointed_to(inner: &[u8; INDIRECT_LEN]) -> Result<Option<(u32, PhysRange)>, RangeError> {
    let kind = u32_at(inner, 0).unwrap_or(0);
    if ![SETUP_KHO_TREE, SETUP_KHO_RESERVE, SETUP_KHO_LATE].contains(&kind) {
        return Ok(None);
    }
    let (len, start) = (u64_at(inner, 8), u64_at(inner, 16));
    let start = PhysAddr::new(start.unwrap_or(0));
    Ok(Some((kind, PhysRange::new(start, len.unwrap_or(0))?)))
}

impl<E, R> Iterator for Walk<R>
where
    R: FnMut(PhysAddr, &mut [u8]) -> Result<(), E>,
{
    type Item = Result<Node, ChainError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == 0 {
            return None;
        }
        let node = self.node();
        if node.is_err() {
            self.next = 0;
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests;
