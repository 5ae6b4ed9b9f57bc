use kho_kexec::cpio::{CpioError, Device, Writer, entries};
use proptest::prelude::*;

fn sample() -> Vec<u8> {
    let mut cpio = Writer::new();
    cpio.dir(b"dev", 0o755).unwrap();
    cpio.device(b"dev/console", 0o600, Device::Char(5, 1))
        .unwrap();
    cpio.device(b"dev/vda", 0o660, Device::Block(254, 0))
        .unwrap();
    cpio.file(b"init", 0o755, b"#!/bin/sh\n").unwrap();
    cpio.symlink(b"bin", b"usr/bin").unwrap();
    cpio.linked(&[b"one", b"two"], 0o644, b"same").unwrap();
    cpio.finish()
}

#[test]
fn what_is_written_can_be_read() {
    let archive = sample();
    let read: Vec<_> = entries(&archive).collect();
    let seen: Vec<_> = read
        .iter()
        .map(|e| (e.name, e.mode, e.links, e.device, e.data))
        .collect();
    let none = (0, 0);
    assert_eq!(
        seen,
        [
            (&b"dev"[..], 0o040_755, 2, none, &b""[..]),
            (b"dev/console", 0o020_600, 1, (5, 1), b""),
            (b"dev/vda", 0o060_660, 1, (254, 0), b""),
            (b"init", 0o100_755, 1, none, b"#!/bin/sh\n"),
            (b"bin", 0o120_777, 1, none, b"usr/bin"),
            (b"one", 0o100_644, 2, none, b""),
            (b"two", 0o100_644, 2, none, b"same"),
        ]
    );
    assert_eq!(read[5].inode, read[6].inode, "names of one file");
    let mut inodes: Vec<_> = read[..6].iter().map(|e| e.inode).collect();
    inodes.dedup();
    assert_eq!(inodes.len(), 6, "different files");
}

/// The header, byte by byte, as `Documentation/driver-api/early-userspace/buffer-format.rst` defines it.
#[test]
fn the_bytes_of_an_entry() {
    let mut cpio = Writer::new();
    cpio.file(b"a/b", 0o640, b"hello").unwrap();
    let archive = cpio.finish();
    let header = "070701\
        00000001000081a000000000000000000000000100000000\
        00000005000000000000000000000000000000000000000400000000";
    assert_eq!(std::str::from_utf8(&archive[..110]).unwrap(), header);
    // The name ends with NUL; the header with the name, and the content, are padded to four bytes.
    assert_eq!(&archive[110..124], b"a/b\0\0\0hello\0\0\0");
    assert_eq!(&archive[124..130], b"070701");
    assert!(archive.windows(11).any(|w| w == b"TRAILER!!!\0"));
    assert_eq!(archive.len() % 512, 0);
    assert_eq!(sample(), sample(), "deterministic");
}

#[test]
fn names_and_modes_are_checked() {
    let mut cpio = Writer::new();
    for name in [&b""[..], b"/abs", b"nul\0", b"TRAILER!!!", &[b'x'; 4096]] {
        assert!(
            matches!(cpio.file(name, 0o644, b""), Err(CpioError::Name { .. })),
            "{name:?}"
        );
        assert!(matches!(cpio.dir(name, 0o755), Err(CpioError::Name { .. })));
    }
    assert!(cpio.file(&[b'x'; 4095], 0o644, b"").is_ok());
    assert!(matches!(
        cpio.symlink(b"l", b""),
        Err(CpioError::Name { .. })
    ));
    assert!(matches!(
        cpio.file(b"f", 0o100_644, b""),
        Err(CpioError::Mode {
            mode: 0o100_644,
            ..
        })
    ));
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = entries(&bytes).count();
    }

    #[test]
    fn reading_damaged_archives_never_panics(
        damage in proptest::collection::vec((0usize..1024, any::<u8>()), 1..8),
        len in 0usize..=1024,
    ) {
        let mut archive = sample();
        for (at, byte) in damage {
            if let Some(place) = archive.get_mut(at) {
                *place = byte;
            }
        }
        let mut read = entries(archive.get(..len).unwrap_or(&archive));
        let count = read.by_ref().count();
        prop_assert!(count <= archive.len() / 110);
        prop_assert!(read.offset() <= archive.len());
    }

    #[test]
    fn files_come_back(files in proptest::collection::btree_map("[a-z]{1,30}", proptest::collection::vec(any::<u8>(), 0..100), 0..10)) {
        let mut cpio = Writer::new();
        for (name, data) in &files {
            cpio.file(name.as_bytes(), 0o600, data).unwrap();
        }
        let archive = cpio.finish();
        let back: Vec<_> = entries(&archive).map(|e| (e.name.to_vec(), e.data.to_vec())).collect();
        let want: Vec<_> = files.into_iter().map(|(n, d)| (n.into_bytes(), d)).collect();
        prop_assert_eq!(back, want);
    }
}
