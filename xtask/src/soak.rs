//! `cargo xtask soak`: many handovers in a row, everything at once, everything compared.
//!
//! A number (the seed) decides what is kept in each kernel, how large it is, what becomes of it, how much memory is in use
//! while the next kernel is loaded (and with it where things land), and which kernel comes next. Kept are blobs, directories,
//! a sample driver's ring, files on khofs and the trace of each kernel. After each hop the guest overwrites its free memory and
//! compares the hash of everything; before that the host reads what arrived from the memory of the machine itself and
//! compares it with the hashes in the state tree, and those of files with what the kernel before said of them.

mod account;
mod model;
mod outside;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::lab::{End, Lab, log};
use crate::scenarios::Scenario;
use report::Summary;

/// Kernels that take turns.
pub const KERNELS: [&str; 3] = ["6.1", "6.12", "7.3"];

/// Memory of the guest: all of it below the hole under 4 GiB, so that an address is an offset in the memory file.
const MEM_MIB: u64 = 768;

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

/// The guest test for so many hops with this seed.
pub fn scenario(name: &str, hops: usize, seed: u64) -> Scenario {
    let plan = model::Plan::new(hops, seed);
    let mut scenario = Scenario::new(
        name,
        "hops with blobs, files on khofs, a driver and traces at once, checked inside and outside",
    )
    .kernels(&plan.kernels)
    .mem_mib(MEM_MIB)
    .memory_in_file()
    .kho_modules(&["kho", "kho_ring", "khofs"])
    .timeout_s(120 + 120 * hops as u64)
    .step("outside", outside::compare)
    .check(|outcome| Summary::of(outcome).map(|sum| sum.line()));
    for (hop, script) in plan.scripts.iter().enumerate() {
        scenario = scenario.at(hop, script);
    }
    scenario
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(arguments.hops > 0, "a soak of no hops shows nothing");
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => random()?,
    };
    println!("cargo xtask soak --hops {} --seed {seed}", arguments.hops);
    let lab = Lab::open(None)?;
    let outcome = scenario("soak", arguments.hops, seed).run(&lab, &mut |_, event| {
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
