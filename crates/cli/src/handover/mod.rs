//! From the keep list to a loaded kernel.
//!
//! [`next`] reads the next kernel's files, [`machine`] what the planner has to know of this machine,
//! [`content`] what is kept and how large it is, [`prepare`] makes the plan, [`memory`] takes what the load needs, and [`load`]
//! carries it out, after [`compat`] has asked whether the next side would understand it. [`time`] says how long that takes.
//! [`places`] remembers the mounts that the content lies on.

pub mod buffers;
pub mod compat;
pub mod content;
pub mod describe;
pub mod early;
pub mod fresh;
pub mod initrd;
pub mod load;
pub mod machine;
pub mod memory;
pub mod next;
pub mod pages;
mod payload;
pub mod placed;
pub mod places;
pub mod prepare;
pub mod time;
pub mod unpacked;
