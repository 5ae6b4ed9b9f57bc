//! khofs on the simulated machine: what the file system decides, below kho.ko and through many kernels.
//!
//! The machine, its loader and kho.ko are those of [`module`](crate::module). A [`Story`] has users work with files while
//! root mounts, releases, activates and starts other kernels, and holds everything against a model that knows the content
//! of each page of each file and nothing of chunks, extents or trees:
//!
//! - a page of a file holds what was written into it, over any number of kernels, or is an error if its memory failed;
//! - no page is in two places of files, free and in use, or used while a user still has it mapped;
//! - pages, inode space, names and attributes are counted as the model counts them;
//! - what is refused changes nothing, and no refusal is without a reason;
//! - nothing is lost: khofs has what kho.ko gave it and what arrived, and gives all of it back.

mod kernel;
mod module;
mod story;
mod vfs;

pub use story::{Story, Tally};
