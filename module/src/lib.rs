//! The Rust half of `kho.ko`.
//!
//! What is decided, is decided here, on [`kho`], the core that the loader uses too. What only the kernel's
//! headers can say (macros, inline functions, op tables) is in `glue.c`. All unsafe code is in [`boundary`].
//!
//! | module | decides |
//! | --- | --- |
//! | [`arrival`] | what the previous kernel left, and whether to believe it |
//! | [`store`] | who may claim or release which page; memory for producers |
//! | [`holds`] | which producer has which node that arrived |
//! | [`session`] | what a producer may write into the tree |
//! | [`phase`] | when: registration, activation, rollback, abort |
//! | [`control`] | what the files in `/sys/kernel/kho` say and do |
//!
//! Locks, taken in this order only: [`phase::PHASE`], [`store::STORE`], [`phase::SEALED`].
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

mod arena;
mod arrival;
mod boundary;
mod chain;
mod contract;
mod control;
mod errno;
mod holds;
mod iomem;
mod phase;
mod session;
mod store;
mod text;
