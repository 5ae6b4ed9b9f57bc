//! Writing a tree in one pass.

use super::name::Name;
use super::strings::{Found, Strings, store, writable};
use super::words::{BEGIN_NODE, END, END_NODE, PROP, words_for};
use super::{
    HEADER, LAST_COMPATIBLE, MAGIC, MAX_DEPTH, MAX_NAME, MAX_SIZE, RESERVATIONS,
    RESERVED_PROPERTIES, VERSION,
};
use crate::addr::PhysRange;
use thiserror::Error;

/// Offset of the structure block in the tree, in bytes.
const STRUCTURE: usize = HEADER + RESERVATIONS;

/// Why a tree could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The buffer ends before the tree.
    #[error("buffer of {available:#x} bytes is too small for a state tree of {needed:#x}")]
    BufferTooSmall {
        /// Bytes that the whole tree takes.
        needed: usize,
        /// Bytes of the buffer.
        available: usize,
    },
    /// The tree would be larger than any reader accepts.
    #[error("state tree would be larger than the limit of {MAX_SIZE:#x} bytes")]
    TooLarge,
    /// A node nested deeper than any reader accepts.
    #[error("node \"{name}\" would be nested deeper than {MAX_DEPTH} nodes")]
    TooDeep {
        /// The node.
        name: Name,
    },
    /// A name that is empty or beyond the limit.
    #[error("name \"{name}\" has {len} bytes, not 1 to {MAX_NAME}")]
    NameLength {
        /// The name, cut off at the limit.
        name: Name,
        /// Bytes of the whole name.
        len: usize,
    },
    /// A name with a byte that is not written.
    #[error("name \"{name}\" has the byte {byte:#04x}, not a letter, a digit or one of ,._+-")]
    NameCharacter {
        /// The name.
        name: Name,
        /// The byte.
        byte: u8,
    },
    /// A name that has another meaning in hardware descriptions.
    #[error("property name \"{name}\" is reserved for descriptions of hardware")]
    NameReserved {
        /// The name.
        name: Name,
    },
    /// The first node has a name.
    #[error("the root is called \"{name}\"; the root has no name")]
    RootName {
        /// The name.
        name: Name,
    },
    /// A second node beside the root.
    #[error("node \"{name}\" begins after the root has ended")]
    SecondRoot {
        /// The node.
        name: Name,
    },
    /// A second property of one name in a node.
    #[error("property \"{name}\" is written twice in one node")]
    Duplicate {
        /// The property.
        name: Name,
    },
    /// A property before the root, or after a child.
    #[error("property \"{name}\" is not between the beginning of a node and its first child")]
    Misplaced {
        /// The property.
        name: Name,
    },
    /// A string with a NUL in it.
    #[error("string of property \"{name}\" has a NUL at byte {at:#x}")]
    StringNul {
        /// The property.
        name: Name,
        /// Offset of the NUL from the start of the string, in bytes.
        at: usize,
    },
    /// An `end_node` without an open node.
    #[error("end of a node, but none is open")]
    Unbalanced,
    /// The end of the tree while nodes are open, or before there is a root.
    #[error("the tree ends with {open} open nodes, after {nodes} nodes in all")]
    Unfinished {
        /// Nodes that are not ended.
        open: usize,
        /// Nodes begun.
        nodes: usize,
    },
}

/// Writes a tree into a buffer, or counts the bytes that the tree would take. Never allocates.
///
/// Calls follow the order of the tree: [`begin_node`](Self::begin_node) with the empty name for the root,
/// its properties, its children in the same way, [`end_node`](Self::end_node), [`finish`](Self::finish).
/// After a first error every later call fails with that error. A buffer that is too small is the exception: the writer
/// goes on counting, so that [`finish`](Self::finish) can report the required size.
///
/// The writer refuses a property that a node already has, as long as the tree has no more than a few dozen names of
/// properties. It does not notice equal names of children. A [`Reader`](super::Reader) notices both, and
/// [`seal`](super::seal) uses a reader.
///
/// Counting and writing take the same decisions, with one exception: counting knows names only by a 64-bit hash. Two
/// names with the same hash would make the count too small, and writing then fails with the right size.
pub struct Writer<'b> {
    buf: &'b mut [u8],
    /// End of the structure block so far.
    at: usize,
    strings: Strings,
    /// Nodes that are open.
    depth: usize,
    nodes: usize,
    /// Whether the next call may write a property.
    in_props: bool,
    /// Whether the writer only counts: there is no buffer, or it was too small.
    counting: bool,
    measuring: bool,
    error: Option<WriteError>,
}

impl<'b> Writer<'b> {
    /// Creates a writer into `buf`, which has to be large enough when the tree is finished. After an error the content
    /// of `buf` is not a tree.
    pub fn new(buf: &'b mut [u8]) -> Self {
        Self {
            counting: buf.len() < STRUCTURE,
            buf,
            at: STRUCTURE,
            strings: Strings::new(),
            depth: 0,
            nodes: 0,
            in_props: false,
            measuring: false,
            error: None,
        }
    }

    /// A writer that only counts: [`finish`](Self::finish) gives the size of the tree.
    pub fn measuring() -> Writer<'static> {
        let mut writer = Writer::new(&mut []);
        writer.measuring = true;
        writer
    }

    /// Begins a node below the open node. The first node is the root and has the empty name.
    ///
    /// # Errors
    ///
    /// [`WriteError::RootName`], [`WriteError::SecondRoot`], [`WriteError::TooDeep`], one about the name,
    /// [`WriteError::TooLarge`], or an earlier error.
    pub fn begin_node(&mut self, name: &str) -> Result<(), WriteError> {
        self.good()?;
        let name = name.as_bytes();
        if self.depth == 0 {
            if self.nodes != 0 {
                return self.fail(WriteError::SecondRoot {
                    name: Name::new(name),
                });
            }
            if !name.is_empty() {
                return self.fail(WriteError::RootName {
                    name: Name::new(name),
                });
            }
        } else if let Err(error) = check_name(name) {
            return self.fail(error);
        }
        if self.depth >= MAX_DEPTH {
            return self.fail(WriteError::TooDeep {
                name: Name::new(name),
            });
        }
        let name_words = words_for(name.len().saturating_add(1));
        if let Some(out) = self.take(name_words.saturating_add(1).saturating_mul(4))? {
            let (token, text) = out.split_at_mut(4.min(out.len()));
            token.copy_from_slice(&BEGIN_NODE.to_be_bytes());
            copy_padded(text, name);
        }
        self.depth = self.depth.saturating_add(1);
        self.nodes = self.nodes.saturating_add(1);
        self.in_props = true;
        self.strings.next_node();
        Ok(())
    }

    /// Ends the node that is open.
    ///
    /// # Errors
    ///
    /// [`WriteError::Unbalanced`], [`WriteError::TooLarge`], or an earlier error.
    pub fn end_node(&mut self) -> Result<(), WriteError> {
        self.good()?;
        let Some(depth) = self.depth.checked_sub(1) else {
            return self.fail(WriteError::Unbalanced);
        };
        if let Some(out) = self.take(4)? {
            out.copy_from_slice(&END_NODE.to_be_bytes());
        }
        self.depth = depth;
        self.in_props = false;
        Ok(())
    }

    /// Writes a property whose bytes are `value`.
    ///
    /// # Errors
    ///
    /// [`WriteError::Misplaced`], [`WriteError::Duplicate`], one about the name, [`WriteError::TooLarge`],
    /// or an earlier error.
    #[inline]
    pub fn prop_bytes(&mut self, name: &str, value: &[u8]) -> Result<(), WriteError> {
        if let Some(out) = self.prop(name, value.len())? {
            copy_padded(out, value);
        }
        Ok(())
    }

    /// Writes a property without bytes: its presence is the value.
    ///
    /// # Errors
    ///
    /// As [`prop_bytes`](Self::prop_bytes).
    pub fn prop_empty(&mut self, name: &str) -> Result<(), WriteError> {
        self.prop_bytes(name, &[])
    }

    /// Writes a property whose value is a 32-bit integer.
    ///
    /// # Errors
    ///
    /// As [`prop_bytes`](Self::prop_bytes).
    #[inline]
    pub fn prop_u32(&mut self, name: &str, value: u32) -> Result<(), WriteError> {
        if let Some(out) = self.prop(name, 4)? {
            out.copy_from_slice(&value.to_ne_bytes());
        }
        Ok(())
    }

    /// Writes a property whose value is a 64-bit integer.
    ///
    /// # Errors
    ///
    /// As [`prop_bytes`](Self::prop_bytes).
    #[inline]
    pub fn prop_u64(&mut self, name: &str, value: u64) -> Result<(), WriteError> {
        if let Some(out) = self.prop(name, 8)? {
            out.copy_from_slice(&value.to_ne_bytes());
        }
        Ok(())
    }

    /// Writes a property whose value is a string, and adds the NUL at its end.
    ///
    /// # Errors
    ///
    /// [`WriteError::StringNul`], and as [`prop_bytes`](Self::prop_bytes).
    pub fn prop_str(&mut self, name: &str, value: &str) -> Result<(), WriteError> {
        self.good()?;
        let value = value.as_bytes();
        if let Some(at) = value.iter().position(|byte| *byte == 0) {
            return self.fail(WriteError::StringNul {
                name: Name::new(name.as_bytes()),
                at,
            });
        }
        if let Some(out) = self.prop(name, value.len().saturating_add(1))? {
            copy_padded(out, value);
        }
        Ok(())
    }

    /// Writes a property whose value is an array of `{u64 addr; u64 len}` in the order given, such as a `mem` property.
    ///
    /// # Errors
    ///
    /// As [`prop_bytes`](Self::prop_bytes).
    pub fn prop_mem<I>(&mut self, name: &str, ranges: I) -> Result<(), WriteError>
    where
        I: IntoIterator<Item = PhysRange>,
    {
        self.prop(name, 0)?;
        let start = self.at;
        for range in ranges {
            if let Some(out) = self.take(16)? {
                let pair = [range.start().get(), range.len()];
                for (slot, half) in out.as_chunks_mut::<8>().0.iter_mut().zip(pair) {
                    *slot = half.to_ne_bytes();
                }
            }
        }
        // The length is known only after the last range.
        let len = u32::try_from(self.at.saturating_sub(start)).unwrap_or(u32::MAX);
        if !self.counting
            && let Some(slot) = self
                .buf
                .get_mut(start.saturating_sub(8)..start.saturating_sub(4))
        {
            slot.copy_from_slice(&len.to_be_bytes());
        }
        Ok(())
    }

    /// Completes the tree and returns its size in bytes: the used part of the buffer.
    ///
    /// # Errors
    ///
    /// [`WriteError::Unfinished`], [`WriteError::BufferTooSmall`] with the size that would do, or an
    /// earlier error.
    pub fn finish(mut self) -> Result<usize, WriteError> {
        self.good()?;
        if self.depth != 0 || self.nodes == 0 {
            return Err(WriteError::Unfinished {
                open: self.depth,
                nodes: self.nodes,
            });
        }
        if let Some(out) = self.take(4)? {
            out.copy_from_slice(&END.to_be_bytes());
        }
        let total = self.at.saturating_add(self.strings.len());
        if self.measuring {
            return Ok(total);
        }
        if self.counting {
            return Err(WriteError::BufferTooSmall {
                needed: total,
                available: self.buf.len(),
            });
        }
        // Reverse the strings block and move it to the end of the structure block.
        let from = self.buf.len().saturating_sub(self.strings.len());
        if let Some(strings) = self.buf.get_mut(from..) {
            strings.reverse();
        }
        self.buf.copy_within(from.., self.at);
        let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let header = [
            MAGIC,
            word(total),
            word(STRUCTURE),
            word(self.at),
            word(HEADER),
            VERSION,
            LAST_COMPATIBLE,
            0,
            word(self.strings.len()),
            word(self.at.saturating_sub(STRUCTURE)),
            0,
            0,
            0,
            0,
        ];
        for (slot, value) in self.buf.as_chunks_mut::<4>().0.iter_mut().zip(header) {
            *slot = value.to_be_bytes();
        }
        Ok(total)
    }

    /// The first error; every later call fails with it.
    #[inline(always)]
    fn good(&self) -> Result<(), WriteError> {
        match self.error {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Remembers the first error.
    #[cold]
    fn fail<T>(&mut self, error: WriteError) -> Result<T, WriteError> {
        self.error = Some(error);
        Err(error)
    }

    /// Takes the next `len` bytes of the structure block; `None` when only counting.
    #[inline(always)]
    fn take(&mut self, len: usize) -> Result<Option<&mut [u8]>, WriteError> {
        let start = self.at;
        let end = start.saturating_add(len);
        let total = end.saturating_add(self.strings.len());
        if total > MAX_SIZE {
            return self.fail(WriteError::TooLarge);
        }
        self.at = end;
        if total > self.buf.len() {
            self.counting = true;
        }
        if self.counting {
            return Ok(None);
        }
        Ok(self.buf.get_mut(start..end))
    }

    /// Writes the head of a property and gives the place of its value, padded; `None` when only counting.
    #[inline(always)]
    fn prop(&mut self, name: &str, len: usize) -> Result<Option<&mut [u8]>, WriteError> {
        self.good()?;
        if !self.in_props {
            return self.fail(WriteError::Misplaced {
                name: Name::new(name.as_bytes()),
            });
        }
        let buf = if self.counting {
            None
        } else {
            Some(&*self.buf)
        };
        let offset = match self.strings.find(name.as_bytes(), buf) {
            Found::Old(offset) => offset,
            other => self.new_name(name.as_bytes(), other)?,
        };
        // A length that does not fit in a word is also above the limit that `take` checks.
        let value_words = words_for(len);
        let size = value_words.saturating_add(3).saturating_mul(4);
        let Some(out) = self.take(size)? else {
            return Ok(None);
        };
        let Some((head, value)) = out.split_first_chunk_mut::<12>() else {
            return Ok(None);
        };
        let words = [PROP, u32::try_from(len).unwrap_or(u32::MAX), offset];
        for (slot, word) in head.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *slot = word.to_be_bytes();
        }
        Ok(Some(value))
    }

    /// Stores a name that was not known, or refuses it.
    #[cold]
    fn new_name(&mut self, name: &[u8], found: Found) -> Result<u32, WriteError> {
        if let Err(error) = check_name(name) {
            return self.fail(error);
        }
        if RESERVED_PROPERTIES.iter().any(|r| r.as_bytes() == name) {
            return self.fail(WriteError::NameReserved {
                name: Name::new(name),
            });
        }
        match found {
            Found::Old(offset) => Ok(offset),
            Found::Twice => self.fail(WriteError::Duplicate {
                name: Name::new(name),
            }),
            Found::Full => self.fail(WriteError::TooLarge),
            Found::New(offset) => {
                // The strings block has grown, so check that it still fits.
                self.take(0)?;
                if !self.counting {
                    store(self.buf, offset as usize, name);
                }
                Ok(offset)
            }
        }
    }
}

/// Whether `name` may be written.
fn check_name(name: &[u8]) -> Result<(), WriteError> {
    writable(name).map_err(|byte| {
        let short = Name::new(name);
        match byte {
            Some(byte) => WriteError::NameCharacter { name: short, byte },
            None => WriteError::NameLength {
                name: short,
                len: name.len(),
            },
        }
    })
}

/// Copies `from` to the start of `to` and clears the rest.
#[inline(always)]
fn copy_padded(to: &mut [u8], from: &[u8]) {
    if let Some((start, padding)) = to.split_at_mut_checked(from.len()) {
        start.copy_from_slice(from);
        padding.fill(0);
    }
}
