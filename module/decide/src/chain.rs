//! The `setup_data` chain that this boot honoured.
//!
//! The kernel does not export `boot_params` to modules, but sysfs shows its bytes: `hdr.setup_data` is the u64 at 0x250
//! (`Documentation/arch/x86/boot.rst`, offset 0x1f1 + 0x5f). The crate [`kho`] walks the chain from there.

use crate::errno::{EINVAL, Errno};
use alloc::vec::Vec;
use kho::abi::setup_data::{SETUP_KHO_LATE, SETUP_KHO_RESERVE, SETUP_KHO_TREE};
use kho::bytes::u64_at;
use kho::chain::{ChainError, Policy, ShortIndirect};
use kho::{PhysAddr, PhysRange, RangeSet};

/// Offset of `hdr.setup_data` in `boot_params`.
const HEAD: usize = 0x250;

/// Policy of the walk. It reads at most 512 nodes, which is more than early boot could have reserved, and ignores an
/// indirect node that is too short: boot loaders may add nodes of any kind.
const POLICY: Policy = Policy {
    max_nodes: 512,
    short_indirect: ShortIndirect::Ignore,
};

/// Result of a walk over the chain.
#[derive(Default, Debug)]
pub struct Chain {
    /// Physical range of the state tree; `None` if no node points to one.
    pub tree: Option<PhysRange>,
    /// Ranges that early boot reserved for the handover, in the order of the chain.
    pub reserved: Vec<PhysRange>,
    /// Ranges that the nodes of a late block name: the header of the block, then memory that early boot reserved for
    /// the handover. Empty if the chain has no late block. See [`kho::abi::late`].
    pub late: Vec<PhysRange>,
    /// Ranges of the nodes themselves, including nodes of other types. They are never released, because the kernel
    /// walks the nodes when a process reads their files in sysfs.
    pub nodes: Vec<PhysRange>,
}

impl Chain {
    /// Returns the memory that early boot reserved for the handover, in whole pages, without the pages of the chain's
    /// nodes, of the tree and of the header of a late block: processes can read all of these through sysfs.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if a node is at the end of the address space; no memory.
    pub fn handed(&self) -> Result<RangeSet, Errno> {
        let mut handed = RangeSet::from_ranges(self.reserved.iter().chain(&self.late).copied())?;
        let read = self.nodes.iter().chain(&self.tree).chain(self.late.first());
        for range in read {
            handed.remove(range.page_outer().ok_or(EINVAL)?)?;
        }
        Ok(handed)
    }
}

/// Walks the chain from the address in `boot_params`. `read` returns bytes of physical memory.
///
/// # Errors
///
/// [`EINVAL`] if the chain is malformed or points to two state trees; the error of `read`; no memory.
pub fn walk(
    boot_params: &[u8],
    mut read: impl FnMut(PhysRange) -> Result<Vec<u8>, Errno>,
) -> Result<Chain, Errno> {
    let mut chain = Chain::default();
    let head = u64_at(boot_params, HEAD).ok_or(EINVAL)?;
    let fill = |at: PhysAddr, buf: &mut [u8]| {
        let bytes = read(PhysRange::new(at, buf.len() as u64).map_err(|_| EINVAL)?)?;
        buf.copy_from_slice(bytes.get(..buf.len()).ok_or(EINVAL)?);
        Ok(())
    };
    for node in kho::chain::walk(head, POLICY, fill) {
        let node = node.map_err(|error| match error {
            ChainError::Read { source, .. } => source,
            _ => EINVAL,
        })?;
        push(&mut chain.nodes, node.place)?;
        match node.indirect {
            Some((SETUP_KHO_RESERVE, range)) => push(&mut chain.reserved, range)?,
            Some((SETUP_KHO_LATE, range)) => push(&mut chain.late, range)?,
            // The chain points to two state trees.
            Some((SETUP_KHO_TREE, range)) if chain.tree.replace(range).is_some() => {
                return Err(EINVAL);
            }
            _ => {}
        }
    }
    Ok(chain)
}

fn push(list: &mut Vec<PhysRange>, item: PhysRange) -> Result<(), Errno> {
    list.try_reserve(1)?;
    list.push(item);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho::abi::setup_data::SETUP_INDIRECT;
    use std::vec;

    fn node(memory: &mut [u8], at: usize, next: u64, kind: u32, inner: (u32, u64, u64)) {
        memory[at..at + 8].copy_from_slice(&next.to_ne_bytes());
        memory[at + 8..at + 12].copy_from_slice(&kind.to_ne_bytes());
        memory[at + 12..at + 16].copy_from_slice(&24u32.to_ne_bytes());
        memory[at + 16..at + 20].copy_from_slice(&inner.0.to_ne_bytes());
        memory[at + 24..at + 32].copy_from_slice(&inner.1.to_ne_bytes());
        memory[at + 32..at + 40].copy_from_slice(&inner.2.to_ne_bytes());
    }

    fn params(head: u64) -> Vec<u8> {
        let mut params = vec![0u8; 4096];
        params[HEAD..HEAD + 8].copy_from_slice(&head.to_ne_bytes());
        params
    }

    fn run(memory: &[u8], head: u64) -> Result<Chain, Errno> {
        walk(&params(head), |r| {
            let (from, to) = (r.start().get() as usize, r.end().get() as usize);
            memory.get(from..to).map(<[u8]>::to_vec).ok_or(EINVAL)
        })
    }

    #[test]
    fn finds_the_tree_and_the_reservations() {
        let mut memory = vec![0u8; 400];
        node(
            &mut memory,
            40,
            80,
            SETUP_INDIRECT,
            (SETUP_KHO_TREE, 100, 0x5000),
        );
        node(
            &mut memory,
            80,
            120,
            SETUP_INDIRECT,
            (SETUP_KHO_RESERVE, 0x2000, 0x4000),
        );
        node(&mut memory, 120, 0, 9, (0, 0, 0));
        let chain = run(&memory, 40).unwrap();
        assert_eq!(chain.tree.unwrap().start().get(), 0x5000);
        assert_eq!(chain.tree.unwrap().len(), 100);
        assert_eq!(chain.reserved.len(), 1);
        assert_eq!(chain.nodes.len(), 3);
        assert!(run(&memory, 0).unwrap().tree.is_none());
    }

    #[test]
    fn refuses_loops_two_trees_and_wrapping_ranges() {
        let mut memory = vec![0u8; 400];
        node(
            &mut memory,
            40,
            40,
            SETUP_INDIRECT,
            (SETUP_KHO_RESERVE, 0x2000, 0x4000),
        );
        assert_eq!(run(&memory, 40).unwrap_err(), EINVAL);
        node(
            &mut memory,
            40,
            80,
            SETUP_INDIRECT,
            (SETUP_KHO_TREE, 100, 0x5000),
        );
        node(
            &mut memory,
            80,
            0,
            SETUP_INDIRECT,
            (SETUP_KHO_TREE, 100, 0x6000),
        );
        assert_eq!(run(&memory, 40).unwrap_err(), EINVAL);
        node(
            &mut memory,
            80,
            0,
            SETUP_INDIRECT,
            (SETUP_KHO_RESERVE, u64::MAX, 0x6000),
        );
        assert_eq!(run(&memory, 40).unwrap_err(), EINVAL);
    }
}
