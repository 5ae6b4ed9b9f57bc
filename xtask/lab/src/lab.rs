//! A machine that is ready to run guests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::arch::Arch;
use crate::cache::Cache;
use crate::guest::{Busybox, Contents};
use crate::host;
use crate::kernel::{Kernel, Store, peer};
use crate::module;
use crate::programs::Foreign;
use crate::qemu::{Accelerator, Machine};
use crate::run::{Common, End, Job, Observer, Outcome, log};
use crate::system::{self, Release, System};
use crate::workspace::{self, Programs};

/// A machine that is ready to run guests.
pub struct Lab {
    cache: Cache,
    common: Common,
    arm64: OnceLock<Result<Common, String>>,
    accelerator: OnceLock<Accelerator>,
    next_command: OnceLock<Result<PathBuf, String>>,
}

impl Lab {
    /// Prepares the machine, downloads and builds the files that guests share. `kho` replaces the command built here.
    pub fn open(kho: Option<&Path>) -> Result<Self> {
        let cache = Cache::open()?;
        host::prepare(&cache)?;
        let programs = workspace::build(Arch::X86_64, kho)?;
        let busybox = Store::new(&cache).busybox(Arch::X86_64)?;
        let dir = workspace::target_dir()?.join("guests");
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        log::remove_leftovers(&dir);
        Ok(Self {
            cache,
            common: Common {
                programs,
                busybox: Busybox {
                    guest: busybox.clone(),
                    host: busybox,
                },
                dir,
            },
            arm64: OnceLock::new(),
            accelerator: OnceLock::new(),
            next_command: OnceLock::new(),
        })
    }

    /// The cache: downloads, and the files that were made of them.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The programs of guests.
    pub fn programs(&self) -> &Programs {
        &self.common.programs
    }

    /// Folder of the guests' files and logs.
    pub fn dir(&self) -> &Path {
        &self.common.dir
    }

    /// A kernel by name or path.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        Store::new(&self.cache).kernel(name)
    }

    /// The same kernel with kho's modules, which are built if necessary.
    pub fn with_module(&self, mut kernel: Kernel) -> Result<Kernel> {
        kernel.ours = Some(module::build(&self.cache, &kernel)?);
        Ok(kernel)
    }

    /// The folder of a program of another project.
    pub fn foreign(&self, program: Foreign) -> Result<PathBuf> {
        program.folder(&self.cache)
    }

    /// A full system.
    pub fn system(&self, release: Release) -> Result<System> {
        system::find(&self.cache, release)
    }

    /// Debian's trace-cmd, downloading it if needed.
    pub fn trace_cmd(&self) -> Result<Vec<PathBuf>> {
        Store::new(&self.cache).trace_cmd()
    }

    /// The `kho` command of the next contract, built once. Call this before any guest runs.
    pub fn next_command(&self) -> Result<PathBuf> {
        let make = || workspace::build_next().map_err(|error| format!("{error:#}"));
        let made = self.next_command.get_or_init(make);
        made.clone().map_err(|error| anyhow!("{error}"))
    }

    /// Builds a kernel that [`peer`] knows, which takes some minutes the first time.
    pub fn build_kernel(&self, name: &str) -> Result<()> {
        peer::build(&self.cache, name)
            .map(drop)
            .with_context(|| format!("building the kernel {name}"))
    }

    /// The programs of guests for arm64, built once.
    fn arm64(&self) -> Result<&Common, End> {
        let make = || -> Result<Common> {
            host::prepare_arm64(&self.cache)?;
            Ok(Common {
                programs: workspace::build(Arch::Arm64, None)?,
                busybox: Busybox {
                    guest: Store::new(&self.cache).busybox(Arch::Arm64)?,
                    host: self.common.busybox.host.clone(),
                },
                dir: self.common.dir.clone(),
            })
        };
        let made = self
            .arm64
            .get_or_init(|| make().map_err(|error| format!("{error:#}")));
        made.as_ref().map_err(|error| End::Broken(error.clone()))
    }

    /// Runs a guest until it ends.
    pub fn run(&self, job: &Job<'_>, observer: Observer<'_>) -> Outcome {
        if job.machine.arch == Arch::Arm64 {
            return match self.arm64() {
                Ok(common) => common.run(Accelerator::Tcg, job, observer),
                Err(end) => Outcome::without_guest(end),
            };
        }
        let accelerator = *self.accelerator.get_or_init(|| self.probe());
        self.common.run(accelerator, job, observer)
    }

    /// Whether KVM really runs a guest here. `/dev/kvm` may exist and not work.
    fn probe(&self) -> Accelerator {
        let device = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm");
        if let Err(error) = device {
            eprintln!("xtask: guests run under TCG: /dev/kvm: {error}");
            return Accelerator::Tcg;
        }
        // A failing trial takes 20 s, and KVM fails the same way until the machine boots again.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let failed = self.cache.path("kvm-failed");
        if !boot.is_empty() && std::fs::read_to_string(&failed).is_ok_and(|at| at == boot) {
            eprintln!("xtask: guests run under TCG, because a trial guest under KVM failed before");
            return Accelerator::Tcg;
        }
        eprintln!("xtask: starting a trial guest, to see whether KVM runs one here");
        let outcome = self.kernel("6.1").map(|kernel| {
            let contents = Contents {
                kernels: vec![kernel],
                scripts: vec![None],
                ..Contents::default()
            };
            let machine = Machine {
                mem_mib: 512,
                ..Machine::default()
            };
            let timeout = Duration::from_secs(20);
            let job = Job {
                name: "kvm-probe",
                machine: &machine,
                contents: &contents,
                timeout,
                steps: &[],
            };
            self.common.run(Accelerator::Kvm, &job, &mut |_, _| {}).end
        });
        match outcome {
            Ok(End::Pass) => {
                eprintln!("xtask: guests run under KVM");
                Accelerator::Kvm
            }
            Ok(
                End::Fail(why)
                | End::Panic(why)
                | End::Hang(why)
                | End::Broken(why)
                | End::Skip(why),
            ) => {
                let why = why.lines().next().unwrap_or_default();
                eprintln!(
                    "xtask: guests run under TCG, because a trial guest under KVM failed: {why}"
                );
                // If the note cannot be written, the next run makes the trial again.
                let _ = std::fs::write(&failed, boot);
                Accelerator::Tcg
            }
            Err(error) => {
                eprintln!(
                    "xtask: guests run under TCG, because there is no kernel to try KVM with: {error:#}"
                );
                Accelerator::Tcg
            }
        }
    }
}
