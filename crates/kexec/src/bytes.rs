//! Lengths of what is in memory.

/// A length in memory as a 64-bit number. Lossless: no supported host has longer pointers.
pub(crate) fn len64(len: usize) -> u64 {
    len as u64
}
