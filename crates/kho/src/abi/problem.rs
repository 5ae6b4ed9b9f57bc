//! What can be wrong with a tree whose container is valid.

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

/// Something that is wrong with a node.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the node, `/` for the root.
    pub node: String,
    /// What is wrong.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    /// The whole problem in one line: where, what, and why.
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

// No source: `Display` has already said it.
impl core::error::Error for Problem {}

/// What is wrong with a node. `index` counts the pairs of a property from 0.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The tree is of a version that this reader does not know. Nothing more was looked at.
    #[error("the tree is a \"{found}\", this reader knows \"{HANDOVER_V1}\" only")]
    RootVersion {
        /// `compatible` of the root, escaped, at most 255 characters of it.
        found: String,
    },
    /// The tree is not as it was sealed.
    #[error(transparent)]
    Checksum(ChecksumError),
    /// A property that has to be there is not.
    #[error("there is no `{property}`")]
    Missing {
        /// The property.
        property: &'static str,
    },
    /// A property that may not be there.
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
        /// What is wrong with the value.
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
    /// A pair that is no range.
    #[error("`{property}`[{index}] is no range")]
    Range {
        /// The property.
        property: &'static str,
        /// Which pair.
        index: usize,
        /// What is wrong with it.
        #[source]
        cause: RangeError,
    },
    /// A range that does not start or end at a page.
    #[error("`{property}`[{index}] {range} is not aligned to pages")]
    Unaligned {
        /// The property.
        property: &'static str,
        /// Which pair.
        index: usize,
        /// The range.
        range: PhysRange,
    },
    /// A property with the wrong number of pairs.
    #[error("`{property}` has {found} pairs, not {expected}")]
    Pairs {
        /// The property.
        property: &'static str,
        /// Pairs it has.
        found: usize,
        /// What is wanted.
        expected: &'static str,
    },
    /// Pages of another size.
    #[error("pages are of {found:#x} bytes there, of {PAGE_SIZE:#x} here")]
    PageSize {
        /// The size in the tree.
        found: u32,
    },
    /// The first handover is hop 1.
    #[error("`hop` is 0; the first handover is 1")]
    Hop,
    /// An entry of the mem cache that starts before the one before it.
    #[error("`mem-cache`[{index}] {range} is below {before}, which comes before it")]
    CacheOrder {
        /// Which pair.
        index: usize,
        /// The range.
        range: PhysRange,
        /// The entry before.
        before: PhysRange,
    },
    /// Two entries of the mem cache that overlap.
    #[error("`mem-cache`[{index}] {range} overlaps {other}, which comes before it")]
    CacheOverlap {
        /// Which pair.
        index: usize,
        /// The range.
        range: PhysRange,
        /// The other entry.
        other: PhysRange,
    },
    /// An entry of the mem cache that reaches into scratch.
    #[error("`mem-cache`[{index}] {range} reaches into scratch {scratch}")]
    CacheScratch {
        /// Which pair.
        index: usize,
        /// The range.
        range: PhysRange,
        /// The scratch region.
        scratch: PhysRange,
    },
    /// A `mem` range that nobody reserves.
    #[error("`mem`[{index}] {range} is not inside the mem cache")]
    Unreserved {
        /// Which pair.
        index: usize,
        /// The range.
        range: PhysRange,
    },
    /// A `mem` range that reaches into scratch.
    #[error("`mem`[{index}] {range} reaches into scratch {scratch}")]
    InScratch {
        /// Which pair.
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
    /// A blob whose name is not its place.
    #[error("the blob in place {place} has to be called {BLOB_PREFIX}-{place}")]
    BlobName {
        /// Its place among the blobs, from 0.
        place: usize,
    },
    /// A label that is none.
    #[error("`label` is no name")]
    Label(#[source] LabelError),
    /// A label that another blob has.
    #[error("`label` \"{label}\" is that of {BLOB_PREFIX}-{other} too")]
    LabelTwice {
        /// The label.
        label: String,
        /// Place of the other blob.
        other: usize,
    },
    /// A kind of blob that version 1 does not have.
    #[error("`kind` is \"{found}\", neither \"files\" nor \"raw\"")]
    Kind {
        /// The kind, escaped.
        found: String,
    },
    /// A path that is none.
    #[error("`path` is no path")]
    Path(#[source] PathError),
    /// Memory that is not what the size needs.
    #[error("`mem` has {mem:#x} bytes, not the {size:#x} of `size` rounded up to pages")]
    Size {
        /// The size.
        size: u64,
        /// Bytes of all ranges.
        mem: u64,
    },
    /// Content from the future, or from before the first hop.
    #[error("`arrived-hop` is {arrived}, not within 1 and {hop}")]
    ArrivedHop {
        /// The value.
        arrived: u64,
        /// The tree's `hop`.
        hop: u64,
    },
    /// A trace of a handover that was not.
    #[error("`hop` is {arrived}, not within 1 and {hop}")]
    TraceHop {
        /// The value.
        arrived: u64,
        /// The tree's `hop`.
        hop: u64,
    },
    /// A trace that is not behind the one before it.
    #[error("the trace of hop {hop} does not come after that of an earlier hop")]
    HopOrder {
        /// Its hop.
        hop: u64,
    },
    /// No trace at all is to be carried.
    #[error("`keep-hops` is 0; without traces there is no such node")]
    KeepHops,
    /// A node whose name is not its number.
    #[error("the node has to be called {prefix}-{number}")]
    NodeName {
        /// What the name starts with.
        prefix: &'static str,
        /// The number.
        number: u64,
    },
    /// The name of a trace array that cannot be one.
    #[error(
        "`instance` of {len} bytes is no name of one: up to 255 without `/` and control characters"
    )]
    ArrayName {
        /// Bytes it has.
        len: usize,
    },
    /// Pages of the ring buffer that cannot be.
    #[error(
        "`size` {size:#x} is not a number of pages of {sub_buffer:#x} bytes (`sub-buffer`: 0x1000 to 0x80000, a power of two)"
    )]
    SubBuffer {
        /// Bytes of a page.
        sub_buffer: u32,
        /// Bytes of the content.
        size: u64,
    },
}

/// Why a tree cannot lie where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// Outside of the entry of the mem cache that covers the chain and the tree.
    #[error("the tree was found at {found}, outside of {entry}, the first entry of its mem cache")]
    Outside {
        /// Where it was found.
        found: PhysRange,
        /// The entry.
        entry: PhysRange,
    },
    /// Where something that was handed over is.
    #[error("the tree was found at {found}, but {range} is handed-over memory")]
    Overlap {
        /// Where it was found.
        found: PhysRange,
        /// The `mem` range.
        range: PhysRange,
    },
}

/// `text` for an error: control characters escaped, at most 255 characters.
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
