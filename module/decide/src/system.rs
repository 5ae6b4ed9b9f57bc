//! The kernel in the form that the decisions of this crate use: queries and actions.
//!
//! kho.ko implements these traits in its boundary, whose types enforce the rules of soundness: allocated memory is a
//! [`Block`], and unclaimed memory that arrived is in [`Reserved`]. A test implements the traits on a simulated
//! machine.

use crate::chain::Chain;
use crate::errno::Errno;
use crate::iomem::Map;
use crate::text::Level;
use alloc::vec::Vec;
use core::fmt;
use kho::tree::{Index, Reader, TreeError};
use kho::{PhysAddr, PhysRange, RangeSet};

/// The machine.
pub trait System: Sized {
    /// Pages that were allocated.
    type Block: Block;
    /// Memory that arrived.
    type Reserved: Reserved<Boot = Self::Boot>;
    /// The chain that this boot honoured.
    type Boot: Boot;
    /// Pages of a tree that arrived, which stay reserved for as long as this kernel runs.
    type Stays;
    /// Record of the nodes of a kernel's part that drivers took over, for a later instance of the module.
    type Record: Record;
    /// A state tree together with its bytes.
    type Tree: Tree;

    /// Writes one line into the kernel's log.
    fn log(level: Level, message: fmt::Arguments<'_>);

    /// The text of `/proc/iomem`.
    ///
    /// # Errors
    ///
    /// The error of reading the file; no memory.
    fn iomem() -> Result<Vec<u8>, Errno>;

    /// The first page of `range` whose memory failed, if any.
    fn first_failed(range: PhysRange) -> Option<PhysRange>;

    /// Whether each page of `range` has a page frame and none is PageReserved.
    fn none_reserved(range: PhysRange) -> bool;

    /// The pages of `range` that are PageReserved or have no page frame.
    ///
    /// # Errors
    ///
    /// No memory.
    fn reserved_pages(range: PhysRange) -> Result<RangeSet, Errno>;

    /// The bytes of `range`. All its pages must be RAM that early boot reserved, and their memory must not have failed.
    ///
    /// # Errors
    ///
    /// `ENXIO` if a page is not such RAM or its memory failed; no memory.
    fn copy_reserved(map: &Map, range: PhysRange) -> Result<Vec<u8>, Errno>;

    /// The pages of the tree at `range`; `None` if they are not reserved.
    fn stays(range: PhysRange) -> Option<Self::Stays>;

    /// The record that an earlier instance of the module made for a kernel's part with `nodes` nodes; `None` if it made
    /// none.
    fn find_record(part: &Self::Stays, nodes: usize) -> Option<Self::Record>;

    /// Makes an empty record for a kernel's part that has none. `block` allocates the given number of zeroed pages.
    ///
    /// # Errors
    ///
    /// The error of `block`.
    fn make_record(
        part: &Self::Stays,
        nodes: usize,
        block: impl FnOnce(u64) -> Result<Self::Block, Errno>,
    ) -> Result<Self::Record, Errno>;
}

/// `log!(S, Level::Info, "...", ...)` for a [`System`] `S`.
macro_rules! log {
    ($system:ty, $level:expr, $($arg:tt)*) => {
        <$system as $crate::system::System>::log($level, format_args!($($arg)*))
    };
}
pub(crate) use log;

/// Allocated contiguous pages, each with one reference of its own. Dropping the block frees them, except pages whose
/// memory failed.
pub trait Block: Sized {
    /// Allocates 2^`order` pages from the page allocator, at any address.
    fn any(order: u32) -> Option<Self>;

    /// Allocates exactly the pages of `range`, zeroed, if the kernel can move their content elsewhere.
    ///
    /// # Errors
    ///
    /// The error of the kernel, usually `EBUSY`; `EINVAL` if the range is not RAM.
    fn at(map: &Map, range: PhysRange) -> Result<Self, Errno>;

    /// Physical range of the block.
    fn range(&self) -> PhysRange;

    /// Whether the memory of the block is good, as far as the kernel knows.
    fn is_good(&self) -> bool;

    /// Whether the block has the only reference on the page at `page`, which must be in the block.
    fn is_only_ours(&self, page: PhysAddr) -> bool;

    /// Gives up the pages with their references: the caller owns the pages from then on.
    fn give_away(self) -> PhysRange;

    /// Frees the pages behind the first `count`. If `count` is 0, frees all of them and returns `None`.
    fn shorten(self, count: u64) -> Option<Self>;

    /// Zeroes the part of `range` that is in the block, except pages whose memory failed.
    fn zero(&mut self, range: PhysRange);

    /// Copies `bytes` to the beginning of the block.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if the bytes do not fit.
    fn fill(&mut self, bytes: &[u8]) -> Result<(), Errno>;

    /// Stores `value` in the first eight bytes of the block, with one store, after all bytes that were written before.
    fn store_first(&mut self, value: u64);
}

/// Memory that arrived and is unclaimed.
pub trait Reserved: Sized {
    /// See [`System::Boot`].
    type Boot;

    /// An empty set.
    const NOTHING: Self;

    /// Takes over the pages of `wanted` that are still reserved. Returns them, and the number of pages that are not
    /// reserved any more. If `again` is set, takes only pages that an earlier instance of the module marked.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `wanted` is not page-aligned, not RAM outside the kernel's image, or not reserved through the chain
    /// of this boot; no memory.
    fn adopt(
        boot: &Self::Boot,
        map: &Map,
        wanted: &RangeSet,
        again: bool,
    ) -> Result<(Self, u64), Errno>;

    /// The memory that is still unclaimed.
    fn set(&self) -> &RangeSet;

    /// Makes the pages ordinary ones that the caller owns, with one reference each.
    ///
    /// # Errors
    ///
    /// `EBUSY` unless all pages are unclaimed; `EINVAL` if a range is not page-aligned; `EHWPOISON` if the memory of a
    /// page failed and `failed` is [`Failed::Refused`]; no memory. In each case nothing has changed.
    fn claim(&mut self, wanted: &RangeSet, failed: Failed) -> Result<(), Errno>;

    /// Releases the pages, zeroed if `zero` is true. Returns the number of bytes. Pages whose memory failed are neither
    /// touched nor released: they stay reserved for as long as this kernel runs.
    ///
    /// # Errors
    ///
    /// `EBUSY` unless all pages are unclaimed; `EINVAL` if a range is not page-aligned; no memory. In each case nothing
    /// has changed.
    fn free(&mut self, wanted: &RangeSet, zero: bool) -> Result<u64, Errno>;
}

/// Treatment of pages whose memory failed, in a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The claim fails, and nothing is claimed.
    Refused,
    /// Such pages are claimed too. The caller checks each page, and never reads or writes one whose memory failed.
    Taken,
}

/// The chain that this boot honoured.
pub trait Boot: Sized {
    /// Walks the chain.
    ///
    /// # Errors
    ///
    /// If the chain cannot be read or is malformed; no memory.
    fn read(map: &Map) -> Result<Self, Errno>;

    /// The chain.
    fn chain(&self) -> &Chain;

    /// See [`Chain::handed`].
    fn handed(&self) -> &RangeSet;

    /// Whether this arrival was handled before, by an earlier instance of the module.
    fn was_handled(&self) -> bool;

    /// Marks this arrival as handled, for a later instance of the module.
    fn mark_handled(&self);
}

/// Numbers of nodes that drivers took over.
pub trait Record {
    /// The recorded numbers.
    fn numbers(&self) -> impl Iterator<Item = usize>;

    /// Records a number.
    fn add(&mut self, number: usize);
}

/// A validated tree, its index, and the bytes that both read.
pub trait Tree: Sized {
    /// Validates `bytes`.
    ///
    /// # Errors
    ///
    /// If the bytes are not a valid tree; no memory.
    fn new(bytes: Vec<u8>) -> Result<Self, TreeError>;

    /// The reader.
    fn reader(&self) -> &Reader<'_>;

    /// The index.
    fn index(&self) -> &Index<'_>;

    /// The bytes.
    fn bytes(&self) -> &[u8];
}
