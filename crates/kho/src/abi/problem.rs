//! The problems that a tree can have although its container is valid.

use super::{BLOB_PREFIX, HANDOVER_V1, LabelError, MAX_UTS, PathError};
use crate::addr::{PAGE_SIZE, PhysRange, RangeError};
use crate::ranges::OutOfMemory;
use crate::tree::{ChecksumError, ValueError};
use alloc::string::String;
use core::error::Error as _;
use core::fmt;
use thiserror::Error;

/// Why a tree is not accepted.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AbiError {
    /// The first thing that is wrong with the tree.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// Memory for the parsed tree was refused.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// A problem of a node.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the node, `/` for the root.
    pub node: String,
    /// Kind of the problem.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    /// Writes the whole problem in one line: the node, the problem, and its causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.kind)?;
        let mut cause = self.kind.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

// `source` is not implemented, because `Display` already prints the causes.
impl core::error::Error for Problem {}

/// Kind of a problem of a node. `index` counts the pairs of a property from 0.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The tree is of a version that this reader does not know. Nothing more was looked at.
    #[error("the tree is a \"{found}\", this reader knows \"{HANDOVER_V1}\" only")]
    RootVersion {
        /// `compatible` of the root, escaped, cut to 255 characters.
        found: String,
    },
    /// The tree changed after it was sealed, or its checksum cannot be read.
    #[error(transparent)]
    Checksum(ChecksumError),
    /// A required property is missing.
    #[error("there is no `{property}`")]
    Missing {
        /// The property.
        property: &'static str,
    },
    /// A property that the node may not have.
    #[error("a `{property}` does not belong here")]
    Unexpected {
        /// The property.
        property: &'static str,
    },
    /// A value of the wrong type.
    #[error("`{property}` is not of its type")]
    Value {
        /// The property.
        property: &'static str,
        /// Error of the value.
        #[source]
        cause: ValueError,
    },
    /// A string of the wrong length, or with control characters.
    #[error(
        "`{property}` has {len} bytes or control characters; 1 to {MAX_UTS} printable are wanted"
    )]
    Text {
        /// The property.
        property: &'static str,
        /// Bytes of the string.
        len: usize,
    },
    /// A pair that is not a valid range.
    #[error("`{property}`[{index}] is no range")]
    Range {
        /// The property.
        property: &'static str,
        /// Index of the pair, from 0.
        index: usize,
        /// Error of the pair.
        #[source]
        cause: RangeError,
    },
    /// A range that does not start or end at a page.
    #[error("`{property}`[{index}] {range} is not aligned to pages")]
    Unaligned {
        /// The property.
        property: &'static str,
        /// Index of the pair, from 0.
        index: usize,
        /// The range.
        range: PhysRange,
    },
    /// A property with the wrong number of pairs.
    #[error("`{property}` has {found} pairs, not {expected}")]
    Pairs {
        /// The property.
        property: &'static str,
        /// Number of pairs that the property has.
        found: usize,
        /// Number of pairs that the property has to have, in words.
        expected: &'static str,
    },
    /// The tree is for pages of another size.
    #[error("pages are of {found:#x} bytes there, of {PAGE_SIZE:#x} here")]
    PageSize {
        /// The size in the tree.
        found: u32,
    },
    /// `hop` is 0, but the first handover is hop 1.
    #[error("`hop` is 0; the first handover is 1")]
    Hop,
    /// An entry of the mem cache that starts before the one before it.
    #[error("`mem-cache`[{index}] {range} is below {before}, which comes before it")]
    CacheOrder {
        /// Index of the pair, from 0.
        index: usize,
        /// The range.
        range: PhysRange,
        /// The entry before.
        before: PhysRange,
    },
    /// Two entries of the mem cache that overlap.
    #[error("`mem-cache`[{index}] {range} overlaps {other}, which comes before it")]
    CacheOverlap {
        /// Index of the pair, from 0.
        index: usize,
        /// The range.
        range: PhysRange,
        /// The other entry.
        other: PhysRange,
    },
    /// An entry of the mem cache that reaches into scratch.
    #[error("`mem-cache`[{index}] {range} reaches into scratch {scratch}")]
    CacheScratch {
        /// Index of the pair, from 0.
        index: usize,
        /// The range.
        range: PhysRange,
        /// The scratch region.
        scratch: PhysRange,
    },
    /// A `mem` range outside the mem cache: early boot does not reserve it.
    #[error("`mem`[{index}] {range} is not inside the mem cache")]
    Unreserved {
        /// Index of the pair, from 0.
        index: usize,
        /// The range.
        range: PhysRange,
    },
    /// A `mem` range that reaches into scratch.
    #[error("`mem`[{index}] {range} reaches into scratch {scratch}")]
    InScratch {
        /// Index of the pair, from 0.
        index: usize,
        /// The range.
        range: PhysRange,
        /// The scratch region.
        scratch: PhysRange,
    },
    /// A `mem` range that shares bytes with another one.
    #[error("`mem` range {range} overlaps {other} of {other_node}")]
    Overlap {
        /// The range.
        range: PhysRange,
        /// The other range.
        other: PhysRange,
        /// Path of the node that has the other range.
        other_node: String,
    },
    /// A blob whose name does not have the number of the blob's place.
    #[error("the blob in place {place} has to be called {BLOB_PREFIX}-{place}")]
    BlobName {
        /// Place of the blob among the blobs, from 0.
        place: usize,
    },
    /// A `label` that is not a valid [`Label`](super::Label).
    #[error("`label` is no name")]
    Label(#[source] LabelError),
    /// A label that another blob has too.
    #[error("`label` \"{label}\" is that of {BLOB_PREFIX}-{other} too")]
    LabelTwice {
        /// The label.
        label: String,
        /// Place of the other blob.
        other: usize,
    },
    /// A carrier that version 1 does not have.
    #[error("`carrier` is \"{found}\", not \"initrd\"")]
    Carrier {
        /// The carrier, escaped.
        found: String,
    },
    /// A kind of blob that version 1 does not have.
    #[error("`kind` is \"{found}\", neither \"files\" nor \"raw\"")]
    Kind {
        /// The kind, escaped.
        found: String,
    },
    /// A `path` that [`check_path`](super::check_path) refuses.
    #[error("`path` is no path")]
    Path(#[source] PathError),
    /// A `mem` whose length is not `size` rounded up to pages.
    #[error("`mem` has {mem:#x} bytes, not the {size:#x} of `size` rounded up to pages")]
    Size {
        /// The size.
        size: u64,
        /// Bytes of all ranges.
        mem: u64,
    },
    /// An `arrived-hop` of 0, or above the tree's `hop`.
    #[error("`arrived-hop` is {arrived}, not within 1 and {hop}")]
    ArrivedHop {
        /// The refused value.
        arrived: u64,
        /// The tree's `hop`.
        hop: u64,
    },
    /// A trace whose `hop` is 0, or above the tree's `hop`: no such handover took place.
    #[error("`hop` is {arrived}, not within 1 and {hop}")]
    TraceHop {
        /// The refused value.
        arrived: u64,
        /// The tree's `hop`.
        hop: u64,
    },
    /// A trace whose `hop` is not above that of the trace before it.
    #[error("the trace of hop {hop} does not come after that of an earlier hop")]
    HopOrder {
        /// `hop` of the trace.
        hop: u64,
    },
    /// `keep-hops` is 0, so no trace would be carried on.
    #[error("`keep-hops` is 0; without traces there is no such node")]
    KeepHops,
    /// A numbered node whose name does not have the node's number.
    #[error("the node has to be called {prefix}-{number}")]
    NodeName {
        /// Prefix of the name, before the dash.
        prefix: &'static str,
        /// The number.
        number: u64,
    },
    /// A trace array whose `instance` cannot be the name of an instance.
    #[error(
        "`instance` of {len} bytes is no name of one: up to 255 without `/` and control characters"
    )]
    ArrayName {
        /// Length of the name, in bytes.
        len: usize,
    },
    /// A size of a ring buffer page that no kernel has, or content that is not a whole number of such pages.
    #[error(
        "`size` {size:#x} is not a number of pages of {sub_buffer:#x} bytes (`sub-buffer`: 0x1000 to 0x80000, a power of two)"
    )]
    SubBuffer {
        /// Length of a page of the ring buffer, in bytes.
        sub_buffer: u32,
        /// Length of the content, in bytes.
        size: u64,
    },
}

/// Why a tree cannot lie where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// The tree lies outside of the entry of the mem cache that covers the chain and the tree.
    #[error("the tree was found at {found}, outside of {entry}, the first entry of its mem cache")]
    Outside {
        /// Range at which the tree was found.
        found: PhysRange,
        /// The first entry of the mem cache.
        entry: PhysRange,
    },
    /// The tree lies on memory that was handed over.
    #[error("the tree was found at {found}, but {range} is handed-over memory")]
    Overlap {
        /// Range at which the tree was found.
        found: PhysRange,
        /// The `mem` range.
        range: PhysRange,
    },
}

/// Returns `text` for an error message: control characters escaped, at most 255 characters.
pub(super) fn shown(text: &str) -> Result<String, OutOfMemory> {
    let mut out = String::new();
    for character in text.chars().take(255) {
        for escaped in character.escape_debug() {
            out.try_reserve(escaped.len_utf8())
                .map_err(|_| OutOfMemory)?;
            out.push(escaped);
        }
    }
    Ok(out)
}
