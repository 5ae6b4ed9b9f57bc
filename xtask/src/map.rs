//! Test that the map in ARCHITECTURE.md names every package and its uses of other packages.

use std::collections::{BTreeMap, BTreeSet};

use kho_lab::workspace::{cargo, root};
use serde_json::Value;

/// Workspaces, by their manifests.
const WORKSPACES: [&str; 2] = ["Cargo.toml", "module/Cargo.toml"];

/// Crates with their folders, and the crates that each uses.
type Map = BTreeMap<(String, String), BTreeSet<String>>;

/// The map according to cargo. Dependencies of tests do not count.
fn there() -> Map {
    let mut map = Map::new();
    for manifest in WORKSPACES {
        let mut command = cargo();
        command.args(["metadata", "--no-deps", "--format-version=1"]);
        let output = command
            .args(["--manifest-path", manifest])
            .output()
            .unwrap();
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        for package in metadata["packages"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let manifest = text(&package["manifest_path"]);
            let folder = std::path::Path::new(&manifest).parent().unwrap();
            let folder = folder.strip_prefix(root()).unwrap().display().to_string();
            let uses = package["dependencies"].as_array().unwrap().iter();
            let uses = uses.filter(|other| !other["path"].is_null() && other["kind"].is_null());
            let uses = uses.map(|other| text(&other["name"])).collect();
            map.insert((folder, text(&package["name"])), uses);
        }
    }
    map
}

/// The map on the page.
fn shown() -> Map {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, part) = page.split_once("\n## Map\n").unwrap();
    let part = part.split("\n## ").next().unwrap();
    let names = |cell: &str| -> Vec<String> {
        let names = cell.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    let rows = part.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [folder, name, _, uses] = cells[..] else {
            panic!("{row}");
        };
        let key = (names(folder).remove(0), names(name).remove(0));
        (key, names(uses).into_iter().collect())
    })
    .collect()
}

#[test]
fn the_map_is_that_of_cargo() {
    let (there, shown) = (there(), shown());
    assert!(there.len() > 10, "{there:?}");
    let rows = |one: &Map, other: &Map| -> Vec<String> {
        let missing = one
            .iter()
            .filter(|(key, uses)| other.get(*key) != Some(*uses));
        missing.map(|row| format!("{row:?}")).collect()
    };
    let (lacks, wrong) = (rows(&there, &shown), rows(&shown, &there));
    assert!(
        lacks.is_empty() && wrong.is_empty(),
        "the map lacks:\n{}\nand has:\n{}",
        lacks.join("\n"),
        wrong.join("\n")
    );
}
