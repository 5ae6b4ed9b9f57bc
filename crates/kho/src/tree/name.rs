//! Names of nodes and properties.

use super::MAX_NAME;
use core::fmt;

/// Property names that the writer refuses. `dtc` reports `name` and the two phandles as errors if their values do not
/// have the meaning that a hardware description gives them. In a hardware description the other names hold big-endian
/// cells.
pub const RESERVED_PROPERTIES: [&str; 6] = [
    "name",
    "phandle",
    "linux,phandle",
    "reg",
    "ranges",
    "dma-ranges",
];

/// Allowed in a property name of a tree that is read.
pub(super) const READ_PROP: u8 = 1;
/// Allowed in a node name of a tree that is read.
pub(super) const READ_NODE: u8 = 2;
/// Allowed in any name that is written.
pub(super) const WRITE: u8 = 4;

/// Which of the three sets each byte belongs to.
const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0u8;
    loop {
        let class = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b',' | b'.' | b'_' | b'+' | b'-' => {
                READ_PROP | READ_NODE | WRITE
            }
            b'*' | b'#' | b'?' => READ_PROP | READ_NODE,
            b'@' => READ_NODE,
            _ => 0,
        };
        let (_, rest) = table.split_at_mut(byte as usize);
        if let Some(slot) = rest.first_mut() {
            *slot = class;
        }
        match byte.checked_add(1) {
            Some(next) => byte = next,
            None => break table,
        }
    }
};

/// Whether `byte` may stand in a name of the set `class`.
#[inline(always)]
pub(super) fn allowed(byte: u8, class: u8) -> bool {
    CLASS
        .get(usize::from(byte))
        .is_some_and(|set| set & class != 0)
}

/// Why bytes do not start with a NUL-terminated name.
pub(super) enum Unfit {
    /// The block ends before a NUL.
    Unterminated,
    /// More than [`MAX_NAME`] bytes.
    TooLong,
    /// A byte that is not allowed, and where.
    Character { at: usize, byte: u8 },
}

/// The name that `bytes` start with, which a NUL ends.
#[inline(always)]
pub(super) fn terminated(bytes: &[u8], class: u8) -> Result<&[u8], Unfit> {
    for (at, &byte) in bytes.iter().enumerate().take(MAX_NAME.saturating_add(1)) {
        if !allowed(byte, class) {
            return match bytes.get(..at) {
                Some(name) if byte == 0 => Ok(name),
                _ => Err(Unfit::Character { at, byte }),
            };
        }
    }
    if bytes.len() > MAX_NAME {
        Err(Unfit::TooLong)
    } else {
        Err(Unfit::Unterminated)
    }
}

/// Order of names by length, then by bytes. A writer that numbers its nodes upwards writes them in this order, so that
/// the search for duplicates usually costs nothing.
#[inline(always)]
pub(super) fn shortlex(a: &[u8], b: &[u8]) -> core::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// A name, or its first [`MAX_NAME`] bytes, kept in an error without allocating.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    len: u8,
}

impl Name {
    /// Copies `name`; what does not fit is cut off.
    pub fn new(name: &[u8]) -> Self {
        let mut bytes = [0; MAX_NAME];
        let mut len = 0u8;
        for (to, from) in bytes.iter_mut().zip(name) {
            *to = *from;
            len = len.saturating_add(1);
        }
        Self { bytes, len }
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
