//! The Rust half of `khofs.ko`, a RAM file system whose files survive kexec in place.
//!
//! The decisions, which need no kernel, are in [`khofs_decide`]. Code that needs the kernel's headers (macros, inline
//! functions, op tables) is in the C files. All unsafe code is in [`boundary`].
//!
//! | module | does |
//! | --- | --- |
//! | [`state`] | how an instance ends |
//! | [`pages`] | when memory goes back to the system |
//! | [`carry`] | handing over, and receiving |
//! | [`control`] | what `/sys/fs/khofs` says and does |
//!
//! One lock, [`state::STATE`], protects all state. It may be taken with page locks and inode locks held, never the
//! other way round.
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    // Host tests reach the logic, not the entries that C calls.
    allow(
        dead_code,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod boundary;
mod carry;
mod control;
mod pages;
mod restore;
mod state;
