//! The decisions of `khofs.ko`, on top of [`kho`], which the loader uses too.
//!
//! | module | decisions |
//! | --- | --- |
//! | [`state`] | instances |
//! | [`account`] | limits of instances, and their use |
//! | [`pages`] | pages that go into files and leave them |
//! | [`chunks`] | pages that the file system owns, and the choice of the next one |
//! | [`supply`] | allocation of memory from the system |
//! | [`extents`] | parts of a file that arrived and are not in the page cache yet |
//! | [`options`] | mount options |
//! | [`pack`] | the bytes of a tree |
//! | [`draft`] | the lost content of a tree, and its pages |
//! | [`check`] | whether to trust a tree |
//! | [`handover`] | the node of an instance, beside its tree |
//! | [`restore`] | inodes from a tree |
//! | [`xattr`] | extended attributes |
//! | [`show`] | the content of `/sys/fs/khofs` |
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
