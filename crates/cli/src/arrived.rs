//! Content that the previous kernel handed over, in the form that the verbs use.

use crate::exit::{Fail, OrStatus, Status};
use crate::shown;
use crate::trace::arrived::ArrivedTraces;
use kho::abi::kernel_part::Reference;
use kho::abi::{Carrier, LeaveOut};
use kho::{PhysRange, RangeSet};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A state tree that arrived, checked and parsed.
#[derive(Debug)]
pub struct Arrived {
    /// Random number that binds the load to its tree.
    pub generation: u64,
    /// Hop count: handovers since the last cold boot, at least 1.
    pub hop: u64,
    /// Release of the kernel that handed over.
    pub previous_release: String,
    /// Time at which the handover was loaded, in nanoseconds since the epoch.
    pub time: u64,
    /// Carrier of the content. Content that the initrd carried is in files, and has no memory of its own.
    pub carrier: Carrier,
    /// The scratch region, which every later hop of the chain reuses; `None` if the initrd was the carrier.
    pub scratch: Option<PhysRange>,
    /// Mem cache: all ranges that the previous kernel's loader told this kernel to reserve, in the order of the
    /// carrier. Empty if the initrd was the carrier.
    pub mem_cache: Vec<PhysRange>,
    /// Blobs, in the order of the keep list.
    pub blobs: Vec<Blob>,
    /// Reference to the kernel's part, which drivers handed over.
    pub kernel: Option<Reference>,
    /// Reason why the kernel's part did not arrive, although the tree names one; `None` otherwise.
    pub no_kernel: Option<String>,
    /// Late mem cache: ranges that the previous kernel's module told this kernel to reserve, each with the number of its
    /// node in the chain.
    pub late: Vec<(PhysRange, u32)>,
    /// Traces of earlier kernels.
    pub traces: Option<ArrivedTraces>,
    /// Nodes that this version of `kho` does not know: path and compatible.
    pub unknown: Vec<(String, String)>,
}

/// Returns the name of a carrier.
pub fn carrier_name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Memory => "memory",
        Carrier::Initrd => "initrd",
    }
}

/// One blob that arrived.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Name of the blob.
    pub label: String,
    /// Path of the content; `None` for a raw blob.
    pub path: Option<PathBuf>,
    /// Parts of the path that a later reading leaves out.
    pub leave_out: LeaveOut,
    /// Size of the content, in bytes.
    pub size: u64,
    /// Ranges of physical memory, or places in files of the initrd, that hold the bytes, in order, in whole pages.
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
        RangeSet::from_ranges(self.ranges()).or_status(Status::Failed)
    }

    /// Returns all reserved ranges: the mem cache, then the late mem cache.
    pub fn ranges(&self) -> impl Iterator<Item = PhysRange> + '_ {
        let late = self.late.iter().map(|(range, _)| *range);
        self.mem_cache.iter().copied().chain(late)
    }

    /// Returns the blob called `name`.
    ///
    /// # Errors
    ///
    /// [`Status::NoSuchEntry`], with the existing names, if there is no such blob.
    pub fn blob(&self, name: &OsStr) -> Result<&Blob, Fail> {
        self.blobs
            .iter()
            .find(|b| name == b.label.as_str())
            .ok_or_else(|| self.no_such("named", name))
    }

    /// Returns all blobs: first those that `first` names, in its order, then the others. In `first`, a name means the
    /// blob with this name. An absolute path means the blob that contains the path, and the blobs below the path.
    ///
    /// # Errors
    ///
    /// [`Status::NoSuchEntry`] if no blob matches a name or a path.
    pub fn in_order(&self, first: &[OsString]) -> Result<Vec<&Blob>, Fail> {
        let mut order: Vec<&Blob> = Vec::new();
        for wanted in first {
            let path = Path::new(wanted);
            if path.is_relative() {
                order.push(self.blob(wanted)?);
                continue;
            }
            let before = order.len();
            order.extend(self.blobs.iter().filter(|blob| {
                let kept = blob.path.as_deref();
                kept.is_some_and(|kept| path.starts_with(kept) || kept.starts_with(path))
            }));
            if order.len() == before {
                return Err(self.no_such("of", wanted));
            }
        }
        order.extend(&self.blobs);
        let mut seen = HashSet::new();
        order.retain(|blob| seen.insert(blob.label.as_str()));
        Ok(order)
    }

    /// Makes the failure for a name or a path that no blob matches.
    fn no_such(&self, relation: &str, name: &OsStr) -> Fail {
        let names: Vec<&str> = self.blobs.iter().map(|b| b.label.as_str()).collect();
        let have = if names.is_empty() {
            "no blob did".to_owned()
        } else {
            names.join(", ")
        };
        Fail::new(
            Status::NoSuchEntry,
            format!("nothing {relation} {} arrived", shown::name(name)),
        )
        .fix(format!("what arrived: {have}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho::PhysAddr;

    fn arrived() -> Arrived {
        let blob = |label: &str, path: Option<&str>| Blob {
            label: label.to_owned(),
            path: path.map(PathBuf::from),
            leave_out: LeaveOut::default(),
            size: 0,
            mem: Vec::new(),
            blake3: [0; 32],
            taken: 0,
            arrived_hop: 1,
        };
        Arrived {
            generation: 1,
            hop: 1,
            previous_release: "6.1".to_owned(),
            time: 1,
            carrier: Carrier::Memory,
            scratch: PhysRange::new(PhysAddr::new(16 << 20), 64 << 20).ok(),
            mem_cache: Vec::new(),
            blobs: vec![
                blob("token", None),
                blob("srv-a", Some("/srv/a")),
                blob("srv-ab", Some("/srv/ab")),
                blob("var", Some("/var")),
            ],
            kernel: None,
            no_kernel: None,
            late: Vec::new(),
            traces: None,
            unknown: Vec::new(),
        }
    }

    fn order(first: &[&str]) -> Result<Vec<String>, Status> {
        let first: Vec<OsString> = first.iter().map(OsString::from).collect();
        let arrived = arrived();
        let order = arrived.in_order(&first).map_err(|fail| fail.status)?;
        Ok(order.iter().map(|blob| blob.label.clone()).collect())
    }

    #[test]
    fn what_is_named_first_comes_first_and_everything_once() {
        let as_is = ["token", "srv-a", "srv-ab", "var"];
        assert_eq!(order(&[]).unwrap(), as_is);
        let var = ["var", "token", "srv-a", "srv-ab"];
        assert_eq!(order(&["var"]).unwrap(), var);
        assert_eq!(order(&["/var/lib/app/state"]).unwrap(), var);
        assert_eq!(order(&["/var", "var", "token"]).unwrap(), var);
        // Paths are compared by whole components.
        assert_eq!(
            order(&["/srv/ab/c"]).unwrap(),
            ["srv-ab", "token", "srv-a", "var"]
        );
        assert_eq!(
            order(&["/srv"]).unwrap(),
            ["srv-a", "srv-ab", "token", "var"]
        );
        for none in ["srv", "/srv/b", "", "var/lib"] {
            assert_eq!(order(&[none]), Err(Status::NoSuchEntry), "{none}");
        }
    }
}
