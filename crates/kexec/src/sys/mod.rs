//! The running system: facts about it, its memory, and the calls that change it.
//!
//! All reads go through a [`Root`], and all changes of the system go through [`syscalls`] (loading, executing),
//! [`landing`] (taking memory) or [`lock`]; tests replace all of them.
//!
//! | module | content |
//! | --- | --- |
//! | [`syscalls`] | `kexec_load` and related calls behind one trait, and a fake |
//! | [`facts`] | firmware map, resource map, boot parameters, EFI, kexec state, security, meminfo |
//! | [`pageflags`] | pages that the running kernel has reserved, poisoned or taken offline |
//! | [`physmem`] | readers of physical memory, and the search for the state tree that arrived |
//! | [`landing`] | memory at known physical addresses, so that `kexec_load` is linear |
//! | [`loaded`] | identity of the loaded image |
//! | [`lock`] | lock that allows one `kho` at a time |
//! | [`mappings`] | files to which processes can write through memory |
//! | [`doctor`] | all findings about this machine in one list |

pub mod doctor;
pub mod facts;
pub mod landing;
pub mod loaded;
pub mod lock;
pub mod mappings;
pub mod pageflags;
pub mod physmem;
pub mod root;
mod symbols;
pub mod syscalls;

pub use root::{FactError, Root};
