//! Early reservations: the cap that `kho` plans for holds on every kernel and firmware.

use super::Scenario;
use crate::early::scenario;
use crate::qemu::Firmware;

/// `EARLY_RANGES` of `crates/cli/src/handover/prepare.rs`.
const CAP: u64 = 96;

/// The tests of this file. The combinations that reserve most for themselves are run always.
pub fn scenarios() -> Vec<Scenario> {
    let all = |firmware| ["6.1", "6.12", "7.3"].map(|kernel| scenario(kernel, firmware, CAP));
    let mut list: Vec<Scenario> = all(Firmware::UefiTpm).into();
    list.extend(all(Firmware::Bios).map(Scenario::slow));
    list.extend(all(Firmware::Uefi).map(Scenario::slow));
    list
}
