//! Trees that change while they are packed, and objects that cannot be packed.

mod common;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use kho_archive::{Change, PackError, PackOptions, PackStats, measure};

const MIB: usize = 1 << 20;

/// Makes `a/` with a file, `big` of 4 MiB, and `z/` with a file.
fn tree(s: &Scratch) -> PathBuf {
    let src = s.join("src");
    fs::create_dir_all(src.join("a")).unwrap();
    fs::create_dir_all(src.join("z")).unwrap();
    fs::write(src.join("a/first"), b"first").unwrap();
    fs::write(src.join("big"), vec![5; 4 * MIB]).unwrap();
    fs::write(src.join("z/last"), b"last").unwrap();
    src
}

/// Packs, and calls `change` once, after `at` bytes were written.
fn pack_while(src: &Path, at: u64, change: impl FnOnce()) -> Result<PackStats, PackError> {
    let m = measure(src, &PackOptions::default()).unwrap();
    let mut change = Some(change);
    m.pack(&mut io::sink(), &mut |n| {
        if n >= at
            && let Some(change) = change.take()
        {
            change();
        }
    })
}

#[track_caller]
fn changed(r: Result<PackStats, PackError>, want: &Path) -> Change {
    match r {
        Err(PackError::Changed { path, change }) => {
            assert_eq!(path, want, "{change}");
            change
        }
        other => panic!("{want:?}: {other:?}"),
    }
}

#[test]
fn a_file_that_changes_while_it_is_read() {
    let s = Scratch::new();
    let src = tree(&s);
    let big = src.join("big");
    let open = || fs::File::options().write(true).open(&big).unwrap();
    let size = 4 * MIB as u64;

    let r = pack_while(&src, MIB as u64, || open().set_len(2 * size).unwrap());
    assert_eq!(
        changed(r, &big),
        Change::Grew {
            was: size,
            now: 2 * size
        }
    );
    open().set_len(size).unwrap();

    let r = pack_while(&src, MIB as u64, || open().set_len(size / 2).unwrap());
    assert_eq!(
        changed(r, &big),
        Change::Shrank {
            was: size,
            now: size / 2
        }
    );
    fs::write(&big, vec![5; 4 * MIB]).unwrap();

    // File times advance in ticks: a write right after the one above could have the same time.
    std::thread::sleep(std::time::Duration::from_millis(30));
    let r = pack_while(&src, MIB as u64, || {
        open().write_all_at(b"other", 100).unwrap()
    });
    assert_eq!(changed(r, &big), Change::Written);

    let r = pack_while(&src, MIB as u64, || {
        fs::write(src.join("new"), vec![5; 4 * MIB]).unwrap();
        fs::rename(src.join("new"), &big).unwrap();
    });
    assert!(matches!(
        changed(r, &big),
        Change::Removed | Change::Replaced
    ));

    let r = pack_while(&src, MIB as u64, || fs::remove_file(&big).unwrap());
    assert_eq!(changed(r, &big), Change::Removed);
}

#[test]
fn changes_between_measuring_and_packing() {
    let s = Scratch::new();
    let src = tree(&s);
    let last = src.join("z/last");
    let all = |change: &dyn Fn()| {
        std::thread::sleep(std::time::Duration::from_millis(30));
        let m = measure(&src, &PackOptions::default()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        change();
        let now = measure(&src, &PackOptions::default()).unwrap();
        assert_ne!(m.fingerprint, now.fingerprint, "the fingerprint tells");
        m.pack(&mut io::sink(), &mut |_| {})
    };
    let r = all(&|| fs::write(&last, b"a longer text").unwrap());
    assert_eq!(changed(r, &last), Change::Grew { was: 4, now: 13 });
    let r = all(&|| fs::write(&last, b"another text ").unwrap());
    assert_eq!(changed(r, &last), Change::Written);
    let r = all(&|| mode(&last, 0o600));
    assert_eq!(changed(r, &last), Change::Attributes);
    let r = all(&|| set_xattr(&last, "user.more", b"x"));
    assert_eq!(changed(r, &last), Change::Attributes);
    let r = all(&|| fs::write(src.join("z/more"), b"").unwrap());
    assert_eq!(changed(r, &src.join("z")), Change::Listing);
    let r = all(&|| {
        fs::remove_file(&last).unwrap();
        symlink("/etc/passwd", &last).unwrap();
    });
    assert!(matches!(changed(r, &src.join("z")), Change::Listing));
    let r = all(&|| {
        fs::rename(src.join("a"), s.join("a")).unwrap();
        symlink(s.join("a"), src.join("a")).unwrap();
    });
    assert_eq!(changed(r, &src), Change::Listing);
    let r = all(&|| {
        fs::rename(&src, s.join("was")).unwrap();
        symlink(s.join("was"), &src).unwrap();
    });
    assert!(matches!(
        changed(r, &src),
        Change::Kind {
            was: "directory",
            now: "symlink"
        }
    ));
}

#[test]
fn directories_that_change_during_the_walk() {
    let s = Scratch::new();
    let src = tree(&s);
    // `z` was a directory when the walk listed it, and is a symlink when the walk reaches it.
    let r = pack_while(&src, MIB as u64, || {
        fs::rename(src.join("z"), s.join("z")).unwrap();
        symlink(s.join("z"), src.join("z")).unwrap();
    });
    let change = changed(r, &src.join("z"));
    assert!(
        matches!(
            change,
            Change::Kind {
                was: "directory",
                now: "symlink"
            }
        ),
        "{change}"
    );
    fs::remove_file(src.join("z")).unwrap();
    fs::rename(s.join("z"), src.join("z")).unwrap();

    // `a` is already packed. Its new entry changes only the directory, which pack checks once more.
    std::thread::sleep(std::time::Duration::from_millis(30));
    let r = pack_while(&src, MIB as u64, || {
        fs::write(src.join("new"), b"").unwrap()
    });
    assert_eq!(changed(r, &src), Change::Listing);

    fs::remove_file(src.join("new")).unwrap();
    let r = pack_while(&src, MIB as u64, || {
        fs::remove_dir_all(src.join("z")).unwrap()
    });
    assert_eq!(changed(r, &src.join("z")), Change::Removed);
}

/// With any timing of the other thread, either the archive is good or the error names the change. Content from outside
/// never gets in.
#[test]
fn a_racing_symlink_swap_never_leaks() {
    let s = Scratch::new();
    let src = s.join("src");
    fs::create_dir_all(src.join("d")).unwrap();
    fs::create_dir(s.join("outside")).unwrap();
    fs::write(src.join("d/f"), b"harmless").unwrap();
    fs::write(s.join("outside/f"), b"SECRET").unwrap();
    symlink(s.join("outside"), s.join("trap")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut good, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let swap = || {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    src.join("d"),
                    rustix::fs::CWD,
                    s.join("trap"),
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
            };
            while !stop.load(Ordering::Relaxed) {
                swap();
                std::thread::yield_now();
                swap();
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let patience = std::time::Instant::now();
        while good + refused < 3000 || refused == 0 {
            if patience.elapsed().as_secs() > 60 {
                break;
            }
            let mut out = Vec::new();
            match kho_archive::pack(&src, &PackOptions::default(), &mut out, &mut |_| {}) {
                Ok(_) => good += 1,
                Err(PackError::Changed { .. }) => refused += 1,
                Err(e) => {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{e}");
                }
            }
            let leaked = out.windows(6).any(|w| w == b"SECRET");
            if leaked {
                stop.store(true, Ordering::Relaxed);
            }
            assert!(!leaked);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(
        good + refused == 3000 && refused > 0,
        "{good} good, {refused} refused"
    );
}

#[test]
fn special_files_are_refused_or_skipped() {
    let s = Scratch::new();
    let src = tree(&s);
    let socket = src.join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let Err(e) = measure(&src, &PackOptions::default()) else {
        panic!("a socket was packed");
    };
    let said = e.to_string();
    assert!(
        said.contains("src/socket\" is a socket") && said.contains("skip special"),
        "{said}"
    );
    let Err(PackError::Special { .. }) = measure(&socket, &PackOptions::default()) else {
        panic!("a socket was packed");
    };
    let fifo = rustix::fs::FileType::Fifo;
    let m = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, src.join("fifo"), fifo, m, 0).unwrap();
    let options = PackOptions {
        skip_special: true,
        ..PackOptions::default()
    };
    assert_eq!(measure(&src, &options).unwrap().stats.skipped_special, 2);
    packed_with(&src, &options);
    assert!(matches!(
        measure(&socket, &options),
        Err(PackError::BadPath { .. })
    ));
    assert!(matches!(
        measure(Path::new("/dev/null"), &PackOptions::default()),
        Err(PackError::Special {
            kind: "character device",
            ..
        })
    ));
}

#[test]
fn paths_that_cannot_be_kept() {
    let s = Scratch::new();
    let src = tree(&s);
    symlink(&src, s.join("link")).unwrap();
    let said = |p: &str| match measure(Path::new(p), &PackOptions::default()) {
        Err(e @ PackError::BadPath { .. }) => e.to_string(),
        other => panic!("{p}: {other:?}"),
    };
    assert!(said("relative").contains("not absolute"));
    assert!(said("").contains("not absolute"));
    assert!(said("/").contains("whole system"));
    for p in ["/a/../b", "/a/./b", "/a//b", "/a/", "/..", "//"] {
        assert!(said(p).contains("not normal"), "{p}");
    }
    let below_link = s.join("link/a");
    assert!(said(below_link.to_str().unwrap()).contains("symlink"));
    let missing = s.join("missing");
    let e = measure(&missing, &PackOptions::default()).unwrap_err();
    assert!(e.to_string().contains("missing"), "{e}");
    match measure(Path::new("/proc/sys/kernel"), &PackOptions::default()) {
        Err(PackError::PseudoFileSystem { file_system, .. }) => assert_eq!(file_system, "proc"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_receiver_that_fails() {
    struct Full(u64);
    impl Write for Full {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.0 < buf.len() as u64 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.0 -= buf.len() as u64;
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let s = Scratch::new();
    let src = tree(&s);
    let m = measure(&src, &PackOptions::default()).unwrap();
    match m.pack(&mut Full(2 * MIB as u64), &mut |_| {}) {
        Err(PackError::Output { path, offset, .. }) => {
            assert_eq!(path, src.join("big"));
            assert!(offset <= 2 * MIB as u64 && offset > MIB as u64);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn too_many_attributes_and_too_long_paths() {
    let s = Scratch::new();
    let src = s.join("src");
    let mut dir = src.clone();
    while dir.as_os_str().len() < 3800 {
        dir.push("d".repeat(200));
    }
    fs::create_dir_all(&dir).unwrap();
    // Makes directories deeper than a path can be long, one level at a time.
    let fd = rustix::fs::open(&dir, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let all = rustix::fs::Mode::RWXU;
    let name = "e".repeat(200);
    let far = format!("{name}/{name}");
    rustix::fs::mkdirat(&fd, &name, all).unwrap();
    rustix::fs::mkdirat(&fd, &far, all).unwrap();
    assert!(matches!(
        measure(&src, &PackOptions::default()),
        Err(PackError::PathTooLong { limit: 4080, .. })
    ));
    let rm = rustix::fs::AtFlags::REMOVEDIR;
    rustix::fs::unlinkat(&fd, &far, rm).unwrap();
    rustix::fs::unlinkat(&fd, &name, rm).unwrap();
    measure(&src, &PackOptions::default()).unwrap();
}

#[test]
fn nested_attributes_are_refused_before_they_cannot_be_restored() {
    let test = "nested_attributes_are_refused_before_they_cannot_be_restored";
    // On other file systems an inode cannot have that many attributes.
    let Some(s) = Scratch::on_tmpfs(test) else {
        return;
    };
    let src = s.join("src");
    let value = vec![b'v'; 60_000];
    let mut dir = src.clone();
    let mut dirs = Vec::new();
    for _ in 0..279 {
        fs::create_dir(&dir).unwrap();
        set_xattr(&dir, "trusted.large", &value);
        dirs.push(dir.clone());
        dir.push("d");
    }
    // The largest allowed number of bytes is restored.
    let archive = packed(&src);
    let out = s.join("out");
    fs::create_dir(&out).unwrap();
    let options = kho_archive::UnpackOptions::default();
    let dest = kho_archive::Dest::Into(out.clone());
    kho_archive::unpack(&archive[..], &dest, &options, &mut |_| {}).unwrap();
    let there = out.join(src.strip_prefix("/").unwrap());
    assert_same(&describe(&src), &describe(&there));
    // The second unpack goes into existing directories.
    kho_archive::unpack(&archive[..], &dest, &options, &mut |_| {}).unwrap();

    fs::create_dir(&dir).unwrap();
    set_xattr(&dir, "trusted.large", &value);
    match measure(&src, &PackOptions::default()) {
        Err(PackError::NestedAttributes { path, .. }) => assert_eq!(path, dir),
        other => panic!("{other:?}"),
    }
    // The attributes of siblings do not add up, not even in existing directories.
    let wide = s.join("wide");
    fs::create_dir(&wide).unwrap();
    for i in 0..300 {
        let dir = wide.join(i.to_string());
        fs::create_dir(&dir).unwrap();
        set_xattr(&dir, "trusted.large", &value);
    }
    let archive = packed(&wide);
    let dest = kho_archive::Dest::Original;
    let stats = kho_archive::unpack(&archive[..], &dest, &options, &mut |_| {}).unwrap();
    assert_eq!(stats.merged, 301);
}
