//! Kernel images: their needs of memory, and the bytes to put there.
//!
//! [`parse`] looks at a file and returns an [`Image`] of any format, or an error that names the kind of the file.
//! Formats are recognised on every host, so that an arm64 kernel given on x86_64 is named. The file is untrusted: every
//! field is checked before it is used, and nothing here panics.
//!
//! | format | accepted |
//! | --- | --- |
//! | bzImage with a 64-bit entry, boot protocol 2.12 or later | yes, see [`bzimage`] |
//! | unified kernel image with such a kernel | taken apart by [`unified`] first |
//! | everything in [`Found`] | no, named in the error |
//!
//! The kernel inside of a bzImage can be laid out beforehand, and entered without the decompressor: [`Vmlinux`].

pub mod bzimage;
mod error;
mod header;
mod initrd;
mod pe;
mod sniff;
mod uki;
mod vmlinux;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use bzimage::BzImage;
pub use error::{BadField, ImageError};
pub use header::{Image, ImageHeader};
pub use initrd::{InitrdError, InitrdKind, check_initrd};
pub use sniff::{Compression, Found, identify};
pub use uki::{Uki, UkiError, unified};
pub use vmlinux::{Packed, Vmlinux, VmlinuxError};

/// A kernel file larger than this is not read. The boot protocol counts the payload in 32-bit units of
/// 16 bytes, but `init_size` (which covers the payload) is a 32-bit number of bytes.
pub const MAX_IMAGE_LEN: u64 = u32::MAX as u64;

/// Recognises and checks an image.
///
/// # Errors
///
/// [`ImageError::Empty`], [`ImageError::WrongFormat`] with the kind that the file has instead, or the fault of the
/// image's header.
pub fn parse<'a>(file: &'a [u8]) -> Result<Box<dyn Image + 'a>, ImageError> {
    if file.is_empty() {
        return Err(ImageError::Empty);
    }
    match identify(file) {
        Found::BzImage => Ok(Box::new(BzImage::parse(file)?)),
        found => Err(ImageError::WrongFormat { found }),
    }
}

/// Reads a kernel file whole, for [`parse`].
///
/// # Errors
///
/// [`ImageError::Read`], [`ImageError::NotAFile`] (a directory, a socket, a device), [`ImageError::Empty`]
/// or [`ImageError::TooLarge`].
pub fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let failed = |source| ImageError::Read {
        path: path.to_owned(),
        source,
    };
    let kind = std::fs::metadata(path).map_err(failed)?;
    if !kind.is_file() {
        return Err(ImageError::NotAFile {
            path: path.to_owned(),
            directory: kind.is_dir(),
        });
    }
    // The length may change after it was looked at: read one byte past the limit and no further.
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(failed)?
        .take(MAX_IMAGE_LEN.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let len = crate::bytes::len64(bytes.len());
    if len > MAX_IMAGE_LEN {
        return Err(ImageError::TooLarge {
            len: kind.len().max(len),
            max: MAX_IMAGE_LEN,
        });
    }
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    Ok(bytes)
}
