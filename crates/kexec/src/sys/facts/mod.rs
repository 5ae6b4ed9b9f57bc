//! Facts about the running system, each read from one place and none of them trusted.
//!
//! A reader returns [`FactError`](crate::sys::FactError), which names the file and the value that was
//! wrong. Where a file may legitimately be absent the field is an `Option`.

pub mod blocks;
pub mod boot;
pub mod efi;
pub mod encryption;
pub mod host;
pub mod iomem;
pub mod kexec;
pub mod meminfo;
pub mod memmap;
mod next;
pub mod process;
pub mod security;
pub mod zones;
