use kho::{PhysAddr, PhysRange};
use kho_kexec::bootparam::{
    BootParams, BootParamsError, E820Kind, EfiFacts, MemoryMapEntry, NextKernel, build,
};
use kho_kexec::image::parse;
use zerocopy::IntoBytes;

use crate::carrier::efi;
use crate::fixture::{kernel, memory_map, range, running};

const INITRD: (u64, u64) = (0x1_8000_0000, 0x1_2345_6789);

fn make(
    facts: Option<(&EfiFacts, PhysRange)>,
    map: &[MemoryMapEntry],
) -> Result<Vec<u8>, BootParamsError> {
    let (file, running) = (kernel(), running());
    let image = parse(&file).unwrap();
    let params = build(&NextKernel {
        running: &running,
        setup_header: image.setup_header(),
        memory_map: map,
        efi: facts,
        acpi: None,
        initrd: Some(range(INITRD.0, INITRD.1)),
        cmdline: PhysAddr::new(0x2_4000_1000),
        setup_data: Some(PhysAddr::new(0x3_4000_0000)),
        moved: false,
    })?;
    Ok(params.as_bytes().to_vec())
}

fn word(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
}

fn long(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
}

/// Offsets are those of `Documentation/arch/x86/zero-page.rst` and `boot.rst`, not of kho's own structs.
#[test]
fn a_bios_kernel_gets_what_it_needs_and_nothing_else() {
    let page = make(None, &memory_map()).unwrap();
    assert_eq!(page.len(), 4096);
    assert_eq!(page[..0x40], [0x11; 0x40], "screen_info");
    assert_eq!(long(&page, 0x070), 0x000f_5a90, "acpi_rsdp_addr");
    assert_eq!(
        (word(&page, 0x218), word(&page, 0x0c0)),
        (0x8000_0000, 1),
        "ramdisk_image"
    );
    assert_eq!(
        (word(&page, 0x21c), word(&page, 0x0c4)),
        (0x2345_6789, 1),
        "ramdisk_size"
    );
    assert_eq!(
        (word(&page, 0x228), word(&page, 0x0c8)),
        (0x4000_1000, 2),
        "cmd_line_ptr"
    );
    assert_eq!(long(&page, 0x250), 0x3_4000_0000, "setup_data");
    assert_eq!(page[0x210], 0xff, "type_of_loader");
    assert_eq!(page[0x211], 1, "loadflags");
    assert_eq!(
        page[0x1e8..0x1eb],
        [6, 3, 2],
        "e820_entries, eddbuf_entries, edd_mbr_sig_buf_entries"
    );
    assert_eq!(page[0x290..0x2d0], [0xee; 0x40], "edd_mbr_sig_buffer");
    assert_eq!(page[0xd00..0xeec], [0xee; 0x1ec], "eddbuf");
    let entry = 0x2d0 + 3 * 20;
    assert_eq!(
        (
            long(&page, entry),
            long(&page, entry + 8),
            word(&page, entry + 16)
        ),
        (0x10_0000, 0x7fed_f000, 1)
    );

    // The header is the image's own, except for the fields that a loader writes.
    let mut header = kernel()[0x1f1..0x26c].to_vec();
    for (from, to) in [
        (0x210, 0x212),
        (0x218, 0x220),
        (0x226, 0x22c),
        (0x250, 0x258),
    ] {
        header[from - 0x1f1..to - 0x1f1].copy_from_slice(&page[from..to]);
    }
    assert_eq!(page[0x1f1..0x26c], header);

    // Everything else is zero: apm_bios_info, tboot, ist_info, hd0 to olpc, cc_blob, edid, efi_info, alt_mem_k,
    // secure_boot, sentinel, the rest of the table, and the padding.
    let zero = [
        (0x40, 0x70),
        (0x78, 0xc0),
        (0xcc, 0x1e8),
        (0x1eb, 0x1f1),
        (0x26c, 0x290),
        (0x2d0 + 6 * 20, 0xd00),
        (0xeec, 0x1000),
    ];
    for (from, to) in zero {
        assert!(page[from..to].iter().all(|b| *b == 0), "{from:#x}..{to:#x}");
    }
}

#[test]
fn a_uefi_kernel_is_told_about_runtime_services() {
    let facts = efi();
    let page = make(Some((&facts, range(0x5_4000_0150, 240))), &memory_map()).unwrap();
    assert_eq!(&page[0x1c0..0x1c4], b"EL64");
    assert_eq!(word(&page, 0x1c4), 0x7f9e_e018, "efi_systab");
    assert_eq!(word(&page, 0x1c8), 40, "efi_memdesc_size");
    assert_eq!(word(&page, 0x1cc), 1, "efi_memdesc_version");
    assert_eq!(
        (word(&page, 0x1d0), word(&page, 0x1dc)),
        (0x4000_0150, 5),
        "efi_memmap"
    );
    assert_eq!(word(&page, 0x1d4), 240, "efi_memmap_size");
    assert_eq!(word(&page, 0x1d8), 0, "efi_systab_hi");
    assert_eq!(page[0x1ec], 3, "secure_boot");
}

#[test]
fn the_acpi_root_pointer_comes_from_uefi_if_the_kernel_had_none() {
    let (file, facts) = (kernel(), efi());
    let mut running = running();
    running.acpi_rsdp_addr = 0.into();
    let image = parse(&file).unwrap();
    let map = memory_map();
    let mut next = NextKernel {
        running: &running,
        setup_header: image.setup_header(),
        memory_map: &map,
        efi: Some((&facts, range(0x5000, 240))),
        acpi: Some(PhysAddr::new(0x7f77_e014)),
        initrd: None,
        cmdline: PhysAddr::new(0x1000),
        setup_data: None,
        moved: false,
    };
    let params = build(&next).unwrap();
    assert_eq!(params.acpi_rsdp_addr.get(), 0x7f77_e014);
    assert_eq!((params.hdr.ramdisk_size.get(), params.setup_data()), (0, 0));
    // Without runtime services (efi=noruntime, and every PREEMPT_RT kernel) as well.
    next.efi = None;
    assert_eq!(build(&next).unwrap().acpi_rsdp_addr.get(), 0x7f77_e014);
    next.acpi = None;
    assert_eq!(build(&next).unwrap().acpi_rsdp_addr.get(), 0);
    // The running kernel's own value takes precedence.
    let told = crate::fixture::running();
    next.running = &told;
    next.acpi = Some(PhysAddr::new(0x7f77_e014));
    assert_eq!(build(&next).unwrap().acpi_rsdp_addr.get(), 0x000f_5a90);
}

#[test]
fn a_long_memory_map_fills_the_table() {
    let map: Vec<_> = (0..300)
        .map(|n| MemoryMapEntry {
            range: range(n << 20, 1 << 20),
            kind: E820Kind::Ram,
        })
        .collect();
    let page = make(None, &map).unwrap();
    assert_eq!(page[0x1e8], 128);
    assert_eq!(long(&page, 0x2d0 + 127 * 20), 127 << 20);
    assert!(page[0xcd0..0xd00].iter().all(|b| *b == 0));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let facts = efi();
    let map_at = range(0x5000, 240);
    let short = make(Some((&facts, range(0x5000, 200))), &memory_map());
    assert_eq!(
        short,
        Err(BootParamsError::EfiMapLength {
            at: range(0x5000, 200),
            needed: 240
        })
    );
    let none = EfiFacts {
        runtime_map: vec![],
        ..facts.clone()
    };
    assert_eq!(
        make(Some((&none, map_at)), &memory_map()),
        Err(BootParamsError::EfiNoMap)
    );
    assert_eq!(
        make(None, &[]),
        Err(BootParamsError::NoMemory { entries: 0 })
    );
    let reserved = [MemoryMapEntry {
        range: range(0, 4096),
        kind: E820Kind::Reserved,
    }];
    assert_eq!(
        make(None, &reserved),
        Err(BootParamsError::NoMemory { entries: 1 })
    );
    assert_eq!(
        BootParams::from_running(&[0; 4095]).unwrap_err(),
        BootParamsError::Length { len: 4095 }
    );

    let bios = BootParams::zeroed();
    let map = memory_map();
    let next = NextKernel {
        running: &bios,
        setup_header: &[0; 0x9f],
        memory_map: &map,
        efi: Some((&facts, map_at)),
        acpi: None,
        initrd: None,
        cmdline: PhysAddr::new(0x1000),
        setup_data: None,
        moved: false,
    };
    assert_eq!(
        build(&next).unwrap_err(),
        BootParamsError::EfiSignature { signature: [0; 4] }
    );
    let long = NextKernel {
        setup_header: &[0; 0xa0],
        ..next
    };
    assert_eq!(
        build(&long).unwrap_err(),
        BootParamsError::SetupHeader { len: 0xa0 }
    );
}
