//! Content that the previous kernel left, as the verbs see it.

use crate::exit::{Fail, OrStatus, Status};
use crate::shown;
use crate::trace::arrived::ArrivedTraces;
use kho::abi::LeaveOut;
use kho::abi::kernel_part::Reference;
use kho::{PhysRange, RangeSet};
use std::path::PathBuf;

/// A state tree that arrived, checked, and taken apart.
#[derive(Debug)]
pub struct Arrived {
    /// Random number that binds the load to its tree.
    pub generation: u64,
    /// Handovers since the last cold boot, at least 1.
    pub hop: u64,
    /// Release of the kernel that handed over.
    pub previous_release: String,
    /// Time at which the handover was loaded, in nanoseconds since the epoch.
    pub time: u64,
    /// The scratch region, which every later hop uses again.
    pub scratch: PhysRange,
    /// Mem cache: every range that this kernel was told to reserve, in the order of the carrier.
    pub mem_cache: Vec<PhysRange>,
    /// Blobs, in the order of the keep list.
    pub blobs: Vec<Blob>,
    /// Kernel's part, which drivers handed over, as the tree refers to it.
    pub kernel: Option<Reference>,
    /// Traces of earlier kernels.
    pub traces: Option<ArrivedTraces>,
    /// Nodes that this kho does not know: path and compatible.
    pub unknown: Vec<(String, String)>,
}

/// One blob that arrived.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Name of the blob.
    pub label: String,
    /// Path it belongs to; `None` for a raw blob.
    pub path: Option<PathBuf>,
    /// Parts of the path that are left out when it is read again.
    pub leave_out: LeaveOut,
    /// Size of the content, in bytes.
    pub size: u64,
    /// Ranges of physical memory that hold the bytes, in order; whole pages.
    pub mem: Vec<PhysRange>,
    /// BLAKE3 of the bytes.
    pub blake3: [u8; 32],
    /// Time at which the content was taken, in nanoseconds since the epoch.
    pub taken: u64,
    /// Hop count at which the bytes first arrived.
    pub arrived_hop: u64,
}

impl Arrived {
    /// Returns all reserved ranges as a set.
    ///
    /// # Errors
    ///
    /// If memory runs out.
    pub fn reserved(&self) -> Result<RangeSet, Fail> {
        RangeSet::from_ranges(self.mem_cache.iter().copied()).or_status(Status::Failed)
    }

    /// Returns the blob called `name`.
    ///
    /// # Errors
    ///
    /// [`Status::NoSuchEntry`], with the names that exist.
    pub fn blob(&self, name: &std::ffi::OsStr) -> Result<&Blob, Fail> {
        self.blobs
            .iter()
            .find(|b| name == b.label.as_str())
            .ok_or_else(|| {
                let names: Vec<&str> = self.blobs.iter().map(|b| b.label.as_str()).collect();
                let have = if names.is_empty() {
                    "no blob did".to_owned()
                } else {
                    names.join(", ")
                };
                Fail::new(
                    Status::NoSuchEntry,
                    format!("nothing named {} arrived", shown::name(name)),
                )
                .fix(format!("what arrived: {have}"))
            })
    }
}
