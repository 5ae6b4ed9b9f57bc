//! What can be wrong with a kernel file.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::sniff::Found;

/// A header field with an impossible value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadField {
    /// The field's name in the boot protocol.
    pub field: &'static str,
    /// Its offset in the file.
    pub offset: u64,
    /// What it holds.
    pub value: u64,
    /// What it would have to be.
    pub wanted: &'static str,
}

/// Why a file cannot be booted as a kernel.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file could not be read.
    #[error("cannot read the kernel {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A directory, device, pipe or socket.
    #[error("{} is {}, not a kernel: give the path of a vmlinuz file", path.display(),
        if *directory { "a directory" } else { "not a regular file" })]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// It is a directory.
        directory: bool,
    },
    /// No bytes at all.
    #[error("the kernel file is empty")]
    Empty,
    /// Longer than any kernel.
    #[error("the kernel file is {len:#x} bytes long, a kernel is at most {max:#x}")]
    TooLarge {
        /// Bytes in the file.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// Something else than a kernel that can be loaded.
    #[error("this is {found}; needed is a bzImage for x86_64 (Debian: /boot/vmlinuz-*-amd64)")]
    WrongFormat {
        /// What the file is.
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
        /// Bytes the header asks for.
        needed: u64,
        /// The difference.
        missing: u64,
    },
    /// Boot protocol before 2.12.
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
        /// The field.
        loadflags: u8,
    },
    /// `XLF_KERNEL_64` is not set.
    #[error(
        "the bzImage holds a 32-bit kernel (xloadflags {xloadflags:#x}, no 64-bit entry point); needed is an amd64 kernel"
    )]
    No64BitEntry {
        /// The field.
        xloadflags: u16,
    },
    /// The kernel has to stay at the address it was linked for, or below 4 GiB.
    #[error(
        "the kernel is not relocatable (relocatable_kernel {relocatable:#x}, xloadflags {xloadflags:#x}): it cannot be placed in the scratch region; with nothing kept, kho kexec starts it without a handover"
    )]
    NotRelocatable {
        /// The field `relocatable_kernel`.
        relocatable: u8,
        /// The field `xloadflags`.
        xloadflags: u16,
    },
    /// A field holds what no kernel build writes.
    #[error("the bzImage header is corrupt: {} at offset {:#x} is {:#x}, {}", .0.field, .0.offset, .0.value, .0.wanted)]
    Corrupt(BadField),
}
