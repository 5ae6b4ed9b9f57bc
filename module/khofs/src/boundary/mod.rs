//! The only unsafe code: calls of the kernel's functions, and the functions that C calls.
//!
//! The rules of soundness: code reaches a [`vfs::File`] only with the lock of the state held; code touches pages only
//! if an instance owns them in [`khofs_decide::chunks::Chunks`] and they are free there.
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
