use std::path::Path;

use kho::PhysAddr;
use kho_kexec::image::{
    BadField, Compression, Found, ImageError, InitrdError, InitrdKind, check_initrd, identify,
    parse, read,
};
use proptest::prelude::*;

use crate::fixture::{
    KERNEL_INFO, PAYLOAD, RELEASES, SETUP, kernel, kernel_info, kernel_of, old_kernel, put,
};

#[test]
fn debian_headers_are_understood() {
    for release in &RELEASES {
        let file = kernel_of(release);
        let image = parse(&file).unwrap();
        assert_eq!(image.format(), "bzImage");
        assert_eq!(image.release(), Some(release.release));
        assert_eq!(image.payload(), &file[SETUP..]);
        assert_eq!(image.entry_offset(), 0x200);
        assert_eq!(image.setup_header(), &file[0x1f1..0x26c]);
        let header = image.header();
        assert_eq!(header.mem_size, release.init_size.next_multiple_of(4096));
        assert_eq!(header.payload_len, PAYLOAD as u64);
        assert_eq!(header.alignment, 2 << 20);
        assert_eq!(header.preferred, PhysAddr::new(16 << 20));
        assert_eq!(header.lowest, PhysAddr::new(16 << 20));
        assert_eq!(
            (header.above_4g, header.initrd_max, header.five_level),
            (true, None, true)
        );
        assert!(header.five_level_on && header.setup_indirect);
        assert_eq!(header.cmdline_max, 2047);
        let planned = kho::image::KernelNeeds::from(header);
        assert_eq!(planned.reserve_len(), Some(header.mem_size));
        assert_eq!((planned.file_len, planned.align), (PAYLOAD as u64, 2 << 20));
    }
}

/// Whole kernel files, if `KHO_TEST_KERNELS` names any: a list of paths, separated by colons. `cargo xtask test` names
/// the kernels of its guests.
#[test]
fn whole_kernels() {
    let Some(paths) = std::env::var_os("KHO_TEST_KERNELS").filter(|paths| !paths.is_empty()) else {
        println!("SKIP whole_kernels: KHO_TEST_KERNELS names no kernels");
        return;
    };
    for path in std::env::split_paths(&paths) {
        let file = read(&path).unwrap();
        if identify(&file) == Found::Arm64Image {
            crate::arm64::whole_kernel(&file, &path);
            continue;
        }
        let image = parse(&file).unwrap();
        let header = image.header();
        assert!(image.release().is_some(), "{}", path.display());
        assert!(header.setup_indirect && header.five_level, "{header:?}");
        assert!(
            header.payload_len > 1 << 20 && header.payload_len < header.mem_size,
            "{header:?}"
        );
        for len in [file.len() - 1, file.len() - 16, file.len() / 2, 513, 300] {
            assert!(
                matches!(parse(&file[..len]), Err(ImageError::Truncated { .. })),
                "{} cut to {len}",
                path.display()
            );
        }
    }
}

#[test]
fn a_signature_behind_the_kernel_is_left_out() {
    let mut file = kernel();
    file.extend([0x5a; 1472]);
    assert_eq!(parse(&file).unwrap().payload().len(), PAYLOAD);
}

/// A PE file, signed or not, as Debian's kernels are.
fn efi_kernel(signature: u32) -> Vec<u8> {
    let mut file = kernel();
    let end = file.len() as u32;
    put(&mut file, 0, b"MZ");
    put(&mut file, 56, &0x8182_23cd_u32.to_le_bytes());
    put(&mut file, 0x3c, &0x40_u32.to_le_bytes());
    put(&mut file, 0x40, b"PE\0\0");
    put(&mut file, 0x44, &0x8664_u16.to_le_bytes());
    put(&mut file, 0x54, &0xa0_u16.to_le_bytes());
    put(&mut file, 0x58, &0x20b_u16.to_le_bytes());
    put(&mut file, 0x58 + 108, &6_u32.to_le_bytes());
    put(&mut file, 0x58 + 112 + 32, &end.to_le_bytes());
    put(&mut file, 0x58 + 112 + 36, &signature.to_le_bytes());
    file.extend(vec![0x5a; signature as usize]);
    file
}

#[test]
fn a_signature_that_is_cut_off_is_missed() {
    assert!(parse(&efi_kernel(0)).is_ok());
    let file = efi_kernel(1472);
    assert_eq!(parse(&file).unwrap().payload().len(), PAYLOAD);
    for cut in [1, 16, 1472] {
        match parse(&file[..file.len() - cut]) {
            Err(ImageError::Truncated { missing, .. }) => assert_eq!(missing, cut as u64),
            other => panic!("{cut}: {other:?}"),
        }
    }
}

/// A kernel cut to any length is not recognised as another machine's kernel.
#[test]
fn a_short_kernel_is_called_one() {
    let file = efi_kernel(1472);
    for len in 1..file.len() {
        let text = parse(&file[..len]).unwrap_err().to_string();
        let expected = match len {
            ..60 => "no known format",
            // The file ends before its machine number.
            60..86 => "the beginning of a kernel with an EFI stub, cut short",
            _ => "the bzImage is truncated",
        };
        assert!(text.contains(expected), "{len}: {text}");
    }
    // A file from before x86 kernels had that magic number.
    let mut old = file.clone();
    put(&mut old, 56, &[0; 4]);
    let text = parse(&old[..300]).unwrap_err().to_string();
    assert!(text.contains("the bzImage is truncated"), "{text}");
}

#[test]
fn truncation_says_how_much_is_missing() {
    let file = kernel();
    for len in [file.len() - 16, file.len() - 4096, SETUP, SETUP - 1, 0x300] {
        match parse(&file[..len]) {
            Err(ImageError::Truncated {
                len: has,
                needed,
                missing,
            }) => {
                assert_eq!((has, needed), (len as u64, file.len() as u64));
                assert_eq!(missing, (file.len() - len) as u64);
            }
            other => panic!("{len:#x}: {other:?}"),
        }
    }
    for cut in 1..=16 {
        assert!(
            matches!(
                parse(&file[..file.len() - cut]),
                Err(ImageError::Truncated { .. })
            ),
            "{cut}"
        );
    }
    // The file ends before its header.
    assert!(matches!(
        parse(&file[..0x210]),
        Err(ImageError::Truncated { missing: 0x80, .. })
    ));
    let text = parse(&file[..file.len() - 4096]).unwrap_err().to_string();
    assert!(text.contains("0x1000 are missing"), "{text}");
}

fn with(at: usize, bytes: &[u8]) -> ImageError {
    let mut file = kernel();
    put(&mut file, at, bytes);
    let error = parse(&file).unwrap_err();
    assert!(!error.to_string().is_empty());
    error
}

fn corrupt(at: usize, bytes: &[u8]) -> BadField {
    match with(at, bytes) {
        ImageError::Corrupt(field) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn kernels_that_cannot_be_entered_are_refused() {
    assert!(matches!(
        with(0x206, &[0x0b, 0x02]),
        ImageError::OldProtocol { version: 0x020b }
    ));
    assert!(matches!(
        with(0x211, &[0]),
        ImageError::LoadedLow { loadflags: 0 }
    ));
    assert!(matches!(
        with(0x236, &[0x7e, 0]),
        ImageError::No64BitEntry { xloadflags: 0x7e }
    ));
    assert!(matches!(
        with(0x236, &[0x7d, 0]),
        ImageError::NotRelocatable {
            xloadflags: 0x7d,
            ..
        }
    ));
    assert!(matches!(
        with(0x234, &[0]),
        ImageError::NotRelocatable { relocatable: 0, .. }
    ));
    assert!(with(0x206, &[0x0b, 0x02]).to_string().contains("2.11"));
    assert!(with(0x236, &[0, 0]).to_string().contains("32-bit"));
}

/// `SETUP_INDIRECT` alone keeps memory that is handed over, so an image has to say that its kernel knows it.
#[test]
fn kernels_say_whether_they_know_setup_indirect() {
    let knows = |file: &[u8]| parse(file).unwrap().header().setup_indirect;
    assert!(!knows(&old_kernel()));
    let info = |bytes: &[u8]| {
        let mut file = kernel();
        put(&mut file, SETUP + KERNEL_INFO, bytes);
        file
    };
    assert!(knows(&info(&kernel_info(0x8000_0000))));
    assert!(!knows(&info(&kernel_info(0x7fff_ffff))));
    // A kernel_info that ends before setup_type_max does not have the field, even if bytes follow.
    let mut short = kernel_info(0x8000_0009);
    short[4] = 12;
    assert!(!knows(&info(&short)));
    // From 2.15 on the image must have one, inside the payload.
    let damaged = |file: &[u8]| match parse(file) {
        Err(ImageError::Corrupt(field)) => field.field,
        other => panic!("{other:?}"),
    };
    assert_eq!(damaged(&info(b"LToq")), "kernel_info_offset");
    for at in [0, PAYLOAD as u32, 0xffff_fff0] {
        assert_eq!(
            corrupt(0x268, &at.to_le_bytes()).field,
            "kernel_info_offset"
        );
    }
    let mut last = kernel();
    put(&mut last, 0x268, &(PAYLOAD as u32 - 4).to_le_bytes());
    put(&mut last, SETUP + PAYLOAD - 4, b"LToP");
    assert!(!knows(&last));
}

#[test]
fn every_field_that_is_used_is_checked() {
    let field = |at, bytes: &[u8]| corrupt(at, bytes).field;
    assert_eq!(field(0x1fe, &[0, 0]), "boot_flag");
    assert_eq!(field(0x201, &[0x50]), "jump");
    assert_eq!(field(0x201, &[0xff]), "jump");
    assert_eq!(field(0x1f4, &[0; 4]), "syssize");
    assert_eq!(field(0x230, &[0; 4]), "kernel_alignment");
    assert_eq!(
        field(0x230, &0x30_0000_u32.to_le_bytes()),
        "kernel_alignment"
    );
    assert_eq!(field(0x230, &[0x80, 0, 0, 0]), "kernel_alignment");
    assert_eq!(field(0x258, &0x10_0000_u64.to_le_bytes()), "pref_address");
    assert_eq!(field(0x258, &[0xff; 8]), "pref_address");
    assert_eq!(field(0x260, &[0; 4]), "init_size");
    assert_eq!(field(0x238, &[0; 4]), "cmdline_size");
    assert_eq!(field(0x238, &[0xff; 4]), "cmdline_size");
    assert_eq!(field(0x22c, &[0; 4]), "initrd_addr_max");
    assert_eq!(field(0x20e, &[0xff; 2]), "kernel_version");
    assert_eq!(
        corrupt(0x260, &[1, 0, 0, 0]),
        BadField {
            field: "init_size",
            offset: 0x260,
            value: 1,
            wanted: "smaller than the payload",
        }
    );
    // A file that is shorter than its syssize is too short.
    assert!(matches!(
        with(0x1f4, &[0xff; 4]),
        ImageError::Truncated { .. }
    ));
}

#[test]
fn a_kernel_may_have_no_version_string() {
    let mut file = kernel();
    put(&mut file, 0x20e, &[0, 0]);
    assert_eq!(parse(&file).unwrap().release(), None);
    // A banner that does not end, and a banner that is not text.
    let at = 0x4600;
    let mut endless = kernel();
    endless[at..SETUP].fill(b'x');
    put(&mut endless, 0x20e, &((at - 0x200) as u16).to_le_bytes());
    assert!(matches!(
        parse(&endless),
        Err(ImageError::Corrupt(BadField {
            field: "kernel_version",
            ..
        }))
    ));
    endless[at..SETUP].fill(0x07);
    assert!(matches!(parse(&endless), Err(ImageError::Corrupt(_))));
}

fn file(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; 0x400];
    for (at, bytes) in parts {
        put(&mut file, *at, bytes);
    }
    file
}

fn portable_executable(machine: u16, section: &[u8]) -> Vec<u8> {
    file(&[
        (0, b"MZ"),
        (0x3c, &0x80_u32.to_le_bytes()),
        (0x80, b"PE\0\0"),
        (0x84, &machine.to_le_bytes()),
        (0x86, &2_u16.to_le_bytes()),
        (0x94, &0xf0_u16.to_le_bytes()),
        (0x98 + 0xf0, b".text\0\0\0"),
        (0x98 + 0xf0 + 40, section),
    ])
}

#[test]
fn other_files_are_named() {
    let elf = |class, order, machine: [u8; 2]| {
        file(&[(0, b"\x7fELF"), (4, &[class, order]), (18, &machine)])
    };
    let cases: [(Vec<u8>, &str); 26] = [
        (file(&[(56, b"ARM\x64")]), "this is an arm64 Image"),
        (
            file(&[(0, b"MZ"), (56, b"ARM\x64")]),
            "this is an arm64 Image",
        ),
        (
            file(&[(0x24, &0x016f_2818_u32.to_le_bytes())]),
            "a 32-bit arm zImage",
        ),
        (
            file(&[(48, b"RISCV\0\0\0"), (56, b"RSC\x05")]),
            "a RISC-V Image",
        ),
        (
            file(&[
                (0, b"MZ"),
                (56, &0x8182_23cd_u32.to_le_bytes()),
                (0x3c, &0x80_u32.to_le_bytes()),
                (0x80, b"PE\0\0"),
                (0x84, &0x6264_u16.to_le_bytes()),
            ]),
            "a LoongArch Image",
        ),
        (
            file(&[(0, b"MZ\0\0zimg"), (56, &0x8182_23cd_u32.to_le_bytes())]),
            "a damaged EFI zboot kernel",
        ),
        (
            file(&[(0, b"MZ"), (56, &0x8182_23cd_u32.to_le_bytes())]),
            "a kernel with an EFI stub, cut short or damaged",
        ),
        (elf(2, 1, [62, 0]), "an ELF file for x86_64 (64-bit)"),
        (elf(2, 1, [183, 0]), "an ELF file for arm64 (64-bit)"),
        (
            elf(2, 2, [0, 22]),
            "an ELF file for s390 (64-bit, big-endian)",
        ),
        (
            elf(1, 1, [0x77, 0x66]),
            "an ELF file for machine 0x6677 (32-bit)",
        ),
        (
            portable_executable(0x8664, b".linux\0\0"),
            "a unified kernel image for x86_64",
        ),
        (
            portable_executable(0xaa64, b".linux\0\0"),
            "a unified kernel image for arm64",
        ),
        (
            portable_executable(0x014c, b".data\0\0\0"),
            "a PE program for i386",
        ),
        (file(&[(0, b"MZ\0\0zimg")]), "a damaged EFI zboot kernel"),
        (file(&[(0, b"070701")]), "an initrd and not a kernel"),
        (file(&[(0, b"\x1f\x8b\x08")]), "a gzip-compressed file"),
        (file(&[(0, b"\xfd7zXZ\0")]), "a xz-compressed file"),
        (file(&[(0, b"\x28\xb5\x2f\xfd")]), "a zstd-compressed file"),
        (file(&[(0, b"\x02\x21\x4c\x18")]), "a lz4-compressed file"),
        (file(&[(0, b"BZh9")]), "a bzip2-compressed file"),
        (file(&[(0, &[0x27, 0x05, 0x19, 0x56])]), "a U-Boot image"),
        (
            file(&[(0, &[0xd0, 0x0d, 0xfe, 0xed])]),
            "a flattened device tree",
        ),
        (
            file(&[(0x1fe, &[0x55, 0xaa])]),
            "a boot sector without a kernel header",
        ),
        (
            b"#!/bin/sh\n".to_vec(),
            "no known format (it begins with 23 21 2f 62 69 6e 2f 73)",
        ),
        (vec![7], "no known format (it begins with 07"),
    ];
    for (file, expected) in cases {
        let text = parse(&file).unwrap_err().to_string();
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
        assert!(text.contains("needed is a bzImage for x86_64"), "{text:?}");
    }
    assert!(matches!(parse(b""), Err(ImageError::Empty)));
}

#[test]
fn files_that_cannot_be_read() {
    let dir = std::env::temp_dir();
    assert!(matches!(
        read(&dir),
        Err(ImageError::NotAFile {
            directory: true,
            ..
        })
    ));
    assert!(matches!(
        read(Path::new("/dev/null")),
        Err(ImageError::NotAFile {
            directory: false,
            ..
        })
    ));
    let missing = read(&dir.join("kho-there-is-no-such-kernel")).unwrap_err();
    assert!(matches!(missing, ImageError::Read { .. }));
    assert!(
        std::error::Error::source(&missing).is_some(),
        "the system's error is kept"
    );
    let empty = dir.join(format!("kho-empty-kernel-{}", std::process::id()));
    std::fs::write(&empty, b"").unwrap();
    let result = read(&empty);
    std::fs::remove_file(&empty).unwrap();
    assert!(matches!(result, Err(ImageError::Empty)));
}

#[test]
fn initrds_are_told_from_other_files() {
    assert_eq!(check_initrd(b"070701 and so on"), Ok(InitrdKind::Cpio));
    assert_eq!(check_initrd(b"\0\0\0\x00070702"), Ok(InitrdKind::Cpio));
    assert_eq!(
        check_initrd(b"\x28\xb5\x2f\xfd.."),
        Ok(InitrdKind::Compressed(Compression::Zstd))
    );
    assert_eq!(check_initrd(b""), Err(InitrdError::Empty));
    assert_eq!(
        check_initrd(&kernel()),
        Err(InitrdError::WrongFormat {
            found: Found::BzImage
        })
    );
    // The kernel cannot unpack this format.
    let modern = check_initrd(b"\x04\x22\x4d\x18").unwrap_err();
    assert_eq!(modern, InitrdError::CurrentLz4);
    assert!(modern.to_string().contains("lz4 -l"), "{modern}");
    assert!(check_initrd(&[0; 64]).is_err());
}

fn check_invariants(file: &[u8]) {
    let _ = identify(file).to_string();
    let _ = check_initrd(file);
    match parse(file) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(image) => {
            let header = image.header();
            assert_eq!(image.payload().len() as u64, header.payload_len);
            assert!(header.mem_size >= header.payload_len && header.mem_size.is_multiple_of(4096));
            assert!(header.alignment.is_power_of_two() && header.alignment >= 4096);
            assert!(header.lowest >= PhysAddr::new(1 << 20));
            assert!(image.entry_offset() < header.payload_len);
            assert!(image.setup_header().len() <= kho_kexec::bootparam::HDR_MAX);
        }
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(file in proptest::collection::vec(any::<u8>(), 0..2048)) {
        check_invariants(&file);
    }

    /// Damage to a good header, and a cut at any length: reaches every check.
    #[test]
    fn damaged_kernels_never_panic(
        damage in proptest::collection::vec((0x1f1usize..0x280, any::<u8>()), 0..6),
        len in 0usize..=SETUP + PAYLOAD,
        whole in any::<bool>(),
    ) {
        let mut file = kernel();
        for (at, byte) in damage {
            file[at] = byte;
        }
        check_invariants(if whole { &file } else { &file[..len] });
    }
}
