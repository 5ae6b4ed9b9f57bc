//! What every Rust half needs of the kernel, whatever it is for: the allocator, mutexes, the log.
//!
//! Each module's C files define what [`ffi`] declares. On a host, where nothing of it is there, [`ffi`] is a fake, and
//! memory is allocated as in any program.
#![no_std]
#![allow(unsafe_code, reason = "all of it is boundary")]

#[cfg(target_os = "none")]
mod alloc;
#[cfg(target_os = "none")]
mod ffi;
#[cfg(not(target_os = "none"))]
#[path = "fake.rs"]
mod ffi;
pub mod log;
pub mod sync;

/// Lets others run in long loops.
pub fn relax() {
    ffi::kho_c_relax();
}
