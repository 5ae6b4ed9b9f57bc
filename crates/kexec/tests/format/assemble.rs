use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_kexec::assemble::{
    AssembleError, Assembled, Load, Placement, SegmentKind, arrival_archive, assemble, initrd_len,
    params_len,
};
use kho_kexec::bootparam::BootParams;
use kho_kexec::carrier::{Carrier, SetupDataCarrier, StateShape};
use kho_kexec::cmdline::{self, CmdlineError, CommandLine};
use kho_kexec::image::parse;

use crate::carrier::efi;
use crate::fixture::{PAYLOAD, kernel, memory_map, old_kernel, put, range, running};

const INITRD: &[u8] = b"\x28\xb5\x2f\xfd the user's initrd";
const TREE: &[u8] = b"the state tree";
const STATE: u64 = 0x1_4000_0000;

struct Setting {
    file: Vec<u8>,
    running: Box<BootParams>,
    cmdline: CommandLine,
    reserved: Vec<PhysRange>,
}

fn setting() -> Setting {
    Setting {
        file: kernel(),
        running: running(),
        cmdline: cmdline::build(b"root=/dev/vda", b"quiet", true, 2047).unwrap(),
        reserved: vec![range(STATE, 0x2000), range(0x1_8000_0000, 0x20_0000)],
    }
}

fn place(mem_size: u64) -> Placement {
    Placement {
        kernel: range(0x1000_0000, mem_size),
        initrd: Some(range(
            0x1800_0000,
            initrd_len(INITRD.len() as u64, 2, None).unwrap(),
        )),
        params: range(0x1600_0000, params_len(2047)),
        state: range(STATE, 0x2000),
    }
}

/// Assembles a load after `change` changed it.
fn with<R>(
    change: impl for<'a> FnOnce(&mut Load<'a>),
    look: impl FnOnce(Result<Assembled<'_>, AssembleError>) -> R,
) -> R {
    let set = setting();
    let image = parse(&set.file).unwrap();
    let map = memory_map();
    let mut load = Load {
        image: &*image,
        initrd: Some(INITRD),
        cmdline: &set.cmdline,
        arrive: true,
        running: &set.running,
        memory_map: &map,
        efi: None,
        acpi: None,
        five_level: true,
        rng_seed: &[7; 32],
        tree: Some(TREE),
        reserved: &set.reserved,
        placement: place(image.header().mem_size),
    };
    change(&mut load);
    look(assemble(&load, &SetupDataCarrier))
}

fn refused(change: impl for<'a> FnOnce(&mut Load<'a>)) -> AssembleError {
    with(change, |result| result.unwrap_err())
}

#[test]
fn the_segments_hold_everything_where_it_is_said_to_be() {
    with(
        |_| {},
        |assembled| {
            let assembled = assembled.unwrap();
            let kinds: Vec<_> = assembled.segments.iter().map(|s| s.kind).collect();
            assert_eq!(
                kinds,
                [
                    SegmentKind::Kernel,
                    SegmentKind::Initrd,
                    SegmentKind::Params,
                    SegmentKind::State
                ]
            );
            let [kernel, initrd, params, state] = &assembled.segments[..] else {
                unreachable!()
            };
            assert_eq!(
                (kernel.dest.start().get(), kernel.bytes.len()),
                (0x1000_0000, PAYLOAD)
            );

            // kho's archive comes first, and the user's bytes follow unchanged.
            let archive = arrival_archive(&setting().reserved, None).unwrap();
            assert_eq!(&initrd.bytes[..archive.len()], archive);
            assert_eq!(&initrd.bytes[archive.len()..], INITRD);
            assert!(archive.len().is_multiple_of(4));

            let word = |at: usize| u32::from_le_bytes(params.bytes[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_le_bytes(params.bytes[at..at + 8].try_into().unwrap());
            assert_eq!(
                (word(0x218), word(0x21c)),
                (0x1800_0000, initrd.bytes.len() as u32)
            );
            assert_eq!(
                word(0x228),
                0x1600_1000,
                "the command line is behind boot_params"
            );
            let line = b"rdinit=/.kho/arrive root=/dev/vda quiet\0";
            assert_eq!(&params.bytes[4096..4096 + line.len()], line);
            assert_eq!(long(0x250), STATE);
            let entry = (assembled.entry.get() - 0x1600_0000) as usize;
            assert!(entry >= 4096 + line.len() && entry.is_multiple_of(16));
            assert_eq!(params.bytes[entry], 0xfa, "cli");
            assert_eq!(long(entry + 0x80), 0x1600_0000, "boot_params");
            assert_eq!(long(entry + 0x88), 0x1000_0200, "startup_64");
            assert!(params.bytes.len() as u64 <= params_len(2047));
            assert_eq!(&state.bytes[0x1000..0x1000 + TREE.len()], TREE);
        },
    );
}

#[test]
fn a_plain_kexec_hands_over_nothing() {
    let plain = cmdline::build(b"quiet", b"", false, 2047).unwrap();
    let set = setting();
    let image = parse(&set.file).unwrap();
    let map = memory_map();
    let load = Load {
        image: &*image,
        initrd: Some(INITRD),
        cmdline: &plain,
        arrive: false,
        running: &set.running,
        memory_map: &map,
        efi: None,
        acpi: None,
        five_level: true,
        rng_seed: &[7; 32],
        tree: None,
        reserved: &[],
        placement: place(image.header().mem_size),
    };
    let assembled = assemble(&load, &SetupDataCarrier).unwrap();
    assert_eq!(&*assembled.segments[1].bytes, INITRD);
    let shape = StateShape {
        tree_len: None,
        reserved: 0,
        memory_map: map.len(),
        efi_regions: None,
        rng_seed: true,
    };
    assert_eq!(
        SetupDataCarrier.state_len(&shape).unwrap(),
        PAGE_SIZE,
        "only the seed"
    );
}

/// Kernels that would overwrite memory that is handed over, and kernels that cannot be entered, are refused only if the
/// load hands something over.
#[test]
fn a_kernel_that_cannot_take_over_is_refused() {
    let plain = cmdline::build(b"quiet", b"", false, 2047).unwrap();
    let map = memory_map();
    let set = setting();
    let refusal = |file: &[u8], five_level: bool, hand_over: bool| {
        let image = parse(file).unwrap();
        let load = Load {
            image: &*image,
            initrd: Some(INITRD),
            cmdline: if hand_over { &set.cmdline } else { &plain },
            arrive: hand_over,
            running: &set.running,
            memory_map: &map,
            efi: None,
            acpi: None,
            five_level,
            rng_seed: &[7; 32],
            tree: hand_over.then_some(TREE),
            reserved: if hand_over { &set.reserved } else { &[] },
            placement: place(image.header().mem_size),
        };
        assemble(&load, &SetupDataCarrier).err()
    };
    let mut without_five_level = kernel();
    put(&mut without_five_level, 0x236, &[0x1f, 0]);
    for (file, five_level, error) in [
        (kernel(), true, None),
        (old_kernel(), false, Some(AssembleError::NoSetupIndirect)),
        (
            without_five_level.clone(),
            true,
            Some(AssembleError::FiveLevel),
        ),
        (without_five_level, false, None),
    ] {
        assert_eq!(refusal(&file, five_level, true), error);
        assert_eq!(refusal(&file, five_level, false), None);
    }
}

/// A kernel without kexec of its own cannot take UEFI over; it still needs the address of ACPI's root pointer.
#[test]
fn uefi_goes_only_to_a_kernel_that_can_take_it_over() {
    let facts = efi();
    let map = memory_map();
    let mut set = setting();
    set.running.acpi_rsdp_addr = 0.into();
    let look = |file: &[u8]| {
        let image = parse(file).unwrap();
        let load = Load {
            image: &*image,
            initrd: Some(INITRD),
            cmdline: &set.cmdline,
            arrive: true,
            running: &set.running,
            memory_map: &map,
            efi: Some(&facts),
            acpi: Some(PhysAddr::new(0x7f77_e014)),
            five_level: false,
            rng_seed: &[7; 32],
            tree: Some(TREE),
            reserved: &set.reserved,
            placement: place(image.header().mem_size),
        };
        let assembled = assemble(&load, &SetupDataCarrier).unwrap();
        let params = &assembled.segments[2].bytes;
        assert_eq!(params[0x70..0x78], 0x7f77_e014_u64.to_le_bytes());
        (params[0x1c0..0x1c4].to_vec(), params[0x1d4..0x1d8].to_vec())
    };
    assert_eq!(look(&kernel()), (b"EL64".to_vec(), vec![240, 0, 0, 0]));
    let mut bare = kernel();
    put(&mut bare, 0x236, &[0x6f, 0]);
    assert_eq!(look(&bare), (vec![0; 4], vec![0; 4]));
}

#[test]
fn a_kernel_in_the_wrong_place_is_refused() {
    let kernel = |at: u64, len: u64| refused(|load| load.placement.kernel = range(at, len));
    let size = 0x37d_c000;
    for (at, len) in [
        (0x1010_0000, size),
        (0x80_0000, size),
        (0x1000_0000, size - 0x1000),
    ] {
        assert!(
            matches!(kernel(at, len), AssembleError::KernelPlace { .. }),
            "{at:#x} {len:#x}"
        );
    }
}

/// Placements that would destroy the handover are refused, even if the planner chose them.
#[test]
fn nothing_is_put_onto_what_is_handed_over() {
    let kept = range(0x1_8000_0000, 0x20_0000);
    let onto = |change: fn(&mut Placement)| refused(|load| change(&mut load.placement));
    for (kind, error) in [
        (
            SegmentKind::Kernel,
            onto(|p| p.kernel = range(0x1_7f00_0000, 0x400_0000)),
        ),
        (
            SegmentKind::Initrd,
            onto(|p| p.initrd = Some(range(0x1_801f_f000, 0x10_0000))),
        ),
        (
            SegmentKind::Params,
            onto(|p| p.params = range(0x1_8000_0000, 0x4000)),
        ),
    ] {
        match error {
            AssembleError::OntoKept {
                kind: seen,
                kept: seen_kept,
                ..
            } => assert_eq!((seen, seen_kept), (kind, kept)),
            other => panic!("{other}"),
        }
    }
    assert!(matches!(
        onto(|p| p.state = range(0x1_5000_0000, 0x2000)),
        AssembleError::StateNotReserved { .. }
    ));
    // Only the first of two pages is reserved.
    let half = refused(|load| load.reserved = const { &[] });
    assert!(
        matches!(half, AssembleError::StateNotReserved { .. }),
        "{half}"
    );
}

#[test]
fn places_are_checked() {
    let with_place = |change: fn(&mut Placement)| refused(|load| change(&mut load.placement));
    let error = with_place(|p| p.params = range(0x1000_1000, 0x4000));
    assert!(
        matches!(
            error,
            AssembleError::Overlap {
                kind: SegmentKind::Kernel,
                other: SegmentKind::Params,
                ..
            }
        ),
        "{error}"
    );
    let error = with_place(|p| p.params = range(0x1600_0000, 0x1000));
    assert!(
        matches!(
            error,
            AssembleError::TooShort {
                kind: SegmentKind::Params,
                ..
            }
        ),
        "{error}"
    );
    let error = with_place(|p| p.params = range(0x1600_0800, 0x4000));
    assert!(
        matches!(
            error,
            AssembleError::Misaligned {
                kind: SegmentKind::Params,
                ..
            }
        ),
        "{error}"
    );
    let error = with_place(|p| p.initrd = None);
    assert!(
        matches!(
            error,
            AssembleError::NotPlaced {
                kind: SegmentKind::Initrd
            }
        ),
        "{error}"
    );
    let error = with_place(|p| p.state = range(STATE, 0x1000));
    assert!(
        matches!(
            error,
            AssembleError::TooShort {
                kind: SegmentKind::State,
                ..
            }
        ),
        "{error}"
    );
    let end = PhysAddr::new(u64::MAX - 0xfff);
    let error = refused(|load| {
        load.placement.params =
            PhysRange::from_bounds(PhysAddr::new(end.get() - 0x1000), end).unwrap()
    });
    assert!(
        matches!(
            error,
            AssembleError::TooShort { .. } | AssembleError::Overlap { .. }
        ),
        "{error}"
    );
    assert!(matches!(
        refused(|load| load.arrive = false),
        AssembleError::NoArrival
    ));
}

#[test]
fn a_command_line_that_the_image_does_not_take_is_refused() {
    let long = CommandLine {
        line: vec![b'x'; 2048],
        rdinit: None,
    };
    let set = setting();
    let image = parse(&set.file).unwrap();
    let map = memory_map();
    let load = Load {
        image: &*image,
        initrd: None,
        cmdline: &long,
        arrive: true,
        running: &set.running,
        memory_map: &map,
        efi: None,
        acpi: None,
        five_level: true,
        rng_seed: &[7; 32],
        tree: Some(TREE),
        reserved: &set.reserved,
        placement: place(image.header().mem_size),
    };
    let error = assemble(&load, &SetupDataCarrier).unwrap_err();
    assert_eq!(
        error,
        AssembleError::Cmdline(CmdlineError::CommandLineTooLong {
            len: 2048,
            ours: 0,
            max: 2047
        })
    );
}

#[test]
fn the_planner_is_told_enough() {
    for (len, pages) in [(0u64, 2u64), (100, 2), (3839, 2), (3840, 3), (1 << 20, 258)] {
        assert_eq!(params_len(len), pages * PAGE_SIZE, "{len}");
    }
    assert_eq!(params_len(u64::MAX), u64::MAX, "no wrapping");
    let archive = arrival_archive(&[range(0, 4096)], Some(b"/my/init"))
        .unwrap()
        .len() as u64;
    let bound = initrd_len(1000, 100, Some(b"/my/init")).unwrap();
    assert!(bound >= archive + 1000 && bound.is_multiple_of(PAGE_SIZE));
    assert_eq!(
        initrd_len(u64::MAX, 1, None).unwrap(),
        u64::MAX,
        "no wrapping"
    );
}
