//! The size of a huge page.

/// Size, in bytes, of a huge page of x86_64, and of arm64 with 4 KiB pages.
pub const HUGE: u64 = 2 << 20;
/// Size of a huge page as a length in this address space.
pub(super) const HUGE_LEN: usize = 2 << 20;
