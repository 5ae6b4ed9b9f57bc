//! List of everything that the loader itself hands over.
//!
//! The number of a payload is its index in [`Payloads::iter`]. The planner's blobs, the places in the tree and the
//! hashes have the same numbers.

use super::content::{self, Item};
use super::machine::Machine;
use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status};
use crate::list;
use crate::session::Session;
use crate::state::KeepFile;
use crate::trace::carry::{Carry, Supply, TracePart};
use kho::abi::Carrier;
use kho::{PhysRange, RangeSet};
use kho_archive::Target;

/// The payloads of one load.
pub struct Payloads {
    /// The entries of the keep list, in its order.
    pub items: Vec<Item>,
    /// Traces: this kernel's, and those that arrived and are carried on. Their parts come after the entries.
    pub traces: Option<Carry>,
}

/// One payload.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    /// An entry of the keep list.
    Entry(&'a Item),
    /// A part of a trace.
    Trace(&'a TracePart),
}

impl Payloads {
    /// Measures every entry, and takes the running kernel's trace for handover number `hop`. With `machine`, memory
    /// that arrived stays in place; without it, the load copies all content.
    ///
    /// # Errors
    ///
    /// As [`content::measure`] and [`Carry::gather`].
    pub fn gather(
        session: &Session,
        keep: &KeepFile,
        arrived: Option<&Arrived>,
        machine: Option<&Machine>,
        hop: u64,
        without_trace: bool,
    ) -> Result<Self, Fail> {
        let in_memory = arrived.is_some_and(|arrived| arrived.carrier == Carrier::Memory);
        let machine = machine.filter(|_| in_memory);
        let entries = list::effective(arrived, keep);
        let items = content::measure(entries, arrived, machine.is_some(), session)?;
        // A trace is carried on in place only if all of its memory is still reserved and good.
        let whole = match (machine, arrived) {
            (Some(machine), Some(arrived)) => Some(
                machine
                    .pages
                    .reserved_in(&arrived.reserved()?)?
                    .subtract(&machine.failed)
                    .or_status(Status::Failed)?,
            ),
            _ => None,
        };
        let traces = Carry::gather(session, keep, arrived, hop, whole.as_ref(), without_trace)?;
        Ok(Self { items, traces })
    }

    /// Returns all payloads, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = Payload<'_>> {
        let parts = self.traces.iter().flat_map(Carry::parts);
        let items = self.items.iter().map(Payload::Entry);
        items.chain(parts.map(Payload::Trace))
    }

    /// Returns the number of bytes that the plan places for each payload: 0 for a payload that stays in place.
    pub fn planned_sizes(&self) -> Vec<u64> {
        self.iter()
            .map(|payload| match payload.stays() {
                Some(_) => 0,
                None => payload.size(),
            })
            .collect()
    }

    /// Returns the number of bytes that are copied, and the number of bytes that stay in place.
    pub fn bytes(&self) -> (u64, u64) {
        self.iter()
            .fold((0, 0), |(copied, stay), payload| match payload.stays() {
                Some(_) => (copied, stay + payload.size()),
                None => (copied + payload.size(), stay),
            })
    }

    /// Checks that the ranges of the payloads that stay in place are all still reserved and good, and returns them.
    ///
    /// # Errors
    ///
    /// [`Status::NotReserved`] or [`Status::MemoryFailed`], with the name of the entry.
    pub fn in_place(&self, machine: &Machine) -> Result<RangeSet, Fail> {
        let mut set = RangeSet::new();
        for payload in self.iter() {
            for range in payload.stays().unwrap_or_default() {
                if let Payload::Entry(item) = payload {
                    let label = &item.entry.label;
                    machine.require_still_reserved(*range, label)?;
                    machine.require_good(*range, label, &format!("kho keep --remove {label}"))?;
                }
                set.insert(*range).or_status(Status::Failed)?;
            }
        }
        Ok(set)
    }
}

impl<'a> Payload<'a> {
    /// Returns the size of the payload, in bytes.
    pub fn size(self) -> u64 {
        match self {
            Self::Entry(item) => item.size,
            Self::Trace(part) => part.size,
        }
    }

    /// Returns the ranges of the payload if it stays in place; `None` if the load copies it.
    pub fn stays(self) -> Option<&'a [PhysRange]> {
        match self {
            Self::Entry(item) => item.stays().map(|blob| blob.mem.as_slice()),
            Self::Trace(part) => match &part.supply {
                Supply::Stays(part) => Some(&part.mem),
                Supply::Taken(_) => None,
            },
        }
    }

    /// Returns the name of an entry, for people; `None` for a part of a trace, which takes little time to read.
    pub fn label(self) -> Option<&'a str> {
        match self {
            Self::Entry(item) => Some(&item.entry.label),
            Self::Trace(_) => None,
        }
    }

    /// Writes the content of a payload that is copied.
    ///
    /// # Errors
    ///
    /// As [`Item::write`].
    pub fn write(
        self,
        out: &mut impl Target,
        session: &Session,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Fail> {
        match self {
            Self::Entry(item) => item.write(out, session, progress),
            Self::Trace(part) => match &part.supply {
                Supply::Taken(bytes) => out.put(bytes).or_status(Status::Failed),
                Supply::Stays(_) => Ok(()),
            },
        }
    }
}
