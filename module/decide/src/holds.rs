//! The holds of producers: for each node that arrived, the producer that holds it while its memory is still reserved.
//!
//! A producer may hand memory that arrived to the next kernel unchanged. The producer has no reference on those pages,
//! so kho.ko records the hold: only the producer that holds memory may release it.

use crate::errno::{EBUSY, ENOENT, Errno};
use alloc::string::String;
use alloc::vec::Vec;
use kho::RangeSet;

/// A node that a producer holds.
struct Hold {
    /// Number of the node in the kernel's part.
    node: i64,
    /// Name of the producer.
    producer: String,
    /// The `mem` of the node and of the nodes below it. A part of it may be claimed by now.
    mem: RangeSet,
}

/// All nodes that producers hold. Each page is in at most one of them.
#[derive(Default)]
pub struct Holds {
    list: Vec<Hold>,
}

impl Holds {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Records that `producer` holds node number `node` with this memory.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if a producer holds the node or some of the memory already; no memory.
    pub fn add(&mut self, producer: &str, node: i64, mem: RangeSet) -> Result<(), Errno> {
        if self.holder(&mem).is_some() || self.list.iter().any(|hold| hold.node == node) {
            return Err(EBUSY);
        }
        let mut copy = String::new();
        copy.try_reserve_exact(producer.len())?;
        copy.push_str(producer);
        self.list.try_reserve(1)?;
        self.list.push(Hold {
            node,
            producer: copy,
            mem,
        });
        Ok(())
    }

    /// The memory of node number `node`, which `producer` holds.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if the producer does not hold the node.
    pub fn mem(&self, producer: &str, node: i64) -> Result<&RangeSet, Errno> {
        let hold = self.list.iter().find(|hold| hold.node == node);
        hold.filter(|hold| hold.producer == producer)
            .map(|hold| &hold.mem)
            .ok_or(ENOENT)
    }

    /// Ends the hold on node number `node`.
    pub fn remove(&mut self, node: i64) {
        self.list.retain(|hold| hold.node != node);
    }

    /// Ends the hold of `producer` on all its nodes.
    pub fn remove_all(&mut self, producer: &str) {
        self.list.retain(|hold| hold.producer != producer);
    }

    /// The memory of all nodes that `producer` holds; for `None`, that of all nodes that any producer holds.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn of(&self, producer: Option<&str>) -> Result<RangeSet, Errno> {
        let mut set = RangeSet::new();
        for hold in &self.list {
            if producer.is_none_or(|name| name == hold.producer) {
                set = set.union(&hold.mem)?;
            }
        }
        Ok(set)
    }

    /// A producer that holds some of `set`, and the number of the node.
    pub fn holder(&self, set: &RangeSet) -> Option<(&str, i64)> {
        let has = |hold: &&Hold| {
            // The search goes through the set with fewer ranges.
            let (few, many) = match hold.mem.len() < set.len() {
                true => (&hold.mem, set),
                false => (set, &hold.mem),
            };
            few.iter().any(|range| many.overlaps(range))
        };
        let hold = self.list.iter().find(has)?;
        Some((&hold.producer, hold.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho::{PAGE_SIZE, PhysAddr, PhysRange};

    fn pages(first: u64, count: u64) -> RangeSet {
        let range = PhysRange::new(PhysAddr::new(first * PAGE_SIZE), count * PAGE_SIZE);
        RangeSet::from_ranges([range.unwrap()]).unwrap()
    }

    #[test]
    fn each_page_has_one_holder_at_most() {
        let mut holds = Holds::new();
        holds.add("fs", 1, pages(10, 4)).unwrap();
        holds.add("fs", 2, pages(20, 4)).unwrap();
        assert_eq!(holds.add("fs", 1, pages(30, 1)), Err(EBUSY));
        assert_eq!(holds.add("other", 3, pages(13, 2)), Err(EBUSY));
        assert_eq!(holds.add("fs", 3, pages(13, 2)), Err(EBUSY));
        holds.add("other", 3, pages(14, 2)).unwrap();

        assert_eq!(holds.holder(&pages(0, 10)), None);
        assert_eq!(holds.holder(&pages(0, 11)), Some(("fs", 1)));
        assert_eq!(holds.holder(&pages(15, 2)), Some(("other", 3)));
        assert_eq!(holds.of(Some("fs")).unwrap().total(), 8 * PAGE_SIZE);
        assert_eq!(holds.of(None).unwrap().total(), 10 * PAGE_SIZE);
        assert_eq!(holds.of(Some("none")).unwrap().total(), 0);
        assert_eq!(holds.mem("fs", 3).err(), Some(ENOENT));
        assert_eq!(holds.mem("other", 3).unwrap().total(), 2 * PAGE_SIZE);

        holds.remove(1);
        assert_eq!(holds.holder(&pages(0, 14)), None);
        holds.remove_all("fs");
        assert_eq!(holds.holder(&pages(0, 100)), Some(("other", 3)));
    }
}
