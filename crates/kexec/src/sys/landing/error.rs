//! Errors of [`take`](super::LandingZone::take).

use crate::sys::root::FactError;
use std::io;
use thiserror::Error;

/// Reason why there is no landing zone. Without a landing zone a load takes longer ([`slow_load`](super::slow_load));
/// without enough memory there must be no load.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LandingError {
    /// The buffers and the kernel's copy would leave less memory available than the reserve.
    #[error(
        "not enough memory for the load: it takes {needed:#x} bytes and {reserve:#x} must stay free, but \
         {available:#x} are available"
    )]
    NotEnough {
        /// Bytes that the load takes.
        needed: u64,
        /// Bytes that must stay available.
        reserve: u64,
        /// `MemAvailable`, plus the memory that an unload frees first.
        available: u64,
    },
    /// The memory is not contiguous enough: it needs too many runs.
    #[error(
        "memory is too fragmented: the {max_runs} longest contiguous runs hold {covered:#x} of {bytes:#x} \
         bytes; drop caches (vm.drop_caches), compact (vm.compact_memory) or hand over less"
    )]
    Fragmented {
        /// Bytes requested.
        bytes: u64,
        /// Bytes that the runs hold.
        covered: u64,
        /// Largest number of runs.
        max_runs: usize,
    },
    /// Physical addresses are hidden from this process.
    #[error("/proc/self/pagemap shows no addresses to this process: CAP_SYS_ADMIN is needed")]
    Hidden,
    /// A fact could not be read.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// A system call failed.
    #[error("{call} of {bytes:#x} bytes failed")]
    Call {
        /// Name of the call.
        call: &'static str,
        /// Size that was passed to the call, in bytes.
        bytes: u64,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

impl From<kho::OutOfMemory> for LandingError {
    fn from(e: kho::OutOfMemory) -> Self {
        Self::Fact(e.into())
    }
}
