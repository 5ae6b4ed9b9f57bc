//! Findings about policies that forbid a handover, and about devices.

use super::finding::Findings;
use crate::sys::facts::efi::Efi;
use crate::sys::facts::security::{Ima, Lockdown};
use crate::sys::root::Root;

pub(super) fn lockdown(root: &Root, out: &mut Findings) {
    const ID: &str = "lockdown";
    let level = match Lockdown::read(root) {
        Ok(level) => level,
        Err(e) => return out.unreadable(ID, &e),
    };
    let secure = Efi::read(root).ok().flatten().and_then(|e| e.secure_boot);
    let cause = match secure {
        Some(true) => "Secure Boot is on, which locks Debian's kernels down",
        Some(false) | None => {
            "something asked for it (lockdown= on the command line, or securityfs)"
        }
    };
    match level {
        Lockdown::Integrity | Lockdown::Confidentiality => {
            out.block(
                ID,
                "the kernel is locked down and forbids kexec_load",
                "kho load can put files into the initrd; or boot without lockdown",
            );
            out.explain(format!(
                "The cause: {cause}. A lockdown cannot be lifted at run time."
            ));
        }
        Lockdown::None => out.ok(ID, "not locked down"),
        Lockdown::Unknown if secure == Some(true) => {
            out.warn(
                ID,
                "Secure Boot is on; kho cannot see whether the kernel is locked down",
                "mount -t securityfs securityfs /sys/kernel/security",
            );
            out.explain("/sys/kernel/security would say it, and does not.");
        }
        Lockdown::Unknown => out.ok(ID, "no lockdown module, or securityfs is not mounted"),
    }
}

pub(super) fn ima(root: &Root, cmdline: &str, out: &mut Findings) {
    const ID: &str = "ima";
    match Ima::read(root, cmdline) {
        Err(e) => out.unreadable(ID, &e),
        Ok(Ima::Allows) => out.ok(ID, "no IMA policy that appraises kernels"),
        Ok(Ima::Refuses) => {
            out.block(
                ID,
                "the IMA policy appraises kernels, and so forbids kexec_load",
                "load a policy without appraise func=KEXEC_KERNEL_CHECK",
            );
            out.explain("kexec_load gives IMA no file to appraise.");
        }
        Ok(Ima::Likely) => {
            out.warn(
                ID,
                "ima_policy=secure_boot: IMA probably forbids kexec_load",
                "boot without ima_policy=secure_boot",
            );
            out.explain(
                "The command line asks for the IMA policy secure_boot, which appraises kernels. The kernel will \
                 refuse kexec_load with EACCES.",
            );
        }
        Ok(Ima::Unknown) => {
            out.warn(
                ID,
                "the IMA policy cannot be read: it may forbid kexec_load",
                "kho load changes nothing when it is refused: try it",
            );
            out.explain(
                "IMA measures with this policy. If the policy appraises kernels, the kernel refuses kexec_load with \
                 EACCES.",
            );
        }
    }
}

/// Counts the PCI functions that may write memory on their own; `None` if the kernel shows no devices.
fn bus_masters(root: &Root) -> Option<usize> {
    /// Command register, bit 2: bus master enable (PCI Local Bus 3.0, 6.2.2).
    const BUS_MASTER: u8 = 1 << 2;
    /// Base class: bridge.
    const BRIDGE: u8 = 6;
    /// Length of the standard header, in bytes. Some devices hang when a program reads past it (lspci(8), `-xxx`).
    const HEADER: usize = 64;
    let dir = "sys/bus/pci/devices";
    let mut count = 0;
    for entry in std::fs::read_dir(root.path(dir)).ok()?.flatten() {
        let mut config = [0; HEADER];
        let read = std::fs::File::open(entry.path().join("config"))
            .and_then(|mut file| std::io::Read::read(&mut file, &mut config));
        let config = config.get(..read.unwrap_or(0)).unwrap_or_default();
        let (Some(command), Some(class)) = (config.get(4), config.get(11)) else {
            continue;
        };
        if command & BUS_MASTER != 0 && *class != BRIDGE {
            count += 1;
        }
    }
    Some(count)
}

pub(super) fn dma(root: &Root, out: &mut Findings) {
    const ID: &str = "dma";
    match bus_masters(root) {
        None => out.ok(ID, "no PCI devices to be seen"),
        Some(count) => {
            out.ok(
                ID,
                format!("{count} PCI devices may write memory, as with any kexec"),
            );
            out.explain(
                "kho cannot see whether each driver stops its device at a kexec. A device that goes on writing can \
                 corrupt memory of the next kernel, as with any kexec. Checksums find damage to handed-over content.",
            );
        }
    }
}
