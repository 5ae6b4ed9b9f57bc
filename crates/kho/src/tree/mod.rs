//! The state tree's container: a flattened tree, version 17, with values in native endianness.
//!
//! # Words
//!
//! The *state tree* describes the memory and data that one kernel hands to the next. It does not describe hardware and
//! is never called a device tree. It borrows the container format of the devicetree specification (v0.4, chapter 5), so
//! that `dtc` and `fdtdump` can open it. A *node* has a name, properties and child nodes; their order is kept. A
//! *property* has a name and a value, which is a string of bytes. [`crate::abi`] defines the meaning of names and
//! values. This module knows only the shape of [`mem`](Value::mem) arrays and the root's [`checksum`](CHECKSUM).
//!
//! # Byte layout
//!
//! Words of the *container* are big-endian, as the specification wants. *Values* are native endian:
//! a state tree never leaves the machine.
//!
//! | block | at | content |
//! | --- | --- | --- |
//! | header | 0 | ten words: magic `0xd00dfeed`, total size, offsets of structure, strings and reservation block, version 17, last compatible version (at most 17), boot CPU (0), sizes of strings and structure block |
//! | memory reservations | multiple of 8 | empty: one terminating pair of zero u64. The reader refuses an entry ([`TreeError::Reservation`]), because only `mem` properties name ranges |
//! | structure | multiple of 4 | tokens, each at a multiple of 4, see below |
//! | strings | anywhere | property names, each ended by a NUL |
//!
//! The blocks come in this order and do not overlap. The structure block is exactly one root node
//! followed by `FDT_END` (9), which is its last word:
//!
//! - node: `FDT_BEGIN_NODE` (1), name ended by a NUL and padded to 4 bytes, properties, child nodes,
//!   `FDT_END_NODE` (2). The root's name is empty, every other is not;
//! - property: `FDT_PROP` (3), length of the value in bytes, offset of the name in the strings block, the
//!   value padded to 4 bytes. So values are aligned to 4 bytes, not to 8;
//! - `FDT_NOP` (4) may stand between tokens and has no meaning.
//!
//! Readers ignore the content of padding, of unused strings and of bytes between or after the blocks.
//!
//! # Limits
//!
//! | what | limit | why |
//! | --- | --- | --- |
//! | total size | [`MAX_SIZE`], 64 MiB | two million ranges; a corrupt length must not become a long walk |
//! | nesting | [`MAX_DEPTH`], 32 nodes with the root | walks use fixed stacks |
//! | names | [`MAX_NAME`], 63 bytes | enough for any name, and an error can carry one without allocating |
//! | characters, read | letters, digits, `,._+*#?-`, in node names also `@` | what `dtc` accepts |
//! | characters, written | letters, digits, `,._+-` | the others mean things in hardware descriptions |
//! | names written | not those of [`RESERVED_PROPERTIES`] | `dtc` checks their values against hardware meanings |
//!
//! Two properties, or two children, of one node never have the same name.
//!
//! # Reading and writing
//!
//! [`Reader::new`] checks everything above in one pass; later calls cannot fail or panic. Lookups by [`Reader::path`]
//! and [`Node::child`] walk the siblings; a caller with many lookups builds an [`Index`]. [`Writer`] fills a buffer in
//! one pass and never allocates; its measuring mode returns the required size of the buffer. [`seal`] and [`verify`]
//! store and check the checksum over the whole tree.
//!
//! ```
//! use kho::tree::{Reader, Writer};
//!
//! fn fill(w: &mut Writer<'_>) -> Result<(), kho::tree::WriteError> {
//!     w.begin_node("")?;
//!     w.prop_str("compatible", "example-v1")?;
//!     w.begin_node("counter")?;
//!     w.prop_u64("value", 42)?;
//!     w.end_node()?;
//!     w.end_node()
//! }
//!
//! let mut measure = Writer::measuring();
//! fill(&mut measure)?;
//! let mut buf = vec![0u8; measure.finish()?];
//! let mut writer = Writer::new(&mut buf);
//! fill(&mut writer)?;
//! assert_eq!(writer.finish()?, buf.len());
//!
//! let tree = Reader::new(&buf)?;
//! let counter = tree.path("/counter").and_then(|node| node.prop("value"));
//! assert_eq!(counter.map(|prop| prop.value().u64()), Some(Ok(42)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checksum;
mod error;
mod index;
mod name;
mod node;
mod reader;
mod strings;
mod validate;
mod value;
mod words;
mod writer;

pub(crate) use checksum::sum;
pub use checksum::{CHECKSUM, ChecksumError, seal, verify};
pub use error::{Block, TreeError};
pub use index::Index;
pub use name::{Name, RESERVED_PROPERTIES};
pub use node::{Children, Event, Node, Nodes, Prop, Props, Walk};
pub use reader::Reader;
pub use value::{Mem, U64s, Value, ValueError};
pub use writer::{WriteError, Writer};

/// Largest tree, in bytes, that is read or written: 64 MiB.
pub const MAX_SIZE: usize = 64 << 20;

/// Deepest nesting of nodes, the root counted as one.
pub const MAX_DEPTH: usize = 32;

/// Longest name of a node or property, in bytes without the NUL.
pub const MAX_NAME: usize = 63;

/// Bytes of the header.
const HEADER: usize = 40;

/// First header word ("dood feed").
const MAGIC: u32 = 0xd00d_feed;

/// The container version that is written, and as which a tree has to be readable.
const VERSION: u32 = 17;

/// The oldest version a reader of [`VERSION`] 17 trees has to know (specification v0.4, 5.2).
const LAST_COMPATIBLE: u32 = 16;

/// Bytes of an empty memory reservation block: the terminating pair.
const RESERVATIONS: usize = 16;
