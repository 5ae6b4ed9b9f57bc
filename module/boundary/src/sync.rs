//! Mutexes of the kernel around Rust values.

use crate::ffi;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

/// A value that is reached through kernel mutex number `N` of `glue.c`.
///
/// # Invariants
///
/// At most one `Lock` exists for an `N`: each is a static, and the numbers differ.
pub struct Lock<T, const N: u32> {
    value: UnsafeCell<T>,
}

// SAFETY: `lock` gives the value to one thread at a time.
unsafe impl<T: Send, const N: u32> Sync for Lock<T, N> {}

impl<T, const N: u32> Lock<T, N> {
    /// Puts `value` behind mutex `N`.
    pub const fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the mutex, for as long as the guard lives. May sleep.
    pub fn lock(&'static self) -> Guard<T, N> {
        // SAFETY: locks are taken in ascending order of N and never twice (documentation of each module).
        unsafe { ffi::kho_c_lock(N) };
        Guard { lock: self }
    }
}

/// The value, while the mutex is held.
pub struct Guard<T: 'static, const N: u32> {
    lock: &'static Lock<T, N>,
}

impl<T, const N: u32> Deref for Guard<T, N> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mutex is held as long as the guard lives, and by the type's # Invariants it is the
        // only one for this value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, const N: u32> DerefMut for Guard<T, N> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, const N: u32> Drop for Guard<T, N> {
    fn drop(&mut self) {
        // SAFETY: this guard holds it.
        unsafe { ffi::kho_c_unlock(N) };
    }
}
