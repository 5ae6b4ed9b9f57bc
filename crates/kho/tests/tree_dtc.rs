//! The container is what other tools expect: `dtc` reads it without a warning, and writes it again with the same
//! content.

mod tree_common;

use kho::tree::{Node, Reader, Writer};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Output and messages of `dtc -I from -O to` for `bytes`. `None` if `dtc` is not installed.
fn dtc(from: &str, to: &str, bytes: &[u8]) -> Option<(Vec<u8>, String)> {
    let child = Command::new("dtc")
        .args(["-I", from, "-O", to, "-"])
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
    let input = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "dtc: {messages}");
    Some((output.stdout, messages))
}

fn same(a: Node<'_>, b: Node<'_>) {
    assert_eq!(a.name(), b.name());
    let props = |node: Node<'_>| -> Vec<_> {
        node.props()
            .map(|prop| (prop.name().to_owned(), prop.value().bytes().to_vec()))
            .collect()
    };
    assert_eq!(props(a), props(b));
    let (mut left, mut right) = (a.children(), b.children());
    loop {
        match (left.next(), right.next()) {
            (Some(a), Some(b)) => same(a, b),
            (None, None) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn dtc_takes_a_handover_without_a_word() {
    let bytes = tree_common::example();
    let Some((source, messages)) = dtc("dtb", "dts", &bytes) else {
        return;
    };
    assert_eq!(messages, "");
    let source = String::from_utf8(source).unwrap();
    for line in [
        "compatible = \"kho-handover-v1\";",
        "label = \"empty\";",
        "blob-2 {",
    ] {
        assert!(source.contains(line), "{line} is missing:\n{source}");
    }
}

#[test]
fn what_dtc_writes_is_read() {
    let bytes = tree_common::example();
    let ours = Reader::new(&bytes).unwrap();
    let Some((source, _)) = dtc("dtb", "dts", &bytes) else {
        return;
    };
    for (from, input) in [("dtb", &bytes), ("dts", &source)] {
        let Some((theirs, _)) = dtc(from, "dtb", input) else {
            return;
        };
        let theirs = Reader::new(&theirs).unwrap();
        same(ours.root(), theirs.root());
    }
}

#[test]
fn dtc_takes_names_of_every_kind() {
    let mut buf = vec![0; 64 << 10];
    let mut w = Writer::new(&mut buf);
    w.begin_node("").unwrap();
    let long = "x".repeat(63);
    let names = [
        "0", "a.b", "a,b", "a_b", "a+b", "a-b", "-", ".", "A9", "cpu0", &long,
    ];
    for (number, name) in names.iter().enumerate() {
        w.prop_u64(name, number as u64).unwrap();
    }
    for depth in 0..31 {
        // The name differs from the names of the properties beside it, because dtc would warn.
        let name = names[depth % names.len()];
        w.begin_node(
            if name.len() < 63 {
                format!("{name}n")
            } else {
                "y".repeat(63)
            }
            .as_str(),
        )
        .unwrap();
        w.prop_str("compatible", "x-v1").unwrap();
    }
    for _ in 0..32 {
        w.end_node().unwrap();
    }
    let len = w.finish().unwrap();
    buf.truncate(len);
    let Some((_, messages)) = dtc("dtb", "dts", &buf) else {
        return;
    };
    assert_eq!(messages, "");
    let Some((theirs, _)) = dtc("dtb", "dtb", &buf) else {
        return;
    };
    same(
        Reader::new(&buf).unwrap().root(),
        Reader::new(&theirs).unwrap().root(),
    );
}
