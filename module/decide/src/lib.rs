//! The decisions of `kho.ko`, on top of [`kho`], the core that the loader uses too.
//!
//! | module | decides |
//! | --- | --- |
//! | [`arrival`] | what the previous kernel left, and whether to believe it |
//! | [`phase`] | when: registration, activation, rollback, abort |
//! | [`store`] | who may claim or release which page; memory for producers |
//! | [`arena`] | where memory for producers is |
//! | [`lend`] | how a producer gets it, while others go on |
//! | [`session`] | what a producer may write into the tree |
//! | [`chain`] | what early boot was told to reserve |
//! | [`iomem`] | what is RAM, and where this kernel runs |
//! | [`holds`] | which producer has which node that arrived |
//! | [`show`] | what the files in `/sys/kernel/kho` say |
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
pub mod lend;
pub mod pages;
pub mod phase;
pub mod session;
pub mod show;
pub mod store;
pub mod system;
pub mod text;
