//! Reading a `setup_data` list back, out of memory that nobody vouches for.

use std::collections::HashSet;
use std::error::Error as StdError;

use kho::{PhysAddr, PhysRange, RangeError};
use thiserror::Error;
use zerocopy::FromBytes;

use super::setup_data::{HEADER_LEN, Header, INDIRECT_LEN, IndirectData, node_type};

/// Nodes that are read or written at most. Early boot cannot take that many ranges.
pub const MAX_NODES: usize = 256;

/// One node of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainNode {
    /// Its physical address.
    pub at: PhysAddr,
    /// `setup_data.type`.
    pub kind: u32,
    /// `setup_data.len`: bytes of data, which follow the header of 16 bytes. The kernel sets it to 0 in a
    /// `SETUP_RNG_SEED` node once the seed was used.
    pub len: u32,
    /// What a `SETUP_INDIRECT` node points to; `None` for any other node, and for one whose inner type is
    /// `SETUP_INDIRECT` again, which the kernel ignores.
    pub indirect: Option<Indirect>,
}

/// What a `SETUP_INDIRECT` node points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indirect {
    /// `setup_indirect.type`, which is also what sysfs shows as the node's type.
    pub kind: u32,
    /// The range that early boot reserved.
    pub range: PhysRange,
}

impl ChainNode {
    /// The range of the given private type, if this node has one.
    pub fn range_of(&self, kind: u32) -> Option<PhysRange> {
        self.indirect.filter(|i| i.kind == kind).map(|i| i.range)
    }
}

/// Why a list cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChainError<E: StdError + 'static> {
    /// Memory could not be read.
    #[error("cannot read setup_data node {index} at {at}")]
    Read {
        /// Which node, from 0.
        index: usize,
        /// Its address.
        at: PhysAddr,
        /// Why.
        #[source]
        source: E,
    },
    /// A node points back.
    #[error("setup_data node {index} at {at} was visited before: the list is a loop")]
    Loop {
        /// Which node, from 0.
        index: usize,
        /// Its address.
        at: PhysAddr,
    },
    /// More nodes than [`MAX_NODES`].
    #[error("the setup_data list has more than {MAX_NODES} nodes")]
    TooLong,
    /// The node does not fit into the address space.
    #[error("setup_data node {index} at {at} with {len:#x} bytes of data leaves the address space")]
    Wraps {
        /// Which node, from 0.
        index: usize,
        /// Its address.
        at: PhysAddr,
        /// Its length.
        len: u32,
    },
    /// A `SETUP_INDIRECT` node too small for what it should hold.
    #[error(
        "setup_data node {index} at {at} is SETUP_INDIRECT, but has {len:#x} bytes of data instead of {INDIRECT_LEN:#x}"
    )]
    Short {
        /// Which node, from 0.
        index: usize,
        /// Its address.
        at: PhysAddr,
        /// Its length.
        len: u32,
    },
    /// A `SETUP_INDIRECT` node that names no range.
    #[error("setup_data node {index} at {at} points to no range")]
    BadRange {
        /// Which node, from 0.
        index: usize,
        /// Its address.
        at: PhysAddr,
        /// What is wrong with the range.
        #[source]
        source: RangeError,
    },
}

/// Follows the list from `first` (0: no list), reading physical memory through `read`, which fills the
/// whole buffer or fails.
///
/// # Errors
///
/// See [`ChainError`]. A list is taken whole or not at all.
pub fn read_chain<E: StdError + 'static>(
    first: u64,
    mut read: impl FnMut(PhysAddr, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<ChainNode>, ChainError<E>> {
    let mut nodes = Vec::new();
    let mut seen = HashSet::new();
    let mut next = first;
    while next != 0 {
        let (index, at) = (nodes.len(), PhysAddr::new(next));
        if index == MAX_NODES {
            return Err(ChainError::TooLong);
        }
        if !seen.insert(next) {
            return Err(ChainError::Loop { index, at });
        }
        let mut header = [0; HEADER_LEN];
        let failed = |source| ChainError::Read { index, at, source };
        read(at, &mut header).map_err(failed)?;
        let header = Header::read_from_bytes(&header).unwrap_or(EMPTY);
        let len = header.len.get();
        let data = at
            .checked_add(HEADER_LEN as u64)
            .filter(|data| data.checked_add(len.into()).is_some())
            .ok_or(ChainError::Wraps { index, at, len })?;
        let mut node = ChainNode {
            at,
            kind: header.kind.get(),
            len,
            indirect: None,
        };
        if node.kind == node_type::INDIRECT {
            if u64::from(len) < INDIRECT_LEN as u64 {
                return Err(ChainError::Short { index, at, len });
            }
            let mut inner = [0; INDIRECT_LEN];
            read(data, &mut inner).map_err(failed)?;
            if let Ok(inner) = IndirectData::read_from_bytes(&inner)
                && inner.kind.get() != node_type::INDIRECT
            {
                let range = PhysRange::new(PhysAddr::new(inner.addr.get()), inner.len.get())
                    .map_err(|source| ChainError::BadRange { index, at, source })?;
                node.indirect = Some(Indirect {
                    kind: inner.kind.get(),
                    range,
                });
            }
        }
        nodes.push(node);
        next = header.next.get();
    }
    Ok(nodes)
}

/// The end of a list. Stands in where reading a header from as many bytes could fail, which it cannot.
const EMPTY: Header = Header {
    next: zerocopy::byteorder::little_endian::U64::ZERO,
    kind: zerocopy::byteorder::little_endian::U32::ZERO,
    len: zerocopy::byteorder::little_endian::U32::ZERO,
};
