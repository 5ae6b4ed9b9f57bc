//! Errors of reading the running kernel's parameters and of making the next kernel's.

use kho::PhysRange;
use thiserror::Error;

use super::layout::{BOOT_PARAMS_LEN, HDR_MAX};

/// Reason why the next kernel's parameters were not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BootParamsError {
    /// The running kernel's `boot_params` are not one page long.
    #[error(
        "the running kernel's boot_params are {len:#x} bytes long instead of {BOOT_PARAMS_LEN:#x}; is this x86_64 with /sys mounted?"
    )]
    Length {
        /// Bytes given.
        len: usize,
    },
    /// The image's setup header is longer than its place in `boot_params`.
    #[error("the image's setup header is {len:#x} bytes long, there is room for {HDR_MAX:#x}")]
    SetupHeader {
        /// Bytes given.
        len: usize,
    },
    /// The firmware's memory map has no usable memory.
    #[error(
        "the firmware memory map has no usable memory in its {entries} entries; see /sys/firmware/memmap"
    )]
    NoMemory {
        /// Entries given.
        entries: usize,
    },
    /// There are UEFI facts, but the running kernel was not booted by a 64-bit UEFI.
    #[error("the kernel has UEFI runtime services, but its loader signature is {} instead of 64-bit UEFI's EL64", signature.escape_ascii())]
    EfiSignature {
        /// `efi_info.efi_loader_signature` of the running kernel.
        signature: [u8; 4],
    },
    /// There are UEFI facts without any runtime region.
    #[error(
        "UEFI runtime services without a runtime map; is /sys/firmware/efi/runtime-map there? Boot with efi=noruntime to do without"
    )]
    EfiNoMap,
    /// The range of the UEFI memory map is not as long as the map.
    #[error("the UEFI memory map takes {needed:#x} bytes, but {at:?} has {} for it", at.len())]
    EfiMapLength {
        /// Range of the map.
        at: PhysRange,
        /// Length of the map, in bytes.
        needed: u64,
    },
}
