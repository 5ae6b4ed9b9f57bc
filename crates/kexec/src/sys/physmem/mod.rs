//! Readers of physical memory for root. They need no kernel module.
//!
//! | reader | memory | method |
//! | --- | --- | --- |
//! | [`Kcore`] | all RAM, by physical address | any length per call; copied page by page through a bounce buffer |
//! | [`InitrdFiles`] | places in files of the initrd, not memory | any length per call |
//! | [`SetupMemory`] | the ranges of the setup_data chain | a page per call; each call walks the chain up to the node |
//!
//! Speed in MB/s, measured after hops in a guest with three nodes, with [`read_range`], so with the buffer's allocation
//! (one CPU, instructions as time, 1 ns each):
//!
//! | kernel, node | kcore | setup_data |
//! | --- | --- | --- |
//! | 6.12, 84 MiB (16 MiB of it through setup_data) | 97 | 146 |
//! | 6.12, 16 MiB | 194 | 145 |
//! | 7.3, 100 MiB (16 MiB of it through setup_data) | 104 | 169 |
//!
//! So neither reader is faster in general while the chain is short: both copy page by page. The walk along the chain
//! makes setup_data slower with every node (a page of the 90th node takes about 90 mappings), and kcore uses physical
//! addresses, so kho tries kcore first.
//!
//! [`open`] tries [`Kcore`] and then [`SetupMemory`], which also works on a kernel without `/proc/kcore`, and under
//! lockdown (confidentiality), which refuses `/proc/kcore`.
//!
//! # Limits of a read
//!
//! Both readers return the *present* bytes of the memory. For a page that is poisoned, offline or not accepted yet
//! `/proc/kcore` returns **zeros** without an error (`read_kcore_iter`, `fs/proc/kcore.c`, 6.1 to 7.3): compare a
//! checksum, or read [`crate::sys::pageflags`].

mod arrived;
mod chosen;
mod initrd;
mod kcore;
mod memory;
mod reader;
mod setup;

pub use arrived::{Arrived, Reserved};
pub use initrd::InitrdFiles;
pub use kcore::Kcore;
pub use memory::{PhysError, PhysMemory, read_range};
pub use reader::Reader;
pub use setup::{LateNodes, SetupMemory, find_late};

use crate::sys::root::Root;
use kho::PhysRange;

/// Looks for the state tree that arrived: in the setup_data chain (x86), then in the devicetree (arm64), and then in
/// files of the initrd.
///
/// # Errors
///
/// [`PhysError`] if the carrier cannot be read: the process is not root, or a file differs from the kernel's
/// documentation. A readable carrier without a valid handover is [`Arrived::Corrupt`].
pub fn find_tree(root: &Root) -> Result<Arrived, PhysError> {
    match setup::find(root)? {
        Arrived::Nothing => match chosen::find(root)? {
            Arrived::Nothing => initrd::find(root),
            found => Ok(found),
        },
        found => Ok(found),
    }
}

/// Opens the best reader of `ranges`: [`Kcore`] if it contains all of them, else the setup_data chain.
///
/// `nodes` assigns a setup_data node to each range (the chain has one node per mem-cache entry, in order, after the
/// node of the tree); sysfs does not show addresses.
///
/// # Errors
///
/// The error of `/proc/kcore` if neither works.
pub fn open(
    root: &Root,
    ranges: &[PhysRange],
    nodes: &[(PhysRange, u32)],
) -> Result<Box<dyn PhysMemory + Send>, PhysError> {
    let refused = match Kcore::open(root) {
        Ok(kcore) => match ranges.iter().find_map(|r| kcore.first_missing(*r)) {
            None => return Ok(Box::new(kcore)),
            Some(addr) => PhysError::NotMapped {
                path: root.path("proc/kcore"),
                addr,
            },
        },
        Err(error) => error,
    };
    let Ok(setup) = SetupMemory::open(root, nodes) else {
        return Err(refused);
    };
    if ranges.iter().all(|r| setup.holds(*r)) {
        return Ok(Box::new(setup));
    }
    Err(refused)
}

#[cfg(test)]
pub(crate) use kcore::tests::{
    core_file as core_file_for_tests, core_file_with_notes as core_file_with_notes_for_tests,
};
