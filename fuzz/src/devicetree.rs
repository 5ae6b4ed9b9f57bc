//! The devicetree with which an arm64 kernel starts.

use kho::tree::{Reader, Writer};
use kho::{PhysAddr, PhysRange};
use kho_kexec::carrier::RNG_SEED_LEN;
use kho_kexec::devicetree::{DeviceTree, Handover, NextKernel};

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).expect("a range")
}

fn handover() -> Handover {
    Handover {
        state_tree: range(0x5000_0000, 0x1234),
        mem_cache: vec![range(0x5000_0000, 0x2000), range(0x4800_0000, 0x20_0000)],
        scratch: range(0x6000_0000, 0x1000_0000),
    }
}

fn edit(tree: &DeviceTree, handover: Option<&Handover>) -> Option<DeviceTree> {
    let bytes = tree.edit(&NextKernel {
        cmdline: b"root=/dev/vda1",
        initrd: Some(range(0x6800_0000, 0x12_3457)),
        kaslr_seed: 7,
        rng_seed: &[7; RNG_SEED_LEN],
        handover,
    });
    let bytes = bytes.map_err(|error| error.to_string()).ok()?;
    Some(DeviceTree::parse(&bytes).expect("an edited tree is a tree"))
}

/// `/sys/firmware/fdt`.
pub fn devicetree(data: &[u8]) {
    let tree = match DeviceTree::parse(data) {
        Ok(tree) => tree,
        Err(error) => {
            let _ = error.to_string();
            return;
        }
    };
    let arrived = tree.handover().map_err(|error| error.to_string());
    let sent = handover();
    let Some(next) = edit(&tree, Some(&sent)) else {
        return;
    };
    assert!(arrived.is_ok(), "damage is not passed on");
    assert_eq!(next.handover(), Ok(Some(sent.clone())));
    let before = next.reservations().len() - sent.mem_cache.len();
    assert!(before <= tree.reservations().len());
    assert_eq!(next.reservations()[before..], sent.mem_cache);
    // Nothing of this handover reaches the kernel after the next.
    let last = edit(&next, None).expect("it is smaller");
    assert_eq!(last.handover(), Ok(None));
    assert!(last.reservations().len() <= before);
}

/// A stub as the EFI stub makes it, before and after an edit.
pub fn devicetrees() -> Vec<Vec<u8>> {
    let mut bytes = [0; 512];
    let mut w = Writer::new(&mut bytes);
    let mut write = || {
        w.begin_node("")?;
        w.begin_node("chosen")?;
        w.prop_u64("linux,uefi-system-table", 0x13_fc00_0018)?;
        w.prop_str("bootargs", "quiet")?;
        w.end_node()?;
        w.begin_node("memory")?;
        w.end_node()?;
        w.end_node()
    };
    write().expect("a small tree");
    let len = w.finish().expect("a small tree");
    let stub = bytes[..len].to_vec();
    assert!(Reader::new(&stub).is_ok());
    let tree = DeviceTree::parse(&stub).expect("a seed is accepted");
    let edited = tree.edit(&NextKernel {
        cmdline: b"quiet",
        initrd: None,
        kaslr_seed: 7,
        rng_seed: &[7; RNG_SEED_LEN],
        handover: Some(&handover()),
    });
    vec![stub, edited.expect("a seed is accepted")]
}
