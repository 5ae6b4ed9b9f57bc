//! Every kernel reaches its init.

use crate::scenario::Scenario;
use kho_lab::qemu::Firmware;

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let boots = ["6.1", "6.12", "7.3"].map(|kernel| {
        Scenario::new(
            format!("smoke-{kernel}"),
            format!("{kernel} boots, runs a script and powers off"),
        )
        .kernels(&[kernel])
        .first("[ \"$KHO_HOP\" = 0 ]; kho-guest fill; kho --version")
    });
    let uefi = Scenario::new(
        "smoke-uefi-tpm",
        "a guest has its EFI variables and its TPM",
    )
    .kernels(&["6.12"])
    .firmware(Firmware::UefiTpm)
    .modules(&["efivarfs"])
    .first(
        "mount -t efivarfs efivarfs /sys/firmware/efi/efivars
             [ -n \"$(ls /sys/firmware/efi/efivars)\" ]
             [ -c /dev/tpm0 ]",
    );
    let step = Scenario::new(
        "smoke-step",
        "the host reads a guest's memory while the guest waits",
    )
    .first("kho-guest mark look")
    .step("look", |host| {
        let file = host.dir.join("memory");
        host.qmp.save_memory(0xf_0000, 0x1_0000, &file)?;
        let bytes = std::fs::read(file)?;
        // The BIOS has a far jump at its reset vector; empty memory would be zeros.
        anyhow::ensure!(
            bytes.get(0xfff0) == Some(&0xea),
            "the BIOS is not where it should be"
        );
        anyhow::ensure!(host.lives.len() == 1, "one kernel runs");
        Ok(())
    });
    boots.into_iter().chain([uefi, step]).collect()
}
