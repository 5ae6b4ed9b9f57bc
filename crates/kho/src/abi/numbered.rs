//! Names of numbered nodes: a prefix, `-`, and a decimal number without leading zeros.

use crate::tree::{WriteError, Writer};
use core::fmt::Write;

/// Begins the node `prefix-number`.
///
/// # Errors
///
/// As [`Writer::begin_node`].
pub(super) fn begin_numbered(
    w: &mut Writer<'_>,
    prefix: &str,
    number: u64,
) -> Result<(), WriteError> {
    let mut name = NumberedName::default();
    // INVARIANT: a prefix of up to 6 bytes, a dash and the digits of any u64 fit in 32 bytes.
    let _ = write!(name, "{prefix}-{number}");
    w.begin_node(name.as_str())
}

/// Whether `name` is `prefix-number`.
pub(super) fn is_numbered(name: &str, prefix: &str, number: u64) -> bool {
    let digits = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'));
    digits.is_some_and(|digits| {
        digits.bytes().all(|digit| digit.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'))
            && digits.parse() == Ok(number)
    })
}

/// The name of a numbered node, built without allocating: up to 6 bytes and at most 20 digits.
#[derive(Default)]
struct NumberedName {
    bytes: [u8; 32],
    len: usize,
}

impl NumberedName {
    fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        core::str::from_utf8(bytes).unwrap_or("")
    }
}

impl Write for NumberedName {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.len.saturating_add(text.len());
        self.bytes
            .get_mut(self.len..end)
            .ok_or(core::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
