use super::*;
use crate::image::InitrdNeeds;
use crate::testing::{GIB, KERNEL, MIB, range, set};
use std::string::ToString;

fn image() -> ImageNeeds {
    ImageNeeds {
        kernel: KERNEL,
        initrd: Some(InitrdNeeds {
            len: 40 * MIB,
            unpacked: 160 * MIB,
            max_addr: PhysAddr::new(0x7fff_ffff),
        }),
        params_len: 4096,
    }
}

fn judge(
    ram: &RangeSet,
    reserved: &RangeSet,
    cmdline: &str,
) -> Result<HeadroomReport, HeadroomError> {
    let cmdline = CmdlineMemory::parse(cmdline.as_bytes(), ram.total()).unwrap();
    check(&HeadroomInput {
        ram,
        reserved,
        scratch: range(32 * MIB, 256 * MIB),
        image: &image(),
        cmdline: &cmdline,
        user_space: UserSpace::default(),
    })
}

fn term(report: &HeadroomReport, kind: TermKind) -> (u64, u64) {
    let term = report.terms.iter().find(|t| t.kind == kind).unwrap();
    (term.total, term.low)
}

#[test]
fn every_term_is_in_the_report() {
    let ram = set([range(0, 3 * GIB), range(4 * GIB, 9 * GIB)]);
    let reserved = set([range(5 * GIB, 6 * GIB), range(GIB, GIB + 4096)]);
    let report = judge(&ram, &reserved, "crashkernel=128M hugepages=8").unwrap();
    assert_eq!(term(&report, TermKind::Kernel), (60 * MIB, 60 * MIB));
    assert_eq!(term(&report, TermKind::Initrd), (40 * MIB, 40 * MIB));
    assert_eq!(term(&report, TermKind::InitrdFiles), (160 * MIB, 0));
    assert_eq!(term(&report, TermKind::PageStructs), (128 * MIB, 0));
    assert_eq!(term(&report, TermKind::Swiotlb), (64 * MIB, 64 * MIB));
    assert_eq!(term(&report, TermKind::CrashKernel), (128 * MIB, 128 * MIB));
    assert_eq!(term(&report, TermKind::HugePages), (16 * MIB, 0));
    assert_eq!(term(&report, TermKind::Base), (BASE_TOTAL, BASE_LOW));
    let sum: u64 = report.terms.iter().map(|t| t.total).sum();
    assert_eq!(report.need_total, sum);
    assert_eq!(report.free_total, 7 * GIB - 4096 - MIB);
    assert_eq!(report.free_low, 3 * GIB - 4096 - MIB);
    assert!(report.has_high);
}

#[test]
fn a_machine_without_high_memory_needs_no_bounce_buffer() {
    let ram = set([range(MIB, GIB)]);
    let report = judge(&ram, &RangeSet::new(), "").unwrap();
    assert_eq!(term(&report, TermKind::Swiotlb), (0, 0));
    let forced = judge(&ram, &RangeSet::new(), "swiotlb=force").unwrap();
    assert_eq!(term(&forced, TermKind::Swiotlb).0, SWIOTLB_DEFAULT);
}

#[test]
fn the_floor_is_exact_in_total() {
    let ram = set([range(MIB, GIB)]);
    let need = judge(&ram, &RangeSet::new(), "").unwrap().need_total;
    let start = MIB + need;
    assert!(judge(&ram, &set([range(start, GIB)]), "").is_ok());
    let error = judge(&ram, &set([range(start - 4096, GIB)]), "").unwrap_err();
    assert_eq!(
        error,
        HeadroomError::Total {
            need,
            free: need - 4096
        }
    );
    assert!(
        error.to_string().ends_with("hand over 0x1000 bytes less"),
        "{error}"
    );
}

#[test]
fn plenty_above_does_not_help_below() {
    let ram = set([range(MIB, 3 * GIB), range(4 * GIB, 64 * GIB)]);
    let reserved = set([range(GIB / 4, 3 * GIB)]);
    // Below 4 GiB 255 MiB are free; kernel 60, initrd 40, swiotlb 64 and base 32 leave 59.
    assert!(judge(&ram, &reserved, "").is_ok());
    assert!(matches!(
        judge(&ram, &reserved, "crashkernel=128M"),
        Err(HeadroomError::Low { .. })
    ));
    assert!(judge(&ram, &reserved, "crashkernel=1G,high crashkernel=32M,low").is_ok());
}

#[test]
fn an_absurd_command_line_is_a_refusal() {
    let ram = set([range(MIB, 64 * GIB)]);
    let error = judge(&ram, &RangeSet::new(), "hugepages=18446744073709551615");
    assert!(matches!(
        error,
        Err(HeadroomError::Total { need: u64::MAX, .. })
    ));
}

#[test]
fn processors_and_copies_take_memory() {
    let ram = set([range(MIB, 8 * GIB)]);
    let cmdline = CmdlineMemory::parse(b"", ram.total()).unwrap();
    let need = |cpus, copies| {
        let input = HeadroomInput {
            ram: &ram,
            reserved: &RangeSet::new(),
            scratch: range(32 * MIB, 256 * MIB),
            image: &image(),
            cmdline: &cmdline,
            user_space: UserSpace {
                cpus,
                copies,
                ..UserSpace::default()
            },
        };
        report(&input).unwrap().need_total
    };
    let base = need(BASE_CPUS, 0);
    assert_eq!(need(0, 0), base, "no fewer than it was tried with");
    assert_eq!(need(64, 0), base + 62 * PER_CPU);
    assert_eq!(need(2, 3 * GIB), base + 3 * GIB);
    assert_eq!(need(u32::MAX, u64::MAX), u64::MAX);
}

#[test]
fn the_scratch_of_a_kernel_with_its_own_kho_is_counted() {
    let ram = set([range(MIB, 3 * GIB), range(4 * GIB, 9 * GIB)]);
    let reserved = set([
        range(GIB, GIB + 100 * MIB),
        range(5 * GIB, 5 * GIB + 300 * MIB),
    ]);
    let term = |line: &str, native_nodes| {
        let cmdline = CmdlineMemory::parse(line.as_bytes(), ram.total()).unwrap();
        let report = report(&HeadroomInput {
            ram: &ram,
            reserved: &reserved,
            scratch: range(32 * MIB, 256 * MIB),
            image: &image(),
            cmdline: &cmdline,
            user_space: UserSpace {
                native_nodes,
                ..UserSpace::default()
            },
        });
        term(&report.unwrap(), TermKind::NativeScratch)
    };
    assert_eq!(term("kho_scratch=16M,32M,8M", None), (0, 0));
    assert_eq!(
        term("kho_scratch=16M,32M,7M", Some(2)),
        (64 * MIB, 16 * MIB)
    );
    // Ours is no size of that kernel's, which then takes its 200 %.
    let (total, low) = term("kho_scratch=64M", Some(1));
    assert!(
        total > 4 * 400 * MIB && low == 400 * MIB,
        "{total:#x} {low:#x}"
    );
    assert_eq!(term("kho_scratch=0%", Some(1)), (0, 0));
}

#[test]
fn derived_scratch_of_that_kernel_leaves_out_what_is_handed_over() {
    let sizes = |low, anywhere, node| NativeScratch::Sizes {
        low: low * MIB,
        anywhere: anywhere * MIB,
        node: node * MIB,
    };
    assert_eq!(native_scratch(&image(), 2 * GIB, 2), sizes(204, 76, 32));
    assert_eq!(native_scratch(&image(), 2 * GIB, 0), sizes(204, 76, 64));
}
