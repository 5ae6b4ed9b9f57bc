//! The run of one guest: start, observe, judge.

mod complaint;
mod judge;
pub mod log;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kho_guest::{Event, LIVES, go};

use crate::guest::{self, Busybox, Contents};
use crate::qemu::{Accelerator, Guest, Line, MEMORY_FILE, Machine, Next, Port, Qmp};
use crate::workspace::Programs;
use log::Log;

use judge::{Action, Judge};
pub use judge::{End, Life, hop_times};

/// Time without output after which a guest counts as hanging.
const SILENCE: Duration = Duration::from_secs(150);

/// Time for the rest of a panic message.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Time to power off.
const POWER_OFF: Duration = Duration::from_secs(20);

/// The host's access to a guest that waits at a mark.
pub struct Host<'a> {
    /// The guest's monitor.
    pub qmp: &'a mut Qmp,
    /// Folder for files of this run.
    pub dir: &'a Path,
    /// The kernels so far, and their reports.
    pub lives: &'a [Life],
    cut: &'a mut bool,
}

impl Host<'_> {
    /// Cuts the guest's power and switches it on again. The guest never gets an answer to its mark.
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
        let path = self.dir.join(MEMORY_FILE);
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))
    }
}

/// Function that carries out a step.
pub type Act = Box<dyn Fn(&mut Host<'_>) -> Result<()> + Send + Sync>;

/// A step that the host does when a guest reaches `kho-guest mark NAME`.
pub struct Step {
    /// Name of the mark.
    pub mark: String,
    /// Function that carries out the step. An error fails the test.
    pub act: Act,
}

/// A guest to run.
pub struct Job<'a> {
    /// Name of the folder and the log.
    pub name: &'a str,
    /// Machine.
    pub machine: &'a Machine,
    /// Kernels, scripts and files that the guest boots and runs.
    pub contents: &'a Contents,
    /// Time limit of the whole run.
    pub timeout: Duration,
    /// Steps that the host does meanwhile.
    pub steps: &'a [Step],
}

/// Result of a guest's run.
#[derive(Debug)]
pub struct Outcome {
    /// End of the run.
    pub end: End,
    /// The kernels that the guest reached.
    pub lives: Vec<Life>,
    /// Keys whose value was told only once, and so compared with nothing.
    pub told_once: Vec<String>,
    /// Path of the log with all output of the guest.
    pub log: PathBuf,
    /// Duration of the run.
    pub took: Duration,
}

impl Outcome {
    /// Outcome of a test whose guest did not start.
    pub fn without_guest(end: End) -> Self {
        Self {
            end,
            lives: Vec::new(),
            told_once: Vec::new(),
            log: "no log".into(),
            took: Duration::ZERO,
        }
    }
}

/// Observer of a guest's lines. It sees each line as it comes, with its event; `None` if the line is not an event.
pub type Observer<'a> = &'a mut dyn FnMut(&Line, Option<&Event>);

/// Programs and folder that all guests share.
pub struct Common {
    /// Programs for the guests.
    pub programs: Programs,
    /// Busybox, the guests' shell.
    pub busybox: Busybox,
    /// Folder of the guests' files and logs.
    pub dir: PathBuf,
}

impl Common {
    /// Runs a guest until it ends.
    pub fn run(&self, accelerator: Accelerator, job: &Job<'_>, observer: Observer<'_>) -> Outcome {
        let start = Instant::now();
        let log = self.dir.join(format!("{}.log", job.name));
        let (end, lives, told_once) = match self.try_run(accelerator, job, &log, observer) {
            Ok(result) => result,
            Err(error) => (End::Broken(format!("{error:#}")), Vec::new(), Vec::new()),
        };
        Outcome {
            end,
            lives,
            told_once,
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
    ) -> Result<(End, Vec<Life>, Vec<String>)> {
        let dir = log::Folder::new(&self.dir, job.name)?;
        let token = random_token()?;
        let media = guest::prepare(
            job.machine.arch,
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
        let told_once = run.judge.told_once();
        Ok((end, run.judge.lives, told_once))
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
            // The limit also holds for a guest that keeps sending output.
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

/// Whether a line is output of a script.
pub fn is_script_output(line: &Line, event: Option<&Event>) -> bool {
    line.port == Port::Control && event.is_none()
}
