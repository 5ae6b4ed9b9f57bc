//! The functions of the C files on a host: mutexes that spin, and a log that discards its lines.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether each mutex is held. The modules use as many mutexes.
static HELD: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

fn held(which: u32) -> Option<&'static AtomicBool> {
    HELD.get(usize::try_from(which).ok()?)
}

pub unsafe fn kho_c_lock(which: u32) {
    let Some(held) = held(which) else { return };
    while held.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
}

pub unsafe fn kho_c_unlock(which: u32) {
    if let Some(held) = held(which) {
        held.store(false, Ordering::Release);
    }
}

pub unsafe fn kho_c_log(_: u32, _: *const u8, _: usize) {}

std::thread_local! {
    static RELAXED: Cell<usize> = const { Cell::new(0) };
}

pub fn kho_c_relax() {
    RELAXED.set(times_relaxed().wrapping_add(1));
}

/// Number of times that this thread has called `kho_c_relax`.
pub fn times_relaxed() -> usize {
    RELAXED.get()
}
