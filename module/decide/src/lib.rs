//! What `kho.ko` decides, on [`kho`], the core that the loader uses too.
//!
//! | module | decides |
//! | --- | --- |
//! | [`chain`] | what early boot was told to reserve |
//! | [`iomem`] | what is RAM, and where this kernel runs |
//! | [`holds`] | which producer has which node that arrived |
//!
//! [`errno`] and [`text`] are the words for it, khofs.ko's too.
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

pub mod chain;
pub mod errno;
pub mod holds;
pub mod iomem;
pub mod text;
