//! The handover that arrived, named by `/chosen` of the devicetree.

use super::arrived::{Arrived, Reserved};
use super::kcore::Kcore;
use super::memory::{PhysError, read_range};
use crate::devicetree::Handover;
use crate::sys::facts::devicetree::{self, ReadError};
use crate::sys::root::Root;

/// Looks for a state tree that arrived in the devicetree.
///
/// # Errors
///
/// [`PhysError`] if the devicetree or the memory cannot be read. Anything that can be read and is no valid handover is
/// [`Arrived::Corrupt`].
pub(super) fn find(root: &Root) -> Result<Arrived, PhysError> {
    let corrupt = |why: String| Ok(Arrived::Corrupt { why });
    let tree = match devicetree::read(root) {
        Ok(Some(tree)) => tree,
        Ok(None) => return Ok(Arrived::Nothing),
        Err(ReadError::Fact(error)) => return Err(error.into()),
        Err(ReadError::Damaged(error)) => return corrupt(error.to_string()),
    };
    let Handover {
        state_tree,
        mem_cache,
        ..
    } = match tree.handover() {
        Ok(Some(handover)) => handover,
        Ok(None) => return Ok(Arrived::Nothing),
        Err(error) => return corrupt(error.to_string()),
    };
    if let Some(range) = mem_cache
        .iter()
        .find(|range| !tree.reservations().contains(range))
    {
        return corrupt(format!(
            "/chosen/kho,mem-cache names {range}, and the devicetree does not reserve it"
        ));
    }
    let limit = kho::tree::MAX_SIZE as u64;
    if state_tree.len() > limit {
        return corrupt(format!(
            "/chosen/kho,state-tree claims {:#x} bytes, the limit is {limit:#x}",
            state_tree.len()
        ));
    }
    Ok(Arrived::Tree {
        bytes: read_range(&Kcore::open(root)?, state_tree)?,
        reserved: Reserved::Ranges(mem_cache),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devicetree::{DeviceTree, NextKernel};
    use crate::sys::root::fixture::Fixture;
    use kho::{PhysAddr, PhysRange};

    const VIRT: &[u8] = include_bytes!("../../../tests/format/virt.dtb");
    const AT: u64 = 0x5000_0000;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    /// A devicetree of a hop: the state tree has `len` bytes.
    fn arrived(len: u64) -> Vec<u8> {
        let cache_len = len.next_multiple_of(4096);
        let handover = Handover {
            state_tree: range(AT, len),
            mem_cache: vec![range(AT, cache_len), range(0x4000_0000, 0x1000)],
            scratch: range(0x7000_0000, 0x1000),
        };
        let next = NextKernel {
            cmdline: b"",
            initrd: None,
            kaslr_seed: 1,
            rng_seed: &[1; 32],
            handover: Some(&handover),
        };
        DeviceTree::parse(VIRT).unwrap().edit(&next).unwrap()
    }

    #[test]
    fn a_tree_is_read_from_memory() {
        let f = Fixture::new();
        assert_eq!(find(&f.root()).unwrap(), Arrived::Nothing);
        f.put("sys/firmware/fdt", VIRT);
        assert_eq!(find(&f.root()).unwrap(), Arrived::Nothing);
        let tree = b"the state tree";
        f.put("sys/firmware/fdt", arrived(14));
        assert!(find(&f.root()).is_err(), "no memory can be read");
        let mut memory = tree.to_vec();
        memory.resize(0x1000, 0);
        // arm64 maps memory from the bottom of the kernel's half on, and the kernel itself above.
        let core = super::super::kcore::tests::core_file(&[
            (0xffff_0000_1000_0000, AT, memory.clone()),
            (0xffff_8000_0800_0000, AT + 0x100, vec![9; 0x100]),
        ]);
        f.put("proc/kcore", core);
        let Arrived::Tree { bytes, reserved } = find(&f.root()).unwrap() else {
            panic!("no tree");
        };
        assert_eq!(bytes, tree);
        let cache = [range(AT, 0x1000), range(0x4000_0000, 0x1000)];
        assert_eq!(reserved.matches(&cache), Ok(()));
        let why = reserved.matches(&cache[..1]).unwrap_err();
        assert!(why.contains("1 entries, and 2 ranges"), "{why}");
        let why = reserved.matches(&[cache[0], range(0x4000_0000, 0x2000)]);
        assert!(
            why.unwrap_err()
                .contains("is not what the devicetree reserves")
        );
    }

    #[test]
    fn damage_is_named() {
        let f = Fixture::new();
        let corrupt = |bytes: &[u8], expected: &str| {
            f.put("sys/firmware/fdt", bytes);
            let Arrived::Corrupt { why } = find(&f.root()).unwrap() else {
                panic!("{expected}");
            };
            assert!(why.contains(expected), "{why}");
        };
        let good = arrived(14);
        corrupt(&good[..100], "is damaged");
        corrupt(&arrived((64 << 20) + 1), "claims 0x4000001 bytes");
        // The reservation of the second range is that of another one.
        let mut bad = good.clone();
        bad[40 + 16 + 6] = 0xff;
        corrupt(&bad, "does not reserve it");
    }
}
