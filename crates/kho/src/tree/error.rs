//! Errors of bytes that should be a state tree.

use super::{HEADER, MAX_DEPTH, MAX_NAME, MAX_SIZE, Name};
use crate::ranges::OutOfMemory;
use core::fmt;
use thiserror::Error;

/// A block of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// The memory reservation block.
    Reservations,
    /// The structure block: nodes and properties.
    Structure,
    /// The strings block: names of properties.
    Strings,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reservations => "memory reservation block",
            Self::Structure => "structure block",
            Self::Strings => "strings block",
        })
    }
}

/// Why bytes are not a state tree. Every `offset` counts bytes from the start of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The bytes are fewer than a header has, or than the header states.
    #[error("state tree is cut short: {available:#x} bytes of {needed:#x}")]
    Truncated {
        /// Bytes the tree has, or the size of a header.
        needed: usize,
        /// Bytes given.
        available: usize,
    },
    /// The first word is not the magic number.
    #[error("not a state tree: first word is {found:#010x}, not 0xd00dfeed")]
    Magic {
        /// The first word.
        found: u32,
    },
    /// The total size is beyond the limit.
    #[error("state tree claims {size:#x} bytes, more than the limit of {MAX_SIZE:#x}")]
    TooLarge {
        /// The size in the header.
        size: usize,
    },
    /// The total size is smaller than a header.
    #[error(
        "state tree claims a total size of {size:#x} bytes, less than its header of {HEADER:#x}"
    )]
    TooSmall {
        /// The size in the header.
        size: usize,
    },
    /// A container version that this reader does not know.
    #[error(
        "container version {version} (compatible down to {last_compatible}) cannot be read as version 17"
    )]
    Version {
        /// The version in the header.
        version: u32,
        /// The oldest version that the header states as compatible.
        last_compatible: u32,
    },
    /// A block is not inside the tree, or not after the block before it.
    #[error(
        "{block} at {offset:#x} with {size:#x} bytes is not within the {from:#x} to {to:#x} left for it"
    )]
    Bounds {
        /// The block.
        block: Block,
        /// Start of the block, according to the header.
        offset: usize,
        /// Its size in bytes (of a reservation block: the least it can have).
        size: usize,
        /// End of the block before.
        from: usize,
        /// End of the tree.
        to: usize,
    },
    /// The offset or the size of a block is not a multiple of the alignment that the block needs.
    #[error("{block} at {offset:#x} with {size:#x} bytes is not aligned to {align}")]
    Alignment {
        /// The block.
        block: Block,
        /// Start of the block, according to the header.
        offset: usize,
        /// Its size in bytes.
        size: usize,
        /// The alignment it needs, in bytes.
        align: usize,
    },
    /// The memory reservation block is not empty.
    #[error(
        "memory reservation of {len:#x} bytes at {addr:#x} (entry at {offset:#x}): ranges belong into `mem` properties"
    )]
    Reservation {
        /// Offset of the entry.
        offset: usize,
        /// The address it names.
        addr: u64,
        /// The length it names.
        len: u64,
    },
    /// A word that is not a known token.
    #[error("unknown token {found:#010x} at {offset:#x}")]
    Token {
        /// Offset of the word.
        offset: usize,
        /// The word.
        found: u32,
    },
    /// The structure block ends before `FDT_END`.
    #[error("structure block ends at {offset:#x} before FDT_END")]
    Unfinished {
        /// Offset at which the missing word would be.
        offset: usize,
    },
    /// `FDT_END` while nodes are open.
    #[error("FDT_END at {offset:#x} inside {open} open nodes")]
    Unclosed {
        /// Offset of `FDT_END`.
        offset: usize,
        /// Number of nodes that are not ended.
        open: usize,
    },
    /// `FDT_END_NODE` without a node, or `FDT_END` without a root.
    #[error("token {found:#x} at {offset:#x} outside of any node")]
    Outside {
        /// Offset of the token.
        offset: usize,
        /// The token.
        found: u32,
    },
    /// A second node beside the root.
    #[error("second root node at {offset:#x}")]
    SecondRoot {
        /// Offset of the second root node.
        offset: usize,
    },
    /// Bytes of the structure block after `FDT_END`.
    #[error("{len:#x} bytes follow FDT_END at {offset:#x} in the structure block")]
    Trailing {
        /// Offset of the first of these bytes.
        offset: usize,
        /// Number of these bytes.
        len: usize,
    },
    /// Nodes nested deeper than the limit.
    #[error("node at {offset:#x} is nested deeper than {MAX_DEPTH} nodes")]
    TooDeep {
        /// Offset of the node.
        offset: usize,
    },
    /// A property after a child node of the same node.
    #[error("property at {offset:#x} follows a child node; properties come first")]
    LateProperty {
        /// Offset of the property.
        offset: usize,
    },
    /// A value that would leave the structure block.
    #[error("property at {offset:#x} claims {len:#x} bytes, {left:#x} are left")]
    PropertyLength {
        /// Offset of the property.
        offset: usize,
        /// The length it claims.
        len: usize,
        /// Bytes from the start of the value to the end of the block.
        left: usize,
    },
    /// A property name that would be outside of the strings block.
    #[error(
        "property at {offset:#x} has its name at {found:#x} of a strings block of {size:#x} bytes"
    )]
    StringOffset {
        /// Offset of the property.
        offset: usize,
        /// The offset of the name that it gives.
        found: usize,
        /// The size of the strings block.
        size: usize,
    },
    /// A name that no NUL ends within its block.
    #[error("name at {offset:#x} is not terminated")]
    NameUnterminated {
        /// Offset of the name.
        offset: usize,
    },
    /// A name beyond the limit.
    #[error("name at {offset:#x} is longer than {MAX_NAME} bytes")]
    NameTooLong {
        /// Offset of the name.
        offset: usize,
    },
    /// A byte that no name may have.
    #[error("byte {byte:#04x} at {offset:#x} is not allowed in a name")]
    NameCharacter {
        /// Offset of the byte.
        offset: usize,
        /// The byte.
        byte: u8,
    },
    /// A node other than the root, or a property, without a name.
    #[error("name at {offset:#x} is empty")]
    NameEmpty {
        /// Offset at which the name would start.
        offset: usize,
    },
    /// The root has a name.
    #[error("the root node at {offset:#x} is called \"{name}\"; the root has no name")]
    RootName {
        /// Offset of the root.
        offset: usize,
        /// Name of the root.
        name: Name,
    },
    /// Two properties of a node have one name.
    #[error("node at {offset:#x} has two properties called \"{name}\"")]
    DuplicateProperty {
        /// Offset of the node.
        offset: usize,
        /// The name.
        name: Name,
    },
    /// Two children of a node have one name.
    #[error("node at {offset:#x} has two children called \"{name}\"")]
    DuplicateChild {
        /// Offset of the node.
        offset: usize,
        /// The name.
        name: Name,
    },
    /// Memory to compare many names, or to build an index, was refused.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}
