//! A healthy machine, and the same machine with one fault at a time.

use super::*;
use crate::sys::facts::iomem::tests::DEBIAN;
use crate::sys::facts::memmap::tests::put_qemu_map;
use crate::sys::root::fixture::Fixture;

fn healthy() -> Fixture {
    let f = Fixture::new();
    put_qemu_map(&f);
    let core = crate::sys::physmem::core_file_for_tests(&[
        (0xffff_8880_0010_0000, 0x10_0000, vec![0; 0x1000]),
        (0xffff_ffff_8300_0000, 0x300_0000, vec![0; 0x1000]),
    ]);
    f.put("proc/sys/kernel/osrelease", "6.1.0-50-cloud-amd64\n")
        .put("proc/sys/kernel/arch", "x86_64\n")
        .put("proc/sys/kernel/random/boot_id", "x\n")
        .put("proc/sys/kernel/kexec_load_disabled", "0\n")
        .put("proc/stat", "btime 1763856401\n")
        .put("proc/uptime", "10.00 9.00\n")
        .put("proc/cmdline", "root=/dev/vda1 quiet\n")
        .put("proc/cpuinfo", "flags : fpu sse2 hypervisor\n")
        .put(
            "proc/self/status",
            "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
        )
        .put("proc/self/pagemap", "")
        .put("proc/kpageflags", vec![0u8; 8192])
        .put("proc/kcore", core)
        .put("proc/kallsyms", "ffffffff83000100 B kexec_image\n")
        .put(
            "proc/iomem",
            DEBIAN.replace("  63000000-6effffff : Crash kernel\n", ""),
        )
        .put(
            "proc/meminfo",
            "MemTotal: 2 kB\nMemFree: 1 kB\nMemAvailable: 1 kB\nHardwareCorrupted: 0 kB\n",
        )
        .put("sys/kernel/kexec_loaded", "0\n")
        .put("sys/kernel/kexec_crash_loaded", "0\n")
        .put(
            "sys/kernel/security/lockdown",
            "[none] integrity confidentiality\n",
        )
        .put("sys/bus/pci/devices/0000:00:03.0/config", pci(4, 2))
        .put("sys/bus/pci/devices/0000:00:03.0/driver/bind", "");
    f
}

fn pci(command: u8, class: u8) -> Vec<u8> {
    let mut config = vec![0u8; 64];
    config[4] = command;
    config[11] = class;
    config
}

/// Examines the machine, and checks that each finding fits a terminal of 100 columns. A path of the fixture and the advice
/// about privileges may be longer: the command wraps them.
fn examined(f: &Fixture) -> Vec<Finding> {
    let findings = examine(&f.root());
    let path = f.root().path("").display().to_string();
    for finding in &findings {
        for (text, columns) in [(&finding.what, WHAT), (&finding.fix, FIX)] {
            let free = text.contains(&path) || text.contains(advice());
            assert!(free || text.chars().count() <= columns, "{finding:?}");
        }
        assert!(IDS.contains(&finding.id), "{finding:?}");
        let details = &finding.details;
        assert!(details.is_empty() || details.ends_with('.'), "{finding:?}");
    }
    findings
}

/// Columns that a line of `kho doctor` has beside severity and subject.
const WHAT: usize = 100 - "block  hardware-corrupted  ".len();

/// Columns that remain beside the arrow before an advice.
const FIX: usize = WHAT - "-> ".len();

/// Finds every text of the findings in the source, also those for which no test has a machine.
#[test]
fn each_text_that_is_no_explanation_fits_a_line() {
    let mut texts = 0;
    for source in [
        include_str!("../doctor.rs"),
        include_str!("memory.rs"),
        include_str!("policy.rs"),
    ] {
        let mut explaining = false;
        for line in source.lines().map(str::trim) {
            explaining |= line.contains("out.explain(");
            if !explaining && !line.starts_with("//") {
                assert!(!line.ends_with('\\'), "longer than a line: {line}");
                for text in line.split('"').skip(1).step_by(2) {
                    assert!(text.chars().count() <= WHAT, "longer than a line: {text}");
                    texts += 1;
                }
            }
            explaining &= !line.ends_with(");") && !line.ends_with("),");
        }
    }
    assert!(texts > 100, "only {texts} texts found");
}

fn worst_of(findings: &[Finding], id: &str) -> (Severity, String) {
    findings
        .iter()
        .filter(|f| f.id == id)
        .map(|f| (f.severity, format!("{} / {}", f.explained(), f.fix)))
        .max_by_key(|f| f.0)
        .unwrap()
}

#[test]
fn a_healthy_machine_has_one_finding_each() {
    let f = healthy();
    let findings = examined(&f);
    assert_eq!(worst(&findings), Severity::Ok, "{findings:#?}");
    let ids: Vec<&str> = findings.iter().map(|f| f.id).collect();
    assert_eq!(ids, IDS);
}

#[test]
fn nothing_readable_is_findings_and_no_panic() {
    let findings = examined(&Fixture::new());
    for id in IDS {
        assert!(findings.iter().any(|f| f.id == *id), "{id}");
    }
    assert_eq!(worst(&findings), Severity::Block);
    for f in &findings {
        assert!(f.severity == Severity::Ok || !f.fix.is_empty(), "{f:?}");
    }
}

#[test]
fn each_thing_that_is_wrong_is_found() {
    use Severity::{Block, Warn};
    let crash = "  63000000-6effffff : Crash kernel\n";
    let smaller = DEBIAN
        .replace("2fc00000-7ffdcfff", "2fc00000-3fffffff")
        .replace(crash, "");
    let more = format!("{DEBIAN}100000000-10fffffff : System RAM\n").replace(crash, "");
    let virtio =
        format!("{DEBIAN}100000000-10fffffff : System RAM (virtio_mem)\n").replace(crash, "");
    let caps = "Uid:\t1000\t1000\t0\t0\nCapEff:\t0000000000000000\n";
    let cases: [(&str, &str, &str, Severity, &str); 25] = [
        (
            "proc/sys/kernel/osrelease",
            "5.4.0",
            "kernel",
            Block,
            "too old",
        ),
        (
            "proc/sys/kernel/osrelease",
            "7.4.0",
            "kernel",
            Warn,
            "tested",
        ),
        (
            "proc/sys/kernel/osrelease",
            "5.9.0",
            "kernel",
            Warn,
            "tested",
        ),
        (
            "proc/sys/kernel/arch",
            "aarch64",
            "kernel",
            Block,
            "x86_64 only",
        ),
        (
            "proc/self/status",
            caps,
            "privileges",
            Block,
            "CAP_SYS_BOOT",
        ),
        (
            "proc/sys/kernel/kexec_load_disabled",
            "1",
            "kexec",
            Block,
            "kexec_load_disabled",
        ),
        (
            "proc/sys/kernel/kexec_load_limit_reboot",
            "0",
            "kexec",
            Block,
            "limit",
        ),
        (
            "proc/sys/kernel/kexec_load_limit_reboot",
            "3",
            "kexec",
            Warn,
            "3 more",
        ),
        (
            "sys/kernel/kexec_loaded",
            "1",
            "kexec",
            Warn,
            "loaded already",
        ),
        (
            "sys/kernel/security/lockdown",
            "none [integrity] x",
            "lockdown",
            Block,
            "locked down",
        ),
        (
            "proc/cmdline",
            "ima_policy=secure_boot",
            "ima",
            Warn,
            "secure_boot",
        ),
        (
            "proc/iomem",
            &smaller,
            "firmware-map",
            Warn,
            "not used by this kernel",
        ),
        ("proc/iomem", &more, "firmware-map", Warn, "does not name"),
        ("proc/iomem", &virtio, "firmware-map", Warn, "virtio_mem"),
        (
            "proc/cpuinfo",
            "flags : tdx_guest",
            "memory-encryption",
            Block,
            "TDX",
        ),
        (
            "proc/cpuinfo",
            "flags : sme",
            "memory-encryption",
            Block,
            "AMD SME",
        ),
        (
            "proc/meminfo",
            "MemTotal: 2 kB\nMemFree: 1 kB\nMemAvailable: 1 kB\nHardwareCorrupted: 8 kB\n",
            "hardware-corrupted",
            Warn,
            "8 KiB",
        ),
        (
            "sys/kernel/kexec_crash_loaded",
            "1",
            "kdump",
            Warn,
            "crash kernel is armed",
        ),
        ("proc/kpageflags", "", "page-flags", Block, "empty"),
        ("proc/kcore", "x", "kernel-memory", Warn, "kcore"),
        (
            "proc/kallsyms",
            "ffffffff81000000 T _text\n",
            "loaded-image",
            Warn,
            "KALLSYMS_ALL",
        ),
        (
            "proc/kallsyms",
            "0000000000000000 B kexec_image\n",
            "loaded-image",
            Warn,
            "kptr_restrict",
        ),
        (
            "sys/firmware/memmap/1/type",
            "Fancy",
            "firmware-map",
            Warn,
            "Fancy",
        ),
        ("sys/hypervisor/type", "xen\n", "hypervisor", Warn, "Xen"),
        ("sys/bus/vmbus/uevent", "", "hypervisor", Warn, "Hyper-V"),
    ];
    for (file, content, id, severity, word) in cases {
        let f = healthy();
        if id == "ima" {
            f.put(
                "sys/kernel/security/ima/runtime_measurements_count",
                "900\n",
            );
        }
        f.put(file, content);
        let findings = examined(&f);
        let (found, text) = worst_of(&findings, id);
        assert_eq!(found, severity, "{file} {content}: {text}");
        assert!(text.contains(word), "{word} not in {text}");
        // The loader of the image is read from the same file.
        let same_file = |f: &&Finding| file == "proc/kcore" && f.id == "loaded-image";
        let others = findings.iter().filter(|f| f.id != id && !same_file(f));
        assert!(
            others.clone().all(|f| f.severity == Severity::Ok),
            "{file}: {:?}",
            others.collect::<Vec<_>>()
        );
    }
}

#[test]
fn devices_that_may_write_memory_are_counted_by_their_headers() {
    let f = healthy();
    // No driver stops this one, and no fact shows whether a driver would.
    f.put("sys/bus/pci/devices/0000:00:04.0/config", pci(4, 2));
    f.put("sys/bus/pci/devices/0000:00:05.0/config", pci(4, 6));
    f.put("sys/bus/pci/devices/0000:00:06.0/config", pci(0, 2));
    f.put("sys/bus/pci/devices/0000:00:07.0/config", "\0\0\0\0");
    let (severity, text) = worst_of(&examined(&f), "dma");
    assert_eq!(severity, Severity::Ok);
    assert!(text.starts_with("2 PCI devices"), "{text}");
}

#[test]
fn xen_and_hyper_v() {
    let f = healthy();
    f.put("sys/hypervisor/type", "xen\n");
    f.put("sys/hypervisor/guest_type", "HVM\n");
    let of = |f: &Fixture| worst_of(&examined(f), "hypervisor");
    assert_eq!(of(&f).0, Severity::Warn);
    f.put("sys/hypervisor/guest_type", "PV\n");
    assert_eq!(of(&f).0, Severity::Block);
    // A page that a balloon took.
    let balloon = |f: &Fixture| {
        let mut pages = vec![0u8; 8192];
        pages[8 * 0x80 + 2] = 0x80;
        f.put("proc/kpageflags", pages);
    };
    f.put("sys/hypervisor/guest_type", "HVM\n");
    balloon(&f);
    let (severity, text) = of(&f);
    assert_eq!(severity, Severity::Block);
    assert!(
        text.starts_with("4 KiB of memory were given back"),
        "{text}"
    );
    // Without such a hypervisor the pages come back when they are written to, and the handover only leaves them out.
    let f = healthy();
    balloon(&f);
    assert_eq!(of(&f).0, Severity::Ok);
    f.put("sys/class/dmi/id/sys_vendor", "Microsoft Corporation\n");
    f.put("sys/class/dmi/id/product_name", "Virtual Machine\n");
    assert_eq!(of(&f).0, Severity::Block);
    let f = healthy();
    f.put("sys/bus/vmbus/uevent", "");
    f.put("sys/devices/system/memory/block_size_bytes", "8000000\n");
    f.put("sys/devices/system/memory/memory1/state", "offline\n");
    assert_eq!(of(&f).0, Severity::Block, "never onlined");
}
