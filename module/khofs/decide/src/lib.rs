//! What `khofs.ko` decides, on [`kho`], the core that the loader uses too.
//!
//! | module | decides |
//! | --- | --- |
//! | [`chunks`] | which pages the file system owns, and which one is used next |
//! | [`extents`] | what of a file arrived and is not in the page cache yet |
//! | [`options`] | what a mount asks for |
//! | [`pack`] | how a tree is written down |
//! | [`check`] | whether to believe one |
//! | [`xattr`] | extended attributes |
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

pub mod bits;
pub mod check;
pub mod chunks;
pub mod extents;
pub mod options;
pub mod pack;
pub mod xattr;
