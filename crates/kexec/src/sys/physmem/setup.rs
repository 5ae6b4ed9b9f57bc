//! The handover that arrived, read through `/sys/kernel/boot_params/setup_data`.
//!
//! A node's `data` file gives the content of the range that a `SETUP_INDIRECT` node points to (`setup_data_data_read`,
//! `arch/x86/kernel/ksysfs.c`, 6.1 to 7.3), at most a page per call; in every call the kernel maps all earlier nodes of
//! the chain one by one, so the cost of a call grows with the node's position in the chain.

use super::arrived::{Arrived, Reserved};
use super::memory::{PhysError, PhysMemory, in_pieces};
use crate::sys::facts::boot::{SetupData, SetupNode, data_file};
use crate::sys::root::{FactError, Root};
use kho::abi::setup_data::{SETUP_KHO_LATE, SETUP_KHO_RESERVE, SETUP_KHO_TREE};
use kho::{PhysAddr, PhysRange};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes per read: kernfs shortens a longer read to a page.
const STEP: usize = 4096;

/// Looks for a state tree that arrived in the setup_data chain.
///
/// # Errors
///
/// [`PhysError`] if the chain cannot be read: the process is not root, or a file differs from the kernel's
/// documentation. A readable chain without a valid handover is [`Arrived::Corrupt`].
pub(super) fn find(root: &Root) -> Result<Arrived, PhysError> {
    let Some(setup) = SetupData::read(root)? else {
        return Ok(Arrived::Nothing);
    };
    let of_kind = |kind: u32| setup.nodes.iter().copied().filter(move |n| n.kind == kind);
    let reserved: Vec<SetupNode> = of_kind(SETUP_KHO_RESERVE).collect();
    let trees: Vec<SetupNode> = of_kind(SETUP_KHO_TREE).collect();
    let corrupt = |why: String| Ok(Arrived::Corrupt { why });
    match trees.as_slice() {
        [] if reserved.is_empty() => Ok(Arrived::Nothing),
        [] => corrupt(format!(
            "{} nodes reserve memory for a handover, and no node holds its state tree",
            reserved.len()
        )),
        [node] => {
            if node.len == 0 || node.len > kho::tree::MAX_SIZE as u64 {
                return corrupt(format!(
                    "node {} claims a state tree of {:#x} bytes, the limit is {:#x}",
                    node.index,
                    node.len,
                    kho::tree::MAX_SIZE
                ));
            }
            if reserved.is_empty() {
                return corrupt(format!(
                    "node {} holds a state tree, and no node reserves memory",
                    node.index
                ));
            }
            Ok(Arrived::Tree {
                bytes: read_node(root, *node)?,
                reserved: Reserved::Nodes(reserved),
            })
        }
        several => corrupt(format!(
            "{} nodes hold a state tree ({} and {}), there may be one",
            several.len(),
            several[0].index,
            several[1].index
        )),
    }
}

/// Late block in the chain of this boot ([`kho::abi::late`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateNodes {
    /// Header of the block, one page. It is not checked.
    pub header: Vec<u8>,
    /// The nodes of the late mem cache, in order.
    pub reserved: Vec<SetupNode>,
}

/// Looks for the late block that arrived; `None` if the chain has none, or one whose header is not a page.
///
/// # Errors
///
/// As [`find_tree`].
pub fn find_late(root: &Root) -> Result<Option<LateNodes>, PhysError> {
    let nodes = SetupData::read(root)?.map_or_else(Vec::new, |setup| setup.nodes);
    let mut late = nodes.into_iter().filter(|node| node.kind == SETUP_KHO_LATE);
    match late.next() {
        Some(header) if header.len == kho::PAGE_SIZE => Ok(Some(LateNodes {
            header: read_node(root, header)?,
            reserved: late.collect(),
        })),
        _ => Ok(None),
    }
}

fn read_node(root: &Root, node: SetupNode) -> Result<Vec<u8>, PhysError> {
    let path = root.path(&data_file(node.index));
    let file = File::open(&path).map_err(|e| FactError::io(&path, e))?;
    let len = usize::try_from(node.len).map_err(|_| FactError::from(kho::OutOfMemory))?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(len)
        .map_err(|_| FactError::from(kho::OutOfMemory))?;
    bytes.resize(len, 0);
    read_pages(&file, &path, 0, &mut bytes)?;
    Ok(bytes)
}

fn read_pages(
    file: &File,
    path: &std::path::Path,
    offset: u64,
    buf: &mut [u8],
) -> Result<(), PhysError> {
    let mut done = 0;
    while done < buf.len() {
        let upto = buf.len().min(done + STEP);
        let at = offset.saturating_add(done as u64);
        match file.read_at(&mut buf[done..upto], at) {
            Ok(0) => {
                return Err(PhysError::Short {
                    path: path.to_owned(),
                    offset: at,
                });
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(FactError::io(path, e).into()),
        }
    }
    Ok(())
}

/// Physical memory in the ranges of the setup_data chain.
#[derive(Debug)]
pub struct SetupMemory {
    nodes: Vec<(PhysRange, File, PathBuf)>,
}

impl SetupMemory {
    /// Opens the nodes that hold the given ranges.
    ///
    /// # Errors
    ///
    /// [`PhysError::Format`] if a node is not as long as its range, [`PhysError::Fact`] if a node cannot be opened.
    pub fn open(root: &Root, nodes: &[(PhysRange, u32)]) -> Result<Self, PhysError> {
        let mut open = Vec::new();
        for (range, index) in nodes {
            let path = root.path(&data_file(*index));
            let file = File::open(&path).map_err(|e| FactError::io(&path, e))?;
            let len = file.metadata().map_err(|e| FactError::io(&path, e))?.len();
            if len != range.len() {
                return Err(PhysError::Format {
                    path,
                    what: format!("holds {len:#x} bytes, and {range} should be here"),
                });
            }
            open.push((*range, file, path));
        }
        open.sort_by_key(|n| n.0);
        Ok(Self { nodes: open })
    }

    /// Returns whether all of `range` is readable.
    pub fn holds(&self, range: PhysRange) -> bool {
        kho::RangeSet::from_ranges(self.nodes.iter().map(|n| n.0))
            .is_ok_and(|set| set.contains_range(range))
    }
}

impl PhysMemory for SetupMemory {
    fn read_at(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), PhysError> {
        let find = |at| {
            let node = self.nodes.iter().find(|n| n.0.contains(at));
            let (range, file, path) = node.ok_or_else(|| PhysError::NotMapped {
                path: PathBuf::from("sys/kernel/boot_params/setup_data"),
                addr: at,
            })?;
            Ok((*range, (file, path)))
        };
        in_pieces(addr, buf, find, |(file, path), skip, part| {
            read_pages(file, path, skip, part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::physmem::{open, read_range};
    use crate::sys::root::fixture::Fixture;

    const DIR: &str = "sys/kernel/boot_params/setup_data";

    fn put(f: &Fixture, n: u32, kind: u32, bytes: &[u8]) {
        f.put(&format!("{DIR}/{n}/type"), format!("{kind:#x}\n"))
            .put(&format!("{DIR}/{n}/data"), bytes);
    }

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    #[test]
    fn none_one_and_several_are_told_apart() {
        let f = Fixture::new();
        assert_eq!(find(&f.root()).unwrap(), Arrived::Nothing);
        put(&f, 0, 9, &[0; 32]);
        assert_eq!(find(&f.root()).unwrap(), Arrived::Nothing);
        put(&f, 1, SETUP_KHO_RESERVE, &[5; 8192]);
        assert!(matches!(find(&f.root()).unwrap(), Arrived::Corrupt { .. }));
        let tree: Vec<u8> = (0..9000u32).map(|i| i.to_le_bytes()[0]).collect();
        put(&f, 2, SETUP_KHO_TREE, &tree);
        let found = find(&f.root()).unwrap();
        assert!(
            matches!(&found, Arrived::Tree { bytes, reserved: Reserved::Nodes(reserved) }
            if *bytes == tree && reserved.len() == 1)
        );
        put(&f, 3, SETUP_KHO_TREE, &tree);
        let Arrived::Corrupt { why } = find(&f.root()).unwrap() else {
            panic!("two trees were accepted");
        };
        assert!(why.contains("2 and 3"), "{why}");
        put(&f, 3, SETUP_KHO_RESERVE, &[]);
        put(&f, 2, SETUP_KHO_TREE, &[]);
        assert!(matches!(find(&f.root()).unwrap(), Arrived::Corrupt { .. }));
    }

    #[test]
    fn the_late_block_is_found_behind_the_tree() {
        let f = Fixture::new();
        assert_eq!(find_late(&f.root()).unwrap(), None);
        put(&f, 0, SETUP_KHO_TREE, b"tree");
        put(&f, 1, SETUP_KHO_RESERVE, &[1; 8192]);
        assert_eq!(find_late(&f.root()).unwrap(), None);
        put(&f, 2, SETUP_KHO_LATE, &[7; 4096]);
        put(&f, 3, SETUP_KHO_LATE, &[0; 8192]);
        let found = find_late(&f.root()).unwrap().unwrap();
        assert_eq!(found.header, [7; 4096]);
        let nodes: Vec<_> = found.reserved.iter().map(|n| (n.index, n.len)).collect();
        assert_eq!(nodes, [(3, 8192)]);
        put(&f, 2, SETUP_KHO_LATE, &[7; 4095]);
        assert_eq!(find_late(&f.root()).unwrap(), None);
    }

    #[test]
    fn memory_is_read_through_the_nodes_when_there_is_no_kcore() {
        let f = Fixture::new();
        put(&f, 0, SETUP_KHO_TREE, b"tree");
        put(&f, 1, SETUP_KHO_RESERVE, &[1; 8192]);
        put(&f, 2, SETUP_KHO_RESERVE, &[2; 4096]);
        let Arrived::Tree { reserved, .. } = find(&f.root()).unwrap() else {
            panic!("no tree");
        };
        let cache = [range(0x7000, 8192), range(0x9000, 4096)];
        assert_eq!(reserved.matches(&cache), Ok(()));
        let nodes = [(cache[0], 1), (cache[1], 2)];
        let wanted = [range(0x7800, 0x2000)];
        let memory = open(&f.root(), &wanted, &nodes).unwrap();
        let bytes = read_range(&memory, wanted[0]).unwrap();
        assert!(bytes[..0x1800].iter().all(|b| *b == 1));
        assert!(bytes[0x1800..].iter().all(|b| *b == 2));
        let error = read_range(&memory, range(0x9800, 0x1000)).unwrap_err();
        assert!(matches!(error, PhysError::NotMapped { addr, .. } if addr.get() == 0xa000));
        // No node has this range: the error is that of kcore.
        assert!(open(&f.root(), &[range(0x1000, 1)], &nodes).is_err());
        // A tree of another boot does not fit the chain.
        assert!(reserved.matches(&cache[..1]).is_err());
        let swapped = [cache[1], cache[0]];
        let why = reserved.matches(&swapped).unwrap_err();
        assert!(why.contains("node 1") && why.contains("0x2000"), "{why}");
        assert!(SetupMemory::open(&f.root(), &[(cache[0], 2)]).is_err());
    }

    #[test]
    fn kcore_is_preferred_when_it_holds_everything() {
        let f = Fixture::new();
        put(&f, 0, SETUP_KHO_RESERVE, &[1; 4096]);
        let nodes = [(range(0x1000, 4096), 0)];
        let core = super::super::kcore::tests::core_file(&[(
            0xffff_8880_0000_1000,
            0x1000,
            vec![9; 0x1000],
        )]);
        f.put("proc/kcore", core);
        let from = |memory: &dyn PhysMemory| read_range(memory, nodes[0].0).unwrap()[0];
        assert_eq!(from(&open(&f.root(), &[nodes[0].0], &nodes).unwrap()), 9);
        let core = super::super::kcore::tests::core_file(&[(
            0xffff_8880_0000_1000,
            0x9000,
            vec![9; 0x1000],
        )]);
        f.put("proc/kcore", core);
        assert_eq!(from(&open(&f.root(), &[nodes[0].0], &nodes).unwrap()), 1);
    }
}
