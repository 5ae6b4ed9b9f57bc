//! Names and paths that people chose.

use super::{MAX_LABEL, MAX_PATH};
use core::fmt;
use thiserror::Error;

/// The name of a blob as the user sees it.
///
/// # Invariants
///
/// 1 to [`MAX_LABEL`] bytes of UTF-8, neither `.` nor `..`, without slashes, NULs and control characters: it can be
/// the name of a file, and be printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label<'a>(&'a str);

/// Why a text is not a [`Label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The text is empty.
    #[error("a name may not be empty")]
    Empty,
    /// The text is longer than [`MAX_LABEL`] bytes.
    #[error("a name of {len} bytes is longer than {MAX_LABEL}")]
    TooLong {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// `.` or `..`.
    #[error("a name may not be `{}`", if *.twice { ".." } else { "." })]
    Dots {
        /// Whether it is `..`.
        twice: bool,
    },
    /// The text has a slash.
    #[error("a name may not have a `/` (at byte {at})")]
    Slash {
        /// Offset of the slash, in bytes.
        at: usize,
    },
    /// The text has a NUL or another control character.
    #[error("a name may not have the control character {code:#04x} (at byte {at})")]
    Control {
        /// Offset of the character, in bytes.
        at: usize,
        /// Code point of the character.
        code: u32,
    },
    /// The bytes are not UTF-8.
    #[error("a name has to be UTF-8, it is not from byte {at} on")]
    NotUtf8 {
        /// Offset of the first wrong byte.
        at: usize,
    },
}

impl<'a> Label<'a> {
    /// `text` as a label.
    ///
    /// # Errors
    ///
    /// The first rule that the text breaks, see [`LabelError`].
    pub fn new(text: &'a str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Err(LabelError::Empty);
        }
        if text.len() > MAX_LABEL {
            return Err(LabelError::TooLong { len: text.len() });
        }
        if text == "." || text == ".." {
            return Err(LabelError::Dots {
                twice: text == "..",
            });
        }
        for (at, character) in text.char_indices() {
            if character == '/' {
                return Err(LabelError::Slash { at });
            }
            if character.is_control() {
                return Err(LabelError::Control {
                    at,
                    code: u32::from(character),
                });
            }
        }
        // INVARIANT: every rule was checked above.
        Ok(Self(text))
    }

    /// `bytes`, as from a command line, as a label.
    ///
    /// # Errors
    ///
    /// [`LabelError::NotUtf8`], and as [`new`](Self::new).
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, LabelError> {
        let text = core::str::from_utf8(bytes).map_err(|error| LabelError::NotUtf8 {
            at: error.valid_up_to(),
        })?;
        Self::new(text)
    }

    /// The text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// Why bytes are not the path of a kept file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path is empty, or longer than [`MAX_PATH`] bytes.
    #[error("a path has 1 to {MAX_PATH} bytes, not {len}")]
    Length {
        /// Length of the path, in bytes.
        len: usize,
    },
    /// The path does not start at the root.
    #[error("a path has to start with a `/`")]
    Relative,
    /// The path has a NUL.
    #[error("a path may not have a NUL (at byte {at})")]
    Nul {
        /// Offset of the NUL, in bytes.
        at: usize,
    },
    /// A part of the path is `.`, `..`, or empty. A part is empty between two adjacent slashes and after a slash at the
    /// end.
    #[error("a path may not have empty parts, `.` or `..` (at byte {at})")]
    Part {
        /// Offset of the first byte of the part.
        at: usize,
    },
}

/// Checks a path of a blob of files: absolute, 1 to [`MAX_PATH`] bytes of any encoding, no NUL. No part between two
/// slashes is empty, `.` or `..`. The root directory is `/`.
///
/// # Errors
///
/// The first rule that the path breaks, see [`PathError`].
pub fn check_path(path: &[u8]) -> Result<(), PathError> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Err(PathError::Length { len: path.len() });
    }
    let Some(rest) = path.strip_prefix(b"/") else {
        return Err(PathError::Relative);
    };
    if let Some(at) = path.iter().position(|byte| *byte == 0) {
        return Err(PathError::Nul { at });
    }
    if rest.is_empty() {
        return Ok(());
    }
    let mut at = 1usize;
    for part in rest.split(|byte| *byte == b'/') {
        if matches!(part, b"" | b"." | b"..") {
            return Err(PathError::Part { at });
        }
        at = at.saturating_add(part.len()).saturating_add(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_file_names_that_print() {
        for good in ["a", "...", "database dump", "été", "-", " "] {
            assert_eq!(Label::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(256);
        for (bad, error) in [
            ("", LabelError::Empty),
            (".", LabelError::Dots { twice: false }),
            ("..", LabelError::Dots { twice: true }),
            ("a/b", LabelError::Slash { at: 1 }),
            ("a\0", LabelError::Control { at: 1, code: 0 }),
            ("ab\x1b[m", LabelError::Control { at: 2, code: 0x1b }),
            ("\u{85}", LabelError::Control { at: 0, code: 0x85 }),
            (&long, LabelError::TooLong { len: 256 }),
        ] {
            assert_eq!(Label::new(bad), Err(error), "{bad:?}");
        }
        assert!(Label::new(&long[..255]).is_ok());
        assert_eq!(
            Label::from_bytes(b"a\xff"),
            Err(LabelError::NotUtf8 { at: 1 })
        );
        let text = std::string::ToString::to_string(&LabelError::Dots { twice: true });
        assert_eq!(text, "a name may not be `..`");
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        for good in [&b"/"[..], b"/var/lib", b"/\xff", b"/a/..b"] {
            assert_eq!(check_path(good), Ok(()), "{good:?}");
        }
        for (bad, error) in [
            (&b""[..], PathError::Length { len: 0 }),
            (b"a", PathError::Relative),
            (b"/a\0b", PathError::Nul { at: 2 }),
            (b"/a/../b", PathError::Part { at: 3 }),
            (b"/a/.", PathError::Part { at: 3 }),
            (b"//a", PathError::Part { at: 1 }),
            (b"/a/", PathError::Part { at: 3 }),
        ] {
            assert_eq!(check_path(bad), Err(error), "{bad:?}");
        }
    }
}
