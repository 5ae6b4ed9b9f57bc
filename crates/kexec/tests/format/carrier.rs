use std::io;

use kho::chain::{ChainError, Node, Policy, ShortIndirect, walk};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_kexec::bootparam::{E820Kind, EfiFacts, EfiRegion, MemoryMapEntry};
use kho_kexec::carrier::{
    Cargo, Carrier, CarrierError, MAX_NODES, SetupDataCarrier, State, node_type,
};
use proptest::prelude::*;

use crate::fixture::{memory_map, range};

const AT: PhysAddr = PhysAddr::new(0x1_4000_0000);

pub fn efi() -> EfiFacts {
    let region = |n: u64| EfiRegion {
        kind: 5,
        attribute: 1 << 63 | 0xf,
        num_pages: 16 + n,
        phys_addr: 0x7e00_0000 + (n << 20),
        virt_addr: 0xffff_fffe_f000_0000 + (n << 20),
    };
    EfiFacts {
        fw_vendor: 0x7f5e_d718,
        runtime: 0xffff_fffe_ff3e_db98,
        config_table: 0x7f5e_d018,
        smbios: Some(0x7f5d_0000),
        runtime_map: (0..6).map(region).collect(),
    }
}

fn long_map(entries: u64) -> Vec<MemoryMapEntry> {
    (0..entries)
        .map(|n| MemoryMapEntry {
            range: range(n << 20, 1 << 19),
            kind: E820Kind::Ram,
        })
        .collect()
}

/// Physical memory that holds one segment and nothing else.
fn memory(state: &State) -> impl FnMut(PhysAddr, &mut [u8]) -> io::Result<()> {
    let bytes = state.bytes.clone();
    move |at, buffer| {
        let from = at.offset_from(AT).and_then(|n| usize::try_from(n).ok());
        let found = from.and_then(|n| bytes.get(n..)?.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or_else(|| io::Error::other("not mapped"))?);
        Ok(())
    }
}

/// The chain of a state segment, if it has one.
fn read(state: &State) -> Result<Vec<Node>, ChainError<io::Error>> {
    let policy = Policy {
        max_nodes: MAX_NODES,
        short_indirect: ShortIndirect::Refuse,
    };
    let first = state.first.map_or(0, PhysAddr::get);
    walk(first, policy, memory(state)).collect()
}

fn full_cargo<'a>(
    reserved: &'a [PhysRange],
    map: &'a [MemoryMapEntry],
    efi: &'a EfiFacts,
) -> Cargo<'a> {
    Cargo {
        tree: Some(b"the tree"),
        reserved,
        memory_map: map,
        efi: Some(efi),
        rng_seed: Some(&[0x5a; 32]),
    }
}

#[test]
fn a_chain_reads_back_in_order_and_packed() {
    let reserved = [
        range(AT.get(), 0x2000),
        range(0x1_8000_0000, 0x20_0000),
        range(0x2000_0000, 0x1000),
    ];
    let (map, efi) = (long_map(131), efi());
    let cargo = full_cargo(&reserved, &map, &efi);
    let state = SetupDataCarrier.encode(AT, &cargo).unwrap();
    assert_eq!(
        state.bytes.len() as u64,
        SetupDataCarrier.state_len(&cargo.shape()).unwrap()
    );
    assert_eq!(state.first, Some(AT));
    let nodes = read(&state).unwrap();
    assert_eq!(nodes.len(), state.nodes);
    let kinds: Vec<_> = nodes
        .iter()
        .map(|n| (n.kind, n.indirect.map(|(kind, _)| kind)))
        .collect();
    assert_eq!(
        kinds,
        [
            (node_type::INDIRECT, Some(node_type::TREE)),
            (node_type::INDIRECT, Some(node_type::RESERVE)),
            (node_type::INDIRECT, Some(node_type::RESERVE)),
            (node_type::INDIRECT, Some(node_type::RESERVE)),
            (node_type::EFI, None),
            (node_type::E820_EXT, None),
            (node_type::RNG_SEED, None),
        ]
    );
    for pair in nodes.windows(2) {
        assert_eq!(pair[0].place.end(), pair[1].place.start(), "back to back");
    }
    assert_eq!(
        nodes
            .iter()
            .filter_map(|n| n.range_of(node_type::RESERVE))
            .collect::<Vec<_>>(),
        reserved
    );

    let tree = state.tree.unwrap();
    assert_eq!(nodes[0].range_of(node_type::TREE), Some(tree));
    assert!(tree.start().is_aligned(PAGE_SIZE) && tree.len() == 8);
    let at = (tree.start().get() - AT.get()) as usize;
    assert_eq!(&state.bytes[at..at + 8], b"the tree");
    assert!(state.bytes[at + 8..].iter().all(|b| *b == 0));
}

#[test]
fn ordinary_nodes_hold_what_the_kernel_reads() {
    let (map, efi) = (long_map(131), efi());
    let state = SetupDataCarrier
        .encode(AT, &full_cargo(&[], &map, &efi))
        .unwrap();
    let nodes = read(&state).unwrap();
    let data = |kind| {
        let node = nodes.iter().find(|n| n.kind == kind).unwrap();
        let start = (node.place.start().get() - AT.get()) as usize + 16;
        (
            node.place.start().get() + 16,
            &state.bytes[start..start + node.len as usize],
        )
    };
    let words = |bytes: &[u8]| -> Vec<u64> {
        bytes
            .chunks_exact(8)
            .map(|w| u64::from_le_bytes(w.try_into().unwrap()))
            .collect()
    };

    let (at, bytes) = data(node_type::EFI);
    let words_seen = words(bytes);
    assert_eq!(
        words_seen[..4],
        [efi.fw_vendor, 0, efi.config_table, 0x7f5d_0000]
    );
    assert_eq!(words_seen[4..12], [0; 8]);
    let efi_map = state.efi_map.unwrap();
    assert_eq!(
        (efi_map.start().get(), efi_map.len()),
        (at + 96, 6 * 40),
        "inside the node"
    );
    let second = &words_seen[12 + 5..12 + 10];
    let region = efi.runtime_map[1];
    assert_eq!(
        second,
        [
            5,
            region.phys_addr,
            region.virt_addr,
            region.num_pages,
            region.attribute
        ]
    );

    // Entries 128, 129 and 130, and padding that is shorter than an entry.
    let (_, bytes) = data(node_type::E820_EXT);
    assert_eq!((bytes.len(), bytes.len() / 20), (64, 3));
    assert_eq!(words(&bytes[20..36]), [129 << 20, 1 << 19]);
    assert_eq!(bytes[36..40], [1, 0, 0, 0]);

    assert_eq!(data(node_type::RNG_SEED).1, [0x5a; 32]);
}

#[test]
fn nothing_to_carry_is_nothing() {
    let map = memory_map();
    let cargo = Cargo {
        tree: None,
        reserved: &[],
        memory_map: &map,
        efi: None,
        rng_seed: None,
    };
    let state = SetupDataCarrier.encode(AT, &cargo).unwrap();
    assert_eq!((state.bytes.len(), state.first, state.nodes), (0, None, 0));
}

#[test]
fn what_cannot_be_carried_is_refused() {
    let map = memory_map();
    let cargo = |reserved| Cargo {
        tree: Some(b"t"),
        reserved,
        memory_map: &map,
        efi: None,
        rng_seed: None,
    };
    let encode = |at, reserved| SetupDataCarrier.encode(at, &cargo(reserved)).unwrap_err();
    let crooked = [range(0x1000, 0x1000), range(0x3000, 0x800)];
    let at = PhysAddr::new(0x3000);
    assert_eq!(
        encode(AT, &crooked),
        CarrierError::Misaligned {
            what: "a mem-cache entry",
            at
        }
    );
    let odd = PhysAddr::new(0x4000_0800);
    assert!(matches!(
        encode(odd, &[]),
        CarrierError::Misaligned {
            what: "the state segment",
            ..
        }
    ));
    let top = PhysAddr::new(u64::MAX - 0xfff);
    assert!(matches!(encode(top, &[]), CarrierError::OutOfRange { .. }));
    let many = vec![range(0x1000, 0x1000); MAX_NODES];
    assert_eq!(
        encode(AT, &many),
        CarrierError::TooMany {
            nodes: 257,
            reserved: 256,
            max: 256
        }
    );
    let huge = long_map(20_000);
    let cargo = Cargo {
        memory_map: &huge,
        ..cargo(&[])
    };
    assert!(matches!(
        SetupDataCarrier.encode(AT, &cargo),
        Err(CarrierError::TooLarge { .. })
    ));
    let empty = Cargo {
        tree: Some(b""),
        ..cargo
    };
    assert!(matches!(
        SetupDataCarrier.encode(
            AT,
            &Cargo {
                memory_map: &map,
                ..empty
            }
        ),
        Err(CarrierError::TooLarge { .. })
    ));
}

proptest! {
    #[test]
    fn damaged_chains_never_panic(damage in proptest::collection::vec((0usize..0x400, any::<u8>()), 1..6)) {
        let (map, efi) = (long_map(130), efi());
        let reserved = vec![range(0x4000_0000, 0x1000); 8];
        let mut state = SetupDataCarrier.encode(AT, &full_cargo(&reserved, &map, &efi)).unwrap();
        for (at, byte) in damage {
            state.bytes[at] = byte;
        }
        let _ = read(&state);
    }

    #[test]
    fn every_cargo_reads_back(
        starts in proptest::collection::vec((1u64..1 << 30, 1u64..1 << 20), 0..120),
        entries in 1u64..400,
        with_tree in any::<bool>(), with_efi in any::<bool>(), with_seed in any::<bool>(),
    ) {
        let reserved: Vec<_> = starts.iter().map(|(page, pages)| range(page * PAGE_SIZE, pages * PAGE_SIZE)).collect();
        let (map, efi) = (long_map(entries), efi());
        let cargo = Cargo {
            tree: with_tree.then_some(b"tree"),
            reserved: &reserved,
            memory_map: &map,
            efi: with_efi.then_some(&efi),
            rng_seed: with_seed.then_some(&[1; 32]),
        };
        let state = SetupDataCarrier.encode(AT, &cargo).unwrap();
        prop_assert_eq!(state.bytes.len() as u64, SetupDataCarrier.state_len(&cargo.shape()).unwrap());
        let nodes = read(&state).unwrap();
        prop_assert_eq!(nodes.len(), state.nodes);
        let back: Vec<_> = nodes.iter().filter_map(|n| n.range_of(node_type::RESERVE)).collect();
        prop_assert_eq!(back, reserved);
        prop_assert_eq!(nodes.first().and_then(|n| n.range_of(node_type::TREE)), state.tree);
    }
}
