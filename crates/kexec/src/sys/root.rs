//! Place of `/proc`, `/sys` and `/dev`, and bounded reads from below them.
//!
//! Every fact about the running system is read through a [`Root`], so that tests run against a directory of fixtures.
//! The files are not trusted: the reader bounds sizes and parses numbers strictly, and an error names the file and the
//! value.

use kho::{PhysRange, RangeError};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Largest length, in bytes, of an attribute file that is read as text (a sysfs attribute is at most a page).
pub const ATTRIBUTE_LIMIT: u64 = 64 * 1024;

/// Largest length, in bytes, of a listing that is read as text: `/proc/iomem`, `/proc/cpuinfo` of a machine with very
/// many CPUs.
pub const LISTING_LIMIT: u64 = 64 * 1024 * 1024;

/// Reason why a fact could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FactError {
    /// The file does not exist. The usual cause is a kernel without the option that provides the file.
    #[error("{} does not exist{hint}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Hint at the option that would provide the file, beginning with ": ", or empty.
        hint: &'static str,
    },
    /// The system call failed.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The content of the file differs from the kernel's documentation.
    #[error("{}: expected {expected}, found {found:?}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Expected content of the file, in words.
        expected: &'static str,
        /// Content of the file, cut to 80 characters.
        found: String,
    },
    /// The file is longer than any file that the kernel would provide there.
    #[error("{} is longer than {limit:#x} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        limit: u64,
    },
    /// Start and end do not make a range.
    #[error("{}: not a range of memory", path.display())]
    Range {
        /// The file or directory.
        path: PathBuf,
        /// Rule that start and end break.
        #[source]
        source: RangeError,
    },
    /// Two entries of a map overlap.
    #[error("{}: {first} and {second} overlap", path.display())]
    Overlap {
        /// The directory of the map.
        path: PathBuf,
        /// The lower entry.
        first: PhysRange,
        /// The entry that begins inside it.
        second: PhysRange,
    },
    /// All addresses read as zero, because the kernel hides them from this process.
    #[error("{} shows no addresses to this process: CAP_SYS_ADMIN is needed", path.display())]
    Hidden {
        /// The file.
        path: PathBuf,
    },
    /// A directory has more entries than is plausible.
    #[error("{}: more than {limit} entries", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// The bound.
        limit: usize,
    },
    /// An allocation failed.
    #[error("out of memory")]
    OutOfMemory(#[from] kho::OutOfMemory),
}

impl FactError {
    /// Returns whether the cause is that the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Returns whether the cause is a missing privilege.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Hidden { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            return Self::Missing {
                path: path.to_owned(),
                hint: "",
            };
        }
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn malformed(path: &Path, expected: &'static str, found: &str) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            expected,
            found: found.chars().take(80).collect(),
        }
    }

    /// Returns the same error, with a hint at the option that provides a missing file.
    pub(crate) fn hinted(self, hint: &'static str) -> Self {
        match self {
            Self::Missing { path, .. } => Self::Missing { path, hint },
            other => other,
        }
    }
}

/// Turns "does not exist" into `None`.
pub(crate) trait Optional<T> {
    /// Returns `Ok(None)` if the file does not exist.
    fn optional(self) -> Result<Option<T>, FactError>;
}

impl<T> Optional<T> for Result<T, FactError> {
    fn optional(self) -> Result<Option<T>, FactError> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A prefix for `/proc`, `/sys`, `/dev` and `/run`.
///
/// [`Root::system`] is the real system. A test makes a directory with the files that it needs and uses [`Root::at`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    prefix: PathBuf,
}

impl Default for Root {
    fn default() -> Self {
        Self::system()
    }
}

impl Root {
    /// Returns the root of the running system.
    pub fn system() -> Self {
        Self {
            prefix: PathBuf::from("/"),
        }
    }

    /// Returns the root of a tree of files in another place.
    pub fn at(prefix: impl Into<PathBuf>) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// Returns the path of `relative` (for example `proc/iomem`) below the prefix.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.prefix.join(relative.trim_start_matches('/'))
    }

    /// Returns whether a file or directory exists at this path. A dangling symbolic link counts as missing.
    pub fn exists(&self, relative: &str) -> bool {
        self.path(relative).exists()
    }

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`FactError::TooLong`] if the file is longer, otherwise [`FactError::Missing`] or [`FactError::Io`].
    pub fn bytes(&self, relative: &str, limit: u64) -> Result<Vec<u8>, FactError> {
        let path = self.path(relative);
        let mut out = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut out))
            .map_err(|e| FactError::io(&path, e))?;
        if u64::try_from(out.len()).unwrap_or(u64::MAX) > limit {
            return Err(FactError::TooLong { path, limit });
        }
        Ok(out)
    }

    /// Reads a text file of at most `limit` bytes. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    ///
    /// As [`Root::bytes`].
    pub fn text(&self, relative: &str, limit: u64) -> Result<String, FactError> {
        Ok(String::from_utf8_lossy(&self.bytes(relative, limit)?).into_owned())
    }

    /// Reads an attribute: one line, without the white space around it.
    ///
    /// # Errors
    ///
    /// As [`Root::bytes`].
    pub fn attribute(&self, relative: &str) -> Result<String, FactError> {
        Ok(self.text(relative, ATTRIBUTE_LIMIT)?.trim().to_owned())
    }

    /// Reads an attribute that is a number, decimal or with `0x`.
    ///
    /// # Errors
    ///
    /// As [`Root::bytes`], or [`FactError::Malformed`].
    pub fn number(&self, relative: &str) -> Result<u64, FactError> {
        let text = self.attribute(relative)?;
        parse_number(&text)
            .ok_or_else(|| FactError::malformed(&self.path(relative), "a number", &text))
    }

    /// Reads an attribute that is a decimal number and may be negative.
    ///
    /// # Errors
    ///
    /// As [`Root::number`].
    pub fn signed(&self, relative: &str) -> Result<i64, FactError> {
        let text = self.attribute(relative)?;
        text.parse()
            .map_err(|_| FactError::malformed(&self.path(relative), "a decimal number", &text))
    }

    /// Returns the entries of a directory whose names are decimal numbers, in ascending order.
    ///
    /// # Errors
    ///
    /// [`FactError::TooMany`] if there are more than `limit`, otherwise [`FactError::Missing`] or [`FactError::Io`].
    pub fn numbered(&self, relative: &str, limit: usize) -> Result<Vec<u32>, FactError> {
        let path = self.path(relative);
        let mut out: Vec<u32> = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(|e| FactError::io(&path, e))? {
            let entry = entry.map_err(|e| FactError::io(&path, e))?;
            let Some(number) = entry.file_name().to_str().and_then(|s| s.parse().ok()) else {
                continue;
            };
            if out.len() >= limit {
                return Err(FactError::TooMany { path, limit });
            }
            out.push(number);
        }
        out.sort_unstable();
        Ok(out)
    }
}

/// Parses a number in the kernel's format: `0x1f`, or decimal.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => parse_hex(hex),
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    }
}

/// Parses a hexadecimal number without `0x`.
pub(crate) fn parse_hex(text: &str) -> Option<u64> {
    if text.starts_with('+') {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// Returns the message of an error, followed by those of its causes.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Returns the advice about a missing privilege. A process of root does not get the advice to run as root.
pub fn advice() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "this is root already: look for a missing capability, a container, lockdown or a security policy"
    } else {
        "run as root"
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A directory of files that stands in for the running system.
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    pub(crate) struct Fixture {
        dir: PathBuf,
    }

    impl Fixture {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let dir = std::env::temp_dir().join(format!(
                "kho-fixture-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ));
            std::fs::create_dir_all(&dir).unwrap();
            Self { dir }
        }

        pub(crate) fn root(&self) -> Root {
            Root::at(&self.dir)
        }

        pub(crate) fn put(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
            let path = self.dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
            self
        }

        pub(crate) fn remove(&self, path: &str) -> &Self {
            let path = self.dir.join(path);
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else {
                std::fs::remove_file(path).unwrap();
            }
            self
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::Fixture;
    use super::*;

    #[test]
    fn numbers_are_strict() {
        assert_eq!(parse_number("0x1f"), Some(31));
        assert_eq!(parse_number("31"), Some(31));
        for bad in [
            "",
            "0x",
            "-1",
            "+1",
            "0x+1",
            "1 ",
            "0x1g",
            "0x10000000000000000",
        ] {
            assert_eq!(parse_number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn errors_name_the_file_and_the_value() {
        let f = Fixture::new();
        f.put("sys/a", "what\n").put("sys/long", vec![b'x'; 70_000]);
        let text = f.root().number("sys/a").unwrap_err().to_string();
        assert!(text.contains("sys/a") && text.contains("what"), "{text}");
        assert!(matches!(
            f.root().attribute("sys/long"),
            Err(FactError::TooLong {
                limit: ATTRIBUTE_LIMIT,
                ..
            })
        ));
        assert!(f.root().number("sys/none").unwrap_err().is_missing());
    }

    #[test]
    fn numbered_entries_are_sorted_as_numbers_and_bounded() {
        let f = Fixture::new();
        for n in ["0", "10", "9", "x"] {
            f.put(&format!("sys/d/{n}/v"), "");
        }
        assert_eq!(f.root().numbered("sys/d", 3).unwrap(), [0, 9, 10]);
        assert!(matches!(
            f.root().numbered("sys/d", 2),
            Err(FactError::TooMany { limit: 2, .. })
        ));
    }
}
