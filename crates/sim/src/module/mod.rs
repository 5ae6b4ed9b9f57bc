//! kho.ko on the simulated machine: the decisions of the kernel module, with drivers that come and go.
//!
//! The machine is the [`World`](crate::World) of this crate with its loader and its kernels. A [`Story`] does random
//! things to it and holds what the module allows and refuses, and every page, against a model that knows nothing of how
//! the module decides:
//!
//! - no page has two owners, and none of scratch, of a kernel or of the firmware is a driver's;
//! - a page that a driver has, or that arrived and has no owner yet, holds what was written into it;
//! - what is refused changes nothing;
//! - in the end, when everything was given back, the page allocator has every page.

pub(crate) mod drivers;
pub(crate) mod hop;
pub(crate) mod machine;
mod story;

pub use story::{Story, Tally};
