//! Trees of any shape stay the same when they are written and read, and no bytes make the reader panic.
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of test data are small"
)]

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node as _, Property as _};
use kho::tree::{Event, Index, Node, Reader, WriteError, Writer};
use kho::{PhysAddr, PhysRange};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A node to be written; maps, so that names are unique, in an order that is not shortlex.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    props: BTreeMap<String, Vec<u8>>,
    children: BTreeMap<String, Model>,
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]", "[a-zA-Z0-9,._+-]{1,12}", "[a-z]{63}"].prop_filter("reserved", |name| {
        !kho::tree::RESERVED_PROPERTIES.contains(&name.as_str())
    })
}

/// Names that the other reader accepts too: it has the specification's limit of 31 characters.
fn tame_name() -> impl Strategy<Value = String> {
    "[a-z][a-zA-Z0-9,._+-]{0,30}"
}

fn props(
    name: BoxedStrategy<String>,
    max: usize,
) -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    prop::collection::btree_map(name, prop::collection::vec(any::<u8>(), 0..20), 0..max)
}

fn model_of(name: BoxedStrategy<String>) -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![4 => props(name.clone(), 5), 1 => props(name.clone(), 40)];
    let leaf = leaf.prop_map(|props| Model {
        props,
        ..Model::default()
    });
    leaf.prop_recursive(6, 60, 8, move |inner| {
        let children = prop::collection::btree_map(name.clone(), inner, 0..8);
        (props(name.clone(), 5), children).prop_map(|(props, children)| Model { props, children })
    })
}

fn model() -> impl Strategy<Value = Model> {
    model_of(name().boxed())
}

fn write_node(w: &mut Writer<'_>, name: &str, node: &Model) -> Result<(), WriteError> {
    w.begin_node(name)?;
    for (name, value) in &node.props {
        w.prop_bytes(name, value)?;
    }
    for (name, child) in &node.children {
        write_node(w, name, child)?;
    }
    w.end_node()
}

fn write(model: &Model) -> Vec<u8> {
    let mut measure = Writer::measuring();
    write_node(&mut measure, "", model).unwrap();
    let mut buf = vec![0xa5; measure.finish().unwrap()];
    let mut writer = Writer::new(&mut buf);
    write_node(&mut writer, "", model).unwrap();
    assert_eq!(writer.finish(), Ok(buf.len()), "measuring was not exact");
    buf
}

fn read(node: Node<'_>) -> Model {
    Model {
        props: node
            .props()
            .map(|prop| (prop.name().to_owned(), prop.value().bytes().to_vec()))
            .collect(),
        children: node
            .children()
            .map(|child| (child.name().to_owned(), read(child)))
            .collect(),
    }
}

fn read_with_dtoolkit(node: FdtNode<'_>) -> Model {
    Model {
        props: node
            .properties()
            .map(|prop| (prop.name().to_owned(), prop.value().to_vec()))
            .collect(),
        children: node
            .children()
            .map(|child| (child.name().to_owned(), read_with_dtoolkit(child)))
            .collect(),
    }
}

/// Uses all of a tree; nothing may panic or loop for ever.
fn use_all(tree: &Reader<'_>) {
    let mut depth = 0i32;
    let (mut nodes, mut props) = (0usize, 0usize);
    for event in tree.walk() {
        match event {
            Event::Begin(_) => {
                depth += 1;
                nodes += 1;
            }
            Event::Prop(prop) => {
                props += 1;
                assert!(!prop.name().is_empty());
                let value = prop.value();
                let _ = (value.u32(), value.u64(), value.str());
                let _ = (
                    value.u64s().map(Iterator::count),
                    value.mem().map(Iterator::count),
                );
            }
            Event::End => depth -= 1,
        }
    }
    assert_eq!(depth, 0);
    assert_eq!(nodes, tree.node_count());
    assert_eq!(tree.nodes().count(), nodes);
    assert_eq!(
        tree.nodes()
            .map(|(_, node)| node.props().count())
            .sum::<usize>(),
        props
    );
    let index = Index::new(tree).unwrap();
    assert_eq!(index.len(), nodes);
    for (number, (depth, node)) in tree.nodes().enumerate() {
        let path = index.path_of(&node).unwrap();
        assert_eq!(index.path(&path), Some(node));
        assert_eq!(tree.path(&path), Some(node));
        assert_eq!(index.nth(number), Some(node));
        assert_eq!(index.parent(&node).is_none(), depth == 0);
        for child in node.children() {
            assert_eq!(index.child(&node, child.name()), Some(child));
            assert_eq!(index.parent(&child), Some(node));
        }
        for prop in node.props() {
            assert_eq!(
                node.prop(prop.name()).map(|p| p.value()),
                Some(prop.value())
            );
        }
    }
    assert_eq!(index.path("/no/such/node"), None);
    assert_eq!(tree.path("relative"), None);
}

proptest! {
    #[test]
    fn what_is_written_is_read(model in model()) {
        let bytes = write(&model);
        let tree = Reader::new(&bytes).unwrap();
        prop_assert_eq!(&read(tree.root()), &model);
        use_all(&tree);
        // The maps and the tree have the same order.
        let names: Vec<_> = tree.root().children().map(|child| child.name().to_owned()).collect();
        prop_assert_eq!(names, model.children.keys().cloned().collect::<Vec<_>>());
    }

    #[test]
    fn another_reader_reads_the_same(model in model_of(tame_name().boxed())) {
        let bytes = write(&model);
        let other = Fdt::new(&bytes).unwrap();
        prop_assert_eq!(read_with_dtoolkit(other.root()), model);
    }

    #[test]
    fn a_buffer_that_is_too_small_is_told_the_right_size(model in model(), cut in 1usize..2000) {
        let needed = write(&model).len();
        let available = needed.saturating_sub(cut);
        let mut buf = vec![0; available];
        let mut writer = Writer::new(&mut buf);
        write_node(&mut writer, "", &model).unwrap();
        prop_assert_eq!(writer.finish(), Err(WriteError::BufferTooSmall { needed, available }));
    }

    #[test]
    fn changed_bytes_are_refused_or_read_in_bounds(
        model in model(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = write(&model);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(tree) = Reader::new(&bytes) {
            use_all(&tree);
        }
    }

    #[test]
    fn changed_words_are_refused_or_read_in_bounds(
        model in model(),
        at in any::<prop::sample::Index>(),
        word in prop_oneof![0u32..16, 0u32..2000, any::<u32>()],
    ) {
        let mut bytes = write(&model);
        let at = at.index(bytes.len() / 4) * 4;
        bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        if let Ok(tree) = Reader::new(&bytes) {
            use_all(&tree);
        }
    }

    #[test]
    fn any_structure_block_is_refused_or_read_in_bounds(
        words in prop::collection::vec(
            prop_oneof![
                4 => 1u32..5, 1 => Just(9u32), 3 => 0u32..12, 2 => Just(0x6100_0000), 1 => any::<u32>(),
            ],
            0..40,
        ),
    ) {
        let strings = b"\0a\0bc\0";
        let mut all = vec![1, 0];
        all.extend(words);
        all.extend([2, 9]);
        let size = (all.len() * 4) as u32;
        let header = [0xd00d_feed, 56 + size + 6, 56, 56 + size, 40, 17, 16, 0, 6, size, 0, 0, 0, 0];
        let mut bytes: Vec<u8> =
            header.iter().chain(&all).flat_map(|word: &u32| word.to_be_bytes()).collect();
        bytes.extend(strings);
        if let Ok(tree) = Reader::new(&bytes) {
            use_all(&tree);
            let other = Fdt::new(&bytes).unwrap();
            prop_assert_eq!(read_with_dtoolkit(other.root()), read(tree.root()));
        }
    }

    #[test]
    fn no_bytes_upset_the_reader(mut bytes in prop::collection::vec(any::<u8>(), 0..400), magic: bool) {
        if magic && bytes.len() >= 8 {
            bytes[..4].copy_from_slice(&0xd00d_feedu32.to_be_bytes());
            let size = bytes.len() as u32;
            bytes[4..8].copy_from_slice(&size.to_be_bytes());
        }
        if let Ok(tree) = Reader::new(&bytes) {
            use_all(&tree);
        }
    }
}

#[test]
fn typed_values_come_back() {
    let range = |start, len| PhysRange::new(PhysAddr::new(start), len).unwrap();
    let ranges = [range(0x1000, 0x2000), range(0x10_0000_0000, 0x1000)];
    let mut buf = [0; 1024];
    let mut w = Writer::new(&mut buf);
    w.begin_node("").unwrap();
    w.prop_u32("a", 7).unwrap();
    w.prop_u64("b", u64::MAX - 1).unwrap();
    w.prop_str("c", "grüße").unwrap();
    w.prop_str("d", "").unwrap();
    w.prop_mem("mem", ranges).unwrap();
    w.prop_mem("none", []).unwrap();
    let list = [1u64, 2, 3].map(u64::to_ne_bytes).concat();
    w.prop_bytes("list", &list).unwrap();
    w.prop_empty("flag").unwrap();
    w.prop_bytes("bytes", &[1, 2, 3, 4, 5]).unwrap();
    w.end_node().unwrap();
    let len = w.finish().unwrap();
    let tree = Reader::new(&buf).unwrap();
    assert_eq!(tree.bytes().len(), len);
    let root = tree.root();
    let value = |name| root.prop(name).unwrap().value();
    assert_eq!(value("a").u32(), Ok(7));
    assert!(value("a").u64().is_err());
    assert_eq!(value("b").u64(), Ok(u64::MAX - 1));
    assert_eq!(value("c").str(), Ok("grüße"));
    assert_eq!(value("d").str(), Ok(""));
    let mem: Result<Vec<_>, _> = value("mem").mem().unwrap().collect();
    assert_eq!(mem, Ok(ranges.to_vec()));
    assert_eq!(value("none").mem().unwrap().count(), 0);
    assert_eq!(value("list").u64s().unwrap().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(value("flag").bytes(), b"");
    assert!(value("flag").str().is_err());
    assert!(value("bytes").str().is_err());
    assert!(value("bytes").mem().is_err());
    assert!(root.prop("ab").is_none());
    assert!(root.prop("").is_none());
}

#[test]
fn more_names_than_the_writer_remembers_are_still_right() {
    let mut model = Model::default();
    for number in 0..500 {
        let child = Model {
            props: (0..5)
                .map(|k| (format!("p{}", (number * 7 + k) % 300), vec![k as u8]))
                .collect(),
            ..Model::default()
        };
        model.children.insert(format!("n{number}"), child);
    }
    let bytes = write(&model);
    assert_eq!(read(Reader::new(&bytes).unwrap().root()), model);
}

#[test]
fn names_are_stored_once() {
    let mut model = Model::default();
    for number in 0..100 {
        let props = (0..30).map(|k| (format!("prop-{k}"), vec![])).collect();
        model.children.insert(
            format!("n{number}"),
            Model {
                props,
                ..Model::default()
            },
        );
    }
    let bytes = write(&model);
    let strings = u32::from_be_bytes(bytes[32..36].try_into().unwrap());
    let once: usize = (0..30).map(|k| format!("prop-{k}").len() + 1).sum();
    assert_eq!(strings as usize, once);
}
