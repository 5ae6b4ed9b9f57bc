//! The node of an instance: the form in which khofs writes it through kho.ko and reads it when it arrived
//! (`docs/src/abi/khofs.md`).

use crate::state::{Arrived, Found, Instance};
use crate::system::System;
use alloc::string::String;
use alloc::vec::Vec;
use crc::{CRC_32_ISO_HDLC, Crc, Table};
use kho::abi::khofs::{INODE_LIMIT, INODES, INSTANCE, INSTANCE_V1, SIZE_LIMIT, TREE, TREE_V1};
use kho::abi::{CHECKSUM, COMPATIBLE, SIZE};
use kho::{PAGE_SIZE, PhysRange, RangeSet};
use kho_decide::errno::{EINVAL, Errno};

const CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// The checksum of a tree.
pub fn checksum(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// The open node. Errors are those of `include/kho.h`.
#[allow(clippy::missing_errors_doc, reason = "said above")]
pub trait Output {
    /// Begins a child.
    fn begin(&mut self, name: &str) -> Result<(), Errno>;

    /// Ends the child that was begun last.
    fn end(&mut self) -> Result<(), Errno>;

    /// Writes a u32 property.
    fn u32(&mut self, name: &str, value: u32) -> Result<(), Errno>;

    /// Writes a u64 property.
    fn u64(&mut self, name: &str, value: u64) -> Result<(), Errno>;

    /// Writes a string property.
    fn text(&mut self, name: &str, value: &str) -> Result<(), Errno>;

    /// Writes the `mem` property; writes none if there is no range.
    fn mem(&mut self, ranges: impl Iterator<Item = PhysRange>) -> Result<(), Errno>;
}

/// A node that arrived. Errors are those of `include/kho.h`.
#[allow(clippy::missing_errors_doc, reason = "said above")]
pub trait Input: Copy {
    /// The child of this name.
    fn child(self, name: &str) -> Result<Self, Errno>;

    /// The value of a u32 property.
    fn u32(self, name: &str) -> Result<u32, Errno>;

    /// The value of a u64 property.
    fn u64(self, name: &str) -> Result<u64, Errno>;

    /// The value of a string property.
    fn text(self, name: &str) -> Result<String, Errno>;

    /// The ranges of `mem`, in their order; empty if the node has no such property.
    fn mem(self) -> Result<Vec<PhysRange>, Errno>;
}

/// Writes the node of an instance with this tree and these pages.
///
/// # Errors
///
/// The errors of `include/kho.h`.
pub fn write<S: System>(
    out: &mut impl Output,
    instance: &Instance<S>,
    what: &Arrived,
) -> Result<(), Errno> {
    out.begin(&instance.name)?;
    out.text(COMPATIBLE, INSTANCE_V1)?;
    out.text(INSTANCE, &instance.name)?;
    out.u64(SIZE_LIMIT, instance.limit.saturating_mul(PAGE_SIZE))?;
    out.u64(INODE_LIMIT, instance.inode_limit)?;
    out.u64(INODES, what.inodes)?;
    out.mem(what.data.iter())?;
    out.begin(TREE)?;
    out.text(COMPATIBLE, TREE_V1)?;
    out.u64(SIZE, what.size as u64)?;
    out.u32(CHECKSUM, what.checksum)?;
    out.mem(what.tree.iter().copied())?;
    out.end()?;
    out.end()
}

/// Reads a node that [`write()`] wrote.
///
/// # Errors
///
/// [`EINVAL`] if the instance has no tree; the error of reading a property; no memory.
pub fn read(node: impl Input) -> Result<Found, Errno> {
    let name = node.text(INSTANCE)?;
    let written = node.child(TREE)?;
    let arrived = Arrived {
        tree: written.mem()?,
        size: usize::try_from(written.u64(SIZE)?).map_err(|_| EINVAL)?,
        checksum: written.u32(CHECKSUM)?,
        data: RangeSet::from_ranges(node.mem()?)?,
        inodes: node.u64(INODES)?,
    };
    let first = arrived.tree.first().ok_or(EINVAL)?.start().get() / PAGE_SIZE;
    Ok(Found {
        name,
        limit: node.u64(SIZE_LIMIT)? / PAGE_SIZE,
        inode_limit: node.u64(INODE_LIMIT)?,
        arrived,
        first,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use crate::state::{Body, State};
    use kho::PhysAddr;
    use kho::tree::{Node, Reader, WriteError, Writer};
    use kho_decide::errno::{EBADMSG, ENOENT};
    use std::vec;

    /// The side of kho.ko that takes nodes.
    struct Tree<'a>(Writer<'a>);

    fn known(result: Result<(), WriteError>) -> Result<(), Errno> {
        result.map_err(Errno::from)
    }

    impl Output for Tree<'_> {
        fn begin(&mut self, name: &str) -> Result<(), Errno> {
            known(self.0.begin_node(name))
        }

        fn end(&mut self) -> Result<(), Errno> {
            known(self.0.end_node())
        }

        fn u32(&mut self, name: &str, value: u32) -> Result<(), Errno> {
            known(self.0.prop_u32(name, value))
        }

        fn u64(&mut self, name: &str, value: u64) -> Result<(), Errno> {
            known(self.0.prop_u64(name, value))
        }

        fn text(&mut self, name: &str, value: &str) -> Result<(), Errno> {
            known(self.0.prop_str(name, value))
        }

        fn mem(&mut self, ranges: impl Iterator<Item = PhysRange>) -> Result<(), Errno> {
            let ranges: Vec<_> = ranges.collect();
            match ranges.is_empty() {
                true => Ok(()),
                false => known(self.0.prop_mem("mem", ranges)),
            }
        }
    }

    /// The side of kho.ko that gives nodes.
    #[derive(Clone, Copy)]
    struct There<'a>(Node<'a>);

    impl Input for There<'_> {
        fn child(self, name: &str) -> Result<Self, Errno> {
            self.0.child(name).map(Self).ok_or(ENOENT)
        }

        fn u32(self, name: &str) -> Result<u32, Errno> {
            let prop = self.0.prop(name).ok_or(ENOENT)?;
            prop.value().u32().map_err(|_| EBADMSG)
        }

        fn u64(self, name: &str) -> Result<u64, Errno> {
            let prop = self.0.prop(name).ok_or(ENOENT)?;
            prop.value().u64().map_err(|_| EBADMSG)
        }

        fn text(self, name: &str) -> Result<String, Errno> {
            let prop = self.0.prop(name).ok_or(ENOENT)?;
            prop.value().str().map(Into::into).map_err(|_| EBADMSG)
        }

        fn mem(self) -> Result<Vec<PhysRange>, Errno> {
            let Some(prop) = self.0.prop("mem") else {
                return Ok(Vec::new());
            };
            let ranges = prop.value().mem().map_err(|_| EBADMSG)?;
            ranges.map(|range| range.map_err(|_| EBADMSG)).collect()
        }
    }

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    /// Writes an instance with this tree and these pages, and returns the result of reading it.
    fn there_and_back(tree: &[PhysRange], data: &[PhysRange]) -> Result<Found, Errno> {
        let mut state: State<Fake> = State::new();
        let instance = state.add("vm".into(), Body::Live(())).unwrap();
        (instance.limit, instance.inode_limit) = (100, 7);
        let what = Arrived {
            tree: tree.into(),
            size: 5000,
            checksum: checksum(b"123456789"),
            data: RangeSet::from_ranges(data.iter().copied()).unwrap(),
            inodes: 3,
        };
        let all = |mut out: Tree<'_>| {
            out.begin("").unwrap();
            write(&mut out, instance, &what).unwrap();
            out.end().unwrap();
            out.0.finish().unwrap()
        };
        let mut bytes = vec![0; all(Tree(Writer::measuring()))];
        all(Tree(Writer::new(&mut bytes)));
        let reader = Reader::new(&bytes).unwrap();
        read(There(reader.path("/vm").unwrap()))
    }

    #[test]
    fn what_was_written_down_is_read() {
        // The ranges have the order of the tree's bytes, not that of the addresses.
        let tree = [range(0x9000, 0x1000), range(0x4000, 0x1000)];
        let found = there_and_back(&tree, &[range(0x20_0000, 0x3000)]).unwrap();
        assert_eq!(
            (&*found.name, found.limit, found.inode_limit),
            ("vm", 100, 7)
        );
        assert_eq!((found.arrived.size, found.arrived.inodes), (5000, 3));
        // The check value in the definition of CRC-32.
        assert_eq!(found.arrived.checksum, 0xcbf4_3926);
        assert_eq!((found.arrived.tree, found.first), (tree.into(), 9));
        assert_eq!(found.arrived.data.total(), 0x3000);
    }

    #[test]
    fn an_instance_may_have_no_page_but_has_a_tree() {
        let found = there_and_back(&[range(0x9000, 0x1000)], &[]).unwrap();
        assert!(found.arrived.data.is_empty());
        assert_eq!(there_and_back(&[], &[]).err(), Some(EINVAL));
    }
}
