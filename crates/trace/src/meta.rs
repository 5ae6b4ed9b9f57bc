//! Description of a trace: all data beside the buffers that a reader needs after the kernel that wrote them is gone.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of [`Meta`] that is written.
pub const VERSION: u32 = 1;

/// The files of tracefs that belong to a trace, unchanged, and the symbols that the trace mentions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// [`VERSION`].
    pub version: u32,
    /// `uname -r` of the kernel that was traced.
    pub release: String,
    /// `uname -m` of the kernel.
    pub machine: String,
    /// Time at which the trace was taken, in nanoseconds since the Unix epoch.
    pub taken: u64,
    /// Nanoseconds since that kernel booted (`CLOCK_MONOTONIC`), at the same moment.
    pub uptime: u64,
    /// `events/header_page`.
    pub header_page: String,
    /// `events/header_event`.
    pub header_event: String,
    /// `saved_cmdlines`: names of tasks.
    pub cmdlines: String,
    /// `saved_tgids`: processes of tasks.
    pub tgids: String,
    /// `printk_formats`: strings that records point to.
    pub printk_formats: String,
    /// `dynamic_events`: the places and events of the probes. Empty in a trace that was taken before kho carried this
    /// file.
    #[serde(default)]
    pub probes: String,
    /// Lines of `/proc/kallsyms`: the symbols that records point into, and the symbol after each.
    pub symbols: String,
    /// The format of every kind of event in a buffer, and the formats of ftrace itself.
    pub events: Vec<EventText>,
    /// The top level, which has no name, and the instances.
    pub arrays: Vec<ArrayMeta>,
}

/// One `format` file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventText {
    /// Folder below `events`.
    pub system: String,
    /// Its text.
    pub format: String,
}

/// Settings of one trace array.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayMeta {
    /// Name of the instance; empty for the top level.
    pub name: String,
    /// The clock in use, from `trace_clock`.
    pub clock: String,
    /// `current_tracer`.
    pub tracer: String,
    /// `trace_options`, a line each.
    pub options: String,
    /// `tracing_on`.
    pub on: bool,
    /// Every possible CPU, also those with an empty buffer.
    pub cpus: Vec<CpuMeta>,
}

/// One CPU of an array.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuMeta {
    /// Its number.
    pub cpu: u32,
    /// `per_cpu/cpuN/stats`.
    pub stats: String,
    /// Number of pages that the size limit left out, or that tracing overwrote while they were read. They are older
    /// than the pages in the trace.
    pub left_out: u64,
}

/// Reason why a description cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MetaError {
    /// The bytes are not a description that a producer wrote.
    #[error("the description of the trace is damaged")]
    Damaged(#[from] serde_json::Error),
    /// The version of the description is not known.
    #[error("the description of the trace has version {0}, this kho knows {VERSION}")]
    Version(u32),
}

impl Meta {
    /// The description as bytes for the handover.
    ///
    /// # Errors
    ///
    /// None in practice: strings and numbers can always be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>, MetaError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads a description from the bytes of a handover.
    ///
    /// # Errors
    ///
    /// [`MetaError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MetaError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(MetaError::Version(version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The array of this name.
    pub fn array(&self, name: &str) -> Option<&ArrayMeta> {
        self.arrays.iter().find(|array| array.name == name)
    }
}

/// Returns the base from which times of a clock count: times of clocks with the same base can be compared, other times
/// cannot. `local`, `global` and `perf` read one counter (`sched_clock`) in three ways; every other clock has its own
/// base.
pub fn time_base(clock: &str) -> &str {
    match clock {
        "global" | "perf" => "local",
        other => other,
    }
}

/// Whether a clock counts nanoseconds, so that times are shown as seconds (`trace_clocks`, `kernel/trace/trace.c`).
pub fn in_ns(clock: &str) -> bool {
    !matches!(clock, "counter" | "uptime" | "x86-tsc")
}

impl ArrayMeta {
    /// [`time_base`] of the array's clock.
    pub fn time_base(&self) -> &str {
        time_base(&self.clock)
    }

    /// [`in_ns`] of the array's clock.
    pub fn in_ns(&self) -> bool {
        in_ns(&self.clock)
    }

    /// Whether an option is set; `default` if the kernel does not know the option.
    pub fn option(&self, name: &str, default: bool) -> bool {
        for line in self.options.lines() {
            if line == name {
                return true;
            }
            if line.strip_prefix("no") == Some(name) {
                return false;
            }
        }
        default
    }
}
