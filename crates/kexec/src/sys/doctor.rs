//! Findings about this machine: the obstacles to a handover, and the advice about each.
//!
//! The findings have the words that a user sees; the command prints them. They do not cover headroom: only the planner
//! knows how much headroom a handover needs.

mod finding;
mod memory;
mod policy;

use crate::sys::facts::host::{CpuFlags, Hypervisor, KernelId, KernelLog, cmdline};
use crate::sys::facts::iomem::Iomem;
use crate::sys::facts::kexec::KexecState;
use crate::sys::facts::meminfo::MemInfo;
use crate::sys::facts::memmap::FirmwareMap;
use crate::sys::facts::process::Process;
use crate::sys::root::{Root, advice};
use finding::Findings;

pub use finding::{Finding, Severity};

/// Every [`Finding::id`], in the order of [`examine`].
pub const IDS: &[&str] = &[
    "kernel",
    "privileges",
    "kexec",
    "lockdown",
    "ima",
    "firmware-map",
    "memory-encryption",
    "hardware-corrupted",
    "kdump",
    "page-flags",
    "kernel-memory",
    "loaded-image",
    "page-map",
    "dma",
    "hypervisor",
    "khofs",
];

/// Returns the worst severity of some findings; [`Severity::Ok`] if there is none.
pub fn worst(findings: &[Finding]) -> Severity {
    let all = findings.iter().map(|f| f.severity);
    all.max().unwrap_or(Severity::Ok)
}

/// Examines the machine. Returns one or more findings for each of [`IDS`], in that order. Never fails: a fact that
/// cannot be read is a finding.
pub fn examine(root: &Root) -> Vec<Finding> {
    let mut out = Findings::default();
    kernel(root, &mut out);
    privileges(root, &mut out);
    let state = kexec(root, &mut out);
    policy::lockdown(root, &mut out);
    let line = cmdline(root).unwrap_or_default();
    policy::ima(root, &line, &mut out);
    let iomem = Iomem::read(root);
    memory::firmware_map(
        root,
        FirmwareMap::read(root),
        iomem.as_ref(),
        &line,
        &mut out,
    );
    let cpu = CpuFlags::read(root);
    match &cpu {
        Ok(cpu) => {
            let version = KernelId::read(root).ok().and_then(|id| id.version());
            memory::encryption(cpu, version, &line, &KernelLog::read(root), &mut out);
        }
        // An error of the reader does not show that encryption is off.
        Err(e) => out.unreadable("memory-encryption", e),
    }
    let cpu = cpu.unwrap_or_default();
    memory::corrupted(MemInfo::read(root), &mut out);
    memory::kdump(state.as_ref(), iomem.as_ref(), &mut out);
    memory::access(root, &mut out);
    policy::dma(root, &mut out);
    hypervisor(root, &cpu, &mut out);
    khofs(root, &mut out);
    out.list
}

/// Versions on which handovers are tested: from, to.
const TESTED: [(u32, u32); 2] = [(5, 10), (7, 3)];

fn kernel(root: &Root, out: &mut Findings) {
    const ID: &str = "kernel";
    let id = match KernelId::read(root) {
        Ok(id) => id,
        Err(e) => return out.unreadable(ID, &e),
    };
    let name = format!("Linux {} on {}", id.release, id.machine);
    // A build for x86_64 and one for arm64 hand over on their own kind of machine.
    if id.machine != std::env::consts::ARCH {
        let arch = std::env::consts::ARCH;
        return out.block(
            ID,
            format!("{name}: this kho is for {arch} only"),
            &format!("use a build for {}", id.machine),
        );
    }
    match id.version() {
        None => out.warn(
            ID,
            format!("{name}: its release does not begin with two numbers"),
            "try a handover in a virtual machine first",
        ),
        // SETUP_INDIRECT came with boot protocol 2.15, in 5.5.
        Some(v) if v < (5, 5) => {
            out.block(
                ID,
                format!("{name}: too old for a handover"),
                "install a kernel of 5.10 or later",
            );
            out.explain("Kernels before 5.5 reserve nothing for a handover.");
        }
        Some(v) if v < TESTED[0] || v > TESTED[1] => out.warn(
            ID,
            format!("{name}: only 5.10 to 7.3 are tested"),
            "try a handover in a virtual machine with this kernel first",
        ),
        Some(_) => out.ok(ID, name),
    }
}

fn privileges(root: &Root, out: &mut Findings) {
    const ID: &str = "privileges";
    match Process::read(root) {
        Err(e) => out.unreadable(ID, &e),
        Ok(me) => {
            let missing = me.missing();
            if missing.is_empty() {
                return out.ok(ID, "all capabilities that a handover needs");
            }
            out.block(
                ID,
                format!("user {} lacks capabilities that a handover needs", me.uid),
                advice(),
            );
            out.explain(format!("Missing: {}.", missing.join(", ")));
        }
    }
}

fn kexec(root: &Root, out: &mut Findings) -> Option<KexecState> {
    const ID: &str = "kexec";
    let state = match KexecState::read(root) {
        Ok(state) => state,
        Err(e) => {
            out.unreadable(ID, &e);
            return None;
        }
    };
    if let Some(why) = state.refusal() {
        if state.loaded.is_none() {
            out.block(ID, why, "boot a kernel with CONFIG_KEXEC=y, or mount /sys");
        } else {
            out.block(
                ID,
                why,
                "find what sets it (sysctl.d), remove it, and reboot",
            );
            out.explain("Only a reboot clears it.");
        }
    } else if let Some(n @ 1..) = state.load_limit_reboot {
        out.warn(
            ID,
            format!("{n} more loads or unloads are allowed (kernel.kexec_load_limit_reboot)"),
            "every load and unload takes one",
        );
    } else {
        out.ok(ID, "images may be loaded");
    }
    if state.loaded == Some(true) {
        out.warn(
            ID,
            "an image is loaded already; meanwhile its pages count as reserved",
            "kho status says whose; kho load replaces it, kho unload removes it",
        );
    }
    Some(state)
}

fn hypervisor(root: &Root, cpu: &CpuFlags, out: &mut Findings) {
    const ID: &str = "hypervisor";
    const TRY: &str = "try a handover in a guest like this one first";
    let found = Hypervisor::read(root, cpu);
    // The count looks at every page, so it runs only under a hypervisor that takes memory away.
    let gone = match found.takes_memory_away() {
        true => memory::gone(root),
        false => 0,
    };
    if gone > 0 {
        out.block(
            ID,
            format!(
                "{} of memory were given back to the hypervisor or are offline",
                memory::size(gone)
            ),
            "switch ballooning and dynamic memory off, and reboot the guest",
        );
        return out.explain(
            "The hypervisor took this memory back, or it was never brought online. The next kernel is told that it is \
             RAM, and stops when it touches it. The guest needs all of its memory for a handover.",
        );
    }
    match found {
        Hypervisor::None => out.ok(ID, "no hypervisor: this is the machine itself"),
        Hypervisor::XenPv => {
            out.block(
                ID,
                "a paravirtual guest of Xen cannot enter a kernel by kexec",
                "boot the guest as HVM or PVH",
            );
            out.explain("Such a guest has no memory map of its own.");
        }
        Hypervisor::Xen(kind) => out.warn(
            ID,
            format!("a guest of Xen ({kind}): no handover was tested there"),
            TRY,
        ),
        Hypervisor::HyperV(name) => out.warn(
            ID,
            format!("a guest of Hyper-V ({name}): no handover was tested there"),
            TRY,
        ),
        Hypervisor::Some(name) => {
            out.ok(ID, format!("runs under a hypervisor ({name})"));
            out.explain(
                "kho cannot hand over memory that a balloon took. The host can read or lose the kept memory.",
            );
        }
    }
}

/// Returns the reason why khofs, which is loaded, uses single pages only; `None` if it has huge pages, or if it states
/// no reason.
pub fn without_huge_pages(root: &Root) -> Option<String> {
    let large = root.attribute("sys/fs/khofs/large_folios").ok()?;
    large.strip_prefix("no: ").map(str::to_owned)
}

/// Adds the finding about khofs. It is never an obstacle: files on khofs are optional.
fn khofs(root: &Root, out: &mut Findings) {
    const ID: &str = "khofs";
    let lists = |file: &str| {
        let text = root.text(file, 4 << 20).unwrap_or_default();
        text.lines().any(|line| line.contains("khofs"))
    };
    let installed = || {
        let release = root.attribute("proc/sys/kernel/osrelease");
        release.is_ok_and(|release| lists(&format!("lib/modules/{release}/modules.dep")))
    };
    if lists("proc/filesystems") {
        let huge = match without_huge_pages(root) {
            Some(why) => format!(", without huge pages: {why}"),
            None => String::new(),
        };
        out.ok(ID, format!("khofs is loaded{huge}"));
        out.explain("Files on khofs stay in memory over a handover.");
    } else if installed() {
        out.ok(
            ID,
            "khofs is installed and not in use: mount -t khofs none /PLACE loads it",
        );
    } else {
        out.ok(ID, "khofs is not installed for this kernel");
        out.explain("It is optional. Without it, only blobs and kept files are handed over.");
    }
}

#[cfg(test)]
mod tests;
