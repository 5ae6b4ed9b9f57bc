//! A state tree together with its bytes.

use alloc::vec::Vec;
use kho::tree::{Index, Reader, TreeError};
use kho_decide::system;

/// A validated tree, its index, and the bytes that both read.
///
/// # Invariants
///
/// `reader` and `index` borrow the heap memory of `bytes`, which is neither changed nor moved until they are dropped:
/// the fields are private, no method hands out `bytes` mutably, and moving a `Vec` does not move its heap memory.
/// `bytes` is dropped last.
pub struct Tree {
    reader: Reader<'static>,
    index: Index<'static>,
    bytes: Vec<u8>,
}

impl system::Tree for Tree {
    fn new(bytes: Vec<u8>) -> Result<Self, TreeError> {
        // SAFETY: the slice outlives both borrowers by the # Invariants.
        let slice: &'static [u8] =
            unsafe { core::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        let reader = Reader::new(slice)?;
        let index = Index::new(&reader)?;
        Ok(Self {
            reader,
            index,
            bytes,
        })
    }

    fn reader(&self) -> &Reader<'_> {
        &self.reader
    }

    fn index(&self) -> &Index<'_> {
        &self.index
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
