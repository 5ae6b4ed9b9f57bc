//! The parts of the kernel that the Rust half of every module needs: the allocator, mutexes, the log.
//!
//! The C files of each module define the functions that [`ffi`] declares. On a host there are no such C files: [`ffi`]
//! is a fake, and memory is allocated as in any program.
#![no_std]
#![allow(unsafe_code, reason = "all of it is boundary")]

#[cfg(not(target_os = "none"))]
extern crate std;

#[cfg(target_os = "none")]
mod alloc;
#[cfg(target_os = "none")]
mod ffi;
#[cfg(not(target_os = "none"))]
#[path = "fake.rs"]
mod ffi;
pub mod log;
pub mod sync;

/// Number of times that this thread has let other tasks run.
#[cfg(not(target_os = "none"))]
pub fn times_relaxed() -> usize {
    ffi::times_relaxed()
}

/// Lets other tasks run during a long loop.
pub fn relax() {
    ffi::kho_c_relax();
}
