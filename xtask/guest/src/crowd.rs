//! Loads a kernel with a chosen number of separate early reservations, to find out how many a kernel takes.
//!
//! `kho` never plans for more than a cap. Here the plan's only entry gives the memory: its first part takes the state
//! segment, and single pages of the rest, none next to another, are reserved.

use anyhow::{Result, ensure};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_kexec::assemble::Placement;

use crate::loader::{self, Next, Places};

/// Room for chain and tree.
const STATE: u64 = 64 << 10;

/// Arguments of `kho-guest load-crowd`; `kho plan --json` with one entry comes on standard input.
#[derive(clap::Args)]
pub struct Arguments {
    /// Number of ranges, the one with the state included.
    count: u64,
    #[command(flatten)]
    next: Next,
}

/// `kho-guest load-crowd`
pub fn load(arguments: &Arguments) -> Result<()> {
    let places = Places::read()?;
    let room = places.blob;
    let needed = STATE + arguments.count * 2 * PAGE_SIZE;
    ensure!(
        room.len() >= needed,
        "the entry has {:#x} bytes, {needed:#x} are needed",
        room.len()
    );
    let page = |at: u64, len: u64| PhysRange::new(PhysAddr::new(room.start().get() + at), len);
    let state = page(0, STATE)?;
    let mut reserved = vec![state];
    for number in 1..arguments.count {
        reserved.push(page(STATE + number * 2 * PAGE_SIZE, PAGE_SIZE)?);
    }
    let tree = places.tree(&reserved, &[], |_| Ok(()))?;
    let placement = Placement {
        state,
        ..places.placement
    };
    loader::load(&arguments.next, placement, &tree, &reserved, None)
}
