//! The only unsafe code: calls of the kernel's functions, and the functions that C calls.
//!
//! The rules that make it sound: a [`vfs::File`] is reached through the lock of the state only; pages are touched only
//! when [`khofs_decide::chunks::Chunks`] says that an instance owns them and that they are free.
#![allow(unsafe_code)]

#[cfg(not(test))]
mod entry;
#[cfg(not(test))]
mod ffi;
#[cfg(test)]
#[path = "fake.rs"]
mod ffi;
pub mod handover;
pub mod kernel;
pub mod system;
pub mod vfs;
