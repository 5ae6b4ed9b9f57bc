//! The page of the book that lists each test and what it checks, made from the tests' own descriptions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kho_lab::Arch;
use kho_lab::kernel::{self, peer};
use kho_lab::qemu::Firmware;
use kho_lab::system::Release;
use kho_lab::workspace::root;

use crate::scenario::{PRELUDE, Runs, SYSTEM_PRELUDE, Scenario};
use crate::scenarios::groups;

/// Path of the page.
const PAGE: &str = "docs/src/checked.md";

/// Functions of scripts, by name, and the lines outside of functions.
#[derive(Default)]
struct Shell<'t> {
    functions: BTreeMap<&'t str, Vec<&'t str>>,
    rest: Vec<&'t str>,
}

impl<'t> Shell<'t> {
    /// Reads scripts in the style of this project: `name() {`, and `}` at the beginning of a line or at the end of the
    /// same line.
    fn read(texts: &[&'t str]) -> Self {
        let mut shell = Self::default();
        let mut inside: Option<&str> = None;
        for line in texts.iter().flat_map(|text| text.lines()) {
            if line.trim_start().starts_with('#') {
                continue;
            }
            match (inside, line.split_once("() {")) {
                (Some(_), _) if line == "}" => inside = None,
                (Some(name), _) => shell.functions.entry(name).or_default().push(line),
                (None, Some((name, body))) if !name.contains(char::is_whitespace) => {
                    // If a function is defined twice, the last definition counts.
                    shell.functions.insert(name, vec![body]);
                    inside = (!body.trim_end().ends_with('}')).then_some(name);
                }
                (None, _) => shell.rest.push(line),
            }
        }
        shell
    }

    /// Returns the verbs of `kho` that the scripts call, also through functions.
    fn verbs(&self, known: &[String]) -> BTreeSet<String> {
        let mut verbs = BTreeSet::new();
        let mut called = BTreeSet::new();
        let mut lines: Vec<&str> = self.rest.clone();
        while let Some(line) = lines.pop() {
            let mut words = line
                .split_whitespace()
                .map(|word| word.trim_matches(|c| "'\"$(){}`;!|&".contains(c)));
            while let Some(word) = words.next() {
                if word == "kho" {
                    let verb = words.clone().find(|word| !word.starts_with('-'));
                    verbs.extend(
                        known
                            .iter()
                            .find(|name| Some(name.as_str()) == verb)
                            .cloned(),
                    );
                } else if let Some((name, body)) = self.functions.get_key_value(word)
                    && called.insert(*name)
                {
                    lines.extend(body);
                }
            }
        }
        verbs
    }
}

/// Column of Debian testing and of its kernel.
const TESTING: &str = "Debian testing";

/// Column of arm64 machines, whatever their firmware.
const ARM64: &str = "arm64";

/// Returns, for each verb, the columns in which it counts: kernel, firmware, with or without the module.
fn places(scenario: &Scenario, known: &[String]) -> BTreeMap<String, BTreeSet<&'static str>> {
    let runs = &scenario.runs;
    let mut found: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    let hops = match runs.system {
        Some(_) => runs.scripts.at.len(),
        None => runs.kernels.len(),
    };
    for hop in 0..hops {
        let script = runs.scripts.of(hop).unwrap_or_default();
        let prelude = match runs.system {
            Some(_) => SYSTEM_PRELUDE,
            None => PRELUDE,
        };
        let mut verbs = Shell::read(&[prelude, script]).verbs(known);
        // Unless the script says that it did so, PID 1 loads the next kernel and starts it.
        if runs.system.is_none() && hop + 1 < hops && !script.contains("loaded --bare") {
            verbs.insert("exec".to_owned());
            if !script.contains("kho-guest loaded") {
                verbs.insert("load".to_owned());
            }
        }
        for verb in verbs {
            found.entry(verb).or_default().extend([
                column_of(kernel_of(runs, hop)),
                match (scenario.machine.arch, scenario.machine.firmware) {
                    (Arch::Arm64, _) => ARM64,
                    (_, Firmware::Bios) => "BIOS",
                    (_, Firmware::Uefi) => "UEFI",
                    (_, Firmware::UefiTpm) => "UEFI, TPM",
                    (_, Firmware::SecureBoot) => "Secure Boot",
                },
                match has_module(runs, hop) {
                    true => "module",
                    false => "no module",
                },
            ]);
        }
    }
    found
}

fn kernel_of(runs: &Runs, hop: usize) -> &'static str {
    match (runs.system, runs.kernels.get(hop)) {
        (Some(Release::Bookworm), _) => "Debian 12",
        (Some(Release::Trixie), _) => "Debian 13",
        (Some(Release::Forky), _) => TESTING,
        (None, name) => name.copied().unwrap_or_default(),
    }
}

/// Returns the column of a kernel: a flavour counts as its series.
fn column_of(kernel: &'static str) -> &'static str {
    match kernel.split('-').next() {
        Some("testing") => TESTING,
        Some(series) if kernel::names().contains(&series) => series,
        _ => kernel,
    }
}

fn has_module(runs: &Runs, hop: usize) -> bool {
    match runs.system {
        Some(_) => runs.files.dkms,
        None => runs.modules.built && !runs.modules.without.contains(&hop),
    }
}

/// Makes the table of verbs: number of guest tests that call each verb, by kernel, by firmware, with and without
/// modules.
fn verbs() -> String {
    let command = kho_dist::pages::command();
    let known: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    let kernels = kernel::names().into_iter();
    let columns: Vec<&str> = kernels
        .chain([
            peer::NAME,
            "Debian 12",
            "Debian 13",
            TESTING,
            "BIOS",
            "UEFI",
            "UEFI, TPM",
            ARM64,
        ])
        .chain(["module", "no module"])
        .collect();
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for scenario in groups().into_iter().flat_map(|(_, all)| all) {
        for (verb, places) in places(&scenario, &known) {
            for place in places {
                *counts.entry((verb.clone(), place)).or_default() += 1;
            }
        }
    }
    let mut text = format!("| verb | {} |\n", columns.join(" | "));
    let _ = writeln!(text, "| --- |{}", " ---: |".repeat(columns.len()));
    for verb in &known {
        let _ = write!(text, "| `{verb}` |");
        for column in &columns {
            let count = counts.get(&(verb.clone(), *column));
            let _ = write!(text, " {} |", count.map_or(String::new(), usize::to_string));
        }
        text.push('\n');
    }
    text
}

/// Makes the tables of all guest tests.
fn guests() -> String {
    let mut text = String::new();
    for (heading, scenarios) in groups() {
        let _ = writeln!(
            text,
            "### {heading}\n\n| test | what it shows | kernels | hops | firmware | our modules |\n| --- | --- | --- | ---: | --- | --- |"
        );
        for scenario in scenarios {
            let runs = &scenario.runs;
            let mut kernels: Vec<&str> = Vec::new();
            let stages = match runs.system {
                Some(_) => runs.scripts.at.len(),
                None => runs.kernels.len(),
            };
            for name in (0..stages).map(|hop| kernel_of(runs, hop)) {
                if !kernels.contains(&name) {
                    kernels.push(name);
                }
            }
            let modules = match (has_module(runs, 0), runs.modules.ours.is_empty()) {
                (false, _) => "–".to_owned(),
                (true, true) => "as the script says".to_owned(),
                (true, false) => runs.modules.ours.join(", "),
            };
            let _ = writeln!(
                text,
                "| `{}`{} | {} | {} | {} | {} | {modules} |",
                scenario.name,
                if scenario.limits.slow { " (slow)" } else { "" },
                scenario.about.replace('|', "\\|"),
                kernels.join(", "),
                stages.saturating_sub(1),
                match scenario.machine.arch {
                    Arch::Arm64 => "–".to_owned(),
                    Arch::X86_64 => scenario.machine.firmware.to_string(),
                },
            );
        }
        text.push('\n');
    }
    text
}

/// Makes the table of the crates' test files, each with the first paragraph of its documentation.
fn host() -> String {
    let list = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let mut text = String::from("| tests | what they show |\n| --- | --- |\n");
    let crates = list(&root().join("crates"));
    for path in crates.iter().flat_map(|path| list(&path.join("tests"))) {
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let about = source.lines().map_while(|line| line.strip_prefix("//! "));
        let about = about.collect::<Vec<_>>().join(" ");
        let path = path.strip_prefix(root()).unwrap().display();
        assert!(!about.is_empty(), "{path} does not say what it is");
        let _ = writeln!(text, "| `{path}` | {} |", about.replace('|', "\\|"));
    }
    text
}

#[test]
fn the_book_says_what_is_checked_where() {
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let mut rest = page.as_str();
    let mut out = String::new();
    for (name, made) in [("host", host()), ("verbs", verbs()), ("guests", guests())] {
        let (before, after) = rest.split_once(&format!("<!-- made: {name} -->")).unwrap();
        let (_, after) = after.split_once("<!-- end -->").unwrap();
        let made = made.trim_end();
        let _ = write!(
            out,
            "{before}<!-- made: {name} -->\n\n{made}\n\n<!-- end -->"
        );
        rest = after;
    }
    out.push_str(rest);
    if std::env::var_os("KHO_BLESS").is_some() {
        std::fs::write(&path, out).unwrap();
        return;
    }
    assert!(
        page == out,
        "{PAGE} is not what comes out now; KHO_BLESS=1 writes it anew"
    );
}

#[test]
fn verbs_are_found_through_functions_that_are_called() {
    let text = "load() {\n\tkho load \"$1\"\n}\nnever() { kho release all; }\n# kho get x\n[ \"$(kho --json status)\" = x ]\nrefused 'x' load\n";
    let known = ["get", "load", "release", "status"].map(str::to_owned);
    let found = Shell::read(&[text]).verbs(&known);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["load", "status"]);
}
