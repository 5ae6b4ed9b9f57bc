//! A tree that was checked, as typed values.

use super::ftrace::Traces;
use super::{Label, MEM, StateError};
use crate::addr::PhysRange;
use crate::tree::{Node, Reader, Value};
use alloc::vec::Vec;

/// Everything a version 1 tree says, checked against every rule of the [module documentation](super) that
/// needs only the tree. Whether the ranges are really reserved, and inside RAM, is for the caller to ask
/// of the running kernel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Handover<'a> {
    /// The random number that binds plan, load and exec.
    pub generation: u64,
    /// Handovers since the cold boot, this one counted.
    pub hop: u64,
    /// Release of the kernel that ran when the tree was written.
    pub previous_release: &'a str,
    /// The kind of machine it ran on. Not compared with anything.
    pub machine: &'a str,
    /// When the tree was written, in ns since the Unix epoch.
    pub time: u64,
    /// The scratch region.
    pub scratch: PhysRange,
    /// The mem cache in the order of the tree: entry 0 is the state.
    pub mem_cache: Vec<PhysRange>,
    /// The blobs, in order, without those of unknown versions.
    pub blobs: Vec<Blob<'a>>,
    /// Traces of earlier kernels; none when there is no node for them.
    pub traces: Option<Traces<'a>>,
    /// Nodes below the root or below `/blobs` that this reader leaves alone.
    pub unknown: Vec<Unknown<'a>>,
    pub(super) tree: Reader<'a>,
}

/// A blob.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Blob<'a> {
    /// The node it is read from.
    pub node: Node<'a>,
    /// The name that the user sees.
    pub label: Label<'a>,
    /// What the content is.
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
    /// Where the content is: page-aligned pieces in order, of which the last may have bytes after the end.
    pub fn ranges(&self) -> impl Iterator<Item = PhysRange> + 'a {
        self.mem.mem().into_iter().flatten().filter_map(Result::ok)
    }
}

/// What the content of a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A pax archive of the file or directory at this path.
    Files {
        /// The absolute path, in the encoding of the filesystem.
        path: &'a [u8],
        /// What a load leaves out when it reads the path again.
        leave_out: LeaveOut,
    },
    /// Bytes as they came.
    Raw,
}

/// What is left out of a kept path whenever it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LeaveOut {
    /// Sockets, devices and pipes, which are refused otherwise.
    pub special: bool,
    /// File systems mounted below the path.
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
    /// What it says it is.
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

    /// Checks what a tree cannot say of itself: that it may lie at `found`, the range of the chain and
    /// the tree, or of the tree alone. That is inside entry 0 of the mem cache and apart from every `mem`
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
