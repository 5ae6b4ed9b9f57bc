//! The laboratory: everything that is needed to run guests, and the run of one.

mod complaint;
mod judge;
pub mod log;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use kho_guest::{Event, LIVES, go};

use crate::cache::Cache;
use crate::dist;
use crate::guest::{self, Contents};
use crate::host;
use crate::kernel::{Kernel, Store, peer};
use crate::qemu::{Accelerator, Guest, Line, Machine, Next, Port, Qmp};
use crate::suites::Foreign;
use crate::system::{self, Recipe, Release, System};
use crate::workspace::{self, Programs};
use log::Log;

use judge::{Action, Judge};
pub use judge::{End, Life, hop_times};

/// A guest that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(150);

/// Time for the rest of a panic message.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Time to power off.
const POWER_OFF: Duration = Duration::from_secs(20);

/// A machine that is ready to run guests.
pub struct Lab {
    cache: Cache,
    programs: Programs,
    busybox: PathBuf,
    /// Where guests have their files and logs.
    dir: PathBuf,
    accelerator: OnceLock<Accelerator>,
    packages: OnceLock<Result<Vec<PathBuf>, String>>,
    next_command: OnceLock<Result<PathBuf, String>>,
    dkms: [OnceLock<Result<Dkms, String>>; Release::ALL.len()],
}

/// What kho-dkms makes in a release.
#[derive(Debug, Clone)]
pub struct Dkms {
    /// The kernels that it was built for.
    pub kernels: Vec<String>,
    /// An archive of the modules of all of them, to be unpacked at the root.
    pub modules: PathBuf,
}

/// What is done in a place with the headers of every kernel and no Rust.
const DKMS: &str = include_str!("../test/dkms.sh");

/// What the host does while a guest waits at a mark.
pub struct Host<'a> {
    /// The guest's monitor.
    pub qmp: &'a mut Qmp,
    /// Folder for files of this run.
    pub dir: &'a Path,
    /// The kernels so far and what they reported.
    pub lives: &'a [Life],
    cut: &'a mut bool,
}

impl Host<'_> {
    /// Cuts the guest's power and switches it on again; it never hears an answer to its mark.
    pub fn cut_power(&mut self) -> Result<()> {
        *self.cut = true;
        self.qmp
            .run("system_reset", serde_json::json!({}))
            .map(|_| ())
    }

    /// The last value that was reported under this name.
    pub fn value(&self, key: &str) -> Result<&str> {
        let found = self
            .lives
            .iter()
            .rev()
            .find_map(|life| life.values.get(key));
        found
            .map(String::as_str)
            .with_context(|| format!("the guest did not report {key}"))
    }

    /// The guest's memory as a file, for a machine [with such memory](Machine::memory_in_file).
    pub fn memory(&self) -> Result<std::fs::File> {
        let path = self.dir.join(crate::qemu::MEMORY_FILE);
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))
    }
}

/// What a step does.
pub type Act = Box<dyn Fn(&mut Host<'_>) -> Result<()> + Send + Sync>;

/// A step that the host does when a guest reaches `kho-guest mark NAME`.
pub struct Step {
    /// The mark.
    pub mark: String,
    /// What to do. An error fails the test.
    pub act: Act,
}

/// A guest to run.
pub struct Job<'a> {
    /// Name of the folder and the log.
    pub name: &'a str,
    /// Machine.
    pub machine: &'a Machine,
    /// What it boots and runs.
    pub contents: &'a Contents,
    /// Limit for all of it.
    pub timeout: Duration,
    /// What the host does meanwhile.
    pub steps: &'a [Step],
}

/// How a guest fared.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The kernels it reached.
    pub lives: Vec<Life>,
    /// Everything it said.
    pub log: PathBuf,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Of a test whose guest was not even started.
    pub fn without_guest(end: End) -> Self {
        Self {
            end,
            lives: Vec::new(),
            log: "no log".into(),
            took: Duration::ZERO,
        }
    }
}

/// Sees each line as it comes, with the event that it is, if it is one.
pub type Observer<'a> = &'a mut dyn FnMut(&Line, Option<&Event>);

impl Lab {
    /// Prepares the machine, downloads and builds what guests have in common. `kho` replaces the command built here.
    pub fn open(kho: Option<&Path>) -> Result<Self> {
        let cache = Cache::open()?;
        host::prepare(&cache)?;
        let programs = workspace::build(kho)?;
        let busybox = Store::new(&cache).busybox()?;
        let dir = workspace::target_dir()?.join("guests");
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        log::remove_leftovers(&dir);
        Ok(Self {
            cache,
            programs,
            busybox,
            dir,
            accelerator: OnceLock::new(),
            packages: OnceLock::new(),
            next_command: OnceLock::new(),
            dkms: Default::default(),
        })
    }

    /// Downloads, and what was made of them.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// A kernel by name or path.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        Store::new(&self.cache).kernel(name)
    }

    /// The same kernel with our modules, built for it if need be.
    pub fn with_module(&self, mut kernel: Kernel) -> Result<Kernel> {
        kernel.ours = Some(crate::module::build(&self.cache, &kernel)?);
        Ok(kernel)
    }

    /// The folder of a program that nobody here wrote.
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

    /// The `kho` command of the next contract, built once. Do it before any guest runs.
    pub fn next_command(&self) -> Result<PathBuf> {
        let make = || workspace::build_next().map_err(|error| format!("{error:#}"));
        let made = self.next_command.get_or_init(make);
        made.clone().map_err(|error| anyhow!("{error}"))
    }

    /// The packages that full systems install, made once.
    pub fn packages(&self) -> Result<Vec<PathBuf>> {
        let made = self.packages.get_or_init(|| {
            dist::for_guests(&self.programs.kho, &self.dir.join("packages"))
                .map_err(|error| format!("{error:#}"))
        });
        made.clone()
            .map_err(|error| anyhow!("making packages: {error}"))
    }

    /// Installs kho-dkms in a release, upgrades and purges it, once; gives what it built.
    pub fn dkms(&self, release: Release) -> Result<Dkms> {
        let make = || -> Result<Dkms> {
            let recipe = Recipe::dkms(release);
            let out = self.dir.join(&recipe.name);
            let said = system::run_in(&self.cache, &recipe, &self.packages()?, DKMS, &out)?;
            let kernels = said
                .lines()
                .filter_map(|line| line.strip_prefix("built for "));
            Ok(Dkms {
                kernels: kernels.map(str::to_owned).collect(),
                modules: out.join("modules.tar"),
            })
        };
        let made = self.dkms[release as usize]
            .get_or_init(|| make().map_err(|error| format!("{error:#}")));
        made.clone()
            .map_err(|error| anyhow!("building the modules by dkms: {error}"))
    }

    /// Makes the kernel with Kexec HandOver of its own, which takes some minutes the first time.
    pub fn build_peer(&self) -> Result<()> {
        peer::build(&self.cache)
            .map(drop)
            .context("building the peer kernel")
    }

    /// Runs a guest to its end.
    pub fn run(&self, job: &Job<'_>, observer: Observer<'_>) -> Outcome {
        let accelerator = *self.accelerator.get_or_init(|| self.probe());
        self.run_with(accelerator, job, observer)
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
        // A trial takes 20 s where it fails, and fails the same way until the machine boots again.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let failed = self.cache.path("kvm-failed");
        if !boot.is_empty() && std::fs::read_to_string(&failed).is_ok_and(|at| at == boot) {
            eprintln!("xtask: guests run under TCG, because a trial guest under KVM failed before");
            return Accelerator::Tcg;
        }
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
            self.run_with(Accelerator::Kvm, &job, &mut |_, _| {}).end
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
                // Without the note the trial is made again.
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

    fn run_with(&self, accelerator: Accelerator, job: &Job<'_>, observer: Observer<'_>) -> Outcome {
        let start = Instant::now();
        let log = self.dir.join(format!("{}.log", job.name));
        let (end, lives) = match self.try_run(accelerator, job, &log, observer) {
            Ok(result) => result,
            Err(error) => (End::Broken(format!("{error:#}")), Vec::new()),
        };
        Outcome {
            end,
            lives,
            log,
            took: start.elapsed(),
        }
    }

    fn try_run(
        &self,
        accelerator: Accelerator,
        job: &Job<'_>,
        log: &Path,
        observer: Observer<'_>,
    ) -> Result<(End, Vec<Life>)> {
        let dir = log::Folder::new(&self.dir, job.name)?;
        let token = random_token()?;
        let media = guest::prepare(
            job.contents,
            &self.programs,
            &self.busybox,
            &token,
            dir.path(),
        )?;
        let guest = Guest::start(job.machine, accelerator, &media, dir.path())?;
        let mut judge = Judge::new(&token, job.contents.stages());
        judge.expect_panics(job.machine.panics);
        judge.expect_crashes(job.machine.crashes);
        let mut run = Run {
            job,
            guest,
            judge,
            log: Log::create(log)?,
            observer,
            dir: dir.path(),
        };
        let end = run.finish()?;
        run.log.note(&format!("{end:?}"))?;
        Ok((end, run.judge.lives))
    }
}

/// A guest while it runs.
struct Run<'a, 'b> {
    job: &'a Job<'a>,
    guest: Guest,
    judge: Judge,
    log: Log,
    observer: Observer<'b>,
    dir: &'a Path,
}

impl Run<'_, '_> {
    fn finish(&mut self) -> Result<End> {
        let limit = Instant::now() + self.job.timeout;
        let mut silence = Instant::now() + SILENCE;
        let mut stop: Option<Instant> = None;
        loop {
            let deadline = stop.unwrap_or_else(|| silence.min(limit));
            match self.guest.next(deadline)? {
                Next::Line(line) => {
                    silence = line.at + SILENCE;
                    match self.take(&line)? {
                        Action::None => {}
                        Action::StopSoon => stop = stop.or(Some(line.at + LAST_WORDS)),
                        Action::Off => stop = Some(line.at + POWER_OFF),
                        Action::Lives => {
                            let lives = self.judge.switched_on();
                            self.guest.say(&format!("{LIVES}{lives}"))?;
                        }
                        Action::Step(name) => {
                            if let Some(end) = self.step(&name)? {
                                return Ok(end);
                            }
                        }
                    }
                }
                Next::Silence => {
                    let how = if stop.is_some() {
                        "it did not power off".to_owned()
                    } else if Instant::now() >= limit {
                        format!("not finished after {} s", self.job.timeout.as_secs())
                    } else {
                        format!("nothing said for {} s", SILENCE.as_secs())
                    };
                    return Ok(self.judge.hang(&how));
                }
                Next::Ended(status) => {
                    if !status.success() {
                        let said = self.guest.complaints();
                        return Ok(End::Broken(format!("QEMU: {status}: {}", said.trim())));
                    }
                    return Ok(self.judge.end());
                }
            }
            // A guest that keeps talking must not outrun its limit.
            if stop.is_some_and(|stop| Instant::now() >= stop) || Instant::now() >= limit {
                return Ok(self.judge.hang(&format!(
                    "not finished after {} s",
                    self.job.timeout.as_secs()
                )));
            }
        }
    }

    fn take(&mut self, line: &Line) -> Result<Action> {
        self.log.line(line)?;
        let (event, action) = self.judge.line(line);
        (self.observer)(line, event.as_ref());
        Ok(action)
    }

    fn step(&mut self, name: &str) -> Result<Option<End>> {
        let Some(step) = self.job.steps.iter().find(|step| step.mark == name) else {
            return Ok(Some(End::Broken(format!(
                "the host has no step for the mark {name:?}"
            ))));
        };
        let mut cut = false;
        let mut host = Host {
            qmp: &mut self.guest.qmp,
            dir: self.dir,
            lives: &self.judge.lives,
            cut: &mut cut,
        };
        if let Err(error) = (step.act)(&mut host) {
            return Ok(Some(End::Fail(format!(
                "the host's step {name:?}: {error:#}"
            ))));
        }
        if cut {
            self.judge.expect_cold_boot();
        } else {
            self.guest.say(&go(name))?;
        }
        Ok(None)
    }
}

fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 8];
    let mut source = std::fs::File::open("/dev/urandom").context("opening /dev/urandom")?;
    std::io::Read::read_exact(&mut source, &mut bytes).context("reading /dev/urandom")?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// Whether a line is something that a script said.
pub fn is_script_output(line: &Line, event: Option<&Event>) -> bool {
    line.port == Port::Control && event.is_none()
}
