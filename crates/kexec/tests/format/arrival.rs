//! The arrival program as a file, and its behaviour in an ordinary process. Guest tests cover its behaviour as PID 1.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use kho_kexec::assemble::{ARRIVAL_PROGRAM, ArrivalError, arrival_archive};
use kho_kexec::cpio::entries;

use crate::fixture::range;

fn half(at: usize) -> u16 {
    u16::from_le_bytes([ARRIVAL_PROGRAM[at], ARRIVAL_PROGRAM[at + 1]])
}

/// gABI: `e_type` at 16, `e_machine` at 18, `e_phnum` at 56; program headers of 56 bytes at `e_phoff`.
#[test]
fn the_program_is_small_and_needs_nothing() {
    assert!(ARRIVAL_PROGRAM.starts_with(b"\x7fELF\x02\x01\x01"));
    assert_eq!((half(16), half(18)), (2, 62), "ET_EXEC for x86_64");
    assert!(
        ARRIVAL_PROGRAM.len() < 24 << 10,
        "{} bytes",
        ARRIVAL_PROGRAM.len()
    );
    let table = usize::from(half(32));
    for n in 0..usize::from(half(56)) {
        let kind = half(table + 56 * n);
        assert!(
            kind != 2 && kind != 3,
            "PT_DYNAMIC or PT_INTERP: not static"
        );
    }
    for (what, text) in [
        ("the building machine's paths", env!("CARGO_MANIFEST_DIR")),
        ("libc", "GLIBC"),
    ] {
        assert!(
            !ARRIVAL_PROGRAM
                .windows(text.len())
                .any(|w| w == text.as_bytes()),
            "{what}"
        );
    }
}

#[test]
fn the_archive_holds_what_the_program_reads() {
    let reserved = [range(0x4000_0000, 0x2000), range(0x1_8000_0000, 0x20_0000)];
    let archive = arrival_archive(&reserved, Some(b"/my init")).unwrap();
    let find = |name: &str| {
        entries(&archive)
            .find(|e| e.name == name.as_bytes())
            .unwrap()
    };
    assert_eq!(find(".kho").mode, 0o040_700);
    for path in [".kho/arrive", ".kho/arrival"] {
        assert_eq!(
            (find(path).mode, find(path).data),
            (0o100_700, ARRIVAL_PROGRAM)
        );
    }
    assert_eq!(find(".kho/init").data, b"/my init");
    assert_eq!(
        (find(".kho/kmsg").mode, find(".kho/kmsg").device),
        (0o020_600, (1, 11))
    );
    for dir in ["sys", "proc", "dev", "root"] {
        assert_eq!(find(&format!(".kho/{dir}")).mode, 0o040_700);
    }
    let words: Vec<u64> = find(".kho/ranges")
        .data
        .chunks(8)
        .map(|w| u64::from_le_bytes(w.try_into().unwrap()))
        .collect();
    assert_eq!(words, [0x4000_0000, 0x2000, 0x1_8000_0000, 0x20_0000]);
    assert_eq!(
        archive,
        arrival_archive(&reserved, Some(b"/my init")).unwrap(),
        "deterministic"
    );

    let default = arrival_archive(&[], None).unwrap();
    assert_eq!(
        entries(&default)
            .find(|e| e.name == b".kho/init")
            .unwrap()
            .data,
        b"/init"
    );
    assert_eq!(
        arrival_archive(&[], Some(&[b'x'; 4096])),
        Err(ArrivalError::InitTooLong { len: 4096 })
    );
}

/// Starts `/.kho/arrive` as an ordinary process, in a root directory that has only this system's programs and these
/// files (path, content, mode). The process may not mount anything in that directory. Returns the program's output and
/// the arrival log. `None` if this system has no namespaces: they keep the process from the real sysfs, even if this
/// test runs as root.
fn started(name: &str, files: &[(&str, &[u8], u32)]) -> Option<(String, Option<String>)> {
    const SCRIPT: &str = r#"
        for dir in bin lib lib64 usr; do
            if [ -e "/$dir" ]; then mkdir -p "$1/$dir" && mount --rbind "/$dir" "$1/$dir" || exit 77; fi
        done
        chroot=$(PATH=/usr/sbin:/sbin:$PATH command -v chroot) || exit 77
        exec env -i KEPT=yes "$chroot" "$1" /.kho/arrive -c 'echo "$0 $1 $KEPT"' argument one
    "#;
    let root = std::env::temp_dir().join(format!("kho-arrival-{}-{name}", std::process::id()));
    for (path, content, mode) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
    }
    let unshare = [
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        SCRIPT,
        "sh",
    ];
    let output = Command::new("unshare").args(unshare).arg(&root).output();
    let log = fs::read_to_string(root.join(".kho/arrival.log")).ok();
    fs::remove_dir_all(&root).unwrap();
    let output = match output {
        Err(error) => {
            println!("SKIP {name}: cannot run unshare: {error}");
            return None;
        }
        Ok(output) => output,
    };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(77) || stderr.contains("unshare failed") {
        println!("SKIP {name}: no namespaces here: {stderr}");
        return None;
    }
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    Some((stdout + &stderr, log))
}

/// The real init gets the arguments and environment that the program itself got.
#[test]
fn the_real_init_is_started_whatever_fails() {
    let files: [(&str, &[u8], u32); 4] = [
        (".kho/arrive", ARRIVAL_PROGRAM, 0o755),
        (".kho/arrival", ARRIVAL_PROGRAM, 0o755),
        (".kho/ranges", b"", 0o600),
        (".kho/init", b"/bin/sh", 0o600),
    ];
    let Some((output, log)) = started("the_real_init_is_started_whatever_fails", &files) else {
        return;
    };
    assert_eq!(output, "argument one yes\n");
    let log = log.unwrap();
    assert!(
        log.contains("any user can read what was handed over"),
        "{log}"
    );
    assert!(log.contains("ranges not checked"), "{log}");
}

/// An initrd that contains the program of another version has replaced the program that the kernel starts.
#[test]
fn the_program_that_was_loaded_does_the_work() {
    let files: [(&str, &[u8], u32); 3] = [
        (".kho/arrive", ARRIVAL_PROGRAM, 0o755),
        (".kho/arrival", b"#!/bin/sh\necho $0 $KEPT\n", 0o755),
        (".kho/ranges", b"", 0o600),
    ];
    let Some((output, log)) = started("the_program_that_was_loaded_does_the_work", &files) else {
        return;
    };
    assert_eq!(output, "/.kho/arrival yes\n");
    assert_eq!(log, None);
}

/// A copied command line, with an initrd that kho did not load.
#[test]
fn an_initrd_of_somebody_else_is_started_as_without_us() {
    let files: [(&str, &[u8], u32); 2] = [
        (".kho/arrive", ARRIVAL_PROGRAM, 0o755),
        ("init", b"#!/bin/sh\necho $0 $KEPT\n", 0o755),
    ];
    let name = "an_initrd_of_somebody_else_is_started_as_without_us";
    let Some((output, log)) = started(name, &files) else {
        return;
    };
    assert_eq!(output, "/init yes\n");
    assert_eq!(log, None);
}
