//! The active phase: who takes part, and all or nothing.

use crate::boundary::kernel::{SelfHold, publish_dt, random, release, withdraw_dt};
use crate::boundary::pages::Block;
use crate::boundary::producer::{Handle, Held};
use crate::boundary::sync::Lock;
use crate::contract::CONTRACT;
use crate::errno::{EBUSY, EEXIST, EINVAL, ENODEV, ENOMEM, Errno};
use crate::session::Session;
use crate::store::STORE;
use crate::text::{Level, log};
use alloc::string::String;
use alloc::vec::Vec;
use kho::abi::kernel_part::{KERNEL, RELEASE};
use kho::abi::{BLOBS, CHECKSUM, COMPATIBLE, GENERATION, MEM};
use kho::tree::{Writer, seal};
use kho::{PAGE_SIZE, PhysRange};

/// Producers and whether they are frozen.
pub static PHASE: Lock<Phase, 0> = Lock::new(Phase::new());

/// The tree of the active phase, as `dt` shows it. A lock of its own, which readers of `dt` take: removing that
/// file waits for them while [`PHASE`] is held.
pub static SEALED: Lock<Vec<u8>, 2> = Lock::new(Vec::new());

struct Entry {
    handle: Handle,
    name: String,
    priority: i32,
}

/// What holds the active phase together. Dropped only by [`Phase::abort`].
struct Active {
    generation: u64,
    /// The pages of the sealed tree.
    block: Block,
    /// In the order in which they serialized.
    done: Vec<Held>,
    _self: SelfHold,
}

/// Producers in their order, and the active phase if there is one.
pub struct Phase {
    producers: Vec<Entry>,
    /// Whose fault it was that the last activation failed, if it was anybody's.
    failed: Option<String>,
    active: Option<Active>,
}

impl Phase {
    const fn new() -> Self {
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
    pub fn register(&mut self, handle: Handle, name: &str, priority: i32) -> Result<(), Errno> {
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
    pub fn unregister(&mut self, handle: Handle) {
        let took_part = |active: &Active| active.done.iter().any(|held| held.is(handle));
        if self.active.as_ref().is_some_and(took_part) {
            log!(
                Level::Warning,
                "a producer goes away in the active phase, which is aborted"
            );
            self.abort();
        }
        if let Ok(name) = self.name(handle) {
            STORE.lock().let_go(name);
        }
        self.producers.retain(|p| p.handle != handle);
    }

    /// The name of a registered producer.
    fn name(&self, handle: Handle) -> Result<&str, Errno> {
        let found = self.producers.iter().find(|p| p.handle == handle);
        found.map(|p| p.name.as_str()).ok_or(EINVAL)
    }

    /// Notes that a producer has a node that arrived.
    ///
    /// # Errors
    ///
    /// See `kho_hold_node` in `include/kho.h`.
    pub fn hold(&self, handle: Handle, node: i64) -> Result<(), Errno> {
        STORE.lock().hold(self.name(handle)?, node)
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
        let hold = SelfHold::new().ok_or(ENODEV)?;
        let mut done = Vec::new();
        done.try_reserve_exact(self.producers.len())?;
        match self.serialize(&mut done) {
            Ok((generation, block, bytes)) => {
                *SEALED.lock() = bytes;
                if let Err(error) = publish_dt() {
                    *SEALED.lock() = Vec::new();
                    STORE.lock().thaw();
                    roll_back(&mut done);
                    return Err(error);
                }
                log!(
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
                STORE.lock().thaw();
                roll_back(&mut done);
                Err(error)
            }
        }
    }

    /// Asks every producer, in order; `done` has room for all and gets those that were asked successfully.
    ///
    /// Not inlined, as some others on this way: a session and a writer take more than a KiB each of a stack of 16.
    #[inline(never)]
    fn serialize(&mut self, done: &mut Vec<Held>) -> Result<(u64, Block, Vec<u8>), Errno> {
        let limits = STORE.lock().limits()?;
        let mut session = Session::new(limits)?;
        for producer in &self.producers {
            // A module that is about to go takes its state with it.
            let Some(held) = producer.handle.hold() else {
                continue;
            };
            let has = STORE.lock().held(&producer.name)?;
            session.begin_producer(&producer.name, has)?;
            let result = held.serialize(&mut session);
            if let Err(error) = result {
                self.failed = copied(&producer.name).ok();
                log!(
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
                    Level::Error,
                    "producer {} ignored an error, left a node open, or has no compatible (error {})",
                    producer.name,
                    error.0
                );
                return Err(error);
            }
        }
        let taken = |name: &str| self.producers.iter().any(|p| p.name == name);
        let again = STORE.lock().carry(&mut session, taken)?;
        if again != 0 {
            log!(
                Level::Info,
                "{again} nodes that arrived and that nobody took are handed over again"
            );
        }
        finish(&session)
    }

    /// Leaves the active phase: destroys the sealed tree, lets the producers undo what they did, in reverse
    /// order. Nothing when not active.
    pub fn abort(&mut self) {
        let Some(mut active) = self.active.take() else {
            return;
        };
        // First what an image that was loaded refers to: from here on it hands over nothing.
        active.block.zero(active.block.range());
        *SEALED.lock() = Vec::new();
        withdraw_dt();
        STORE.lock().thaw();
        roll_back(&mut active.done);
        log!(
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

fn roll_back(done: &mut Vec<Held>) {
    while let Some(held) = done.pop() {
        held.abort();
    }
}

/// Writes and seals the tree, in pages of its own.
#[inline(never)]
fn finish(session: &Session) -> Result<(u64, Block, Vec<u8>), Errno> {
    let generation = match random() {
        0 => 1, // 0 means: not active
        number => number,
    };
    let write = |own: PhysRange| {
        session.tree(|w| {
            w.prop_str(COMPATIBLE, CONTRACT)?;
            w.prop_u64(GENERATION, generation)?;
            w.prop_str(RELEASE, release())?;
            w.prop_u32(CHECKSUM, 0)?;
            w.prop_mem(MEM, [own])
        })
    };
    let page = PhysRange::new(kho::PhysAddr::new(0), PAGE_SIZE).map_err(|_| EINVAL)?;
    // The size does not depend on where it will be.
    let size = u64::try_from(write(page)?.len()).map_err(|_| ENOMEM)?;
    let mut block = STORE.lock().block(size.div_ceil(PAGE_SIZE))?;
    if session.kept().overlaps(block.range()) {
        log!(
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
mod tests {
    use super::*;
    use crate::boundary::ffi;
    use alloc::vec;

    #[test]
    fn only_a_producer_that_took_part_ends_the_active_phase() {
        let [part, gone] = [1, 2].map(|number| Handle::numbered(number.try_into().unwrap()));
        ffi::with(|machine| machine.free.push(512));
        let mut phase = Phase::new();
        phase.register(part, "part", 0).unwrap();
        phase.register(gone, "gone", 0).unwrap();
        phase.active = Some(Active {
            generation: 4,
            block: Block::any(0).unwrap(),
            done: vec![part.hold().unwrap()],
            _self: SelfHold::new().unwrap(),
        });
        phase.unregister(gone);
        assert_eq!((phase.generation(), phase.producers()), (Some(4), 1));
        phase.unregister(part);
        assert_eq!((phase.generation(), phase.producers()), (None, 0));
    }
}
