//! The only unsafe code: calls of the kernel's functions, and the functions that C calls.
//!
//! Code above this module cannot touch a page that it does not own. Types express the ownership: [`pages::Block`] is
//! allocated memory, [`pages::Reserved`] is unclaimed memory that arrived, and [`pages::copy_reserved`] reads only RAM
//! that is PageReserved.
#![allow(unsafe_code)]

mod entry;
#[cfg(not(test))]
mod ffi;
#[cfg(test)]
#[path = "fake.rs"]
pub mod ffi;
pub mod kernel;
pub mod pages;
pub mod producer;
pub mod record;
pub mod system;
pub mod tree;
