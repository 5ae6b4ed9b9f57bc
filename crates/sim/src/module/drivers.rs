//! Drivers, as far as the active phase uses them.

use crate::module::machine::{Sim, store, with};
use kho::PhysRange;
use kho::abi::COMPATIBLE;
use kho_decide::errno::Errno;
use kho_decide::phase::Drivers;
use kho_decide::session::Session;
use kho_decide::store::Store;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Property of each node: its identity.
pub const ID: &str = "id";

/// `compatible` of each node.
pub const NODE: &str = "sim-node-v1";

/// A node that a driver writes.
#[derive(Clone, Debug)]
pub struct Written {
    /// Identity of the node.
    pub id: u64,
    /// Pages of the node, in this order.
    pub mem: Vec<PhysRange>,
    /// Nodes below it.
    pub below: Vec<Written>,
}

/// A driver's side of an activation.
#[derive(Clone, Debug)]
pub struct Driver {
    /// Whether the driver's module is about to be removed.
    pub going: bool,
    /// Error that the driver returns; `None` for success.
    pub fails: Option<Errno>,
    /// Output of the driver.
    pub output: Output,
}

/// The way in which a driver serializes.
#[derive(Clone, Debug)]
pub enum Output {
    /// The driver writes this node.
    Node(Written),
    /// The driver calls the first function to serialize, and the second one to undo that.
    Module(fn(&mut Session) -> Result<(), Errno>, fn()),
}

/// All drivers, and the record of calls to them.
#[derive(Default)]
pub struct Called {
    /// Drivers by their handle.
    pub drivers: BTreeMap<u64, Driver>,
    /// Handles of the drivers that serialized successfully and did not abort since, in the order of the calls.
    pub frozen: Vec<u64>,
    /// Messages about drivers that were called in the wrong order.
    pub broken: Vec<String>,
    /// The tree of the active phase.
    pub sealed: Vec<u8>,
    /// Whether the file `dt` exists.
    pub published: bool,
    /// Error of making the file `dt`; `None` if that succeeds.
    pub no_file: Option<Errno>,
    /// Number of references on modules.
    pub references: i64,
}

thread_local! {
    static CALLED: RefCell<Called> = RefCell::default();
}

/// Reads or changes this thread's drivers.
pub fn called<T>(act: impl FnOnce(&mut Called) -> T) -> T {
    CALLED.with_borrow_mut(act)
}

/// A reference on a module.
pub struct Reference(u64);

impl Reference {
    fn new(number: u64) -> Self {
        called(|all| all.references += 1);
        Self(number)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        called(|all| all.references -= 1);
    }
}

fn write(session: &mut Session, node: &Written) -> Result<(), Errno> {
    session.prop_str(COMPATIBLE, NODE.as_bytes())?;
    session.prop(ID, &node.id.to_ne_bytes())?;
    if !node.mem.is_empty() {
        session.mem::<Sim>(node.mem.iter().map(|range| Ok(*range)))?;
    }
    for (number, below) in node.below.iter().enumerate() {
        session.begin(&format!("part-{number}"))?;
        write(session, below)?;
        session.end()?;
    }
    Ok(())
}

impl Drivers for Sim {
    type Producer = u64;
    type Held = Reference;
    type SelfHold = Reference;

    fn hold(producer: u64) -> Option<Reference> {
        let going = called(|all| all.drivers.get(&producer).is_none_or(|driver| driver.going));
        (!going).then(|| Reference::new(producer))
    }

    fn is(held: &Reference, producer: u64) -> bool {
        held.0 == producer
    }

    fn serialize(held: &Reference, session: &mut Session) -> Result<(), Errno> {
        let driver = called(|all| all.drivers.get(&held.0).cloned());
        let Some(driver) = driver else {
            called(|all| {
                all.broken
                    .push(format!("{} is asked, and is not there", held.0))
            });
            return Ok(());
        };
        if let Some(error) = driver.fails {
            return Err(error);
        }
        match &driver.output {
            // The driver ignores errors, as a driver may.
            Output::Node(node) => drop(write(session, node)),
            Output::Module(serialize, _) => serialize(session)?,
        }
        called(|all| all.frozen.push(held.0));
        Ok(())
    }

    fn abort(held: &Reference) {
        let driver = called(|all| {
            // kho.ko aborts drivers in reverse order.
            if all.frozen.pop() != Some(held.0) {
                all.broken
                    .push(format!("{} is to undo what it did not do", held.0));
            }
            all.drivers.get(&held.0).cloned()
        });
        if let Some(Output::Module(_, undo)) = driver.map(|driver| driver.output) {
            undo();
        }
    }

    fn hold_self() -> Option<Reference> {
        Some(Reference::new(0))
    }

    fn random() -> u64 {
        // One random number in each boot is 0. A generation that follows from it a second time would not be unique.
        with(|machine| match machine.world.rng.below(8) {
            0 if !std::mem::replace(&mut machine.drew_zero, true) => 0,
            _ => machine.world.rng.draw(),
        })
    }

    fn set_room(_: u64) {}

    fn release() -> &'static str {
        "6.12.0-sim"
    }

    fn store<T>(act: impl FnOnce(&mut Store<Self>) -> T) -> T {
        store(act)
    }

    fn set_sealed(bytes: Vec<u8>) {
        called(|all| all.sealed = bytes);
    }

    fn publish() -> Result<(), Errno> {
        called(|all| {
            all.published = all.no_file.is_none();
            all.no_file.map_or(Ok(()), Err)
        })
    }

    fn withdraw() {
        called(|all| all.published = false);
    }
}
