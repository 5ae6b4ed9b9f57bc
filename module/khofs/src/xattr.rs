//! Extended attributes of one inode.

use crate::errno::{EEXIST, ENODATA, ENOSPC, Errno};
use alloc::vec::Vec;

/// The buffer is too small.
pub const ERANGE: Errno = Errno(34);

/// Bytes of names and values that one inode may have.
const MAX_BYTES: usize = 1 << 20;

/// `XATTR_CREATE` and `XATTR_REPLACE` of `include/uapi/linux/xattr.h`.
const CREATE: i32 = 1;
const REPLACE: i32 = 2;

/// One attribute.
#[derive(Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Full name.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// All attributes of an inode, in the order in which they were first set.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Attributes {
    list: Vec<Attribute>,
}

impl Attributes {
    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Attribute> {
        self.list.iter()
    }

    /// The value of `name`.
    ///
    /// # Errors
    ///
    /// [`ENODATA`].
    pub fn get(&self, name: &[u8]) -> Result<&[u8], Errno> {
        let found = self.list.iter().find(|a| a.name == name);
        found.map(|a| a.value.as_slice()).ok_or(ENODATA)
    }

    /// Sets (`Some`) or removes an attribute; `flags` as setxattr(2) has them.
    ///
    /// # Errors
    ///
    /// [`EEXIST`], [`ENODATA`] as setxattr(2) says; [`ENOSPC`] past 1 MiB; no memory.
    pub fn set(&mut self, name: &[u8], value: Option<&[u8]>, flags: i32) -> Result<(), Errno> {
        let at = self.list.iter().position(|a| a.name == name);
        match (at, value) {
            (Some(_), Some(_)) if flags & CREATE != 0 => Err(EEXIST),
            (None, None) => Err(ENODATA),
            (None, Some(_)) if flags & REPLACE != 0 => Err(ENODATA),
            (Some(at), None) => {
                self.list.remove(at);
                Ok(())
            }
            (at, Some(value)) => {
                let used: usize = self
                    .list
                    .iter()
                    .filter(|a| a.name != name)
                    .map(|a| a.name.len().saturating_add(a.value.len()))
                    .sum();
                if used.saturating_add(name.len()).saturating_add(value.len()) > MAX_BYTES {
                    return Err(ENOSPC);
                }
                let value = copy(value)?;
                match at.and_then(|at| self.list.get_mut(at)) {
                    Some(attribute) => attribute.value = value,
                    None => {
                        let name = copy(name)?;
                        self.list.try_reserve(1)?;
                        self.list.push(Attribute { name, value });
                    }
                }
                Ok(())
            }
        }
    }

    /// Writes the names as listxattr(2) gives them, without `trusted.` unless `trusted`; the length.
    ///
    /// # Errors
    ///
    /// [`ERANGE`] when they do not fit; an empty buffer asks for the length only.
    pub fn names(&self, trusted: bool, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut len = 0usize;
        for attribute in &self.list {
            if !trusted && attribute.name.starts_with(b"trusted.") {
                continue;
            }
            let end = len.saturating_add(attribute.name.len());
            if !buf.is_empty() {
                let room = buf.get_mut(len..=end).ok_or(ERANGE)?;
                for (to, from) in room.iter_mut().zip(attribute.name.iter().chain(&[0])) {
                    *to = *from;
                }
            }
            len = end.saturating_add(1);
        }
        Ok(len)
    }
}

/// A copy, if there is memory.
pub fn copy(bytes: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    out.try_reserve_exact(bytes.len())?;
    out.extend_from_slice(bytes);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_setxattr_says() {
        let mut all = Attributes::default();
        assert_eq!(all.set(b"user.a", Some(b"1"), REPLACE), Err(ENODATA));
        all.set(b"user.a", Some(b"1"), CREATE).unwrap();
        assert_eq!(all.set(b"user.a", Some(b"2"), CREATE), Err(EEXIST));
        all.set(b"user.a", Some(b"22"), 0).unwrap();
        all.set(b"trusted.b", Some(b""), 0).unwrap();
        assert_eq!(all.get(b"user.a"), Ok(&b"22"[..]));
        assert_eq!(all.names(true, &mut []), Ok(17));
        let mut buf = [0u8; 17];
        assert_eq!(all.names(false, &mut buf), Ok(7));
        assert_eq!(buf.get(..7), Some(&b"user.a\0"[..]));
        assert_eq!(all.names(true, buf.get_mut(..16).unwrap()), Err(ERANGE));
        all.set(b"user.a", None, 0).unwrap();
        assert_eq!(all.set(b"user.a", None, 0), Err(ENODATA));
        let big = std::vec![0; MAX_BYTES];
        assert_eq!(all.set(b"user.big", Some(&big), 0), Err(ENOSPC));
    }
}
