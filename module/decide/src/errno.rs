//! Errors in the form that callers in the kernel get.

use kho::OutOfMemory;
use kho::tree::{ChecksumError, TreeError, ValueError, WriteError};

/// A positive errno of `include/uapi/asm-generic/errno*.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// No such node, property or range.
pub const ENOENT: Errno = Errno(2);
/// Not RAM.
pub const ENXIO: Errno = Errno(6);
/// Not in the active phase, but after it.
pub const EAGAIN: Errno = Errno(11);
/// No memory.
pub const ENOMEM: Errno = Errno(12);
/// Not allowed in this phase; or claimed or reserved already.
pub const EBUSY: Errno = Errno(16);
/// Name taken.
pub const EEXIST: Errno = Errno(17);
/// The module is being unloaded.
pub const ENODEV: Errno = Errno(19);
/// Bad argument.
pub const EINVAL: Errno = Errno(22);
/// Tree too large.
pub const EFBIG: Errno = Errno(27);
/// Buffer too small.
pub const ENOSPC: Errno = Errno(28);
/// No content.
pub const ENODATA: Errno = Errno(61);
/// A value of another type.
pub const EBADMSG: Errno = Errno(74);
/// Kept already.
pub const EADDRINUSE: Errno = Errno(98);
/// In scratch.
pub const EADDRNOTAVAIL: Errno = Errno(99);
/// The memory failed.
pub const EHWPOISON: Errno = Errno(133);

impl Errno {
    /// The negative number that a C function returns for this error.
    pub const fn code(self) -> i32 {
        self.0.wrapping_neg()
    }

    /// Converts the return value of a C function: the value itself, or the error if the value is negative.
    pub fn check(value: i64) -> Result<u64, Self> {
        u64::try_from(value).map_err(|_| {
            let code = value.checked_neg().and_then(|v| i32::try_from(v).ok());
            Self(code.filter(|c| *c < 4096).unwrap_or(EINVAL.0))
        })
    }
}

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Self {
        ENOMEM
    }
}

impl From<alloc::collections::TryReserveError> for Errno {
    fn from(_: alloc::collections::TryReserveError) -> Self {
        ENOMEM
    }
}

impl From<ValueError> for Errno {
    fn from(_: ValueError) -> Self {
        EBADMSG
    }
}

impl From<WriteError> for Errno {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::TooLarge => EFBIG,
            WriteError::Duplicate { .. } => EEXIST,
            _ => EINVAL,
        }
    }
}

impl From<ChecksumError> for Errno {
    fn from(error: ChecksumError) -> Self {
        match error {
            ChecksumError::Tree(TreeError::DuplicateChild { .. }) => EEXIST,
            ChecksumError::Tree(TreeError::OutOfMemory(_)) => ENOMEM,
            _ => EINVAL,
        }
    }
}

impl From<core::fmt::Error> for Errno {
    /// Text stops when its buffer is full.
    fn from(_: core::fmt::Error) -> Self {
        ENOSPC
    }
}
