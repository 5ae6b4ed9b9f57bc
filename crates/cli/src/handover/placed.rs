//! The place of a payload.

use kho::PhysRange;

/// Place and hash of a payload that is copied. For a payload that stays in place, the tree gets its old place and hash.
#[derive(Clone, Default)]
pub struct Placed {
    /// Ranges of physical memory, in order.
    pub mem: Vec<PhysRange>,
    /// BLAKE3 of the bytes.
    pub blake3: [u8; 32],
}
