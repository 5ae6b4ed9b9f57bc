//! Memory for producers, allocated and erased without the lock of the store, so that no other caller waits.

use crate::errno::{ENOMEM, Errno};
use crate::phase::Drivers;
use crate::store::Ground;
use crate::system::Block;
use kho::PhysRange;

/// Lends `count` pages to a producer.
///
/// # Errors
///
/// [`ENOMEM`].
pub fn lend<S: Drivers>(count: usize) -> Result<PhysRange, Errno> {
    if count == 0 {
        return Err(ENOMEM);
    }
    if let Some(range) = S::store(|store| store.lend(count)) {
        return Ok(range);
    }
    let block = block::<S>(|ground| ground.block_for::<S>(count))?;
    S::store(|store| store.lend_of(block, count))
}

/// Allocates `count` pages outside scratch, which the caller owns from then on.
///
/// # Errors
///
/// [`ENOMEM`].
pub fn give_away<S: Drivers>(count: usize) -> Result<PhysRange, Errno> {
    let pages = u64::try_from(count).map_err(|_| ENOMEM)?;
    let block = block::<S>(|ground| ground.block::<S>(pages))?;
    Ok(block.give_away())
}

/// Allocates a block outside scratch. Tries again if the scratch region or the destinations of a loaded image were set
/// meanwhile.
fn block<S: Drivers>(
    allocate: impl Fn(&mut Ground) -> Result<S::Block, Errno>,
) -> Result<S::Block, Errno> {
    loop {
        let mut ground = S::store(|store| store.ground())?;
        let block = allocate(&mut ground);
        if S::store(|store| store.searched(&ground)) {
            return block;
        }
    }
}
