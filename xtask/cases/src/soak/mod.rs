//! Many handovers in a row, with all producers at once and all content compared.
//!
//! A number (the seed) decides what is kept in each kernel, its sizes and its changes, how much memory is in use while
//! the next kernel is loaded (and so the destinations of the load), and which kernel comes next. Kept are blobs,
//! directories, a sample driver's ring, files on khofs and the trace of each kernel. After each hop the guest
//! overwrites its free memory and compares the hash of everything. Before that, the host reads the arrived content from
//! the memory of the machine and compares it with the hashes in the state tree; it compares files with the previous
//! kernel's report of them.

mod account;
mod model;
mod outside;
pub mod report;

use crate::scenario::{Keys, Scenario};
use outside::MEM_MIB;
use report::Summary;

/// The guest test with `hops` hops and this seed.
pub fn scenario(name: &str, hops: usize, seed: u64) -> Scenario {
    let plan = model::Plan::new(hops, seed);
    let mut scenario = Scenario::new(
        name,
        "hops with blobs, files on khofs, a driver and traces at once, checked inside and outside",
    )
    .kernels(&plan.kernels)
    .mem_mib(MEM_MIB)
    .memory_in_file()
    .kho_modules(&["kho", "kho_ring", "khofs"])
    .timeout_s(120 + 120 * hops as u64)
    .step("outside", outside::compare)
    // A content may be removed before the next hop. The account says what is compared.
    .told_once(Keys::All)
    .check(|outcome| Summary::of(outcome).map(|sum| sum.line()));
    for (hop, script) in plan.scripts.iter().enumerate() {
        scenario = scenario.at(hop, script);
    }
    scenario
}
