//! The laboratory: it runs guests. It holds downloads and their cache, kernels and the modules built for them, full
//! systems, the media from which a guest boots, QEMU, and the judgement of a guest's output.
//!
//! It depends neither on the guest tests nor on the packages: `kho-cases` and `kho-dist` use it.

mod arch;
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

pub use arch::Arch;
pub use lab::Lab;
