//! `struct boot_params`, the "zero page" of the x86 boot protocol: its layout, and the next kernel's.
//!
//! Layout: `arch/x86/include/uapi/asm/bootparam.h` and `Documentation/arch/x86/zero-page.rst`, the same in 6.1, 6.12
//! and 7.3. All fields are little-endian and unaligned. An assertion at compile time pins every offset that kho uses.

mod build;
mod efi;
mod error;
mod layout;
mod memmap;

pub use build::{NextKernel, build};
pub use efi::{EFI_DESCRIPTOR_LEN, EFI_SETUP_DATA_LEN, EfiFacts, EfiRegion};
pub use error::BootParamsError;
pub use layout::{
    BOOT_PARAMS_LEN, BootE820Entry, BootParams, E820_IN_PAGE, EFI64_LOADER_SIGNATURE, EfiInfo,
    HDR_MAX, HDR_OFFSET, SetupHeader,
};
pub use memmap::{E820Kind, MemoryMapEntry};
