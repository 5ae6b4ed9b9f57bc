//! Tests that need file systems of their own: full disks, and mount points inside the kept or restored tree.
//!
//! The tests named `inner_…` do the work, in a mount namespace that `unshare` makes for them.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use kho_archive::{Dest, PackOptions, UnpackError, UnpackOptions, measure, unpack};

/// Runs another test of this file in a mount namespace with a tmpfs of `size` on `dir`.
fn in_namespace(test: &str, size: &str) {
    if !is_root(test) || !has(test, "unshare") {
        return;
    }
    let s = Scratch::new();
    let probe = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "none"])
        .arg(&s.0)
        .output()
        .unwrap();
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr).into_owned();
        skip(
            test,
            &format!("cannot mount in a namespace: {}", why.trim()),
        );
        return;
    }
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c"])
        .arg("mount -t tmpfs -o size=$SIZE none \"$DIR\" && exec \"$TEST\" --exact \"$NAME\" --ignored --nocapture")
        .env("SIZE", size)
        .env("DIR", &s.0)
        .env("TEST", std::env::current_exe().unwrap())
        .env("NAME", format!("inner_{test}"))
        .env("KHO_ARCHIVE_TMPFS", &s.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Returns the directory of the tmpfs in a namespace. Outside of a namespace, reports that the inner test did not run,
/// and returns `None`.
fn tmpfs(test: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("KHO_ARCHIVE_TMPFS").map(PathBuf::from);
    if dir.is_none() {
        skip(test, "is run by another test only");
    }
    dir
}

fn mount(dir: &Path) {
    let ok = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(dir)
        .status()
        .unwrap();
    assert!(ok.success());
}

fn options() -> UnpackOptions {
    UnpackOptions {
        privileged: true,
        ..UnpackOptions::default()
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    in_namespace("a_full_disk_leaves_nothing", "2m");
}

#[test]
#[ignore = "run by a_full_disk_leaves_nothing"]
fn inner_a_full_disk_leaves_nothing() {
    let Some(full) = tmpfs("inner_a_full_disk_leaves_nothing") else {
        return;
    };
    let s = Scratch::new();
    let src = s.join("src");
    fs::create_dir_all(src.join("sub")).unwrap();
    for i in 0..8 {
        fs::write(src.join(format!("sub/{i}")), vec![i; 500_000]).unwrap();
    }
    let archive = packed(&src);
    let dest = Dest::Into(full.clone());
    // Runs twice: anything that the first run left behind would make the second one fail earlier.
    for _ in 0..2 {
        match unpack(&archive[..], &dest, &options(), &mut |_| {}) {
            Err(UnpackError::Io {
                path,
                source,
                offset,
                ..
            }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                let sub = full.join(src.strip_prefix("/").unwrap()).join("sub");
                assert_eq!(path.parent().unwrap(), sub);
                assert!(offset > 1_000_000 && offset < 2_500_000, "{offset}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read_dir(&full).unwrap().count(), 0);
    }
    let stat = rustix::fs::statvfs(&full).unwrap();
    assert_eq!(stat.f_bfree, stat.f_blocks, "every block is free again");
    // A sparse file much larger than the disk fits, because holes take no space.
    let f = fs::File::create(s.join("holes")).unwrap();
    f.set_len(1 << 40).unwrap();
    let archive = packed(&s.join("holes"));
    unpack(&archive[..], &dest, &options(), &mut |_| {}).unwrap();
}

#[test]
fn mount_points_inside() {
    in_namespace("mount_points_inside", "16m");
}

#[test]
#[ignore = "run by mount_points_inside"]
fn inner_mount_points_inside() {
    let Some(top) = tmpfs("inner_mount_points_inside") else {
        return;
    };
    let src = top.join("src");
    let mounted = src.join("m");
    fs::create_dir_all(mounted.join("hidden below the mount")).unwrap();
    mount(&mounted);
    fs::create_dir(mounted.join("d")).unwrap();
    fs::write(mounted.join("d/f"), b"on the inner file system").unwrap();
    fs::write(mounted.join("g"), b"g").unwrap();
    fs::write(src.join("z"), b"on the outer file system").unwrap();
    for (i, dir) in [&mounted.join("d"), &mounted, &src].into_iter().enumerate() {
        set_mtime(dir, i as i64 + 1, 1);
    }
    let before = describe(&src);

    // All file systems below the path are kept, unless the user asks for one file system.
    let whole = packed(&src);
    let one = PackOptions {
        one_file_system: true,
        ..PackOptions::default()
    };
    let m = measure(&src, &one).unwrap();
    assert_eq!((m.stats.not_entered, m.stats.entries), (1, 3));
    packed_with(&src, &one);

    // Restores onto the same mounts: each file system gets its part.
    fs::remove_dir_all(mounted.join("d")).unwrap();
    fs::remove_file(mounted.join("g")).unwrap();
    fs::remove_file(src.join("z")).unwrap();
    let stats = unpack(&whole[..], &Dest::Original, &options(), &mut |_| {}).unwrap();
    assert_eq!((stats.merged, stats.directories, stats.files), (2, 1, 3));
    assert_same(&before, &describe(&src));
    let dev = |p: PathBuf| fs::metadata(p).unwrap().dev();
    assert_ne!(dev(src.join("m/g")), dev(src.join("z")));

    // A conflict on one file system leaves the other one unchanged too.
    fs::remove_file(src.join("z")).unwrap();
    let some = describe(&src);
    let e = unpack(&whole[..], &Dest::Original, &options(), &mut |_| {}).unwrap_err();
    assert!(matches!(e, UnpackError::Conflicts { total: 2, .. }), "{e}");
    assert_same(&some, &describe(&src));

    // A hard link cannot lead from one mount to another, even of the same file system: the archive has two files.
    let (a, b) = (top.join("bound/a"), top.join("bound/b"));
    fs::create_dir_all(&a).unwrap();
    fs::create_dir_all(&b).unwrap();
    fs::write(a.join("f"), b"f").unwrap();
    fs::hard_link(a.join("f"), a.join("g")).unwrap();
    let bound = Command::new("mount").arg("--bind").args([&a, &b]).status();
    assert!(bound.unwrap().success());
    let archive = packed(&top.join("bound"));
    fs::remove_file(a.join("f")).unwrap();
    fs::remove_file(a.join("g")).unwrap();
    let unbound = Command::new("umount").arg(&b).status();
    assert!(unbound.unwrap().success());
    mount(&b);
    let stats = unpack(&archive[..], &Dest::Original, &options(), &mut |_| {}).unwrap();
    assert_eq!((stats.files, stats.hard_links), (2, 2));
    assert_eq!(fs::metadata(b.join("f")).unwrap().nlink(), 2);

    // The target itself is a mount point, as is common for data.
    let data = top.join("data");
    fs::create_dir(&data).unwrap();
    mount(&data);
    fs::create_dir(data.join("d")).unwrap();
    fs::write(data.join("d/f"), b"f").unwrap();
    let before = describe(&data);
    let archive = packed(&data);
    fs::remove_dir_all(data.join("d")).unwrap();
    unpack(&archive[..], &Dest::Original, &options(), &mut |_| {}).unwrap();
    assert_same(&before, &describe(&data));
}

#[test]
fn attributes_that_a_file_system_does_not_take() {
    in_namespace("attributes_that_a_file_system_does_not_take", "16m");
}

#[test]
#[ignore = "run by attributes_that_a_file_system_does_not_take"]
fn inner_attributes_that_a_file_system_does_not_take() {
    let test = "inner_attributes_that_a_file_system_does_not_take";
    let Some(top) = tmpfs(test) else {
        return;
    };
    let target = top.join("ramfs");
    fs::create_dir(&target).unwrap();
    let ok = Command::new("mount")
        .args(["-t", "ramfs", "none"])
        .arg(&target)
        .status()
        .unwrap();
    assert!(ok.success());
    let s = Scratch::new();
    let src = s.join("src");
    fs::write(&src, b"x").unwrap();
    set_xattr(&src, "user.x", b"y");
    let archive = packed(&src);
    let dest = Dest::Into(target.clone());
    let e = unpack(&archive[..], &dest, &options(), &mut |_| {}).unwrap_err();
    assert!(
        e.to_string().contains("set an extended attribute of"),
        "{e}"
    );
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    let lossy = UnpackOptions {
        drop_unsupported_xattrs: true,
        ..options()
    };
    let stats = unpack(&archive[..], &dest, &lossy, &mut |_| {}).unwrap();
    assert_eq!((stats.unsupported_dropped, stats.files), (1, 1));
    assert_eq!(stats.unsupported, ["user.x"]);
    let first = src.strip_prefix("/").unwrap();
    assert_eq!(stats.first_unsupported.as_deref(), Some(first));
}
