//! What decisions ask of the kernel, and what they have it do.
//!
//! kho.ko implements these on its boundary, where types keep what makes it sound: memory that was allocated is a
//! [`Block`], memory that arrived and that nobody has claimed is in [`Reserved`]. A test implements them on a machine of
//! its own.

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
    /// Which nodes of a kernel's part drivers took over, for a later instance of the module.
    type Record: Record;
    /// A state tree together with its bytes.
    type Tree: Tree;

    /// One line into the kernel's log.
    fn log(level: Level, message: fmt::Arguments<'_>);

    /// The text of `/proc/iomem`.
    ///
    /// # Errors
    ///
    /// What reading gives; no memory.
    fn iomem() -> Result<Vec<u8>, Errno>;

    /// The first page of `range` whose memory failed.
    fn first_failed(range: PhysRange) -> Option<PhysRange>;

    /// Whether each page of `range` has a page frame and none is PageReserved.
    fn none_reserved(range: PhysRange) -> bool;

    /// The bytes of `range`, whose pages all have to be RAM that early boot reserved, and whose memory has not failed.
    ///
    /// # Errors
    ///
    /// `ENXIO` when they are not; no memory.
    fn copy_reserved(map: &Map, range: PhysRange) -> Result<Vec<u8>, Errno>;

    /// The pages of the tree at `range`, which was read from there; none if they are not reserved.
    fn stays(range: PhysRange) -> Option<Self::Stays>;

    /// The record that an earlier instance of the module made for a kernel's part with so many nodes.
    fn find_record(part: &Self::Stays, nodes: usize) -> Option<Self::Record>;

    /// A new one, where there is none: nobody took a node. `block` gives so many zeroed pages.
    ///
    /// # Errors
    ///
    /// What `block` returns.
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

/// Contiguous pages that were allocated, each with one reference of its own; freed when dropped, but for pages whose
/// memory failed.
pub trait Block: Sized {
    /// 2^`order` pages from the page allocator, anywhere.
    fn any(order: u32) -> Option<Self>;

    /// Exactly the pages of `range`, zeroed, if what is in them can be moved elsewhere.
    ///
    /// # Errors
    ///
    /// What the kernel says, as a rule that the range is busy; `EINVAL` if it is not RAM.
    fn at(map: &Map, range: PhysRange) -> Result<Self, Errno>;

    /// Where it is.
    fn range(&self) -> PhysRange;

    /// Whether its memory is good, as far as the kernel knows.
    fn is_good(&self) -> bool;

    /// Whether nobody else has a reference on the page at `page`, which is in the block.
    fn is_only_ours(&self, page: PhysAddr) -> bool;

    /// The pages, with the references, which are the caller's from here on.
    fn give_away(self) -> PhysRange;

    /// Frees what is beyond the first `count` pages; all of it when that is 0.
    fn shorten(self, count: u64) -> Option<Self>;

    /// Zeroes the part of `range` that is in the block, but for pages whose memory failed.
    fn zero(&mut self, range: PhysRange);

    /// Copies `bytes` to the beginning of the block.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when they do not fit.
    fn fill(&mut self, bytes: &[u8]) -> Result<(), Errno>;
}

/// Memory that arrived and that nobody has claimed yet.
pub trait Reserved: Sized {
    /// See [`System::Boot`].
    type Boot;

    /// Nothing.
    const NOTHING: Self;

    /// Takes over those pages of `wanted` that are still reserved; returns how many are not. With `again`
    /// only pages that an earlier instance had marked.
    ///
    /// # Errors
    ///
    /// `EINVAL` when `wanted` is not page-aligned, not RAM outside the kernel's image, or not what the chain
    /// of this boot reserved; no memory.
    fn adopt(
        boot: &Self::Boot,
        map: &Map,
        wanted: &RangeSet,
        again: bool,
    ) -> Result<(Self, u64), Errno>;

    /// What is left unclaimed.
    fn set(&self) -> &RangeSet;

    /// Makes the pages ordinary ones that the caller owns, with one reference each.
    ///
    /// # Errors
    ///
    /// `EBUSY` unless all are unclaimed, `EINVAL` when not page-aligned, `EHWPOISON` when the memory of one
    /// failed and `failed` says that the caller does not know what to do then; no memory. Then nothing changed.
    fn claim(&mut self, wanted: &RangeSet, failed: Failed) -> Result<(), Errno>;

    /// Gives the pages back to the system, zeroed if `zero`; returns the bytes. Pages whose memory failed are
    /// neither touched nor given back: they stay reserved for as long as this kernel runs.
    ///
    /// # Errors
    ///
    /// `EBUSY` unless all are unclaimed, `EINVAL` when not page-aligned, no memory; then nothing changed.
    fn free(&mut self, wanted: &RangeSet, zero: bool) -> Result<u64, Errno>;
}

/// What to do with pages whose memory failed when they are claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Nothing is claimed.
    Refused,
    /// The caller asks each page, and never reads or writes one that failed.
    Taken,
}

/// The chain that this boot honoured.
pub trait Boot: Sized {
    /// Walks the chain.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is none; no memory.
    fn read(map: &Map) -> Result<Self, Errno>;

    /// The chain.
    fn chain(&self) -> &Chain;

    /// See [`Chain::handed`].
    fn handed(&self) -> &RangeSet;

    /// Whether this arrival was handled before, by an earlier instance of the module.
    fn was_handled(&self) -> bool;

    /// Says so to a later instance.
    fn mark_handled(&self);
}

/// Numbers of nodes that drivers took over.
pub trait Record {
    /// The numbers that are noted.
    fn numbers(&self) -> impl Iterator<Item = usize>;

    /// Notes a number.
    fn add(&mut self, number: usize);
}

/// A validated tree, its index, and the memory both read.
pub trait Tree: Sized {
    /// Validates `bytes`.
    ///
    /// # Errors
    ///
    /// What is wrong with them, or no memory.
    fn new(bytes: Vec<u8>) -> Result<Self, TreeError>;

    /// The reader.
    fn reader(&self) -> &Reader<'_>;

    /// The index.
    fn index(&self) -> &Index<'_>;

    /// The bytes.
    fn bytes(&self) -> &[u8];
}
