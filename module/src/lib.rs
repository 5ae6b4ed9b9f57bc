//! The Rust half of `kho.ko`.
//!
//! The decisions, which need no kernel, are in [`kho_decide`]. Code that needs the kernel's headers (macros, inline
//! functions, op tables) is in `glue.c`. All unsafe code is in [`boundary`].
//!
//! | module | content |
//! | --- | --- |
//! | [`phase`] | the active phase, with the decisions of [`kho_decide::phase`] |
//! | [`store`] | the store of pages, with the decisions of [`kho_decide::store`] |
//! | [`control`] | the files in `/sys/kernel/kho` |
//!
//! Locks, taken in this order only: [`phase::PHASE`], [`store::STORE`], [`phase::SEALED`].
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
mod control;
mod phase;
mod store;
