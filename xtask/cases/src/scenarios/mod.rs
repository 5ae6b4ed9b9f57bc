//! Guest tests. To add one: write a [`Scenario`] in one of the files here (or in a new file, listed in [`all`]).
//!
//! ```text
//! Scenario::new("name", "what it shows")
//!     .kernels(&["6.1", "6.12"])
//!     .first("echo hello | kho keep --name greeting -")
//!     .each("[ \"$(kho get greeting)\" = hello ]")
//! ```
//!
//! Scripts run as root by `sh -eu`, after `prelude.sh`, with `kho` and `kho-guest` (see its `--help`) in PATH; `cargo
//! xtask vm --help` lists their environment. A test fails if a script fails, if a hop does not arrive, or if any kernel
//! prints a warning.

mod arm64;
mod bad_input;
mod book;
mod chain;
pub mod early;
mod fault;
mod firmware;
mod hosts;
mod initrd;
mod khofs;
mod mainline;
mod module;
mod producers;
mod size;
mod smoke;
pub mod suites;
mod systems;
mod trace;

use crate::scenario::Scenario;

/// Every guest test, grouped by subject.
pub fn groups() -> Vec<(&'static str, Vec<Scenario>)> {
    let mut groups = vec![
        ("Bad input", bad_input::scenarios()),
        ("The commands of the book", book::scenarios()),
        ("The guests themselves", smoke::scenarios()),
        ("arm64", arm64::scenarios()),
        ("Hop after hop", chain::scenarios()),
        ("Early reservations", early::scenarios()),
        ("Faults", fault::scenarios()),
        ("Firmware", firmware::scenarios()),
        ("Hosts", hosts::scenarios()),
        ("The initrd carries", initrd::scenarios()),
        ("khofs", khofs::scenarios()),
        ("Mainline's KHO", mainline::scenarios()),
        ("The kernel module", module::scenarios()),
        ("All producers", producers::scenarios()),
        ("Large machines", size::scenarios()),
        ("Soak", vec![crate::soak::scenario("soak-3", 3, 3)]),
        ("Suites and users of files", suites::scenarios()),
        ("Debian systems", systems::scenarios()),
        ("Traces", trace::scenarios()),
    ];
    for scenario in groups.iter_mut().flat_map(|(_, all)| all) {
        scenario.limits.slow |= SHOWN_BY_OTHERS.contains(&scenario.name.as_str());
    }
    groups
}

/// Tests that run only with `--all`, because other tests of the standing run cover the same: the run has 90 minutes.
const SHOWN_BY_OTHERS: [&str; 11] = [
    "bad-lockdown-confidentiality",
    "debian-12-packages",
    "early-6.1-uefi",
    "early-6.12-uefi",
    "early-7.3-uefi",
    "khofs-behaves-6.12",
    "khofs-qemu",
    "khofs-suites-slice",
    "module-event-log-6.1-6.12",
    "nokaslr",
    "uefi",
];

/// Every guest test.
pub fn all() -> Vec<Scenario> {
    groups().into_iter().flat_map(|(_, all)| all).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// `sh -e` goes on after `! COMMAND` whether COMMAND succeeds or fails, so such a line tests nothing. `fails
    /// COMMAND` does.
    #[test]
    fn no_line_of_a_script_negates_a_command_in_vain() {
        let mut vain = Vec::new();
        for scenario in all() {
            for line in scenario.scripts().flat_map(str::lines) {
                let line = line.trim_start();
                if line.starts_with("! ") && !line.contains("||") {
                    vain.push(format!("{}: {line}", scenario.name));
                }
            }
        }
        assert!(vain.is_empty(), "{}", vain.join("\n"));
    }

    #[test]
    fn what_waits_for_others_exists() {
        let all = all();
        for name in SHOWN_BY_OTHERS {
            assert!(all.iter().any(|scenario| scenario.name == name), "{name}");
        }
    }

    #[test]
    fn every_script_can_be_parsed() {
        let all = all();
        let mut seen = BTreeSet::new();
        for scenario in &all {
            for script in scenario.scripts().filter(|script| seen.insert(*script)) {
                let mut shell = Command::new("sh");
                shell.arg("-n").stdin(Stdio::piped());
                let mut child = shell.stderr(Stdio::piped()).spawn().unwrap();
                let mut input = child.stdin.take().unwrap();
                // A shell that gives up early closes its end; its standard error has the reason.
                let _ = input.write_all(script.as_bytes());
                drop(input);
                let output = child.wait_with_output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{}: {said}", scenario.name);
            }
        }
        assert!(seen.len() > 100, "only {} scripts", seen.len());
    }

    #[test]
    fn names_are_unique_and_fit_for_file_names() {
        let names: Vec<_> = all().into_iter().map(|scenario| scenario.name).collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name} twice");
            assert!(
                name.chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter)),
                "{name}"
            );
        }
    }
}
