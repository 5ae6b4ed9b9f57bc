//! The kernels that guests run, by name or by path.

mod image;
mod modules;
pub mod peer;
mod store;
pub mod version;

pub use image::{Kernel, SUITES};
pub use modules::Module;
pub use store::{Store, names};
