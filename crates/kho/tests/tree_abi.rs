//! The contract: what is described is read back, and every broken rule is found, named and placed.
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
    Edit, MIB, edited, example, pairs, range, stranger, text, with_example, with_prop,
};

/// Every problem as a line.
fn problems(bytes: &[u8]) -> Vec<String> {
    let tree = Reader::new(bytes).unwrap();
    let mut lines = Vec::new();
    let count = Handover::check_all(&tree, |problem| lines.push(problem.to_string())).unwrap();
    assert_eq!(count, lines.len());
    // The first of all is the one that parsing stops at.
    match Handover::parse(&tree) {
        Ok(_) => assert_eq!(lines, Vec::<String>::new()),
        Err(error) => assert_eq!(Some(&error.to_string()), lines.first()),
    }
    lines
}

#[track_caller]
fn broken(path: &str, name: &str, value: Option<Vec<u8>>, expected: &[&str]) {
    assert_eq!(problems(&with_prop(path, name, value)), expected);
}

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
    // Entry 0 may have been merged with a neighbour; the tree may not lie on what is handed over.
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
    // An escape sequence does not reach a terminal.
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
fn ranges_that_may_not_be() {
    let blob = "/blobs/blob-1";
    let mem = |list: &[(u64, u64)]| Some(pairs(list));
    let size = "`mem` has";
    for (list, expected) in [
        (
            &[(0x4010_0000, 0x2000)][..],
            "/blobs/blob-1: `mem` has 0x2000 bytes, not the 0x2001 of `size` rounded up to pages",
        ),
        (
            &[(0x4010_0800, 0x3000)],
            "/blobs/blob-1: `mem`[0] [0x40100800-0x40103800) is not aligned to pages",
        ),
        (
            &[(0x4010_0000, 0x2000), (0x7000_0000, 0x1000)],
            "/blobs/blob-1: `mem`[1] [0x70000000-0x70001000) is not inside the mem cache",
        ),
        (
            &[(0x4010_2000, 0x3000)],
            "/blobs/blob-1: `mem`[0] [0x40102000-0x40105000) is not inside the mem cache",
        ),
        (
            &[(0x1000_0000, 0x3000)],
            "/blobs/blob-1: `mem`[0] [0x10000000-0x10003000) reaches into scratch [0x10000000-0x30000000)",
        ),
        (
            &[(0x4010_0000, 0x3000), (0x4010_0000, 0)],
            "/blobs/blob-1: `mem`[1] is no range: range at 0x40100000 is empty",
        ),
        (
            &[(0x4010_0000, 0x3000), (u64::MAX - 0xfff, 0x2000)],
            "/blobs/blob-1: `mem`[1] is no range: range at 0xfffffffffffff000 with length 0x2000 wraps past the end of the address space",
        ),
        (
            &[(0x400f_f000, 0x3000)],
            "/blobs/blob-1: `mem` range [0x400ff000-0x40102000) overlaps [0x40000000-0x40100000) of /blobs/blob-0",
        ),
        (
            &[(0x4010_0000, 0x2000), (0x4010_1000, 0x1000)],
            "/blobs/blob-1: `mem` range [0x40101000-0x40102000) overlaps [0x40100000-0x40102000) of /blobs/blob-1",
        ),
    ] {
        let lines = problems(&with_prop(blob, "mem", mem(list)));
        assert_eq!(lines[0], expected);
        assert!(
            lines
                .iter()
                .skip(1)
                .all(|line| line.contains(size) || line.contains("inside the mem cache")),
            "{lines:?}"
        );
    }
    broken(
        blob,
        "mem",
        Some(vec![0; 15]),
        &[
            "/blobs/blob-1: `mem` is not of its type: value has 0xf bytes, not a multiple of 0x10",
            "/blobs/blob-1: `mem` has 0x0 bytes, not the 0x2001 of `size` rounded up to pages",
        ],
    );
    // A node that nobody knows is held to the same rules.
    for (mem, expected) in [
        (
            range(0x7000_0000, 0x1000),
            "/trace/inner: `mem`[0] [0x70000000-0x70001000) is not inside the mem cache",
        ),
        (
            range(0x5000_0000, 0x1000),
            "/trace/inner: `mem` range [0x50000000-0x50001000) overlaps [0x50000000-0x50001000) of /blobs/blob-0",
        ),
    ] {
        let bytes = edited(&example(), &|_, _, _| Edit::Keep, &|w| {
            stranger(w, "trace", &[mem])
        });
        assert_eq!(problems(&bytes), [expected]);
    }
    // One that reaches far beyond its neighbours overlaps those that are not next to it.
    let bytes = edited(
        &with_prop("/", "mem-cache", Some(pairs(&[(0x4000_0000, 0x4000_0000)]))),
        &|_, _, _| Edit::Keep,
        &|w| {
            stranger(w, "far", &[range(0x7000_0000, 0x10_0000)])?;
            stranger(
                w,
                "near",
                &[range(0x7000_1000, 0x1000), range(0x7000_8000, 0x1000)],
            )
        },
    );
    let lines = problems(&bytes);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines
            .iter()
            .all(|line| line.ends_with("overlaps [0x70000000-0x70100000) of /far/inner"))
    );
}

#[test]
fn mem_caches_that_may_not_be() {
    let cache = |list: &[(u64, u64)]| with_prop("/", "mem-cache", Some(pairs(list)));
    let (state, a, b) = (
        (0x6000_0000, 0x1000),
        (0x4000_0000, 0x10_3000),
        (0x5000_0000, 0x2000),
    );
    assert!(problems(&cache(&[state, a, b])).is_empty());
    // Touching is not overlapping, and a range may reach from one entry into the next.
    assert!(
        problems(&cache(&[
            state,
            (0x4000_0000, 0x8_0000),
            (0x4008_0000, 0x8_3000),
            b
        ]))
        .is_empty()
    );
    let first = |list: &[(u64, u64)]| problems(&cache(list)).remove(0);
    assert_eq!(first(&[]), "/: `mem-cache` has 0 pairs, not one or more");
    assert_eq!(
        first(&[state, b, a]),
        "/: `mem-cache`[2] [0x40000000-0x40103000) is below [0x50000000-0x50002000), which comes before it"
    );
    assert_eq!(
        first(&[state, a, a, b]),
        "/: `mem-cache`[2] [0x40000000-0x40103000) overlaps [0x40000000-0x40103000), which comes before it"
    );
    assert_eq!(
        first(&[(0x5000_1000, 0x1000), a, b]),
        "/: `mem-cache`[2] [0x50000000-0x50002000) overlaps [0x50001000-0x50002000), which comes before it"
    );
    assert_eq!(
        first(&[state, a, (0x5000_0000, 0x1800)]),
        "/: `mem-cache`[2] [0x50000000-0x50001800) is not aligned to pages"
    );
    assert_eq!(
        first(&[state, (0x2000_0000, 0x1000), a, b]),
        "/: `mem-cache`[1] [0x20000000-0x20001000) reaches into scratch [0x10000000-0x30000000)"
    );
    assert_eq!(
        first(&[state, a, b, (u64::MAX - 0xfff, 0x1000)]),
        "/: `mem-cache`[3] is no range: range at 0xfffffffffffff000 with length 0x1000 wraps past the end of the address space"
    );
}

#[test]
fn roots_that_may_not_be() {
    for name in [
        "generation",
        "hop",
        "time",
        "previous-release",
        "machine",
        "page-size",
        "checksum",
    ] {
        broken("/", name, None, &[&format!("/: there is no `{name}`")]);
        let lines = problems(&with_prop("/", name, Some(vec![1; 3])));
        assert!(lines[0].starts_with("/: "), "{lines:?}");
    }
    broken("/", "scratch", None, &["/: there is no `scratch`"]);
    assert_eq!(
        problems(&with_prop("/", "mem-cache", None))[0],
        "/: there is no `mem-cache`"
    );
    broken(
        "/",
        "scratch",
        Some(vec![]),
        &["/: `scratch` has 0 pairs, not one"],
    );
    broken(
        "/",
        "scratch",
        Some(pairs(&[(0x1000, 0x1000), (0x3000, 0x1000)])),
        &["/: `scratch` has 2 pairs, not one"],
    );
    broken(
        "/",
        "scratch",
        Some(pairs(&[(0x1800, 0x1000)])),
        &["/: `scratch`[0] [0x1800-0x2800) is not aligned to pages"],
    );
    broken(
        "/",
        "scratch",
        Some(pairs(&[(0x1000, 0)])),
        &["/: `scratch`[0] is no range: range at 0x1000 is empty"],
    );
    broken(
        "/",
        "page-size",
        Some(65536u32.to_ne_bytes().to_vec()),
        &["/: pages are of 0x10000 bytes there, of 0x1000 here"],
    );
    let lines = problems(&with_prop("/", "hop", Some(0u64.to_ne_bytes().to_vec())));
    assert_eq!(lines[0], "/: `hop` is 0; the first handover is 1");
    for bad in ["", "a\nb", &"x".repeat(65)] {
        let line = format!(
            "/: `machine` has {} bytes or control characters; 1 to 64 printable are wanted",
            bad.len()
        );
        broken("/", "machine", Some(text(bad)), &[&line]);
    }
}

#[test]
fn blobs_that_may_not_be() {
    let blob = "/blobs/blob-0";
    for name in [
        "compatible",
        "label",
        "kind",
        "path",
        "size",
        "mem",
        "blake3",
        "taken",
        "arrived-hop",
    ] {
        broken(
            blob,
            name,
            None,
            &[&format!("{blob}: there is no `{name}`")],
        );
    }
    broken(
        blob,
        "label",
        Some(text("..")),
        &["/blobs/blob-0: `label` is no name: a name may not be `..`"],
    );
    broken(
        blob,
        "label",
        Some(text("état")),
        &["/blobs/blob-1: `label` \"état\" is that of blob-0 too"],
    );
    broken(
        blob,
        "kind",
        Some(text("dir")),
        &["/blobs/blob-0: `kind` is \"dir\", neither \"files\" nor \"raw\""],
    );
    broken(
        blob,
        "kind",
        Some(text("raw")),
        &["/blobs/blob-0: a `path` does not belong here"],
    );
    broken(
        blob,
        "path",
        Some(b"/a/../b".to_vec()),
        &[
            "/blobs/blob-0: `path` is no path: a path may not have empty parts, `.` or `..` (at byte 3)",
        ],
    );
    broken(
        blob,
        "blake3",
        Some(vec![0; 31]),
        &["/blobs/blob-0: `blake3` is not of its type: value has 0x1f bytes, not 0x20"],
    );
    for arrived in [0u64, 4] {
        let line = format!("/blobs/blob-0: `arrived-hop` is {arrived}, not within 1 and 3");
        broken(
            blob,
            "arrived-hop",
            Some(arrived.to_ne_bytes().to_vec()),
            &[&line],
        );
    }
    for size in [0u64, MIB, MIB + 0x1001, u64::MAX] {
        let line = format!(
            "/blobs/blob-0: `mem` has 0x101000 bytes, not the {size:#x} of `size` rounded up to pages"
        );
        broken(blob, "size", Some(size.to_ne_bytes().to_vec()), &[&line]);
    }
    broken(
        "/blobs/blob-2",
        "mem",
        Some(pairs(&[(0x5000_1000, 0x1000)])),
        &["/blobs/blob-2: `mem` has 0x1000 bytes, not the 0x0 of `size` rounded up to pages"],
    );
}

#[test]
fn blobs_are_numbered_without_gaps() {
    for (name, good) in [
        ("blob-0", true),
        ("blob-1", false),
        ("blob-00", false),
        ("blob-+0", false),
        ("blob-", false),
        ("x", false),
    ] {
        let mut buf = vec![0; 8192];
        let result = with_example(|description| {
            let description = Description {
                blobs: &[],
                ..*description
            };
            write_handover_with(&description, &mut buf, |_| Ok(()))
        });
        result.unwrap();
        // `/blobs` is written by hand.
        let tree = Reader::new(&buf).unwrap();
        let mut out = vec![0; 8192];
        let mut w = kho::tree::Writer::new(&mut out);
        w.begin_node("").unwrap();
        for prop in tree.root().props() {
            w.prop_bytes(prop.name(), prop.value().bytes()).unwrap();
        }
        w.begin_node("blobs").unwrap();
        w.prop_str("compatible", "kho-blobs-v1").unwrap();
        w.begin_node(name).unwrap();
        w.prop_str("compatible", "kho-blob-v9").unwrap();
        (0..3).for_each(|_| w.end_node().unwrap());
        w.finish().unwrap();
        seal(&mut out).unwrap();
        let expected = if good {
            vec![]
        } else {
            vec![format!(
                "/blobs/{name}: the blob in place 0 has to be called blob-0"
            )]
        };
        assert_eq!(problems(&out), expected);
    }
}

#[test]
fn several_problems_are_all_told() {
    let bytes = edited(
        &example(),
        &|path, name, _| match (path, name) {
            ("/", "hop") => Edit::Set(0u64.to_ne_bytes().to_vec()),
            ("/blobs/blob-0", "label") => Edit::Set(text("a/b")),
            ("/blobs/blob-2", "taken") => Edit::Drop,
            _ => Edit::Keep,
        },
        &|w| w.begin_node("nameless").and_then(|()| w.end_node()),
    );
    let lines = problems(&bytes);
    assert_eq!(lines[0], "/: `hop` is 0; the first handover is 1");
    for expected in [
        "/blobs/blob-0: `label` is no name: a name may not have a `/` (at byte 1)",
        "/blobs/blob-2: there is no `taken`",
        "/nameless: there is no `compatible`",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{lines:?}");
    }
}

#[test]
fn checksums() {
    let mut bytes = example();
    let sum = verify(&Reader::new(&bytes).unwrap()).unwrap();
    assert_eq!(seal(&mut bytes), Ok(sum));
    // As anyone would compute it: the four bytes of the value are zero.
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
                content: blob.path.as_deref().map_or(Content::Raw, |path| Content::Files { path }),
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
            scratch: PhysRange::from_bounds(PhysAddr::new(0x10_0000), PhysAddr::new(0x1000_0000)).unwrap(),
            mem_cache: &cache,
            blobs: &blobs,
        };
        let needed = measure_handover(&description).unwrap();
        let mut buf = vec![0; needed];
        prop_assert_eq!(write_handover(&description, &mut buf), Ok(needed));
        // What follows the tree, up to the end of a page, is not looked at.
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

    /// Whatever a value is, the checks end, and the same problem comes first both ways.
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
