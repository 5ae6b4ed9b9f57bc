//! Machines as hosts are: the generic kernels with real drivers at work, and large machines.

use crate::scenario::Scenario;
use kho_lab::run::Host;
use serde_json::json;
use std::time::Duration;

const SLICE: &str = include_str!("hosts/slice.sh");
const CHANGING: &str = include_str!("hosts/changing.sh");
const DRIVERS: &str = include_str!("hosts/drivers.sh");

/// Drivers that cloud kernels lack or that no other guest uses: NVMe, AHCI, SCSI, USB storage, a network card, a display.
const MODULES: [&str; 10] = [
    "nvme",
    "ahci",
    "sd_mod",
    "virtio_scsi",
    "xhci_pci",
    "usb_storage",
    "uas",
    "e1000e",
    "bochs",
    "af_packet",
];

/// Devices that do DMA, behind an IOMMU that translates. The disks are empty at first and keep what is written to them for
/// as long as QEMU runs.
const DEVICES: [&str; 32] = [
    "-device",
    "intel-iommu,intremap=off",
    "-drive",
    "if=none,id=nvme,snapshot=on,format=raw,file.driver=null-co,file.size=64M,file.read-zeroes=on",
    "-device",
    "nvme,serial=nvme,drive=nvme",
    "-drive",
    "if=none,id=sata,snapshot=on,format=raw,file.driver=null-co,file.size=64M,file.read-zeroes=on",
    "-device",
    "ide-hd,drive=sata,serial=sata,bus=ide.0",
    "-drive",
    "if=none,id=scsi,snapshot=on,format=raw,file.driver=null-co,file.size=64M,file.read-zeroes=on",
    "-device",
    "virtio-scsi-pci,id=hba",
    "-device",
    "scsi-hd,drive=scsi,serial=scsi,bus=hba.0",
    "-drive",
    "if=none,id=stick,snapshot=on,format=raw,file.driver=null-co,file.size=64M,file.read-zeroes=on",
    "-device",
    "qemu-xhci,id=usb",
    "-device",
    "usb-storage,drive=stick,serial=stick,bus=usb.0",
    "-netdev",
    "user,id=net",
    "-device",
    "e1000e,netdev=net",
    "-device",
    "bochs-display",
    "-device",
    "i6300esb",
    "-device",
    "usb-kbd,bus=usb.0",
];

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        generic("hosts-generic", &["6.12-amd64", "6.1-amd64", "6.12-amd64"]),
        generic(
            "hosts-generic-7.3",
            &["7.3-amd64", "6.12-amd64", "7.3-amd64", "6.1-amd64"],
        )
        .slow(),
        large("hosts-256g", 256 << 10, 8, 16),
        large("hosts-64g", 64 << 10, 8, 64).slow(),
        slice(
            Scenario::new(
                "hosts-testing",
                "the kernel of Debian testing: files, khofs, a driver and a trace, there and back",
            )
            .kernels(&["6.12", "testing", "6.12"])
            .mem_mib(1536)
            .timeout_s(480),
            "",
            "",
        ),
        changing().slow(),
        debug("debug").slow(),
        debug("debug-kasan").slow(),
    ]
}

/// A kernel that looks for faults of the modules (`cargo xtask peer-kernel`), between two ordinary ones.
fn debug(kernel: &'static str) -> Scenario {
    let scenario = Scenario::new(
        format!("hosts-{kernel}"),
        "a kernel that looks for wrong locks and wrong memory: files, khofs and a driver, there and back",
    )
    .kernels(&["6.12", kernel, kernel, "6.12"])
    .mem_mib(2048)
    .timeout_s(1800);
    slice(scenario, "UNTRACED=1", "")
}

/// A machine whose memory comes and goes while content is kept in it.
fn changing() -> Scenario {
    let plug = |host: &mut Host<'_>| {
        let backend = json!({"qom-type": "memory-backend-ram", "id": "plugged", "size": 512 << 20});
        host.qmp.run("object-add", backend)?;
        let module = json!({"driver": "pc-dimm", "id": "module", "memdev": "plugged"});
        host.qmp.run("device_add", module).map(|_| ())
    };
    let grow = |host: &mut Host<'_>| {
        let size = json!({"path": "/machine/peripheral/vm", "property": "requested-size", "value": 512 << 20});
        host.qmp.run("qom-set", size).map(|_| ())
    };
    let balloon = |mib: u64| {
        move |host: &mut Host<'_>| {
            host.qmp.run("balloon", json!({"value": mib << 20}))?;
            for _ in 0..600 {
                let now = host.qmp.run("query-balloon", json!({}))?;
                if now["actual"] == json!(mib << 20) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            anyhow::bail!("the balloon does not leave the guest {mib} MiB")
        }
    };
    Scenario::new(
        "hosts-memory-changes",
        "memory is plugged in, a virtio-mem device grows, a balloon takes memory and gives it back; khofs and files keep every byte",
    )
    .kernels(&["6.12", "6.1", "7.3"])
    .kho_modules(&["kho", "khofs"])
    .modules(&["virtio_mem", "virtio_balloon"])
    .qemu(&[
        "-m",
        "slots=4,maxmem=8G",
        "-object",
        "memory-backend-ram,id=virtio,size=1G,reserve=off",
        "-device",
        "virtio-mem-pci,id=vm,memdev=virtio,requested-size=0",
        "-device",
        "virtio-balloon-pci",
    ])
    .step("plug", plug)
    .step("grow", grow)
    .step("inflate", balloon(1280))
    .step("deflate", balloon(1536))
    .first(&format!("{CHANGING}\n{}", include_str!("hosts/changing-first.sh")))
    .each(&format!("{CHANGING}\n{}", include_str!("hosts/changing-each.sh")))
    .timeout_s(600)
}

fn slice(scenario: Scenario, before: &str, after: &str) -> Scenario {
    scenario
        .kho_modules(&["kho", "khofs", "kho_ring"])
        .first(&format!("{SLICE}\n{before}\nhand_over\n{after}"))
        .each(&format!("{SLICE}\n{before}\narrived\nhand_over\n{after}"))
}

/// Kernels of Debian's generic flavour. Their file systems and disk drivers are modules.
fn generic(name: &str, kernels: &[&'static str]) -> Scenario {
    let scenario = Scenario::new(
        name,
        "generic kernels: files, khofs, a driver and a trace, while NVMe, AHCI, SCSI, USB and network do DMA behind an IOMMU up to the jump",
    )
    .kernels(kernels)
    .mem_mib(1536)
    .qemu(&DEVICES)
    .append("intel_iommu=on iommu.strict=1")
    .modules(&MODULES)
    .timeout_s(900);
    slice(
        scenario,
        &format!("{DRIVERS}\ndisks_are_whole"),
        "keep_devices_busy",
    )
}

/// A machine with so much memory (in MiB), most of which the host never provides because nothing touches it.
fn large(name: &str, mib: u64, nodes: u64, processors: u32) -> Scenario {
    let mut arguments = Vec::new();
    let share = u64::from(processors) / nodes;
    // A socket for each node: the kernel warns of processors that share a cache over nodes.
    arguments.push("-smp".to_owned());
    arguments.push(format!(
        "{processors},sockets={nodes},cores={share},threads=1"
    ));
    for node in 0..nodes {
        let (first, last) = (node * share, (node + 1) * share - 1);
        arguments.push("-object".to_owned());
        arguments.push(format!(
            "memory-backend-ram,id=node{node},size={}M,reserve=off",
            mib / nodes
        ));
        arguments.push("-numa".to_owned());
        arguments.push(format!(
            "node,nodeid={node},memdev=node{node},cpus={first}-{last}"
        ));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let scenario = Scenario::new(
        name,
        format!(
            "{} GiB, {nodes} NUMA nodes, {processors} processors: files, khofs, a driver and a trace, and memory of each node",
            mib >> 10
        ),
    )
    .kernels(&["6.12", "7.3", "6.1"])
    .mem_mib(mib)
    // The kernel's descriptions of pages take 64 bytes for each page.
    .touched_mib(mib / 64 + 1536)
    .smp(processors)
    .qemu(&arguments)
    .timeout_s(900);
    slice(scenario, &format!("NODES={nodes}\nnodes_are_there"), "")
}
