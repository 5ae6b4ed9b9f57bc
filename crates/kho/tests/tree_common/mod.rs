//! A handover for tests to write, and functions that break it.
#![allow(dead_code, reason = "every test uses a part")]

use kho::abi::{
    self, BlobDescription, Content, Description, Handover, Label, MACHINE_X86_64, measure_handover,
    write_handover,
};
use kho::tree::{Node, Reader, WriteError, Writer, seal};
use kho::{PhysAddr, PhysRange};

pub const MIB: u64 = 1 << 20;

pub fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

/// A handover with a blob of files in two pieces, a raw blob, and an empty one.
pub fn with_example<T>(use_it: impl FnOnce(&Description<'_>) -> T) -> T {
    let (first, second) = (
        [range(0x4000_0000, MIB), range(0x5000_0000, 0x1000)],
        [range(0x4010_0000, 0x3000)],
    );
    let blob = |label, content, size, mem, hop| BlobDescription {
        label: Label::new(label).unwrap(),
        content,
        size,
        mem,
        blake3: [7; 32],
        taken: 1_763_000_000_000_000_000,
        arrived_hop: hop,
    };
    use_it(&Description {
        generation: 0x0123_4567_89ab_cdef,
        hop: 3,
        previous_release: "6.1.0-42-amd64",
        machine: MACHINE_X86_64,
        time: 1_763_000_000_000_000_001,
        carrier: kho::abi::Carrier::Memory,
        scratch: range(0x1000_0000, 512 * MIB),
        mem_cache: &[
            range(0x6000_0000, 0x10_0000),
            range(0x4000_0000, MIB + 0x3000),
            range(0x5000_0000, 0x2000),
        ],
        blobs: &[
            blob(
                "/srv data".trim_start_matches('/'),
                Content::Files {
                    path: b"/srv/d\xff",
                    leave_out: kho::abi::LeaveOut::default(),
                },
                MIB + 1,
                &first,
                2,
            ),
            blob("état", Content::Raw, 0x2001, &second, 3),
            blob("empty", Content::Raw, 0, &[], 1),
        ],
    })
}

/// The example as a sealed tree.
pub fn example() -> Vec<u8> {
    with_example(|description| {
        let mut buf = vec![0; measure_handover(description).unwrap()];
        assert_eq!(write_handover(description, &mut buf), Ok(buf.len()));
        buf
    })
}

/// Edit of a property while its tree is copied.
pub enum Edit {
    Keep,
    Drop,
    Set(Vec<u8>),
}

/// The tree of `bytes` after `edit` (path, property, value) changed its properties and with the nodes of `others` below
/// the root, sealed again.
pub fn edited(
    bytes: &[u8],
    edit: &dyn Fn(&str, &str, &[u8]) -> Edit,
    others: &dyn Fn(&mut Writer<'_>) -> Result<(), WriteError>,
) -> Vec<u8> {
    let tree = Reader::new(bytes).unwrap();
    let mut buf = vec![0; bytes.len() + 4096];
    let mut writer = Writer::new(&mut buf);
    copy(&mut writer, "", tree.root(), edit, others);
    let len = writer.finish().unwrap();
    buf.truncate(len);
    // A tree without the checksum property cannot be sealed.
    let _ = seal(&mut buf);
    buf
}

fn copy(
    w: &mut Writer<'_>,
    path: &str,
    node: Node<'_>,
    edit: &dyn Fn(&str, &str, &[u8]) -> Edit,
    others: &dyn Fn(&mut Writer<'_>) -> Result<(), WriteError>,
) {
    w.begin_node(node.name()).unwrap();
    for prop in node.props() {
        let shown = if path.is_empty() { "/" } else { path };
        match edit(shown, prop.name(), prop.value().bytes()) {
            Edit::Keep => w.prop_bytes(prop.name(), prop.value().bytes()).unwrap(),
            Edit::Drop => {}
            Edit::Set(value) => w.prop_bytes(prop.name(), &value).unwrap(),
        }
    }
    for child in node.children() {
        copy(w, &format!("{path}/{}", child.name()), child, edit, &|_| {
            Ok(())
        });
    }
    if path.is_empty() {
        others(w).unwrap();
    }
    w.end_node().unwrap();
}

/// The example with one property changed.
pub fn with_prop(path: &str, name: &str, value: Option<Vec<u8>>) -> Vec<u8> {
    edited(
        &example(),
        &|at, prop, _| match &value {
            _ if (at, prop) != (path, name) => Edit::Keep,
            Some(value) => Edit::Set(value.clone()),
            None => Edit::Drop,
        },
        &|_| Ok(()),
    )
}

/// The value of pairs.
pub fn pairs(pairs: &[(u64, u64)]) -> Vec<u8> {
    pairs
        .iter()
        .flat_map(|(addr, len)| [addr.to_ne_bytes(), len.to_ne_bytes()])
        .flatten()
        .collect()
}

/// The value of a string.
pub fn text(text: &str) -> Vec<u8> {
    format!("{text}\0").into_bytes()
}

/// Writes a node of an unknown version, with a `mem` of these ranges.
pub fn stranger(w: &mut Writer<'_>, name: &str, mem: &[PhysRange]) -> Result<(), WriteError> {
    w.begin_node(name)?;
    w.prop_str(abi::COMPATIBLE, "ftrace-v7")?;
    w.begin_node("inner")?;
    w.prop_mem(abi::MEM, mem.iter().copied())?;
    w.end_node()?;
    w.end_node()
}

/// Every problem as a line.
pub fn problems(bytes: &[u8]) -> Vec<String> {
    let tree = Reader::new(bytes).unwrap();
    let mut lines = Vec::new();
    let count = Handover::check_all(&tree, |problem| lines.push(problem.to_string())).unwrap();
    assert_eq!(count, lines.len());
    // Parsing stops at the first problem.
    match Handover::parse(&tree) {
        Ok(_) => assert_eq!(lines, Vec::<String>::new()),
        Err(error) => assert_eq!(Some(&error.to_string()), lines.first()),
    }
    lines
}

#[track_caller]
pub fn broken(path: &str, name: &str, value: Option<Vec<u8>>, expected: &[&str]) {
    assert_eq!(problems(&with_prop(path, name, value)), expected);
}
