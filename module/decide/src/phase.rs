//! The active phase: who takes part, and all or nothing.

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

/// What the active phase asks of drivers and of the kernel, and what it has them do.
pub trait Drivers: System {
    /// A producer that is registered.
    type Producer: Copy + PartialEq;
    /// One whose module stays loaded until this is dropped.
    type Held;
    /// Keeps this module loaded until dropped.
    type SelfHold;

    /// Keeps a driver's module loaded; `None` when it is about to go.
    fn hold(producer: Self::Producer) -> Option<Self::Held>;

    /// Whether it is this producer.
    fn is(held: &Self::Held, producer: Self::Producer) -> bool;

    /// Lets the driver write into `session`.
    ///
    /// # Errors
    ///
    /// What the driver returns.
    fn serialize(held: &Self::Held, session: &mut Session) -> Result<(), Errno>;

    /// Lets the driver undo what it did.
    fn abort(held: &Self::Held);

    /// Keeps this module loaded; `None` while it is being unloaded.
    fn hold_self() -> Option<Self::SelfHold>;

    /// A random number.
    fn random() -> u64;

    /// `uname -r`.
    fn release() -> &'static str;

    /// Runs `act` on the store of this machine, under its lock.
    fn store<T>(act: impl FnOnce(&mut Store<Self>) -> T) -> T;

    /// The tree of the active phase from here on, as `dt` shows it; nothing when there is none.
    fn set_sealed(bytes: Vec<u8>);

    /// Makes the file `dt`.
    ///
    /// # Errors
    ///
    /// What sysfs says.
    fn publish() -> Result<(), Errno>;

    /// Removes `dt`, which was published.
    fn withdraw();
}

struct Entry<S: Drivers> {
    handle: S::Producer,
    name: String,
    priority: i32,
}

/// What holds the active phase together. Dropped only by [`Phase::abort`].
struct Active<S: Drivers> {
    generation: u64,
    /// The pages of the sealed tree.
    block: S::Block,
    /// In the order in which they serialized.
    done: Vec<S::Held>,
    _self: S::SelfHold,
}

/// Producers in their order, and the active phase if there is one.
pub struct Phase<S: Drivers> {
    producers: Vec<Entry<S>>,
    /// Whose fault it was that the last activation failed, if it was anybody's.
    failed: Option<String>,
    active: Option<Active<S>>,
}

impl<S: Drivers> Phase<S> {
    /// No producer.
    pub const fn new() -> Self {
        Self {
            producers: Vec::new(),
            failed: None,
            active: None,
        }
    }

    /// Generation of the active phase.
    pub fn generation(&self) -> Option<u64> {
        self.active.as_ref().map(|a| a.generation)
    }

    /// Number of registered producers.
    pub fn producers(&self) -> usize {
        self.producers.len()
    }

    /// The producer that made the last activation fail.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Adds a producer.
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
        if self.active.is_some() {
            return Err(EBUSY);
        }
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
        Ok(())
    }

    /// Takes a producer off the list; aborts first in an active phase that it is part of. It is not when its module was
    /// about to go when the phase began.
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

    /// Notes that a producer has a node that arrived.
    ///
    /// # Errors
    ///
    /// See `kho_hold_node` in `include/kho.h`.
    pub fn hold(&self, handle: S::Producer, node: i64) -> Result<(), Errno> {
        let name = self.name(handle)?;
        S::store(|store| store.hold(name, node))
    }

    /// Serializes all producers and freezes: all, or nothing and the error.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] in the active phase, [`ENODEV`] while the module is being unloaded; what the producer that failed
    /// returned; no memory.
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

    /// Asks every producer, in order; `done` has room for all and gets those that were asked successfully.
    ///
    /// Not inlined, as some others on this way: a session and a writer take more than a KiB each of a stack of 16.
    #[inline(never)]
    fn serialize(&mut self, done: &mut Vec<S::Held>) -> Result<(u64, S::Block, Vec<u8>), Errno> {
        let limits = S::store(|store| store.limits())?;
        let mut session = Session::new(limits)?;
        for producer in &self.producers {
            // A module that is about to go takes its state with it.
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
            // From here on it has something to undo.
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

    /// Leaves the active phase: destroys the sealed tree, lets the producers undo what they did, in reverse
    /// order. Nothing when not active.
    pub fn abort(&mut self) {
        let Some(mut active) = self.active.take() else {
            return;
        };
        // First what an image that was loaded refers to: from here on it hands over nothing.
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

/// Writes and seals the tree, in pages of its own.
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
    // The size does not depend on where it will be.
    let size = u64::try_from(write(page)?.len()).map_err(|_| ENOMEM)?;
    let mut block = S::store(|store| store.block(size.div_ceil(PAGE_SIZE)))?;
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
