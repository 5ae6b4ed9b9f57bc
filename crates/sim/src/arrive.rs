//! Start of the loaded image, and the arrival in the next kernel.

use crate::kernel::{Arrival, Boot};
use crate::load::{PRODUCER, PRODUCER_ID};
use crate::machine::set;
use crate::op::Outcome;
use crate::sets::both;
use crate::world::{Armed, Blob, Held, World};
use kho::abi::kernel_part::{Reference, is_reference};
use kho::abi::{Handover, MEM};
use kho::phase::Machine;
use kho::tree::Reader;
use kho::{PhysRange, RangeSet};

impl World {
    /// Starts the loaded image, and reads what arrives.
    ///
    /// # Errors
    ///
    /// A broken promise; a refusal is an [`Outcome`].
    pub(crate) fn exec(&mut self, kaslr: bool) -> Result<Outcome, String> {
        let Some(armed) = self.armed.clone() else {
            return Ok(Outcome::Refused("nothing is loaded".into()));
        };
        if let Err(refusal) = self.machine.execute(armed.generation, armed.fingerprint) {
            return Ok(Outcome::Refused(refusal.to_string()));
        }
        for (dest, content) in &armed.copies {
            self.memory.write(*dest, *content);
        }
        let garbage = self.fresh();
        let boot = Boot {
            template: &self.template,
            memory: &mut self.memory,
            library: &self.library,
            rng: &mut self.rng,
            kaslr,
            garbage,
        };
        let (kernel, arrival) = boot.warm(&armed.entry)?;
        let arrival = arrival.ok_or("nothing arrived")?;
        self.kernel = kernel;
        self.machine = Machine::new(self.rng.draw());
        self.armed = None;
        self.blobs.clear();
        self.held.clear();
        self.read(&armed, &arrival)?;
        self.library.clear();
        self.stats.hops += 1;
        Ok(Outcome::Hop)
    }

    /// Reads the tree with only what the boot found, and compares it with the promise.
    fn read(&mut self, armed: &Armed, arrival: &Arrival) -> Result<(), String> {
        let promise = &armed.promise;
        let tree = Reader::new(&arrival.tree).map_err(|e| format!("no tree: {e}"))?;
        let handover = Handover::parse(&tree).map_err(|e| format!("no handover: {e:?}"))?;
        if handover.mem_cache != arrival.found.entries {
            return Err("the chain does not reserve what the tree says".into());
        }
        let found = arrival.found.reserved.first().zip(arrival.found.tree);
        let (node, tree_at) = found.ok_or("an empty chain")?;
        let state =
            PhysRange::from_bounds(node.start(), tree_at.end()).map_err(|e| e.to_string())?;
        handover
            .check_state(state)
            .map_err(|e| format!("the state segment: {e}"))?;
        if handover.generation != armed.generation.get() || handover.hop != self.hop + 1 {
            return Err("another handover's tree".into());
        }
        if handover.scratch != promise.scratch {
            return Err(format!("scratch became {}", handover.scratch));
        }
        // A hop leaks no memory: the reserved memory is the planned memory, and no page more.
        if self.kernel.reserved != promise.covered {
            return Err(format!(
                "reserved {:?}, planned {:?}",
                self.kernel.reserved, promise.covered
            ));
        }
        for hidden in self.template.hidden.iter() {
            if self.kernel.reserved.overlaps(hidden) {
                return Err(format!("the firmware table {hidden} is reserved for us"));
            }
        }
        for blob in &handover.blobs {
            let number = blob.label.as_str().strip_prefix("blob ");
            let (head, _) = blob.blake3.split_first_chunk().ok_or("short hash")?;
            self.blobs.push(Blob {
                label: number
                    .and_then(|n| n.parse().ok())
                    .ok_or("a strange label")?,
                id: u64::from_ne_bytes(*head),
                size: blob.size,
                arrived: Some((blob.ranges().collect(), blob.arrived_hop)),
                live: false,
            });
        }
        let mut reference = None;
        for unknown in &handover.unknown {
            if is_reference(&unknown.node) {
                reference = Reference::read(&unknown.node);
                continue;
            }
            if unknown.compatible != PRODUCER {
                return Err(format!("an unknown node {}", unknown.compatible));
            }
            let value = |name: &str| unknown.node.prop(name).map(|p| p.value());
            let id = value(PRODUCER_ID).and_then(|v| v.u64().ok());
            let ranges = value(MEM).and_then(|v| v.mem().ok()).ok_or("no mem")?;
            let ranges = RangeSet::from_ranges(ranges.flatten()).map_err(|e| e.to_string())?;
            self.held.push(Held {
                id: id
                    .map(|id| armed.rewritten.get(&id).copied().unwrap_or(id))
                    .ok_or("no id")?,
                ranges,
            });
        }
        self.part.clone_from(&promise.part);
        if reference != self.part.as_ref().map(|part| part.reference) {
            return Err(format!("the kernel's part is {reference:?}"));
        }
        if self.blobs != promise.blobs || self.held != promise.held {
            return Err(format!(
                "arrived {:?} {:?}, promised {:?} {:?}",
                self.blobs, self.held, promise.blobs, promise.held
            ));
        }
        for blob in &self.blobs {
            self.check_blob(blob)?;
        }
        let kept = self.kept_in_place();
        if kept != both(&kept, &self.kernel.reserved) {
            return Err("something kept is not reserved".into());
        }
        if !both(&kept, &set([promise.scratch])).is_empty() {
            return Err("something kept is in scratch".into());
        }
        self.stats.verified += (self.blobs.len() + self.held.len()) as u64;
        self.scratch = Some(promise.scratch);
        self.state = state.page_outer();
        self.hop += 1;
        Ok(())
    }
}
