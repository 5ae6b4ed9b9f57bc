use kho_kexec::image::{Found, UkiError, identify, unified};
use proptest::prelude::*;

use crate::fixture::kernel;

#[test]
fn a_unified_kernel_image_is_taken_apart() {
    let linux = kernel();
    let file = kho_unify::unified(&[
        (".osrel", b"ID=debian\n"),
        (".cmdline", b"root=/dev/vda1 quiet \n\0\0"),
        (".dtb", b"not looked at"),
        (".initrd", b"070701 the initrd"),
        (".ucode", b"070701 microcode"),
        (".linux", &linux),
    ]);
    assert_eq!(identify(&file), Found::Uki { machine: 0x8664 });
    let uki = unified(&file, 0).unwrap().unwrap();
    assert_eq!(uki.linux, linux);
    // Microcode comes first.
    assert_eq!(uki.initrd, [&b"070701 microcode"[..], b"070701 the initrd"]);
    assert_eq!(uki.cmdline, Some(&b"root=/dev/vda1 quiet"[..]));
    assert_eq!(uki.profiles, 1);
    let bare = kho_unify::unified(&[(".linux", b"kernel"), (".cmdline", b" \n")]);
    let uki = unified(&bare, 0).unwrap().unwrap();
    assert_eq!((uki.initrd.len(), uki.cmdline), (0, Some(&b""[..])));
    // Other files are not unified kernel images.
    for other in [
        &linux[..],
        b"",
        b"MZ",
        &kho_unify::unified(&[(".text", b"x")]),
    ] {
        assert_eq!(unified(other, 0), Ok(None));
    }
}

#[test]
fn a_profile_takes_the_place_of_the_common_sections() {
    let file = kho_unify::unified(&[
        (".linux", b"common"),
        (".cmdline", b"common"),
        (".initrd", b"initrd"),
        (".profile", b"ID=main"),
        (".profile", b"ID=rescue"),
        (".cmdline", b"rescue"),
        (".profile", b"ID=other"),
        (".linux", b"other"),
        (".cmdline", b"other"),
    ]);
    for (profile, linux, cmdline) in [
        (0, &b"common"[..], &b"common"[..]),
        (1, b"common", b"rescue"),
        (2, b"other", b"other"),
    ] {
        let uki = unified(&file, profile).unwrap().unwrap();
        assert_eq!((uki.linux, uki.cmdline), (linux, Some(cmdline)));
        assert_eq!((uki.initrd, uki.profiles), (vec![&b"initrd"[..]], 3));
    }
    let none = unified(&file, 3).unwrap_err();
    assert_eq!(none, UkiError::NoProfile { asked: 3, have: 3 });
    assert!(none.to_string().contains("it has 3"), "{none}");
    let single = kho_unify::unified(&[(".linux", b"kernel")]);
    assert_eq!(
        unified(&single, 1),
        Err(UkiError::NoProfile { asked: 1, have: 1 })
    );
}

#[test]
fn damaged_ones_are_refused() {
    let file = kho_unify::unified(&[(".linux", &[1; 5000]), (".initrd", b"initrd")]);
    let why = |file: &[u8]| unified(file, 0).unwrap_err().to_string();
    assert!(why(&file[..4000]).contains(".linux"), "cut in the kernel");
    assert!(why(&file[..5636]).contains(".initrd"), "cut in the initrd");
    let twice = kho_unify::unified(&[(".linux", b"a"), (".linux", b"b")]);
    assert_eq!(unified(&twice, 0), Err(UkiError::Twice { name: ".linux" }));
    let elsewhere = kho_unify::unified(&[(".profile", b""), (".profile", b""), (".linux", b"a")]);
    assert_eq!(
        unified(&elsewhere, 0),
        Err(UkiError::NoKernel { profile: 0 })
    );
    let mut arm = file.clone();
    arm[68..70].copy_from_slice(&0xaa64u16.to_le_bytes());
    assert_eq!(unified(&arm, 0), Err(UkiError::Machine { machine: 0xaa64 }));
    let many = [(".linux", &b"a"[..]); 200];
    assert!(unified(&kho_unify::unified(&many), 0).is_err());
    // A section at an arbitrary offset.
    for (at, value) in [(336, u32::MAX), (344, u32::MAX), (348, u32::MAX - 1)] {
        let mut moved = file.clone();
        moved[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let _ = unified(&moved, 0);
    }
}

proptest! {
    #[test]
    fn damage_is_refused_or_harmless(at in 0usize..1000, byte: u8, cut in 0usize..7000, profile in 0usize..3) {
        let mut file = kho_unify::unified(&[
            (".linux", &[1; 5000]),
            (".profile", b"x"),
            (".cmdline", b"quiet"),
            (".profile", b"x"),
            (".initrd", b"initrd"),
        ]);
        file[at] = byte;
        file.truncate(cut.max(1));
        if let Ok(Some(uki)) = unified(&file, profile) {
            prop_assert!(uki.linux.len() <= file.len());
        }
    }
}
