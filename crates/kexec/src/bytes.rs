//! Lengths of buffers in memory.

/// Converts a length in memory into a 64-bit number. Lossless: no supported host has longer pointers.
pub(crate) fn len64(len: usize) -> u64 {
    len as u64
}
