//! Strings in buffers of fixed size, and the kernel's command line.

use core::ffi::CStr;

use crate::sys::{ENAMETOOLONG, Errno};

/// A string of at most `N - 1` bytes.
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// Joins the parts.
    pub fn new(parts: &[&[u8]]) -> Result<Self, Errno> {
        let mut text = Self {
            bytes: [0; N],
            len: 0,
        };
        for byte in parts.iter().flat_map(|p| p.iter()) {
            // One byte stays 0 to end the string.
            if text.len + 1 >= N {
                return Err(ENAMETOOLONG);
            }
            *text.bytes.get_mut(text.len).ok_or(ENAMETOOLONG)? = *byte;
            text.len += 1;
        }
        Ok(text)
    }

    /// Returns the string, up to a NUL in it.
    pub fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// Returns whether the kernel counts a byte as white space: `lib/ctype.c`, Latin-1.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

/// Returns the arguments before `--`, as name and value (empty without `=`), like `next_arg` in `lib/cmdline.c`.
pub fn arguments(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = line;
    core::iter::from_fn(move || {
        let start = rest.iter().position(|b| !is_space(*b))?;
        rest = rest.get(start..)?;
        let mut in_quote = false;
        let end = rest
            .iter()
            .position(|b| {
                in_quote ^= *b == b'"';
                is_space(*b) && !in_quote
            })
            .unwrap_or(rest.len());
        let (word, behind) = rest.split_at_checked(end)?;
        rest = behind;
        let word = unquote(word);
        if word == b"--" {
            rest = b"";
            return None;
        }
        Some(match word.iter().position(|b| *b == b'=') {
            Some(at) if at > 0 => (word.get(..at)?, unquote(word.get(at + 1..)?)),
            _ => (word, Default::default()),
        })
    })
}

fn unquote(word: &[u8]) -> &[u8] {
    match word.strip_prefix(b"\"") {
        Some(inner) => inner.strip_suffix(b"\"").unwrap_or(inner),
        None => word,
    }
}

/// Parses a decimal number; 0 if the text does not begin with a digit.
pub fn number(text: &[u8]) -> u64 {
    text.iter()
        .take_while(|b| b.is_ascii_digit())
        .fold(0u64, |n, b| {
            n.saturating_mul(10).saturating_add(u64::from(b - b'0'))
        })
}
