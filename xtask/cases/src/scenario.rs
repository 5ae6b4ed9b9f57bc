//! A guest test: the kernels that boot, the scripts that run in them, and the steps of the host meanwhile.

use std::time::Duration;

use anyhow::Result;
use kho_lab::guest::Contents;
use kho_lab::kernel::peer;
use kho_lab::programs::Foreign;
use kho_lab::qemu::{Firmware, Machine};
use kho_lab::run::{End, Host, Job, Observer, Outcome, Step};
use kho_lab::system::Release;

use crate::stock::Stock;

/// Shell functions that all scripts have.
pub(crate) const PRELUDE: &str = include_str!("prelude.sh");

/// Shell functions that the scripts of full systems have.
pub(crate) const SYSTEM_PRELUDE: &str = include_str!("scenarios/systems/prelude.sh");

/// Check of the outcome of a guest that passed. An error fails the test; the text is shown beside the test's name.
pub type Check = fn(&Outcome) -> Result<String>;

/// A guest test.
pub struct Scenario {
    /// Name: short, unique, without spaces.
    pub name: String,
    /// Description of the behaviour that the test shows, for `--list`.
    pub about: String,
    /// The machine.
    pub machine: Machine,
    /// Memory, in MiB, of more machines on which the test runs afterwards, one by one. The outcome has the kernels of all.
    pub also_mem_mib: Vec<u64>,
    /// Kernels or system, modules, scripts and files of the guest.
    pub runs: Runs,
    /// Actions of the host.
    pub host: HostPart,
    /// Limits of the test.
    pub limits: Limits,
}

/// Kernels or a full system, and the modules, scripts and files for them.
#[derive(Default)]
pub struct Runs {
    /// A full system, in place of the kernels.
    pub system: Option<Release>,
    /// Kernels, from first to last.
    pub kernels: Vec<&'static str>,
    /// More kernel parameters.
    pub append: String,
    /// Kernel modules.
    pub modules: Modules,
    /// Scripts that run in the kernels.
    pub scripts: Scripts,
    /// Files that the scripts find on their disk.
    pub files: Files,
}

/// Modules of kernels.
#[derive(Default)]
pub struct Modules {
    /// Names of Debian's modules to load.
    pub debian: Vec<String>,
    /// Names of this project's modules to load, in the order in which they are loaded.
    pub ours: Vec<String>,
    /// Whether this project's modules are built and on the disk, loaded or not.
    pub built: bool,
    /// Hops after which the kernel has no module of this project.
    pub without: Vec<usize>,
}

/// Scripts of kernels.
#[derive(Default)]
pub struct Scripts {
    /// Script of the first kernel.
    pub first: Option<String>,
    /// Script of every kernel that is reached by a hop.
    pub each: Option<String>,
    /// Scripts that replace `first` or `each`, by the number of hops before them.
    pub at: Vec<(usize, String)>,
}

/// Files for scripts.
#[derive(Default)]
pub struct Files {
    /// Programs of other projects.
    pub foreign: Vec<Foreign>,
    /// Whether Debian's trace-cmd is among the files.
    pub trace_cmd: bool,
    /// Whether the `kho` command of the next contract is among the files.
    pub next_command: bool,
    /// Whether the modules that kho-dkms makes are among the files.
    pub dkms: bool,
}

/// Some keys.
#[derive(Default)]
pub enum Keys {
    /// No key.
    #[default]
    None,
    /// One key.
    One(&'static str),
    /// Every key.
    All,
}

impl Keys {
    fn has(&self, key: &str) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => *one == key,
            Self::All => true,
        }
    }
}

/// Actions of the host in a test.
#[derive(Default)]
pub struct HostPart {
    /// Steps that the host does when a script reaches their marks.
    pub steps: Vec<Step>,
    /// Keys of `kho-guest same` whose value may be told only once: the test compares the value by other means.
    pub told_once: Keys,
    /// Check after a pass.
    pub check: Option<Check>,
}

/// Limits of a test.
pub struct Limits {
    /// Whether the test runs on demand only.
    pub slow: bool,
    /// Time limit of the whole test.
    pub timeout: Duration,
}

impl Scenario {
    /// A test that boots 6.1 and runs no script.
    pub fn new(name: impl Into<String>, about: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            machine: Machine::default(),
            also_mem_mib: Vec::new(),
            runs: Runs {
                kernels: vec!["6.1"],
                ..Runs::default()
            },
            host: HostPart::default(),
            limits: Limits {
                slow: false,
                timeout: Duration::from_secs(240),
            },
        }
    }

    /// A full Debian system instead of single kernels. Its scripts (by [`Self::at`], one for each boot) run with
    /// `systems/prelude.sh` when its services are up.
    pub fn system(mut self, release: Release) -> Self {
        self.runs.system = Some(release);
        self.machine.mem_mib = 1536;
        self.limits.timeout = Duration::from_secs(1800);
        self
    }

    /// The modules that kho-dkms makes in this release, for all its kernels, are in `$KHO_FILES/modules.tar`.
    pub fn dkms(mut self) -> Self {
        self.runs.files.dkms = true;
        self
    }

    /// The kernels, from first to last.
    pub fn kernels(mut self, kernels: &[&'static str]) -> Self {
        self.runs.kernels = kernels.to_vec();
        self
    }

    /// The script of the first kernel.
    pub fn first(mut self, script: &str) -> Self {
        self.runs.scripts.first = Some(script.to_owned());
        self
    }

    /// The script of every kernel that is reached by a hop.
    pub fn each(mut self, script: &str) -> Self {
        self.runs.scripts.each = Some(script.to_owned());
        self
    }

    /// The script after `hop` hops, in place of the one of [`first`](Self::first) or [`each`](Self::each).
    pub fn at(mut self, hop: usize, script: &str) -> Self {
        self.runs.scripts.at.push((hop, script.to_owned()));
        self
    }

    /// Memory; 1024 MiB otherwise.
    pub fn mem_mib(mut self, mib: u64) -> Self {
        self.machine.mem_mib = mib;
        self
    }

    /// Memory that the guest touches, in MiB; all of its memory otherwise.
    pub fn touched_mib(mut self, mib: u64) -> Self {
        self.machine.touched_mib = Some(mib);
        self
    }

    /// The test runs again on a machine with so much memory, in MiB, for a [`check`](Self::check) that compares the two.
    pub fn also_mem_mib(mut self, mib: u64) -> Self {
        self.also_mem_mib.push(mib);
        self
    }

    /// Processors; 2 otherwise.
    pub fn smp(mut self, processors: u32) -> Self {
        self.machine.smp = processors;
        self
    }

    /// Firmware; BIOS otherwise.
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.machine.firmware = firmware;
        self
    }

    /// More QEMU arguments.
    pub fn qemu(mut self, arguments: &[&str]) -> Self {
        self.machine
            .extra
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// More kernel parameters, for every kernel.
    pub fn append(mut self, parameters: &str) -> Self {
        self.runs.append = parameters.to_owned();
        self
    }

    /// Adds kernel modules and their dependencies.
    pub fn modules(mut self, names: &[&str]) -> Self {
        self.runs.modules.debian = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// kho.ko in every kernel, loaded before the scripts run. All modules that are built with it, samples too, are
    /// at `/lib/modules/$KHO_RELEASE/updates/NAME.ko`.
    pub fn kho_module(self) -> Self {
        self.kho_modules(&["kho"])
    }

    /// As [`kho_module`](Self::kho_module), with these loaded in this order (`kho`, `kho_ring` …); may be none.
    pub fn kho_modules(mut self, names: &[&str]) -> Self {
        self.runs.modules.ours = names.iter().map(|name| (*name).to_owned()).collect();
        self.runs.modules.built = true;
        self
    }

    /// Programs of other projects, usable in scripts after `foreign`.
    pub fn foreign(mut self, programs: &[Foreign]) -> Self {
        self.runs.files.foreign = programs.to_vec();
        self
    }

    /// The kernel after `hop` hops has no module of this project.
    pub fn without_module(mut self, hop: usize) -> Self {
        self.runs.modules.without.push(hop);
        self
    }

    /// Debian's trace-cmd is among the files: the function `trace_cmd` of the trace scripts runs it.
    pub fn trace_cmd(mut self) -> Self {
        self.runs.files.trace_cmd = true;
        self
    }

    /// The `kho` command that belongs to the module `kho_next` is `$KHO_FILES/kho-next`.
    pub fn next_command(mut self) -> Self {
        self.runs.files.next_command = true;
        self
    }

    /// Whether [`next_command`](Self::next_command) was called.
    pub fn needs_next_command(&self) -> bool {
        self.runs.files.next_command
    }

    /// Time limit of the whole test; 240 s otherwise.
    pub fn timeout_s(mut self, seconds: u64) -> Self {
        self.limits.timeout = Duration::from_secs(seconds);
        self
    }

    /// Adds a step that the host does while a script waits in `kho-guest mark MARK`.
    pub fn step(
        mut self,
        mark: &str,
        act: impl Fn(&mut Host<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.host.steps.push(Step {
            mark: mark.to_owned(),
            act: Box::new(act),
        });
        self
    }

    /// The guest's clock counts instructions, one a nanosecond: times that the guest measures do not depend on the
    /// host.
    pub fn counting(mut self) -> Self {
        self.machine.counting = true;
        self.smp(1)
    }

    /// The processor is QEMU's own, with all features that it knows, five-level paging among them.
    pub fn emulated(mut self) -> Self {
        self.machine.emulated = true;
        self
    }

    /// A reset starts the machine again: for tests that cut its power.
    pub fn restarts(mut self) -> Self {
        self.machine.restarts = true;
        self
    }

    /// Sets the number of kernels that die in the guest, each followed by a boot from the firmware.
    pub fn panics(mut self, kernels: usize) -> Self {
        self.machine.panics = kernels;
        self.restarts()
    }

    /// Sets the number of kernels of a full system that die when they should leave for the next stage. Their crash
    /// kernel reboots into that stage.
    pub fn crashes(mut self, kernels: usize) -> Self {
        self.machine.crashes = kernels;
        self
    }

    /// The host can read and write the guest's memory, see [`Host::memory`].
    pub fn memory_in_file(mut self) -> Self {
        self.machine.memory_in_file = true;
        self
    }

    /// Sets the keys whose value may be told only once; otherwise such a key fails the test.
    pub fn told_once(mut self, keys: Keys) -> Self {
        self.host.told_once = keys;
        self
    }

    /// Sets the check that the host makes after a pass.
    pub fn check(mut self, check: Check) -> Self {
        self.host.check = Some(check);
        self
    }

    /// The test runs only with `--all`.
    pub fn slow(mut self) -> Self {
        self.limits.slow = true;
        self
    }

    /// Length of the test relative to others, in boots of a kernel. A boot of a full system counts as eight, because it
    /// takes many times as long.
    pub fn length(&self) -> usize {
        const SYSTEM: usize = 8;
        self.runs.kernels.len().max(self.runs.scripts.at.len())
            * if self.runs.system.is_some() {
                SYSTEM
            } else {
                1
            }
    }

    /// Names of the kernels of the test that are built here.
    pub fn built_kernels(&self) -> impl Iterator<Item = &'static str> {
        let kernels = self.runs.kernels.iter().copied();
        kernels.filter(|name| peer::names().any(|built| built == *name))
    }

    /// Returns every script of the test, without the functions that all scripts have.
    pub fn scripts(&self) -> impl Iterator<Item = &str> {
        let Scripts { first, each, at } = &self.runs.scripts;
        let usual = first.iter().chain(each);
        usual
            .chain(at.iter().map(|(_, script)| script))
            .map(String::as_str)
    }

    /// Runs the test in a guest, without its [`check`](Self::check). If the guest's contents cannot be prepared, the
    /// outcome is a broken harness.
    pub fn run(&self, stock: &Stock, observer: Observer<'_>) -> Outcome {
        let contents = match self.runs.contents(stock) {
            Ok(contents) => Contents {
                signed: self.machine.firmware == Firmware::SecureBoot,
                ..contents
            },
            Err(error) => return Outcome::without_guest(End::Broken(format!("{error:#}"))),
        };
        let mut outcome = self.run_on(&self.machine, &self.name, &contents, stock, observer);
        for mem_mib in &self.also_mem_mib {
            if outcome.end != End::Pass {
                break;
            }
            let machine = Machine {
                mem_mib: *mem_mib,
                ..self.machine.clone()
            };
            let name = format!("{}-{mem_mib}-mib", self.name);
            let before = outcome;
            outcome = self.run_on(&machine, &name, &contents, stock, observer);
            outcome.took += before.took;
            outcome.lives.splice(..0, before.lives);
        }
        outcome
    }

    fn run_on(
        &self,
        machine: &Machine,
        name: &str,
        contents: &Contents,
        stock: &Stock,
        observer: Observer<'_>,
    ) -> Outcome {
        let job = Job {
            name,
            machine,
            contents,
            timeout: self.limits.timeout,
            steps: &self.host.steps,
        };
        let mut outcome = stock.lab.run(&job, observer);
        let mut once = outcome.told_once.iter();
        if let (End::Pass, Some(key)) =
            (&outcome.end, once.find(|key| !self.host.told_once.has(key)))
        {
            outcome.end = End::Fail(format!("{key} was told once, and compared with nothing"));
        }
        outcome
    }
}

impl Runs {
    /// Prepares the kernels or the system, and the modules, scripts and files, that the guest boots and runs.
    fn contents(&self, stock: &Stock) -> Result<Contents> {
        match self.system {
            Some(release) => self.of_system(release, stock),
            None => self.of_kernels(stock),
        }
    }

    fn of_system(&self, release: Release, stock: &Stock) -> Result<Contents> {
        let script = |(_, script): &(usize, String)| Some(format!("{SYSTEM_PRELUDE}\n{script}\n"));
        let mut files = stock.packages()?;
        if self.files.dkms {
            files.push(stock.dkms(release)?.modules);
        }
        Ok(Contents {
            scripts: self.scripts.at.iter().map(script).collect(),
            append: self.append.clone(),
            files,
            system: Some(stock.lab.system(release)?),
            ..Contents::default()
        })
    }

    fn of_kernels(&self, stock: &Stock) -> Result<Contents> {
        let lab = &stock.lab;
        let kernel = |(hop, name): (usize, &&str)| {
            let kernel = lab.kernel(name)?;
            match self.modules.built && !self.modules.without.contains(&hop) {
                true => lab.with_module(kernel),
                false => Ok(kernel),
            }
        };
        let kernels = self.kernels.iter().enumerate().map(kernel);
        let kernels = kernels.collect::<Result<Vec<_>>>()?;
        let mut files = match self.files.trace_cmd {
            true => lab.trace_cmd()?,
            false => Vec::new(),
        };
        if self.files.next_command {
            files.push(lab.next_command()?);
        }
        let foreign = self.files.foreign.iter();
        Ok(Contents {
            scripts: (0..kernels.len())
                .map(|hop| Some(format!("{PRELUDE}\n{}\n", self.scripts.of(hop)?)))
                .collect(),
            kernels,
            append: self.append.clone(),
            modules: self.modules.debian.clone(),
            ours: self.modules.ours.clone(),
            roots: foreign
                .map(|program| lab.foreign(*program))
                .collect::<Result<_>>()?,
            files,
            ..Contents::default()
        })
    }
}

impl Scripts {
    /// Returns the script after `hop` hops, without the functions that all scripts have; `None` if there is none.
    pub fn of(&self, hop: usize) -> Option<&str> {
        let special = self.at.iter().find(|(at, _)| *at == hop);
        let usual = match hop {
            0 => self.first.as_deref(),
            _ => self.each.as_deref(),
        };
        special.map(|(_, script)| script.as_str()).or(usual)
    }
}
