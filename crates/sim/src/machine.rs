//! Machines: the firmware's map, and memory that only memblock knows.

use kho::image::{ImageNeeds, InitrdNeeds, KernelNeeds};
use kho::{PhysAddr, PhysRange, RangeSet};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;

/// Description of a machine (memory map, firmware, sizes) from which a simulation starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Name of the machine, for messages.
    pub name: &'static str,
    /// RAM in the firmware's map.
    pub ram: RangeSet,
    /// Firmware data inside RAM that no map names. Only the running kernel's own reservations show it (the TPM event
    /// log, EFI configuration tables).
    pub hidden: RangeSet,
    /// Whether the machine boots by UEFI. A kernel that comes by kexec then finds an EFI map of runtime services only,
    /// in which KASLR sees no free memory: the kernel stays at its load address (`process_efi_entries` in
    /// `arch/x86/boot/compressed/kaslr.c`, Linux 6.12 and 7.3). So it stays off firmware data that the e820 map calls
    /// RAM.
    pub efi: bool,
    /// Largest number of early reservations for kho that a kernel survives on this machine. With one more it dies
    /// before it has a console.
    pub cap: usize,
}

/// Makes a range from its bounds.
///
/// # Panics
///
/// If the range is empty.
pub fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end))
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Makes a set of ranges.
///
/// # Panics
///
/// If memory runs out.
pub fn set(ranges: impl IntoIterator<Item = PhysRange>) -> RangeSet {
    RangeSet::from_ranges(ranges).unwrap_or_else(|e| panic!("{e}"))
}

impl Template {
    /// A BIOS guest with 2 GiB.
    pub fn bios_2g() -> Self {
        Self {
            name: "bios-2g",
            efi: false,
            ram: set([range(0, 0x9_fc00), range(MIB, 2 * GIB - 0x2_0000)]),
            hidden: RangeSet::new(),
            cap: 100,
        }
    }

    /// A BIOS guest with 6 GiB, 3 of them above 4 GiB.
    pub fn bios_6g() -> Self {
        Self {
            name: "bios-6g",
            efi: false,
            ram: set([
                range(0, 0x9_fc00),
                range(MIB, 3 * GIB - 0x2_0000),
                range(4 * GIB, 7 * GIB),
            ]),
            hidden: RangeSet::new(),
            cap: 100,
        }
    }

    /// A UEFI machine with 4 GiB, a map full of small holes, firmware data that only memblock knows, and a
    /// low cap.
    pub fn uefi_4g() -> Self {
        let mut ram = set([
            range(0, 0x9_f000),
            range(MIB, 2 * GIB),
            range(4 * GIB, 6 * GIB),
        ]);
        // Runtime services, ACPI tables and the like, in the upper part below 4 GiB as OVMF puts them.
        for i in 0..14 {
            let at = 0x7a00_0000 + i * 0x45_3000;
            ram = ram
                .subtract(&set([range(at, at + (1 + i % 5) * 0x1000)]))
                .unwrap_or_default();
        }
        let hidden = set([
            range(0x7950_0000, 0x7951_0000),
            range(0x6123_4018, 0x6123_4818),
            range(0x2345_6000, 0x2345_7000),
            range(0x1_4000_0000, 0x1_4000_3000),
        ]);
        Self {
            name: "uefi-4g",
            efi: true,
            ram,
            hidden,
            cap: 40,
        }
    }

    /// A UEFI machine with 8 GiB and a plain map.
    pub fn uefi_8g() -> Self {
        Self {
            name: "uefi-8g",
            efi: true,
            ram: set([
                range(0, 0x9_fc00),
                range(MIB, 3 * GIB),
                range(4 * GIB, 9 * GIB),
            ]),
            hidden: set([range(5 * GIB + 0x1000, 5 * GIB + 0x2000)]),
            cap: 60,
        }
    }

    /// A small guest in which memory, scratch and reservations are scarce.
    pub fn tiny_512m() -> Self {
        Self {
            name: "tiny-512m",
            efi: true,
            ram: set([range(0, 0x9_fc00), range(MIB, 512 * MIB)]),
            hidden: set([range(0x1800_0000, 0x1800_1000)]),
            cap: 12,
        }
    }

    /// Returns all machines above.
    pub fn all() -> Vec<Self> {
        vec![
            Self::bios_2g(),
            Self::bios_6g(),
            Self::uefi_4g(),
            Self::uefi_8g(),
            Self::tiny_512m(),
        ]
    }
}

/// Returns the image of a kernel by number, with an initrd of `initrd_mib` MiB (0 for none).
pub fn image(kernel: u8, initrd_mib: u64) -> ImageNeeds {
    let (file, init, above_4g, preferred) = match kernel % 4 {
        0 => (8 * MIB + 123, 42 * MIB, true, 16 * MIB),
        1 => (12 * MIB, 60 * MIB, true, 16 * MIB),
        2 => (6 * MIB + 4096, 30 * MIB, false, 16 * MIB),
        // A kernel that moves itself up to 1 GiB: it fits only if scratch reaches that far.
        _ => (5 * MIB, 24 * MIB, true, GIB),
    };
    ImageNeeds {
        kernel: KernelNeeds {
            file_len: file,
            mem_size: init,
            align: 2 * MIB,
            preferred: PhysAddr::new(preferred),
            above_4g,
            // Every second kernel stays where the loader places it.
            random: (kernel % 8 < 4).then_some(initrd_mib * 0x9e37_79b9),
        },
        initrd: (initrd_mib > 0).then_some(InitrdNeeds {
            len: initrd_mib * MIB + 777,
            unpacked: initrd_mib * 4 * MIB,
            max_addr: PhysAddr::new(0x7fff_ffff),
        }),
        params_len: 9000,
    }
}
