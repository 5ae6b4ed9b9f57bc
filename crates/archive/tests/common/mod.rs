//! Helpers for all tests: scratch directories, trees with objects of every kind, and the comparison of trees entry by
//! entry.
#![allow(dead_code)]

pub mod made;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kho_archive::{PackOptions, measure};
use rustix::fs::{AtFlags, Timespec, Timestamps, XattrFlags};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory whose drop removes it.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = fs::canonicalize(std::env::temp_dir())
            .unwrap()
            .join(format!("kho-archive-test-{}-{n}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    /// Makes the directory on the tmpfs that most systems have, for objects that other file systems do not support.
    /// Needs root.
    pub fn on_tmpfs(test: &str) -> Option<Self> {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir =
            Path::new("/dev/shm").join(format!("kho-archive-test-{}-{n}", std::process::id()));
        if !is_root(test) {
            return None;
        }
        if rustix::fs::statfs("/dev/shm").is_ok_and(|fs| fs.f_type == 0x0102_1994)
            && fs::create_dir(&dir).is_ok()
        {
            return Some(Self(dir));
        }
        skip(test, "needs a tmpfs at /dev/shm");
        None
    }

    pub fn join(&self, p: impl AsRef<Path>) -> PathBuf {
        self.0.join(p)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reports that a test did not run. Bypasses the harness, which captures the output of tests.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {why}");
}

pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "needs root");
    }
    root
}

/// Returns whether a program is installed.
pub fn has(test: &str, program: &str) -> bool {
    let ok = std::process::Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success());
    if !ok {
        skip(test, &format!("needs {program}"));
    }
    ok
}

/// Packs into memory. Checks that the length is the measured one.
pub fn packed(path: &Path) -> Vec<u8> {
    packed_with(path, &PackOptions::default())
}

pub fn packed_with(path: &Path, options: &PackOptions) -> Vec<u8> {
    let m = measure(path, options).unwrap();
    let mut out = Vec::new();
    let mut last = 0;
    let stats = m.pack(&mut out, &mut |n| last = n).unwrap();
    assert_eq!(
        out.len() as u64,
        m.bytes,
        "measured and packed length differ"
    );
    assert_eq!(last, m.bytes, "progress ends at the length");
    assert_eq!(stats, m.stats);
    assert_eq!(measure(path, options).unwrap().fingerprint, m.fingerprint);
    out
}

/// All properties of an object that are compared.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Object {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, i64),
    pub size: u64,
    pub content: Option<[u8; 32]>,
    pub link: Option<PathBuf>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// For objects with several names: the first name, and the link count.
    pub first_name: PathBuf,
    pub nlink: u64,
    pub sparse: bool,
}

pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 65536];
    let Ok(n) = rustix::fs::llistxattr(path, &mut names[..]) else {
        return BTreeMap::new();
    };
    names.truncate(n);
    let mut out = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut v = vec![0_u8; 65536];
        let n = rustix::fs::lgetxattr(path, name, &mut v[..]).unwrap();
        v.truncate(n);
        out.insert(name.to_vec(), v);
    }
    out
}

/// Describes all objects of a tree, by relative path.
pub fn describe(root: &Path) -> BTreeMap<PathBuf, Object> {
    let mut out = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    let mut all = Vec::new();
    while let Some(p) = todo.pop() {
        let m = fs::symlink_metadata(&p).unwrap();
        if m.is_dir() {
            todo.extend(fs::read_dir(&p).unwrap().map(|e| e.unwrap().path()));
        }
        all.push(p);
    }
    all.sort();
    for p in all {
        let m = fs::symlink_metadata(&p).unwrap();
        let rel = p.strip_prefix(root).unwrap().to_path_buf();
        let first = inodes
            .entry((m.dev(), m.ino()))
            .or_insert_with(|| rel.clone());
        let first_name = first.clone();
        out.insert(
            rel,
            Object {
                mode: m.mode(),
                uid: m.uid(),
                gid: m.gid(),
                mtime: (m.mtime(), m.mtime_nsec()),
                size: if m.is_dir() { 0 } else { m.size() },
                content: m.is_file().then(|| hash(&p)),
                link: m
                    .file_type()
                    .is_symlink()
                    .then(|| fs::read_link(&p).unwrap()),
                xattrs: xattrs(&p),
                first_name,
                nlink: if m.is_dir() { 0 } else { m.nlink() },
                sparse: m.is_file() && m.size() > 65536 && m.blocks() * 512 + 65536 < m.size(),
            },
        );
    }
    out
}

fn hash(path: &Path) -> [u8; 32] {
    let mut h = blake3::Hasher::new();
    let mut f = fs::File::open(path).unwrap();
    let mut buf = vec![0; 1 << 20];
    loop {
        match f.read(&mut buf).unwrap() {
            0 => break,
            n => h.update(&buf[..n]),
        };
    }
    *h.finalize().as_bytes()
}

/// Compares entry by entry, so that a difference names its entry.
pub fn assert_same(a: &BTreeMap<PathBuf, Object>, b: &BTreeMap<PathBuf, Object>) {
    for (path, x) in a {
        match b.get(path) {
            Some(y) => assert_eq!(x, y, "{path:?} differs"),
            None => panic!("{path:?} is missing"),
        }
    }
    for path in b.keys() {
        assert!(a.contains_key(path), "{path:?} is too much");
    }
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|e| panic!("{name} on {path:?}: {e}"));
}

pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let t = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as _,
    };
    let times = Timestamps {
        last_access: t,
        last_modification: t,
    };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Returns a POSIX ACL in the form of its attribute: `u32` version 2, then tag, permissions and ID of each entry.
pub fn acl(user: u32) -> Vec<u8> {
    let mut out = 2_u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (1, 7, none),
        (2, 5, user),
        (4, 5, none),
        (0x10, 5, none),
        (0x20, 0, none),
    ];
    for (tag, perm, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(perm.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

pub fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn raw(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Creates one object of every kind below `root`. Needs root.
pub fn everything(root: &Path) {
    fs::create_dir(root).unwrap();
    fs::write(root.join("file"), b"hello").unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::create_dir(root.join("empty directory")).unwrap();
    for n in [511_usize, 512, 513, 262_144, 700_001] {
        let body: Vec<u8> = (0..n).map(|i| (i * 7 + i / 255).to_le_bytes()[0]).collect();
        fs::write(root.join(format!("size-{n}")), body).unwrap();
    }
    fs::write(root.join("set-id"), b"#!/bin/true").unwrap();
    std::os::unix::fs::chown(root.join("set-id"), Some(3), Some(4)).unwrap();
    mode(&root.join("set-id"), 0o6755);
    for id in [1000, 2_097_151, 2_097_152, 4_294_967_294] {
        let p = root.join(format!("owner-{id}"));
        fs::write(&p, b"x").unwrap();
        std::os::unix::fs::chown(&p, Some(id), Some(id)).unwrap();
    }
    for (i, (s, ns)) in [
        (0, 0),
        (1, 1),
        (1_700_000_000, 999_999_999),
        (-1, 0),
        (-2, 500_000_000),
    ]
    .into_iter()
    .enumerate()
    {
        let p = root.join(format!("time-{i}"));
        fs::write(&p, b"x").unwrap();
        set_mtime(&p, s, ns);
    }
    symlink("file", root.join("link")).unwrap();
    symlink("/nowhere/at all", root.join("dangling")).unwrap();
    symlink("t".repeat(900), root.join("long link")).unwrap();
    symlink(raw(b"non\xff-utf8\nline"), root.join("odd link")).unwrap();
    std::os::unix::fs::lchown(root.join("link"), Some(5), Some(6)).unwrap();
    set_mtime(&root.join("link"), 1_234_567, 890);
    fs::hard_link(root.join("file"), root.join("hard 1")).unwrap();
    fs::create_dir(root.join("sub")).unwrap();
    fs::hard_link(root.join("file"), root.join("sub/hard 2")).unwrap();
    fs::hard_link(root.join("link"), root.join("sub/hard link to symlink")).unwrap();
    for name in [
        b"new\nline".as_slice(),
        b"\xff\xfe",
        b"a=b",
        b" ",
        b"-rf",
        b"\\",
        b"\x01\x1b[31m",
    ] {
        fs::write(root.join(raw(name)), name).unwrap();
    }
    for n in [98, 99, 100, 101, 154, 155, 156, 255] {
        fs::write(root.join("n".repeat(n)), b"long").unwrap();
        fs::create_dir(root.join("d".repeat(n))).unwrap();
    }
    fs::write(root.join(raw(&b"\xc3\x28".repeat(120))), b"long and bad").unwrap();
    let mut deep = root.join("deep");
    for i in 0..100 {
        deep.push(format!("level {i}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), b"!").unwrap();
    attributes(root);
    sparse(root);
    mode(&root.join("sub"), 0o2710);
    mode(&root.join("empty"), 0);
    mode(&root.join("empty directory"), 0o1777);
    set_mtime(&root.join("sub"), 12_345, 67_890);
    std::os::unix::fs::chown(root, Some(7), Some(8)).unwrap();
    mode(root, 0o750);
    set_mtime(root, 99, 1);
}

fn attributes(root: &Path) {
    let p = root.join("attributes");
    fs::write(&p, b"x").unwrap();
    set_xattr(&p, "user.plain", b"value");
    set_xattr(&p, "user.empty", b"");
    set_xattr(&p, "user.binary", b"\0\n=\xff\n12 a=b\n");
    set_xattr(&p, "user.na=me%3D", b"escaped");
    set_xattr(&p, "user.large", &[b'v'; 2000]);
    set_xattr(&p, "trusted.kept", b"t");
    set_xattr(&p, "security.kept", b"s");
    set_xattr(&p, "system.posix_acl_access", &acl(1234));
    let d = root.join("with default acl");
    fs::create_dir(&d).unwrap();
    fs::write(d.join("before the acl"), b"x").unwrap();
    fs::create_dir(d.join("dir before the acl")).unwrap();
    set_xattr(&d, "system.posix_acl_default", &acl(4321));
    set_xattr(&d, "user.on directory", b"d");
    set_xattr(&root.join("link"), "trusted.on symlink", b"l");
}

fn sparse(root: &Path) {
    let make = |name: &str, size: u64, parts: &[(u64, &[u8])]| {
        let f = fs::File::create(root.join(name)).unwrap();
        f.set_len(size).unwrap();
        for (at, bytes) in parts {
            f.write_all_at(bytes, *at).unwrap();
        }
    };
    make("sparse all hole", 64 << 20, &[]);
    make("sparse start", 5_000_001, &[(0, b"start")]);
    make("sparse end", 5_000_001, &[(4_999_998, b"end")]);
    make(
        "sparse middle",
        50 << 20,
        &[(1 << 20, &[1; 70_000]), (40 << 20, b"x")],
    );
    let many: Vec<(u64, &[u8])> = (0..300).map(|i| (i * 65536, b"block".as_slice())).collect();
    make("sparse many", 300 * 65536, &many);
    make("sparse not worth it", 4097, &[(0, b"x")]);
}
