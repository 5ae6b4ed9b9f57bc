//! Kernel images: the memory that they need, and the bytes to put there.
//!
//! [`parse`] looks at a file and returns an [`Image`] of any format, or an error that names the kind of the file. The
//! parser recognises all formats on every host, so that the error for an arm64 kernel on x86_64 names it. The file is
//! untrusted: the parser checks every field before it uses the field, and does not panic.
//!
//! | format | accepted |
//! | --- | --- |
//! | bzImage with a 64-bit entry, boot protocol 2.12 or later | yes, see [`bzimage`] |
//! | unified kernel image with such a kernel | taken apart by [`unified`] first |
//! | arm64 `Image` | by [`Arm64Image`], on every host; [`packed_arm64`] finds it in a gzip'ed file or in an EFI zboot kernel |
//! | everything else in [`Found`] | no, named in the error |
//!
//! The loader can lay out the kernel inside a bzImage before the kexec, and enter it without the decompressor:
//! [`Vmlinux`].

mod arm64;
pub mod bzimage;
mod error;
mod field;
mod header;
mod initrd;
mod pe;
mod sniff;
mod uki;
mod vmlinux;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use arm64::{Arm64Image, Arm64ImageError, PackedArm64, packed_arm64};
pub use bzimage::BzImage;
pub use error::ImageError;
pub use field::BadField;
pub use header::{Image, ImageHeader};
pub use initrd::{InitrdError, InitrdKind, check_initrd};
pub use sniff::{Compression, Found, identify};
pub use uki::{Uki, UkiError, unified};
pub use vmlinux::{Packed, Vmlinux, VmlinuxError};

/// Largest length of a kernel file, in bytes. The boot protocol counts the payload in 32-bit units of 16 bytes, but
/// `init_size` (which covers the payload) is a 32-bit number of bytes.
pub const MAX_IMAGE_LEN: u64 = u32::MAX as u64;

/// Recognises and checks an image.
///
/// # Errors
///
/// [`ImageError::Empty`], [`ImageError::WrongFormat`] with the kind of the file, or the fault of the image's header.
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
    // The file may grow after its length was checked: read at most one byte past the limit.
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
