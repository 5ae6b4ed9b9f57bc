//! The only unsafe code: the kernel's functions, and what C calls.
//!
//! Above this module nothing can touch a page that it does not own. Who may is a matter of types here:
//! [`pages::Block`] is memory that was allocated, [`pages::Reserved`] memory that arrived and that nobody has
//! claimed, [`pages::copy_reserved`] reads only what is PageReserved RAM.
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
