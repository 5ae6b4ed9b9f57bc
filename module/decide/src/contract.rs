//! The version of the kernel's part that this module writes and trusts.

use kho::abi::kernel_part::KERNEL_V1;

/// `compatible` of the root of the kernel's part. Tests build a module with the next version, which no other module
/// knows.
pub const CONTRACT: &str = if cfg!(feature = "next-contract") {
    "kho-kernel-v2"
} else {
    KERNEL_V1
};
