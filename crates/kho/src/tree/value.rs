//! Values of properties and their typed readings.

use crate::addr::{PhysAddr, PhysRange, RangeError};
use thiserror::Error;

/// Bytes of one `{u64 addr; u64 len}` pair.
const PAIR: usize = 16;

/// Why a value is not of the type it was read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The value has another length than the type.
    #[error("value has {found:#x} bytes, not {expected:#x}")]
    Length {
        /// Bytes of the type.
        expected: usize,
        /// Bytes of the value.
        found: usize,
    },
    /// A length that is not a whole number of elements.
    #[error("value has {found:#x} bytes, not a multiple of {unit:#x}")]
    Multiple {
        /// Bytes of one element.
        unit: usize,
        /// Bytes of the value.
        found: usize,
    },
    /// A string without the NUL at its end.
    #[error("string is not terminated by a NUL")]
    Unterminated,
    /// A NUL before the end: a list of strings where one is wanted.
    #[error("string has a NUL at byte {at:#x}, before its end")]
    InteriorNul {
        /// Offset of the NUL from the start of the value, in bytes.
        at: usize,
    },
    /// A string that is not UTF-8.
    #[error("string is not UTF-8 at byte {at:#x}")]
    NotUtf8 {
        /// First wrong byte, from the start of the value.
        at: usize,
    },
}

/// The bytes of a property's value. Integers are native endian and may be unaligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(pub(super) &'a [u8]);

impl<'a> Value<'a> {
    /// The bytes of the value.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Exactly `N` bytes.
    ///
    /// # Errors
    ///
    /// [`ValueError::Length`].
    #[inline]
    pub fn array<const N: usize>(self) -> Result<[u8; N], ValueError> {
        self.0.try_into().map_err(|_| ValueError::Length {
            expected: N,
            found: self.0.len(),
        })
    }

    /// A 32-bit integer.
    ///
    /// # Errors
    ///
    /// [`ValueError::Length`].
    #[inline]
    pub fn u32(self) -> Result<u32, ValueError> {
        self.array().map(u32::from_ne_bytes)
    }

    /// A 64-bit integer.
    ///
    /// # Errors
    ///
    /// [`ValueError::Length`].
    #[inline]
    pub fn u64(self) -> Result<u64, ValueError> {
        self.array().map(u64::from_ne_bytes)
    }

    /// One UTF-8 string, given without the single NUL that ends it.
    ///
    /// # Errors
    ///
    /// [`ValueError::Unterminated`], [`ValueError::InteriorNul`], [`ValueError::NotUtf8`].
    pub fn str(self) -> Result<&'a str, ValueError> {
        let Some((0, text)) = self.0.split_last() else {
            return Err(ValueError::Unterminated);
        };
        if let Some(at) = text.iter().position(|byte| *byte == 0) {
            return Err(ValueError::InteriorNul { at });
        }
        core::str::from_utf8(text).map_err(|error| ValueError::NotUtf8 {
            at: error.valid_up_to(),
        })
    }

    /// An array of 64-bit integers; empty for an empty value.
    ///
    /// # Errors
    ///
    /// [`ValueError::Multiple`].
    pub fn u64s(self) -> Result<U64s<'a>, ValueError> {
        match self.0.as_chunks() {
            (items, []) => Ok(U64s(items.iter())),
            _ => Err(ValueError::Multiple {
                unit: 8,
                found: self.0.len(),
            }),
        }
    }

    /// An array of `{u64 addr; u64 len}`, as in a `mem` property; empty for an empty value.
    ///
    /// # Errors
    ///
    /// [`ValueError::Multiple`].
    pub fn mem(self) -> Result<Mem<'a>, ValueError> {
        match self.0.as_chunks() {
            (items, []) => Ok(Mem(items.iter())),
            _ => Err(ValueError::Multiple {
                unit: PAIR,
                found: self.0.len(),
            }),
        }
    }
}

/// The integers of a value, from [`Value::u64s`].
#[derive(Clone, Debug)]
pub struct U64s<'a>(core::slice::Iter<'a, [u8; 8]>);

impl Iterator for U64s<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0.next().map(|bytes| u64::from_ne_bytes(*bytes))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for U64s<'_> {}

/// The ranges of a value, from [`Value::mem`]. A pair that is empty or wraps yields an error; the iterator still yields
/// the pairs after it.
#[derive(Clone, Debug)]
pub struct Mem<'a>(core::slice::Iter<'a, [u8; PAIR]>);

impl Iterator for Mem<'_> {
    type Item = Result<PhysRange, RangeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(pair)
    }

    /// Skips pairs without reading them, because a node may have very many.
    #[inline]
    fn nth(&mut self, number: usize) -> Option<Self::Item> {
        self.0.nth(number).map(pair)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Mem<'_> {}

/// One `{u64 addr; u64 len}`.
#[inline]
fn pair(bytes: &[u8; PAIR]) -> Result<PhysRange, RangeError> {
    let (halves, _) = bytes.as_chunks::<8>();
    let mut numbers = halves.iter().map(|half| u64::from_ne_bytes(*half));
    let addr = numbers.next().unwrap_or(0);
    let len = numbers.next().unwrap_or(0);
    PhysRange::new(PhysAddr::new(addr), len)
}
