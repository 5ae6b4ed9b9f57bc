//! The checksum over a whole tree.

use super::{Reader, TreeError, ValueError};
use crc::{CRC_32_ISO_HDLC, Crc, Table};
use thiserror::Error;

/// Name of the root's property (u32) that holds the CRC-32/ISO-HDLC of all bytes of the tree, its own
/// four bytes taken as zero.
///
/// It detects accidents, such as a page that was overwritten between two kernels. It does not authenticate: a program
/// that can write the tree can also write the sum.
pub const CHECKSUM: &str = "checksum";

/// Sixteen bytes per step: a tree of megabytes should not take longer to sum than to walk.
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// Why the checksum of a tree could not be computed or does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChecksumError {
    /// The bytes are not a tree.
    #[error("cannot seal what is no state tree")]
    Tree(#[from] TreeError),
    /// The root has no property `checksum`.
    #[error("the root has no `checksum`")]
    Missing,
    /// The property is not a u32.
    #[error("the root's `checksum` is not a 32-bit integer")]
    Malformed(#[source] ValueError),
    /// The bytes changed after they were sealed.
    #[error("checksum over the state tree is {computed:#010x}, it says {stored:#010x}")]
    Mismatch {
        /// The sum in the tree.
        stored: u32,
        /// The sum of the bytes.
        computed: u32,
    },
}

/// Validates the tree at the start of `buf`, computes its checksum, stores it in the root's property
/// and returns it. The property has to be there; its value does not matter.
///
/// # Errors
///
/// [`ChecksumError::Tree`], [`ChecksumError::Missing`], [`ChecksumError::Malformed`]; `buf` is then
/// unchanged.
pub fn seal(buf: &mut [u8]) -> Result<u32, ChecksumError> {
    let (at, _, computed) = compute(&Reader::new(buf)?)?;
    if let Some(slot) = at.checked_add(4).and_then(|end| buf.get_mut(at..end)) {
        slot.copy_from_slice(&computed.to_ne_bytes());
    }
    Ok(computed)
}

/// Checks that the tree is as it was sealed, and returns the checksum.
///
/// # Errors
///
/// [`ChecksumError::Missing`], [`ChecksumError::Malformed`], [`ChecksumError::Mismatch`].
pub fn verify(tree: &Reader<'_>) -> Result<u32, ChecksumError> {
    let (_, stored, computed) = compute(tree)?;
    if stored == computed {
        Ok(stored)
    } else {
        Err(ChecksumError::Mismatch { stored, computed })
    }
}

/// Returns the offset of the checksum in the tree, in bytes, its stored value and its computed value.
fn compute(tree: &Reader<'_>) -> Result<(usize, u32, u32), ChecksumError> {
    let prop = tree.root().prop(CHECKSUM).ok_or(ChecksumError::Missing)?;
    let stored = prop.value().u32().map_err(ChecksumError::Malformed)?;
    let at = tree.blocks().offset(prop.value_at());
    let (before, rest) = tree
        .bytes()
        .split_at_checked(at)
        .ok_or(ChecksumError::Missing)?;
    let computed = sum(&[before, &[0; 4], rest.get(4..).unwrap_or(&[])]);
    Ok((at, stored, computed))
}

/// CRC-32/ISO-HDLC of the bytes of all `parts`, in order.
pub fn sum(parts: &[&[u8]]) -> u32 {
    let mut digest = CRC.digest();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}
