//! The laboratory: what runs guests. Downloads and their cache, kernels and modules built for them, full systems, the media
//! that a guest boots from, QEMU, and the judgement of what a guest says.
//!
//! It knows neither the guest tests nor the packages: `kho-cases` and `kho-dist` are made of it.

pub mod cache;
pub mod command;
pub mod deb;
pub mod guest;
pub mod host;
pub mod kernel;
mod lab;
pub mod module;
pub mod programs;
pub mod qemu;
pub mod run;
pub mod system;
pub mod workspace;

pub use lab::Lab;
