//! Kexec HandOver (KHO): the parts that know no operating system.
//!
//! This crate holds the handover *format* and the *decisions*: the state tree that describes what is
//! handed over ([`tree`], [`abi`]), the chain by which it arrives ([`chain`]), physical ranges ([`addr`], [`ranges`]), the needs of an image ([`image`]), the bounded mem cache that early
//! boot honours ([`memcache`]), where the next kernel and everything handed over go ([`scratch`],
//! [`plan`]), and the order in which it may happen ([`phase`]).
//!
//! It performs no I/O, reads no clock and has no global state. Memory comes from the caller's buffers
//! or from fallible allocation; nothing here panics, whatever the input, because the same code runs in
//! a kernel module and reads what a previous kernel left behind.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
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
// `kani` is set by Kani alone, see `proofs`.
#![allow(unexpected_cfgs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi;
pub mod addr;
pub mod bytes;
pub mod chain;
pub mod headroom;
pub mod image;
pub mod memcache;
pub mod phase;
pub mod plan;
#[cfg(any(kani, test))]
mod proofs;
pub mod ranges;
pub mod scratch;
pub mod sort;
#[cfg(test)]
mod testing;
pub mod tree;

pub use addr::{PAGE_SIZE, PhysAddr, PhysRange, RangeError};
pub use ranges::{OutOfMemory, RangeSet};

/// The example in README.md, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
