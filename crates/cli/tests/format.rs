//! Tests of the verbs that read trees and catalogues, run as a user runs them.

use kho::abi::{
    BlobDescription, Content, Description, Label, MACHINE_X86_64, measure_handover, write_handover,
};
use kho::{PhysAddr, PhysRange};
use serde_json::Value as Json;
use std::path::Path;
use std::process::{Command, Output};

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

fn tree(hop: u64) -> Vec<u8> {
    let mem = [range(0x4000_0000, 0x1000)];
    let description = Description {
        generation: u64::MAX,
        hop,
        previous_release: "6.1.0-42-amd64",
        machine: MACHINE_X86_64,
        time: 1,
        carrier: kho::abi::Carrier::Memory,
        scratch: range(0x1000_0000, 0x1000_0000),
        mem_cache: &[range(0x6000_0000, 0x1000), range(0x4000_0000, 0x1000)],
        blobs: &[BlobDescription {
            label: Label::new("token").unwrap(),
            content: Content::Raw,
            size: 6,
            mem: &mem,
            blake3: [9; 32],
            taken: 1,
            arrived_hop: 1,
        }],
    };
    let mut buf = vec![0; measure_handover(&description).unwrap()];
    write_handover(&description, &mut buf).unwrap();
    buf
}

fn kho(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kho"))
        .args(args)
        .current_dir(dir)
        .env("KHO_STATE_DIR", dir.join("state"))
        .output()
        .unwrap()
}

/// Returns the standard output of a run. Checks that the run ends with `status`.
fn stdout(args: &[&str], dir: &Path, status: i32) -> String {
    let output = kho(args, dir);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn validate_names_everything_and_exits_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let good = tree(1);
    std::fs::write(dir.join("good"), &good).unwrap();
    assert_eq!(stdout(&["validate", "good"], dir, 0), "valid\n");

    let mut damaged = good.clone();
    let at = damaged.windows(6).position(|w| w == b"6.1.0-").unwrap();
    damaged[at] = b'5';
    std::fs::write(dir.join("damaged"), &damaged).unwrap();
    assert!(
        stdout(&["validate", "damaged"], dir, 61)
            .starts_with("/: checksum over the state tree is 0x")
    );

    let mut later = good.clone();
    let at = later
        .windows(15)
        .position(|w| w == b"kho-handover-v1")
        .unwrap();
    later[at + 14] = b'2';
    std::fs::write(dir.join("later"), &later).unwrap();
    let doc: Json =
        serde_json::from_str(&stdout(&["--json", "validate", "later"], dir, 62)).unwrap();
    assert_eq!(doc["valid"], false);
    assert_eq!(doc["problems"][0]["layer"], "version");
    assert_eq!(doc["problems"][0]["node"], "/");

    std::fs::write(
        dir.join("text"),
        "no tree at all, but long enough to be looked at",
    )
    .unwrap();
    assert!(stdout(&["validate", "text"], dir, 61).contains("not a state tree"));
    assert_eq!(stdout(&["validate"], dir, 2), "");
    assert_eq!(stdout(&["validate", "good", "--in"], dir, 2), "");
    assert_eq!(stdout(&["validate", "absent"], dir, 1), "");
}

#[test]
fn dump_shows_numbers_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("a"), tree(1)).unwrap();
    let doc: Json =
        serde_json::from_str(&stdout(&["dump", "--json", "--file", "a"], dir, 0)).unwrap();
    assert_eq!(doc["schema"], "kho-handover-v1");
    assert_eq!(doc["properties"]["generation"], u64::MAX);
    assert_eq!(
        doc["children"][0]["children"][0]["properties"]["label"],
        "token"
    );
    assert!(stdout(&["dump", "--dts", "--file", "a"], dir, 0).starts_with("/dts-v1/;\n"));
    assert!(stdout(&["dump", "--file", "a"], dir, 0).contains("generation = 0xffffffffffffffff"));
}

#[test]
fn diff_has_a_status_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("a"), tree(1)).unwrap();
    std::fs::write(dir.join("b"), tree(2)).unwrap();
    assert_eq!(stdout(&["diff", "a", "a"], dir, 0), "");
    let text = stdout(&["diff", "a", "b"], dir, 70);
    assert!(
        text.contains("~ / hop: 1 -> 2\n") && text.lines().count() == 2,
        "{text}"
    );
    let doc: Json = serde_json::from_str(&stdout(&["diff", "--json", "a", "b"], dir, 70)).unwrap();
    assert_eq!(doc["changes"].as_array().unwrap().len(), 2);
}

#[test]
fn compat_compares_catalogues() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let this = stdout(&["compat", "--this", "--json"], dir, 0);
    std::fs::write(dir.join("this"), &this).unwrap();
    std::fs::write(dir.join("old"), this.replace("kho-blob-v1", "kho-blob-v0")).unwrap();
    assert!(stdout(&["compat", "this", "this"], dir, 0).starts_with("everything"));
    assert!(stdout(&["compat", "this", "old"], dir, 71).starts_with("kho-blob-v1: "));
    std::fs::write(dir.join("other"), "[]").unwrap();
    assert_eq!(stdout(&["compat", "this", "other"], dir, 1), "");
    assert_eq!(stdout(&["compat", "this"], dir, 2), "");
}

#[test]
fn mainline_state_is_decoded_from_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut buf = vec![0; 512];
    let mut w = kho::tree::Writer::new(&mut buf);
    w.begin_node("").unwrap();
    w.prop_str("compatible", "kho-v4").unwrap();
    w.prop_u64("preserved-memory-map", 0x1000).unwrap();
    w.begin_node("thing").unwrap();
    w.prop_u64("preserved-data", 0x2000).unwrap();
    w.prop_u64("blob-size", 3).unwrap();
    w.end_node().unwrap();
    w.end_node().unwrap();
    w.finish().unwrap();
    let out = dir.join("kho/out");
    std::fs::create_dir_all(out.join("sub_fdts")).unwrap();
    std::fs::write(out.join("fdt"), &buf).unwrap();
    std::fs::write(out.join("sub_fdts/thing"), b"abc").unwrap();
    std::fs::write(out.join("scratch_phys"), "0x100000\n0x40000000\n").unwrap();
    std::fs::write(out.join("scratch_len"), "0x200000\n0x1000000\n").unwrap();
    let text = stdout(&["dump", "--mainline", "--debugfs", "kho"], dir, 0);
    assert_eq!(
        text,
        "out: kho-v4\n  preserved memory: described at 0x1000\n  scratch: [0x100000-0x300000) 2.00 MiB\n  \
         scratch: [0x40000000-0x41000000) 16.0 MiB\n  thing: unknown bytes at 0x2000, 3 B\n    \
         first = \"616263\"\n    len = 3\n"
    );
    assert_eq!(
        stdout(&["dump", "--mainline", "--debugfs", "nowhere"], dir, 60),
        ""
    );
}

#[test]
fn a_reader_that_goes_away_is_no_accident_and_a_full_disk_is() {
    let run = |stdout: std::process::Stdio| {
        Command::new(env!("CARGO_BIN_EXE_kho"))
            .args(["status", "--exit-statuses"])
            .stdout(stdout)
            .output()
            .unwrap()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let gone = run(writer.into());
    assert_eq!(gone.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&gone.stderr), "");
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let full = run(full.into());
    assert_eq!(full.status.code(), Some(1));
    let said = String::from_utf8_lossy(&full.stderr);
    assert!(said.contains("could not be written"), "{said}");
}
