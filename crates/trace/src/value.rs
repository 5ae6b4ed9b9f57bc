//! Values of expressions, and common text forms.

use std::borrow::Cow;
use std::fmt::Write;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'r> {
    /// An integer.
    Int {
        /// Bits of the integer; the sign of a signed one is extended.
        bits: u64,
        /// Whether the integer is signed.
        signed: bool,
    },
    /// Bytes of the record: text, or an array of elements of `size` bytes.
    Bytes {
        /// The bytes.
        bytes: Cow<'r, [u8]>,
        /// Bytes of an element.
        size: usize,
        /// Whether elements are signed.
        signed: bool,
    },
    /// No value; the text of the format instead.
    Source(String),
}

/// Bytes as pairs of digits.
pub fn hex(bytes: &[u8], separator: &str) -> String {
    let mut out = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        let _ = write!(out, "{}{byte:02x}", if index > 0 { separator } else { "" });
    }
    out
}

/// A time as the kernel shows it: seconds with microseconds, rounded (`trace_print_time`), or a plain number.
pub fn time(time: u64, in_ns: bool) -> String {
    if !in_ns {
        return format!("{time:>12}");
    }
    let us = time.saturating_add(500) / 1000;
    format!("{:>5}.{:06}", us / 1_000_000, us % 1_000_000)
}
