//! Facts that the next kernel needs in order to use UEFI runtime services.
//!
//! `SetVirtualAddressMap` can be called once per boot, and the first kernel called it: from then on the firmware's own
//! tables hold virtual addresses. So the loader gives a later kernel the runtime regions with the virtual addresses in
//! use, and the physical addresses that the firmware overwrote, as `setup_efi_state` does
//! (`arch/x86/kernel/kexec-bzimage64.c`). The later kernel reads them in `efi_systab_init` and
//! `kexec_enter_virtual_mode` in `arch/x86/platform/efi/efi.c` and `efi_reuse_config` in `quirks.c` (the same in 6.1,
//! 6.12 and 7.3).

use core::mem::{offset_of, size_of};

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// UEFI facts that the running kernel publishes in `/sys/firmware/efi`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EfiFacts {
    /// `fw_vendor`: physical address of the vendor string.
    pub fw_vendor: u64,
    /// `runtime`: address of the runtime services table. The next kernel does not need it.
    pub runtime: u64,
    /// `config_table`: physical address of the configuration tables.
    pub config_table: u64,
    /// `SMBIOS=` in `systab`.
    pub smbios: Option<u64>,
    /// `runtime-map/N`, in order of N.
    pub runtime_map: Vec<EfiRegion>,
}

/// One region of `/sys/firmware/efi/runtime-map/N/{type,attribute,num_pages,phys_addr,virt_addr}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EfiRegion {
    /// `EFI_RUNTIME_SERVICES_CODE` and so on.
    pub kind: u32,
    /// `EFI_MEMORY_*` bits.
    pub attribute: u64,
    /// Pages of 4 KiB.
    pub num_pages: u64,
    /// Physical address of the region.
    pub phys_addr: u64,
    /// Virtual address at which runtime services expect the region.
    pub virt_addr: u64,
}

/// `efi_memory_desc_t`, `include/linux/efi.h`; UEFI specification, `EFI_MEMORY_DESCRIPTOR`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct MemoryDescriptor {
    kind: U32,
    pad: U32,
    phys_addr: U64,
    virt_addr: U64,
    num_pages: U64,
    attribute: U64,
}

const _: () = assert!(size_of::<MemoryDescriptor>() == EFI_DESCRIPTOR_LEN);
const _: () = assert!(offset_of!(MemoryDescriptor, phys_addr) == 8);
const _: () = assert!(offset_of!(MemoryDescriptor, virt_addr) == 16);
const _: () = assert!(offset_of!(MemoryDescriptor, num_pages) == 24);
const _: () = assert!(offset_of!(MemoryDescriptor, attribute) == 32);

/// Length of one descriptor in the map that is built, in bytes.
pub const EFI_DESCRIPTOR_LEN: usize = 40;
/// Bytes of `struct efi_setup_data`, `arch/x86/include/asm/efi.h`: four addresses and eight reserved words.
pub const EFI_SETUP_DATA_LEN: usize = 96;

impl EfiFacts {
    /// Encodes the memory map of the runtime regions, in the form to which `efi_info` points.
    pub fn memory_map(&self) -> Vec<u8> {
        self.runtime_map
            .iter()
            .flat_map(|region| {
                let descriptor = MemoryDescriptor {
                    kind: U32::new(region.kind),
                    pad: U32::ZERO,
                    phys_addr: U64::new(region.phys_addr),
                    virt_addr: U64::new(region.virt_addr),
                    num_pages: U64::new(region.num_pages),
                    attribute: U64::new(region.attribute),
                };
                let mut bytes = [0; EFI_DESCRIPTOR_LEN];
                bytes.copy_from_slice(descriptor.as_bytes());
                bytes
            })
            .collect()
    }

    /// Encodes `struct efi_setup_data`: fw_vendor, unused, tables, smbios, reserved.
    pub fn setup_data(&self) -> [u8; EFI_SETUP_DATA_LEN] {
        let words = [
            self.fw_vendor,
            0,
            self.config_table,
            self.smbios.unwrap_or(0),
        ];
        let mut bytes = [0; EFI_SETUP_DATA_LEN];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}
