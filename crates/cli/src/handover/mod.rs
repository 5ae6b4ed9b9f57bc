//! The steps from the keep list to a loaded kernel.
//!
//! [`next`] reads the files of the next kernel, and [`enter`] decides where that kernel is entered. [`machine`] reads
//! the facts about this machine that the planner needs, [`content`] measures the kept content, [`prepare`] makes the
//! plan, [`memory`] takes the memory that the load needs, and [`load`] executes the plan, after [`compat`] has checked
//! whether the next side understands it. [`decode`] has the decoders of kernels and initrds. [`time`] estimates the
//! duration. [`steps`] has what all loads share. [`by_initrd`] loads a kernel whose initrd carries the content. [`places`] records the mounts that the content lies on. [`arch`] has the steps that differ between x86_64
//! and arm64.

pub mod arch;
pub mod buffers;
pub mod by_initrd;
pub mod compat;
pub mod content;
pub mod decode;
pub mod describe;
pub mod early;
pub mod enter;
pub mod fresh;
pub mod initrd;
pub mod load;
mod lzop;
pub mod machine;
pub mod memory;
pub mod native;
pub mod next;
pub mod pages;
mod payload;
pub mod placed;
pub mod places;
pub mod prepare;
pub mod steps;
pub mod time;
pub mod unpacked;
