//! The Rust half of `khofs.ko`, a RAM file system whose files stay in place over a kexec.
//!
//! The decisions, which need no kernel, are in [`khofs_decide`]. Code that needs the kernel's headers (macros, inline
//! functions, op tables) is in the C files. All unsafe code is in [`boundary`].
//!
//! | module | content |
//! | --- | --- |
//! | [`state`] | the end of an instance |
//! | [`pages`] | return of memory to the system |
//! | [`carry`] | the handover, on both sides |
//! | [`control`] | the files in `/sys/fs/khofs` |
//!
//! One lock, [`state::STATE`], protects all state. A caller may take it with page locks and inode locks held. A caller
//! that holds it must not take a page lock or an inode lock.
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    // Host tests use the logic, not the functions that C calls.
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
