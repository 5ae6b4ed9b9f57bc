//! The handover that arrived, whatever carried it.

use crate::sys::facts::boot::SetupNode;
use kho::PhysRange;

/// Handover that the previous kernel left for this boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The carrier holds nothing of kho: this is an ordinary boot.
    Nothing,
    /// A state tree. Its bytes are not checked.
    Tree {
        /// All bytes of the tree.
        bytes: Vec<u8>,
        /// Ranges that the carrier told this kernel to reserve.
        reserved: Reserved,
    },
    /// The carrier holds something of kho that is not a valid handover. Its ranges stay reserved.
    Corrupt {
        /// Fault, with the numbers.
        why: String,
    },
}

/// Ranges that the carrier told this kernel to reserve: one for each entry of the tree's mem cache, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Nodes of the setup_data chain. Their addresses are not known.
    Nodes(Vec<SetupNode>),
    /// Ranges of the devicetree.
    Ranges(Vec<PhysRange>),
    /// Nothing: the content came in files of the initrd.
    Files,
}

impl Reserved {
    /// Checks that the carrier of this boot reserved the mem cache of a tree: the tree then belongs to this boot.
    ///
    /// # Errors
    ///
    /// The first difference, in words.
    pub fn matches(&self, mem_cache: &[PhysRange]) -> Result<(), String> {
        let (count, what) = match self {
            Self::Nodes(nodes) => (nodes.len(), "nodes"),
            Self::Ranges(ranges) => (ranges.len(), "ranges"),
            Self::Files => return Ok(()),
        };
        if mem_cache.len() != count {
            return Err(format!(
                "the mem cache has {} entries, and {count} {what} of this boot reserve memory",
                mem_cache.len()
            ));
        }
        match self {
            Self::Files => Ok(()),
            Self::Nodes(nodes) => mem_cache.iter().zip(nodes).try_for_each(|(range, node)| {
                if range.len() == node.len {
                    return Ok(());
                }
                Err(format!(
                    "mem-cache entry {range} does not fit the setup_data node {} that should reserve it: that node has {:#x} bytes",
                    node.index, node.len
                ))
            }),
            Self::Ranges(ranges) => mem_cache.iter().zip(ranges).try_for_each(|(range, reserved)| {
                if range == reserved {
                    return Ok(());
                }
                Err(format!(
                    "mem-cache entry {range} is not what the devicetree reserves in its place, {reserved}"
                ))
            }),
        }
    }
}
