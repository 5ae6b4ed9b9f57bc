//! Guest tests. To add one: write a [`Scenario`] in one of the files here (or in a new file, listed in [`all`]).
//!
//! ```ignore
//! Scenario::new("name", "what it shows")
//!     .kernels(&["6.1", "6.12"])
//!     .first("echo hello | kho keep --name greeting -")
//!     .each("[ \"$(kho get greeting)\" = hello ]")
//! ```
//!
//! Scripts run as root by `sh -eu`, after `prelude.sh`, with `kho` and `kho-guest` (see its `--help`) in PATH; `cargo
//! xtask vm --help` lists their environment. A test fails when a script does, when a hop does not arrive, and when any
//! kernel prints a warning.

mod bad_input;
mod book;
mod chain;
mod early;
mod fault;
mod firmware;
mod khofs;
mod mainline;
mod module;
mod producers;
mod size;
mod smoke;
pub mod suites;
mod systems;
mod trace;

use std::time::Duration;

use anyhow::Result;

use crate::guest::Contents;
use crate::lab::{End, Host, Job, Lab, Observer, Outcome, Step};
use crate::qemu::{Firmware, Machine};
use crate::suites::Foreign;
use crate::system::Release;

/// Shell functions that all scripts have.
const PRELUDE: &str = include_str!("prelude.sh");

/// A look at what came out of a guest that passed: an error makes it fail, text is shown beside its name.
type Check = fn(&Outcome) -> Result<String>;

/// A guest test.
pub struct Scenario {
    /// Short, unique, without spaces.
    pub name: String,
    /// What it shows, for `--list`.
    pub about: String,
    /// Only run on demand.
    pub slow: bool,
    /// Machine.
    pub machine: Machine,
    /// Limit for all of it.
    pub timeout: Duration,
    /// What the host does at marks.
    pub steps: Vec<Step>,
    /// What the host looks at in the end.
    pub check: Option<Check>,
    kernels: Vec<&'static str>,
    first: Option<String>,
    each: Option<String>,
    at: Vec<(usize, String)>,
    append: String,
    modules: Vec<String>,
    ours: Vec<String>,
    built: bool,
    without: Vec<usize>,
    system: Option<Release>,
    foreign: Vec<Foreign>,
    trace_cmd: bool,
    next_command: bool,
    dkms: bool,
}

/// Every guest test.
pub fn all() -> Vec<Scenario> {
    [
        bad_input::scenarios(),
        book::scenarios(),
        smoke::scenarios(),
        chain::scenarios(),
        early::scenarios(),
        fault::scenarios(),
        firmware::scenarios(),
        khofs::scenarios(),
        mainline::scenarios(),
        module::scenarios(),
        producers::scenarios(),
        size::scenarios(),
        vec![crate::soak::scenario("soak-3", 3, 3)],
        suites::scenarios(),
        systems::scenarios(),
        trace::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

// Scenarios are written by adding what they need; not every kind of need exists in every version of the tests.
#[allow(dead_code)]
impl Scenario {
    /// A test that boots 6.1 and does nothing.
    pub fn new(name: impl Into<String>, about: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            slow: false,
            machine: Machine::default(),
            timeout: Duration::from_secs(240),
            steps: Vec::new(),
            check: None,
            kernels: vec!["6.1"],
            first: None,
            each: None,
            at: Vec::new(),
            append: String::new(),
            modules: Vec::new(),
            ours: Vec::new(),
            built: false,
            without: Vec::new(),
            system: None,
            foreign: Vec::new(),
            trace_cmd: false,
            next_command: false,
            dkms: false,
        }
    }

    /// A full Debian system instead of single kernels. Its scripts (by [`Self::at`], one for each boot) run with
    /// `systems/prelude.sh` when its services are up.
    pub fn system(mut self, release: Release) -> Self {
        self.system = Some(release);
        self.machine.mem_mib = 1536;
        self.timeout = Duration::from_secs(900);
        self
    }

    /// The modules that kho-dkms makes in this release, for all its kernels, are in `$KHO_FILES/modules.tar`.
    pub fn dkms(mut self) -> Self {
        self.dkms = true;
        self
    }

    /// The kernels, from first to last.
    pub fn kernels(mut self, kernels: &[&'static str]) -> Self {
        self.kernels = kernels.to_vec();
        self
    }

    /// The script of the first kernel.
    pub fn first(mut self, script: &str) -> Self {
        self.first = Some(script.to_owned());
        self
    }

    /// The script of every kernel that is reached by a hop.
    pub fn each(mut self, script: &str) -> Self {
        self.each = Some(script.to_owned());
        self
    }

    /// The script after so many hops, instead of the above.
    pub fn at(mut self, hop: usize, script: &str) -> Self {
        self.at.push((hop, script.to_owned()));
        self
    }

    /// Memory; 1024 MiB otherwise.
    pub fn mem_mib(mut self, mib: u64) -> Self {
        self.machine.mem_mib = mib;
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
        self.append = parameters.to_owned();
        self
    }

    /// More kernel modules, with what they depend on.
    pub fn modules(mut self, names: &[&str]) -> Self {
        self.modules = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// kho.ko in every kernel, loaded before the scripts run. All modules that are built with it, samples too, are
    /// at `/lib/modules/$KHO_RELEASE/updates/NAME.ko`.
    pub fn kho_module(self) -> Self {
        self.kho_modules(&["kho"])
    }

    /// As [`kho_module`](Self::kho_module), with these loaded in this order (`kho`, `kho_ring` …); may be none.
    pub fn kho_modules(mut self, names: &[&str]) -> Self {
        self.ours = names.iter().map(|name| (*name).to_owned()).collect();
        self.built = true;
        self
    }

    /// Programs that nobody here wrote, usable in scripts after `foreign`.
    pub fn foreign(mut self, programs: &[Foreign]) -> Self {
        self.foreign = programs.to_vec();
        self
    }

    /// The kernel after so many hops has no module of ours.
    pub fn without_module(mut self, hop: usize) -> Self {
        self.without.push(hop);
        self
    }

    /// Debian's trace-cmd is among the files: the function `trace_cmd` of the trace scripts runs it.
    pub fn trace_cmd(mut self) -> Self {
        self.trace_cmd = true;
        self
    }

    /// The `kho` command that belongs to the module `kho_next` is `$KHO_FILES/kho-next`.
    pub fn next_command(mut self) -> Self {
        self.next_command = true;
        self
    }

    /// Whether [`next_command`](Self::next_command) was called.
    pub fn needs_next_command(&self) -> bool {
        self.next_command
    }

    /// Limit for all of it; 240 s otherwise.
    pub fn timeout_s(mut self, seconds: u64) -> Self {
        self.timeout = Duration::from_secs(seconds);
        self
    }

    /// Something the host does while a script waits in `kho-guest mark MARK`.
    pub fn step(
        mut self,
        mark: &str,
        act: impl Fn(&mut Host<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.steps.push(Step {
            mark: mark.to_owned(),
            act: Box::new(act),
        });
        self
    }

    /// The guest's clock counts instructions, one a nanosecond: what it measures does not depend on the host.
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

    /// So many kernels die in it, each followed by a start from nothing.
    pub fn panics(mut self, kernels: usize) -> Self {
        self.machine.panics = kernels;
        self.restarts()
    }

    /// So many kernels of a full system die when they should leave for the next stage; their crash kernel reboots into it.
    pub fn crashes(mut self, kernels: usize) -> Self {
        self.machine.crashes = kernels;
        self
    }

    /// The host can read and write its memory, see [`Host::memory`].
    pub fn memory_in_file(mut self) -> Self {
        self.machine.memory_in_file = true;
        self
    }

    /// Something the host looks at after a pass.
    pub fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// Only with `--all`.
    pub fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    /// How long it takes beside others: in boots of a kernel, of which a full system makes many times the work.
    pub fn length(&self) -> usize {
        const SYSTEM: usize = 8;
        self.kernels.len().max(self.at.len()) * if self.system.is_some() { SYSTEM } else { 1 }
    }

    /// Whether it boots the kernel that is built here.
    pub fn needs_peer(&self) -> bool {
        self.kernels.contains(&crate::kernel::peer::NAME)
    }

    /// Runs it in a guest, without its [`check`](Self::check). What cannot be prepared is a broken harness.
    pub fn run(&self, lab: &Lab, observer: Observer<'_>) -> Outcome {
        let contents = match self.contents(lab) {
            Ok(contents) => contents,
            Err(error) => return Outcome::without_guest(End::Broken(format!("{error:#}"))),
        };
        let job = Job {
            name: &self.name,
            machine: &self.machine,
            contents: &contents,
            timeout: self.timeout,
            steps: &self.steps,
        };
        lab.run(&job, observer)
    }

    /// What the guest boots and runs.
    fn contents(&self, lab: &Lab) -> Result<Contents> {
        if let Some(release) = self.system {
            let script =
                |(_, script): &(usize, String)| Some(format!("{}\n{script}\n", systems::PRELUDE));
            let mut files = lab.packages()?;
            if self.dkms {
                files.push(lab.dkms(release)?.modules);
            }
            return Ok(Contents {
                scripts: self.at.iter().map(script).collect(),
                append: self.append.clone(),
                files,
                system: Some(lab.system(release)?),
                ..Contents::default()
            });
        }
        let kernels = self
            .kernels
            .iter()
            .enumerate()
            .map(|(hop, name)| {
                let kernel = lab.kernel(name)?;
                match self.built && !self.without.contains(&hop) {
                    true => lab.with_module(kernel),
                    false => Ok(kernel),
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let mut files = match self.trace_cmd {
            true => lab.trace_cmd()?,
            false => Vec::new(),
        };
        if self.next_command {
            files.push(lab.next_command()?);
        }
        let script = |hop: usize| {
            let special = self
                .at
                .iter()
                .find(|(at, _)| *at == hop)
                .map(|(_, script)| script);
            let usual = if hop == 0 {
                self.first.as_ref()
            } else {
                self.each.as_ref()
            };
            special
                .or(usual)
                .map(|script| format!("{PRELUDE}\n{script}\n"))
        };
        Ok(Contents {
            scripts: (0..kernels.len()).map(script).collect(),
            kernels,
            append: self.append.clone(),
            modules: self.modules.clone(),
            ours: self.ours.clone(),
            roots: self
                .foreign
                .iter()
                .map(|program| lab.foreign(*program))
                .collect::<Result<_>>()?,
            files,
            ..Contents::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sh -e` goes on behind `! COMMAND`, whatever became of it: such a line tests nothing, `fails COMMAND` does.
    #[test]
    fn no_line_of_a_script_negates_a_command_in_vain() {
        let mut vain = Vec::new();
        for scenario in all() {
            let scripts = scenario.first.iter().chain(&scenario.each);
            let scripts = scripts.chain(scenario.at.iter().map(|(_, script)| script));
            for line in scripts.flat_map(|script| script.lines()) {
                let line = line.trim_start();
                if line.starts_with("! ") && !line.contains("||") {
                    vain.push(format!("{}: {line}", scenario.name));
                }
            }
        }
        assert!(vain.is_empty(), "{}", vain.join("\n"));
    }

    #[test]
    fn names_are_unique_and_fit_for_file_names() {
        let names: Vec<_> = all().into_iter().map(|scenario| scenario.name).collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name} twice");
            assert!(
                name.chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter)),
                "{name}"
            );
        }
    }
}
