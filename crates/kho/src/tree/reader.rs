//! The validated tree.

use super::node::{Node, Nodes, Walk};
use super::validate::{Blocks, validate};
use super::words::Words;
use super::{Block, HEADER, MAGIC, MAX_SIZE, RESERVATIONS, TreeError, VERSION};

/// A state tree in borrowed bytes, validated as a whole.
///
/// # Invariants
///
/// The structure block satisfies every rule of the [module documentation](super), so walking it never
/// leaves it and always ends.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    blocks: Blocks<'a>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    /// Validates the tree at the start of `bytes`. The reader ignores the bytes after the tree, such as the rest of a
    /// page.
    ///
    /// One pass, O(n). Allocates only to compare names within a node that has more than 16 properties
    /// or whose children are not in ascending order (shorter names first, then by bytes).
    ///
    /// # Errors
    ///
    /// The first error found; [`TreeError::OutOfMemory`] if the allocation above fails.
    pub fn new(bytes: &'a [u8]) -> Result<Self, TreeError> {
        let header = bytes.first_chunk::<HEADER>().ok_or(TreeError::Truncated {
            needed: HEADER,
            available: bytes.len(),
        })?;
        let field = |index| Words(header.as_chunks().0).get(index).unwrap_or(0);
        if field(0) != MAGIC {
            return Err(TreeError::Magic { found: field(0) });
        }
        let size = field(1) as usize;
        if size > MAX_SIZE {
            return Err(TreeError::TooLarge { size });
        }
        if size < HEADER {
            return Err(TreeError::TooSmall { size });
        }
        let available = bytes.len();
        let bytes = bytes.get(..size).ok_or(TreeError::Truncated {
            needed: size,
            available,
        })?;
        let (version, last_compatible) = (field(5), field(6));
        if version < VERSION || last_compatible > VERSION {
            return Err(TreeError::Version {
                version,
                last_compatible,
            });
        }
        let [words_at, strings_at, reservations_at] = [2, 3, 4].map(|index| field(index) as usize);
        let [strings_size, words_size] = [8, 9].map(|index| field(index) as usize);

        let reservations = block(
            bytes,
            Block::Reservations,
            reservations_at,
            RESERVATIONS,
            HEADER,
            8,
        )?;
        let mut pair = reservations
            .as_chunks::<8>()
            .0
            .iter()
            .map(|half| u64::from_be_bytes(*half));
        let (addr, len) = (pair.next().unwrap_or(0), pair.next().unwrap_or(0));
        if addr != 0 || len != 0 {
            return Err(TreeError::Reservation {
                offset: reservations_at,
                addr,
                len,
            });
        }
        let words = block(
            bytes,
            Block::Structure,
            words_at,
            words_size,
            reservations_at.saturating_add(RESERVATIONS),
            4,
        )?;
        let strings = block(
            bytes,
            Block::Strings,
            strings_at,
            strings_size,
            words_at.saturating_add(words_size),
            1,
        )?;
        let blocks = Blocks {
            words: Words(words.as_chunks().0),
            strings,
            words_at,
            strings_at,
        };
        let nodes = validate(blocks)?;
        // INVARIANT: `validate` accepted the structure block above.
        Ok(Self {
            bytes,
            blocks,
            nodes,
        })
    }

    /// The bytes of the tree, exactly its total size.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of nodes, the root included; at least 1.
    pub const fn node_count(&self) -> usize {
        self.nodes
    }

    /// The root node.
    pub fn root(&self) -> Node<'a> {
        self.nodes()
            .next_node()
            .unwrap_or(Node::new(self.blocks.words, self.blocks.strings, 0, 0))
    }

    /// The node at `path`: `/`, or names, each after a slash. O(size of the tree before it); a caller with many lookups
    /// builds an [`Index`](super::Index).
    pub fn path(&self, path: &str) -> Option<Node<'a>> {
        let mut node = self.root();
        let rest = path.strip_prefix('/')?;
        if rest.is_empty() {
            return Some(node);
        }
        for name in rest.split('/') {
            node = node.child(name)?;
        }
        Some(node)
    }

    /// Every node with its depth (the root has 0), parents before children, in one pass.
    pub fn nodes(&self) -> Nodes<'a> {
        Nodes::new(self.blocks.words, self.blocks.strings)
    }

    /// Walks everything in the tree, in the order of the tree, in one pass.
    pub fn walk(&self) -> Walk<'a> {
        Walk::new(self.blocks.words, self.blocks.strings)
    }

    /// The blocks, for the parts of this module.
    pub(super) const fn blocks(&self) -> &Blocks<'a> {
        &self.blocks
    }
}

impl core::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reader")
            .field("size", &self.bytes.len())
            .field("nodes", &self.nodes)
            .finish()
    }
}

/// The bytes of a block that has to lie between `from` and the end of `tree`.
fn block(
    tree: &[u8],
    block: Block,
    offset: usize,
    size: usize,
    from: usize,
    align: usize,
) -> Result<&[u8], TreeError> {
    let bytes = offset
        .checked_add(size)
        .filter(|_| offset >= from)
        .and_then(|end| tree.get(offset..end))
        .ok_or(TreeError::Bounds {
            block,
            offset,
            size,
            from,
            to: tree.len(),
        })?;
    if offset.is_multiple_of(align) && size.is_multiple_of(align) {
        Ok(bytes)
    } else {
        Err(TreeError::Alignment {
            block,
            offset,
            size,
            align,
        })
    }
}
