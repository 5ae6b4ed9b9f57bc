//! The decisions of `kho.ko`, on top of [`kho`], which the loader uses too.
//!
//! | module | decisions |
//! | --- | --- |
//! | [`arrival`] | the handover from the previous kernel, and whether to trust it |
//! | [`phase`] | the active phase: registration, activation, rollback, abort |
//! | [`late`] | a load that is completed before the jump |
//! | [`store`] | the right to claim or release a page; memory for producers |
//! | [`arena`] | the addresses of memory for producers |
//! | [`lend`] | allocation of memory for producers, without the lock of the store |
//! | [`session`] | the nodes that a producer may write into the tree |
//! | [`chain`] | the ranges that early boot reserved for the handover |
//! | [`iomem`] | RAM, and the ranges of this kernel |
//! | [`holds`] | the producer that holds each node that arrived |
//! | [`show`] | the content of the files in `/sys/kernel/kho` |
//!
//! All modules reach the kernel through a [`system::System`]. [`errno`] and [`text`] have the types for errors and for
//! texts; khofs.ko uses them too.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
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

pub mod arena;
pub mod arrival;
pub mod chain;
mod contract;
pub mod errno;
#[cfg(test)]
mod fake;
pub mod holds;
pub mod iomem;
pub mod late;
pub mod lend;
pub mod nodes;
pub mod pages;
pub mod phase;
pub mod session;
pub mod show;
pub mod store;
pub mod system;
pub mod text;
