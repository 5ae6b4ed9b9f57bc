//! RAM as intervals of content identity.
//!
//! The memory stores no bytes. Every byte has an identity, `(id, offset)`: byte `offset` of the content called `id`.
//! Copying moves identities, garbage is a fresh id, and the check for overwritten bytes is exact. A machine of hundreds
//! of GiB is a few hundred intervals.

use kho::{PhysAddr, PhysRange};
use std::collections::BTreeMap;

/// The identity of a run of bytes: those of content `id` from `offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Number of the content.
    pub id: u64,
    /// Offset in the content at which the run begins, in bytes.
    pub offset: u64,
}

impl Content {
    /// Returns the start of content `id`.
    pub const fn start(id: u64) -> Self {
        Self { id, offset: 0 }
    }

    /// Returns the identity of the byte `by` bytes further on.
    pub const fn skip(self, by: u64) -> Self {
        Self {
            id: self.id,
            offset: self.offset + by,
        }
    }
}

/// The content of memory that was never written.
pub const UNTOUCHED: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    end: u64,
    content: Content,
}

/// RAM of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Memory {
    /// Extents by start address; disjoint.
    extents: BTreeMap<u64, Extent>,
}

impl Memory {
    /// Splits an extent that crosses `at`.
    fn split(&mut self, at: u64) {
        let Some((start, extent)) = self.extents.range_mut(..at).next_back() else {
            return;
        };
        if extent.end <= at {
            return;
        }
        let upper = Extent {
            end: extent.end,
            content: extent.content.skip(at - *start),
        };
        extent.end = at;
        self.extents.insert(at, upper);
    }

    /// Overwrites `range` with the bytes of a content.
    pub fn write(&mut self, range: PhysRange, content: Content) {
        let (start, end) = (range.start().get(), range.end().get());
        self.split(start);
        self.split(end);
        let covered: Vec<u64> = self.extents.range(start..end).map(|(s, _)| *s).collect();
        for start in covered {
            self.extents.remove(&start);
        }
        self.extents.insert(start, Extent { end, content });
    }

    /// Returns the content at one address.
    pub fn at(&self, addr: PhysAddr) -> Content {
        match self.extents.range(..=addr.get()).next_back() {
            Some((start, extent)) if extent.end > addr.get() => {
                extent.content.skip(addr.get() - start)
            }
            _ => Content::start(UNTOUCHED),
        }
    }

    /// Returns the first address of `range` that does not hold the bytes of `content`, if any.
    pub fn first_difference(&self, range: PhysRange, content: Content) -> Option<PhysAddr> {
        let mut at = range.start().get();
        while at < range.end().get() {
            let here = self.extents.range(..=at).next_back();
            let Some((start, extent)) = here.filter(|(_, e)| e.end > at) else {
                return Some(PhysAddr::new(at));
            };
            if extent.content.skip(at - start) != content.skip(at - range.start().get()) {
                return Some(PhysAddr::new(at));
            }
            at = extent.end;
        }
        None
    }

    /// Returns the number of intervals, a measure of the cost of an operation.
    pub fn intervals(&self) -> usize {
        self.extents.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_an_array(writes in proptest::collection::vec((0..90u64, 1..20u64, 1..5u64, 0..9u64), 0..30)) {
            let mut memory = Memory::default();
            let mut array = vec![None; 120];
            for (start, len, id, offset) in writes {
                let content = Content { id, offset };
                memory.write(range(start, len), content);
                for i in 0..len {
                    array[usize::try_from(start + i).unwrap()] = Some(content.skip(i));
                }
            }
            for (addr, want) in (0u64..).zip(&array) {
                let got = memory.at(PhysAddr::new(addr));
                prop_assert_eq!(got, want.unwrap_or(Content::start(UNTOUCHED)));
                if let Some(want) = want {
                    prop_assert_eq!(memory.first_difference(range(addr, 1), *want), None);
                }
                let other = Content { id: 99, offset: 0 };
                prop_assert_eq!(memory.first_difference(range(addr, 1), other), Some(PhysAddr::new(addr)));
            }
        }
    }
}
