//! kho.ko on the simulated machine: the decisions of the kernel module, with drivers that are loaded and unloaded.
//!
//! The machine is the [`World`](crate::World) of this crate with its loader and its kernels. A [`Story`] performs
//! random operations on it. It compares the module's answers, and every page, with a model that is independent of the
//! module's decisions. It checks that
//!
//! - no page has two owners, and no driver owns a page of scratch, of a kernel or of the firmware;
//! - a page that a driver has, or that arrived and has no owner yet, has the content that was written;
//! - an operation that the module refuses changes nothing;
//! - at the end, after all memory was returned, the page allocator has every page.

pub(crate) mod drivers;
pub(crate) mod hop;
pub(crate) mod machine;
mod story;

pub use story::{Story, Tally};
