//! A kernel that is laid out before the kexec. The kernel is made up: two segments and one of per-CPU data, with a few
//! addresses in them.

use kho_kexec::image::{BzImage, Compression, Image, Packed, Vmlinux, VmlinuxError, parse};
use proptest::prelude::*;

use crate::fixture::{PAYLOAD, SETUP, kernel, put};

/// `pref_address`, and the virtual address that corresponds to it.
const PREFERRED: u64 = 16 << 20;
const BASE: u64 = 0xffff_ffff_8000_0000 + PREFERRED;
const HUGE: u64 = 2 << 20;
/// The entry point.
const ENTRY: u64 = 0x123;
/// Bytes of the kernel in memory.
const MEMORY: u64 = 2 * HUGE + 0x5000;
/// Offset of the made-up packed kernel in the protected-mode part.
const PACKED: usize = 0x300;

/// Offsets in the kernel of 64-bit, inverse 32-bit and 32-bit addresses, and their values.
const WIDE: [(u64, u64); 2] = [(0x40, BASE + 0x1000), (HUGE + 0x18, BASE + HUGE)];
const INVERSE: [(u64, u32); 1] = [(0x60, 0x7f01_0000)];
const NARROW: [(u64, u32); 2] = [(0x80, 0x8100_0004), (2 * HUGE + 8, 0x0260_a000)];

/// The part of a made-up kernel that the tests vary.
struct Made {
    inverse: bool,
    table: bool,
}

const OLD: Made = Made {
    inverse: true,
    table: true,
};

/// The segments: offset, virtual and physical address, bytes in file and in memory.
fn segments() -> [[u64; 5]; 3] {
    let at = |offset: u64| PREFERRED + offset;
    [
        [HUGE, BASE, at(0), 0x2000, 0x3000],
        [2 * HUGE, BASE + HUGE, at(HUGE), 0x1000, 0x1000],
        [3 * HUGE, 0, at(2 * HUGE), 0x1000, 0x5000],
    ]
}

fn elf(made: &Made) -> Vec<u8> {
    let end = 3 * HUGE as usize + 0x1000;
    let mut file = vec![0x5a; end];
    file[..64].fill(0);
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &[2, 0, 62, 0, 1]);
    put(&mut file, 24, &(PREFERRED + ENTRY).to_le_bytes());
    put(&mut file, 32, &64u64.to_le_bytes());
    put(&mut file, 40, &(end as u64).to_le_bytes());
    put(&mut file, 54, &[56, 0, 4, 0, 64, 0, 2, 0, 1, 0]);
    for (n, [offset, virt, phys, len, memory]) in segments().into_iter().enumerate() {
        let at = 64 + 56 * n;
        put(&mut file, at, &[1, 0, 0, 0, 5, 0, 0, 0]);
        let words = [offset, virt, phys, len, memory, HUGE].map(u64::to_le_bytes);
        put(&mut file, at + 8, &words.concat());
        // Content that names its segment, and zeros at the end of the last one.
        let from = offset as usize..(offset + len) as usize;
        file[from].fill(0x10 + n as u8);
    }
    file[end - 0x800..].fill(0);
    // A note.
    put(&mut file, 64 + 56 * 3, &[4, 0, 0, 0]);
    for (at, value) in WIDE {
        put(&mut file, from(at), &value.to_le_bytes());
    }
    for (at, value) in INVERSE.into_iter().chain(NARROW) {
        put(&mut file, from(at), &value.to_le_bytes());
    }
    // Two section headers: an empty one, and one of the notes.
    let mut sections = vec![0; 128];
    put(&mut sections, 64 + 4, &[7]);
    put(&mut sections, 64 + 24, &0x100u64.to_le_bytes());
    put(&mut sections, 64 + 32, &0x20u64.to_le_bytes());
    file.extend(sections);
    if made.table {
        let word = |at: u64| (BASE + at) as u32;
        let mut table = vec![0];
        table.extend(WIDE.map(|(at, _)| word(at)));
        table.push(0);
        if made.inverse {
            table.extend(INVERSE.map(|(at, _)| word(at)));
            table.push(0);
        }
        table.extend(NARROW.map(|(at, _)| word(at)));
        file.extend(table.into_iter().flat_map(u32::to_le_bytes));
    }
    file
}

/// Offset in the file of this offset in the kernel.
fn from(at: u64) -> usize {
    let inside = |s: &&[u64; 5]| (s[2] - PREFERRED..s[2] - PREFERRED + s[3]).contains(&at);
    let all = segments();
    let segment = all.iter().find(inside).unwrap();
    (segment[0] + at - (segment[2] - PREFERRED)) as usize
}

/// A bzImage with these bytes as its packed kernel, which unpacks to `len` bytes.
fn image(packed: &[u8], len: usize, moves: bool) -> Vec<u8> {
    let mut file = kernel();
    file[SETUP..SETUP + PACKED].fill(0x90);
    put(&mut file, SETUP + PACKED, packed);
    put(
        &mut file,
        SETUP + PACKED + packed.len(),
        &(len as u32).to_le_bytes(),
    );
    put(&mut file, 0x248, &(PACKED as u32).to_le_bytes());
    put(&mut file, 0x24c, &(packed.len() as u32 + 4).to_le_bytes());
    if moves {
        put(&mut file, SETUP + 0x80, b"nokaslr\0");
    }
    file
}

const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd packed";

fn lay_out(elf: Vec<u8>, moves: bool) -> Result<Vmlinux, VmlinuxError> {
    let file = image(ZSTD, elf.len(), moves);
    let image = BzImage::parse(&file).unwrap();
    Vmlinux::lay_out(&image, &image.packed().unwrap(), elf)
}

fn field(result: Result<Vmlinux, VmlinuxError>) -> (&'static str, u64) {
    match result {
        Err(VmlinuxError::Unknown(field)) => (field.field, field.value),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_packed_kernel_is_found() {
    let file = image(ZSTD, 0x1234, true);
    let packed = BzImage::parse(&file).unwrap().packed().unwrap();
    let expected = Packed {
        format: Some(Compression::Zstd),
        bytes: ZSTD,
        len: 0x1234,
        moves: true,
    };
    assert_eq!(packed, expected);
    // The length is a part of a gzip stream.
    let gzip = b"\x1f\x8b packed";
    let file = image(gzip, 0x1234, false);
    let packed = BzImage::parse(&file).unwrap().packed().unwrap();
    assert_eq!(packed.bytes, [&gzip[..], &0x1234u32.to_le_bytes()].concat());
    assert!(!packed.moves);
    let file = image(b"who knows", 0x1234, true);
    assert_eq!(
        BzImage::parse(&file).unwrap().packed().unwrap().format,
        None
    );
}

#[test]
fn a_packed_kernel_outside_of_the_image_is_refused() {
    let with = |offset: u32, len: u32, unpacked: usize| {
        let mut file = image(ZSTD, unpacked, true);
        put(&mut file, 0x248, &offset.to_le_bytes());
        put(&mut file, 0x24c, &len.to_le_bytes());
        BzImage::parse(&file)
            .unwrap()
            .packed()
            .map(|packed| packed.len)
    };
    let (at, len, payload) = (PACKED as u32, ZSTD.len() as u32 + 4, PAYLOAD as u32);
    assert_eq!(with(at, len, 0x1000), Ok(0x1000));
    for (offset, len) in [
        (0, len),
        (payload, len),
        (at, payload - at + 1),
        (at, u32::MAX),
        (u32::MAX, u32::MAX),
        (at, 3),
    ] {
        assert!(with(offset, len, 0x1000).is_err(), "{offset:#x} {len:#x}");
    }
    // `init_size` of this kernel is 0x37dc000.
    assert_eq!(with(at, len, 0x37d_c000), Ok(0x37d_c000));
    for unpacked in [0x37d_c001, u32::MAX as usize, 0, 63] {
        let err = with(at, len, unpacked).unwrap_err().to_string();
        assert!(err.contains(&format!("{unpacked:#x}")), "{err}");
    }
}

#[test]
fn segments_lie_where_the_decompressor_puts_them() {
    let laid = lay_out(elf(&OLD), true).unwrap();
    let file = image(ZSTD, 0x1000, true);
    let outer = parse(&file).unwrap();
    assert_eq!(laid.format(), "vmlinux");
    assert_eq!(laid.release(), outer.release());
    assert_eq!(laid.entry_offset(), ENTRY);
    let (ours, theirs) = (laid.header(), outer.header());
    assert_eq!(ours.mem_size, MEMORY.next_multiple_of(HUGE));
    assert_eq!(ours.payload_len, laid.payload().len() as u64);
    assert_eq!(
        (ours.alignment, ours.lowest, ours.five_level_on),
        (theirs.alignment, theirs.lowest, theirs.five_level_on)
    );
    assert!(!laid.moved());
    let memory = laid.payload();
    // The zeros at the end are not stored.
    assert_eq!(memory.len() as u64, 2 * HUGE + 0x800);
    for (at, value) in [
        (0x1fff, 0x10),
        (0x2000, 0),
        (HUGE - 1, 0),
        (HUGE, 0x11),
        (HUGE + 0xfff, 0x11),
        (HUGE + 0x1000, 0),
        (2 * HUGE - 1, 0),
        (2 * HUGE, 0x12),
    ] {
        assert_eq!(memory[at as usize], value, "{at:#x}");
    }
}

#[test]
fn addresses_are_moved_with_the_kernel() {
    for inverse in [true, false] {
        let made = Made {
            inverse,
            table: true,
        };
        let elf = elf(&made);
        let size = (elf.len() as u64).next_multiple_of(HUGE);
        let places = ((1 << 30) - PREFERRED - size) / HUGE + 1;
        let original = lay_out(elf.clone(), true).unwrap();
        assert_eq!(original.places(), Some(places));
        for random in [0, 1, places - 1, places, u64::MAX] {
            let mut laid = original.clone();
            laid.relocate(random);
            assert!(laid.moved());
            let distance = random % places * HUGE;
            let mut expected = original.payload().to_vec();
            for (at, value) in WIDE {
                put(
                    &mut expected,
                    at as usize,
                    &(value + distance).to_le_bytes(),
                );
            }
            for (at, value) in NARROW {
                let value = value.wrapping_add(distance as u32);
                put(&mut expected, at as usize, &value.to_le_bytes());
            }
            for (at, value) in INVERSE.into_iter().filter(|_| inverse) {
                let value = value.wrapping_sub(distance as u32);
                put(&mut expected, at as usize, &value.to_le_bytes());
            }
            assert!(laid.payload() == expected, "{random:#x}");
            // The second call changes nothing.
            laid.relocate(random ^ 1);
            assert!(laid.payload() == expected, "{random:#x}");
        }
    }
}

#[test]
fn a_kernel_without_a_table_stays_where_it_is() {
    let made = Made {
        inverse: true,
        table: false,
    };
    let mut laid = lay_out(elf(&made), false).unwrap();
    assert_eq!(laid.places(), None);
    let before = laid.payload().to_vec();
    laid.relocate(7);
    assert!(laid.payload() == before && !laid.moved());
    // The decompressor and the table must agree.
    for (made, moves) in [(made, true), (OLD, false)] {
        assert_eq!(
            lay_out(elf(&made), moves).unwrap_err(),
            VmlinuxError::Relocations { moves }
        );
    }
}

#[test]
fn odd_files_are_refused() {
    let segment = |n: usize, field: usize| 64 + 56 * n + field;
    let end = 3 * HUGE + 0x1000;
    let cases: &[(&str, usize, u64)] = &[
        ("e_phoff", 32, u64::MAX),
        ("e_phoff", 32, end + 0x1000),
        ("e_entry", 24, PREFERRED - 1),
        ("e_entry", 24, PREFERRED + 0x2000),
        ("e_entry", 24, u64::MAX),
        ("p_align", segment(0, 48), 0),
        ("p_align", segment(0, 48), 0x1000),
        ("p_filesz", segment(2, 32), u64::MAX),
        ("p_filesz", segment(1, 8), u64::MAX),
        ("p_memsz", segment(0, 40), 0x1fff),
        ("p_paddr", segment(0, 24), PREFERRED + HUGE),
        ("p_paddr", segment(0, 24), 0),
        // Onto the segment before it, and past init_size.
        ("p_paddr", segment(1, 24), PREFERRED + 0x2000),
        ("p_paddr", segment(2, 40), u64::MAX),
        ("p_paddr", segment(2, 40), 0x37d_c000),
        ("p_vaddr", segment(1, 16), BASE),
        ("p_offset", segment(1, 8), 0x1000),
        ("e_shoff", 40, u64::MAX - 8),
        ("sh_size", end as usize + 64 + 32, u64::MAX),
    ];
    for (name, at, value) in cases {
        let mut file = elf(&OLD);
        put(&mut file, *at, &value.to_le_bytes());
        let (found, _) = field(lay_out(file, true));
        assert_eq!(found, *name, "{at:#x} {value:#x}");
    }
    let halves: &[(&str, usize, u16)] = &[
        ("e_ident", 0, 0),
        ("e_ident", 4, 0x0101),
        ("e_type", 16, 3),
        ("e_machine", 18, 183),
        ("e_phentsize", 54, 57),
        ("e_phnum", 56, 0),
        ("e_phnum", 56, 33),
        ("e_shentsize", 58, 65),
    ];
    for (name, at, value) in halves {
        let mut file = elf(&OLD);
        put(&mut file, *at, &value.to_le_bytes());
        assert_eq!(field(lay_out(file, true)).0, *name, "{value:#x}");
    }
    // The decoder returned more or fewer bytes than the image states.
    let file = image(ZSTD, elf(&OLD).len() + 1, true);
    let outer = BzImage::parse(&file).unwrap();
    let laid = Vmlinux::lay_out(&outer, &outer.packed().unwrap(), elf(&OLD));
    assert_eq!(field(laid), ("its length", elf(&OLD).len() as u64));
}

#[test]
fn odd_tables_are_refused() {
    let whole = elf(&OLD);
    let start = whole.len() - 4 * 8;
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = whole.clone();
        change(&mut file);
        field(lay_out(file, true))
    };
    let words = |file: &mut Vec<u8>, at: usize, value: u32| {
        put(file, start + 4 * at, &value.to_le_bytes());
    };
    const TABLE: &str = "the table of relocations";
    const PLACE: &str = "a relocation behind the ELF file";
    assert_eq!(with(&|file| words(file, 0, 7)), (TABLE, 7));
    assert_eq!(with(&|file| file.push(0)).0, TABLE);
    assert_eq!(with(&|file| file.extend([0; 4])), (TABLE, 4));
    // The table has one part only.
    assert_eq!(with(&|file| file.truncate(start + 12)), (TABLE, 1));
    assert_eq!(with(&|file| file.truncate(start + 4)), (TABLE, 1));
    // Below the kernel, behind it, across its end, and out of order.
    let last = BASE + 2 * HUGE + 0x1000;
    for (at, value) in [
        (1, BASE as u32 - 1),
        (1, 1),
        (1, 0x7fff_ffff),
        (7, last as u32),
        (7, last as u32 - 3),
        (7, u32::MAX),
        (2, BASE as u32 + 0x40),
        (2, BASE as u32 + 0x3f),
    ] {
        let found = with(&|file| words(file, at, value));
        assert_eq!(found, (PLACE, value.into()), "{at} {value:#x}");
    }
}

/// A kernel that is too long for its virtual addresses.
#[test]
fn there_has_to_be_a_place_for_the_kernel() {
    let mut file = image(ZSTD, elf(&OLD).len(), true);
    // pref_address
    let high = (1u64 << 30) - 2 * HUGE;
    put(&mut file, 0x258, &high.to_le_bytes());
    let outer = BzImage::parse(&file).unwrap();
    let mut elf = elf(&OLD);
    put(&mut elf, 24, &(high + ENTRY).to_le_bytes());
    for (n, [_, virt, phys, ..]) in segments().into_iter().enumerate() {
        let at = 64 + 56 * n;
        let virt = if virt == 0 {
            0
        } else {
            virt - PREFERRED + high
        };
        put(&mut elf, at + 16, &virt.to_le_bytes());
        put(&mut elf, at + 24, &(phys - PREFERRED + high).to_le_bytes());
    }
    let laid = Vmlinux::lay_out(&outer, &outer.packed().unwrap(), elf);
    assert_eq!(field(laid).0, "the kernel's length");
}

#[test]
fn neither_memory_nor_place_is_shown() {
    let mut laid = lay_out(elf(&OLD), true).unwrap();
    let before = format!("{laid:?}");
    laid.relocate(3);
    assert_eq!(format!("{laid:?}"), before);
    assert!(before.len() < 1000, "{before}");
}

/// Offsets of the bytes that headers and table occupy.
fn interesting() -> impl Strategy<Value = usize> {
    let end = 3 * HUGE as usize + 0x1000;
    prop_oneof![0..288usize, end..end + 128 + 32]
}

proptest! {
    #[test]
    fn any_header_and_table_is_laid_out_or_refused(
        changes in proptest::collection::vec((interesting(), any::<u8>()), 1..6),
        cut in proptest::option::of(0..(3 * HUGE as usize + 0x1100)),
    ) {
        let mut file = elf(&OLD);
        for (at, value) in changes {
            file[at] = value;
        }
        file.truncate(cut.unwrap_or(file.len()).max(64));
        if let Ok(mut laid) = lay_out(file, true) {
            laid.relocate(u64::MAX);
            let header = laid.header();
            prop_assert_eq!(header.payload_len, laid.payload().len() as u64);
            prop_assert!(laid.entry_offset() < header.payload_len);
            prop_assert!(header.mem_size >= header.payload_len && header.mem_size % 4096 == 0);
        }
    }
}
