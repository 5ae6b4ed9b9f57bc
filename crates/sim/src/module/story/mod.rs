//! Random operations on kho.ko, and the model of kho.ko.

use crate::Template;
use crate::machine::set;
use crate::memory::Content;
use crate::module::drivers::{Called, ID, called};
use crate::module::machine::{Sim, install, with};
use crate::sets::{Rng, both, minus};
use crate::story::{Done, ensure};
use crate::world::World;
use kho::abi::MEM;
use kho::tree::Reader;
use kho::{PAGE_SIZE, PhysRange, RangeSet};
use kho_decide::errno::{ENOMEM, Errno};
use kho_decide::pages::{pfns, range_of};
use kho_decide::phase::Phase;
use std::collections::{BTreeMap, BTreeSet};

/// Names of drivers.
const NAMES: [&str; 6] = ["ring", "fs", "net", "log", "ring,left", "a"];

mod active;
mod arrived;
mod chance;
mod check;
mod drivers;
mod kernels;
mod tally;

pub use tally::Tally;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// kho.ko lent the memory, and the driver must return it.
    Lent,
    /// The driver owns the memory, like any page that it allocates.
    Own,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    range: PhysRange,
    how: How,
}

#[derive(Debug)]
struct Producer {
    name: &'static str,
    pieces: Vec<Piece>,
}

/// A node of the kernel's part that arrived.
#[derive(Debug)]
struct Node {
    id: Option<u64>,
    name: String,
    depth: usize,
    /// The number after the last node below it.
    end: usize,
    mem: Vec<PhysRange>,
}

/// Nodes by identity, each with the identity of the node above it and with its memory.
type Promise = BTreeMap<u64, (Option<u64>, Vec<PhysRange>)>;

/// Nodes and memory that arrived in this boot, as far as the module must know them.
#[derive(Debug, Default)]
struct Arrived {
    nodes: Vec<Node>,
    /// Memory that no driver claimed and that was not released.
    unclaimed: RangeSet,
    /// Memory that was reserved at the beginning of this boot.
    covered: RangeSet,
    /// Memory that stays reserved after everything was released.
    stays: RangeSet,
    /// Numbers of the nodes that drivers claimed.
    claimed: BTreeSet<usize>,
    /// Handle of the driver that has each node, by the node's number.
    holds: BTreeMap<usize, u64>,
}

/// Nodes and memory of drivers that the next kernel must find.
#[derive(Clone, Debug)]
struct Outgoing {
    generation: u64,
    promise: Promise,
}

#[derive(Debug)]
struct Active {
    out: Outgoing,
    /// Pages of the tree.
    own: RangeSet,
    /// Memory that no driver took and that the module hands over again.
    frozen: RangeSet,
    /// All memory that arrived and that drivers and the module hand over unchanged.
    named: RangeSet,
    took_part: Vec<u64>,
}

/// A machine with kho.ko, and the state that the model expects.
pub struct Story {
    rng: Rng,
    phase: Phase<Sim>,
    loaded: bool,
    last_handle: u64,
    producers: BTreeMap<u64, Producer>,
    /// Handle of the owner of each page, by page frame.
    owners: BTreeMap<u64, u64>,
    /// Expected content of each page, by page frame.
    contents: BTreeMap<u64, Content>,
    /// Pages without an owner that a user still has mapped, with their content.
    looked_at: BTreeMap<u64, Content>,
    /// Pages that drivers lost.
    lost: RangeSet,
    /// Pages of `lost` that kho.ko had lent.
    lost_lent: RangeSet,
    /// Pages that arrived, went back to the system, and were then reserved by another part of the kernel.
    foreign: RangeSet,
    arrived: Arrived,
    /// Nodes and memory of drivers that arrived, until the module reads them.
    pending: Option<Outgoing>,
    /// Memory in which blobs arrived.
    blobs: RangeSet,
    /// Whether the module must refuse the kernel's part that arrived.
    refuse: bool,
    active: Option<Active>,
    told: Option<PhysRange>,
    given_back: Option<PhysRange>,
    tally: Tally,
}

fn overlap(a: &RangeSet, b: &RangeSet) -> bool {
    !both(a, b).is_empty()
}

fn within(a: &RangeSet, b: &RangeSet) -> bool {
    minus(a, b).is_empty()
}

fn of(ranges: &[PhysRange]) -> RangeSet {
    set(ranges.iter().copied())
}

fn failed_pages() -> RangeSet {
    with(|m| set(m.failed.iter().filter_map(|pfn| range_of(*pfn, 1))))
}

/// Returns the state that a refusal must not change: the reserved memory, the memory that is held (without the module's
/// record), and the blocks of kho.ko.
fn snapshot() -> (RangeSet, RangeSet, RangeSet) {
    with(|m| {
        let noted = set(m.noted.iter().map(|noted| noted.pages));
        let kernel = &m.world.kernel;
        (
            kernel.reserved.clone(),
            minus(&kernel.held, &noted),
            m.blocks.clone(),
        )
    })
}

/// Returns a random index below `count`; `None` if `count` is 0.
fn any_of(rng: &mut Rng, count: usize) -> Option<usize> {
    (count > 0).then(|| usize::try_from(rng.below(count as u64)).unwrap_or(0))
}

impl crate::Story for Story {
    type Tally = Tally;

    fn new(template: Template, seed: u64) -> Result<Self, String> {
        install(World::new(template, seed)?);
        called(|all| *all = Called::default());
        let mut story = Self {
            rng: Rng::new(!seed),
            phase: Phase::new(),
            loaded: false,
            last_handle: 0,
            producers: BTreeMap::new(),
            owners: BTreeMap::new(),
            contents: BTreeMap::new(),
            looked_at: BTreeMap::new(),
            lost: RangeSet::new(),
            lost_lent: RangeSet::new(),
            foreign: RangeSet::new(),
            arrived: Arrived::default(),
            pending: None,
            blobs: RangeSet::new(),
            refuse: false,
            active: None,
            told: None,
            given_back: None,
            tally: Tally::default(),
        };
        story.open()?;
        Ok(story)
    }

    fn step(&mut self) -> Result<(), String> {
        let number = self.rng.below(95);
        self.act(number)
            .and_then(|()| self.check())
            .map_err(|what| format!("after step {number}: {what}"))
    }

    fn end(&mut self) -> Result<(), String> {
        self.give_all_back()
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

impl Story {
    fn chance(&mut self, one_in: u64) -> bool {
        self.rng.below(one_in) == 0
    }

    fn act(&mut self, number: u64) -> Done {
        if !self.loaded {
            return match number {
                0..10 => self.hop(),
                10..80 => self.open(),
                _ => self.user(),
            };
        }
        match number {
            0..9 => self.register(),
            9..11 => self.unregister_any(),
            11..18 => self.lend(),
            18..20 => self.give(),
            20..23 => self.scatter(),
            23..28 => self.give_back_some(),
            28..30 => self.give_back_wrongly(),
            30..33 => self.rewrite(),
            33..38 => self.claim(),
            38..44 => self.claim_node(),
            44..54 => self.hold(),
            54..57 => self.release_held(),
            57..60 => self.release(),
            60..62 => self.release_path(),
            62..65 => {
                self.hold()?;
                self.activate()?;
                self.release_held()
            }
            65..67 => self.abort(),
            67..71 => self.hop(),
            71..73 => self.reload(),
            73..76 => self.fail(),
            76..80 => self.map(),
            80..84 => self.user(),
            84 => self.tell_scratch(),
            85 => self.shortage(),
            86 if with(|m| m.exhausted) => self.shortage(),
            87..89 => self.recycle(),
            86 => self.repair(),
            89 if self.chance(8) => self.power_failure(),
            // The hop comes some time after an activation or an abort.
            92..95 if self.active.is_some() => self.hop(),
            _ => Ok(()),
        }
    }

    /// Performs an operation, and compares its result with `may`: whether the module must allow the operation. An
    /// operation that is refused or has no memory must not change anything. Returns the value of the operation, or
    /// `None` if it gave no value.
    fn expect<T>(
        &mut self,
        what: &str,
        may: bool,
        act: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<Option<T>, String> {
        let before = snapshot();
        match act() {
            Ok(value) if may => Ok(Some(value)),
            Ok(_) => Err(format!("{what} was allowed")),
            Err(ENOMEM) if may => {
                self.tally.no_memory += 1;
                ensure(before == snapshot(), || {
                    format!("{what}: no memory, but something changed")
                })?;
                Ok(None)
            }
            Err(error) if may => Err(format!("{what} was refused: {error:?}")),
            Err(_) => {
                self.tally.refused += 1;
                ensure(before == snapshot(), || {
                    format!("{what} was refused, but something changed")
                })?;
                Ok(None)
            }
        }
    }

    fn any_producer(&mut self) -> Option<u64> {
        let which = any_of(&mut self.rng, self.producers.len())?;
        self.producers.keys().nth(which).copied()
    }

    fn scratch(&self) -> Option<PhysRange> {
        with(|m| m.world.scratch).or(self.told)
    }

    /// Writes fresh content into pages.
    fn write(&mut self, at: PhysRange) {
        with(|m| {
            let mut content = Content::start(m.world.fresh());
            for pfn in pfns(at) {
                if !m.failed.contains(&pfn) {
                    let page = range_of(pfn, 1).unwrap_or(at);
                    m.world.memory.write(page, content);
                    self.contents.insert(pfn, content);
                }
                content = content.skip(PAGE_SIZE);
            }
        });
    }

    fn own(&mut self, handle: u64, piece: Piece) -> Done {
        for pfn in pfns(piece.range) {
            let other = self.owners.insert(pfn, handle);
            ensure(
                other.is_none() && !self.looked_at.contains_key(&pfn),
                || format!("page {pfn:#x} has two owners"),
            )?;
        }
        if let Some(producer) = self.producers.get_mut(&handle) {
            producer.pieces.push(piece);
        }
        Ok(())
    }
}

/// Returns the nodes of a kernel's part.
fn nodes(tree: &Reader<'_>) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for (depth, node) in tree.nodes() {
        let value = |name| node.prop(name).map(|prop| prop.value());
        let mem = value(MEM).and_then(|value| value.mem().ok());
        nodes.push(Node {
            id: value(ID).and_then(|value| value.u64().ok()),
            name: node.name().to_owned(),
            depth,
            end: 0,
            mem: mem.into_iter().flatten().flatten().collect(),
        });
    }
    let depths: Vec<usize> = nodes.iter().map(|node| node.depth).collect();
    for (number, node) in nodes.iter_mut().enumerate() {
        let after = depths
            .iter()
            .skip(number + 1)
            .position(|depth| *depth <= node.depth);
        node.end = after.map_or(depths.len(), |after| number + 1 + after);
    }
    nodes
}

/// Returns the nodes of drivers in `nodes`, with their memory.
fn said(nodes: &[Node]) -> Promise {
    let mut promise = Promise::new();
    let mut path: Vec<Option<u64>> = Vec::new();
    for node in nodes {
        path.truncate(node.depth);
        if let Some(id) = node.id {
            promise.insert(id, (path.last().copied().flatten(), node.mem.clone()));
        }
        path.push(node.id);
    }
    promise
}
