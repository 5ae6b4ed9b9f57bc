//! Programs of other projects, on khofs: file system suites beside tmpfs, and users of files.

pub mod results;

use crate::scenario::Scenario;
use anyhow::Result;
use kho_lab::programs::Foreign;
use kho_lab::run::Outcome;
use results::{Results, STATED};

/// Names of the suites in the results. `afterwards` is kho's own: whether all memory was given back.
pub const NAMES: [&str; 4] = ["pjdfstest", "fsx", "fio", "afterwards"];

const SUITES: &str = include_str!("suites.sh");

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let all = ["6.1", "6.12", "7.3"].map(|kernel| full(kernel).slow());
    all.into_iter().chain([slice(), sqlite(), qemu()]).collect()
}

/// SQLite writers that the kexec stops in the middle of a write.
fn sqlite() -> Scenario {
    users(
        "khofs-sqlite",
        "SQLite in three journal modes: after each kexec the databases are whole and what was committed is there",
        Foreign::Sqlite,
        include_str!("sqlite.sh"),
    )
}

/// A host is updated under a running virtual machine.
fn qemu() -> Scenario {
    users(
        "khofs-qemu",
        "a virtual machine with its memory in a file goes on after kexec, the memory identical by hash",
        Foreign::Qemu,
        include_str!("qemu.sh"),
    )
    .timeout_s(600)
}

fn users(name: &str, about: &str, program: Foreign, script: &str) -> Scenario {
    Scenario::new(name, about)
        .kernels(&["6.1", "6.12", "7.3"])
        .kho_modules(&["kho", "khofs"])
        .foreign(&[program])
        .first(script)
        .each(script)
}

fn compared(name: String, about: &str, kernel: &'static str, amount: &str) -> Scenario {
    Scenario::new(name, about)
        .kernels(&[kernel])
        .kho_modules(&["kho", "khofs"])
        .foreign(&[Foreign::Pjdfstest, Foreign::Fsx, Foreign::Fio])
        .first(&format!("{amount}\n{SUITES}"))
        .check(check)
}

/// A part of every suite.
fn slice() -> Scenario {
    compared(
        "khofs-suites-slice".to_owned(),
        "pjdfstest, fsx and fio on khofs and on tmpfs: what passes there passes here",
        "6.12",
        "seeds='1' operations=3000 large=1000 megabytes=4",
    )
}

/// All suites, under one kernel.
pub fn full(kernel: &'static str) -> Scenario {
    compared(
        format!("khofs-suites-{kernel}"),
        "all of pjdfstest, fsx and fio on khofs and on tmpfs",
        kernel,
        "seeds='1 2' operations=10000 large=2500 megabytes=32",
    )
    .timeout_s(1800)
}

/// Checks the results.
fn check(outcome: &Outcome) -> Result<String> {
    Results::read(&outcome.log)?.judge(&NAMES, &STATED)
}
