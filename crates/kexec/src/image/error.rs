//! Errors about a kernel file.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::arm64::Arm64ImageError;
use super::field::BadField;
use super::sniff::Found;

/// Reason why kho refuses a file as a kernel.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be read.
    #[error("cannot read the kernel {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The path is a directory, device, pipe or socket.
    #[error("{} is {}, not a kernel: give the path of a vmlinuz file", path.display(),
        if *directory { "a directory" } else { "not a regular file" })]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// Whether the path is a directory.
        directory: bool,
    },
    /// The file has no bytes.
    #[error("the kernel file is empty")]
    Empty,
    /// The file is longer than any kernel.
    #[error("the kernel file is {len:#x} bytes long, a kernel is at most {max:#x}")]
    TooLarge {
        /// Bytes in the file.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The file is not a kernel that kho can load.
    #[error("this is {found}; needed is a bzImage for x86_64 (Debian: /boot/vmlinuz-*-amd64)")]
    WrongFormat {
        /// Kind of the file.
        found: Found,
    },
    /// The file ends before the image does.
    #[error(
        "the bzImage is truncated: {needed:#x} bytes belong to it, the file has {len:#x}, \
         {missing:#x} are missing; copy the file again"
    )]
    Truncated {
        /// Bytes in the file.
        len: u64,
        /// Number of bytes that the header states.
        needed: u64,
        /// Number of bytes missing from the file.
        missing: u64,
    },
    /// The image has a boot protocol before 2.12.
    #[error("the bzImage speaks boot protocol {}.{}, needed is 2.12 (Linux 3.8) or later", version >> 8, version & 0xff)]
    OldProtocol {
        /// Major number in the high byte, minor in the low one.
        version: u16,
    },
    /// `LOADED_HIGH` is not set.
    #[error(
        "the image is a zImage, loaded below 1 MiB (loadflags {loadflags:#x}); needed is a bzImage"
    )]
    LoadedLow {
        /// The field `loadflags`.
        loadflags: u8,
    },
    /// `XLF_KERNEL_64` is not set.
    #[error(
        "the bzImage holds a 32-bit kernel (xloadflags {xloadflags:#x}, no 64-bit entry point); needed is an amd64 kernel"
    )]
    No64BitEntry {
        /// The field `xloadflags`.
        xloadflags: u16,
    },
    /// The kernel must stay at the address for which it was linked, or below 4 GiB.
    #[error(
        "the kernel is not relocatable (relocatable_kernel {relocatable:#x}, xloadflags {xloadflags:#x}): it cannot be placed in the scratch region; with nothing kept, kho kexec starts it without a handover"
    )]
    NotRelocatable {
        /// The field `relocatable_kernel`.
        relocatable: u8,
        /// The field `xloadflags`.
        xloadflags: u16,
    },
    /// The file was to be a kernel for arm64.
    #[error(transparent)]
    Arm64(#[from] Arm64ImageError),
    /// A field holds a value that no kernel build writes.
    #[error("the bzImage header is corrupt: {} at offset {:#x} is {:#x}, {}", .0.field, .0.offset, .0.value, .0.wanted)]
    Corrupt(BadField),
}
