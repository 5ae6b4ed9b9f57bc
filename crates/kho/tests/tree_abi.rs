//! The contract: a reader gets the values that the writer wrote, and finds, names and places every broken rule.
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of test data are small"
)]

mod tree_common;

use kho::abi::{
    AbiError, BlobDescription, Content, Description, Handover, HandoverWriteError, Label,
    ProblemKind, StateError, measure_handover, measure_handover_with, write_handover,
    write_handover_with,
};
use kho::tree::{ChecksumError, Reader, WriteError, seal, verify};
use kho::{PhysAddr, PhysRange};
use proptest::prelude::*;
use tree_common::{
    Edit, broken, edited, example, pairs, problems, range, stranger, text, with_example, with_prop,
};

#[test]
fn the_example_is_read_back() {
    let bytes = example();
    let tree = Reader::new(&bytes).unwrap();
    let handover = Handover::parse(&tree).unwrap();
    with_example(|description| {
        assert_eq!(handover.generation, description.generation);
        assert_eq!(handover.hop, description.hop);
        assert_eq!(handover.previous_release, description.previous_release);
        assert_eq!(handover.machine, description.machine);
        assert_eq!(handover.time, description.time);
        assert_eq!(handover.scratch, description.scratch);
        assert_eq!(handover.mem_cache, description.mem_cache);
        assert_eq!(handover.blobs.len(), description.blobs.len());
        for (blob, wanted) in handover.blobs.iter().zip(description.blobs) {
            assert_eq!(blob.label, wanted.label);
            assert_eq!(blob.content, wanted.content);
            assert_eq!(blob.size, wanted.size);
            assert_eq!(blob.blake3, wanted.blake3);
            assert_eq!(blob.taken, wanted.taken);
            assert_eq!(blob.arrived_hop, wanted.arrived_hop);
            assert_eq!(blob.ranges().collect::<Vec<_>>(), wanted.mem);
        }
    });
    assert_eq!(handover.blob("état").unwrap().size, 0x2001);
    assert!(handover.blob("etat").is_none());
    assert!(handover.unknown.is_empty());
    assert_eq!(handover.mem().count(), 3);
    assert_eq!(problems(&bytes), Vec::<String>::new());
}

#[test]
fn where_the_tree_lies() {
    let bytes = example();
    let handover = Handover::parse(&Reader::new(&bytes).unwrap()).unwrap();
    assert_eq!(handover.check_state(range(0x6000_1000, 0x800)), Ok(()));
    let found = range(0x600f_f000, 0x2000);
    assert_eq!(
        handover.check_state(found),
        Err(StateError::Outside {
            found,
            entry: range(0x6000_0000, 0x10_0000)
        })
    );
    // Entry 0 may have been merged with a neighbour. The tree must not lie on memory that is handed over.
    let merged = edited(
        &with_prop("/", "mem-cache", Some(pairs(&[(0x4000_0000, 0x1100_0000)]))),
        &|_, _, _| Edit::Keep,
        &|w| stranger(w, "trace", &[range(0x4800_0000, 0x1000)]),
    );
    let handover = Handover::parse(&Reader::new(&merged).unwrap()).unwrap();
    assert_eq!(handover.check_state(range(0x4900_0000, 0x1000)), Ok(()));
    for mem in [range(0x5000_0000, 0x1000), range(0x4800_0000, 0x1000)] {
        let found = PhysRange::new(mem.start(), 0x10).unwrap();
        assert_eq!(
            handover.check_state(found),
            Err(StateError::Overlap { found, range: mem })
        );
    }
}

#[test]
fn versions_that_are_not_known() {
    broken(
        "/",
        "compatible",
        Some(text("kho-handover-v2")),
        &["/: the tree is a \"kho-handover-v2\", this reader knows \"kho-handover-v1\" only"],
    );
    let bytes = with_prop("/", "compatible", Some(text("kho-v4")));
    match Handover::parse(&Reader::new(&bytes).unwrap()) {
        Err(AbiError::Problem(problem)) => {
            assert_eq!(
                problem.kind,
                ProblemKind::RootVersion {
                    found: "kho-v4".into()
                }
            );
        }
        other => panic!("{other:?}"),
    }
    broken("/", "compatible", None, &["/: there is no `compatible`"]);
    // An escape sequence in the tree does not reach a terminal.
    let lines = problems(&with_prop("/", "compatible", Some(text("\x1b[2J"))));
    assert!(lines[0].contains("\\u{1b}[2J"), "{lines:?}");

    let bytes = edited(
        &with_prop("/blobs/blob-1", "compatible", Some(text("kho-blob-v2"))),
        &|_, _, _| Edit::Keep,
        &|w| stranger(w, "trace", &[range(0x5000_1000, 0x1000)]),
    );
    let handover = Handover::parse(&Reader::new(&bytes).unwrap()).unwrap();
    let unknown: Vec<_> = handover
        .unknown
        .iter()
        .map(|unknown| (unknown.node.name(), unknown.in_blobs, unknown.compatible))
        .collect();
    assert_eq!(
        unknown,
        [
            ("blob-1", true, "kho-blob-v2"),
            ("trace", false, "ftrace-v7")
        ]
    );
    assert_eq!(handover.blobs.len(), 2);
    assert_eq!(handover.mem().count(), 4);

    let bytes = with_prop("/blobs", "compatible", Some(text("kho-blobs-v2")));
    let handover = Handover::parse(&Reader::new(&bytes).unwrap()).unwrap();
    assert_eq!(handover.blobs.len(), 0);
    assert_eq!(handover.unknown.len(), 1);
}

#[test]
fn checksums() {
    let mut bytes = example();
    let sum = verify(&Reader::new(&bytes).unwrap()).unwrap();
    assert_eq!(seal(&mut bytes), Ok(sum));
    // The test computes the checksum independently: the four bytes of the value count as zero.
    let at = bytes
        .windows(4)
        .position(|w| w == sum.to_ne_bytes())
        .unwrap();
    let mut zeroed = bytes.clone();
    zeroed[at..at + 4].fill(0);
    assert_eq!(crc32(&zeroed), sum);
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    zeroed[at] = 1;
    assert!(matches!(
        verify(&Reader::new(&zeroed).unwrap()),
        Err(ChecksumError::Mismatch { computed, .. }) if computed == sum
    ));
    let lines = problems(&zeroed);
    assert!(
        lines[0].starts_with("/: checksum over the state tree is 0x"),
        "{lines:?}"
    );
    assert!(matches!(seal(&mut [0; 10]), Err(ChecksumError::Tree(_))));
    let mut without = with_prop("/", "checksum", None);
    let before = without.clone();
    assert_eq!(seal(&mut without), Err(ChecksumError::Missing));
    let mut short = with_prop("/", "checksum", Some(vec![1, 2, 3]));
    assert!(matches!(seal(&mut short), Err(ChecksumError::Malformed(_))));
    assert_eq!(before, without);
}

/// CRC-32/ISO-HDLC bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    })
}

#[test]
fn every_flipped_bit_is_detected() {
    let bytes = example();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(tree) = Reader::new(&flipped) {
            let parsed = Handover::parse(&tree).map(|_| ());
            assert!(parsed.is_err(), "bit {bit:#x} made no difference");
        }
    }
}

#[test]
fn nothing_is_written_that_would_be_refused() {
    let write = |change: &dyn Fn(&mut Description<'_>)| {
        with_example(|description| {
            let mut description = *description;
            change(&mut description);
            let mut buf = vec![0; 8192];
            write_handover(&description, &mut buf)
        })
    };
    assert!(write(&|_| {}).is_ok());
    assert!(matches!(
        write(&|d| d.hop = 0),
        Err(HandoverWriteError::Invalid(_))
    ));
    assert!(matches!(
        write(&|d| d.mem_cache = &[]),
        Err(HandoverWriteError::Invalid(_))
    ));
    assert!(matches!(
        write(&|d| d.machine = ""),
        Err(HandoverWriteError::Invalid(_))
    ));
    assert!(matches!(
        write(&|d| d.machine = "a\0"),
        Err(HandoverWriteError::Write(WriteError::StringNul { .. }))
    ));
    with_example(|description| {
        let others = |w: &mut kho::tree::Writer<'_>| {
            stranger(w, "a", &[])?;
            stranger(w, "a", &[])
        };
        let needed = measure_handover_with(description, others).unwrap();
        let mut buf = vec![0; needed];
        assert!(matches!(
            write_handover_with(description, &mut buf, others),
            Err(HandoverWriteError::Seal(ChecksumError::Tree(_)))
        ));
        let available = needed - 1;
        let mut buf = vec![0; available];
        assert_eq!(
            write_handover_with(description, &mut buf, others),
            Err(HandoverWriteError::Write(WriteError::BufferTooSmall {
                needed,
                available
            }))
        );
    });
}

#[derive(Debug)]
struct Owned {
    label: String,
    path: Option<Vec<u8>>,
    size: u64,
    mem: Vec<PhysRange>,
    blake3: [u8; 32],
    hop: u64,
}

/// Blobs whose pieces lie one after the other, in pieces of some pages, from 4 GiB up.
fn blobs() -> impl Strategy<Value = Vec<Owned>> {
    let blob = (
        "[a-zA-Z é]{1,20}",
        prop::option::of("(/[a-z]{1,8}){1,4}"),
        prop::collection::vec(1u64..600, 0..6),
        0u64..4096,
        any::<[u8; 32]>(),
        1u64..10,
    );
    prop::collection::vec(blob, 0..12).prop_map(|list| {
        let mut next = 1u64 << 32;
        list.into_iter()
            .enumerate()
            .map(|(number, (label, path, pieces, odd, blake3, hop))| {
                let mem: Vec<_> = pieces
                    .iter()
                    .map(|pages| {
                        let piece = range(next, pages * 4096);
                        next += (pages + odd % 3) * 4096;
                        piece
                    })
                    .collect();
                let total: u64 = mem.iter().map(|range| range.len()).sum();
                Owned {
                    label: format!("{label}{number}"),
                    path: path.map(String::into_bytes),
                    size: total.saturating_sub(odd),
                    mem,
                    blake3,
                    hop,
                }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn any_handover_is_read_back(
        owned in blobs(),
        generation: u64,
        hop in 10u64..u64::MAX,
        time: u64,
        release in "[0-9]\\.[0-9]{1,3}[-a-z0-9]{0,20}",
        junk in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let cache = [range(0x1000, 0x1_0000), range(1 << 32, 1 << 30)];
        let blobs: Vec<_> = owned
            .iter()
            .map(|blob| BlobDescription {
                label: Label::new(&blob.label).unwrap(),
                content: blob.path.as_deref().map_or(Content::Raw, |path| Content::Files { path, leave_out: kho::abi::LeaveOut { special: blob.hop % 2 == 1, other_file_systems: blob.hop % 3 == 1 } }),
                size: blob.size,
                mem: &blob.mem,
                blake3: blob.blake3,
                taken: time / 2,
                arrived_hop: blob.hop,
            })
            .collect();
        let description = Description {
            generation,
            hop,
            previous_release: &release,
            machine: "x86_64",
            time,
            carrier: kho::abi::Carrier::Memory,
           scratch: PhysRange::from_bounds(PhysAddr::new(0x10_0000), PhysAddr::new(0x1000_0000)).unwrap(),
            mem_cache: &cache,
            blobs: &blobs,
        };
        let needed = measure_handover(&description).unwrap();
        let mut buf = vec![0; needed];
        prop_assert_eq!(write_handover(&description, &mut buf), Ok(needed));
        // The reader ignores bytes between the end of the tree and the end of the page.
        buf.extend(junk);
        let tree = Reader::new(&buf).unwrap();
        let handover = Handover::parse(&tree).unwrap();
        prop_assert_eq!(handover.generation, generation);
        prop_assert_eq!(handover.hop, hop);
        prop_assert_eq!(handover.time, time);
        prop_assert_eq!(handover.previous_release, release.as_str());
        prop_assert_eq!(&handover.mem_cache[..], &cache[..]);
        prop_assert_eq!(handover.blobs.len(), blobs.len());
        for (read, wanted) in handover.blobs.iter().zip(&blobs) {
            prop_assert_eq!(read.label, wanted.label);
            prop_assert_eq!(read.content, wanted.content);
            prop_assert_eq!(read.size, wanted.size);
            prop_assert_eq!(read.blake3, wanted.blake3);
            prop_assert_eq!(read.ranges().collect::<Vec<_>>(), wanted.mem);
        }
    }

    /// The checks end for any value, and both ways of checking find the same problem first.
    #[test]
    fn any_value_is_judged(
        place in any::<prop::sample::Index>(),
        value in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50),
            prop::collection::vec((any::<u64>(), any::<u64>()), 0..4).prop_map(|list| pairs(&list)),
            prop::collection::vec((0x3ff0u64..0x6010, 0u64..0x200), 0..6)
                .prop_map(|list| pairs(&list.iter().map(|(a, l)| (a << 16, l << 12)).collect::<Vec<_>>())),
        ],
    ) {
        let bytes = example();
        let tree = Reader::new(&bytes).unwrap();
        let all: Vec<_> = tree
            .nodes()
            .flat_map(|(_, node)| node.props().map(move |prop| (node.name().to_owned(), prop.name().to_owned())))
            .collect();
        let (node, prop) = &all[place.index(all.len())];
        let path = match node.as_str() {
            "" => "/".to_owned(),
            "blobs" => "/blobs".to_owned(),
            blob => format!("/blobs/{blob}"),
        };
        problems(&with_prop(&path, prop, Some(value)));
    }
}
