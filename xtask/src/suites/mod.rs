//! `cargo xtask suites`: file system suites that nobody here wrote, on khofs and on tmpfs.

mod programs;
pub mod results;

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::lab::{Lab, Outcome};
use crate::scenarios::suites::full;
use crate::workspace;
pub use programs::Foreign;
use results::{Results, STATED};

/// The suites, in the names of the results. `afterwards` is ours: whether all was given back.
pub const NAMES: [&str; 4] = ["pjdfstest", "fsx", "fio", "afterwards"];

/// Where the report is, below the workspace.
const REPORT: &str = "docs/reports/khofs-suites.md";

/// Run all of the file system suites on khofs and on tmpfs under each kernel, and write the report.
///
/// Fails when something passes on tmpfs and not on khofs for which no reason is stated; the report is written anyway.
#[derive(clap::Args)]
pub struct Arguments {
    /// Run nothing: write the report from the logs of the last runs (also those of `cargo xtask test --all`).
    #[arg(long)]
    from_logs: bool,
}

/// Runs it.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let scenarios = ["6.1", "6.12", "7.3"].map(full);
    if !arguments.from_logs {
        let lab = Lab::open(None)?;
        for scenario in &scenarios {
            let outcome = scenario.run(&lab, &mut |_, _| {});
            println!("{}: {:?}", scenario.name, outcome.end);
        }
    }
    let logs = workspace::target_dir()?.join("guests");
    let all = scenarios
        .iter()
        .map(|scenario| Results::of_pass(&logs.join(format!("{}.log", scenario.name))))
        .collect::<Result<Vec<_>>>()?;
    let mut good = true;
    for (release, results) in &all {
        match results.judge(&NAMES, &STATED) {
            Ok(counts) => println!("{release}: {counts}"),
            Err(error) => {
                println!("{release}: {error:#}");
                good = false;
            }
        }
    }
    let path = workspace::root().join(REPORT);
    std::fs::write(&path, report(&all)).with_context(|| format!("writing {REPORT}"))?;
    println!("{REPORT} is written");
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// For tests: the results are as they should be.
pub fn check(outcome: &Outcome) -> Result<String> {
    Results::read(&outcome.log)?.judge(&NAMES, &STATED)
}

fn report(all: &[(String, Results)]) -> String {
    let mut text = String::from(include_str!("report-head.md"));
    let _ = write!(text, "{}", results::render(all));
    text
}
