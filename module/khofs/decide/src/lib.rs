//! The decisions of `khofs.ko`, on top of [`kho`], the core that the loader uses too.
//!
//! | module | decides |
//! | --- | --- |
//! | [`state`] | instances |
//! | [`account`] | what they may use, and what they use |
//! | [`pages`] | which pages go in and out of files |
//! | [`chunks`] | which pages the file system owns, and which one is used next |
//! | [`supply`] | how memory is taken from the system |
//! | [`extents`] | what of a file arrived and is not in the page cache yet |
//! | [`options`] | what a mount asks for |
//! | [`pack`] | how a tree is written down |
//! | [`draft`] | what of one is lost, and where its pages are |
//! | [`check`] | whether to believe one |
//! | [`handover`] | what is said of an instance beside its tree |
//! | [`restore`] | what is made of it |
//! | [`xattr`] | extended attributes |
//! | [`show`] | what `/sys/fs/khofs` says |
//!
//! All modules reach the kernel through a [`system::System`].
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

pub mod account;
pub mod bits;
pub mod check;
pub mod chunks;
pub mod content;
pub mod draft;
pub mod extents;
#[cfg(test)]
mod fake;
pub mod handover;
pub mod options;
pub mod pack;
pub mod pages;
pub mod restore;
pub mod show;
pub mod state;
pub mod supply;
pub mod system;
pub mod xattr;
