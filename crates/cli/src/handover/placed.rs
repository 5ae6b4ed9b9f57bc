//! The place of a payload.

use kho::PhysRange;

/// Place and hash of a payload that is copied; of one that stays, its own are written.
#[derive(Clone, Default)]
pub struct Placed {
    /// Where, in order.
    pub mem: Vec<PhysRange>,
    /// BLAKE3 of the bytes.
    pub blake3: [u8; 32],
}
