//! The store of this machine.

use crate::boundary::system::Store;
use kho_boundary::sync::Lock;

/// The store of this machine.
pub static STORE: Lock<Store, 1> = Lock::new(Store::new());
