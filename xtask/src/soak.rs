//! `cargo xtask soak`: many handovers in a row, with all producers at once and all content compared.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use kho_cases::Stock;
use kho_cases::soak::report::{self, Summary};
use kho_cases::soak::scenario;
use kho_lab::run::{End, log};

/// Hand over again and again between 6.1, 6.12 and 7.3, with content of random sizes at random places.
#[derive(clap::Args)]
pub struct Arguments {
    /// Hops.
    #[arg(long, value_name = "N", default_value_t = 100)]
    hops: usize,
    /// The number from which everything follows; a random one is taken and printed otherwise.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Write a report to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(arguments.hops > 0, "a soak of no hops shows nothing");
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => random()?,
    };
    println!("cargo xtask soak --hops {} --seed {seed}", arguments.hops);
    let stock = Stock::open(None)?;
    let outcome = scenario("soak", arguments.hops, seed).run(&stock, &mut |_, event| {
        if let Some(kho_guest::Event::Boot { hop, release, .. }) = event {
            println!("hop {hop}: {release}");
        }
    });
    let sum = Summary::of(&outcome);
    let text = report::text(arguments.hops, seed, &outcome, sum.as_ref());
    print!("{text}");
    if let Some(path) = &arguments.report {
        std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    }
    if outcome.end != End::Pass {
        println!("{}", log::tail(&outcome.log, 60));
        return Ok(ExitCode::FAILURE);
    }
    sum?;
    Ok(ExitCode::SUCCESS)
}

fn random() -> Result<u64> {
    let mut bytes = [0; 4];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes).into())
}
