//! khofs on the simulated machine: the decisions of the file system, together with kho.ko and over many kernels.
//!
//! The machine, its loader and kho.ko are those of [`module`](crate::module). In a [`Story`] users work with files, and
//! root mounts and releases instances, activates, and starts other kernels. The story compares the results with a
//! model, which has the content of each page of each file, but no chunks, extents or trees. It checks that
//!
//! - a page of a file has the content that was written, over any number of kernels, or gives an error if its memory
//!   failed;
//! - no page is at two places in files, both free and in use, or reused while a user still has it mapped;
//! - khofs and the model agree on the number of pages, inode space, names and attributes;
//! - an operation that khofs refuses changes nothing, and has a reason to be refused;
//! - no memory is lost: khofs has the memory that kho.ko lent and the memory that arrived, and returns all of it.

mod kernel;
mod module;
mod story;
mod vfs;

pub use story::{Story, Tally};
