use std::borrow::Cow;
use std::path::Path;

use kho::image::KernelNeeds;
use kho::tree::{Event, Reader, Writer};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_kexec::arm64::{self, ENTRY_LEN, Load, assemble, params_len};
use kho_kexec::assemble::{AssembleError, Placement, SegmentKind};
use kho_kexec::carrier::RNG_SEED_LEN;
use kho_kexec::devicetree::{
    DeviceTree, DeviceTreeError, Handover, MAX_LEN, MAX_RANGES, NextKernel,
};
use kho_kexec::image::{
    Arm64Image, Arm64ImageError, Compression, Image, PackedArm64, packed_arm64, parse,
};
use proptest::prelude::*;

use crate::fixture::{kernel, put, unhex};

/// `image_size` and the first 64 bytes of Debian's cloud kernels 6.1, 6.12 and 7.3.
const HEADERS: [(u64, &str); 3] = [
    (
        0x01aa_0000,
        "4d5a40fa53234e1400000000000000000000aa01000000000a00000000000000\
         00000000000000000000000000000000000000000000000041524d6440000000",
    ),
    (
        0x0223_0000,
        "4d5a40fa3b88611400000000000000000000230200000000\
         0a0000000000000000000000000000000000000000000000000000000000000041524d6440000000",
    ),
    (
        0x028d_0000,
        "4d5a40fa3b9c811400000000000000000000 8d02000000000a00000000000000\
         00000000000000000000000000000000000000000000000041524d6440000000",
    ),
];

const RELEASE: &str = "6.12.95+deb12-cloud-arm64";
/// Bytes of the made-up kernels.
const LEN: usize = 0x3000;

/// A kernel with a header of Debian's, a PE header with two sections, and a banner behind the text that looks like one.
fn image_of(header: &str) -> Vec<u8> {
    let mut file = unhex(header);
    file.resize(LEN, 0);
    put(&mut file, 0x40, b"PE\0\0");
    put(&mut file, 0x44, &0xaa64_u16.to_le_bytes());
    put(&mut file, 0x46, &2_u16.to_le_bytes());
    put(&mut file, 0x54, &0xa0_u16.to_le_bytes());
    let table = 0x40 + 24 + 0xa0;
    for (n, (size, at)) in [(0x1000_u32, 0x1000_u32), (0x1000, 0x2000)]
        .iter()
        .enumerate()
    {
        put(&mut file, table + 40 * n + 16, &size.to_le_bytes());
        put(&mut file, table + 40 * n + 20, &at.to_le_bytes());
    }
    put(&mut file, 0x1800, b"Linux version %s (%s)\0");
    let banner = format!("Linux version {RELEASE} (debian-kernel@lists.debian.org) #1 SMP\n\0");
    put(&mut file, 0x2000, banner.as_bytes());
    file
}

fn image() -> Vec<u8> {
    image_of(HEADERS[1].1)
}

#[test]
fn debian_images_are_understood() {
    for (size, header) in HEADERS {
        let mut file = image_of(header);
        // A signature behind the kernel.
        file.extend([0x5a; 1472]);
        let image = Arm64Image::parse(&file).unwrap();
        assert_eq!(image.release(), Some(RELEASE));
        assert!(image.banner().unwrap().ends_with("#1 SMP"));
        assert_eq!((image.header().mem_size, image.entry_offset()), (size, 0));
        assert_eq!(
            (image.page_size(), image.header().cmdline_max),
            (4096, 2047)
        );
        assert_eq!(image.payload(), &file[..LEN]);
        assert!(image.check_page_size(4096).is_ok());
        assert!(image.check_page_size(65536).is_err());
        let needs = KernelNeeds::from(image.header());
        assert_eq!((needs.align, needs.mem_size), (2 << 20, size));
        assert_eq!(needs.reserve_len(), Some(size));
    }
}

/// A kernel of a distribution, for the test of whole kernels.
pub fn whole_kernel(file: &[u8], path: &Path) {
    let image = Arm64Image::parse(file).unwrap();
    let path = path.display();
    let release = image.release().unwrap();
    assert!(release.ends_with("-arm64"), "{path}: {release}");
    let payload = image.payload().len();
    assert!(
        payload > 1 << 20 && payload as u64 <= image.header().mem_size,
        "{path}"
    );
    for len in [payload - 1, payload / 2, 4096] {
        let cut = Arm64Image::parse(&file[..len]);
        assert!(
            matches!(cut, Err(Arm64ImageError::Truncated { .. })),
            "{path} cut to {len}"
        );
    }
}

#[test]
fn old_and_odd_images_are_refused_by_name() {
    type Case = (usize, u64, &'static str);
    let cases: [Case; 8] = [
        (16, 0, "does not say how much memory it needs"),
        (24, 0xb, "the arm64 kernel is big-endian (flags 0xb)"),
        (24, 0x2, "has to lie at the start of memory (flags 0x2)"),
        (24, 0x8, "flags at offset 0x18 is 0x8, without a page size"),
        (8, 0x20_0000, "text_offset at offset 0x8 is 0x200000"),
        (8, 0x800, "text_offset at offset 0x8 is 0x800"),
        (16, 0x2fff, "image_size at offset 0x10 is 0x2fff, smaller"),
        (16, 1 << 40, "image_size at offset 0x10 is 0x10000000000"),
    ];
    for (at, value, expected) in cases {
        let mut file = image();
        put(&mut file, at, &value.to_le_bytes());
        let text = Arm64Image::parse(&file).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let mut file = image();
    put(&mut file, 8, &0x8_0000_u64.to_le_bytes());
    put(&mut file, 24, &0xe_u64.to_le_bytes());
    let image = Arm64Image::parse(&file).unwrap();
    assert_eq!((image.entry_offset(), image.page_size()), (0x8_0000, 65536));
    assert_eq!(image.header().mem_size, 0x8_0000 + 0x223_0000);
    let text = image.check_page_size(4096).unwrap_err().to_string();
    assert!(
        text.contains("pages of 64 KiB and the running kernel pages of 4 KiB"),
        "{text}"
    );
}

#[test]
fn a_cut_image_is_missed() {
    let file = image();
    for len in [LEN - 1, 0x1000, 0x200] {
        assert_eq!(
            Arm64Image::parse(&file[..len]).unwrap_err(),
            Arm64ImageError::Truncated {
                len: len as u64,
                needed: LEN as u64
            }
        );
    }
    for len in 0..64 {
        assert!(Arm64Image::parse(&file[..len]).is_err());
    }
}

/// Each parser names the other architecture's kernels.
#[test]
fn kernels_of_the_other_architecture_are_refused_by_name() {
    let refused = |file: &[u8]| parse(file).unwrap_err().to_string();
    assert_eq!(
        refused(&image()),
        "this is an arm64 Image; needed is a bzImage for x86_64 (Debian: /boot/vmlinuz-*-amd64)"
    );
    let zboot = zboot(b"\x1f\x8b\x08 packed", b"gzip", 0x1000);
    assert!(refused(&zboot).starts_with("this is an EFI zboot kernel for arm64; needed is"));
    assert_eq!(
        Arm64Image::parse(&kernel()).unwrap_err().to_string(),
        "this is a bzImage, a kernel for x86; needed is an arm64 Image (Debian: /boot/vmlinuz-*-arm64)"
    );
    let mut riscv = zboot.clone();
    let pe = 0x44;
    put(&mut riscv, pe, &0x5064_u16.to_le_bytes());
    let text = packed_arm64(&riscv).unwrap_err().to_string();
    assert!(
        text.starts_with("this is an EFI zboot kernel for RISC-V;"),
        "{text}"
    );
    assert_eq!(packed_arm64(&kernel()), Ok(None));
    assert_eq!(packed_arm64(&image()), Ok(None));
}

/// A zboot kernel with this payload and name; the length follows unless the format is gzip.
fn zboot(payload: &[u8], name: &[u8], len: u32) -> Vec<u8> {
    let mut file = vec![0; 0x200];
    put(&mut file, 0, b"MZ\0\0zimg");
    put(&mut file, 8, &0x200_u32.to_le_bytes());
    put(&mut file, 24, name);
    put(&mut file, 56, &0x8182_23cd_u32.to_le_bytes());
    put(&mut file, 60, &0x40_u32.to_le_bytes());
    put(&mut file, 0x40, b"PE\0\0");
    put(&mut file, 0x44, &0xaa64_u16.to_le_bytes());
    file.extend(payload);
    let mut size = payload.len() as u32;
    file.extend(len.to_le_bytes());
    if name == b"gzip" {
        size += 4;
    }
    put(&mut file, 12, &size.to_le_bytes());
    file.extend([0; 64]);
    file
}

#[test]
fn packed_kernels_are_found() {
    let zstd = zboot(b"\x28\xb5\x2f\xfd packed", b"zstd22", 0x12_3456);
    assert_eq!(
        packed_arm64(&zstd),
        Ok(Some(PackedArm64 {
            format: Compression::Zstd,
            bytes: b"\x28\xb5\x2f\xfd packed",
            len: 0x12_3456,
        }))
    );
    let gzip = zboot(b"\x1f\x8b\x08 packed", b"gzip", 0x1234);
    let found = packed_arm64(&gzip).unwrap().unwrap();
    assert_eq!((found.format, found.len), (Compression::Gzip, 0x1234));
    assert_eq!(found.bytes, b"\x1f\x8b\x08 packed\x34\x12\0\0");
    let plain = packed_arm64(found.bytes).unwrap().unwrap();
    assert_eq!(plain, found);

    for (change, expected) in [
        (
            (8, 0x10_u32),
            "payload_offset at offset 0x8 is 0x10, inside the header",
        ),
        ((12, 0x1000), "truncated: 0x1200 bytes belong to it"),
        ((12, u32::MAX), "truncated: 0x1000001ff bytes"),
        (
            (8, 0x240),
            "packed in an unknown way (\"zstd22\", its data begins with [00,",
        ),
    ] {
        let mut file = zstd.clone();
        put(&mut file, change.0, &change.1.to_le_bytes());
        let text = packed_arm64(&file).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    for len in [0, 63, (1 << 30) + 1] {
        let text = packed_arm64(&zboot(b"\x1f\x8b\x08", b"gzip", len)).unwrap_err();
        assert!(text.to_string().contains("not between 64 bytes and 1 GiB"));
    }
}

// Devicetrees.

/// The devicetree of QEMU's machine "virt", as `-machine virt,gic-version=3,dumpdtb=` writes it, without its padding.
const VIRT: &[u8] = include_bytes!("virt.dtb");

/// The tree with these entries in its reservation block, and room behind it as firmware leaves it.
fn with_reservations(tree: &[u8], entries: &[PhysRange]) -> Vec<u8> {
    let word = |at: usize| u32::from_be_bytes(*tree[at..].first_chunk().unwrap());
    let (block, grown) = (word(16) as usize, 16 * entries.len());
    let mut out = tree[..block].to_vec();
    for entry in entries {
        out.extend(entry.start().get().to_be_bytes());
        out.extend(entry.len().to_be_bytes());
    }
    out.extend(&tree[block..]);
    for at in [8, 12] {
        put(&mut out, at, &(word(at) + grown as u32).to_be_bytes());
    }
    out.resize(out.len() + 0x1000, 0);
    let len = out.len() as u32;
    put(&mut out, 4, &len.to_be_bytes());
    out
}

/// The stub of a machine with ACPI, as the EFI stub makes it (`drivers/firmware/efi/libstub/fdt.c`).
fn acpi() -> Vec<u8> {
    let fill = |w: &mut Writer<'_>| {
        w.begin_node("").unwrap();
        w.begin_node("chosen").unwrap();
        w.prop_u64("linux,uefi-system-table", 0x13_fc00_0018_u64.swap_bytes())
            .unwrap();
        w.prop_u64("linux,uefi-mmap-start", 0x13_f000_0000_u64.swap_bytes())
            .unwrap();
        w.prop_str("bootargs", "root=/dev/vda1").unwrap();
        w.end_node().unwrap();
        w.end_node().unwrap();
    };
    let mut measure = Writer::measuring();
    fill(&mut measure);
    let mut bytes = vec![0; measure.finish().unwrap()];
    let mut writer = Writer::new(&mut bytes);
    fill(&mut writer);
    writer.finish().unwrap();
    bytes
}

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

fn handover() -> Handover {
    Handover {
        state_tree: range(0x5000_0000, 0x1234),
        mem_cache: vec![
            range(0x5000_0000, 0x2000),
            range(0x4800_0000, 0x20_0000),
            range(0x4900_0000, 0x1000),
        ],
        scratch: range(0x6000_0000, 0x1000_0000),
    }
}

const SEED: [u8; RNG_SEED_LEN] = [0xa5; RNG_SEED_LEN];

fn next(handover: Option<&Handover>) -> NextKernel<'_> {
    NextKernel {
        cmdline: b"console=ttyAMA0 root=/dev/vda1",
        initrd: Some(range(0x6800_0000, 0x12_3457)),
        kaslr_seed: 0x0123_4567_89ab_cdef,
        rng_seed: &SEED,
        handover,
    }
}

/// All properties by path, without those of `/chosen`.
fn hardware(tree: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut path = Vec::new();
    let mut found = Vec::new();
    for event in Reader::new(tree).unwrap().walk() {
        match event {
            Event::Begin(node) => {
                path.push(node.name().to_owned());
                found.push((path.join("/"), Vec::new()));
            }
            Event::Prop(prop) => found.push((
                format!("{}:{}", path.join("/"), prop.name()),
                prop.value().bytes().to_vec(),
            )),
            Event::End => {
                path.pop();
            }
        }
    }
    found.retain(|(path, _)| !path.starts_with("/chosen"));
    found
}

/// The tree without reservations, which the state tree's reader accepts.
fn plain(tree: &[u8]) -> Vec<u8> {
    let mut tree = tree.to_vec();
    let at = u32::from_be_bytes(*tree[16..].first_chunk().unwrap()) as usize;
    tree[at..at + 16].fill(0);
    tree
}

fn chosen(tree: &[u8], name: &str) -> Option<Vec<u8>> {
    let tree = plain(tree);
    let reader = Reader::new(&tree).unwrap();
    let node = reader.path("/chosen")?;
    Some(node.prop(name)?.value().bytes().to_vec())
}

#[test]
fn only_chosen_and_the_reservations_change() {
    let handover = handover();
    for tree in [VIRT.to_vec(), acpi()] {
        let parsed = DeviceTree::parse(&tree).unwrap();
        assert_eq!(parsed.reservations(), []);
        assert_eq!(parsed.handover(), Ok(None));
        let edited = parsed.edit(&next(Some(&handover))).unwrap();
        assert_eq!(hardware(&plain(&edited)), hardware(&tree));
        for kept in [
            "stdout-path",
            "linux,uefi-system-table",
            "linux,uefi-mmap-start",
        ] {
            assert_eq!(chosen(&edited, kept), chosen(&tree, kept), "{kept}");
        }
        assert_eq!(
            chosen(&edited, "bootargs").unwrap(),
            b"console=ttyAMA0 root=/dev/vda1\0"
        );
        let be = |value: u64| Some(value.to_be_bytes().to_vec());
        assert_eq!(chosen(&edited, "linux,initrd-start"), be(0x6800_0000));
        assert_eq!(chosen(&edited, "linux,initrd-end"), be(0x6812_3457));
        assert_eq!(chosen(&edited, "kaslr-seed"), be(0x0123_4567_89ab_cdef));
        assert_eq!(chosen(&edited, "rng-seed").unwrap(), SEED);

        let arrived = DeviceTree::parse(&edited).unwrap();
        assert_eq!(arrived.handover(), Ok(Some(handover.clone())));
        assert_eq!(arrived.reservations(), handover.mem_cache);
        // The kernel after the next: nothing of this handover is left.
        let mut last = next(None);
        last.initrd = None;
        let again = arrived.edit(&last).unwrap();
        for gone in [
            "kho,state-tree",
            "kho,mem-cache",
            "kho,scratch",
            "linux,initrd-end",
        ] {
            assert_eq!(chosen(&again, gone), None, "{gone}");
        }
        assert_eq!(DeviceTree::parse(&again).unwrap().reservations(), []);
        assert_eq!(hardware(&plain(&again)), hardware(&tree));
    }
}

#[test]
fn reservations_of_the_firmware_stay_for_ever() {
    let (firmware, handover) = ([range(0, 0x1000), range(0x7fff_0003, 5)], handover());
    let first = DeviceTree::parse(&with_reservations(VIRT, &firmware)).unwrap();
    assert_eq!(first.reservations(), firmware);
    let hop =
        |tree: &DeviceTree| DeviceTree::parse(&tree.edit(&next(Some(&handover))).unwrap()).unwrap();
    let second = hop(&first);
    let expected: Vec<_> = firmware
        .iter()
        .chain(&handover.mem_cache)
        .copied()
        .collect();
    assert_eq!(second.reservations(), expected);
    assert_eq!(hop(&second).reservations(), expected);
    // U-Boot reserves the initrd too; the next kernel has another one.
    let initrd = with_reservations(
        &first.edit(&next(None)).unwrap(),
        &[range(0x6800_0000, 0x12_4000)],
    );
    let initrd = DeviceTree::parse(&initrd).unwrap();
    assert_eq!(initrd.reservations().len(), 3);
    assert_eq!(hop(&initrd).reservations(), expected);
}

#[test]
fn a_tree_without_chosen_gets_one() {
    let mut bytes = [0; 256];
    let mut w = Writer::new(&mut bytes);
    w.begin_node("").unwrap();
    w.begin_node("memory").unwrap();
    w.end_node().unwrap();
    w.end_node().unwrap();
    let len = w.finish().unwrap();
    let tree = DeviceTree::parse(&bytes[..len]).unwrap();
    let edited = tree.edit(&next(Some(&handover()))).unwrap();
    let arrived = DeviceTree::parse(&edited).unwrap();
    assert_eq!(arrived.handover(), Ok(Some(handover())));
    assert_eq!(hardware(&plain(&edited)), hardware(&bytes[..len]));
}

#[test]
fn a_damaged_handover_is_named() {
    let good = DeviceTree::parse(VIRT)
        .unwrap()
        .edit(&next(Some(&handover())))
        .unwrap();
    let at_value = |name: &str| {
        let value = chosen(&good, name).unwrap();
        good.windows(value.len())
            .rposition(|part| part == value)
            .unwrap()
    };
    let fails = |name: &str, offset: usize, value: u64, expected: &str| {
        let mut bad = good.clone();
        put(&mut bad, at_value(name) + offset, &value.to_be_bytes());
        let tree = DeviceTree::parse(&bad).unwrap();
        let text = tree.handover().unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        assert!(tree.edit(&next(None)).is_err());
    };
    fails(
        "kho,state-tree",
        0,
        0x5000_1000,
        "/chosen/kho,state-tree of the devicetree",
    );
    fails(
        "kho,state-tree",
        8,
        u64::MAX,
        "the impossible range 0x50000000, 0xffffffffffffffff",
    );
    fails("kho,mem-cache", 16, 0x4800_0001, "is not whole pages");
    fails(
        "kho,mem-cache",
        24,
        0,
        "the impossible range 0x48000000, 0x0 bytes",
    );
    fails("kho,mem-cache", 16, 0x4a00_0000, "does not ascend");
    fails("kho,mem-cache", 32, 0x4801_0000, "overlaps another range");
    fails("kho,scratch", 0, 0x4000_0000, "overlaps scratch");
    // A length word stands 8 bytes before the value.
    for (name, len, expected) in [
        (
            "kho,scratch",
            8_u32,
            "/chosen/kho,scratch of the devicetree has 0x8 bytes",
        ),
        ("kho,mem-cache", 40, "pairs of an address and a size"),
    ] {
        let mut bad = good.clone();
        put(&mut bad, at_value(name) - 8, &len.to_be_bytes());
        // The rest of the value has to be something else: padding.
        let end = at_value(name) + len as usize;
        for at in (end..at_value(name) + chosen(&good, name).unwrap().len()).step_by(4) {
            put(&mut bad, at, &4_u32.to_be_bytes());
        }
        let text = DeviceTree::parse(&bad)
            .unwrap()
            .handover()
            .unwrap_err()
            .to_string();
        assert!(text.contains(expected), "{text}");
    }
    let mut bad = good.clone();
    let name = bad
        .windows(11)
        .rposition(|part| part == b"kho,scratch")
        .unwrap();
    put(&mut bad, name, b"kho,scratck");
    assert_eq!(
        DeviceTree::parse(&bad).unwrap().handover(),
        Err(DeviceTreeError::Incomplete {
            has: "kho,state-tree",
            lacks: "kho,scratch"
        })
    );
}

#[test]
fn hostile_containers_are_refused() {
    let parse = |bytes: &[u8]| DeviceTree::parse(bytes).map(|_| ()).unwrap_err();
    assert!(matches!(parse(b""), DeviceTreeError::Tree(_)));
    assert!(matches!(
        parse(b"MZ and so on, no tree"),
        DeviceTreeError::Tree(_)
    ));
    for at in [0_u32, 39, 0x7fff_ffff] {
        let mut bad = VIRT.to_vec();
        put(&mut bad, 16, &at.to_be_bytes());
        assert_eq!(parse(&bad), DeviceTreeError::Reservations { at });
    }
    let many = vec![range(0x1000, 0x1000); MAX_RANGES];
    assert!(DeviceTree::parse(&with_reservations(VIRT, &many)).is_ok());
    let many = vec![range(0x1000, 0x1000); MAX_RANGES + 1];
    assert!(matches!(
        parse(&with_reservations(VIRT, &many)),
        DeviceTreeError::Reservations { .. }
    ));
    let mut bad = with_reservations(VIRT, &many[..1]);
    put(&mut bad, 40, &u64::MAX.to_be_bytes());
    assert!(matches!(
        parse(&bad),
        DeviceTreeError::Range {
            start: u64::MAX,
            ..
        }
    ));
    let mut bad = VIRT.to_vec();
    put(&mut bad, 4, &(MAX_LEN as u32 + 1).to_be_bytes());
    assert_eq!(parse(&bad), DeviceTreeError::TooLarge { len: MAX_LEN + 1 });
}

#[test]
fn a_tree_that_the_kernel_would_not_map_is_not_made() {
    let mut bytes = VIRT.to_vec();
    bytes.resize(MAX_LEN as usize, 0);
    put(&mut bytes, 4, &(MAX_LEN as u32).to_be_bytes());
    let tree = DeviceTree::parse(&bytes).unwrap();
    assert!(
        tree.edit(&next(None)).unwrap().len() < 0x3000,
        "without the padding"
    );
    let long = vec![b'x'; MAX_LEN as usize];
    let mut next = next(None);
    next.cmdline = &long;
    assert!(matches!(
        tree.edit(&next),
        Err(DeviceTreeError::TooLarge { .. })
    ));
    let many: Vec<_> = (0..=MAX_RANGES as u64)
        .map(|n| range(n << 20, 0x1000))
        .collect();
    let handover = Handover {
        state_tree: many[0],
        mem_cache: many,
        scratch: range(1 << 40, 1 << 30),
    };
    next.cmdline = b"";
    next.handover = Some(&handover);
    assert!(matches!(
        tree.edit(&next),
        Err(DeviceTreeError::TooManyRanges { .. })
    ));
}

/// Ranges of whole pages that do not touch, the first anywhere among them.
fn mem_caches() -> impl Strategy<Value = Vec<PhysRange>> {
    (
        prop::collection::vec((1_u64..1 << 20, 1_u64..1 << 20), 1..300),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(steps, first)| {
            let mut at = 1 << 30;
            let mut ranges = Vec::new();
            for (gap, pages) in steps {
                at += gap * PAGE_SIZE;
                ranges.push(range(at, pages * PAGE_SIZE));
                at += pages * PAGE_SIZE;
            }
            let state = ranges.remove(first.index(ranges.len()));
            ranges.insert(0, state);
            ranges
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A handover arrives as it was sent, through any number of hops, and the segment is long enough.
    #[test]
    fn handovers_arrive(caches in prop::collection::vec(mem_caches(), 1..4), line in "[ -~]{0,2000}") {
        let mut tree = DeviceTree::parse(VIRT).unwrap();
        let mut len = VIRT.len();
        for mem_cache in caches {
            let handover = Handover {
                state_tree: mem_cache[0],
                scratch: range(0x1000, 0x1000),
                mem_cache,
            };
            let mut next = next(Some(&handover));
            next.cmdline = line.as_bytes();
            let bytes = tree.edit(&next).unwrap();
            let bound = params_len(len as u64, line.len() as u64, handover.mem_cache.len());
            prop_assert!(bytes.len() + 8 + ENTRY_LEN <= bound as usize);
            len = bytes.len();
            tree = DeviceTree::parse(&bytes).unwrap();
            prop_assert_eq!(tree.reservations(), &handover.mem_cache);
            prop_assert_eq!(tree.handover().unwrap().unwrap(), handover);
        }
    }

    /// Damage is an error or another valid tree, which an edit makes a valid tree of.
    #[test]
    fn damage_does_not_spread(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let sent = DeviceTree::parse(VIRT).unwrap().edit(&next(Some(&handover()))).unwrap();
        let mut bytes = sent;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(tree) = DeviceTree::parse(&bytes)
            && let Ok(edited) = tree.edit(&next(Some(&handover())))
        {
            let again = DeviceTree::parse(&edited).unwrap();
            prop_assert_eq!(again.handover().unwrap(), Some(handover()));
        }
    }

    #[test]
    fn any_bytes_are_no_image(bytes in prop::collection::vec(any::<u8>(), 0..512), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 64 {
            put(&mut bytes, 56, b"ARM\x64");
        }
        if let Ok(image) = Arm64Image::parse(&bytes) {
            prop_assert!(image.header().mem_size >= image.payload().len() as u64);
        }
        let _ = packed_arm64(&bytes);
    }
}

// Segments.

const BASE: u64 = 0x6000_0000;

fn placement(image: &Arm64Image<'_>) -> Placement {
    Placement {
        kernel: range(BASE, image.header().mem_size),
        initrd: Some(range(0x6800_0000, 0x20_0000)),
        params: range(0x6900_0000, 0x4000),
        state: range(0x5000_0000, 0x2000),
    }
}

fn with_load(change: impl FnOnce(&mut Load<'_>), check: impl FnOnce(&Load<'_>)) {
    let mut file = image();
    put(&mut file, 8, &0x8_0000_u64.to_le_bytes());
    let image = Arm64Image::parse(&file).unwrap();
    let running = DeviceTree::parse(VIRT).unwrap();
    let handover = handover();
    let mut load = Load {
        image: &image,
        initrd: Some(Cow::Borrowed(b"an initrd")),
        cmdline: b"console=ttyAMA0",
        running: &running,
        kaslr_seed: 7,
        rng_seed: &SEED,
        tree: Some(b"the state tree"),
        reserved: &handover.mem_cache,
        scratch: handover.scratch,
        placement: placement(&image),
    };
    change(&mut load);
    check(&load);
}

#[test]
fn segments_are_what_the_kernel_expects() {
    with_load(
        |_| {},
        |load| {
            let assembled = assemble(load.clone()).unwrap();
            let of = |kind| assembled.segments.iter().find(|s| s.kind == kind).unwrap();
            let kernel = of(SegmentKind::Kernel);
            assert_eq!(kernel.dest, range(BASE + 0x8_0000, 0x223_0000));
            assert_eq!(kernel.bytes.len(), LEN);
            assert_eq!(of(SegmentKind::Initrd).bytes, Cow::from(b"an initrd"));
            assert_eq!(of(SegmentKind::State).bytes, Cow::from(b"the state tree"));
            let params = of(SegmentKind::Params);
            let code = (assembled.entry.get() - params.dest.start().get()) as usize;
            assert!(assembled.entry.is_aligned(arm64::ENTRY_ALIGN));
            assert_eq!(
                params.bytes[code..],
                arm64::code(params.dest.start(), kernel.dest.start())
            );
            let tree = DeviceTree::parse(&params.bytes).unwrap();
            let arrived = tree.handover().unwrap().unwrap();
            assert_eq!(arrived.state_tree, range(0x5000_0000, 14));
            assert_eq!(arrived.mem_cache, load.reserved);
            assert_eq!(
                chosen(&params.bytes, "linux,initrd-end").unwrap(),
                (0x6800_0000_u64 + 9).to_be_bytes()
            );
        },
    );
}

#[test]
fn a_start_without_a_handover_has_no_state() {
    with_load(
        |load| (load.tree, load.reserved, load.initrd) = (None, &[], None),
        |load| {
            let assembled = assemble(load.clone()).unwrap();
            let kinds: Vec<_> = assembled.segments.iter().map(|s| s.kind).collect();
            assert_eq!(kinds, [SegmentKind::Kernel, SegmentKind::Params]);
            let tree = DeviceTree::parse(&assembled.segments[1].bytes).unwrap();
            assert_eq!((tree.handover(), tree.reservations()), (Ok(None), &[][..]));
        },
    );
}

#[test]
fn unsafe_placements_are_refused() {
    type Change = fn(&mut Load<'_>);
    let cases: [(Change, &str); 8] = [
        (
            |load| load.placement.kernel = range(BASE + 0x1000, 0x300_0000),
            "the kernel cannot go to",
        ),
        (
            |load| load.placement.kernel = range(BASE, 0x223_0000),
            "the kernel cannot go to",
        ),
        (
            |load| load.placement.params = range(0x4800_0000, 0x4000),
            "would overwrite memory that is handed over",
        ),
        (
            |load| load.placement.params = range(0x6900_0000, 0x1000),
            "parameters segment",
        ),
        (
            |load| load.placement.initrd = Some(range(BASE + 0x223_0000, 0x1000)),
            "overlaps",
        ),
        (
            |load| load.placement.initrd = Some(range(BASE + (32 << 30), 0x1000)),
            "not in one window of 32 GiB",
        ),
        (
            |load| load.placement.state = range(0x5100_0000, 0x2000),
            "not inside the first range of kho,mem-cache",
        ),
        (
            |load| load.scratch = range(0x4800_0000, 0x1000_0000),
            "overlaps scratch",
        ),
    ];
    for (change, expected) in cases {
        with_load(change, |load| {
            let text = assemble(load.clone()).unwrap_err().to_string();
            assert!(text.contains(expected), "{expected}: {text}");
        });
    }
    with_load(
        |load| load.placement.initrd = None,
        |load| {
            assert!(matches!(
                assemble(load.clone()),
                Err(AssembleError::NotPlaced { .. })
            ));
        },
    );
    let long = [b'x'; 2048];
    with_load(
        |load| load.placement.initrd = Some(range(0x4000_0000, 0x1000)),
        |load| {
            let mut load = load.clone();
            assert!(
                assemble(load.clone()).is_ok(),
                "below the kernel, in the same window"
            );
            load.cmdline = &long;
            assert!(matches!(
                assemble(load.clone()),
                Err(AssembleError::Cmdline(_))
            ));
        },
    );
}
