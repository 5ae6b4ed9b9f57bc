//! `cargo xtask bench`: what things cost, counted in instructions of a guest, so that it can be repeated on any machine.

mod khofs;

use std::process::ExitCode;

use anyhow::Result;

/// Measure what things cost, in guests that count instructions, and write the report.
#[derive(clap::Subcommand)]
pub enum Task {
    /// Files on khofs beside files on tmpfs: docs/reports/khofs-speed.md.
    Khofs(khofs::Arguments),
}

/// Runs it.
pub fn run(task: &Task) -> Result<ExitCode> {
    match task {
        Task::Khofs(arguments) => khofs::run(arguments),
    }
}
