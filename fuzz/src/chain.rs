//! Data that early boot left behind: the setup_data chain, and memory read through /proc/kcore.

use crate::{Cursor, clear, put, scratch};
use kho::chain::{ChainError, Node, Policy, ShortIndirect, walk};
use kho::{PhysAddr, PhysRange};
use kho_kexec::bootparam::BootParams;
use kho_kexec::carrier::MAX_NODES;
use kho_kexec::sys::Root;
use kho_kexec::sys::physmem::{Arrived, Kcore, PhysMemory, find_tree};
use std::collections::HashSet;

/// Physical address of the input's first byte.
const AT: u64 = 0x10_0000;

/// The chain in memory that begins at [`AT`].
pub fn chain(data: &[u8]) {
    let _ = BootParams::from_running(data).map(|params| params.setup_data());
    let mut reads = 0;
    let policy = Policy {
        max_nodes: MAX_NODES,
        short_indirect: ShortIndirect::Refuse,
    };
    let nodes = walk(AT, policy, |addr: PhysAddr, buf: &mut [u8]| {
        reads += 1;
        let from = addr
            .get()
            .checked_sub(AT)
            .and_then(|at| usize::try_from(at).ok());
        let from = from.and_then(|from| data.get(from..from.checked_add(buf.len())?));
        match from {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
        }
    });
    let chain: Result<Vec<Node>, ChainError<std::io::Error>> = nodes.collect();
    assert!(reads <= 2 * (MAX_NODES + 1), "the walk does not end");
    match chain {
        Ok(nodes) => {
            assert!(!nodes.is_empty() && nodes.len() <= MAX_NODES);
            let places: HashSet<_> = nodes.iter().map(|node| node.place.start()).collect();
            assert_eq!(places.len(), nodes.len(), "a node twice");
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
}

pub fn chains() -> Vec<Vec<u8>> {
    // A node of another type, then two of kho's.
    let mut bytes = Vec::new();
    let mut node = |next: u64, kind: u32, data: &[u8]| {
        bytes.extend(next.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(u32::try_from(data.len()).expect("small").to_le_bytes());
        bytes.extend(data);
    };
    let indirect = |kind: u32, len: u64, addr: u64| {
        let mut data = kind.to_le_bytes().to_vec();
        data.extend([0; 4]);
        data.extend(len.to_le_bytes());
        data.extend(addr.to_le_bytes());
        data
    };
    use kho::abi::setup_data::{SETUP_INDIRECT, SETUP_KHO_RESERVE, SETUP_KHO_TREE};
    node(AT + 24, 4, &[1; 8]);
    node(
        AT + 64,
        SETUP_INDIRECT,
        &indirect(SETUP_KHO_TREE, 0x800, 0x20_0000),
    );
    node(
        0,
        SETUP_INDIRECT,
        &indirect(SETUP_KHO_RESERVE, 0x2000, 0x20_0000),
    );
    vec![bytes]
}

/// Type and data of up to four nodes, each behind a byte that holds its length.
pub fn sysfs(data: &[u8]) {
    let base = "sysfs/sys/kernel/boot_params";
    clear(&format!("{base}/setup_data"));
    let mut cursor = Cursor(data);
    let count = cursor.u8() % 5;
    for index in 0..count {
        let len = usize::from(cursor.u8() % 24);
        put(
            &format!("{base}/setup_data/{index}/type"),
            cursor.bytes(len),
        );
        let len = usize::from(cursor.u8()) * 8;
        put(
            &format!("{base}/setup_data/{index}/data"),
            cursor.bytes(len),
        );
    }
    let found = find_tree(&Root::at(scratch().join("sysfs")));
    match found {
        Ok(Arrived::Tree { bytes, reserved }) => {
            assert!(!bytes.is_empty() && reserved.matches(&[]).is_err());
        }
        Ok(Arrived::Corrupt { why }) => assert!(!why.is_empty()),
        Ok(_) => {}
        Err(error) => {
            let _ = error.to_string();
        }
    }
}

pub fn sysfs_seeds() -> Vec<Vec<u8>> {
    use kho::abi::setup_data::{SETUP_KHO_RESERVE, SETUP_KHO_TREE};
    let mut seed = vec![2];
    for kind in [SETUP_KHO_TREE, SETUP_KHO_RESERVE] {
        let text = format!("{kind:#x}\n");
        seed.push(u8::try_from(text.len()).expect("short"));
        seed.extend(text.bytes());
        seed.push(4);
        seed.extend([7; 32]);
    }
    vec![seed]
}

/// The file `/proc/kcore`, headers first.
pub fn kcore(data: &[u8]) {
    put("kcore/proc/kcore", data);
    let Ok(kcore) = Kcore::open(&Root::at(scratch().join("kcore"))) else {
        return;
    };
    let ram: Vec<PhysRange> = kcore.ram().collect();
    assert!(!ram.is_empty());
    assert!(ram.windows(2).all(|pair| pair[0].end() <= pair[1].start()));
    for range in ram {
        assert_eq!(kcore.first_missing(range), None);
        let mut word = [0; 8];
        let _ = kcore.read_at(range.start(), &mut word);
        let _ = kcore.read_virtual(range.start().get(), &mut word);
    }
}

pub fn kcores() -> Vec<Vec<u8>> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([4, 0, 62, 0]);
    file.resize(32, 0);
    file.extend(64_u64.to_le_bytes());
    file.resize(54, 0);
    file.extend([56, 0, 2, 0]);
    file.resize(64, 0);
    for (at, len) in [(0x1000_u64, 0x1000_u64), (0x10_0000, 0x8000)] {
        file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
        for word in [0x100, 0xffff_8880_0000_0000 + at, at, len, len, 0] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(0x140, 9);
    vec![file]
}
