//! The active phase of this machine.

use crate::boundary::kernel::{self, SelfHold, publish_dt, withdraw_dt};
use crate::boundary::producer::{Handle, Held};
use crate::boundary::system::{Linux, Store};
use crate::store::STORE;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use kho_boundary::sync::Lock;
use kho_decide::errno::Errno;
use kho_decide::phase::{Drivers, Phase};
use kho_decide::session::Session;

/// Producers, and whether they are frozen.
pub static PHASE: Lock<Phase<Linux>, 0> = Lock::new(Phase::new());

/// The tree of the active phase, which the file `dt` shows. It has a lock of its own for the readers of `dt`: the
/// removal of that file waits for its readers while the caller holds [`PHASE`].
pub static SEALED: Lock<Vec<u8>, 2> = Lock::new(Vec::new());

/// Bytes that producers may keep beyond what they kept at the last serialization. Producers read it at each allocation,
/// so it has no lock.
pub static ROOM: AtomicU64 = AtomicU64::new(u64::MAX);

impl Drivers for Linux {
    type Producer = Handle;
    type Held = Held;
    type SelfHold = SelfHold;

    fn hold(producer: Handle) -> Option<Held> {
        producer.hold()
    }

    fn is(held: &Held, producer: Handle) -> bool {
        held.is(producer)
    }

    fn serialize(held: &Held, session: &mut Session) -> Result<(), Errno> {
        held.serialize(session)
    }

    fn abort(held: &Held) {
        held.abort();
    }

    fn hold_self() -> Option<SelfHold> {
        SelfHold::new()
    }

    fn random() -> u64 {
        kernel::random()
    }

    fn set_room(bytes: u64) {
        ROOM.store(bytes, Ordering::Relaxed);
    }

    fn release() -> &'static str {
        kernel::release()
    }

    fn store<T>(act: impl FnOnce(&mut Store) -> T) -> T {
        act(&mut STORE.lock())
    }

    fn set_sealed(bytes: Vec<u8>) {
        *SEALED.lock() = bytes;
    }

    fn publish() -> Result<(), Errno> {
        publish_dt()
    }

    fn withdraw() {
        withdraw_dt();
    }
}
