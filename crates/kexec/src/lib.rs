//! Kexec HandOver on Linux: images, boot parameters and carriers (the formats), and the system calls.
//!
//! The formats ([`image`], [`bootparam`], [`carrier`], [`cmdline`], [`cpio`], [`entry`], [`assemble`]) take
//! bytes and give bytes; they do not touch the machine and compile on every host. [`sys`] is where the running
//! system is read and changed.

pub mod assemble;
pub mod bootparam;
mod bytes;
pub mod carrier;
pub mod cmdline;
pub mod cpio;
pub mod entry;
pub mod image;
pub mod stand_in;
pub mod sys;
