//! The only unsafe code: the kernel's functions, and what C calls.
//!
//! The rules that make it sound: a [`vfs::File`] is reached through the lock of the state only; pages are touched only
//! when [`crate::chunks::Chunks`] says that an instance owns them and that they are free.
#![allow(unsafe_code)]

#[cfg(not(test))]
#[path = "../../../src/boundary/alloc.rs"]
mod alloc;
#[cfg(not(test))]
mod entry;
#[cfg(not(test))]
mod ffi;
#[cfg(test)]
#[path = "fake.rs"]
mod ffi;
pub mod handover;
pub mod kernel;
#[path = "../../../src/boundary/sync.rs"]
pub mod sync;
pub mod vfs;
