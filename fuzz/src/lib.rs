//! Fuzz targets: one for every parser that sees bytes which this project did not write itself.
//!
//! A [`Target`] takes any bytes. It fails by panicking, and it does not only look for panics of the parser: whatever
//! is accepted is held to what the parser promises (it can be written again and read back alike, two readers agree,
//! a refusal changed nothing). The same functions run in three ways: under libFuzzer with AddressSanitizer (`cargo
//! xtask fuzz`, and briefly in `cargo xtask test`), over the committed corpus and over everything that fuzzing ever
//! found (`tests/replay.rs`, in an ordinary test run).
//!
//! To add a parser, add a function to one of the modules here and a line to [`TARGETS`].

mod archive;
mod chain;
mod facts;
mod image;
mod lines;
mod modules;
mod planner;
mod state;
mod trace;
mod tree;

/// The keep.d parser, which belongs to a program and is compiled in here once more.
#[path = "../../crates/cli/src/keepd/parse.rs"]
#[allow(dead_code, missing_docs, reason = "written for another crate")]
mod keepd_parse;

#[path = "../../crates/cli/src/on_failure.rs"]
mod on_failure;
/// What `/run/kho` holds, of the same program.
#[path = "../../crates/cli/src/state/records.rs"]
#[allow(dead_code, reason = "written for another crate")]
mod state_records;

/// A parser under test.
pub struct Target {
    /// Short, unique.
    pub name: &'static str,
    /// What the bytes are.
    pub about: &'static str,
    /// Takes any bytes; panics when something is not as it should be.
    pub run: fn(&[u8]),
    /// Inputs that are accepted: where fuzzing starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longer inputs find nothing more.
    pub max_len: usize,
}

/// All of them.
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

/// A folder for files that a parser reads by path, one per thread.
fn scratch() -> &'static std::path::Path {
    thread_local! {
        static DIR: &'static std::path::Path = {
            let memory = std::path::Path::new("/dev/shm");
            let dir = if memory.is_dir() {
                tempfile::tempdir_in(memory)
            } else {
                tempfile::tempdir()
            };
            // Leaked on purpose: libFuzzer leaves by _exit, and runs no destructor either way.
            Box::leak(dir.expect("a temporary folder").keep().into_boxed_path())
        };
    }
    DIR.with(|dir| *dir)
}

/// Writes a file below [`scratch`], making its folder.
fn put(path: &str, bytes: &[u8]) {
    let path = scratch().join(path);
    let write = || std::fs::write(&path, bytes);
    if write().is_err() {
        let parent = path.parent().expect("a folder");
        std::fs::create_dir_all(parent).expect("a temporary folder");
        write().expect("a temporary file");
    }
}

/// Forgets what is below this folder of [`scratch`].
fn clear(path: &str) {
    let _ = std::fs::remove_dir_all(scratch().join(path));
}

/// Takes numbers from an input until there is nothing left; then they are all zero.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(len.min(self.0.len()));
        self.0 = tail;
        head
    }

    fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn u64(&mut self) -> u64 {
        let mut word = [0; 8];
        let bytes = self.bytes(8);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
