//! The kernel in the form that the decisions use.

use super::kernel::read_file;
use super::pages::{self, Block, Boot, Reserved, Stays};
use super::record::Record;
use super::tree::Tree;
use alloc::vec::Vec;
use core::fmt;
use kho::{PhysRange, RangeSet};
use kho_decide::errno::Errno;
use kho_decide::iomem::Map;
use kho_decide::system::System;
use kho_decide::text::Level;

/// The kernel in which this module runs.
pub enum Linux {}

/// The store of pages, on this kernel.
pub type Store = kho_decide::store::Store<Linux>;

impl System for Linux {
    type Block = Block;
    type Reserved = Reserved;
    type Boot = Boot;
    type Stays = Stays;
    type Record = Record;
    type Tree = Tree;

    fn log(level: Level, message: fmt::Arguments<'_>) {
        kho_boundary::log::write(level, message);
    }

    fn iomem() -> Result<Vec<u8>, Errno> {
        read_file(c"/proc/iomem")
    }

    fn first_failed(range: PhysRange) -> Option<PhysRange> {
        pages::first_failed(range)
    }

    fn none_reserved(range: PhysRange) -> bool {
        pages::none_reserved(range)
    }

    fn reserved_pages(range: PhysRange) -> Result<RangeSet, Errno> {
        pages::reserved_pages(range)
    }

    fn copy_reserved(map: &Map, range: PhysRange) -> Result<Vec<u8>, Errno> {
        pages::copy_reserved(map, range)
    }

    fn stays(range: PhysRange) -> Option<Stays> {
        Stays::new(range)
    }

    fn find_record(part: &Stays, nodes: usize) -> Option<Record> {
        Record::find(part, nodes)
    }

    fn make_record(
        part: &Stays,
        nodes: usize,
        block: impl FnOnce(u64) -> Result<Block, Errno>,
    ) -> Result<Record, Errno> {
        Record::make(part, nodes, block)
    }
}
