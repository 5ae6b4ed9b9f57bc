//! Interface for drivers in Rust: a driver hands state and memory to the next kernel, and takes over the state and
//! memory of the previous one.
//!
//! It is the interface of `include/kho.h`, the reference, in Rust. A [`Producer`] in a [`Slot`] writes its node into a
//! [`Context`] when the system enters the active phase. In the next kernel [`Node::find`] finds the node, and
//! [`Node::claim`] claims the node's memory, a [`Memory`]. Errors are kernel [`Errno`]s. No function here allocates or
//! panics.
//!
//! All functions may sleep: call them from process context only. `samples/note` is a driver that uses this interface.
//! The driver's entry points and op tables stay in C, which provides [`ThisModule`].
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
extern crate std;

#[cfg(test)]
#[allow(unsafe_code, reason = "in the place of the boundary")]
mod fake;
#[allow(unsafe_code, reason = "the boundary to kho.ko")]
mod ffi;
#[allow(unsafe_code, reason = "the boundary to kho.ko")]
mod memory;
#[allow(unsafe_code, reason = "the boundary to kho.ko")]
mod node;
#[allow(unsafe_code, reason = "the boundary to kho.ko")]
mod producer;

pub use memory::{Area, Memory};
pub use node::Node;
pub use producer::{Context, Producer, Slot, ThisModule};

/// Bytes that hold every name of a node or property, with its NUL.
pub const NAME_SIZE: usize = 64;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// A negative error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// No memory.
    pub const ENOMEM: Self = Self(-12);
    /// No such node or property.
    pub const ENOENT: Self = Self(-2);
    /// Invalid argument.
    pub const EINVAL: Self = Self(-22);
    /// Claimed or released memory.
    pub const EBUSY: Self = Self(-16);
    /// Not possible at present, such as a claim of memory that the active phase hands over again.
    pub const EAGAIN: Self = Self(-11);
    /// Unexpected content.
    pub const EBADMSG: Self = Self(-74);

    /// The error number in C's form: negative.
    pub const fn code(self) -> i32 {
        self.0
    }

    /// Converts the return value of a kernel function: a negative value is an error.
    fn check(value: i64) -> Result<u64, Self> {
        u64::try_from(value).map_err(|_| Self(i32::try_from(value).unwrap_or(Self::EINVAL.0)))
    }
}

/// A range of physical memory: page-aligned address and length, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Range {
    /// Checks that `kho_prop_mem` would accept the range, as far as kho.ko can check before the active phase.
    ///
    /// # Errors
    ///
    /// Those of `kho_prop_mem` in `include/kho.h`.
    pub fn may_keep(self) -> Result<(), Errno> {
        Errno::check(ffi::kho_may_keep(self.addr, self.len).into()).map(|_| ())
    }
}
