//! Every rule of the contract, broken: the reader finds the problem, places it and describes it in one line.

mod tree_common;

use kho::abi::{Description, write_handover};
use kho::tree::{Reader, Writer, seal};
use tree_common::{
    Edit, MIB, broken, edited, example, pairs, problems, range, stranger, text, with_example,
    with_prop,
};

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
    // The same rules hold for a node of an unknown version.
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
    // A range that reaches far beyond its neighbours overlaps ranges that are not next to it.
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
    // Ranges that touch do not overlap, and a range may reach from one entry into the next.
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
            write_handover(&description, &mut buf)
        });
        result.unwrap();
        // The test writes `/blobs` itself, because the crate's writer refuses names that are wrong.
        let tree = Reader::new(&buf).unwrap();
        let mut out = vec![0; 8192];
        let mut w = Writer::new(&mut out);
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
