//! Extended attributes of one inode.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::iter::Flatten;
use core::slice::Iter;
use kho_decide::errno::{EEXIST, ENODATA, Errno};

/// The buffer is too small.
pub const ERANGE: Errno = Errno(34);

/// `XATTR_CREATE` and `XATTR_REPLACE` of `include/uapi/linux/xattr.h`.
const CREATE: i32 = 1;
const REPLACE: i32 = 2;

/// Inode space that an attribute takes besides its name and value, in bytes, as in tmpfs (`simple_xattr_space()` of
/// `fs/xattr.c`, since 6.6).
const OVERHEAD: u64 = 40;

/// Largest number of attributes in a block.
const BLOCK: usize = 64;

/// One attribute.
#[derive(Debug, PartialEq, Eq)]
pub struct Attribute {
    /// The name, and behind it the value.
    bytes: Box<[u8]>,
    /// Length of the name.
    name: usize,
}

impl Attribute {
    /// Makes an attribute with a copy of `name` and of `value`.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn new(name: &[u8], value: &[u8]) -> Result<Self, Errno> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(name.len().saturating_add(value.len()))?;
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
        Ok(Self {
            bytes: bytes.into_boxed_slice(),
            name: name.len(),
        })
    }

    /// Full name.
    pub fn name(&self) -> &[u8] {
        self.bytes.get(..self.name).unwrap_or(&[])
    }

    /// Value.
    pub fn value(&self) -> &[u8] {
        self.bytes.get(self.name..).unwrap_or(&[])
    }

    /// Inode space of the attribute, in bytes.
    pub fn space(&self) -> u64 {
        OVERHEAD.saturating_add(self.bytes.len() as u64)
    }

    fn is_trusted(&self) -> bool {
        self.name().starts_with(b"trusted.")
    }
}

/// All attributes of an inode, by name.
///
/// The attributes are in blocks, so that no operation under the lock touches all of them. No block is empty, and two
/// neighbours have more than half a block together, unless there was no memory to join them. So removed attributes
/// leave no more memory allocated than is accounted.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Attributes {
    blocks: Vec<Vec<Attribute>>,
    count: usize,
    space: u64,
    /// Length of all names in the format of listxattr(2), and of the names that only root sees, in bytes.
    listed: usize,
    trusted: usize,
}

impl Attributes {
    /// All attributes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Attribute> {
        All {
            rest: self.blocks.iter().flatten(),
            left: self.count,
        }
    }

    /// Inode space that the attributes take, in bytes.
    pub fn space(&self) -> u64 {
        self.space
    }

    /// The block of `name`, and its position in the block, or the position where it would be inserted.
    fn find(&self, name: &[u8]) -> (usize, Result<usize, usize>) {
        let begins = |block: &Vec<Attribute>| block.first().is_some_and(|a| a.name() <= name);
        let block = self.blocks.partition_point(begins).saturating_sub(1);
        let at = self.blocks.get(block).map_or(Err(0), |block| {
            block.binary_search_by(|a| a.name().cmp(name))
        });
        (block, at)
    }

    /// The value of `name`.
    ///
    /// # Errors
    ///
    /// [`ENODATA`] if there is no attribute of that name.
    pub fn get(&self, name: &[u8]) -> Result<&[u8], Errno> {
        let (block, at) = self.find(name);
        let found = self.blocks.get(block).zip(at.ok());
        let found = found.and_then(|(block, at)| block.get(at));
        found.map(Attribute::value).ok_or(ENODATA)
    }

    /// Sets an attribute (`Some`, of that name) or removes it; `flags` are those of setxattr(2). Returns the former
    /// attribute.
    ///
    /// # Errors
    ///
    /// [`EEXIST`], [`ENODATA`] as in setxattr(2); no memory. In each case nothing has changed.
    pub fn set(
        &mut self,
        name: &[u8],
        new: Option<Attribute>,
        flags: i32,
    ) -> Result<Option<Attribute>, Errno> {
        let (block, at) = self.find(name);
        match (at, new) {
            (Ok(_), Some(_)) if flags & CREATE != 0 => Err(EEXIST),
            (Err(_), None) => Err(ENODATA),
            (Err(_), Some(_)) if flags & REPLACE != 0 => Err(ENODATA),
            (Ok(at), None) => Ok(self.remove(block, at)),
            (Err(at), Some(new)) => self.insert(block, at, new).map(|()| None),
            (Ok(at), Some(new)) => {
                let slot = self.blocks.get_mut(block).and_then(|b| b.get_mut(at));
                let slot = slot.ok_or(ENODATA)?;
                let space = new.space();
                let old = core::mem::replace(slot, new);
                self.space = self.space.saturating_sub(old.space()).saturating_add(space);
                Ok(Some(old))
            }
        }
    }

    fn insert(&mut self, block: usize, at: usize, new: Attribute) -> Result<(), Errno> {
        let (block, at) = self.make_room(block, at)?;
        let room = self.blocks.get_mut(block).ok_or(ENODATA)?;
        let listed = new.name.saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.space = self.space.saturating_add(new.space());
        self.listed = self.listed.saturating_add(listed);
        if new.is_trusted() {
            self.trusted = self.trusted.saturating_add(listed);
        }
        room.insert(at.min(room.len()), new);
        Ok(())
    }

    /// Makes room for one more attribute at this position. Returns the position that results.
    fn make_room(&mut self, block: usize, at: usize) -> Result<(usize, usize), Errno> {
        if self.blocks.is_empty() {
            let mut fresh = Vec::new();
            // Most inodes have at most one attribute.
            fresh.try_reserve_exact(1)?;
            self.blocks.try_reserve_exact(1)?;
            self.blocks.push(fresh);
            return Ok((0, 0));
        }
        let full = self.blocks.get(block).map_or(0, Vec::len);
        if full < BLOCK {
            let room = self.blocks.get_mut(block).ok_or(ENODATA)?;
            room.try_reserve(1)?;
            return Ok((block, at));
        }
        // Attributes that come in the order of their names fill their blocks.
        let cut = if at == full { full } else { full / 2 };
        let mut fresh = Vec::new();
        fresh.try_reserve_exact(BLOCK)?;
        self.blocks.try_reserve(1)?;
        let room = self.blocks.get_mut(block).ok_or(ENODATA)?;
        fresh.extend(room.drain(cut..));
        let next = block.saturating_add(1);
        self.blocks.insert(next, fresh);
        Ok(match at.checked_sub(cut) {
            Some(at) => (next, at),
            None => (block, at),
        })
    }

    fn remove(&mut self, block: usize, at: usize) -> Option<Attribute> {
        let room = self.blocks.get_mut(block)?;
        if at >= room.len() {
            return None;
        }
        let old = room.remove(at);
        if room.is_empty() {
            self.blocks.remove(block);
        } else {
            self.join(block);
            self.join(block.saturating_sub(1));
        }
        let listed = old.name.saturating_add(1);
        self.count = self.count.saturating_sub(1);
        self.space = self.space.saturating_sub(old.space());
        self.listed = self.listed.saturating_sub(listed);
        if old.is_trusted() {
            self.trusted = self.trusted.saturating_sub(listed);
        }
        Some(old)
    }

    /// Joins a block with the next one if both are small.
    fn join(&mut self, block: usize) {
        let next = block.saturating_add(1);
        let len = |at: usize| self.blocks.get(at).map(Vec::len);
        let small = len(block)
            .zip(len(next))
            .is_some_and(|(a, b)| a.saturating_add(b) <= BLOCK / 2);
        if !small {
            return;
        }
        let Some((head, tail)) = self.blocks.split_at_mut_checked(next) else {
            return;
        };
        let (Some(first), Some(second)) = (head.last_mut(), tail.first_mut()) else {
            return;
        };
        if first.try_reserve(second.len()).is_ok() {
            first.append(second);
            self.blocks.remove(next);
        }
    }

    /// Writes the names in the format of listxattr(2), those in `trusted.` only if `trusted`. Returns the length in
    /// bytes.
    ///
    /// # Errors
    ///
    /// [`ERANGE`] if the names do not fit. With an empty buffer the function only returns the length.
    pub fn names(&self, trusted: bool, buf: &mut [u8]) -> Result<usize, Errno> {
        let hidden = if trusted { 0 } else { self.trusted };
        let all = self.listed.saturating_sub(hidden);
        if buf.is_empty() {
            return Ok(all);
        }
        let mut rest = buf.get_mut(..all).ok_or(ERANGE)?;
        for attribute in self.iter().filter(|a| trusted || !a.is_trusted()) {
            let name = attribute.name();
            let (room, behind) = rest.split_at_mut_checked(name.len()).ok_or(ERANGE)?;
            room.copy_from_slice(name);
            let (end, behind) = behind.split_first_mut().ok_or(ERANGE)?;
            *end = 0;
            rest = behind;
        }
        Ok(all)
    }
}

struct All<'a> {
    rest: Flatten<Iter<'a, Vec<Attribute>>>,
    left: usize,
}

impl<'a> Iterator for All<'a> {
    type Item = &'a Attribute;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.rest.next()?;
        self.left = self.left.saturating_sub(1);
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for All<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::format;

    fn set(
        all: &mut Attributes,
        name: &[u8],
        value: Option<&[u8]>,
        flags: i32,
    ) -> Result<(), Errno> {
        let new = value.map(|value| Attribute::new(name, value).unwrap());
        all.set(name, new, flags).map(|_| ())
    }

    #[test]
    fn as_setxattr_says() {
        let mut all = Attributes::default();
        assert_eq!(set(&mut all, b"user.a", Some(b"1"), REPLACE), Err(ENODATA));
        set(&mut all, b"user.a", Some(b"1"), CREATE).unwrap();
        assert_eq!(set(&mut all, b"user.a", Some(b"2"), CREATE), Err(EEXIST));
        set(&mut all, b"user.a", Some(b"22"), 0).unwrap();
        set(&mut all, b"trusted.b", Some(b""), 0).unwrap();
        assert_eq!(all.get(b"user.a"), Ok(&b"22"[..]));
        assert_eq!((all.iter().len(), all.space()), (2, 40 + 8 + 40 + 9));
        assert_eq!(all.names(true, &mut []), Ok(17));
        let mut buf = [0u8; 17];
        assert_eq!(all.names(false, &mut buf), Ok(7));
        assert_eq!(buf.get(..7), Some(&b"user.a\0"[..]));
        assert_eq!(all.names(true, buf.get_mut(..16).unwrap()), Err(ERANGE));
        set(&mut all, b"user.a", None, 0).unwrap();
        assert_eq!(set(&mut all, b"user.a", None, 0), Err(ENODATA));
        assert_eq!((all.iter().len(), all.space()), (1, 40 + 9));
    }

    /// Compares random and ordered changes with a map of the standard library, and checks the invariants of the blocks.
    #[test]
    fn as_a_map_in_blocks_that_are_used() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for (names, removals) in [(3, 3), (400, 2), (5000, 2), (5000, 7)] {
            let mut all = Attributes::default();
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for step in 0..20_000u64 {
                let prefix = if random(3) == 0 { "trusted" } else { "user" };
                // The first names are in order.
                let number = if step < names { step } else { random(names) };
                let name = format!("{prefix}.{number:05}").into_bytes();
                if step >= names && random(10) < removals {
                    let was = all.set(&name, None, 0);
                    let wanted = model.remove(&name).ok_or(ENODATA);
                    assert_eq!(was.map(|a| a.unwrap().value().to_vec()), wanted);
                } else {
                    let value = std::vec![7; random(9) as usize];
                    let new = Attribute::new(&name, &value).unwrap();
                    let was = all.set(&name, Some(new), 0).unwrap();
                    assert_eq!(was.map(|a| a.value().to_vec()), model.insert(name, value));
                }
            }
            let found: Vec<_> = all.iter().map(|a| (a.name(), a.value())).collect();
            let wanted: Vec<_> = model.iter().map(|(n, v)| (&n[..], &v[..])).collect();
            assert_eq!(found, wanted);
            assert_eq!(all.iter().len(), model.len());
            assert_eq!(all.space(), all.iter().map(Attribute::space).sum::<u64>());
            for (name, value) in &model {
                assert_eq!(all.get(name), Ok(value.as_slice()));
            }
            for trusted in [false, true] {
                let mut text = Vec::new();
                for name in model.keys().filter(|n| trusted || n.starts_with(b"user")) {
                    text.extend_from_slice(name);
                    text.push(0);
                }
                let mut buf = std::vec![1; text.len()];
                assert_eq!(all.names(trusted, &mut buf), Ok(text.len()));
                assert_eq!(buf, text);
            }
            let used: Vec<_> = all.blocks.iter().map(Vec::len).collect();
            assert!(used.iter().all(|len| (1..=BLOCK).contains(len)), "{used:?}");
            assert!(used.windows(2).all(|w| w[0] + w[1] > BLOCK / 2), "{used:?}");
            // After all attributes are removed, no memory is left.
            for name in model.keys() {
                all.set(name, None, 0).unwrap();
            }
            assert_eq!((all.iter().len(), all.space(), all.blocks.len()), (0, 0, 0));
            assert_eq!(all.names(true, &mut []), Ok(0));
        }
    }

    /// Work that grows with the square of the number would take hours here.
    #[test]
    fn many_attributes_are_no_matter() {
        let mut all = Attributes::default();
        for number in 0..200_000u64 {
            let name = format!("user.{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            set(&mut all, name.as_bytes(), Some(b""), CREATE).unwrap();
        }
        assert_eq!(all.iter().len(), 200_000);
    }
}
