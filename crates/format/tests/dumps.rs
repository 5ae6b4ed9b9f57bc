//! Dumps: golden text, JSON and source for dtc, and the tree that dtc makes of that source.

mod common;

use kho::tree::Reader;
use kho_format::{diff, dts, text, view};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn golden(name: &str, found: &str) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    common::golden(&dir.join(name), found);
}

#[test]
#[cfg(target_endian = "little")]
fn dumps_are_as_before() {
    for (name, bytes) in [
        ("handover", common::handover()),
        ("kernel", common::kernel_part()),
    ] {
        let tree = Reader::new(&bytes).unwrap();
        golden(&format!("{name}.txt"), &text::text(&tree));
        golden(&format!("{name}.dts"), &dts::dts(&tree));
        let json = serde_json::to_string_pretty(&view::json(tree.root())).unwrap();
        golden(&format!("{name}.json"), &(json + "\n"));
    }
}

/// Compiles `source` with dtc; `None` if dtc is not installed.
fn dtc(source: &str) -> Option<Vec<u8>> {
    let child = Command::new("dtc")
        .args(["-I", "dts", "-O", "dtb", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIP: dtc is not installed (Debian: device-tree-compiler)");
            return None;
        }
        Err(error) => panic!("dtc: {error}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = source.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "dtc: {messages}\n{source}");
    assert_eq!(messages, "", "dtc has remarks");
    Some(output.stdout)
}

#[test]
fn dtc_makes_the_same_tree_of_the_source() {
    for bytes in [common::handover(), common::kernel_part()] {
        let tree = Reader::new(&bytes).unwrap();
        let Some(made) = dtc(&dts::dts(&tree)) else {
            return;
        };
        let made = Reader::new(&made).unwrap();
        assert_eq!(diff::diff(&tree, &made), []);
        assert_eq!(view::json(made.root()), view::json(tree.root()));
        // The test does not compare checksums: they cover bytes, and dtc lays out the same tree differently.
        assert_eq!(made.node_count(), tree.node_count());
    }
}

#[test]
fn a_map_is_drawn_as_before() {
    use common::{MIB, range};
    use kho::RangeSet;
    use kho_format::svg::{Area, draw};
    let ram = RangeSet::from_ranges([
        range(0x1000, 0x9_e000),
        range(MIB, 3071 * MIB),
        range(4096 * MIB, 1024 * MIB),
    ])
    .unwrap();
    let part = |start: u64, mib: u64, kind, colour| Area {
        range: range(start * MIB, mib * MIB),
        kind,
        colour,
    };
    let parts = [
        part(512, 448, "scratch", "#ffe3ae"),
        part(512, 64, "kernel", "#8d4f19"),
        part(640, 96, "initrd", "#f0932b"),
        part(1536, 512, "kept in place", "#2e9e6b"),
        part(2048, 24, "slack", "#d9b8e8"),
        part(4100, 640, "blobs", "#2f7ed8"),
        part(4096, 1, "state tree", "#d64545"),
    ];
    golden(
        "map.svg",
        &draw("Memory at hop 2: /boot/vmlinuz-6.12", &ram, &parts),
    );
}

#[test]
fn differences_are_named() {
    let a = common::handover();
    let b = common::kernel_part();
    let (a, b) = (Reader::new(&a).unwrap(), Reader::new(&b).unwrap());
    assert_eq!(diff::diff(&a, &a), []);
    let lines: Vec<String> = diff::diff(&a, &b).iter().map(ToString::to_string).collect();
    for wanted in [
        "~ / compatible: \"kho-handover-v1\" -> \"kho-kernel-v1\"",
        "~ / generation: 0x123456789abcdef -> 0xfeedfacecafef00d",
        "- / hop: 3",
        "+ / release: \"6.12.95-cloud-amd64\"",
        "- /blobs: kho-blobs-v1",
        "~ /ring mem: [[0x50002000-0x50003000) 4096 B] -> [[0x50003000-0x50004000) 4096 B]",
        "- /ring armed: ",
    ] {
        assert!(
            lines
                .iter()
                .any(|line| line == wanted.trim_end_matches(": ")),
            "{wanted} is not in {lines:#?}"
        );
    }
    let back: Vec<String> = diff::diff(&b, &a).iter().map(ToString::to_string).collect();
    assert_eq!(back.len(), lines.len());
}
