//! Kernel files that a loader loads.

use kho_kexec::bootparam::HDR_MAX;
use kho_kexec::cpio;
use kho_kexec::image::{self, Arm64Image, BzImage, Compression, Image, Vmlinux};

/// A kernel file.
pub fn kernel(data: &[u8]) {
    let found = image::identify(data);
    let _ = found.to_string();
    match image::parse(data) {
        Ok(image) => {
            let header = image.header();
            let payload = image.payload();
            assert_eq!(header.payload_len, payload.len() as u64);
            assert!(payload.len() <= data.len());
            assert!(image.entry_offset() < header.payload_len, "entered outside");
            assert!(header.mem_size >= header.payload_len && header.mem_size.is_multiple_of(4096));
            assert!(header.alignment.is_power_of_two() && header.alignment >= 4096);
            assert!(image.setup_header().len() <= HDR_MAX);
            let _ = image.release();
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
    for profile in 0..3 {
        match image::unified(data, profile) {
            Ok(Some(uki)) => {
                assert!(profile < uki.profiles);
                let parts = uki.initrd.iter().chain([&uki.linux]).chain(&uki.cmdline);
                assert!(parts.map(|part| part.len()).all(|len| len <= data.len()));
            }
            Ok(None) => assert!(!matches!(found, image::Found::Uki { .. })),
            Err(error) => {
                let _ = error.to_string();
            }
        }
    }
}

/// A kernel file for arm64, packed or not.
pub fn arm64(data: &[u8]) {
    match Arm64Image::parse(data) {
        Ok(image) => {
            assert_eq!(image::identify(data), image::Found::Arm64Image);
            let header = image.header();
            assert!(image.entry_offset() < 2 << 20);
            assert!(header.payload_len <= header.mem_size - image.entry_offset());
            assert!(header.mem_size.is_multiple_of(4096));
            let _ = (image.release(), image.check_page_size(4096));
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
    match image::packed_arm64(data) {
        Ok(Some(packed)) => {
            assert!(packed.bytes.len() <= data.len());
            assert!(packed.len >= 64 && packed.len <= 1 << 30);
        }
        Ok(None) => {}
        Err(error) => {
            let _ = error.to_string();
        }
    }
}

/// The kernel that a bzImage unpacks to: the input, behind an image that says that it moves its kernel.
pub fn vmlinux(data: &[u8]) {
    let mut file = kernels().swap_remove(0);
    // The packed kernel: a few bytes, and the length of the input.
    let payload = file.len() - 0x1000;
    write(&mut file, 0x248, &0x100_u32.to_le_bytes());
    write(&mut file, 0x24c, &0x10_u32.to_le_bytes());
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    write(&mut file, payload + 0x10c, &len.to_le_bytes());
    write(&mut file, payload + 0x20, b"nokaslr\0");
    let image = BzImage::parse(&file).unwrap_or_else(|err| panic!("{err}"));
    let Ok(packed) = image.packed() else {
        assert!(data.len() < 64, "there is a length");
        return;
    };
    match Vmlinux::lay_out(&image, &packed, data.to_vec()) {
        Ok(mut laid) => {
            laid.relocate(0x1234_5678_9abc_def0);
            let header = laid.header();
            assert_eq!(header.payload_len, laid.payload().len() as u64);
            assert!(laid.entry_offset() < header.payload_len, "entered outside");
            assert!(header.mem_size >= header.payload_len && header.mem_size.is_multiple_of(4096));
            assert!(header.mem_size <= image.header().mem_size);
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
}

/// An initrd.
pub fn initrd(data: &[u8]) {
    let _ = image::check_initrd(data).map_err(|error| error.to_string());
    let _ = Compression::of(data);
    let mut entries = cpio::entries(data);
    let mut last = 0;
    while let Some(entry) = entries.next() {
        let _ = (entry.name, entry.mode, entry.inode);
        let offset = entries.offset();
        assert!(offset > last && offset <= data.len(), "no progress");
        last = offset;
    }
}

/// The setup header of Debian's 6.12 cloud kernel, from 0x1f1 on.
const HEADER: &[u8] = b"\x27\x01\x00\x20\x0e\x0b\x00\x00\x00\xff\xff\x00\x00\x55\xaa\xeb\x6a\x48\x64\x72\x53\x0f\x02\x00\x00\x00\x00\x00\x10\xc0\x42\x00\
\x01\x00\x80\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x5c\x00\x00\x00\x00\x00\x00\xff\xff\xff\x7f\x00\
\x00\x20\x00\x01\x15\x7f\x00\xff\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xcc\x02\x00\x00\xda\x75\xad\x00\x00\
\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\xc0\x7d\x03\xd0\xab\xaf\x00\x1c\xb4\xb0\x00";

fn write(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

pub fn kernels() -> Vec<Vec<u8>> {
    // One sector of setup code would be enough; the header holds the number of sectors.
    let sectors = 3_usize;
    let mut kernel = vec![0; (sectors + 1) * 512];
    write(&mut kernel, 0x1f1, HEADER);
    kernel[0x1f1] = 3;
    write(&mut kernel, 0x1f4, &(0x1000_u32 / 16).to_le_bytes());
    write(&mut kernel, 0x20e, &0x100_u16.to_le_bytes());
    write(&mut kernel, 0x300, b"6.12.95-cloud-amd64 (debian) #1 SMP\0");
    let payload = kernel.len();
    kernel.extend([0x90; 0x1000]);
    // Its kernel_info.
    write(&mut kernel, 0x268, &0x40_u32.to_le_bytes());
    write(&mut kernel, payload + 0x40, b"LToP");
    assert!(image::parse(&kernel).is_ok(), "a seed is accepted");

    let uki = kho_unify::unified(&[
        (".linux", &kernel),
        (".initrd", b"070701"),
        (".profile", b"ID=a"),
        (".cmdline", b"quiet\n"),
        (".profile", b"ID=b"),
        (".ucode", b"070701"),
    ]);

    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    elf.resize(64, 0);
    vec![kernel, uki, elf]
}

/// An `Image` with the PE header of the EFI stub, and a zboot kernel.
pub fn arm64s() -> Vec<Vec<u8>> {
    let mut image = vec![0; 0x400];
    write(&mut image, 0, b"MZ\x40\xfa");
    write(&mut image, 16, &0x2000_u64.to_le_bytes());
    write(&mut image, 24, &0xa_u64.to_le_bytes());
    write(&mut image, 56, b"ARM\x64\x40");
    write(&mut image, 0x40, b"PE\0\0\x64\xaa\x01");
    write(&mut image, 0x58 + 16, &0x200_u32.to_le_bytes());
    write(&mut image, 0x58 + 20, &0x200_u32.to_le_bytes());
    write(
        &mut image,
        0x200,
        b"Linux version 6.12.95+deb12-arm64 (x)\n\0",
    );
    assert!(Arm64Image::parse(&image).is_ok(), "a seed is accepted");

    let mut zboot = vec![0; 0x80];
    write(&mut zboot, 0, b"MZ\0\0zimg\x60\0\0\0\x10\0\0\0");
    write(&mut zboot, 24, b"zstd22\0");
    write(&mut zboot, 56, b"\xcd\x23\x82\x81\x40");
    write(&mut zboot, 0x40, b"PE\0\0\x64\xaa");
    write(&mut zboot, 0x60, b"\x28\xb5\x2f\xfd");
    write(&mut zboot, 0x70, &0x1234_u32.to_le_bytes());
    assert!(
        matches!(image::packed_arm64(&zboot), Ok(Some(_))),
        "a seed is accepted"
    );
    vec![image, zboot, b"\x1f\x8b\x08\0\x34\x12\0\0".to_vec()]
}

/// An ELF file with one segment, and a table of relocations.
pub fn vmlinuxes() -> Vec<Vec<u8>> {
    let table = |parts: &[&[u32]]| {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(0x180, 0);
        write(&mut elf, 16, &[2, 0, 62, 0]);
        write(&mut elf, 24, &0x100_0010_u64.to_le_bytes());
        write(&mut elf, 32, &64_u64.to_le_bytes());
        write(&mut elf, 54, &[56, 0, 1]);
        write(&mut elf, 64, &1_u32.to_le_bytes());
        let words = [
            0x80,
            0xffff_ffff_8100_0000,
            0x100_0000,
            0x100,
            0x2000,
            0x20_0000_u64,
        ];
        for (n, word) in words.into_iter().enumerate() {
            write(&mut elf, 72 + 8 * n, &word.to_le_bytes());
        }
        for part in parts {
            let words = std::iter::once(&0).chain(part.iter());
            elf.extend(words.flat_map(|word| word.to_le_bytes()));
        }
        elf
    };
    let (wide, narrow) = ([0x8100_0008, 0x8100_0040], [0x8100_0020]);
    vec![table(&[&wide, &narrow]), table(&[&wide, &narrow, &narrow])]
}

pub fn initrds() -> Vec<Vec<u8>> {
    let mut writer = cpio::Writer::new();
    let mut write = || {
        writer.dir(b"dev", 0o755)?;
        writer.file(b"init", 0o755, b"#!/bin/sh")?;
        writer.linked(&[b"a", b"b"], 0o644, b"twice")?;
        writer.symlink(b"bin", b"usr/bin")
    };
    write().expect("a small archive");
    vec![
        writer.finish(),
        b"\x1f\x8b\x08\0\0\0\0\0".to_vec(),
        b"\x28\xb5\x2f\xfd\0\0\0\0".to_vec(),
        b"\xfd7zXZ\0\0\0".to_vec(),
    ]
}
