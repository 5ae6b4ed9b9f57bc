//! The trace of a Linux kernel: taken while it runs, without consuming anything, and read where that kernel is
//! gone.
//!
//! | part | what |
//! | --- | --- |
//! | [`take`](take()) | the buffers of the top level and of every instance out of a running kernel ([`live`], [`btf`]), with the files of tracefs that explain them ([`meta`]) |
//! | [`ring`], [`read`](mod@read) | pages, events, and their order in time |
//! | [`format`](mod@format), [`expr`], [`eval`], [`printf`] | the kernel's own description of an event, and the line it makes of a record |
//! | [`dat`] | `trace.dat` for `trace-cmd report` and KernelShark |
//! | [`kmsg`] | the kernel log |
//!
//! # How the buffers are read
//!
//! `trace_pipe_raw` gives the pages and takes them out of the buffer, a snapshot empties it. So the pages are
//! read where they are: [`live`] follows the kernel's own structures through memory that root can read
//! (`/proc/kcore`), with the offsets that the running kernel states itself (`/sys/kernel/btf/vmlinux`). Nothing
//! is written, no setting changes, and tracing goes on; a page that tracing overwrites meanwhile is noticed
//! and left out, as it is lost to every other reader too.
//!
//! Everything that comes from memory, from a file or from a handover is hostile: nothing here panics on it.

pub mod btf;
mod bytes;
pub mod dat;
pub mod eval;
pub mod expr;
mod files;
pub mod format;
mod ftrace;
pub mod kmsg;
pub mod live;
pub mod meta;
mod names;
pub mod printf;
pub mod read;
pub mod ring;
mod symbols;
pub mod take;
mod types;
pub mod value;

pub use names::Names;
pub use take::{Taken, take};
