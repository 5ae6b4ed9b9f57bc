//! Trees, and JSON about them.

use crate::Cursor;
use kho::abi::kernel_part::{KernelPart, Reference, is_reference};
use kho::abi::{
    BlobDescription, Content, Description, Handover, Label, LeaveOut, MACHINE_X86_64,
    measure_handover_with, write_handover_with,
};
use kho::tree::{Event, Index, Reader, Writer, seal};
use kho::{PhysAddr, PhysRange};
use kho_format::catalogue::Catalogue;
use kho_format::validate::Layer;
use kho_format::{dts, mainline, text, validate, view};

/// A tree from any source.
pub fn state_tree(data: &[u8]) {
    let all = validate::validate(data, None).expect("memory");
    let tree = match Reader::new(data) {
        Ok(tree) => tree,
        Err(_) => {
            assert!(all.iter().any(|p| p.layer == Layer::Container), "{all:?}");
            return;
        }
    };
    assert!(all.iter().all(|p| p.layer != Layer::Container), "{all:?}");
    written_again_is_the_same(&tree);
    index_agrees(&tree);
    let _ = (text::text(&tree), dts::dts(&tree), view::json(tree.root()));

    let mut problems = 0;
    let count = Handover::check_all(&tree, |problem| {
        let _ = problem.to_string();
        problems += 1;
    })
    .expect("memory");
    assert_eq!(count, problems);
    match Handover::parse(&tree) {
        Ok(handover) => {
            assert_eq!(problems, 0, "accepted with problems");
            let scratch = handover.scratch;
            for (_, range) in handover.mem() {
                assert!(!range.overlaps(scratch), "{range} is in scratch {scratch}");
                assert!(
                    handover.mem_cache.iter().any(|e| e.contains_range(range)),
                    "{range} is not reserved"
                );
            }
            for blob in &handover.blobs {
                let room: u64 = blob.ranges().map(PhysRange::len).sum();
                assert!(room >= blob.size, "a blob larger than its ranges");
            }
        }
        Err(_) => assert_ne!(problems, 0, "refused without a problem"),
    }
}

fn events(tree: &Reader<'_>) -> Vec<String> {
    tree.walk()
        .map(|event| match event {
            Event::Begin(node) => format!("{{ {}", node.name()),
            Event::Prop(prop) => format!("{} = {:?}", prop.name(), prop.value().bytes()),
            Event::End => "}".to_owned(),
        })
        .collect()
}

/// Whether a name is accepted by the reader but refused by the writer (see [`kho::tree`]).
fn is_only_read(name: &str) -> bool {
    kho::tree::RESERVED_PROPERTIES.contains(&name) || name.contains(['#', '*', '?', '@'])
}

/// Checks that the writer can write every tree that the reader accepts, and that the copy reads back alike.
fn written_again_is_the_same(tree: &Reader<'_>) {
    let mut names = tree.walk().filter_map(|event| match event {
        Event::Begin(node) => Some(node.name()),
        Event::Prop(prop) => Some(prop.name()),
        Event::End => None,
    });
    if names.any(is_only_read) {
        return;
    }
    let copy = |w: &mut Writer<'_>| {
        for event in tree.walk() {
            match event {
                Event::Begin(node) => w.begin_node(node.name())?,
                Event::Prop(prop) => w.prop_bytes(prop.name(), prop.value().bytes())?,
                Event::End => w.end_node()?,
            }
        }
        Ok::<(), kho::tree::WriteError>(())
    };
    let mut measuring = Writer::measuring();
    copy(&mut measuring).expect("what was read can be written");
    let size = measuring.finish().expect("what was read can be measured");
    let mut buf = vec![0; size];
    let mut writer = Writer::new(&mut buf);
    copy(&mut writer).expect("what was read can be written");
    assert_eq!(writer.finish(), Ok(size), "measured is not written");
    let again = Reader::new(&buf).expect("what was written can be read");
    assert_eq!(events(tree), events(&again));
}

/// Checks that the index and the plain walk find the same nodes.
fn index_agrees(tree: &Reader<'_>) {
    let index = Index::new(tree).expect("a tree that was checked");
    assert_eq!(index.len(), tree.nodes().count());
    for (_, node) in tree.nodes() {
        let path = index.path_of(&node).expect("memory");
        assert!(index.path(&path) == Some(node), "{path}");
        assert!(tree.path(&path) == Some(node), "{path}");
    }
}

/// A kernel's part with a corrected checksum, so that the fuzzer reaches the code behind the check.
pub fn kernel_part(data: &[u8]) {
    let mut data = data.to_vec();
    let sealed = seal(&mut data).is_ok();
    let Ok(tree) = Reader::new(&data) else { return };
    let _ = validate::validate(&data, None).expect("memory");
    for (_, node) in tree.nodes() {
        if is_reference(&node)
            && let Some(reference) = Reference::read(&node)
        {
            assert!(reference.size <= reference.mem.len() && reference.generation != 0);
        }
    }
    if let Ok(part) = KernelPart::parse(&tree) {
        assert!(sealed, "a part without a proper checksum was accepted");
        assert!(!part.mem.overlaps(part.reference.mem));
        let kept = part.kept().expect("memory");
        assert_eq!(kept.total(), part.mem.total() + part.reference.mem.len());
        assert!(kept.iter().all(PhysRange::is_page_aligned));
    }
}

/// `fdt`, then files of `sub_fdts`, each behind its length.
pub fn mainline(data: &[u8]) {
    let mut cursor = Cursor(data);
    let part = |cursor: &mut Cursor<'_>| {
        let len = usize::from(cursor.u8()) * 16;
        cursor.bytes(len).to_vec()
    };
    let mut files = mainline::Files {
        fdt: Some(part(&mut cursor)),
        ..mainline::Files::default()
    };
    for name in ["memblock", "ftrace", "luo", "test"] {
        if !cursor.is_empty() {
            files.sub.push((name.to_owned(), part(&mut cursor)));
        }
    }
    files.scratch = vec![(cursor.u64(), cursor.u64())];
    if let Ok(state) = mainline::decode(&files) {
        let _ = mainline::show(&state);
        let _ = serde_json::to_string(&state).expect("JSON");
    }
}

/// Another build's catalogue.
pub fn catalogue(data: &[u8]) {
    let this = Catalogue::this();
    if let Ok(other) = Catalogue::parse(data) {
        for ignored in this.ignored_by(&other) {
            let _ = ignored.to_string();
        }
        let text = serde_json::to_vec(&other).expect("JSON");
        let again = Catalogue::parse(&text).expect("what was written can be read");
        assert_eq!(text, serde_json::to_vec(&again).expect("JSON"));
    }
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
        for schema in kho_format::schema::all() {
            let _ = kho_format::schema::check(&schema.document, &value);
        }
    }
}

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).expect("a range")
}

pub fn handovers() -> Vec<Vec<u8>> {
    let mem = [range(0x4000_0000, 0x2000), range(0x5000_0000, 0x1000)];
    let blob = |label, content, size, mem| BlobDescription {
        label: Label::new(label).expect("a label"),
        content,
        size,
        mem,
        blake3: [7; 32],
        taken: 1,
        arrived_hop: 2,
    };
    let files = Content::Files {
        path: b"/srv/d\xff",
        leave_out: LeaveOut::default(),
    };
    let blobs = [
        blob("srv", files, 0x2001, &mem),
        blob("empty", Content::Raw, 0, &[]),
    ];
    let description = Description {
        generation: 7,
        hop: 2,
        previous_release: "6.1",
        machine: MACHINE_X86_64,
        time: 1,
        carrier: kho::abi::Carrier::Memory,
        scratch: range(0x1000_0000, 0x1000_0000),
        mem_cache: &[
            range(0x6000_0000, 0x4000),
            range(0x4000_0000, 0x2000),
            range(0x5000_0000, 0x3000),
        ],
        blobs: &blobs,
    };
    let more = |w: &mut Writer<'_>| {
        Reference {
            mem: range(0x5000_1000, 0x1000),
            size: 0x7c0,
            generation: 9,
        }
        .write(w)?;
        w.begin_node("ring")?;
        w.prop_str("compatible", "example-ring-v1")?;
        w.prop_mem("mem", [range(0x5000_2000, 0x1000)])?;
        w.end_node()
    };
    let mut whole = vec![0; measure_handover_with(&description, more).expect("a size")];
    write_handover_with(&description, &mut whole, more).expect("a tree");
    vec![whole]
}

pub fn kernel_parts() -> Vec<Vec<u8>> {
    let mut buf = vec![0; 1024];
    let mut write = || {
        let mut w = Writer::new(&mut buf);
        w.begin_node("")?;
        w.prop_str("compatible", "kho-kernel-v1")?;
        w.prop_u64("generation", 9)?;
        w.prop_u32("checksum", 0)?;
        w.prop_mem("mem", [range(0x5000_1000, 0x1000)])?;
        w.begin_node("ring")?;
        w.prop_str("compatible", "example-ring-v1")?;
        w.prop_mem("mem", [range(0x5000_3000, 0x1000)])?;
        w.end_node()?;
        w.end_node()?;
        w.finish()
    };
    let len = write().expect("a tree");
    buf.truncate(len);
    vec![buf]
}

pub fn mainlines() -> Vec<Vec<u8>> {
    let mut buf = vec![0; 1024];
    let mut write = || {
        let mut w = Writer::new(&mut buf);
        w.begin_node("")?;
        w.prop_str("compatible", "kho-v3")?;
        w.prop_u64("preserved-memory-map", 0x1000)?;
        w.begin_node("memblock")?;
        w.prop_u64("preserved-data", 0x2000)?;
        w.prop_u64("blob-size", 0x1000)?;
        w.end_node()?;
        w.end_node()?;
        w.finish()
    };
    let len = write().expect("a tree").next_multiple_of(16);
    buf.truncate(len);
    let mut seed = vec![u8::try_from(len / 16).expect("small")];
    seed.extend(&buf);
    seed.push(1);
    seed.extend([0; 16]);
    vec![seed]
}

pub fn catalogues() -> Vec<Vec<u8>> {
    vec![serde_json::to_vec(&Catalogue::this()).expect("JSON")]
}
