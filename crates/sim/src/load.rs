//! Plan and load, as in the command.

use crate::chain;
use crate::kernel::{Entry, Stored};
use crate::machine::set;
use crate::memory::Content as Bytes;
use crate::op::{Cut, Outcome};
use crate::sets::{aligned, minus, take_top};
use crate::world::{Armed, Blob, Mistake, Promise, World};
use kho::abi::{
    BlobDescription, COMPATIBLE, Content, Description, Label, MACHINE_X86_64, MEM,
    measure_handover_with, write_handover_with,
};
use kho::image::ImageNeeds;
use kho::phase::{Fingerprint, Generation, Phase};
use kho::plan::{Limits, PayloadNeeds, Plan, PlanRequest, ScratchSource, plan};
use kho::tree::{WriteError, Writer};
use kho::{PAGE_SIZE, PhysRange, RangeSet};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Number of segments for state and blobs.
const PAYLOAD_SEGMENTS: usize = 12;

/// `compatible` of a producer's node.
pub(crate) const PRODUCER: &str = "sim-producer-v1";

/// Property of a producer's node: the id of its content.
pub(crate) const PRODUCER_ID: &str = "content-id";

impl World {
    /// Plans, writes the state, and loads.
    ///
    /// # Errors
    ///
    /// A broken promise; a refusal is an [`Outcome`].
    pub(crate) fn load(
        &mut self,
        image: &ImageNeeds,
        landing: bool,
        cut: Cut,
    ) -> Result<Outcome, String> {
        // No change before the plan is complete, so that a refusal leaves even an older image loaded.
        let live: Vec<u64> = self
            .blobs
            .iter()
            .map(|b| if b.live { b.size } else { 0 })
            .collect();
        let in_place = self.kept_in_place();
        let mut zones = vec![minus(&self.kernel.reserved, &in_place)];
        let state = self.state_bound()?;
        if landing {
            let need = live.iter().sum::<u64>() + state;
            let outside = minus(&self.kernel.free(&self.template), &set(self.scratch));
            let mut huge = aligned(&outside, 2 << 20);
            let need = need.next_multiple_of(2 << 20);
            zones.extend(take_top(&mut huge, need));
        }
        let nothing = RangeSet::new();
        let unless = |mistake, set| {
            if self.mistake == Some(mistake) {
                &nothing
            } else {
                set
            }
        };
        let request = PlanRequest {
            ram: &self.template.ram,
            pinned: unless(Mistake::NothingPinned, &self.kernel.pinned),
            in_place: unless(Mistake::NothingInPlace, &in_place),
            scratch: match self.hop {
                0 => ScratchSource::Choose { size: None },
                _ if self.mistake == Some(Mistake::NewScratch) => {
                    ScratchSource::Choose { size: None }
                }
                _ => ScratchSource::Recorded(self.scratch),
            },
            image: *image,
            payload: PayloadNeeds {
                state,
                blobs: &live,
            },
            landing: &zones,
            cmdline: b"console=ttyS0 quiet",
            user_space: kho::headroom::UserSpace::default(),
            limits: Limits {
                max_entries: match self.mistake {
                    Some(Mistake::NoCap) => usize::MAX,
                    _ => self.template.cap,
                },
                max_payload_segments: PAYLOAD_SEGMENTS,
                load_limit: self.kernel.managed / 2,
            },
        };
        let plan = match plan(&request) {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Outcome::Refused(refusal.to_string())),
        };
        plan.check_invariants(&request)
            .map_err(|v| format!("the planner's own second look: {v}"))?;
        self.second_opinion(&plan)?;

        if self.machine.phase() != Phase::Idle || self.armed.is_some() {
            self.unload()?;
        }
        let generation = self.machine.activate().map_err(|e| e.to_string())?;
        self.note(generation)?;
        if cut == Cut::Activated {
            return Ok(Outcome::Done);
        }
        let armed = self.write_down(image, &plan, generation, state)?;
        if cut == Cut::Written {
            return Ok(Outcome::Done);
        }
        if cut == Cut::SyscallFails {
            self.unload()?;
            return Ok(Outcome::Done);
        }
        let fingerprint = armed.fingerprint;
        self.stats.most_entries = self.stats.most_entries.max(plan.mem_cache.entries().len());
        self.stats.most_slack = self.stats.most_slack.max(plan.totals.slack);
        self.armed = Some(armed);
        if cut == Cut::Loaded {
            return Ok(Outcome::Done);
        }
        self.machine
            .load(generation, fingerprint)
            .map_err(|e| e.to_string())?;
        Ok(Outcome::Done)
    }

    /// Checks the plan against facts that the planner did not get: the real addresses of firmware data, and that
    /// scratch has not moved.
    fn second_opinion(&self, plan: &Plan) -> Result<(), String> {
        for table in self.template.hidden.iter() {
            let covered = plan.mem_cache.ranges().find(|r| r.overlaps(table));
            let hit = covered.or_else(|| {
                plan.segments
                    .iter()
                    .map(|s| s.dest)
                    .find(|r| r.overlaps(table))
            });
            if let Some(hit) = hit {
                return Err(format!("{hit} covers the firmware table {table}"));
            }
            // The first scratch avoids the table. Every later scratch is the same range, so it avoids the table too.
            if plan.scratch.overlaps(table) {
                return Err(format!(
                    "scratch {} is on the firmware table {table}",
                    plan.scratch
                ));
            }
        }
        if let Some(recorded) = self.scratch.filter(|s| *s != plan.scratch) {
            return Err(format!("scratch moved from {recorded} to {}", plan.scratch));
        }
        Ok(())
    }

    /// Returns an upper bound of the length of the state segment, in bytes.
    fn state_bound(&self) -> Result<u64, String> {
        let page = PhysRange::new(kho::PhysAddr::new(0), PAGE_SIZE).map_err(|e| e.to_string())?;
        let scratch = page;
        let most = vec![page; PAYLOAD_SEGMENTS + 1];
        // With the mistake `NoCap` there may be one entry for each range.
        let ranges: usize = self.held.iter().map(|h| h.ranges.len()).sum();
        let cache = vec![page; self.template.cap + ranges];
        let labels = self.labels();
        let blobs: Vec<BlobDescription<'_>> = self
            .blobs
            .iter()
            .zip(&labels)
            .map(|(blob, label)| self.describe(blob, label, &most))
            .collect::<Result<_, _>>()?;
        let description = self.description(Generation::from_raw(0), scratch, &cache, &blobs);
        let tree = measure_handover_with(&description, |w| self.producers(w))
            .map_err(|e| e.to_string())?;
        Ok(chain::chain_len(cache.len() as u64) + tree as u64)
    }

    fn labels(&self) -> Vec<String> {
        self.blobs
            .iter()
            .map(|b| format!("blob {}", b.label))
            .collect()
    }

    /// Returns the description of `blob` in the tree. `pieces` are the ranges to which the blob is copied. A blob that
    /// is handed on without a copy has the ranges in which it arrived.
    fn describe<'a>(
        &'a self,
        blob: &'a Blob,
        label: &'a str,
        pieces: &'a [PhysRange],
    ) -> Result<BlobDescription<'a>, String> {
        let carried = blob.arrived.as_ref().filter(|_| !blob.live);
        let mut blake3 = [0; 32];
        blake3[..8].copy_from_slice(&blob.id.to_ne_bytes());
        Ok(BlobDescription {
            label: Label::new(label).map_err(|e| e.to_string())?,
            content: Content::Raw,
            size: blob.size,
            mem: carried.map_or(pieces, |(pieces, _)| pieces),
            blake3,
            taken: self.hop,
            arrived_hop: carried.map_or(self.hop + 1, |(_, hop)| *hop),
        })
    }

    fn description<'a>(
        &self,
        generation: Generation,
        scratch: PhysRange,
        mem_cache: &'a [PhysRange],
        blobs: &'a [BlobDescription<'a>],
    ) -> Description<'a> {
        Description {
            generation: generation.get(),
            hop: self.hop + 1,
            previous_release: "6.12.0-sim",
            machine: MACHINE_X86_64,
            time: self.hop,
            carrier: kho::abi::Carrier::Memory,
            scratch,
            mem_cache,
            blobs,
        }
    }

    /// Writes the producers' nodes of the loader's tree, and the reference to the kernel's part.
    fn producers(&self, w: &mut Writer<'_>) -> Result<(), WriteError> {
        for (number, held) in self.held.iter().enumerate() {
            w.begin_node(&format!("producer-{number}"))?;
            w.prop_str(COMPATIBLE, PRODUCER)?;
            w.prop_u64(PRODUCER_ID, held.id)?;
            w.prop_mem(MEM, held.ranges.iter())?;
            w.end_node()?;
        }
        match &self.part {
            Some(part) => part.reference.write(w),
            None => Ok(()),
        }
    }

    /// Writes chain and tree, and collects the contents and destinations of the copies.
    fn write_down(
        &mut self,
        image: &ImageNeeds,
        plan: &Plan,
        generation: Generation,
        bound: u64,
    ) -> Result<Armed, String> {
        let state = plan.state().ok_or("no state in the plan")?;
        let cache: Vec<PhysRange> = plan.mem_cache_state_first().collect();
        let chain_len = chain::chain_len(cache.len() as u64);
        let tree_at = state.start().checked_add(chain_len).ok_or("state wraps")?;

        let labels = self.labels();
        let pieces: Vec<Vec<PhysRange>> = (0..self.blobs.len())
            .map(|i| plan.blob_pieces(i).map(|p| p.dest).collect())
            .collect();
        let blobs: Vec<BlobDescription<'_>> = self
            .blobs
            .iter()
            .zip(labels.iter().zip(&pieces))
            .map(|(blob, (label, pieces))| self.describe(blob, label, pieces))
            .collect::<Result<_, _>>()?;
        let description = self.description(generation, plan.scratch, &cache, &blobs);
        let size = measure_handover_with(&description, |w| self.producers(w))
            .map_err(|e| e.to_string())?;
        let mut tree = vec![0; size];
        write_handover_with(&description, &mut tree, |w| self.producers(w))
            .map_err(|e| format!("the state tree was refused: {e}: {e:?}"))?;
        if chain_len + size as u64 > bound {
            return Err(format!("the state takes more than its bound of {bound:#x}"));
        }
        let tree_range = PhysRange::new(tree_at, size as u64).map_err(|e| e.to_string())?;
        let nodes = match self.mistake {
            Some(Mistake::ShortChain) => cache.len() - 1,
            _ => cache.len(),
        };
        let mut bytes = chain::write(state.start(), tree_range, cache.iter().copied().take(nodes));
        bytes.resize(usize::try_from(chain_len).unwrap_or(usize::MAX), 0);
        bytes.extend(tree);

        let promised: Vec<Blob> = self
            .blobs
            .iter()
            .zip(&blobs)
            .map(|(blob, said)| Blob {
                arrived: Some((said.mem.to_vec(), said.arrived_hop)),
                live: false,
                ..blob.clone()
            })
            .collect();
        let ids = [self.fresh(), self.fresh(), self.fresh()];
        let state_id = self.fresh();
        self.library.insert(state_id, Rc::new(Stored::State(bytes)));
        let params = Stored::Params {
            setup_data: state.start(),
        };
        self.library.insert(ids[2], Rc::new(params));

        // In the order of the segments: kernel, initrd, parameters, then the payload by address.
        let placement = plan.image;
        let parts = [
            Some((placement.kernel, ids[0])),
            placement.initrd.map(|i| (i, ids[1])),
            Some((placement.params, ids[2])),
        ];
        let mut copies: Vec<(PhysRange, Bytes)> = parts
            .into_iter()
            .flatten()
            .map(|(place, id)| (place.segment(), Bytes::start(id)))
            .collect();
        for (index, _) in plan.segments.iter().enumerate() {
            for piece in plan.pieces.iter().filter(|p| p.segment == index) {
                let content = match piece.content {
                    kho::plan::Content::State => Bytes::start(state_id),
                    kho::plan::Content::Blob { index, offset } => Bytes {
                        id: match self.mistake {
                            Some(Mistake::OldBlob) => 0,
                            _ => self.blobs.get(index).map_or(0, |b| b.id),
                        },
                        offset,
                    },
                };
                copies.push((piece.dest, content));
            }
        }
        let mut fingerprint = [0; 32];
        fingerprint[..8].copy_from_slice(&state_id.to_ne_bytes());
        Ok(Armed {
            generation,
            fingerprint: Fingerprint(fingerprint),
            entry: Entry {
                image: *image,
                placement,
                ids,
            },
            copies,
            promise: Promise {
                scratch: plan.scratch,
                covered: set(plan.mem_cache.ranges()),
                blobs: promised,
                held: self.held.clone(),
                part: self.part.clone(),
            },
            rewritten: BTreeMap::new(),
        })
    }
}
