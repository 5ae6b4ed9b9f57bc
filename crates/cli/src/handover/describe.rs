//! The state tree of a load: its size is measured before the planner places anything, and it is written after that.

use super::content::{Item, Supply};
use super::payload::{Payload, Payloads};
use super::placed::Placed;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::list::Entry;
use crate::module::OutgoingPart;
use crate::trace::carry::Carry;
use kho::PhysRange;
use kho::abi::ftrace::write_traces;
use kho::abi::late::LateReference;
use kho::abi::{BlobDescription, Carrier, Content, Description, Label};
use kho::tree::{WriteError, Writer};
use std::os::unix::ffi::OsStrExt;

/// Facts in the state tree of a load.
pub struct Tree<'a> {
    /// Content that the command hands over.
    pub payloads: &'a Payloads,
    /// Kernel's part, which drivers hand over.
    pub kernel: Option<&'a OutgoingPart>,
    /// Late block, into which the module writes before the jump. The tree then has no other kernel's part.
    pub late: Option<LateReference>,
    /// Carrier of the content.
    pub carrier: Carrier,
    /// Release of the running kernel.
    pub release: &'a str,
    /// Random number that binds the load to its tree.
    pub generation: u64,
    /// Hop count that the next kernel will see.
    pub hop: u64,
    /// Current time, in nanoseconds since the epoch.
    pub time: u64,
    /// The scratch region.
    pub scratch: PhysRange,
    /// Ranges that early boot reserves. The first one holds the state.
    pub mem_cache: &'a [PhysRange],
}

impl Tree<'_> {
    /// Returns the size of the tree in bytes, with a place for each payload.
    ///
    /// # Errors
    ///
    /// [`Status::BadName`] or [`Status::TooLarge`].
    pub fn measure(&self, placed: &[Placed]) -> Result<usize, Fail> {
        self.with(placed, |description, others| {
            kho::abi::measure_handover_with(description, others).or_status(Status::TooLarge)
        })
    }

    /// Writes the tree, and checks it as the next kernel will.
    ///
    /// # Errors
    ///
    /// The errors of [`Tree::measure`], and [`Status::Failed`] if the next kernel would refuse the tree.
    pub fn write(&self, placed: &[Placed]) -> Result<Vec<u8>, Fail> {
        let mut bytes = vec![0; self.measure(placed)?];
        let written = self.with(placed, |description, others| {
            kho::abi::write_handover_with(description, &mut bytes, others).map_err(|err| {
                Fail::new(
                    Status::Failed,
                    format!("cannot describe the handover: {}", chain(&err)),
                )
            })
        })?;
        bytes.truncate(written);
        Ok(bytes)
    }

    /// Calls `with` with the description, and with the function that adds the nodes of drivers and traces.
    fn with<T>(
        &self,
        placed: &[Placed],
        with: impl FnOnce(
            &Description<'_>,
            &dyn Fn(&mut Writer<'_>) -> Result<(), WriteError>,
        ) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        let (entries, parts) = placed
            .split_at_checked(self.payloads.items.len())
            .ok_or_else(|| Fail::new(Status::Failed, "not every payload has a place"))?;
        let blobs = (self.payloads.items.iter().zip(entries))
            .map(|(item, placed)| self.blob(item, placed))
            .collect::<Result<Vec<_>, Fail>>()?;
        let description = Description {
            generation: self.generation,
            hop: self.hop,
            previous_release: self.release,
            machine: std::env::consts::ARCH,
            time: self.time,
            carrier: self.carrier,
            scratch: self.scratch,
            mem_cache: self.mem_cache,
            blobs: &blobs,
        };
        with(&description, &|writer| {
            if let Some(late) = self.late {
                late.write(writer)?;
            } else if let Some(part) = self.kernel {
                part.kernel.reference.write(writer)?;
            }
            let describe = |traces: &Carry| {
                traces.describe(parts, |description| write_traces(writer, description))
            };
            self.payloads.traces.as_ref().map_or(Ok(()), describe)
        })
    }

    fn blob<'b>(&self, item: &'b Item, placed: &'b Placed) -> Result<BlobDescription<'b>, Fail> {
        let label = Label::new(&item.entry.label).or_status(Status::BadName)?;
        let content = content(&item.entry);
        Ok(match &item.supply {
            Supply::Stays(blob) => BlobDescription {
                label,
                content,
                size: blob.size,
                mem: &blob.mem,
                blake3: blob.blake3,
                taken: blob.taken,
                arrived_hop: blob.arrived_hop,
            },
            Supply::Copy { .. } | Supply::Pack(_) | Supply::Arrived(_) => BlobDescription {
                label,
                content,
                size: item.size,
                mem: &placed.mem,
                blake3: placed.blake3,
                taken: match &item.supply {
                    Supply::Copy { taken, .. } => *taken,
                    Supply::Arrived(blob) => blob.taken,
                    _ => self.time,
                },
                arrived_hop: match &item.supply {
                    Supply::Arrived(blob) => blob.arrived_hop,
                    _ => self.hop,
                },
            },
        })
    }
}

/// Returns a placeholder for each payload. A payload that is copied gets the largest number of pieces.
pub fn at_most(payloads: &Payloads, pieces: &[PhysRange]) -> Vec<Placed> {
    let place = |payload: Payload<'_>| match payload.stays() {
        Some(_) => Placed::default(),
        None => Placed {
            mem: pieces.to_vec(),
            blake3: [0; 32],
        },
    };
    payloads.iter().map(place).collect()
}

/// Returns the content of an entry as the tree states it.
fn content(entry: &Entry) -> Content<'_> {
    match &entry.path {
        Some(path) => Content::Files {
            path: path.as_os_str().as_bytes(),
            leave_out: entry.leave_out,
        },
        None => Content::Raw,
    }
}
