//! Random operations of users and root on files, and the model of the files.

use crate::Template;
use crate::khofs::kernel::known;
use crate::khofs::module::{PRODUCER, khofs, reset, serialize, thaw};
use crate::memory::Content;
use crate::module::drivers::{Called, Driver, Output, called};
use crate::module::machine::{Sim, install, store, with};
use crate::sets::Rng;
use crate::story::{Done, ensure};
use crate::world::World;
use kho_decide::errno::{ENOMEM, Errno};
use kho_decide::phase::Phase;
use kho_decide::store::Store;
use khofs_decide::pack::Attr;
use std::collections::BTreeMap;

mod check;
mod files;
mod instances;
mod kernels;
mod pages;
mod tally;

pub use tally::Tally;

/// Names of instances.
const NAMES: [&str; 3] = ["vm", "cache", "a.b"];

/// State of a page of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Holds(Content),
    /// The page's memory failed.
    Lost,
}

/// A file, as users see it. Bytes outside of `pages` are zero.
#[derive(Clone, Debug, Default)]
struct File {
    attr: Attr,
    target: Vec<u8>,
    entries: BTreeMap<Vec<u8>, u64>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    pages: BTreeMap<u64, Page>,
}

/// Model of a khofs instance: its files, and its state as root sees it.
#[derive(Clone, Debug, Default)]
struct Instance {
    files: BTreeMap<u64, File>,
    /// Limit of the instance's size, in pages.
    limit: u64,
    inode_limit: u64,
    /// Whether the instance was mounted in this boot, so that its files are in memory.
    live: bool,
    mounts: u64,
    /// Number of the newest inode.
    last_ino: u64,
    /// Whether the tree that arrived was overwritten.
    damaged: bool,
}

/// A machine with kho.ko and khofs, and the state that the model expects.
pub struct Story {
    rng: Rng,
    phase: Phase<Sim>,
    /// Whether kho.ko and khofs run.
    loaded: bool,
    instances: BTreeMap<String, Instance>,
    /// Pages that left a file and that a user still has mapped, with their content.
    looked_at: BTreeMap<u64, Content>,
    /// Generation of the kernel's part that the loader got in the active phase; `None` outside of the phase.
    active: Option<u64>,
    /// Generation of the kernel's part that the next kernel with kho.ko must find; `None` if there is no such part.
    pending: Option<u64>,
    tally: Tally,
}

impl crate::Story for Story {
    type Tally = Tally;

    fn new(template: Template, seed: u64) -> Result<Self, String> {
        install(World::new(template, seed)?);
        let mut story = Self {
            rng: Rng::new(!seed),
            phase: Phase::new(),
            loaded: false,
            instances: BTreeMap::new(),
            looked_at: BTreeMap::new(),
            active: None,
            pending: None,
            tally: Tally::default(),
        };
        story.forget_kernel();
        story.open()?;
        Ok(story)
    }

    fn step(&mut self) -> Result<(), String> {
        let number = self.rng.below(100);
        let done = match (self.loaded, self.active.is_some()) {
            (false, _) => self.hop(),
            (true, true) => self.act_frozen(number),
            (true, false) => self.act(number),
        };
        done.and_then(|()| self.check())
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
        match number {
            0..10 => self.mount(),
            10..13 => self.unmount(),
            13..15 => self.release(),
            15..29 => self.create(),
            29..33 => self.link(),
            33..39 => self.unlink(),
            39..42 => self.rename(),
            42..58 => self.write(),
            58..62 => self.read(),
            62..67 => self.cut(),
            67..71 => self.allocate(),
            71..77 => self.set_attribute(),
            77..79 => self.change_attr(),
            79..83 => self.map(),
            83 => self.fail(),
            84 => self.shortage(),
            85..88 => self.reap(),
            88 => self.collapse(),
            89..92 => self.user(),
            92 => self.damage(),
            93 => self.release_as_root(),
            94 => self.bring_all(),
            95 => self.sieve(),
            96 => self.shortage(),
            _ => self.activate().map(drop),
        }
    }

    /// Performs the operation that `number` chooses among those of the active phase.
    fn act_frozen(&mut self, number: u64) -> Done {
        match number {
            0..20 => self.overwrite(),
            20..30 => self.read(),
            30..36 => self.mount(),
            36..40 => self.unmount(),
            40..44 => self.release(),
            44..50 => self.reap(),
            50..55 => self.release_as_root(),
            55..60 => self.user(),
            60..66 => self.activate().map(drop),
            66..74 => self.abort(),
            _ => self.hop(),
        }
    }

    /// Compares the result of an operation with `why`, the refusal that the model expects. Returns the value of the
    /// operation, or `None` if it was refused as expected or had no memory.
    fn expect<T>(
        &mut self,
        what: &str,
        why: Option<Errno>,
        result: Result<T, Errno>,
    ) -> Result<Option<T>, String> {
        match (result, why) {
            (Ok(value), None) => Ok(Some(value)),
            (Err(error), Some(why)) if error == why => {
                self.tally.refused += 1;
                Ok(None)
            }
            // ENOMEM is right only if the kernel had no page, or khofs could not use the page that it got.
            (Err(ENOMEM), None) if known(|pages| pages.short) => {
                self.tally.no_memory += 1;
                Ok(None)
            }
            (Ok(_), Some(why)) => Err(format!("{what} was allowed, not {why:?}")),
            (Err(error), why) => Err(format!("{what}: {error:?}, not {why:?}")),
        }
    }

    /// Resets the state of the kernel that ran before.
    fn forget_kernel(&mut self) {
        let large = self.rng.below(4) != 0;
        reset(large);
        self.phase = Phase::new();
        store(|s| *s = Store::new());
        called(|all| *all = Called::default());
        self.looked_at.clear();
        self.active = None;
        self.loaded = false;
        for instance in self.instances.values_mut() {
            (instance.live, instance.mounts) = (false, 0);
        }
    }

    /// Loads both modules.
    fn open(&mut self) -> Done {
        self.open_kho()?;
        self.open_khofs()
    }

    fn open_kho(&mut self) -> Done {
        with(|m| m.world.part = None);
        self.pending = None;
        store(Store::open).map_err(|e| format!("kho.ko is not loaded: {e:?}"))
    }

    fn open_khofs(&mut self) -> Done {
        self.loaded = true;
        let registered = self.phase.register(PRODUCER.1, PRODUCER.0, 100);
        registered.map_err(|e| format!("khofs is not registered: {e:?}"))?;
        let driver = Driver {
            going: false,
            fails: None,
            output: Output::Module(serialize, thaw),
        };
        called(|all| all.drivers.insert(PRODUCER.1, driver));
        let received = khofs(|fs| fs.receive(&self.phase));
        received.map_err(|e| format!("what arrived is not understood: {e:?}"))?;
        let names = |fs: &mut crate::khofs::module::Khofs| {
            let names = fs.state.instances.iter().map(|i| i.name.clone());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        let (found, wanted) = (khofs(names), self.instances.keys().cloned().collect());
        ensure(found == wanted, || {
            format!("{found:?} arrived, not {wanted:?}")
        })
    }
}
