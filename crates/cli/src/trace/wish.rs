//! Whether the trace is kept, and how much of it.

use crate::arrived::Arrived;
pub use crate::keepd::parse::parse_size;
use crate::state::KeepFile;
use serde::{Deserialize, Serialize};

/// Bytes of pages that are taken when nobody says otherwise.
pub const DEFAULT_LIMIT: u64 = 16 << 20;
/// Bytes of the kernel log that are taken at most: its buffer has 128 KiB to 1 MiB on Debian, and each record gets
/// some 20 bytes longer as text.
pub const LOG_LIMIT: usize = 4 << 20;

/// That the trace is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Bytes of ring buffer pages at most.
    pub limit: u64,
    /// Of how many kernels.
    pub hops: u32,
    /// Whether `keep.d` asked for it.
    pub configured: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            limit: DEFAULT_LIMIT,
            hops: 1,
            configured: false,
        }
    }
}

impl Wish {
    /// For people.
    pub fn text(&self) -> String {
        let hops = match self.hops {
            1 => "one kernel".to_owned(),
            hops => format!("{hops} kernels"),
        };
        format!(
            "the trace of {hops}, at most {} of each, and its log",
            crate::output::bytes(self.limit)
        )
    }
}

/// What was said in this boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// Nothing: what arrived holds.
    #[default]
    Nothing,
    /// Keep it.
    Keep(Wish),
    /// Do not keep it any more.
    Drop,
}

/// What the next load does.
pub fn effective(arrived: Option<&Arrived>, keep: &KeepFile) -> Option<Wish> {
    match keep.trace {
        Said::Keep(wish) => Some(wish),
        Said::Drop => None,
        Said::Nothing => arrived?.traces.as_ref().map(|traces| traces.wish),
    }
}
