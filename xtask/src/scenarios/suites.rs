//! Programs that nobody here wrote, on khofs and on tmpfs.

use super::Scenario;
use crate::suites::{self, Foreign};

const SUITES: &str = include_str!("suites/suites.sh");

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let all = ["6.1", "6.12", "7.3"].map(|kernel| full(kernel).slow());
    all.into_iter().chain([slice()]).collect()
}

fn compared(name: String, about: &str, kernel: &'static str, amount: &str) -> Scenario {
    Scenario::new(name, about)
        .kernels(&[kernel])
        .kho_modules(&["kho", "khofs"])
        .foreign(&[Foreign::Pjdfstest, Foreign::Fsx, Foreign::Fio])
        .first(&format!("{amount}\n{SUITES}"))
        .check(suites::check)
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

/// All of them, under one kernel.
pub fn full(kernel: &'static str) -> Scenario {
    compared(
        format!("khofs-suites-{kernel}"),
        "all of pjdfstest, fsx and fio on khofs and on tmpfs",
        kernel,
        "seeds='1 2' operations=10000 large=2500 megabytes=32",
    )
    .timeout_s(1800)
}
