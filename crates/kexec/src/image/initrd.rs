//! Check of an initrd's format. A wrong file is easier to diagnose before the load than in early boot.

use thiserror::Error;

use super::sniff::{Compression, Found, identify};

/// Format at the beginning of an initrd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitrdKind {
    /// A newc archive; more may follow it (early microcode, then the compressed rest).
    Cpio,
    /// Compressed from the first byte on.
    Compressed(Compression),
}

/// Reason why kho refuses a file as an initrd.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InitrdError {
    /// The file has no bytes.
    #[error("the initrd is empty; leave the option out to boot without one")]
    Empty,
    /// The file is an LZ4 frame of the current format, which lz4(1) writes by default and no kernel can read
    /// (`lib/decompress_unlz4.c`).
    #[error(
        "the initrd is an LZ4 frame of the current format, and kernels read the legacy one only: make it with lz4 -l"
    )]
    CurrentLz4,
    /// The file is neither a cpio archive nor compressed.
    #[error("the initrd is {found}; needed is a cpio archive (newc), compressed or not")]
    WrongFormat {
        /// Kind of the file.
        found: Found,
    },
}

/// Checks that the kernel's `unpack_to_rootfs` (`init/initramfs.c`) can begin to unpack `file`: it skips
/// zeros, then takes "newc" archives and the compression formats of `lib/decompress.c`.
///
/// # Errors
///
/// [`InitrdError`], with the kind of the file.
pub fn check_initrd(file: &[u8]) -> Result<InitrdKind, InitrdError> {
    if file.is_empty() {
        return Err(InitrdError::Empty);
    }
    let zeros = file.iter().take_while(|b| **b == 0).count();
    let rest = file.get(zeros..).unwrap_or_default();
    match Compression::of(rest) {
        Some(Compression::Lz4) => return Err(InitrdError::CurrentLz4),
        Some(format) => return Ok(InitrdKind::Compressed(format)),
        None => {}
    }
    if rest.starts_with(b"070701") || rest.starts_with(b"070702") {
        return Ok(InitrdKind::Cpio);
    }
    Err(InitrdError::WrongFormat {
        found: identify(file),
    })
}
