//! Kexec HandOver in the next kernel itself (mainline KHO). `kho` does not use it. If it is on, the next kernel sets
//! memory aside for it: by default twice the memory that early boot reserved, which includes everything that is handed
//! over ([`NativeScratch`]).

use super::early;
use crate::output::Output;
use kho::headroom::{NativeScratch, asks_for_live_update, native_scratch, native_switch};
use kho::image::ImageNeeds;
use kho_kexec::carrier::{KernelConfig, NativeKho};
use kho_kexec::cmdline::NATIVE_OFF;
use kho_kexec::sys::doctor::{Finding, Severity};
use kho_kexec::sys::facts::host::{KernelLog, cmdline, release_version};
use kho_kexec::sys::root::Root;
use std::path::Path;

/// First version with KHO on x86_64 (`arch/x86/Kconfig`).
const FIRST: (u32, u32) = (6, 16);

/// Message of a kernel that found no memory for its scratch areas (`kernel/liveupdate/kexec_handover.c`, 6.16 to 7.3).
const FAILED: &str = "Failed to reserve scratch area, disabling kexec handover";

/// Facts about the next kernel that determine its KHO.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Release of the kernel; `None` if its image does not name it.
    pub release: Option<&'a str>,
    /// Configuration of the kernel; `None` if it was not found.
    pub config: Option<KernelConfig>,
    /// Needs of its image.
    pub image: &'a ImageNeeds,
    /// Bytes of RAM.
    pub ram: u64,
    /// Number of nodes with memory.
    pub nodes: u32,
}

/// Decision about the next kernel's own KHO.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Native {
    /// Argument for the command line, if one is needed.
    pub add: Option<String>,
    /// Number of nodes with memory if the kernel sets scratch areas aside; `None` if it does not.
    pub nodes: Option<u32>,
    /// A line for the user, if the decision needs an explanation.
    pub remark: Option<String>,
}

impl Native {
    /// Prints the remark, if there is one.
    pub fn report(&self, out: Output) {
        self.remark.iter().for_each(|remark| out.remark(remark));
    }
}

/// Returns the KHO that a kernel is built with; `None` if that is not known.
fn built(release: Option<&str>, config: Option<KernelConfig>) -> Option<NativeKho> {
    match release.and_then(release_version) {
        Some(version) if version < FIRST => Some(NativeKho::Absent),
        _ => config.map(|config| config.native_kho()),
    }
}

/// Decides about the next kernel's own KHO. `line` is its command line.
pub fn decide(line: &[u8], facts: Facts<'_>) -> Native {
    let built = built(facts.release, facts.config);
    let on_by_default = match built {
        Some(NativeKho::Absent) => return Native::default(),
        Some(NativeKho::OnDemand) => false,
        Some(NativeKho::OnByDefault) | None => true,
    };
    let on = match native_switch(line) {
        Some(on) => on,
        None => on_by_default && asks_for_live_update(line),
    };
    let name = facts.release.unwrap_or("the next kernel");
    if on {
        return switched_on(line, facts, name);
    }
    if native_switch(line).is_some() || !on_by_default {
        return Native::default();
    }
    let why = match built {
        None => "may have KHO of its own, as its configuration is not known",
        _ => "has KHO of its own, on by default",
    };
    Native {
        add: Some(NATIVE_OFF.to_owned()),
        nodes: None,
        remark: Some(format!(
            "{name} {why}: kho switches it off ({NATIVE_OFF}), because it would set aside twice the handed-over memory and kho does not use it; kho=on on the command line keeps it on"
        )),
    }
}

fn switched_on(line: &[u8], facts: Facts<'_>, name: &str) -> Native {
    let (add, how) = match NativeScratch::from_cmdline(line) {
        Some(NativeScratch::Percent(percent)) => (
            None,
            format!("{percent} % of what early boot reserves, with all that is handed over"),
        ),
        Some(NativeScratch::Sizes { .. }) => (None, "the sizes that kho_scratch= gives".to_owned()),
        None => {
            let add = argument(native_scratch(facts.image, facts.ram, facts.nodes));
            let how = format!("{add}, which leaves out what is handed over");
            (Some(add), how)
        }
    };
    Native {
        add,
        nodes: Some(facts.nodes),
        remark: Some(format!(
            "{name} has KHO of its own and the command line switches it on: it sets scratch areas aside ({how})"
        )),
    }
}

/// Returns the scratch sizes in the format of the kernel's parameter.
fn argument(scratch: NativeScratch) -> String {
    match scratch {
        NativeScratch::Percent(percent) => format!("kho_scratch={percent}%"),
        NativeScratch::Sizes {
            low,
            anywhere,
            node,
        } => {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            format!(
                "kho_scratch={}M,{}M,{}M",
                mib(low),
                mib(anywhere),
                mib(node)
            )
        }
    }
}

/// [`Finding::id`] of [`finding`].
pub const FINDING: &str = "native-kho";

/// Returns a finding: whether the running kernel has its own KHO, and whether it is on.
pub fn finding(release: &str, root: &Root) -> Finding {
    let image = root.path(&format!("boot/vmlinuz-{release}"));
    let config = early::config(Path::new(&image), Some(release), root);
    let line = cmdline(root).unwrap_or_default();
    let log = KernelLog::read(root);
    let mut details = String::new();
    let what = match built(Some(release), config) {
        Some(NativeKho::Absent) => "this kernel has no KHO of its own; kho needs none".to_owned(),
        None => {
            "kho did not find this kernel's configuration.".clone_into(&mut details);
            "whether this kernel has KHO of its own is not known".to_owned()
        }
        Some(_) if log.find(FAILED).is_some() => {
            return Finding {
                id: FINDING,
                severity: Severity::Warn,
                what: "this kernel switched its own KHO off; kho does not need it".to_owned(),
                details: "It found no place for its scratch areas.".to_owned(),
                fix: "to have it, boot with sizes: kho_scratch=LOW,GLOBAL,NODE".to_owned(),
            };
        }
        Some(built) => {
            let on = native_switch(line.as_bytes()).unwrap_or(built == NativeKho::OnByDefault);
            format!(
                "this kernel has KHO of its own, which is {}; kho does not use it",
                if on { "on" } else { "off" }
            )
        }
    };
    Finding {
        id: FINDING,
        severity: Severity::Ok,
        what,
        details,
        fix: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho::PhysAddr;
    use kho::image::KernelNeeds;

    const ON: &str = "CONFIG_KEXEC_HANDOVER=y\nCONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT=y\n";
    const DEMAND: &str = "CONFIG_KEXEC_HANDOVER=y\n";

    fn decided(release: &str, config: Option<&str>, line: &str) -> Native {
        let image = ImageNeeds {
            kernel: KernelNeeds {
                file_len: 1 << 20,
                mem_size: 60 << 20,
                align: 2 << 20,
                preferred: PhysAddr::new(16 << 20),
                above_4g: true,
                random: None,
            },
            initrd: None,
            params_len: 4096,
        };
        let facts = Facts {
            release: Some(release),
            config: config.map(KernelConfig::parse),
            image: &image,
            ram: 2 << 30,
            nodes: 2,
        };
        decide(line.as_bytes(), facts)
    }

    #[test]
    fn a_kernel_whose_kho_is_on_by_default_is_told_not_to() {
        for (config, why) in [(Some(ON), "on by default"), (None, "not known")] {
            let native = decided("7.0.0-10-generic", config, "root=/dev/vda1 kho_scratch=64M");
            assert_eq!(native.add.as_deref(), Some(NATIVE_OFF));
            assert_eq!(native.nodes, None);
            let remark = native.remark.unwrap();
            assert!(
                remark.contains(why) && remark.contains("kho=on"),
                "{remark}"
            );
        }
        // No argument and no remark: the kernel has no KHO, or KHO is off.
        for (release, config, line) in [
            ("6.12.95", None, "kho=on"),
            ("6.15.0", Some(ON), "kho=on"),
            ("7.3.4", Some("CONFIG_NUMA=y\n"), "kho=on"),
            ("7.3.4", Some(DEMAND), "quiet liveupdate=on"),
            ("7.3.4", Some(ON), "kho=off"),
            ("7.3.4", None, "kho=0"),
        ] {
            let native = decided(release, config, line);
            assert_eq!(native, Native::default(), "{release} {config:?} {line}");
        }
    }

    #[test]
    fn a_kernel_whose_kho_is_asked_for_gets_sizes() {
        for (config, line) in [
            (Some(DEMAND), "kho=on"),
            (Some(ON), "kho=1 quiet"),
            (None, "kho=on kho_scratch=64M"),
            (Some(ON), "liveupdate=on"),
        ] {
            let native = decided("7.3.4", config, line);
            // 60 MiB and a page of image; 32 MiB of struct page and 5 MiB of hash tables; half of 32 MiB on each node.
            assert_eq!(
                native.add.as_deref(),
                Some("kho_scratch=124M,76M,32M"),
                "{line}"
            );
            assert_eq!(native.nodes, Some(2));
        }
        // Sizes from the user count as they are and stay.
        for (line, how) in [
            ("kho=on kho_scratch=16M,32M,8M", "the sizes that"),
            ("kho=on kho_scratch=300%", "300 %"),
        ] {
            let native = decided("7.3.4", Some(ON), line);
            assert_eq!((native.add, native.nodes), (None, Some(2)));
            assert!(native.remark.unwrap().contains(how), "{line}");
        }
    }

    #[test]
    fn the_doctor_says_what_the_running_kernel_has() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let said = |release| finding(release, &root).what;
        put("proc/cmdline", "quiet\n");
        assert!(said("6.12.95").contains("no KHO of its own"));
        assert!(said("7.3.4").contains("not known"));
        put("boot/config-7.3.4", ON);
        assert!(said("7.3.4").contains("which is on;"));
        put("proc/cmdline", "quiet kho=off:by-kho\n");
        assert!(said("7.3.4").contains("which is off;"));
        put("boot/config-7.3.4", DEMAND);
        put("proc/cmdline", "quiet\n");
        assert!(said("7.3.4").contains("which is off;"));
        put("proc/cmdline", "kho=on\n");
        assert!(said("7.3.4").contains("which is on;"));
        put("dev/kmsg", &format!("4,1,1,-;KHO: {FAILED}\n"));
        assert_eq!(finding("7.3.4", &root).severity, Severity::Warn);
        put("boot/config-7.3.4", "");
        assert!(said("7.3.4").contains("no KHO of its own"));
    }
}
