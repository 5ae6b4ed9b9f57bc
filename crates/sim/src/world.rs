//! The whole simulation: a machine, its kernel and its users, and the operations on them.

use crate::kernel::{Boot, Entry, Kernel, Library};
use crate::machine::{Template, image, range, set};
use crate::memory::{Content, Memory};
use crate::op::{Op, Outcome};
use crate::sets::{Rng, both, minus, plus};
use kho::abi::kernel_part::Reference;
use kho::phase::{Fingerprint, Generation, Machine, Phase};
use kho::{PAGE_SIZE, PhysRange, RangeSet};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Bytes that a user keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) label: u64,
    pub(crate) id: u64,
    pub(crate) size: u64,
    /// Ranges of the bytes, and the hop on which they were first handed over; `None` if they did not arrive.
    pub(crate) arrived: Option<(Vec<PhysRange>, u64)>,
    /// Whether the bytes also exist in the running system.
    pub(crate) live: bool,
}

/// Pages of a producer, kept in place. The content extends through the ranges in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: u64,
    pub(crate) ranges: RangeSet,
}

impl Held {
    /// Returns each range with its expected content.
    pub(crate) fn contents(&self) -> impl Iterator<Item = (PhysRange, Content)> + '_ {
        let mut offset = 0;
        self.ranges.iter().map(move |range| {
            let content = Content {
                id: self.id,
                offset,
            };
            offset += range.len();
            (range, content)
        })
    }
}

/// The kernel's part: memory that drivers hand over, as the kernel module describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealedPart {
    pub(crate) reference: Reference,
    /// Memory that the part names, and the pages of the part itself.
    pub(crate) kept: RangeSet,
}

/// The image that `kexec_load` has taken, with its handover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Armed {
    pub(crate) generation: Generation,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) entry: Entry,
    /// Destination and content, in the order of the segments.
    pub(crate) copies: Vec<(PhysRange, Content)>,
    pub(crate) promise: Promise,
    /// Contents that a producer overwrote after it serialized: id in memory, by the id in the tree.
    pub(crate) rewritten: BTreeMap<u64, u64>,
}

/// State that the next kernel must find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) scratch: PhysRange,
    pub(crate) covered: RangeSet,
    pub(crate) blobs: Vec<Blob>,
    pub(crate) held: Vec<Held>,
    pub(crate) part: Option<SealedPart>,
}

/// Counts of the operations so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Handovers.
    pub hops: u64,
    /// Boots through the firmware, without the first.
    pub cold_boots: u64,
    /// Operations that were refused.
    pub refused: u64,
    /// Blobs and producers' ranges found intact after a hop.
    pub verified: u64,
    /// Largest number of mem-cache entries in one handover.
    pub most_entries: usize,
    /// Largest slack in one handover, in bytes.
    pub most_slack: u64,
}

/// A mistake that the planner's caller could make. The checks of this crate must find each of them, which shows that
/// they would also find a mistake of the planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The caller tells the planner that no page is pinned.
    NothingPinned,
    /// The caller tells the planner that nothing is kept in place.
    NothingInPlace,
    /// The caller tells the planner that early boot takes any number of reservations.
    NoCap,
    /// The caller does not pass on the recorded scratch.
    NewScratch,
    /// The chain lacks its last node.
    ShortChain,
    /// The caller reads a blob before the last change to it.
    OldBlob,
}

/// A machine, its kernel and its users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    pub(crate) template: Template,
    pub(crate) memory: Memory,
    pub(crate) kernel: Kernel,
    pub(crate) library: Library,
    pub(crate) rng: Rng,
    pub(crate) machine: Machine,
    pub(crate) armed: Option<Armed>,
    pub(crate) blobs: Vec<Blob>,
    pub(crate) held: Vec<Held>,
    /// The kernel's part that the next load hands over: that of the active phase, or the one that arrived.
    pub(crate) part: Option<SealedPart>,
    /// Scratch, as recorded by the last handover.
    pub(crate) scratch: Option<PhysRange>,
    pub(crate) hop: u64,
    /// The state segment of the tree that arrived.
    pub(crate) state: Option<PhysRange>,
    generations: BTreeSet<u64>,
    last_id: u64,
    pub(crate) stats: Stats,
    pub(crate) mistake: Option<Mistake>,
}

/// A broken promise, with the script that breaks it.
#[derive(Debug)]
pub struct Failure {
    /// Description of the broken promise.
    pub what: String,
    /// The machine.
    pub template: &'static str,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Operations up to and including the one that broke the promise, with their outcomes.
    pub script: Vec<(Op, Option<Outcome>)>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# {}\nmachine {}\nseed {}",
            self.what.replace('\n', " "),
            self.template,
            self.seed
        )?;
        for (op, outcome) in &self.script {
            match outcome {
                Some(outcome) => {
                    writeln!(f, "{op}  # {}", format!("{outcome:?}").replace('\n', " "))?
                }
                None => writeln!(f, "{op}  # broken")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Runs a script on a new machine.
///
/// # Errors
///
/// The first broken promise.
pub fn run(template: Template, seed: u64, ops: &[Op]) -> Result<World, Box<Failure>> {
    let name = template.name;
    let mut script = Vec::new();
    let fail = |what, script| {
        Box::new(Failure {
            what,
            template: name,
            seed,
            script,
        })
    };
    let mut world = World::new(template, seed).map_err(|what| fail(what, Vec::new()))?;
    for op in ops {
        match world.step(op) {
            Ok(outcome) => script.push((op.clone(), Some(outcome))),
            Err(what) => {
                script.push((op.clone(), None));
                return Err(fail(what, script));
            }
        }
    }
    Ok(world)
}

impl World {
    /// Makes a machine that was just switched on.
    ///
    /// # Errors
    ///
    /// If the machine is too small for a kernel.
    pub fn new(template: Template, seed: u64) -> Result<Self, String> {
        let mut world = Self {
            template,
            memory: Memory::default(),
            kernel: Kernel {
                image: range(0, 1),
                pinned: RangeSet::new(),
                reserved: RangeSet::new(),
                held: RangeSet::new(),
                busy: RangeSet::new(),
                managed: 0,
            },
            library: Library::new(),
            rng: Rng::new(seed),
            machine: Machine::new(0),
            armed: None,
            blobs: Vec::new(),
            held: Vec::new(),
            part: None,
            scratch: None,
            hop: 0,
            state: None,
            generations: BTreeSet::new(),
            last_id: 0,
            stats: Stats::default(),
            mistake: None,
        };
        world.switch_on()?;
        Ok(world)
    }

    /// Makes the given mistake in every load from now on.
    pub fn make(&mut self, mistake: Mistake) {
        self.mistake = Some(mistake);
    }

    /// Returns the counts of the operations so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Returns the recorded scratch.
    pub fn scratch(&self) -> Option<PhysRange> {
        self.scratch
    }

    /// Returns the number of reserved bytes in the running kernel.
    pub fn reserved(&self) -> u64 {
        self.kernel.reserved.total()
    }

    /// Returns the number of intervals of memory, a measure of the cost of a step.
    pub fn intervals(&self) -> usize {
        self.memory.intervals()
    }

    pub(crate) fn fresh(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Records a generation.
    ///
    /// # Errors
    ///
    /// If the generation was used before.
    pub(crate) fn note(&mut self, generation: Generation) -> Result<(), String> {
        if self.generations.insert(generation.get()) {
            Ok(())
        } else {
            Err(format!("generation {generation} came back"))
        }
    }

    /// Performs one operation, and checks every promise.
    ///
    /// # Errors
    ///
    /// The broken promise.
    pub fn step(&mut self, op: &Op) -> Result<Outcome, String> {
        let mut before = self.clone();
        let outcome = self.perform(op)?;
        if let Outcome::Refused(why) = &outcome {
            // A refusal may use up random numbers and fresh ids, and nothing else.
            before.rng = self.rng.clone();
            before.last_id = self.last_id;
            if before != *self {
                return Err(format!("refused ({why}), but something has changed"));
            }
            self.stats.refused += 1;
        }
        self.check()?;
        Ok(outcome)
    }

    fn perform(&mut self, op: &Op) -> Result<Outcome, String> {
        let frozen = self.machine.phase() != Phase::Idle;
        match *op {
            Op::Keep(size) => {
                let (label, id) = (self.fresh(), self.fresh());
                self.blobs.push(Blob {
                    label,
                    id,
                    size: size.into(),
                    arrived: None,
                    live: true,
                });
            }
            Op::Touch(which, size) => {
                let id = self.fresh();
                let Some(blob) = pick(&mut self.blobs, which) else {
                    return Ok(Outcome::Nothing);
                };
                (blob.id, blob.size) = (id, size.into());
                (blob.arrived, blob.live) = (None, true);
            }
            Op::Drop(which) => {
                if self.blobs.is_empty() {
                    return Ok(Outcome::Nothing);
                }
                self.blobs.remove(usize::from(which) % self.blobs.len());
            }
            Op::Restore(which) => match pick(&mut self.blobs, which) {
                Some(blob) => blob.live = true,
                None => return Ok(Outcome::Nothing),
            },
            Op::Hold(..)
            | Op::Scatter(..)
            | Op::Foreign(..)
            | Op::Claim(_)
            | Op::Grow(..)
            | Op::Release(_)
            | Op::ReleaseSlack
            | Op::Activate
                if frozen =>
            {
                return Ok(Outcome::Refused(format!(
                    "{op} while a handover is under way"
                )));
            }
            Op::Hold(ranges, pages) => return Ok(self.hold(ranges, pages)),
            Op::Scatter(blocks, order) => return Ok(self.scatter(blocks, order)),
            Op::Busy(blocks, order) => return Ok(self.busy(blocks, order)),
            Op::Foreign(page, pages) => return Ok(self.foreign(page, pages)),
            Op::Claim(which) => return Ok(self.claim(which)),
            Op::Grow(which, pages) => return Ok(self.grow(which, pages)),
            Op::Write(which) => return Ok(self.write(which)),
            Op::Activate => {
                let generation = self.machine.activate().map_err(|e| e.to_string())?;
                self.note(generation)?;
            }
            Op::Release(which) => {
                if self.held.is_empty() {
                    return Ok(Outcome::Nothing);
                }
                let held = self.held.remove(usize::from(which) % self.held.len());
                self.kernel.give_back(&held.ranges);
                self.churn();
            }
            Op::ReleaseSlack => {
                let needed = self.kept_in_place();
                let needed = plus(&needed, &set(self.state));
                let slack = minus(&self.kernel.reserved, &needed);
                self.kernel.give_back(&slack);
                self.churn();
            }
            Op::Churn => self.churn(),
            Op::Load(kernel, mib, landing, cut) => {
                return self.load(&image(kernel, mib.into()), landing, cut);
            }
            Op::Abort => {
                self.unload()?;
            }
            Op::Exec(kaslr) => return self.exec(kaslr),
            Op::CrashInExec(segments) => {
                let Some(armed) = self.armed.clone() else {
                    return Ok(Outcome::Nothing);
                };
                for (dest, content) in armed.copies.iter().take(segments.into()) {
                    self.memory.write(*dest, *content);
                }
                return self.power_failure();
            }
            Op::PowerFailure => return self.power_failure(),
        }
        Ok(Outcome::Done)
    }

    /// Returns the machine to the idle state, with nothing loaded.
    pub(crate) fn unload(&mut self) -> Result<(), String> {
        self.armed = None;
        self.machine.abort().map_err(|e| e.to_string())?;
        Ok(())
    }

    fn power_failure(&mut self) -> Result<Outcome, String> {
        self.stats.cold_boots += 1;
        self.switch_on()?;
        Ok(Outcome::ColdBoot)
    }

    fn switch_on(&mut self) -> Result<(), String> {
        self.memory = Memory::default();
        self.library.clear();
        self.machine = Machine::new(self.rng.draw());
        (self.armed, self.scratch, self.hop) = (None, None, 0);
        (self.state, self.part) = (None, None);
        self.blobs.clear();
        self.held.clear();
        let garbage = self.fresh();
        self.kernel = Boot {
            template: &self.template,
            memory: &mut self.memory,
            library: &self.library,
            rng: &mut self.rng,
            kaslr: true,
            garbage,
        }
        .cold(&image(0, 16))?;
        Ok(())
    }

    fn churn(&mut self) {
        let id = self.fresh();
        self.kernel.churn(&self.template, &mut self.memory, id);
    }

    /// Returns all memory that the next handover keeps without copying it.
    pub(crate) fn kept_in_place(&self) -> RangeSet {
        let blobs = self.blobs.iter().filter(|b| !b.live);
        let blobs = blobs.filter_map(|b| b.arrived.as_ref());
        let blobs = blobs.flat_map(|(pieces, _)| pieces.iter().copied());
        let held = self.held.iter().flat_map(|h| h.ranges.iter());
        let part = self.part.iter().flat_map(|p| p.kept.iter());
        set(blobs.chain(held).chain(part))
    }

    /// Checks the promises that hold at any time.
    pub(crate) fn check(&self) -> Result<(), String> {
        for held in &self.held {
            for (range, content) in held.contents() {
                self.holds(range, content, "a producer's range")?;
            }
        }
        for blob in &self.blobs {
            self.check_blob(blob)?;
        }
        for (number, table) in (1u64..).zip(self.template.hidden.iter()) {
            let content = Content::start(crate::kernel::firmware_id(number));
            self.holds(table, content, "a firmware table")?;
        }
        let kernel = &self.kernel;
        let pairs = [
            ("pinned", &kernel.pinned, "reserved", &kernel.reserved),
            ("pinned", &kernel.pinned, "held", &kernel.held),
            ("reserved", &kernel.reserved, "held", &kernel.held),
            ("busy", &kernel.busy, "pinned", &kernel.pinned),
            ("busy", &kernel.busy, "reserved", &kernel.reserved),
            ("busy", &kernel.busy, "held", &kernel.held),
        ];
        for (a, x, b, y) in pairs {
            if let Some(both) = both(x, y).iter().next() {
                return Err(format!("{both} is {a} and {b}"));
            }
        }
        // No memory is lost: all RAM is free, busy, pinned, reserved or held.
        let whole = minus(&self.template.ram, &set([range(0, 1 << 20)]));
        let known = plus(
            &plus(&kernel.free(&self.template), &kernel.pinned),
            &plus(&plus(&kernel.reserved, &kernel.held), &kernel.busy),
        );
        let lost = minus(&whole, &known).total();
        // The bytes of partial pages at the ends of RAM ranges are in no set.
        if lost >= PAGE_SIZE * 2 * u64::try_from(whole.len()).unwrap_or(0) {
            return Err(format!("{lost:#x} bytes are lost"));
        }
        if let Some(scratch) = self.scratch {
            let inside = both(&self.kept_in_place(), &set([scratch]));
            if let Some(kept) = inside.iter().next() {
                return Err(format!("{kept} is kept and in scratch {scratch}"));
            }
        }
        Ok(())
    }

    /// Checks that a blob that arrived is in the ranges that the tree names.
    pub(crate) fn check_blob(&self, blob: &Blob) -> Result<(), String> {
        let mut offset = 0;
        for piece in blob.arrived.iter().flat_map(|(pieces, _)| pieces) {
            if blob.live && !set([*piece]).eq(&both(&set([*piece]), &self.kernel.reserved)) {
                return Ok(()); // restored, and its old memory was released
            }
            let content = Content {
                id: blob.id,
                offset,
            };
            self.holds(*piece, content, "a blob")?;
            offset += piece.len();
        }
        Ok(())
    }

    pub(crate) fn holds(&self, at: PhysRange, want: Content, what: &str) -> Result<(), String> {
        match self.memory.first_difference(at, want) {
            None => Ok(()),
            Some(addr) => Err(format!(
                "{what} at {at} was overwritten at {addr} by {:?}",
                self.memory.at(addr)
            )),
        }
    }
}

/// Returns element `which`, counted modulo the length.
pub(crate) fn pick<T>(list: &mut [T], which: u8) -> Option<&mut T> {
    let len = list.len();
    list.get_mut(usize::from(which).checked_rem(len)?)
}
