//! Firmware services that the next kernel must still be able to use.

use crate::scenario::Scenario;
use kho_lab::qemu::Firmware;

const LIST_VARIABLES: &str = "
    mount -t efivarfs efivarfs /sys/firmware/efi/efivars
    ls /sys/firmware/efi/efivars | kho-guest hash --same 'names of the EFI variables'
    for name in /sys/firmware/efi/efivars/Boot*; do cat \"$name\"; done | kho-guest hash --same 'Boot variables'";

const ACPI: &str = "
    fails [ -e /sys/firmware/efi/runtime-map/0 ]
    for table in APIC FACP; do cat /sys/firmware/acpi/tables/$table; done | kho-guest hash --same 'ACPI tables'";

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        hop("uefi", Firmware::Uefi, "", "UEFI: EFI variables are readable after each hop, of kernels that are entered directly"),
        hop(
            "uefi-tpm",
            Firmware::UefiTpm,
            "
            [ -c /dev/tpm0 ]
            kho-guest hash --same 'TPM event log' </sys/kernel/security/tpm0/binary_bios_measurements",
            "UEFI with a TPM: its event log is readable after each hop, of kernels that are entered directly",
        ),
        // Without ACPI the machine could not even power off.
        Scenario::new(
            "uefi-noruntime",
            "UEFI without runtime services, as PREEMPT_RT kernels have it: ACPI is there after each hop, on 5.10 too",
        )
        .kernels(&["6.12", "7.3", "5.10", "6.1"])
        .firmware(Firmware::Uefi)
        .append("efi=noruntime")
        .first(&format!("{ACPI}\nkeep_tree_and_blob 8\ndirectly"))
        .each(&format!("{ACPI}\ncheck_tree_and_blob")),
    ]
}

fn hop(name: &str, firmware: Firmware, more: &str, about: &str) -> Scenario {
    let mount = "mount -t securityfs securityfs /sys/kernel/security 2>/dev/null || true";
    Scenario::new(name, about)
        .kernels(&["6.1", "6.12", "7.3"])
        .firmware(firmware)
        .modules(&["efivarfs"])
        .first(&format!(
            "{mount}\n{LIST_VARIABLES}\n{more}\nkeep_tree_and_blob 8\ndirectly"
        ))
        .each(&format!(
            "{mount}\n{LIST_VARIABLES}\n{more}\ncheck_tree_and_blob\ndirectly"
        ))
}
