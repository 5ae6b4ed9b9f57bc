//! `/ftrace`: the trace of earlier kernels, and the amount of its own trace that a kernel hands to the next one.
//!
//! # `/ftrace`: `kho-ftrace-v1`
//!
//! Optional. Laid out like the first proposal of KHO for ftrace: an array for the top level and for each instance,
//! below it a node for each CPU whose `mem` are pages of the ring buffer.
//!
//! | property | type | meaning |
//! | --- | --- | --- |
//! | `compatible` | string | [`FTRACE_V1`] |
//! | [`limit`](LIMIT) | u64 | bytes of ring buffer pages that each load takes at most, newest first |
//! | [`keep-hops`](KEEP_HOPS) | u32 | number of kernels whose traces are carried on, at least 1 |
//! | [`configured`](CONFIGURED) | empty, optional | a file of `keep.d` asked for the trace, not a person |
//!
//! # `/ftrace/hop-N`: `kho-ftrace-hop-v1`
//!
//! The trace of the kernel that ended with handover N.
//!
//! | property | type | meaning |
//! | --- | --- | --- |
//! | `compatible` | string | [`FTRACE_HOP_V1`] |
//! | `hop` | u64 | N: 1 up to the tree's `hop`, each once, ascending |
//! | [`release`](RELEASE) | string | `uname -r` of that kernel |
//! | [`taken`](super::TAKEN) | u64 | when the trace was taken |
//!
//! Its children are `meta` ([`FTRACE_META_V1`]: the description that explains the pages, as JSON), `log` ([`KMSG_V1`]:
//! records in the format of `/dev/kmsg`) and `array-0`, `array-1`, … ([`FTRACE_ARRAY_V1`], with [`instance`](INSTANCE),
//! empty for the top level). An array has one child `cpu-N` ([`FTRACE_CPU_V1`]) for each CPU whose buffer is not empty.
//!
//! `meta`, `log` and `cpu-N` are *parts*: like a blob, each has `size`, `mem` and `blake3`. A `cpu-N` also has
//! [`cpu`](CPU) (u32) and [`sub-buffer`](SUB_BUFFER) (u32), the number of bytes of a page of the ring buffer. Its
//! `size` is a multiple of `sub-buffer`: its content is whole pages as `trace_pipe_raw` returns them, oldest first.

use super::numbered::begin_numbered;
use super::{BLAKE3, COMPATIBLE, HOP, MEM, SIZE, TAKEN};
use crate::addr::PhysRange;
use crate::tree::{Value, WriteError, Writer};
use alloc::vec::Vec;

/// Name of the node below the root.
pub const FTRACE: &str = "ftrace";
/// `compatible` of the node [`FTRACE`].
pub const FTRACE_V1: &str = "kho-ftrace-v1";
/// `compatible` of `/ftrace/hop-N`.
pub const FTRACE_HOP_V1: &str = "kho-ftrace-hop-v1";
/// `compatible` of `/ftrace/hop-N/meta`.
pub const FTRACE_META_V1: &str = "kho-ftrace-meta-v1";
/// `compatible` of `/ftrace/hop-N/array-N`.
pub const FTRACE_ARRAY_V1: &str = "kho-ftrace-array-v1";
/// `compatible` of `/ftrace/hop-N/array-N/cpu-N`.
pub const FTRACE_CPU_V1: &str = "kho-ftrace-cpu-v1";
/// `compatible` of `/ftrace/hop-N/log`.
pub const KMSG_V1: &str = "kho-kmsg-v1";
/// `/ftrace`, u64: most bytes of ring buffer pages that each load takes.
pub const LIMIT: &str = "limit";
/// `/ftrace`, u32: number of kernels whose traces are carried on, at least 1.
pub const KEEP_HOPS: &str = "keep-hops";
/// `/ftrace`, empty and optional: a file of `keep.d` asked for the trace, not a person.
pub const CONFIGURED: &str = "configured";
/// `hop-N`, string: release of the kernel.
pub const RELEASE: &str = "release";
/// `array-N`, string: name of the instance.
pub const INSTANCE: &str = "instance";
/// `cpu-N`, u32: number of the CPU.
pub const CPU: &str = "cpu";
/// `cpu-N`, u32: bytes of a page of the ring buffer.
pub const SUB_BUFFER: &str = "sub-buffer";
/// Largest [`SUB_BUFFER`]: 128 pages (`buffer_subbuf_order_write`, `kernel/trace/trace.c`, 6.12).
pub const MAX_SUB_BUFFER: u32 = 128 << 12;
/// Longest [`INSTANCE`], in bytes: Linux's `NAME_MAX` (`include/uapi/linux/limits.h`).
pub const MAX_NAME: usize = 255;

/// Content of `/ftrace`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Traces<'a> {
    /// Most bytes of ring buffer pages that each load takes, newest first.
    pub limit: u64,
    /// Number of kernels whose traces are carried on, at least 1.
    pub keep_hops: u32,
    /// Whether a file of `keep.d` asked for the trace, not a person.
    pub configured: bool,
    /// Traces, one per kernel, oldest first.
    pub hops: Vec<TraceHop<'a>>,
}

/// The trace of one kernel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TraceHop<'a> {
    /// Number of the handover with which the kernel ended.
    pub hop: u64,
    /// Release of the kernel, `uname -r`.
    pub release: &'a str,
    /// When the trace was taken, in ns since the Unix epoch.
    pub taken: u64,
    /// Parts of the trace.
    pub parts: Vec<TracePart<'a>>,
}

/// Kind of a part of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind<'a> {
    /// The description that explains the pages, as JSON.
    Meta,
    /// The kernel log.
    Log,
    /// The buffer of one CPU.
    Cpu {
        /// Name of the array, empty for the top level.
        array: &'a str,
        /// The CPU.
        cpu: u32,
        /// Bytes of a page of the ring buffer.
        sub_buffer: u32,
    },
}

/// A part of a trace: its kind, its length and its memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TracePart<'a> {
    /// Kind of the part.
    pub kind: TraceKind<'a>,
    /// Bytes of content.
    pub size: u64,
    /// BLAKE3 of the content.
    pub blake3: [u8; 32],
    pub(super) mem: Value<'a>,
}

impl<'a> TracePart<'a> {
    /// Memory that holds the content: page-aligned pieces in order. The last piece may have bytes after the end of the
    /// content.
    pub fn ranges(&self) -> impl Iterator<Item = PhysRange> + 'a {
        self.mem.mem().into_iter().flatten().filter_map(Result::ok)
    }
}

/// Content to be written into `/ftrace`.
#[derive(Clone, Copy, Debug)]
pub struct TracesDescription<'a> {
    /// See [`Traces::limit`].
    pub limit: u64,
    /// See [`Traces::keep_hops`].
    pub keep_hops: u32,
    /// See [`Traces::configured`].
    pub configured: bool,
    /// Traces, one per kernel, oldest first.
    pub hops: &'a [TraceHopDescription<'a>],
}

/// Content to be written into `/ftrace/hop-N`.
#[derive(Clone, Copy, Debug)]
pub struct TraceHopDescription<'a> {
    /// Number of the handover with which the kernel ends.
    pub hop: u64,
    /// Release of the kernel, `uname -r`.
    pub release: &'a str,
    /// When the trace was taken, in ns since the Unix epoch.
    pub taken: u64,
    /// Parts of the trace; those of one array stand together.
    pub parts: &'a [TracePartDescription<'a>],
}

/// Content of the node of one part.
#[derive(Clone, Copy, Debug)]
pub struct TracePartDescription<'a> {
    /// Kind of the part.
    pub kind: TraceKind<'a>,
    /// Bytes of content.
    pub size: u64,
    /// Memory that holds the content: page-aligned pieces in order.
    pub mem: &'a [PhysRange],
    /// BLAKE3 of the content.
    pub blake3: [u8; 32],
}

/// Writes `/ftrace`, for [`write_handover_with`](super::write_handover_with).
///
/// # Errors
///
/// [`WriteError`].
pub fn write_traces(w: &mut Writer<'_>, traces: &TracesDescription<'_>) -> Result<(), WriteError> {
    w.begin_node(FTRACE)?;
    w.prop_str(COMPATIBLE, FTRACE_V1)?;
    w.prop_u64(LIMIT, traces.limit)?;
    w.prop_u32(KEEP_HOPS, traces.keep_hops)?;
    if traces.configured {
        w.prop_empty(CONFIGURED)?;
    }
    for hop in traces.hops {
        begin_numbered(w, "hop", hop.hop)?;
        w.prop_str(COMPATIBLE, FTRACE_HOP_V1)?;
        w.prop_u64(HOP, hop.hop)?;
        w.prop_str(RELEASE, hop.release)?;
        w.prop_u64(TAKEN, hop.taken)?;
        write_parts(w, hop.parts)?;
        w.end_node()?;
    }
    w.end_node()
}

fn write_parts(w: &mut Writer<'_>, parts: &[TracePartDescription<'_>]) -> Result<(), WriteError> {
    let mut open: Option<&str> = None;
    let mut arrays = 0u64;
    for part in parts {
        let array = match part.kind {
            TraceKind::Cpu { array, .. } => Some(array),
            TraceKind::Meta | TraceKind::Log => None,
        };
        if open.is_some() && open != array {
            w.end_node()?;
            open = None;
        }
        match part.kind {
            TraceKind::Meta => {
                w.begin_node("meta")?;
                w.prop_str(COMPATIBLE, FTRACE_META_V1)?;
            }
            TraceKind::Log => {
                w.begin_node("log")?;
                w.prop_str(COMPATIBLE, KMSG_V1)?;
            }
            TraceKind::Cpu {
                array,
                cpu,
                sub_buffer,
            } => {
                if open.is_none() {
                    begin_numbered(w, "array", arrays)?;
                    w.prop_str(COMPATIBLE, FTRACE_ARRAY_V1)?;
                    w.prop_str(INSTANCE, array)?;
                    arrays = arrays.saturating_add(1);
                    open = Some(array);
                }
                begin_numbered(w, "cpu", u64::from(cpu))?;
                w.prop_str(COMPATIBLE, FTRACE_CPU_V1)?;
                w.prop_u32(CPU, cpu)?;
                w.prop_u32(SUB_BUFFER, sub_buffer)?;
            }
        }
        w.prop_u64(SIZE, part.size)?;
        w.prop_mem(MEM, part.mem.iter().copied())?;
        w.prop_bytes(BLAKE3, &part.blake3)?;
        w.end_node()?;
    }
    if open.is_some() {
        w.end_node()?;
    }
    Ok(())
}
