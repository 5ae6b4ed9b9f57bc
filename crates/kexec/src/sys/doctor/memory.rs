//! Findings about memory.

use super::finding::Findings;
use crate::sys::facts::blocks;
use crate::sys::facts::encryption::{Encryption, EncryptionLeaf};
use crate::sys::facts::host::{CpuFlags, KernelLog};
use crate::sys::facts::iomem::Iomem;
use crate::sys::facts::kexec::{Kdump, KexecState};
use crate::sys::facts::meminfo::MemInfo;
use crate::sys::facts::memmap::{FirmwareMap, compare};
use crate::sys::loaded;
use crate::sys::pageflags::PageFlags;
use crate::sys::physmem::Kcore;
use crate::sys::root::{FactError, Root, advice};
use kho::RangeSet;

/// Returns the number of bytes of the firmware's RAM that are offline, in offline blocks or as single pages. A fact
/// that cannot be read counts as 0 bytes here, and has a finding of its own.
pub(super) fn gone(root: &Root) -> u64 {
    let Ok(map) = FirmwareMap::read(root) else {
        return 0;
    };
    let pages = PageFlags::open(root).and_then(|flags| flags.reserved_and_offline(map.ram()));
    let pages = pages.map(|(_, offline)| offline).unwrap_or_default();
    let all = blocks::offline(root)
        .unwrap_or_default()
        .intersect(map.ram())
        .and_then(|blocks| blocks.union(&pages));
    all.map_or(0, |gone| gone.total())
}

/// Formats a size for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        1_048_576..10_737_418_240 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{} GiB", bytes.div_ceil(1 << 30)),
    }
}

fn first_of(set: &RangeSet) -> String {
    let Some(first) = set.iter().next() else {
        return String::new();
    };
    let more = if set.len() > 1 { ", ..." } else { "" };
    format!("{} at {first}{more}", size(set.total()))
}

pub(super) fn firmware_map(
    root: &Root,
    map: Result<FirmwareMap, FactError>,
    iomem: Result<&Iomem, &FactError>,
    cmdline: &str,
    out: &mut Findings,
) {
    const ID: &str = "firmware-map";
    let map = match map {
        Ok(map) if !map.ram().is_empty() => map,
        Ok(_) => {
            return out.block(
                ID,
                "/sys/firmware/memmap names no RAM",
                "report this: no kernel is known to do so",
            );
        }
        Err(e) if e.is_missing() => {
            return out.block(
                ID,
                e.to_string(),
                "boot a kernel with CONFIG_FIRMWARE_MEMMAP=y (Debian's have it)",
            );
        }
        Err(e) => return out.unreadable(ID, &e),
    };
    let iomem = match iomem {
        Ok(iomem) => iomem,
        Err(e) => return out.unreadable(ID, e),
    };
    let Ok(check) = compare(&map, iomem) else {
        return out.unreadable(ID, &kho::OutOfMemory);
    };
    let mut said = false;
    if !check.driver_managed.is_empty() || root.exists("sys/bus/virtio/drivers/virtio_mem/bind") {
        let mut names: Vec<&str> = check.driver_managed.iter().map(|d| d.1.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if !names.is_empty() {
            said = true;
            out.warn(
                ID,
                format!(
                    "a driver added RAM ({}): nothing is handed over there",
                    names.join(", ")
                ),
                "unplug it before the handover if the rest is enough",
            );
            out.explain(
                "This RAM is not in the firmware map. The next kernel has it only after the driver added it again.",
            );
        }
    }
    let mut unknown: Vec<&str> = map
        .entries()
        .iter()
        .filter_map(|e| e.kind.unknown())
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    if !unknown.is_empty() {
        said = true;
        out.warn(
            ID,
            format!(
                "the firmware map has memory of an unknown type ({})",
                unknown.join(", ")
            ),
            "report it, with ls /sys/firmware/memmap/*/type",
        );
        out.explain(
            "This version of kho does not know the type. The next kernel is told that this memory is reserved.",
        );
    }
    let drivers = RangeSet::from_ranges(check.driver_managed.iter().map(|d| d.0));
    let unknown = drivers.and_then(|d| check.unknown_to_firmware.subtract(&d));
    if let Ok(unknown) = unknown
        && !unknown.is_empty()
    {
        said = true;
        out.warn(
            ID,
            format!("the firmware map does not name RAM: {}", first_of(&unknown)),
            "a cold boot lets the firmware name it",
        );
        out.explain(
            "The kernel uses this RAM, for example because it was plugged in. Nothing is handed over there, and the \
             next kernel will not know it.",
        );
    }
    // A few pages for quirks are usual.
    if check.unused_by_kernel.total() > 16 << 20 {
        said = true;
        let why = cmdline
            .split_whitespace()
            .find(|w| w.starts_with("mem=") || w.starts_with("memmap="));
        let why = why.map_or_else(
            || "firmware quirks, stolen graphics memory or a persistent-memory region".to_owned(),
            |w| format!("{w} on the command line"),
        );
        out.warn(
            ID,
            format!(
                "RAM not used by this kernel: {}",
                first_of(&check.unused_by_kernel)
            ),
            "give the next kernel the same mem= and memmap=",
        );
        out.explain(format!(
            "The cause: {why}. The firmware map names this RAM, so the next kernel uses it unless its command line \
             says the same."
        ));
    }
    if !said {
        out.ok(
            ID,
            format!(
                "{} of RAM in {} ranges, complete",
                size(map.ram().total()),
                map.ram().len()
            ),
        );
    }
}

pub(super) fn encryption(
    cpu: &CpuFlags,
    version: Option<(u32, u32)>,
    cmdline: &str,
    log: &KernelLog,
    out: &mut Findings,
) {
    const ID: &str = "memory-encryption";
    match Encryption::decide(cpu, EncryptionLeaf::of_processor(), version, cmdline, log) {
        Encryption::Off => out.ok(ID, "memory is not encrypted by the kernel"),
        Encryption::Active(kind) => {
            out.block(
                ID,
                format!("memory is encrypted: {kind}"),
                "boot a host with mem_encrypt=off; a confidential guest has no way",
            );
            out.explain(
                "Kept content would read as noise in the next kernel. A confidential guest cannot hand over.",
            );
        }
        // A wrong answer here would lose everything that is kept.
        Encryption::Unknown(why) => {
            out.block(
                ID,
                "kho cannot tell whether memory is encrypted",
                "boot a host with mem_encrypt=off, or with a larger log_buf_len=",
            );
            out.explain(format!(
                "The cause: {why}. mem_encrypt=off says that memory is not encrypted; log_buf_len= keeps the \
                 beginning of the log longer."
            ));
        }
    }
}

pub(super) fn corrupted(info: Result<MemInfo, FactError>, out: &mut Findings) {
    const ID: &str = "hardware-corrupted";
    match info {
        Err(e) => out.unreadable(ID, &e),
        Ok(MemInfo {
            hardware_corrupted: 0,
            ..
        }) => out.ok(ID, "no page was lost to a hardware error"),
        Ok(info) => {
            out.warn(
                ID,
                format!(
                    "{} of memory were lost to hardware errors",
                    size(info.hardware_corrupted)
                ),
                "replace the memory module",
            );
            out.explain(
                "This kernel avoids that memory, and a handover tells the kernels after it to avoid it too.",
            );
        }
    }
}

pub(super) fn kdump(
    state: Option<&KexecState>,
    iomem: Result<&Iomem, &FactError>,
    out: &mut Findings,
) {
    const ID: &str = "kdump";
    let (Some(state), Ok(iomem)) = (state, iomem) else {
        return out.warn(
            ID,
            "whether a crash kernel is armed cannot be read",
            advice(),
        );
    };
    let Ok(kdump) = Kdump::new(state, iomem) else {
        return out.unreadable(ID, &kho::OutOfMemory);
    };
    let reserved = size(kdump.reserved.total());
    match (kdump.armed, kdump.reserved.is_empty()) {
        (true, _) => {
            out.warn(
                ID,
                format!("a crash kernel is armed ({reserved} reserved), until the kexec only"),
                "pass crashkernel= on, and see that the kdump service is enabled",
            );
            out.explain(
                "The next kernel starts without a crash kernel: a crash before its kdump service has run leaves no \
                 dump. It needs crashkernel= on its own command line, and that memory must fit beside the handed-over \
                 memory.",
            );
        }
        (false, false) => out.ok(
            ID,
            format!("{reserved} reserved for a crash kernel, none loaded"),
        ),
        (false, true) => out.ok(ID, "no crash kernel"),
    }
}

pub(super) fn access(root: &Root, out: &mut Findings) {
    match PageFlags::open(root).and_then(|f| f.of(kho::PhysAddr::new(1 << 20))) {
        Ok(Some(_)) => out.ok("page-flags", "/proc/kpageflags can be read"),
        Ok(None) => out.block(
            "page-flags",
            "/proc/kpageflags is empty",
            "boot a kernel with CONFIG_PROC_PAGE_MONITOR=y",
        ),
        Err(e) => out.unreadable("page-flags", &e),
    }
    match Kcore::open(root) {
        Ok(kcore) => {
            let bytes: u64 = kcore.ram().map(|r| r.len()).sum();
            out.ok(
                "kernel-memory",
                format!("/proc/kcore can be read ({} of RAM)", size(bytes)),
            );
        }
        Err(e) => {
            out.warn(
                "kernel-memory",
                e.to_string(),
                "boot a kernel with CONFIG_PROC_KCORE=y, without lockdown",
            );
            out.explain("Without it, kho reads arrived content a page at a time.");
        }
    }
    match loaded::can_tell(root) {
        Ok(()) => out.ok(
            "loaded-image",
            "kho can tell whose image is loaded: kho exec starts its own only",
        ),
        Err(why) => {
            out.warn(
                "loaded-image",
                "kho exec and kho reboot start none: kho cannot tell whose is loaded",
                "use kho load --arm and systemctl kexec",
            );
            out.explain(format!(
                "The cause: {why}. A kernel with CONFIG_KALLSYMS_ALL=y and CONFIG_PROC_KCORE=y can tell; \
                 kernel.kptr_restrict must not be 2."
            ));
        }
    }
    if root.exists("proc/self/pagemap") {
        out.ok("page-map", "/proc/self/pagemap is there");
    } else {
        out.warn(
            "page-map",
            "/proc/self/pagemap is missing: loading a large handover takes long",
            "boot a kernel with CONFIG_PROC_PAGE_MONITOR=y",
        );
    }
}
