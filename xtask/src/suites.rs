//! `cargo xtask suites`: file system suites of other projects, on khofs and on tmpfs.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use kho_cases::Stock;
use kho_cases::scenarios::suites::results::{self, Results, STATED};
use kho_cases::scenarios::suites::{NAMES, full};
use kho_lab::workspace;

/// Path of the report, relative to the workspace.
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

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let scenarios = ["6.1", "6.12", "7.3"].map(full);
    if !arguments.from_logs {
        let stock = Stock::open(None)?;
        for scenario in &scenarios {
            let outcome = scenario.run(&stock, &mut |_, _| {});
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

fn report(all: &[(String, Results)]) -> String {
    let mut text = String::from(include_str!("suites-head.md"));
    let _ = write!(text, "{}", results::render(all));
    text
}
