//! Content that the initrd carries, where the running kernel does not let memory stay in place.

use crate::scenario::Scenario;
use kho_lab::qemu::Firmware;

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let script = include_str!("initrd/carry.sh");
    let locked = include_str!("initrd/locked.sh");
    vec![
        Scenario::new(
            "initrd-carrier",
            "a chain that changes its carrier: memory, the initrd twice, memory; blobs, files and a trace",
        )
        .kernels(&["6.12", "6.1", "6.12", "7.3", "6.1"])
        .first(script)
        .each(script),
        Scenario::new(
            "initrd-secure-boot",
            "kernels that Secure Boot locks down: the initrd carries, by a load and by a capture; an image with a wrong signature is refused",
        )
        .kernels(&["6.12", "6.1", "6.12"])
        .firmware(Firmware::SecureBoot)
        .first(locked)
        .each(locked),
    ]
}
