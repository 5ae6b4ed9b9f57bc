//! Tests that pack and unpack, and compare entry by entry, and tests that read the archives with GNU tar.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use kho_archive::{Dest, Kind, PackOptions, UnpackOptions, list, measure, unpack};
use proptest::prelude::*;

fn privileged() -> UnpackOptions {
    UnpackOptions {
        privileged: true,
        ..UnpackOptions::default()
    }
}

fn below(dir: &Path, path: &Path) -> PathBuf {
    dir.join(path.strip_prefix("/").unwrap())
}

/// Unpacks into `dir`, and describes the result for `path`.
fn into(archive: &[u8], dir: &Path, path: &Path) -> std::collections::BTreeMap<PathBuf, Object> {
    fs::create_dir(dir).unwrap();
    let mut last = 0;
    let dest = Dest::Into(dir.to_path_buf());
    let stats = unpack(archive, &dest, &privileged(), &mut |n| last = n).unwrap();
    assert_eq!(stats.archive_bytes, archive.len() as u64);
    assert_eq!(last, archive.len() as u64);
    assert!(stats.leftover.is_empty());
    describe(&below(dir, path))
}

#[test]
fn everything_comes_back() {
    if !is_root("everything_comes_back") {
        return;
    }
    let s = Scratch::new();
    let src = s.join("src");
    everything(&src);
    let before = describe(&src);
    let archive = packed(&src);
    assert_eq!(archive, packed(&src), "packing twice gives the same bytes");
    assert!(archive.len() < 4 << 20, "holes are not stored");
    assert_same(&before, &into(&archive, &s.join("out"), &src));

    // Restores to the original path, whose parent is missing too.
    let gone = s.join("p/q/src");
    fs::create_dir_all(s.join("p/q")).unwrap();
    fs::rename(&src, &gone).unwrap();
    let archive = packed(&gone);
    fs::rename(&gone, s.join("kept")).unwrap();
    fs::remove_dir_all(s.join("p")).unwrap();
    let stats = unpack(&archive[..], &Dest::Original, &privileged(), &mut |_| {}).unwrap();
    assert_same(&before, &describe(&gone));
    assert_eq!(fs::metadata(s.join("p")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(stats.merged, 0);
    let names: Vec<_> = fs::read_dir(&s.0)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "no stage is left in {names:?}");
}

#[test]
fn listing_agrees_with_the_tree() {
    if !is_root("listing_agrees_with_the_tree") {
        return;
    }
    let s = Scratch::new();
    let src = s.join("src");
    everything(&src);
    let m = measure(&src, &PackOptions::default()).unwrap();
    let entries: Vec<_> = list(&packed(&src)[..]).map(Result::unwrap).collect();
    let tree = describe(&src);
    assert_eq!(entries.len() as u64, m.stats.entries);
    assert_eq!(entries.len(), tree.len());
    assert_eq!(
        entries.iter().map(|e| e.data).sum::<u64>(),
        m.stats.content_bytes
    );
    for e in entries {
        let o = &tree[e.path.strip_prefix(&src).unwrap()];
        assert_eq!(
            (e.mode, e.uid, e.gid),
            (o.mode & 0o7777, o.uid, o.gid),
            "{:?}",
            e.path
        );
        if e.kind == Kind::File {
            assert_eq!(e.size, o.size, "{:?}", e.path);
        }
        if e.kind == Kind::Symlink {
            assert_eq!(e.link, o.link);
        }
    }
}

#[test]
fn single_objects() {
    let s = Scratch::new();
    fs::write(s.join("file"), vec![7; 1000]).unwrap();
    symlink("anywhere", s.join("link")).unwrap();
    fs::create_dir(s.join("dir")).unwrap();
    for name in ["file", "link", "dir"] {
        let path = s.join(name);
        let before = describe(&path);
        let after = into(&packed(&path), &s.join(format!("out {name}")), &path);
        assert_same(&before, &after);
    }
}

#[test]
fn set_id_and_security_only_when_privileged() {
    if !is_root("set_id_and_security_only_when_privileged") {
        return;
    }
    let s = Scratch::new();
    let src = s.join("src");
    everything(&src);
    let archive = packed(&src);
    fs::create_dir(s.join("out")).unwrap();
    let options = UnpackOptions::default();
    let stats = unpack(
        &archive[..],
        &Dest::Into(s.join("out")),
        &options,
        &mut |_| {},
    )
    .unwrap();
    assert_eq!((stats.setid_dropped, stats.security_dropped), (1, 1));
    let out = below(&s.join("out"), &src);
    assert_eq!(
        fs::metadata(out.join("set-id")).unwrap().mode() & 0o7777,
        0o755
    );
    assert_eq!(
        fs::metadata(out.join("sub")).unwrap().mode() & 0o7777,
        0o2710
    );
    let names = xattrs(&out.join("attributes"));
    assert!(!names.contains_key(b"security.kept".as_slice()));
    assert!(names.contains_key(b"trusted.kept".as_slice()));
}

#[test]
fn labels_come_back_where_there_is_a_policy() {
    if !is_root("labels_come_back_where_there_is_a_policy") {
        return;
    }
    let s = Scratch::new();
    let src = s.join("src");
    fs::write(&src, b"x").unwrap();
    set_xattr(&src, "security.selinux", b"system_u:object_r:etc_t:s0\0");
    set_xattr(&src, "security.other", b"x");
    let archive = packed(&src);
    for (labels, dropped) in [(false, 2), (true, 1)] {
        fs::remove_file(&src).unwrap();
        let options = UnpackOptions {
            labels,
            ..UnpackOptions::default()
        };
        let stats = unpack(&archive[..], &Dest::Original, &options, &mut |_| {}).unwrap();
        assert_eq!((stats.security_dropped, stats.labels_dropped), (dropped, 0));
        assert_eq!(xattrs(&src).len(), usize::from(labels));
    }
}

#[test]
fn what_is_locked_is_counted() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let test = "what_is_locked_is_counted";
    if !is_root(test) {
        return;
    }
    let s = Scratch::new();
    let src = s.join("src");
    fs::create_dir_all(src.join("d")).unwrap();
    fs::write(src.join("a"), b"a").unwrap();
    fs::write(src.join("b"), b"b").unwrap();
    symlink("a", src.join("c")).unwrap();
    let free = measure(&src, &PackOptions::default()).unwrap();
    assert_eq!((free.stats.locked, free.first_locked()), (0, None));
    let set = |name: &str, flag: IFlags, on: bool| {
        let file = fs::File::open(src.join(name)).unwrap();
        let mut flags = ioctl_getflags(&file)?;
        flags.set(flag, on);
        ioctl_setflags(&file, flags)
    };
    if let Err(e) = set("b", IFlags::IMMUTABLE, true) {
        return skip(test, &format!("no flags on this file system: {e}"));
    }
    set("d", IFlags::APPEND, true).unwrap();
    let locked = measure(&src, &PackOptions::default());
    let packed = locked
        .as_ref()
        .ok()
        .map(|m| m.pack(&mut Vec::new(), &mut |_| {}));
    set("b", IFlags::IMMUTABLE, false).unwrap();
    set("d", IFlags::APPEND, false).unwrap();
    assert_eq!(packed.unwrap().unwrap(), locked.as_ref().unwrap().stats);
    let locked = locked.unwrap();
    assert_eq!(locked.stats.locked, 2);
    assert_eq!(locked.first_locked(), Some(src.join("b").as_path()));
}

#[test]
fn gnu_tar_reads_it() {
    if !is_root("gnu_tar_reads_it") || !has("gnu_tar_reads_it", "tar") {
        return;
    }
    let s = Scratch::new();
    let src = s.join("src");
    everything(&src);
    fs::write(s.join("a.tar"), packed(&src)).unwrap();
    fs::create_dir(s.join("out")).unwrap();
    let out = Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "--same-owner",
            "-xpf",
        ])
        .arg(s.join("a.tar"))
        .arg("-C")
        .arg(s.join("out"))
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "tar: {said}");
    // tar warns of times before 1970 as implausible. It must not warn of anything else.
    let remarks: Vec<_> = said
        .lines()
        .filter(|l| !l.contains("implausibly old time stamp"))
        .collect();
    assert!(remarks.is_empty(), "tar: {remarks:?}");
    let mut want = describe(&src);
    let mut got = describe(&below(&s.join("out"), &src));
    // GNU tar restores no attributes of symlinks.
    for object in want.values_mut().chain(got.values_mut()) {
        if object.link.is_some() {
            object.xattrs.clear();
        }
    }
    assert_same(&want, &got);

    // `tar --compare` finds no difference between the archive and the tree.
    let compared = Command::new("tar")
        .args(["--compare", "--numeric-owner", "-f"])
        .arg(s.join("a.tar"))
        .args(["-C", "/"])
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    assert!(
        compared.status.success(),
        "{}",
        String::from_utf8_lossy(&compared.stdout)
    );
}

#[test]
fn deeper_than_descriptors_reach() {
    let s = Scratch::new();
    let src = s.join("s");
    let mut dir = src.clone();
    // One letter per level gives the largest depth for the longest path, far beyond the usual limit of 1024
    // descriptors.
    while dir.as_os_str().len() < 3900 {
        dir.push("d");
    }
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("bottom"), b"here").unwrap();
    let archive = packed(&src);
    fs::rename(&src, s.join("moved")).unwrap();
    unpack(&archive[..], &Dest::Original, &privileged(), &mut |_| {}).unwrap();
    assert_eq!(fs::read(dir.join("bottom")).unwrap(), b"here");
    // An unpack that fails at the very end removes all that it created.
    fs::remove_dir_all(&src).unwrap();
    let cut = archive.len() - 1;
    unpack(&archive[..cut], &Dest::Original, &privileged(), &mut |_| {}).unwrap_err();
    assert_eq!(fs::read_dir(&s.0).unwrap().count(), 1);
}

#[test]
fn mapped_sizes_beyond_octal() {
    let s = Scratch::new();
    let f = fs::File::create(s.join("huge")).unwrap();
    f.set_len(9 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&f, b"far out", 8 << 40).unwrap();
    let archive = packed(&s.join("huge"));
    assert!(archive.len() < 65536);
    let path = s.join("huge");
    let before = fs::metadata(&path).unwrap();
    fs::rename(&path, s.join("old")).unwrap();
    unpack(&archive[..], &Dest::Original, &privileged(), &mut |_| {}).unwrap();
    let after = fs::File::open(&path).unwrap();
    let mut buf = [0; 7];
    std::os::unix::fs::FileExt::read_exact_at(&after, &mut buf, 8 << 40).unwrap();
    assert_eq!(&buf, b"far out");
    assert_eq!(after.metadata().unwrap().len(), before.len());
}

#[test]
fn times_of_any_size_come_back() {
    let Some(s) = Scratch::on_tmpfs("times_of_any_size_come_back") else {
        return;
    };
    let src = s.join("src");
    fs::create_dir(&src).unwrap();
    for (i, seconds) in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX]
        .into_iter()
        .enumerate()
    {
        for nanoseconds in [0, 1, 999_999_999] {
            let path = src.join(format!("{i} {nanoseconds}"));
            fs::write(&path, b"x").unwrap();
            set_mtime(&path, seconds, nanoseconds);
        }
    }
    set_mtime(&src, i64::MIN, 0);
    let before = describe(&src);
    assert_eq!(before[Path::new("")].mtime, (i64::MIN, 0));
    assert_same(&before, &into(&packed(&src), &s.join("out"), &src));
}

/// An object of a random tree. Its `Item` has an index into the directories made so far.
#[derive(Debug, Clone)]
enum Make {
    Dir,
    File { size: usize, seed: u8 },
    Holes(Vec<(u32, u16)>),
    Symlink(Vec<u8>),
    Hard(usize),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..20),
        proptest::collection::vec(any::<u8>(), 90..255),
    ]
    .prop_map(|mut n| {
        for b in &mut n {
            if *b == 0 || *b == b'/' {
                *b = b'_';
            }
        }
        if n == b"." || n == b".." {
            n = b"dots".to_vec();
        }
        n
    })
}

fn make() -> impl Strategy<Value = Make> {
    prop_oneof![
        Just(Make::Dir),
        (0_usize..3000, any::<u8>()).prop_map(|(size, seed)| Make::File { size, seed }),
        proptest::collection::vec((0_u32..4_000_000, any::<u16>()), 0..6).prop_map(Make::Holes),
        proptest::collection::vec(1_u8..=255, 1..300).prop_map(Make::Symlink),
        any::<usize>().prop_map(Make::Hard),
    ]
}

type Item = (usize, Vec<u8>, Make, u32, (i64, u32));

fn items() -> impl Strategy<Value = Vec<Item>> {
    let time = (-5_000_000_000_i64..9_000_000_000, 0_u32..1_000_000_000);
    let item = (any::<usize>(), name(), make(), 0_u32..0o1000, time);
    proptest::collection::vec(item, 0..25)
}

fn build(root: &Path, items: &[Item]) {
    fs::create_dir(root).unwrap();
    let mut dirs = vec![root.to_path_buf()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made = Vec::new();
    for (dir, name, make, bits, time) in items {
        let path = dirs[dir % dirs.len()].join(raw(name));
        if path.as_os_str().len() > 3000 || fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match make {
            Make::Dir => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            Make::File { size, seed } => fs::write(&path, vec![*seed; *size]).unwrap(),
            Make::Holes(parts) => {
                let f = fs::File::create(&path).unwrap();
                f.set_len(2_000_000).unwrap();
                for (at, len) in parts {
                    let bytes = vec![9; usize::from(*len)];
                    std::os::unix::fs::FileExt::write_all_at(&f, &bytes, u64::from(*at)).unwrap();
                }
            }
            Make::Symlink(text) => symlink(raw(text), &path).unwrap(),
            Make::Hard(n) => match files.get(n % files.len().max(1)) {
                Some(to) => fs::hard_link(to, &path).unwrap(),
                None => continue,
            },
        }
        if !path.is_dir() || matches!(make, Make::Symlink(_)) {
            files.push(path.clone());
        }
        made.push((path, *bits, *time));
    }
    for (path, bits, (s, ns)) in made.iter().rev() {
        if !fs::symlink_metadata(path).unwrap().file_type().is_symlink() {
            // The owner can read it, so that the test also runs without root.
            mode(path, bits | 0o700);
        }
        set_mtime(path, *s, i64::from(*ns));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_come_back(items in items()) {
        let s = Scratch::new();
        let src = s.join("src");
        build(&src, &items);
        let before = describe(&src);
        let archive = packed(&src);
        assert_same(&before, &into(&archive, &s.join("out"), &src));
    }
}
