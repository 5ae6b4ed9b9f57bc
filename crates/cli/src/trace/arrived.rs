//! Traces that arrived.

use super::wish::Wish;
use crate::exit::{Fail, Status};
use kho::PhysRange;
use kho::abi::ftrace::{TraceKind, TracePart, Traces};

/// Content of the node `/ftrace`, parsed.
#[derive(Clone, Debug)]
pub struct ArrivedTraces {
    /// Request of the previous kernel. It holds until a command or a rule changes it.
    pub wish: Wish,
    /// Traces, one per kernel, oldest first.
    pub hops: Vec<ArrivedHop>,
}

/// The trace of one kernel.
#[derive(Clone, Debug)]
pub struct ArrivedHop {
    /// Number of the handover at the end of the kernel.
    pub hop: u64,
    /// Release of the kernel.
    pub release: String,
    /// Time at which the trace was taken, in nanoseconds since the epoch.
    pub taken: u64,
    /// Parts of the trace.
    pub parts: Vec<ArrivedPart>,
}

/// A part of a trace.
#[derive(Clone, Debug)]
pub struct ArrivedPart {
    /// Kind of the bytes.
    pub kind: Kind,
    /// Number of bytes.
    pub size: u64,
    /// Ranges of physical memory that hold the bytes, in order.
    pub mem: Vec<PhysRange>,
    /// BLAKE3 hash of the bytes.
    pub blake3: [u8; 32],
}

/// Kind of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Formats and names, which describe the pages.
    Meta,
    /// The kernel log.
    Log,
    /// The buffer of one CPU.
    Cpu {
        /// Name of the array, empty for the top level.
        array: String,
        /// The CPU.
        cpu: u32,
        /// Size of a page, in bytes.
        sub_buffer: u32,
    },
}

impl Kind {
    /// Returns the kind in the form of the state tree.
    pub fn describe(&self) -> TraceKind<'_> {
        match self {
            Self::Meta => TraceKind::Meta,
            Self::Log => TraceKind::Log,
            Self::Cpu {
                array,
                cpu,
                sub_buffer,
            } => TraceKind::Cpu {
                array,
                cpu: *cpu,
                sub_buffer: *sub_buffer,
            },
        }
    }

    /// Returns the name of the kind, for people.
    pub fn label(&self) -> String {
        match self {
            Self::Meta => "formats and names".to_owned(),
            Self::Log => "kernel log".to_owned(),
            Self::Cpu { array, cpu, .. } if array.is_empty() => format!("CPU {cpu}"),
            Self::Cpu { array, cpu, .. } => format!("instance {array}, CPU {cpu}"),
        }
    }
}

impl From<&TracePart<'_>> for ArrivedPart {
    fn from(part: &TracePart<'_>) -> Self {
        let kind = match part.kind {
            TraceKind::Meta => Kind::Meta,
            TraceKind::Log => Kind::Log,
            TraceKind::Cpu {
                array,
                cpu,
                sub_buffer,
            } => Kind::Cpu {
                array: array.to_owned(),
                cpu,
                sub_buffer,
            },
        };
        Self {
            kind,
            size: part.size,
            mem: part.ranges().collect(),
            blake3: part.blake3,
        }
    }
}

impl From<&Traces<'_>> for ArrivedTraces {
    fn from(traces: &Traces<'_>) -> Self {
        Self {
            wish: Wish {
                limit: traces.limit,
                hops: traces.keep_hops,
                configured: traces.configured,
            },
            hops: traces
                .hops
                .iter()
                .map(|hop| ArrivedHop {
                    hop: hop.hop,
                    release: hop.release.to_owned(),
                    taken: hop.taken,
                    parts: hop.parts.iter().map(ArrivedPart::from).collect(),
                })
                .collect(),
        }
    }
}

impl ArrivedTraces {
    /// Returns the newest trace, or the trace with the number `wanted`.
    ///
    /// # Errors
    ///
    /// [`Status::NoSuchEntry`] if there is no such trace.
    pub fn hop(&self, wanted: Option<u64>) -> Result<&ArrivedHop, Fail> {
        let found = match wanted {
            Some(wanted) => self.hops.iter().find(|hop| hop.hop == wanted),
            None => self.hops.last(),
        };
        found.ok_or_else(|| {
            let have: Vec<String> = self.hops.iter().map(|hop| hop.hop.to_string()).collect();
            let what = match wanted {
                Some(hop) => format!("no trace of hop {hop} arrived"),
                None => "no trace arrived".to_owned(),
            };
            let fix = if have.is_empty() {
                "kho keep --trace before the handover".to_owned()
            } else {
                format!("hops with a trace: {}", have.join(", "))
            };
            Fail::new(Status::NoSuchEntry, what).fix(fix)
        })
    }
}

impl ArrivedHop {
    /// Number of bytes of all parts.
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }
}
