//! Mutexes of the kernel around Rust values.

use crate::ffi;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

/// A value that kernel mutex number `N` of `glue.c` protects.
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
    /// Makes a lock that protects `value` with mutex `N`.
    pub const fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the mutex until the guard is dropped. May sleep.
    pub fn lock(&'static self) -> Guard<T, N> {
        // SAFETY: callers take locks in ascending order of N and never twice (documentation of each module).
        unsafe { ffi::kho_c_lock(N) };
        Guard { lock: self }
    }
}

/// Access to the value while the mutex is held.
pub struct Guard<T: 'static, const N: u32> {
    lock: &'static Lock<T, N>,
}

impl<T, const N: u32> Deref for Guard<T, N> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mutex is held until the guard is dropped, and by the type's # Invariants it is the only mutex of
        // this value.
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
        // SAFETY: this guard holds the mutex.
        unsafe { ffi::kho_c_unlock(N) };
    }
}
