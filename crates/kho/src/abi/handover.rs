//! A checked tree, as typed values.

use super::ftrace::Traces;
use super::{Label, MEM, StateError};
use crate::addr::PhysRange;
use crate::tree::{Node, Reader, Value};
use alloc::vec::Vec;

/// Content of a version 1 tree, checked against every rule of the [module documentation](super) that needs only the
/// tree. The caller has to check against the running kernel that the ranges are really reserved, and inside RAM.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Handover<'a> {
    /// The random number that binds plan, load and exec.
    pub generation: u64,
    /// Handovers since the cold boot, this one counted.
    pub hop: u64,
    /// Release of the kernel that ran when the tree was written.
    pub previous_release: &'a str,
    /// Kind of the machine that the kernel of `previous_release` ran on. The value is not compared with anything.
    pub machine: &'a str,
    /// When the tree was written, in ns since the Unix epoch.
    pub time: u64,
    /// Carrier of the content.
    pub carrier: Carrier,
    /// The scratch region.
    pub scratch: PhysRange,
    /// The mem cache in the order of the tree: entry 0 is the state.
    pub mem_cache: Vec<PhysRange>,
    /// The blobs, in order, without those of unknown versions.
    pub blobs: Vec<Blob<'a>>,
    /// Traces of earlier kernels; `None` if the tree has no node for them.
    pub traces: Option<Traces<'a>>,
    /// Nodes below the root or below `/blobs` that this reader leaves alone.
    pub unknown: Vec<Unknown<'a>>,
    pub(super) tree: Reader<'a>,
}

/// A blob.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Blob<'a> {
    /// The node from which the blob was read.
    pub node: Node<'a>,
    /// The name that the user sees.
    pub label: Label<'a>,
    /// Kind of the content.
    pub content: Content<'a>,
    /// Bytes of content.
    pub size: u64,
    /// BLAKE3 of the content.
    pub blake3: [u8; 32],
    /// When the content was read, in ns since the Unix epoch.
    pub taken: u64,
    /// `hop` of the first tree that carried the content.
    pub arrived_hop: u64,
    pub(super) mem: Value<'a>,
}

impl<'a> Blob<'a> {
    /// Memory that holds the content: page-aligned pieces in order. The last piece may have bytes after the end of the
    /// content.
    pub fn ranges(&self) -> impl Iterator<Item = PhysRange> + 'a {
        self.mem.mem().into_iter().flatten().filter_map(Result::ok)
    }
}

/// Carrier of the content of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Carrier {
    /// Memory that the next kernel left alone. Ranges are physical.
    #[default]
    Memory,
    /// Files of the initrd. Ranges are places in these files.
    Initrd,
}

/// Kind of the content of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A pax archive of the file or directory at this path.
    Files {
        /// The absolute path, in the encoding of the filesystem.
        path: &'a [u8],
        /// Files that a load leaves out when it reads the path again.
        leave_out: LeaveOut,
    },
    /// Bytes as they came.
    Raw,
}

/// Files that are left out of a kept path whenever it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LeaveOut {
    /// Whether sockets, devices and pipes are left out; otherwise they are refused.
    pub special: bool,
    /// Whether file systems mounted below the path are left out.
    pub other_file_systems: bool,
}

/// A node of an unknown version.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Unknown<'a> {
    /// The node.
    pub node: Node<'a>,
    /// Whether the node is below `/blobs`, not below the root.
    pub in_blobs: bool,
    /// Value of the node's `compatible`.
    pub compatible: &'a str,
}

impl<'a> Handover<'a> {
    /// The blob with this label.
    pub fn blob(&self, label: &str) -> Option<&Blob<'a>> {
        self.blobs.iter().find(|blob| blob.label.as_str() == label)
    }

    /// Every range of every `mem` property, with its node, in the order of the tree.
    pub fn mem(&self) -> impl Iterator<Item = (Node<'a>, PhysRange)> + 'a {
        self.tree.nodes().flat_map(|(_, node)| {
            let value = node.prop(MEM).map(|prop| prop.value());
            value
                .and_then(|value| value.mem().ok())
                .into_iter()
                .flatten()
                .filter_map(move |range| Some((node, range.ok()?)))
        })
    }

    /// Checks that the tree may lie at `found`, the range of the chain and the tree, or of the tree alone. The tree
    /// does not know its own address. `found` has to be inside entry 0 of the mem cache and must not overlap any `mem`
    /// range.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn check_state(&self, found: PhysRange) -> Result<(), StateError> {
        match self.mem_cache.first() {
            Some(entry) if !entry.contains_range(found) => {
                return Err(StateError::Outside {
                    found,
                    entry: *entry,
                });
            }
            _ => {}
        }
        match self.mem().find(|(_, range)| range.overlaps(found)) {
            Some((_, range)) => Err(StateError::Overlap { found, range }),
            None => Ok(()),
        }
    }
}
