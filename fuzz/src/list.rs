//! All targets.

use crate::{
    archive, chain, devicetree, facts, image, lines, modules, planner, state, trace, tree,
};

/// A parser under test.
pub struct Target {
    /// Name of the target, short and unique.
    pub name: &'static str,
    /// Description of the bytes.
    pub about: &'static str,
    /// Runs the parser on any bytes. Panics if the parser breaks a promise.
    pub run: fn(&[u8]),
    /// Inputs that the parser accepts, from which fuzzing starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Length of the longest input, in bytes: longer inputs find nothing more.
    pub max_len: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target(
        "state-tree",
        "a state tree: container, contract, schemas, every way to show it",
        tree::state_tree,
        tree::handovers,
        4096,
    ),
    target(
        "kernel-part",
        "the kernel's part of a state tree",
        tree::kernel_part,
        tree::kernel_parts,
        4096,
    ),
    target(
        "mainline",
        "state that mainline's KHO shows in debugfs",
        tree::mainline,
        tree::mainlines,
        4096,
    ),
    target(
        "catalogue",
        "the catalogue of versions of another build (JSON)",
        tree::catalogue,
        tree::catalogues,
        4096,
    ),
    target(
        "kernel-image",
        "a kernel file: bzImage, and PE, UKI, ELF and the rest that are told apart",
        image::kernel,
        image::kernels,
        24 << 10,
    ),
    target(
        "kernel-image-arm64",
        "a kernel file for arm64: Image, gzip'ed Image, EFI zboot",
        image::arm64,
        image::arm64s,
        4096,
    ),
    target(
        "devicetree",
        "the devicetree with which an arm64 kernel starts",
        devicetree::devicetree,
        devicetree::devicetrees,
        4096,
    ),
    target(
        "kernel-inside",
        "the kernel that a bzImage unpacks to, with its table of relocations",
        image::vmlinux,
        image::vmlinuxes,
        4096,
    ),
    target(
        "initrd",
        "an initrd, and a cpio archive",
        image::initrd,
        image::initrds,
        8192,
    ),
    target(
        "setup-data",
        "the setup_data chain in memory",
        chain::chain,
        chain::chains,
        4096,
    ),
    target(
        "setup-data-sysfs",
        "the setup_data chain as sysfs shows it",
        chain::sysfs,
        chain::sysfs_seeds,
        4096,
    ),
    target(
        "kcore",
        "headers of /proc/kcore",
        chain::kcore,
        chain::kcores,
        4096,
    ),
    target(
        "firmware-map",
        "/sys/firmware/memmap",
        facts::firmware_map,
        facts::firmware_maps,
        2048,
    ),
    target("iomem", "/proc/iomem", facts::iomem, facts::iomems, 4096),
    target("efi", "/sys/firmware/efi", facts::efi, facts::efis, 2048),
    target(
        "host",
        "/proc/cpuinfo, /proc/meminfo, the kernel's log, boot_params",
        facts::host,
        facts::hosts,
        4096,
    ),
    target(
        "command-line",
        "kernel command lines",
        lines::command_line,
        lines::command_lines,
        2048,
    ),
    target(
        "keep-d",
        "keep.d files",
        lines::keep_d,
        lines::keep_ds,
        2048,
    ),
    target(
        "archive",
        "pax archives of kept paths: listed and unpacked",
        archive::archive,
        archive::archives,
        16 << 10,
    ),
    target(
        "trace",
        "a trace as it arrives: its description, formats of events, pages",
        trace::arrived,
        trace::arriveds,
        8192,
    ),
    target(
        "trace-pages",
        "pages of ring buffers, read with what a real kernel said of its events",
        trace::pages,
        trace::page_seeds,
        8192,
    ),
    target(
        "trace-live",
        "a kernel's memory with ring buffers in it, under the walk of them",
        trace::live,
        trace::lives,
        4096,
    ),
    target(
        "btf",
        "BTF: where members of a kernel's structs are",
        trace::btf,
        trace::btfs,
        4096,
    ),
    target(
        "kernel-log",
        "records of /dev/kmsg, as they arrive",
        trace::log,
        trace::logs,
        4096,
    ),
    target(
        "module-chain",
        "the setup_data chain and /proc/iomem, as kho.ko reads them",
        modules::chain,
        modules::chains,
        4096,
    ),
    target(
        "khofs-tree",
        "what khofs.ko reads of the previous kernel's files, and mount options",
        modules::khofs,
        modules::khofs_trees,
        4096,
    ),
    target(
        "run-state",
        "the files of /run/kho (JSON)",
        state::records,
        state::files,
        4096,
    ),
    target(
        "armed",
        "/run/kho/armed.json, and the command line that it asks for",
        state::armed,
        state::armed_files,
        4096,
    ),
    target(
        "planner",
        "any machine and any wish: a plan keeps its promises",
        planner::planner,
        planner::machines,
        1024,
    ),
];

const fn target(
    name: &'static str,
    about: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    max_len: usize,
) -> Target {
    Target {
        name,
        about,
        run,
        seeds,
        max_len,
    }
}

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }
}
