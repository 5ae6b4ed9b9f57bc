//! Replacement of bytes in a tree, for tests that need a wrong tree.

use anyhow::{Result, bail};
use kho::PhysRange;

/// A range in the form of `mem`.
pub fn pair(range: PhysRange) -> [u8; 16] {
    raw_pair(range.start().get(), range.len())
}

/// As [`pair`], for numbers that do not form a range: `{u64 addr; u64 len}`, native endian.
pub fn raw_pair(start: u64, len: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&start.to_ne_bytes());
    bytes[8..].copy_from_slice(&len.to_ne_bytes());
    bytes
}

/// Replaces the only occurrence of `old` by `new`, which has the same length.
///
/// # Errors
///
/// If `old` does not occur, or occurs more than once.
pub fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) -> Result<()> {
    let found: Vec<usize> = bytes
        .windows(old.len())
        .enumerate()
        .filter_map(|(at, window)| (window == old).then_some(at))
        .collect();
    let [at] = found[..] else {
        bail!("{} places to forge where one was expected", found.len());
    };
    bytes[at..at + new.len()].copy_from_slice(new);
    Ok(())
}
