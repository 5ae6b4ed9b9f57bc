//! The active phase: the producers that take part in it, and its rule: either all of them succeed, or nothing changes.

use crate::contract::CONTRACT;
use crate::errno::{EBUSY, EEXIST, EINVAL, ENODEV, ENOMEM, Errno};
use crate::session::Session;
use crate::store::Store;
use crate::system::{Block, System, log};
use crate::text::Level;
use alloc::string::String;
use alloc::vec::Vec;
use kho::abi::kernel_part::{KERNEL, RELEASE};
use kho::abi::{BLOBS, CHECKSUM, COMPATIBLE, GENERATION, MEM};
use kho::tree::{Writer, seal};
use kho::{PAGE_SIZE, PhysRange};

/// Calls that the active phase makes to drivers and to the kernel.
pub trait Drivers: System {
    /// A producer that is registered.
    type Producer: Copy + PartialEq;
    /// A registered producer whose module stays loaded until this value is dropped.
    type Held;
    /// Keeps this module loaded until this value is dropped.
    type SelfHold;

    /// Keeps a driver's module loaded; `None` if that module is being unloaded.
    fn hold(producer: Self::Producer) -> Option<Self::Held>;

    /// Whether `held` is `producer`.
    fn is(held: &Self::Held, producer: Self::Producer) -> bool;

    /// Lets the driver write into `session`.
    ///
    /// # Errors
    ///
    /// The error that the driver returns.
    fn serialize(held: &Self::Held, session: &mut Session) -> Result<(), Errno>;

    /// Lets the driver undo its serialization.
    fn abort(held: &Self::Held);

    /// Keeps this module loaded; `None` while it is being unloaded.
    fn hold_self() -> Option<Self::SelfHold>;

    /// A random number.
    fn random() -> u64;

    /// Release of the running kernel (`uname -r`).
    fn release() -> &'static str;

    /// Runs `act` on the store of this machine, under its lock.
    fn store<T>(act: impl FnOnce(&mut Store<Self>) -> T) -> T;

    /// Sets the tree of the active phase, which the file `dt` shows; an empty tree if no phase is active.
    fn set_sealed(bytes: Vec<u8>);

    /// Makes the file `dt`.
    ///
    /// # Errors
    ///
    /// The error of sysfs.
    fn publish() -> Result<(), Errno>;

    /// Removes the file `dt`.
    fn withdraw();
}

struct Entry<S: Drivers> {
    handle: S::Producer,
    name: String,
    priority: i32,
}

/// Resources that kho.ko keeps for the length of an active phase. Only [`Phase::abort`] drops them.
struct Active<S: Drivers> {
    generation: u64,
    /// The pages of the sealed tree.
    block: S::Block,
    /// Producers that serialized, in the order of the calls.
    done: Vec<S::Held>,
    _self: S::SelfHold,
}

/// Producers in their order, and the active phase, if there is one.
pub struct Phase<S: Drivers> {
    producers: Vec<Entry<S>>,
    /// Name of the producer that made the last activation fail; `None` if none did.
    failed: Option<String>,
    active: Option<Active<S>>,
}

impl<S: Drivers> Phase<S> {
    /// Makes a list without producers, outside the active phase.
    pub const fn new() -> Self {
        Self {
            producers: Vec::new(),
            failed: None,
            active: None,
        }
    }

    /// Generation of the active phase; `None` outside it.
    pub fn generation(&self) -> Option<u64> {
        self.active.as_ref().map(|a| a.generation)
    }

    /// Number of registered producers.
    pub fn producers(&self) -> usize {
        self.producers.len()
    }

    /// Name of the producer that made the last activation fail; `None` if none did.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Adds a producer. One that is added in the active phase takes part from the next one on.
    ///
    /// # Errors
    ///
    /// See `kho_register_producer` in `include/kho.h`.
    pub fn register(
        &mut self,
        handle: S::Producer,
        name: &str,
        priority: i32,
    ) -> Result<(), Errno> {
        if name == BLOBS || name == KERNEL {
            return Err(EINVAL);
        }
        let mut check = Writer::measuring();
        check.begin_node("")?;
        check.begin_node(name)?;
        if self.producers.iter().any(|p| p.name == name) {
            return Err(EEXIST);
        }
        let copy = copied(name)?;
        self.producers.try_reserve(1)?;
        let at = self.producers.partition_point(|p| p.priority <= priority);
        self.producers.push(Entry {
            handle,
            name: copy,
            priority,
        });
        if let Some(tail) = self.producers.get_mut(at..) {
            tail.rotate_right(1);
        }
        if self.active.is_some() {
            log!(
                S,
                Level::Warning,
                "producer {name} registered in the active phase: it hands over nothing before the next one"
            );
        }
        Ok(())
    }

    /// Takes a producer off the list. If the producer takes part in an active phase, aborts that phase first. A
    /// producer whose module was being unloaded when the phase began takes no part in it.
    pub fn unregister(&mut self, handle: S::Producer) {
        let took_part = |active: &Active<S>| active.done.iter().any(|held| S::is(held, handle));
        if self.active.as_ref().is_some_and(took_part) {
            log!(
                S,
                Level::Warning,
                "a producer goes away in the active phase, which is aborted"
            );
            self.abort();
        }
        if let Ok(name) = self.name(handle) {
            S::store(|store| store.let_go(name));
        }
        self.producers.retain(|p| p.handle != handle);
    }

    /// The name of a registered producer.
    fn name(&self, handle: S::Producer) -> Result<&str, Errno> {
        let found = self.producers.iter().find(|p| p.handle == handle);
        found.map(|p| p.name.as_str()).ok_or(EINVAL)
    }

    /// Records that a producer holds a node that arrived.
    ///
    /// # Errors
    ///
    /// See `kho_hold_node` in `include/kho.h`.
    pub fn hold(&self, handle: S::Producer, node: i64) -> Result<(), Errno> {
        let name = self.name(handle)?;
        S::store(|store| store.hold(name, node))
    }

    /// Enters the active phase: lets all producers serialize and freeze. If a step fails, undoes all steps and returns
    /// the error.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] in the active phase; [`ENODEV`] while the module is being unloaded; the error of the producer that
    /// failed; no memory.
    pub fn activate(&mut self) -> Result<(), Errno> {
        if self.active.is_some() {
            return Err(EBUSY);
        }
        self.failed = None;
        let hold = S::hold_self().ok_or(ENODEV)?;
        let mut done = Vec::new();
        done.try_reserve_exact(self.producers.len())?;
        match self.serialize(&mut done) {
            Ok((generation, block, bytes)) => {
                S::set_sealed(bytes);
                if let Err(error) = S::publish() {
                    S::set_sealed(Vec::new());
                    S::store(Store::thaw);
                    roll_back::<S>(&mut done);
                    return Err(error);
                }
                log!(
                    S,
                    Level::Info,
                    "active: {} producers, state tree of {} bytes at {}",
                    done.len(),
                    block.range().len(),
                    block.range()
                );
                self.active = Some(Active {
                    generation,
                    block,
                    done,
                    _self: hold,
                });
                Ok(())
            }
            Err(error) => {
                S::store(Store::thaw);
                roll_back::<S>(&mut done);
                Err(error)
            }
        }
    }

    /// Lets every producer serialize, in order. `done` has room for all producers and receives each producer that has
    /// state to undo.
    ///
    /// Not inlined, like some other functions on this path: a session and a writer take more than 1 KiB each of a stack
    /// of 16 KiB.
    #[inline(never)]
    fn serialize(&mut self, done: &mut Vec<S::Held>) -> Result<(u64, S::Block, Vec<u8>), Errno> {
        let limits = S::store(|store| store.limits())?;
        let mut session = Session::new(limits)?;
        for producer in &self.producers {
            // A module that is being unloaded takes its state with it.
            let Some(held) = S::hold(producer.handle) else {
                continue;
            };
            let has = S::store(|store| store.held(&producer.name))?;
            session.begin_producer(&producer.name, has)?;
            let result = S::serialize(&held, &mut session);
            if let Err(error) = result {
                self.failed = copied(&producer.name).ok();
                log!(
                    S,
                    Level::Error,
                    "producer {} failed (error {})",
                    producer.name,
                    error.0
                );
                return Err(error);
            }
            // From here on the producer has state to undo.
            done.push(held);
            if let Err(error) = session.end_producer() {
                self.failed = copied(&producer.name).ok();
                log!(
                    S,
                    Level::Error,
                    "producer {} ignored an error, left a node open, or has no compatible (error {})",
                    producer.name,
                    error.0
                );
                return Err(error);
            }
        }
        let taken = |name: &str| self.producers.iter().any(|p| p.name == name);
        let again = S::store(|store| store.carry(&mut session, taken))?;
        if again != 0 {
            log!(
                S,
                Level::Info,
                "{again} nodes that arrived and that nobody took are handed over again"
            );
        }
        finish::<S>(&session)
    }

    /// Leaves the active phase: destroys the sealed tree and lets the producers undo their serialization, in reverse
    /// order. Does nothing outside the active phase.
    pub fn abort(&mut self) {
        let Some(mut active) = self.active.take() else {
            return;
        };
        // First destroy the memory to which a loaded image refers: from here on that image hands over nothing.
        active.block.zero(active.block.range());
        S::set_sealed(Vec::new());
        S::withdraw();
        S::store(Store::thaw);
        roll_back::<S>(&mut active.done);
        log!(
            S,
            Level::Info,
            "aborted: an image that was loaded hands over nothing of the kernel's"
        );
    }
}

fn copied(name: &str) -> Result<String, Errno> {
    let mut copy = String::new();
    copy.try_reserve_exact(name.len())?;
    copy.push_str(name);
    Ok(copy)
}

fn roll_back<S: Drivers>(done: &mut Vec<S::Held>) {
    while let Some(held) = done.pop() {
        S::abort(&held);
    }
}

/// Writes the tree into pages of its own and seals it. Returns the generation, the pages and the bytes of the tree.
#[inline(never)]
fn finish<S: Drivers>(session: &Session) -> Result<(u64, S::Block, Vec<u8>), Errno> {
    let generation = match S::random() {
        0 => 1, // 0 means: not active
        number => number,
    };
    let write = |own: PhysRange| {
        session.tree(|w| {
            w.prop_str(COMPATIBLE, CONTRACT)?;
            w.prop_u64(GENERATION, generation)?;
            w.prop_str(RELEASE, S::release())?;
            w.prop_u32(CHECKSUM, 0)?;
            w.prop_mem(MEM, [own])
        })
    };
    let page = PhysRange::new(kho::PhysAddr::new(0), PAGE_SIZE).map_err(|_| EINVAL)?;
    // The size of the tree does not depend on its address.
    let size = u64::try_from(write(page)?.len()).map_err(|_| ENOMEM)?;
    let mut ground = S::store(|store| store.ground())?;
    let mut block = ground.block::<S>(size.div_ceil(PAGE_SIZE))?;
    if session.kept().overlaps(block.range()) {
        log!(
            S,
            Level::Error,
            "a producer keeps pages at {} that it does not own",
            block.range()
        );
        return Err(EINVAL);
    }
    let mut bytes = write(block.range())?;
    seal(&mut bytes)?;
    block.fill(&bytes)?;
    Ok((generation, block, bytes))
}

#[cfg(test)]
mod tests;
