//! The trace of a Linux kernel: taken while the kernel runs, without consuming the trace, and read after that kernel is
//! gone.
//!
//! | part | purpose |
//! | --- | --- |
//! | [`take`](take()) | reads the buffers of the top level and of every instance from a running kernel ([`live`], [`btf`]), with the files of tracefs that explain them ([`meta`]) |
//! | [`ring`], [`read`](mod@read) | pages, events, and their order in time |
//! | [`format`](mod@format), [`expr`], [`eval`], [`printf`] | the kernel's description of an event, and the line that it makes of a record |
//! | [`dat`] | `trace.dat` for `trace-cmd report` and KernelShark |
//! | [`kmsg`] | the kernel log |
//!
//! # Reading the buffers
//!
//! `trace_pipe_raw` returns pages and removes them from the buffer; a snapshot empties the buffer. So [`live`] reads
//! the pages in place: it follows the kernel's own structures through memory that root can read (`/proc/kcore`), with
//! the offsets that the running kernel publishes (`/sys/kernel/btf/vmlinux`). It writes nothing and changes no setting,
//! and tracing goes on. If tracing overwrites a page meanwhile, [`live`] notices and leaves the page out; every other
//! reader would lose the page too.
//!
//! Everything that comes from memory, from a file or from a handover is hostile: no such input makes this crate panic.

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
