//! The version of the kernel's part that this module writes and believes.

use kho::abi::kernel_part::KERNEL_V1;

/// `compatible` of its root. Tests build a module of the next contract, which no other one knows.
pub const CONTRACT: &str = if cfg!(feature = "next-contract") {
    "kho-kernel-v2"
} else {
    KERNEL_V1
};
