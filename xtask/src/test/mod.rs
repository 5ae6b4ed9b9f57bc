//! `cargo xtask test`: everything, on the host and in guests.

mod guests;
mod host;
mod packages;
pub mod tally;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use kho_cases::{Stock, scenarios};
use kho_lab::run::End;
use tally::Tally;

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
    /// A test that is skipped because this machine lacks something fails.
    #[arg(long)]
    no_skips: bool,
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
                if scenario.limits.slow { "(slow) " } else { "" },
                scenario.about
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut tally = Tally::new(arguments.no_skips);
    if !arguments.guests {
        host::run(&arguments.filter, &mut tally);
    }
    if !arguments.host {
        let chosen = guests::choose(&arguments.filter, arguments.all);
        match Stock::open(arguments.kho.as_deref()) {
            Ok(stock) => {
                packages::run(&stock, &arguments.filter, arguments.all, &mut tally);
                guests::run(&stock, chosen, arguments.jobs, &mut tally);
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
    Ok(if tally.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
