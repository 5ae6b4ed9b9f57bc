//! The request that the trace is kept, with its size.

use crate::arrived::Arrived;
pub use crate::keepd::parse::parse_size;
use crate::state::KeepFile;
pub use crate::state::records::{Said, Wish};

/// Largest number of bytes of pages that are taken, unless a command or a rule says otherwise.
pub const DEFAULT_LIMIT: u64 = 16 << 20;
/// Largest number of bytes of the kernel log that are taken. The log's buffer has 128 KiB to 1 MiB on Debian, and the
/// text of a record is some 20 bytes longer than the record.
pub const LOG_LIMIT: usize = 4 << 20;

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
    /// Returns the request as text, for people.
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

/// Returns the request for the next load; `None` if no trace is kept.
pub fn effective(arrived: Option<&Arrived>, keep: &KeepFile) -> Option<Wish> {
    match keep.trace {
        Said::Keep(wish) => Some(wish),
        Said::Drop => None,
        Said::Nothing => arrived?.traces.as_ref().map(|traces| traces.wish),
    }
}
