//! The file `copyright` of each package, in Debian's machine-readable format 1.0. The crates that are linked into the
//! binaries come from `cargo metadata`, with the notices in their sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use kho_lab::workspace;
use serde_json::Value;

/// Licences of crates that the packages may use, the preferred one first: the name in Cargo, and in Debian.
const LICENCES: [(&str, &str); 3] = [
    ("Apache-2.0", "Apache-2.0"),
    ("MIT", "Expat"),
    ("bzip2-1.0.6", "bzip2-1.0.6"),
];

/// Texts of the licences.
const TEXTS: [(&str, &str); 4] = [
    (
        "Apache-2.0",
        " On Debian systems, the full text of the Apache License version 2.0 is in\n /usr/share/common-licenses/Apache-2.0.\n",
    ),
    ("Expat", include_str!("copyright/expat")),
    ("bzip2-1.0.6", include_str!("copyright/bzip2")),
    (
        "GPL-2.0-only",
        " This program is free software; you can redistribute it and/or modify it under\n the terms of the GNU General Public License version 2 as published by the Free\n Software Foundation.\n .\n On Debian systems, the full text of that version is in\n /usr/share/common-licenses/GPL-2.\n",
    ),
];

/// A crate that is linked into a binary of the package.
struct Linked {
    name: String,
    version: String,
    /// Name of its licence in Debian.
    licence: &'static str,
    /// Its copyright notices.
    notices: BTreeSet<String>,
}

/// Returns the file of the package of this name.
pub fn of(package: &str) -> Result<String> {
    let (manifest, program, own, more) = match package {
        "kho" => (
            "Cargo.toml",
            "kho-cli",
            "Apache-2.0 or Expat",
            "\nFiles: glibc/*\nCopyright: 1991-2025 Free Software Foundation, Inc.\nLicense: LGPL-2.1+\nComment: /usr/bin/kho is linked statically with the GNU C Library of the Debian\n release that it was built on, and with its source package libc6-dev.\n",
        ),
        "kho-dkms" => ("module/Cargo.toml", "kho-module", "GPL-2.0-only", ""),
        _ => bail!("there is no package {package}"),
    };
    let mut text = format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: kho\nSource: \
         https://github.com/kho-rs/kho\n\nFiles: *\nCopyright: 2026 the kho authors\nLicense: {own}\n{more}\nFiles: \
         rust/*\nCopyright: the Rust Project Developers\nLicense: Apache-2.0\nComment: The standard library, of which \
         parts are linked.\n"
    );
    let mut used: BTreeSet<&str> = own.split(" or ").chain(["Apache-2.0"]).collect();
    for linked in linked(manifest, program)? {
        used.insert(linked.licence);
        let notices: Vec<&str> = linked.notices.iter().map(String::as_str).collect();
        write!(
            text,
            "\nFiles: {}-{}/*\nCopyright: {}\nLicense: {}\n",
            linked.name,
            linked.version,
            notices.join("\n "),
            linked.licence
        )?;
    }
    for licence in used {
        let (_, body) = TEXTS
            .iter()
            .find(|(name, _)| *name == licence)
            .with_context(|| format!("no text of {licence}"))?;
        write!(text, "\nLicense: {licence}\n{body}")?;
    }
    if package == "kho" {
        text.push_str(
            "\nLicense: LGPL-2.1+\n On Debian systems, the full text of the GNU Lesser General Public License\n version 2.1 is in /usr/share/common-licenses/LGPL-2.1.\n",
        );
    }
    Ok(text)
}

/// Returns the crates of others that are linked into a program, by name.
fn linked(manifest: &str, program: &str) -> Result<Vec<Linked>> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .arg("--manifest-path")
        .arg(workspace::root().join(manifest))
        .output()
        .context("running cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let list = list.as_array().into_iter().flatten();
        list.map(|item| {
            (
                item["id"].as_str().unwrap_or_default().to_owned(),
                item.clone(),
            )
        })
        .collect()
    };
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let mut left: Vec<&String> = packages
        .iter()
        .filter(|(_, package)| package["name"] == program)
        .map(|(id, _)| id)
        .collect();
    ensure!(left.len() == 1, "{} packages are {program}", left.len());
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    while let Some(id) = left.pop() {
        let Some((id, package)) = packages
            .get_key_value(id)
            .filter(|_| seen.insert(id.clone()))
        else {
            continue;
        };
        if !package["source"].is_null() {
            found.push(of_crate(package)?);
        }
        for dependency in nodes[id]["deps"].as_array().into_iter().flatten() {
            // Neither dependencies of build scripts and tests nor macros are in the program.
            let mut kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
            let normal = kinds.any(|kind| kind["kind"].is_null());
            let there = dependency["pkg"]
                .as_str()
                .and_then(|id| packages.get_key_value(id));
            let is_macro =
                |package: &Value| package["targets"].to_string().contains("\"proc-macro\"");
            if let Some((id, package)) = there
                && normal
                && !is_macro(package)
            {
                left.push(id);
            }
        }
    }
    found.sort_by(|a: &Linked, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(found)
}

fn of_crate(package: &Value) -> Result<Linked> {
    let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
    let (name, expression) = (text("name"), text("license"));
    let offered: Vec<&str> = expression
        .split(" OR ")
        .flat_map(|part| part.split('/'))
        .collect();
    let (_, licence) = LICENCES
        .iter()
        .find(|(cargo, _)| offered.contains(cargo))
        .with_context(|| {
            format!("{name}: no licence in {expression:?} is known to the packages")
        })?;
    let folder = text("manifest_path");
    let folder = Path::new(&folder)
        .parent()
        .context("a manifest without a folder")?;
    let mut notices = notices(folder)?;
    if notices.is_empty() {
        let authors = package["authors"].as_array().into_iter().flatten();
        notices.extend(authors.filter_map(Value::as_str).map(str::to_owned));
    }
    if notices.is_empty() {
        notices.insert(format!("the authors of {name}"));
    }
    Ok(Linked {
        version: text("version"),
        name,
        licence,
        notices,
    })
}

/// Returns the copyright notices in the files of a crate that have its licences.
fn notices(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?
    {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        let has = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT"]
            .iter()
            .any(|s| name.starts_with(s));
        if !has || !path.is_file() {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        for line in text.lines().map(str::trim) {
            let Some(notice) = line.strip_prefix("Copyright ") else {
                continue;
            };
            let notice = notice
                .trim_start_matches("(c)")
                .trim_start_matches("(C)")
                .trim_start_matches('©');
            // The appendix of the Apache License has a form to be filled in, its text has sentences.
            let is_notice = notice.contains(|c: char| c.is_ascii_digit())
                || notice.contains("developers")
                || notice.contains("authors");
            if is_notice && !notice.contains(['[', '{', '<']) {
                found.insert(notice.trim().to_owned());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_linked_crate_is_named_with_its_licence() {
        let tool = of("kho").unwrap();
        let linked = linked("Cargo.toml", "kho-cli").unwrap();
        assert!(linked.len() > 40, "{}", linked.len());
        for wanted in ["blake3", "clap_builder", "rustix", "zmij", "libbz2-rs-sys"] {
            assert!(linked.iter().any(|found| found.name == wanted), "{wanted}");
        }
        // A macro, and a dependency of tests only.
        for wanted in ["clap_derive", "proptest", "syn"] {
            assert!(!tool.contains(&format!("Files: {wanted}-")), "{wanted}");
        }
        assert!(of("kho-dkms").unwrap().contains("License: GPL-2.0-only\n"));
        assert!(!of("kho-dkms").unwrap().contains("clap"));
        for text in [&tool, &of("kho-dkms").unwrap()] {
            // A paragraph for each licence that is named, and each named one has a paragraph.
            let of_files = |line: &&str| line.starts_with("License: ");
            let all: BTreeSet<&str> = text
                .lines()
                .filter(of_files)
                .flat_map(|line| line[9..].split(" or "))
                .collect();
            for licence in all {
                assert!(
                    text.contains(&format!("\n\nLicense: {licence}\n ")),
                    "{licence}"
                );
            }
            assert!(
                text.lines()
                    .all(|line| line.is_empty() || line.starts_with(' ') || line.contains(": "))
            );
        }
    }
}
