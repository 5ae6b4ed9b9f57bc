//! Tests with invalid streams. Each has its own error with entry and offset, and leaves nothing behind.

mod common;

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use common::made::*;
use kho_archive::{FormatError, Problem, UnpackError, UnpackOptions, list, unpack};
use proptest::prelude::*;
use tar::Header;

#[test]
fn names() {
    for (name, why) in [
        ("../x", "a `..` component"),
        ("a/../../x", "a `..` component"),
        ("..", "a `..` component"),
        ("/etc/passwd", "absolute"),
        ("./x", "a `.` component"),
        ("a//b", "an empty component"),
        ("x/", "an empty component"),
        ("", "it is empty"),
    ] {
        refused_by_parser(&start().file(name, "x").end(), 0, why);
        let pax = start()
            .pax(&[(b"path", name.as_bytes())])
            .file("fine", "x")
            .end();
        refused_by_parser(&pax, 0, why);
    }
    for dir in ["", "/", "..", "a/.."] {
        refused_by_parser(&start().dir(dir).end(), 0, "unusable name");
    }
    let pax = |name: &[u8]| start().pax(&[(b"path", name)]).file("fine", "x").end();
    refused_by_parser(&pax(b"a\0b"), 0, "a NUL byte");
    refused_by_parser(&pax(&[b'x'; 5000]), 0, "longer than 4080");
    // The file system limits the length of a component, not the parser.
    let long = pax(&[b'x'; 256]);
    assert!(list(&long[..]).all(|e| e.is_ok()));
    let cell = Cell::new();
    let e = unpack(
        &long[..],
        &cell.dest(),
        &UnpackOptions::default(),
        &mut |_| {},
    );
    assert!(e.unwrap_err().to_string().contains("name too long"));
    cell.empty();
    // The prefix field is part of the name.
    let mut a = start().file("x", "x").end();
    a[345..347].copy_from_slice(b"..");
    let mut h = Header::new_old();
    h.as_mut_bytes().copy_from_slice(&a[..512]);
    h.set_cksum();
    a[..512].copy_from_slice(h.as_bytes());
    refused_by_parser(&a, 0, "a `..` component");
}

#[test]
fn kinds() {
    for (ty, meaning) in [
        (b'3', "character device"),
        (b'4', "block device"),
        (b'6', "fifo"),
        (b'7', "contiguous"),
        (b'g', "global"),
        (b'L', "long name"),
        (b'K', "long name"),
        (b'S', "old GNU sparse"),
        (b'Z', "unknown"),
    ] {
        let archive = start().dir("d").head(ty, b"d/x", b"", 0).end();
        let e = refused(&archive, 512, meaning);
        assert_eq!(e.entry, Some(PathBuf::from("d/x")));
    }
    let twice = start().pax(&[]).pax(&[]).file("x", "").end();
    refused_by_parser(&twice, 0, "second extended header");
    let lonely = start().pax(&[(b"path", b"x")]).end();
    refused_by_parser(&lonely, 0, "no entry follows");
    refused_by_parser(
        &start().head(b'2', b"l", b"", 0).end(),
        0,
        "link target: it is empty",
    );
    refused_by_parser(
        &start().head(b'5', b"d/", b"", 9).end(),
        0,
        "0x9 bytes of content",
    );
    refused_by_parser(
        &start().head(b'2', b"l", b"t", 1).end(),
        0,
        "0x1 bytes of content",
    );
    refused(&[0; 1024], 0, "empty");
}

#[test]
fn order() {
    let d = || start().dir("d");
    let (outside, order) = ("not below the path", "names in a directory");
    refused(&d().file("e", "").end(), 512, outside);
    refused(&d().file("dd", "").end(), 512, outside);
    refused(&start().file("f", "x").file("g", "").end(), 1024, outside);
    refused(&start().file("f", "x").file("f/g", "").end(), 1024, outside);
    refused(&d().dir("d").end(), 512, outside);
    refused(&d().file("d/x", "").file("d/x", "").end(), 1024, order);
    refused(&d().file("d/x", "").file("d/a", "").end(), 1024, order);
    refused(&d().dir("d/x").dir("d/x").end(), 1024, order);
    refused(
        &d().file("d/x/y", "").end(),
        512,
        "its directory is not in the archive",
    );
    let back = d().dir("d/a").dir("d/b").file("d/a/x", "").end();
    refused(&back, 1536, "its directory is not in the archive");
    // Through a symlink in the same archive.
    let through = d().head(b'2', b"d/l", b"/tmp", 0).file("d/l/x", "").end();
    refused(&through, 1024, "its directory is not in the archive");
    let replaced = d().head(b'2', b"d/l", b"..", 0).dir("d/l").end();
    refused(&replaced, 1024, order);
    let mut lone = d().0;
    lone.resize(1024, 0);
    lone.extend(start().file("d/x", "").end());
    refused_by_parser(&lone, 512, "a lone zero block");
}

#[test]
fn hard_links() {
    let link = |target: &str| start().dir("d").head(b'1', b"d/l", target.as_bytes(), 0);
    let unseen = "no file that came before it";
    for target in ["d/z", "d/l", "d", "outside", "etc/passwd", "d/x/y"] {
        let e = refused(&link(target).file("d/z", "").end(), 512, unseen);
        assert!(matches!(e.problem, Problem::LinkTarget { .. }));
    }
    refused(&link("/etc/passwd").end(), 512, "absolute");
    refused(&link("../outside").end(), 512, "`..`");
    refused(&link("").end(), 512, "link target: it is empty");
    let dir = start()
        .dir("d")
        .dir("d/a")
        .head(b'1', b"d/l", b"d/a", 0)
        .end();
    refused(&dir, 1024, unseen);
    let through = start()
        .dir("d")
        .dir("d/a")
        .file("d/a/f", "")
        .head(b'2', b"d/k", b"a", 0)
        .head(b'1', b"d/l", b"d/k/f", 0)
        .end();
    refused(&through, 2048, unseen);
    refused(&start().head(b'1', b"l", b"x", 0).end(), 0, unseen);
    // To an existing object that is not in the archive.
    let cell = Cell::new();
    fs::create_dir(cell.0.join("in/d")).unwrap();
    fs::write(cell.0.join("in/d/there"), b"private").unwrap();
    let archive = link("d/there").end();
    let r = unpack(
        &archive[..],
        &cell.dest(),
        &UnpackOptions::default(),
        &mut |_| {},
    );
    assert!(r.unwrap_err().to_string().contains(unseen));
    assert!(!cell.0.join("in/d/l").exists());
    cell.untouched();
}

#[test]
fn headers_that_lie() {
    let good = start().file("f", "hello").end();
    let mut bad = good.clone();
    bad[0] = b'g';
    refused_by_parser(&bad, 0, "header checksum");
    bad = good.clone();
    bad[148..156].copy_from_slice(b"zzzzzzzz");
    refused_by_parser(&bad, 0, "`checksum`");
    let patch = |at: usize, with: &[u8]| {
        let mut h = Header::new_old();
        h.as_mut_bytes().copy_from_slice(&good[..512]);
        h.as_mut_bytes()[at..][..with.len()].copy_from_slice(with);
        h.set_cksum();
        [h.as_bytes(), &good[512..]].concat()
    };
    refused_by_parser(&patch(257, b"nostar\0"), 0, "no ustar header");
    refused_by_parser(&patch(100, b"rwxr-xr"), 0, "`mode`");
    refused_by_parser(&patch(100, b"0177777"), 0, "`mode`");
    refused_by_parser(&patch(108, b"\xff\xff\xff\xff\xff\xff\xff\xff"), 0, "`uid`");
    refused_by_parser(&patch(124, b"9999999"), 0, "`size`");
    refused_by_parser(&patch(124, &[0xff; 12]), 0, "`size`");
    refused_by_parser(
        &patch(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        2048,
        "ends here",
    );
    refused_by_parser(&patch(136, b"yesterday"), 0, "`mtime`");
    for (key, value) in [
        ("uid", "4294967295"),
        ("gid", "99999999999"),
        ("uid", "-1"),
        ("size", "18446744073709551616"),
        ("size", "18446744073709551615"),
        ("mtime", "1.2.3"),
        ("mtime", "99999999999999999999"),
        ("mtime", "-"),
    ] {
        let archive = start()
            .pax(&[(key.as_bytes(), value.as_bytes())])
            .file("f", "x")
            .end();
        refused_by_parser(&archive, 0, &format!("`{key}`"));
    }
    let lie = start().pax(&[(b"size", b"100000")]).file("f", "x").end();
    refused_by_parser(&lie, 3072, "the stream ends here");
}

#[test]
fn extended_headers() {
    let raw = |body: &[u8]| {
        start()
            .head(b'x', b"p", b"", body.len() as u64)
            .body(body)
            .file("f", "x")
            .end()
    };
    for body in [b"".as_slice(), b"9 path=x\n"] {
        let cell = Cell::new();
        let archive = raw(body);
        unpack(
            &archive[..],
            &cell.dest(),
            &UnpackOptions::default(),
            &mut |_| {},
        )
        .unwrap();
    }
    for body in [
        b"path=x\n".as_slice(),
        b"8 path=x\n",
        b"99 path=x\n",
        b"11 path=x\n",
        b"9 path=x ",
        b"9 path:x\n",
        b"0 ",
        b"18446744073709551615 a=b\n",
        b"99999999999999999999999999 a=b\n",
        b"-9 path=x\n",
        b"9 path=x\n\0\0\0",
    ] {
        refused_by_parser(&raw(body), 0, "broken extended header");
    }
    let huge = start().head(b'x', b"p", b"", 1 << 40).end();
    refused_by_parser(&huge, 0, "an extended header of 0x10000000000 bytes");
    for name in [
        "system.nfs4_acl",
        "btrfs.x",
        "user.",
        "",
        "posix_acl_access",
    ] {
        let key = format!("SCHILY.xattr.{name}");
        let archive = start().pax(&[(key.as_bytes(), b"v")]).file("f", "x").end();
        refused_by_parser(&archive, 0, "no name space");
    }
    let old = start()
        .pax(&[(b"GNU.sparse.map", b"0,1")])
        .file("f", "x")
        .end();
    refused_by_parser(&old, 0, "another version");
    let on_file = start().pax(&[(b"linkpath", b"x")]).file("f", "x").end();
    refused_by_parser(&on_file, 0, "for no link");
}

#[test]
fn sparse_maps() {
    let cell = Cell::new();
    let good = sparse("9999", "2\n512\n512\n9999\n0\n", 512);
    unpack(
        &good[..],
        &cell.dest(),
        &UnpackOptions::default(),
        &mut |_| {},
    )
    .unwrap();
    let got = fs::read(cell.0.join("in/f")).unwrap();
    assert!(got.len() == 9999 && got[512..1024].iter().all(|b| *b == b'd'));
    assert!(got[..512].iter().chain(&got[1024..]).all(|b| *b == 0));

    let max = u64::MAX;
    for (size, map, data, why) in [
        (
            "9999",
            "2\n512\n512\n512\n512\n".to_string(),
            1024,
            "overlap",
        ),
        (
            "9999",
            "2\n1024\n512\n512\n512\n".to_string(),
            1024,
            "overlap",
        ),
        (
            "9999",
            "2\n0\n1024\n512\n512\n".to_string(),
            1536,
            "overlap",
        ),
        ("512", "1\n0\n1024\n".to_string(), 1024, "exceeds the size"),
        ("512", format!("1\n{max}\n1\n"), 1, "exceeds the size"),
        ("9999", format!("1\n0\n{max}\n"), 1, "exceeds the size"),
        (
            "9999",
            "2\n0\n100\n512\n100\n".to_string(),
            200,
            "ends inside a block",
        ),
        ("9999", "1\n0\n1024\n".to_string(), 512, "do not add up"),
        ("9999", "1\n0\n512\n".to_string(), 1024, "do not add up"),
        (
            "9999",
            "1\n0\n4096\n".to_string(),
            512,
            "hold more than the entry",
        ),
        ("9999", "99999999\n".to_string(), 0, "more extents than"),
        ("9999", format!("{max}0\n"), 0, "does not fit into 64 bits"),
        ("9999", "3\n0\n512\n".to_string(), 512, "no decimal number"),
        ("9999", "-1\n".to_string(), 0, "no decimal number"),
        ("9999", "\n".to_string(), 0, "a number is missing"),
        ("9999", String::new(), 0, "longer than the entry"),
    ] {
        refused_by_parser(&sparse(size, &map, data), 0, why);
    }
    refused_by_parser(
        &sparse("18446744073709551615", "0\n", 0),
        0,
        "GNU.sparse.realsize",
    );
    let half = start()
        .pax(&[(b"GNU.sparse.major", b"1")])
        .file("f", "x")
        .end();
    refused_by_parser(&half, 0, "incomplete");
    let version = start()
        .pax(&[
            (b"GNU.sparse.major", b"2"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", b"f"),
            (b"GNU.sparse.realsize", b"1"),
        ])
        .file("f", "x")
        .end();
    refused_by_parser(&version, 0, "another version than 1.0");
}

#[test]
fn nesting() {
    // The deepest path that the limit allows works, and needs little memory and few descriptors. One level more is
    // refused.
    let mut a = start();
    let mut path = String::from("d");
    while path.len() <= 4080 {
        a = a.pax(&[(b"path", format!("{path}/").as_bytes())]).dir("x");
        path.push_str("/d");
    }
    let depth_ok = a.clone().end();
    let cell = Cell::new();
    let stats = unpack(
        &depth_ok[..],
        &cell.dest(),
        &UnpackOptions::default(),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(stats.directories, 2040);
    let offset = a.0.len() as u64;
    let too_deep = a
        .pax(&[(b"path", format!("{path}/").as_bytes())])
        .dir("x")
        .end();
    let e = refused(&too_deep, offset, "longer than 4080");
    assert!(matches!(e.problem, Problem::Name { .. }));

    // The attributes that wait for the end of their directory have a limit too.
    let value = vec![b'v'; 60_000];
    let mut a = start();
    let mut path = String::from("d");
    for _ in 0..400 {
        let dir = format!("{path}/");
        a = a
            .pax(&[
                (b"path", dir.as_bytes()),
                (b"user.x", b""),
                (b"SCHILY.xattr.user.x", &value),
            ])
            .dir("x");
        path.push_str("/d");
    }
    let cell = Cell::new();
    let archive = a.end();
    let r = unpack(
        &archive[..],
        &cell.dest(),
        &UnpackOptions::default(),
        &mut |_| {},
    );
    assert!(
        r.unwrap_err()
            .to_string()
            .contains("attributes of open directories")
    );
    cell.empty();
}

#[test]
fn truncated_anywhere() {
    let whole = start()
        .dir("d")
        .file("d/a", "some text")
        .pax(&[(b"mtime", b"1.5")])
        .file("d/b", &"x".repeat(3000))
        .head(b'2', b"d/l", b"a", 0)
        .end();
    let cell = Cell::new();
    for cut in (0..whole.len())
        .step_by(37)
        .chain([whole.len() - 1, whole.len() - 512])
    {
        let r = unpack(
            &whole[..cut],
            &cell.dest(),
            &UnpackOptions::default(),
            &mut |_| {},
        );
        match r {
            Err(UnpackError::Format(FormatError {
                problem: Problem::Truncated { missing },
                offset,
                ..
            })) => assert!(offset == cut as u64 && missing > 0, "{offset} of {cut}"),
            other => panic!("cut at {cut}: {other:?}"),
        }
        cell.empty();
    }
    unpack(
        &whole[..],
        &cell.dest(),
        &UnpackOptions::default(),
        &mut |_| {},
    )
    .unwrap();
    // Bytes after the end of the archive are not read.
    let mut more = &[whole.as_slice(), b"more"].concat()[..];
    let cell = Cell::new();
    unpack(
        &mut more,
        &cell.dest(),
        &UnpackOptions::default(),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(more, b"more");
}

#[test]
fn a_reader_that_fails() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("memory is gone"));
            }
            self.0 -= 1;
            let head = start().head(b'0', b"f", b"", 1 << 20).0;
            let n = buf.len().min(512);
            buf[..n].copy_from_slice(&head[..n]);
            Ok(n)
        }
    }
    let cell = Cell::new();
    let e = unpack(
        Broken(9),
        &cell.dest(),
        &UnpackOptions::default(),
        &mut |_| {},
    )
    .unwrap_err();
    assert!(
        e.to_string().contains("memory is gone") && e.to_string().contains("0x1200"),
        "{e}"
    );
    cell.empty();
}

#[test]
fn limits() {
    let archive = start()
        .dir("d")
        .file("d/a", "x")
        .file("d/b", &"x".repeat(5000))
        .end();
    for options in [
        UnpackOptions {
            max_entries: 2,
            ..UnpackOptions::default()
        },
        UnpackOptions {
            max_bytes: 4000,
            ..UnpackOptions::default()
        },
    ] {
        let cell = Cell::new();
        let e = unpack(&archive[..], &cell.dest(), &options, &mut |_| {}).unwrap_err();
        assert!(e.to_string().contains("more than"), "{e}");
        cell.empty();
    }
    let exact = UnpackOptions {
        max_entries: 3,
        max_bytes: archive.len() as u64,
        ..UnpackOptions::default()
    };
    unpack(&archive[..], &Cell::new().dest(), &exact, &mut |_| {}).unwrap();
}

#[test]
fn messages_escape_hostile_names() {
    let archive = start().dir("d").head(b'6', b"d/\x1b[2J\n", b"", 0).end();
    let e = refused(&archive, 512, "fifo");
    assert!(!e.to_string().contains(['\x1b', '\n']), "{e:?}");
}

fn mutated() -> impl Strategy<Value = Vec<(usize, u8)>> {
    proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// For any bytes at any place: no panic, no change outside, and no change inside if unpacking fails.
    #[test]
    fn damaged_archives(changes in mutated(), fix in any::<bool>(), cut in any::<usize>()) {
        let mut bytes = start()
            .dir("d")
            .file("d/a", "text")
            .pax(&[(b"mtime", b"5.5"), (b"path", b"d/b"), (b"SCHILY.xattr.user.x", b"y")])
            .file("x", "more")
            .dir("d/c")
            .head(b'1', b"d/c/h", b"d/a", 0)
            .head(b'2', b"d/l", b"../../outside", 0)
            .0;
        bytes.extend(sparse("9999", "2\n512\n512\n9999\n0\n", 512));
        let len = bytes.len();
        for (at, with) in changes {
            bytes[at % len] = with;
        }
        if fix {
            // Corrected checksums let the damage get further.
            for block in bytes.chunks_exact_mut(512).filter(|b| &b[257..262] == b"ustar") {
                let mut h = Header::new_old();
                h.as_mut_bytes().copy_from_slice(block);
                h.set_cksum();
                block.copy_from_slice(h.as_bytes());
            }
        }
        if cut % 4 == 0 {
            bytes.truncate(cut / 4 % len);
        }
        let _ = list(&bytes[..]).count();
        let cell = Cell::new();
        let r = unpack(&bytes[..], &cell.dest(), &UnpackOptions::default(), &mut |_| {});
        match r {
            Ok(_) => cell.untouched(),
            Err(_) => cell.empty(),
        }
    }
}
