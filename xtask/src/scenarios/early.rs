//! Early reservations: the cap that `kho` plans for holds on every kernel and firmware.

use super::Scenario;
use crate::early::scenario;
use crate::qemu::Firmware;

/// `EARLY_RANGES` of `crates/cli/src/handover/prepare.rs`.
const CAP: u64 = 96;

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    [Firmware::Bios, Firmware::Uefi, Firmware::UefiTpm]
        .into_iter()
        .flat_map(|firmware| ["6.1", "6.12", "7.3"].map(|kernel| scenario(kernel, firmware, CAP)))
        .chain([Firmware::Bios, Firmware::Uefi].map(|firmware| scenario("5.10", firmware, CAP)))
        .collect()
}
