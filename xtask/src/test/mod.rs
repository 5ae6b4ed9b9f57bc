//! `cargo xtask test`: everything, on the host and in guests.

mod guests;
mod host;
mod packages;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::lab::{End, Lab};
use crate::scenarios;
use crate::vm::describe_end;

/// Run all tests: formatting, lints and unit tests on this machine, then guests.
///
/// The last line is `N passed, N failed, N skipped`. A guest that hangs, a kernel that complains and a harness that
/// breaks count as failed and are told apart.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only what needs no guests.
    #[arg(long)]
    host: bool,
    /// Only guests.
    #[arg(long, conflicts_with = "host")]
    guests: bool,
    /// Only tests whose name contains this.
    #[arg(long, value_name = "SUBSTRING", default_value = "")]
    filter: String,
    /// List the guest tests and do nothing.
    #[arg(long)]
    list: bool,
    /// Slow guest tests too.
    #[arg(long)]
    all: bool,
    /// Guests at a time, as far as there is memory for them [default: one per processor, at most 4].
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Use this static kho command in guests instead of building it.
    #[arg(long, value_name = "PROGRAM")]
    kho: Option<PathBuf>,
}

/// Results so far.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Name, reason and details of everything that did not pass.
    failures: Vec<(String, String, String)>,
}

impl Tally {
    /// Counts one test and says how it went. `remark` follows its name; `details` are shown at the end if it failed.
    pub fn add(&mut self, name: &str, end: &End, remark: &str, details: impl FnOnce() -> String) {
        match end {
            End::Pass => {
                self.passed += 1;
                println!("PASS {name} {remark}");
            }
            End::Skip(why) => {
                self.skipped += 1;
                println!("SKIP {name}: {why}");
            }
            _ => {
                self.failed += 1;
                let what = describe_end(end);
                println!("{name}: {what} {remark}");
                self.failures.push((name.to_owned(), what, details()));
            }
        }
    }

    /// Counts many tests that another program ran.
    pub fn add_many(&mut self, passed: usize, skipped: usize) {
        self.passed += passed;
        self.skipped += skipped;
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        for (name, what, details) in &self.failures {
            let _ = write!(text, "\n==== {name}: {what}\n{}\n", details.trim_end());
        }
        // Once more in short: whoever sees only the end of this learns which.
        for (name, what, _) in &self.failures {
            let _ = writeln!(text, "{name}: {}", what.lines().next().unwrap_or_default());
        }
        let _ = write!(
            text,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        );
        text
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for (name, slow) in packages::names() {
            println!("{name:24} {}", if slow { "(slow)" } else { "" });
        }
        for scenario in scenarios::all() {
            println!(
                "{:24} {}{}",
                scenario.name,
                if scenario.slow { "(slow) " } else { "" },
                scenario.about
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut tally = Tally::default();
    if !arguments.guests {
        host::run(&arguments.filter, &mut tally);
    }
    if !arguments.host {
        let chosen = guests::choose(&arguments.filter, arguments.all);
        match Lab::open(arguments.kho.as_deref()) {
            Ok(lab) => {
                packages::run(&lab, &arguments.filter, arguments.all, &mut tally);
                guests::run(&lab, chosen, arguments.jobs, &mut tally);
            }
            Err(error) => {
                let end = End::Broken("guests cannot be run, see the first of these".into());
                let mut details = format!("{error:#}");
                for scenario in &chosen {
                    tally.add(&scenario.name, &end, "", || std::mem::take(&mut details));
                }
            }
        }
    }
    println!("{}", tally.summary());
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_and_failures_come_before_it() {
        let mut tally = Tally::default();
        tally.add("a", &End::Pass, "", String::new);
        tally.add("b", &End::Hang("silence".into()), "", || "tail".into());
        tally.add_many(10, 3);
        assert_eq!(
            tally.summary(),
            "\n==== b: HANG: silence\ntail\nb: HANG: silence\n11 passed, 1 failed, 3 skipped"
        );
    }
}
