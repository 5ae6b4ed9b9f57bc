//! The steps of a load that depend on the architecture. Both modules have the same items; a build uses one of them.
//!
//! | item | x86_64 | arm64 |
//! | --- | --- | --- |
//! | [`unpack`], [`parse`], [`way`] | bzImage, entered at the kernel inside of it where that is safe | `Image`, also gzip'ed or as EFI zboot, which the load unpacks |
//! | [`Boot`] | `boot_params`, firmware's memory map, UEFI, ACPI | the devicetree |
//! | [`early_ranges`] | memblock and e820 | memblock |

mod parts;

#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
mod arm64;
#[cfg_attr(target_arch = "aarch64", allow(dead_code))]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use arm64::{Boot, EARLY_RANGES, early_ranges, parse, small_table, unpack, way};
pub use parts::{Parts, Scale};
#[cfg(not(target_arch = "aarch64"))]
pub use x86::{Boot, EARLY_RANGES, early_ranges, parse, small_table, unpack, way};
