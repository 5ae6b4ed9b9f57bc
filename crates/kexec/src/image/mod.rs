//! Kernel images: what one needs from memory, and the bytes to put there.
//!
//! [`parse`] looks at a file and returns an [`Image`], whatever its format, or says what the file is
//! instead. Formats are recognised on every host, so that an arm64 kernel given on x86_64 is named. The
//! file is untrusted: every field is checked before it is used, and nothing here panics.
//!
//! | format | accepted |
//! | --- | --- |
//! | bzImage with a 64-bit entry, boot protocol 2.12 or later | yes, see [`bzimage`] |
//! | everything in [`Found`] | no, named in the error |

pub mod bzimage;
mod error;
mod initrd;
mod sniff;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use kho::PhysAddr;

pub use bzimage::BzImage;
pub use error::{BadField, ImageError};
pub use initrd::{InitrdError, InitrdKind, check_initrd};
pub use sniff::{Compression, Found, identify};

/// A kernel file larger than this is not read. The boot protocol counts the payload in 32-bit units of
/// 16 bytes, but `init_size` (which covers the payload) is a 32-bit number of bytes.
pub const MAX_IMAGE_LEN: u64 = u32::MAX as u64;

/// The header of an image, checked: the memory that the kernel asks for, and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageHeader {
    /// Bytes of contiguous RAM from the load address on, a multiple of the page size and at least
    /// `payload_len`. The whole of it has to be the destination of the kernel's segment, not only the
    /// part that the payload fills: the kernel decompresses itself inside it while it still runs on the
    /// page tables that kexec made, and kexec keeps those away from destinations only.
    pub mem_size: u64,
    /// Bytes of the payload, which begins at the load address.
    pub payload_len: u64,
    /// The load address has to be a multiple of this (a power of two, at least a page).
    pub alignment: u64,
    /// Where the kernel was linked to be loaded; any aligned address at or above `lowest` will do.
    pub preferred: PhysAddr,
    /// The lowest load address. Below it the kernel would move itself up, out of its segment.
    pub lowest: PhysAddr,
    /// Kernel, initrd, parameters and command line may be above 4 GiB.
    pub above_4g: bool,
    /// The highest address of the initrd's last byte; `None`: no limit.
    pub initrd_max: Option<PhysAddr>,
    /// Bytes of command line the kernel takes, without the terminating NUL.
    pub cmdline_max: u64,
    /// The kernel can be entered while five-level paging is on: `XLF_5LEVEL`.
    pub five_level: bool,
    /// The kernel uses five-level paging where the processor has it: `XLF_5LEVEL_ENABLED`. Entered with it and without
    /// this, the kernel switches it off first.
    pub five_level_on: bool,
    /// The kernel reserves what `SETUP_INDIRECT` nodes point to, which is all that keeps what is handed over.
    pub setup_indirect: bool,
    /// The kernel can take UEFI runtime services over from another kernel: `XLF_EFI_KEXEC`. One that is built without
    /// kexec would believe that it has them and map nothing for them (`kexec_enter_virtual_mode`,
    /// `arch/x86/platform/efi/efi.c`).
    pub efi_kexec: bool,
}

impl From<&ImageHeader> for kho::image::KernelNeeds {
    /// As the planner wants it.
    fn from(header: &ImageHeader) -> Self {
        Self {
            file_len: header.payload_len,
            mem_size: header.mem_size,
            align: header.alignment,
            preferred: header.lowest,
            above_4g: header.above_4g,
        }
    }
}

/// A kernel that can be placed in memory and entered.
pub trait Image: fmt::Debug {
    /// The format, for people: `bzImage`.
    fn format(&self) -> &'static str;

    /// What `uname -r` will say, if the image tells.
    fn release(&self) -> Option<&str>;

    /// What the image's header says.
    fn header(&self) -> &ImageHeader;

    /// The bytes that go to the load address, [`ImageHeader::payload_len`] of them.
    fn payload(&self) -> &[u8];

    /// Bytes from the load address to the 64-bit entry point, inside the payload.
    fn entry_offset(&self) -> u64;

    /// The x86 setup header, the bytes that belong at offset 0x1f1 of `boot_params`
    /// (at most [`bootparam::HDR_MAX`](crate::bootparam::HDR_MAX) of them).
    fn setup_header(&self) -> &[u8];
}

/// Recognises and checks an image.
///
/// # Errors
///
/// [`ImageError::Empty`], [`ImageError::WrongFormat`] with what the file is instead, or what is wrong with
/// the image's header.
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
