//! Record of the nodes that drivers took over, for the case that the module is unloaded and loaded again.
//!
//! The pages of a node with `mem` show whether a driver took the node over, but some nodes have no `mem`. So the record
//! has a bit for each node, in pages that are allocated for the first node that a driver takes over, and never freed.
//! `page_private` of the first page of the kernel's part has the address of those pages.

use super::ffi;
use super::pages::{Block, Stays};
use kho::{PAGE_SIZE, PhysRange};
use kho_decide::errno::{EINVAL, Errno};
use kho_decide::system::{self, Block as _};

/// Bits for the nodes of a kernel's part.
///
/// # Invariants
///
/// `pages` are pages that [`Record::make`] gave away to the record of this part, with a bit for each number below
/// `nodes`. They have no other user.
pub struct Record {
    pages: PhysRange,
    nodes: usize,
}

impl Record {
    /// The record that an earlier instance of this module made for the kernel's part in `part`, which has `nodes`
    /// nodes; `None` if it made none.
    pub fn find(part: &Stays, nodes: usize) -> Option<Self> {
        let pages = PhysRange::new(part.noted()?, pages(nodes)?.checked_mul(PAGE_SIZE)?).ok()?;
        // INVARIANT: `make` recorded the address of these pages for the same tree, and gave the pages away.
        Some(Self { pages, nodes })
    }

    /// Makes an empty record for a kernel's part that has none. `block` allocates the given number of zeroed pages.
    ///
    /// # Errors
    ///
    /// The error of `block`.
    pub fn make(
        part: &Stays,
        nodes: usize,
        block: impl FnOnce(u64) -> Result<Block, Errno>,
    ) -> Result<Self, Errno> {
        let pages = block(pages(nodes).ok_or(EINVAL)?)?.give_away();
        part.note(pages.start());
        // INVARIANT: the pages were given away just now, with room for all bits.
        Ok(Self { pages, nodes })
    }

    /// The byte that has the bit of `number`, and the bit.
    fn byte(&self, number: usize) -> Option<(*mut u8, u8)> {
        let bit = 1u8.checked_shl(u32::try_from(number % 8).ok()?)?;
        let base = ffi::kho_c_virt(self.pages.start().get()).cast::<u8>();
        (number < self.nodes).then_some((base.wrapping_add(number / 8), bit))
    }
}

impl system::Record for Record {
    fn numbers(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes).filter(|number| {
            let Some((at, bit)) = self.byte(*number) else {
                return false;
            };
            // SAFETY: inside of the record's pages, by the # Invariants; the store's lock is held.
            unsafe { at.read() & bit != 0 }
        })
    }

    fn add(&mut self, number: usize) {
        let Some((at, bit)) = self.byte(number) else {
            return;
        };
        // SAFETY: as in `numbers`.
        let byte = unsafe { at.read() };
        // SAFETY: as in `numbers`.
        unsafe { at.write(byte | bit) };
    }
}

/// Number of pages for a record of `nodes` nodes, with a bit for each.
fn pages(nodes: usize) -> Option<u64> {
    let bytes = u64::try_from(nodes.div_ceil(8)).ok()?;
    Some(bytes.div_ceil(PAGE_SIZE).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho::PhysAddr;
    use kho_decide::errno::ENOMEM;
    use kho_decide::system::Record as _;
    use std::vec::Vec;

    #[test]
    fn what_was_taken_is_known_to_a_later_instance() {
        ffi::with(|machine| {
            machine.page(700).reserved = true;
            machine.free.push(512);
        });
        let at = PhysRange::new(PhysAddr::new(700 * PAGE_SIZE), PAGE_SIZE).unwrap();
        let part = Stays::new(at).unwrap();
        let nodes = 40_000;
        assert!(Record::find(&part, nodes).is_none());
        assert!(Record::make(&part, nodes, |_| Err(ENOMEM)).is_err());
        assert!(Record::find(&part, nodes).is_none());
        let block = |pages| {
            assert_eq!(pages, 2);
            Block::any(1).ok_or(ENOMEM)
        };
        let mut record = Record::make(&part, nodes, block).unwrap();
        for number in [0, 7, 8, 32_767, 32_768, 39_999, 40_000, usize::MAX] {
            record.add(number);
        }
        let later = Record::find(&part, nodes).unwrap();
        let numbers: Vec<usize> = later.numbers().collect();
        assert_eq!(numbers, [0, 7, 8, 32_767, 32_768, 39_999]);
        // The pages of the record stay allocated.
        ffi::with(|machine| assert_eq!((machine.page(512).count, machine.page(513).count), (1, 1)));
    }

    #[test]
    fn a_page_that_is_not_reserved_says_nothing() {
        let at = PhysRange::new(PhysAddr::new(701 * PAGE_SIZE), PAGE_SIZE).unwrap();
        ffi::with(|machine| machine.page(701).private = usize::MAX);
        assert!(Stays::new(at).is_none());
        ffi::with(|machine| machine.page(701).reserved = true);
        assert!(Stays::new(at).unwrap().noted().is_none());
    }
}
