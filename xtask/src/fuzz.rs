//! `cargo xtask fuzz`: libFuzzer with AddressSanitizer on every parser.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kho_lab::cache::Cache;
use kho_lab::command::{tail, today};
use kho_lab::host::{self, Need};
use kho_lab::run::End;
use kho_lab::workspace::{cargo, root, target_dir};

use crate::test::tally::Tally;

/// Compiler flags for AddressSanitizer and for the coverage that libFuzzer needs. They are unstable options, which
/// the stable compiler takes with RUSTC_BOOTSTRAP=1. The compiler's own AddressSanitizer runtime comes with the
/// standard library.
const FLAGS: &str = "-Zsanitizer=address --cfg fuzzing -Cforce-frame-pointers \
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-stack-depth";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Programs that the build needs: libFuzzer is C++.
const NEEDS: [Need; 1] = [Need::program("c++", "g++")];

/// Time of each target in an ordinary test run.
const SHORT: Duration = Duration::from_secs(3);

/// Fuzz the parsers with libFuzzer and AddressSanitizer.
///
/// The minutes are shared by the targets, two of which run at a time. What is found is written below target/fuzz/found,
/// made smaller, and shown; give it a name, move it to fuzz/found and tell its story there.
#[derive(clap::Args)]
pub struct Arguments {
    /// Minutes in all.
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    minutes: f64,
    /// Only this target.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// List the targets and do nothing.
    #[arg(long)]
    list: bool,
    /// Write a report to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Afterwards, add to the committed corpus what reaches code that it does not.
    #[arg(long)]
    grow_corpus: bool,
}

/// A target, as the program lists it.
struct Target {
    name: String,
    max_len: String,
    about: String,
}

/// Result of fuzzing one target.
struct Outcome {
    end: End,
    /// Inputs run.
    runs: u64,
    /// Edges of the program that were reached.
    edges: u64,
    /// Inputs kept, each of which reaches something new.
    corpus: u64,
    took: Duration,
    /// Last 40 lines that the fuzzer wrote to its standard error.
    said: String,
}

struct Fuzzer {
    program: PathBuf,
    targets: Vec<Target>,
    dir: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let fuzzer = Fuzzer::build(arguments.target.as_deref())?;
    if arguments.list {
        for target in &fuzzer.targets {
            println!("{:18} {}", target.name, target.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let jobs = jobs().min(fuzzer.targets.len());
    let rounds = fuzzer.targets.len().div_ceil(jobs);
    #[allow(clippy::cast_precision_loss, reason = "few")]
    let each = Duration::from_secs_f64((arguments.minutes * 60.0 / rounds as f64).max(1.0));
    let mut failed = false;
    let mut rows = String::new();
    fuzzer.each(each, |target, outcome| {
        let what = match &outcome.end {
            End::Pass => "nothing".to_owned(),
            other => {
                failed = true;
                format!("{other:?}\n{}", outcome.said)
            }
        };
        let secs = outcome.took.as_secs_f64();
        println!(
            "{:18} {:>10} runs in {secs:.0} s, {} edges, corpus {}: found {what}",
            target.name, outcome.runs, outcome.edges, outcome.corpus
        );
        let found = what.lines().next().unwrap_or_default();
        let _ = writeln!(
            rows,
            "| `{}` | {} | {} | {secs:.0} | {} | {} | {found} |",
            target.name, target.about, outcome.runs, outcome.edges, outcome.corpus
        );
    });
    if let Some(path) = &arguments.report {
        let text = format!(
            "# Fuzzing\n\nWritten by `cargo xtask fuzz --minutes {} --report …` on {} ({} at a time; libFuzzer and \
             AddressSanitizer, {}). Edges are those of the whole program that the target's inputs reached.\n\n\
             | target | what it reads | inputs run | s | edges | corpus | found |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n{rows}",
            arguments.minutes,
            today(),
            jobs,
            compiler()
        );
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if arguments.grow_corpus {
        for target in &fuzzer.targets {
            fuzzer.grow_corpus(target)?;
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Fuzzes every target for a few seconds, each as one test.
pub fn short(filter: &str, tally: &mut Tally) {
    let name = |target: &Target| format!("fuzz:{}", target.name);
    // Build nothing if the filter cannot match a fuzz test.
    if !("fuzz:".contains(filter) || filter.starts_with("fuzz") || filter.is_empty()) {
        return;
    }
    match Fuzzer::build(None) {
        Ok(mut fuzzer) => {
            fuzzer
                .targets
                .retain(|target| name(target).contains(filter));
            fuzzer.each(SHORT, |target, outcome| {
                let remark = format!("{} runs, {} edges", outcome.runs, outcome.edges);
                tally.add(&name(target), &outcome.end, &remark, || {
                    outcome.said.clone()
                });
            });
        }
        Err(error) => tally.add(
            "host:fuzz",
            &End::Broken(format!("{error:#}")),
            "",
            String::new,
        ),
    }
}

fn jobs() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(2)
}

impl Fuzzer {
    /// Builds the program and lists its targets, or the one of this name.
    fn build(only: Option<&str>) -> Result<Self> {
        host::require(&Cache::open()?, "fuzz", &NEEDS)?;
        let dir = target_dir()?.join("fuzz");
        let mut command = cargo();
        command
            .args(["build", "--quiet", "--profile", "fuzz", "--target", TARGET])
            .args(["-p", "kho-fuzz", "--features", "fuzzer", "--target-dir"])
            .arg(&dir)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", FLAGS)
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        eprintln!("xtask: building the fuzz targets");
        let output = command.output().context("running cargo build")?;
        if !output.status.success() {
            bail!(
                "building the fuzz targets failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let bin = dir.join(TARGET).join("fuzz");
        let seeds = dir.join("seeds");
        let output = Command::new(bin.join("fuzz-targets"))
            .arg(&seeds)
            .output()
            .context("listing the targets")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let targets: Vec<Target> = text.lines().filter_map(Target::from_line).collect();
        let targets: Vec<Target> = match only {
            None => targets,
            Some(name) => targets
                .into_iter()
                .filter(|target| target.name == name)
                .collect(),
        };
        if targets.is_empty() || !output.status.success() {
            bail!(
                "there is no such target; cargo xtask fuzz --list shows them\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(Self {
            program: bin.join("fuzz"),
            targets,
            dir,
        })
    }

    /// Runs every target for `time` and passes each outcome to `done`, in the order in which the targets end.
    fn each(&self, time: Duration, mut done: impl FnMut(&Target, &Outcome)) {
        let queue = Mutex::new(self.targets.iter().collect::<VecDeque<_>>());
        let (sender, results) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..jobs() {
                let sender = sender.clone();
                let queue = &queue;
                scope.spawn(move || {
                    loop {
                        let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                        let Some(target) = next else { return };
                        let outcome = self.fuzz(target, time).unwrap_or_else(|error| Outcome {
                            end: End::Broken(format!("{error:#}")),
                            runs: 0,
                            edges: 0,
                            corpus: 0,
                            took: Duration::ZERO,
                            said: String::new(),
                        });
                        if sender.send((target, outcome)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (target, outcome) in results {
                done(target, &outcome);
            }
        });
    }

    fn command(&self, target: &Target) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("KHO_FUZZ_TARGET", &target.name)
            .arg(format!("-max_len={}", target.max_len))
            .args(["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
        command
    }

    fn fuzz(&self, target: &Target, time: Duration) -> Result<Outcome> {
        let make = |what: &str| -> Result<PathBuf> {
            let dir = self.dir.join(what).join(&target.name);
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            Ok(dir)
        };
        let (corpus, found) = (make("corpus")?, make("found")?);
        let start = Instant::now();
        let mut command = self.command(target);
        command
            .arg(format!("-max_total_time={}", time.as_secs().max(1)))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .arg(&corpus)
            .arg(self.dir.join("seeds").join(&target.name));
        let committed = root().join("fuzz/corpus").join(&target.name);
        command.args(committed.is_dir().then_some(committed));
        let output = command.output().context("starting the fuzzer")?;
        let took = start.elapsed();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let runs = after(&said, "stat::number_of_executed_units:").unwrap_or(0);
        let end = if !output.status.success() {
            let artifact = said.lines().find_map(|line| {
                Some(
                    line.split_once("Test unit written to ")?
                        .1
                        .trim()
                        .to_owned(),
                )
            });
            match artifact {
                Some(artifact) => End::Fail(format!(
                    "see {}",
                    self.smaller(target, Path::new(&artifact))
                )),
                None => End::Broken(format!("the fuzzer: {}", output.status)),
            }
        } else if runs == 0 {
            End::Broken("no input was run".into())
        } else {
            End::Pass
        };
        let last = said
            .lines()
            .rev()
            .find(|line| line.contains(" cov: "))
            .unwrap_or_default();
        Ok(Outcome {
            end,
            runs,
            edges: after(last, "cov:").unwrap_or(0),
            corpus: after(last, "corp:").unwrap_or(0),
            took,
            said: tail(&said, 40),
        })
    }

    /// Minimizes the input that was found, for ten seconds. Returns the path of the smaller input if it panics too,
    /// otherwise the path of `artifact`.
    fn smaller(&self, target: &Target, artifact: &Path) -> String {
        let small = artifact.with_extension("small");
        let result = self
            .command(target)
            .args(["-minimize_crash=1", "-max_total_time=10"])
            .arg(format!("-exact_artifact_path={}", small.display()))
            .arg(artifact)
            .output();
        // The smaller input may fail for another reason, such as a limit of the fuzzer, or not fail at all.
        let panics = |path: &Path| {
            let output = self.command(target).arg(path).output();
            output
                .is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("panicked at"))
        };
        match result {
            Ok(_) if panics(&small) => small.display().to_string(),
            _ => artifact.display().to_string(),
        }
    }

    /// Adds to the committed corpus, in few and small files, the inputs that reach edges which the committed corpus
    /// does not reach.
    fn grow_corpus(&self, target: &Target) -> Result<()> {
        let committed = root().join("fuzz/corpus").join(&target.name);
        std::fs::create_dir_all(&committed)
            .with_context(|| format!("making {}", committed.display()))?;
        let output = self
            .command(target)
            // If an option is given twice, the last one counts.
            .args(["-set_cover_merge=1", "-use_counters=0", "-max_len=1024"])
            .arg(&committed)
            .arg(self.dir.join("seeds").join(&target.name))
            .arg(self.dir.join("corpus").join(&target.name))
            .output()
            .context("starting the fuzzer")?;
        if !output.status.success() {
            bail!(
                "merging {}: {}",
                target.name,
                tail(&String::from_utf8_lossy(&output.stderr), 10)
            );
        }
        Ok(())
    }
}

impl Target {
    fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        Some(Self {
            name: parts.next()?,
            max_len: parts.next()?,
            about: parts.next()?,
        })
    }
}

/// The number behind a word.
fn after(text: &str, word: &str) -> Option<u64> {
    let rest = text.split_once(word)?.1.trim_start();
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

/// `rustc --version`.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "rustc".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_fuzzer() {
        let line =
            "#316747\tDONE   cov: 241 ft: 466 corp: 94/9382b lim: 3088 exec/s: 63349 rss: 270Mb";
        assert_eq!(after(line, "cov:"), Some(241));
        assert_eq!(after(line, "corp:"), Some(94));
        assert_eq!(after(line, "none:"), None);
    }
}
