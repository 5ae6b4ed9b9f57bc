//! The kernel's part of a handover: a module's description, in its own pages, of the memory that drivers hand over.
//!
//! The kernel's part is a second state tree. The loader's tree does not contain it: a node below the root of the
//! loader's tree *refers* to it. An abort destroys the kernel's part, and so takes effect on an image that is already
//! loaded.
//!
//! # `/kernel` in the loader's tree: `kho-kernel-part-v1`
//!
//! | property | type | meaning |
//! | --- | --- | --- |
//! | `compatible` | string | [`KERNEL_PART_V1`] |
//! | `mem` | one pair | the pages of the kernel's part |
//! | `size` | u64 | bytes of the tree in them |
//! | `generation` | u64 | generation of the kernel's part, not 0 |
//!
//! # `/`, the root of the kernel's part: `kho-kernel-v1`
//!
//! | property | type | meaning |
//! | --- | --- | --- |
//! | `compatible` | string | [`KERNEL_V1`] |
//! | `generation` | u64 | random at every activation, not 0; equal to the one in `/kernel` |
//! | [`release`](RELEASE) | string | `uname -r` of the kernel that wrote the part |
//! | `mem` | one pair | the pages of the kernel's part itself; equal to those in `/kernel` |
//! | `checksum` | u32 | see [`verify`](crate::tree::verify) |
//!
//! Each child of the root belongs to one producer and has a versioned `compatible`. Every `mem` below the root
//! follows the rules of [every node](super): page-aligned, inside the mem cache, outside scratch, no page twice in
//! both trees together.

use super::{COMPATIBLE, GENERATION, MEM, SIZE};
use crate::addr::PhysRange;
use crate::ranges::{OutOfMemory, RangeSet};
use crate::tree::{
    ChecksumError, Node, Reader, TreeError, Value, ValueError, WriteError, Writer, verify,
};
use thiserror::Error;

/// Name of the node of the loader's tree.
pub const KERNEL: &str = "kernel";

/// `compatible` of the node [`KERNEL`].
pub const KERNEL_PART_V1: &str = "kho-kernel-part-v1";

/// `compatible` of the root of the kernel's part.
pub const KERNEL_V1: &str = "kho-kernel-v1";

/// Root of the kernel's part, string: `uname -r` of the kernel that wrote it.
pub const RELEASE: &str = "release";

/// Reference to a kernel's part: the place of its tree, and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Pages of the kernel's part.
    pub mem: PhysRange,
    /// Length of the tree in these pages, in bytes.
    pub size: u64,
    /// Generation of the kernel's part, not 0.
    pub generation: u64,
}

/// Why a tree is not a kernel's part, or cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelPartError {
    /// The bytes are not a tree.
    #[error("the kernel's part is no state tree: it was aborted, or overwritten")]
    Tree(#[from] TreeError),
    /// The root is of another version.
    #[error("the kernel's part is not `{KERNEL_V1}`")]
    Version,
    /// The kernel's part changed after it was sealed.
    #[error("the kernel's part is damaged")]
    Checksum(#[from] ChecksumError),
    /// A property of the root is missing, of another type, or zero.
    #[error("the root of the kernel's part has no proper `{property}`")]
    Root {
        /// Name of the property.
        property: &'static str,
    },
    /// A `mem` is not a list of ranges.
    #[error("a mem property of the kernel's part is malformed")]
    Malformed(#[source] ValueError),
    /// A range is empty, wraps, or is not page-aligned.
    #[error("a range of the kernel's part is empty, wraps, or is not page-aligned")]
    Range,
    /// Two ranges overlap.
    #[error("{range} is named twice in the kernel's part")]
    Overlap {
        /// The second of the two.
        range: PhysRange,
    },
    /// An allocation failed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// A kernel's part whose root, checksum and ranges were checked against each other.
#[derive(Debug)]
pub struct KernelPart {
    /// Reference to the part that the loader's tree has to hold.
    pub reference: Reference,
    /// Memory that the part's producers hand over, without the part's own pages.
    pub mem: RangeSet,
}

impl KernelPart {
    /// Reads the root and all ranges of `tree`.
    ///
    /// # Errors
    ///
    /// [`KernelPartError`].
    pub fn parse(tree: &Reader<'_>) -> Result<Self, KernelPartError> {
        Self::parse_as(KERNEL_V1, tree)
    }

    /// As [`parse`](Self::parse), for a writer and a reader that agreed on another `compatible` than [`KERNEL_V1`].
    ///
    /// # Errors
    ///
    /// [`KernelPartError`].
    pub fn parse_as(compatible: &str, tree: &Reader<'_>) -> Result<Self, KernelPartError> {
        let root = tree.root();
        let version = root.prop(COMPATIBLE).map(|prop| prop.value().str());
        if version != Some(Ok(compatible)) {
            return Err(KernelPartError::Version);
        }
        verify(tree)?;
        let generation = number(&root, GENERATION).filter(|generation| *generation != 0);
        let generation = generation.ok_or(KernelPartError::Root {
            property: GENERATION,
        })?;
        let size = u64::try_from(tree.bytes().len())
            .map_err(|_| KernelPartError::Root { property: SIZE })?;
        let own = one_range(&root).filter(|own| own.is_page_aligned() && size <= own.len());
        let own = own.ok_or(KernelPartError::Root { property: MEM })?;
        let mut set = RangeSet::from_ranges([own])?;
        for (_, node) in tree.nodes().filter(|(depth, _)| *depth != 0) {
            let Some(prop) = node.prop(MEM) else { continue };
            for range in prop.value().mem().map_err(KernelPartError::Malformed)? {
                let range = range.ok().filter(|range| range.is_page_aligned());
                let range = range.ok_or(KernelPartError::Range)?;
                if set.overlaps(range) {
                    return Err(KernelPartError::Overlap { range });
                }
                set.insert(range)?;
            }
        }
        set.remove(own)?;
        Ok(Self {
            reference: Reference {
                mem: own,
                size,
                generation,
            },
            mem: set,
        })
    }

    /// Returns all memory that has to stay in place: the memory that is handed over and the part's own pages.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn kept(&self) -> Result<RangeSet, OutOfMemory> {
        let mut kept = self.mem.try_clone()?;
        kept.insert(self.reference.mem)?;
        Ok(kept)
    }
}

/// A range of a kernel's part at which a driver cannot have kept memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{range}: {why}")]
pub struct Misplaced {
    /// The range.
    pub range: PhysRange,
    /// Reason why the range is refused.
    pub why: &'static str,
}

impl KernelPart {
    /// Checks the memory that the producers hand over against the loader's tree: `cache` is the mem cache of that tree,
    /// `scratch` its scratch region, `others` all other memory that the tree hands over.
    ///
    /// # Errors
    ///
    /// [`Misplaced`] for the lowest range outside the mem cache, in scratch or in `others`.
    pub fn check_places(
        &self,
        cache: &RangeSet,
        scratch: PhysRange,
        others: &RangeSet,
    ) -> Result<(), Misplaced> {
        for range in self.mem.iter() {
            let why = if !cache.contains_range(range) {
                "a range is not in the mem cache"
            } else if range.overlaps(scratch) {
                "a range is in scratch"
            } else if others.overlaps(range) {
                "a range is a blob's too"
            } else {
                continue;
            };
            return Err(Misplaced { range, why });
        }
        Ok(())
    }
}

impl Reference {
    /// Writes the node [`KERNEL`], for [`write_handover_with`](super::write_handover_with).
    ///
    /// # Errors
    ///
    /// As [`Writer`].
    pub fn write(&self, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        writer.begin_node(KERNEL)?;
        writer.prop_str(COMPATIBLE, KERNEL_PART_V1)?;
        writer.prop_u64(SIZE, self.size)?;
        writer.prop_u64(GENERATION, self.generation)?;
        writer.prop_mem(MEM, [self.mem])?;
        writer.end_node()
    }

    /// Reads a node for which [`is_reference`] is true; `None` if the node is malformed.
    pub fn read(node: &Node<'_>) -> Option<Self> {
        let mem = one_range(node)?;
        let size = number(node, SIZE)?;
        let generation = number(node, GENERATION)?;
        (size > 0 && size <= mem.len() && generation != 0).then_some(Self {
            mem,
            size,
            generation,
        })
    }
}

/// Whether `node` refers to a kernel's part of version 1.
pub fn is_reference(node: &Node<'_>) -> bool {
    node.prop(COMPATIBLE).map(|prop| prop.value().str()) == Some(Ok(KERNEL_PART_V1))
}

fn number(node: &Node<'_>, name: &str) -> Option<u64> {
    node.prop(name)?.value().u64().ok()
}

/// The range of a `mem` that has exactly one; `None` for any other `mem`.
pub(super) fn one_range(node: &Node<'_>) -> Option<PhysRange> {
    let value: Value<'_> = node.prop(MEM)?.value();
    let mut ranges = value.mem().ok()?;
    let first = ranges.next()?.ok()?;
    ranges.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PhysAddr;
    use crate::tree::{CHECKSUM, seal};
    use std::vec;
    use std::vec::Vec;

    fn pages(first: u64, count: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(first * 4096), count * 4096).unwrap()
    }

    fn part(own: PhysRange, generation: u64, mem: &[PhysRange]) -> Vec<u8> {
        let mut buf = vec![0; 4096];
        let mut w = Writer::new(&mut buf);
        w.begin_node("").unwrap();
        w.prop_str(COMPATIBLE, KERNEL_V1).unwrap();
        w.prop_u64(GENERATION, generation).unwrap();
        w.prop_u32(CHECKSUM, 0).unwrap();
        w.prop_mem(MEM, [own]).unwrap();
        w.begin_node("ring").unwrap();
        w.prop_str(COMPATIBLE, "ring-v1").unwrap();
        w.prop_mem(MEM, mem.iter().copied()).unwrap();
        w.end_node().unwrap();
        w.end_node().unwrap();
        let len = w.finish().unwrap();
        buf.truncate(len);
        seal(&mut buf).unwrap();
        buf
    }

    #[test]
    fn a_part_is_read_and_referred_to() {
        let bytes = part(pages(16, 1), 7, &[pages(20, 2), pages(18, 1)]);
        let part = KernelPart::parse(&Reader::new(&bytes).unwrap()).unwrap();
        assert_eq!(part.reference.mem, pages(16, 1));
        assert_eq!(part.reference.generation, 7);
        assert_eq!(part.reference.size, bytes.len() as u64);
        assert_eq!(part.mem.as_slice(), &[pages(18, 1), pages(20, 2)]);
        assert_eq!(part.kept().unwrap().total(), 4 * 4096);

        let mut buf = vec![0; 1024];
        let mut w = Writer::new(&mut buf);
        w.begin_node("").unwrap();
        part.reference.write(&mut w).unwrap();
        w.end_node().unwrap();
        w.finish().unwrap();
        let tree = Reader::new(&buf).unwrap();
        let node = tree.path("/kernel").unwrap();
        assert!(is_reference(&node));
        assert_eq!(Reference::read(&node), Some(part.reference));
    }

    #[test]
    fn a_part_is_held_against_the_tree_that_refers_to_it() {
        let bytes = part(pages(16, 1), 7, &[pages(20, 2)]);
        let part = KernelPart::parse(&Reader::new(&bytes).unwrap()).unwrap();
        let set = |list: &[PhysRange]| RangeSet::from_ranges(list.iter().copied()).unwrap();
        let cache = set(&[pages(16, 16)]);
        let check = |cache: &RangeSet, scratch, others: &[PhysRange]| {
            part.check_places(cache, scratch, &set(others))
                .map_err(|misplaced| misplaced.why)
        };
        assert_eq!(check(&cache, pages(64, 8), &[pages(22, 1)]), Ok(()));
        assert_eq!(
            check(&set(&[pages(16, 5)]), pages(64, 8), &[]),
            Err("a range is not in the mem cache")
        );
        assert_eq!(
            check(&cache, pages(21, 8), &[]),
            Err("a range is in scratch")
        );
        assert_eq!(
            check(&cache, pages(64, 8), &[pages(21, 1)]),
            Err("a range is a blob's too")
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let parse = |bytes: &[u8]| KernelPart::parse(&Reader::new(bytes).unwrap()).map(|_| ());
        let twice = part(pages(16, 1), 7, &[pages(20, 2), pages(21, 1)]);
        assert_eq!(
            parse(&twice),
            Err(KernelPartError::Overlap {
                range: pages(21, 1)
            })
        );
        let itself = part(pages(16, 1), 7, &[pages(16, 1)]);
        assert_eq!(
            parse(&itself),
            Err(KernelPartError::Overlap {
                range: pages(16, 1)
            })
        );
        let inactive = part(pages(16, 1), 0, &[]);
        assert_eq!(
            parse(&inactive),
            Err(KernelPartError::Root {
                property: GENERATION
            })
        );
        let mut damaged = part(pages(16, 1), 7, &[pages(20, 1)]);
        let last = damaged.windows(7).position(|w| w == b"ring-v1").unwrap();
        damaged[last] = b'k';
        assert!(matches!(parse(&damaged), Err(KernelPartError::Checksum(_))));
    }
}
