//! The active phase: the producers that take part in it, and its rule: either all of them succeed, or nothing changes.

use crate::contract::CONTRACT;
use crate::errno::{EBUSY, EEXIST, EINVAL, ENODATA, ENODEV, ENOMEM, Errno};
use crate::late::{Bounds, LateBlock, State};
use crate::session::Session;
use crate::store::Store;
use crate::system::{Block, System, log};
use crate::text::Level;
use alloc::string::String;
use alloc::vec::Vec;
use kho::abi::kernel_part::{KERNEL, RELEASE, Reference};
use kho::abi::late::BLOCK_LEN;
use kho::abi::{BLOBS, CHECKSUM, COMPATIBLE, GENERATION, MEM};
use kho::tree::{Writer, seal};
use kho::{PAGE_SIZE, PhysRange, RangeSet};

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

    /// Tells producers how many bytes they may keep beyond what they keep now, `u64::MAX` without a late load.
    fn set_room(bytes: u64);

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
    sealed: Sealed<S>,
    /// Producers that serialized, in the order of the calls.
    done: Vec<S::Held>,
    _self: S::SelfHold,
}

/// Result of a serialization: the sealed tree and the memory that it names.
struct Sealed<S: Drivers> {
    reference: Reference,
    /// The pages of the sealed tree.
    block: S::Block,
    /// Memory that producers keep, and the pages of the sealed tree.
    kept: RangeSet,
}

/// The late block, from the first late load on. The module then stays loaded.
struct Late<S: Drivers> {
    block: LateBlock<S>,
    _self: S::SelfHold,
}

/// Producers in their order, and the active phase, if there is one.
pub struct Phase<S: Drivers> {
    producers: Vec<Entry<S>>,
    /// Name of the producer that made the last activation fail; `None` if none did.
    failed: Option<String>,
    active: Option<Active<S>>,
    late: Option<Late<S>>,
}

impl<S: Drivers> Phase<S> {
    /// Makes a list without producers, outside the active phase.
    pub const fn new() -> Self {
        Self {
            producers: Vec::new(),
            failed: None,
            active: None,
            late: None,
        }
    }

    /// Generation of the active phase; `None` outside it.
    pub fn generation(&self) -> Option<u64> {
        self.active.as_ref().map(|a| a.sealed.reference.generation)
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
            Ok((sealed, bytes)) => {
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
                    sealed.reference.size,
                    sealed.block.range()
                );
                self.active = Some(Active {
                    sealed,
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
    fn serialize(&mut self, done: &mut Vec<S::Held>) -> Result<(Sealed<S>, Vec<u8>), Errno> {
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
        if let Some(late) = &mut self.late {
            late.block.empty();
        }
        let pages = active.sealed.block.range();
        active.sealed.block.zero(pages);
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

    /// The late block; `None` before the first late load.
    pub fn late(&self) -> Option<&LateBlock<S>> {
        self.late.as_ref().map(|late| &late.block)
    }

    /// Makes the late block ready for a new load: allocates it if there is none, and draws the nonce of that load. From the first call on the module stays loaded, because an image may point to the block.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] while the module is being unloaded; no memory.
    pub fn prepare(&mut self) -> Result<(), Errno> {
        if self.late.is_none() {
            let hold = S::hold_self().ok_or(ENODEV)?;
            let mut ground = S::store(|store| store.ground())?;
            let block = LateBlock::new(ground.block::<S>(BLOCK_LEN / PAGE_SIZE)?)?;
            self.late = Some(Late { block, _self: hold });
        }
        let late = self.late.as_mut().ok_or(ENOMEM)?;
        late.block.prepare(S::random());
        Ok(())
    }

    /// Arms a load that names the late block. Serializes once and plans with the result, and lets the producers undo
    /// that, so that a load which has no room for what is kept now is refused here.
    ///
    /// # Errors
    ///
    /// [`ENODATA`] before [`prepare`](Self::prepare); the errors of [`LateBlock::arm`] and [`LateBlock::plan`]; outside
    /// the active phase, those of [`activate`](Self::activate). No load is armed then.
    pub fn arm(&mut self, bounds: Bounds) -> Result<(), Errno> {
        let late = self.late.as_mut().ok_or(ENODATA)?;
        let armed = S::store(|store| late.block.arm(bounds, store));
        match armed.and_then(|()| self.try_plan()) {
            Ok(room) => {
                S::set_room(room);
                Ok(())
            }
            Err(error) => {
                self.disarm();
                Err(error)
            }
        }
    }

    /// Plans the late mem cache for what is kept now, and changes nothing. Returns the number of bytes that may be kept
    /// besides.
    fn try_plan(&mut self) -> Result<u64, Errno> {
        let room = |late: &Late<S>, kept: &RangeSet| {
            let cache = S::store(|store| late.block.plan(kept, store.unclaimed_pages()))?;
            Ok(late.block.room(&cache))
        };
        if let (Some(active), Some(late)) = (&self.active, &self.late) {
            return room(late, &active.sealed.kept);
        }
        let mut done = Vec::new();
        done.try_reserve_exact(self.producers.len())?;
        let sealed = self.serialize(&mut done);
        S::store(Store::thaw);
        roll_back::<S>(&mut done);
        let late = self.late.as_ref().ok_or(ENODATA)?;
        room(late, &sealed?.0.kept)
    }

    /// Hands over at the last moment: enters the active phase, unless it has begun, and publishes the late block. A
    /// failure leaves the active phase that this call began.
    ///
    /// # Errors
    ///
    /// [`ENODATA`] if no load is armed; the errors of [`activate`](Self::activate) and [`LateBlock::publish`]. The block
    /// is then empty.
    pub fn publish(&mut self) -> Result<(), Errno> {
        match self.late().map(LateBlock::state) {
            None | Some(State::Idle) => return Err(ENODATA),
            Some(_) => {}
        }
        let began = self.active.is_none();
        if began {
            self.activate()?;
        }
        let (active, late) = (self.active.as_ref(), self.late.as_mut());
        let (active, late) = active.zip(late).ok_or(ENODATA)?;
        let sealed = &active.sealed;
        let result = S::store(|store| {
            let arrived = store.unclaimed_pages();
            late.block.publish(sealed.reference, &sealed.kept, arrived)
        });
        if result.is_err() && began {
            self.abort();
        }
        result
    }

    /// Forgets the load that names the late block, and empties the block.
    pub fn disarm(&mut self) {
        if let Some(late) = &mut self.late {
            late.block.disarm();
            S::store(|store| store.set_image(RangeSet::new()));
            S::set_room(u64::MAX);
        }
    }

    /// The system is about to start the loaded image. If a load is armed and its block is empty, publishes the block.
    /// Nothing can stop the start any more, so a failure is only logged.
    pub fn on_kexec(&mut self) {
        if self.late().map(LateBlock::state) != Some(State::Armed) {
            return;
        }
        if let Err(error) = self.publish() {
            log!(
                S,
                Level::Emergency,
                "the next kernel starts WITHOUT the state of drivers and khofs (error {}): use kho exec, which refuses instead",
                error.0
            );
        }
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

/// Writes the tree into pages of its own and seals it. Returns it, and its bytes.
#[inline(never)]
fn finish<S: Drivers>(session: &Session) -> Result<(Sealed<S>, Vec<u8>), Errno> {
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
    let mut kept = session.kept().try_clone()?;
    kept.insert(block.range())?;
    let reference = Reference {
        mem: block.range(),
        size,
        generation,
    };
    Ok((
        Sealed {
            reference,
            block,
            kept,
        },
        bytes,
    ))
}

#[cfg(test)]
mod tests;
