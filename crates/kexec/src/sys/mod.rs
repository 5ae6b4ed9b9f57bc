//! The running system: facts about it, its memory, and the calls that change it.
//!
//! Everything is read through a [`Root`], and everything that changes the system goes through [`syscalls`]
//! (loading, executing), [`landing`] (taking memory) or [`lock`]; tests replace all of them.
//!
//! | module | what |
//! | --- | --- |
//! | [`syscalls`] | `kexec_load` and its few companions behind one trait, and a fake |
//! | [`facts`] | firmware map, resource map, boot parameters, EFI, kexec state, security, meminfo |
//! | [`pageflags`] | which pages the running kernel has reserved, poisoned or taken offline |
//! | [`physmem`] | reading physical memory, and finding the state tree that arrived |
//! | [`landing`] | memory at known physical addresses, so that `kexec_load` is linear |
//! | [`loaded`] | whose image is loaded |
//! | [`lock`] | one `kho` at a time |
//! | [`mappings`] | files that processes can write to through memory |
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
