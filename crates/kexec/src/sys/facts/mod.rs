//! Facts about the running system. Each fact has one source, and no source is trusted.
//!
//! A reader returns [`FactError`](crate::sys::FactError), which names the file and the value that was wrong. A field is
//! an `Option` if its file may be absent on a supported kernel.

pub mod blocks;
pub mod boot;
pub mod devicetree;
pub mod efi;
pub mod encryption;
pub mod gic;
pub mod host;
pub mod iomem;
pub mod kexec;
pub mod meminfo;
pub mod memmap;
mod next;
pub mod process;
pub mod security;
pub mod zones;
