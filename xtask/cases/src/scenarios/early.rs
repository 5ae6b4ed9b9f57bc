//! Early reservations: the cap that `kho` plans for holds on every kernel and firmware.

use crate::scenario::Scenario;
use kho_lab::qemu::Firmware;

/// `EARLY_RANGES` of `crates/kexec/src/carrier/early.rs`.
const CAP: u64 = 96;

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    [Firmware::Bios, Firmware::Uefi, Firmware::UefiTpm]
        .into_iter()
        .flat_map(|firmware| ["6.1", "6.12", "7.3"].map(|kernel| scenario(kernel, firmware, CAP)))
        .chain([Firmware::Bios, Firmware::Uefi].map(|firmware| scenario("5.10", firmware, CAP)))
        .collect()
}

/// One hop from 6.1 into `kernel` with `count` reservations, each of which is checked before and after all free memory
/// was overwritten.
pub fn scenario(kernel: &str, firmware: Firmware, count: u64) -> Scenario {
    let mut names = kho_lab::kernel::names().into_iter();
    let kernel = names.find(|name| *name == kernel).unwrap_or("6.1");
    Scenario::new(
        format!("early-{kernel}-{firmware}"),
        format!("{kernel} on {firmware} takes {count} early reservations"),
    )
    .kernels(&["6.1", kernel])
    .firmware(firmware)
    .first(&format!(
        "count={count}\n{}",
        include_str!("early/first.sh")
    ))
    .each(&format!("count={count}\n{}", include_str!("early/each.sh")))
    .timeout_s(90)
}
