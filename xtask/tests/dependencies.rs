//! Every dependency has a licence that this project can ship, comes from crates.io, and occurs in one version.
//!
//! Licences are those of the packages built on Linux, from `cargo metadata`; sources and versions are those of the lock
//! files, for all platforms. Advisories need a data base that is not in the repository: see CONTRIBUTING.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The manifests of the two workspaces: the crates, and the kernel modules.
const WORKSPACES: [&str; 2] = [".", "module"];

/// Licences of code that may be linked with this project's (Apache-2.0 or MIT, and GPL-2.0 for the modules, which use
/// the MIT side) and that demand only that their text is passed on.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Crates that occur in more than one version, each with the reason.
const TWICE: &[(&str, &str)] = &[
    (
        "getrandom",
        "jsonschema (tests only) is one release behind tempfile",
    ),
    ("r-efi", "UEFI targets only, by getrandom"),
    (
        "syn",
        "clap, serde and thiserror use 3; zerocopy and our own tests use 2",
    ),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether an SPDX expression can be satisfied with [`LICENCES`]. Old manifests write `/` for OR.
fn allowed(expression: &str) -> bool {
    let text = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut at = 0;
    let result = any_of(&words, &mut at);
    result && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize) -> bool {
    let mut result = all_of(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= all_of(words, at);
    }
    result
}

fn all_of(words: &[&str], at: &mut usize) -> bool {
    let mut result = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at);
    }
    result
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if *word == "(" {
        let result = any_of(words, at);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return result && closed;
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    LICENCES.contains(&name.as_str())
}

#[test]
fn licences_are_known() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for workspace in WORKSPACES {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .args([
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
                "--manifest-path",
            ])
            .arg(root().join(workspace).join("Cargo.toml"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for package in metadata["packages"].as_array().unwrap() {
            count += 1;
            let licence = package["license"].as_str().unwrap_or("none");
            // The crates of the modules are GPL-2.0.
            let ours = package["source"].is_null();
            let known = allowed(licence) || (ours && licence == "GPL-2.0-only");
            if !known {
                wrong.push(format!(
                    "{} {}: {licence}",
                    package["name"], package["version"]
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "licences that are not on the list: {wrong:#?}"
    );
    assert!(count > 100, "only {count} packages were looked at");
}

/// The packages of a lock file: name, version, source.
fn locked(workspace: &str) -> Vec<(String, String, Option<String>)> {
    let text = std::fs::read_to_string(root().join(workspace).join("Cargo.lock")).unwrap();
    let packages = text.split("[[package]]").skip(1);
    packages
        .map(|package| {
            let value = |key: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(key));
                line.map(|line| line.trim_matches([' ', '=', '"']).to_owned())
            };
            (
                value("name").unwrap(),
                value("version").unwrap(),
                value("source"),
            )
        })
        .collect()
}

#[test]
fn sources_are_crates_io_or_this_repository() {
    for workspace in WORKSPACES {
        for (name, version, source) in locked(workspace) {
            match source {
                Some(source) => assert_eq!(source, CRATES_IO, "{name} {version}"),
                None => assert!(
                    name.starts_with("kho") || name == "xtask",
                    "{name} {version} is by path"
                ),
            }
        }
    }
}

#[test]
fn versions_are_one_each() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for workspace in WORKSPACES {
        let mut here: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, version, _) in locked(workspace) {
            here.entry(name).or_default().insert(version);
        }
        here.retain(|_, versions| versions.len() > 1);
        versions.extend(here);
    }
    let found: Vec<&str> = versions.keys().map(String::as_str).collect();
    let known: Vec<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        found, known,
        "crates in more than one version, and those that are known for it: {versions:#?}"
    );
}

#[test]
fn expressions_are_read() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-2.0-only OR MIT",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-3.0 AND MIT OR Zlib",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in [
        "GPL-3.0",
        "none",
        "",
        "MIT AND GPL-3.0",
        "(MIT",
        "MIT MIT",
        "MIT WITH some-exception",
        "MIT AND",
    ] {
        assert!(!allowed(bad), "{bad}");
    }
}
