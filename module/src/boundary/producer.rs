//! Producers, and the context that kho.ko lends to them.

use super::ffi;
use core::ffi::c_void;
use core::ptr::NonNull;
use kho_decide::errno::Errno;
use kho_decide::session::Session;

/// A C driver's `struct kho_producer`.
///
/// # Invariants
///
/// The handle points to a structure that the driver registered and has not unregistered yet. By `kho.h` the structure
/// stays unchanged until then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Handle(NonNull<c_void>);

// SAFETY: a handle only names the structure, and a caller that uses the structure holds the phase's lock.
unsafe impl Send for Handle {}

impl Handle {
    /// The producer at `pointer`.
    ///
    /// # Safety
    ///
    /// The # Invariants hold while the handle or a copy has a use other than a comparison.
    pub unsafe fn new(pointer: *mut c_void) -> Option<Self> {
        NonNull::new(pointer).map(Self)
    }

    /// Takes a reference on the driver's module; `None` if the module is being unloaded.
    pub fn hold(self) -> Option<Held> {
        // SAFETY: registered, by the # Invariants.
        let held = unsafe { ffi::kho_c_hold(self.0.as_ptr()) };
        // The value is made only after success: dropping it would otherwise return a reference that was never taken.
        held.then(|| Held(self))
    }
}

/// A producer whose module stays loaded until this value is dropped.
pub struct Held(Handle);

impl Held {
    /// Whether this is the producer `handle`.
    pub fn is(&self, handle: Handle) -> bool {
        self.0 == handle
    }

    /// Lets the driver write into `session`.
    ///
    /// # Errors
    ///
    /// The error that the driver returns.
    pub fn serialize(&self, session: &mut Session) -> Result<(), Errno> {
        let ctx: *mut Session = session;
        // SAFETY: registered, and its module is held. `ctx` is the only access to the session during the call, and the
        // driver must not use it after the call (kho.h).
        let result = unsafe { ffi::kho_c_serialize(self.0.0.as_ptr(), ctx.cast()) };
        if result == 0 {
            Ok(())
        } else {
            // A positive result is not a success either.
            let code = i64::from(result).checked_abs().and_then(i64::checked_neg);
            Errno::check(code.unwrap_or(-22)).map(|_| ())
        }
    }

    /// Lets the driver undo its serialization.
    pub fn abort(&self) {
        // SAFETY: registered, and its module is held.
        unsafe { ffi::kho_c_abort(self.0.0.as_ptr()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: this is the one reference that `hold` took.
        unsafe { ffi::kho_c_unhold(self.0.0.as_ptr()) }
    }
}
