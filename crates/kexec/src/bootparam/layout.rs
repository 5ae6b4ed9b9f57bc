//! The structures of the boot protocol.

use core::mem::{offset_of, size_of};

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of `struct boot_params`.
pub const BOOT_PARAMS_LEN: usize = 4096;
/// Offset of the setup header in `boot_params`, and in a bzImage.
pub const HDR_OFFSET: usize = 0x1f1;
/// Room for the setup header, in bytes: `edd_mbr_sig_buffer` follows at 0x290.
pub const HDR_MAX: usize = 0x290 - HDR_OFFSET;
/// `efi_info.efi_loader_signature` after a 64-bit UEFI boot: `EFI64_LOADER_SIGNATURE`,
/// `include/linux/efi.h`.
pub const EFI64_LOADER_SIGNATURE: [u8; 4] = *b"EL64";

/// Number of entries that fit into `boot_params.e820_table`: `E820_MAX_ENTRIES_ZEROPAGE`, `asm/bootparam.h`. Further
/// entries travel in a `SETUP_E820_EXT` node.
pub const E820_IN_PAGE: usize = 128;

/// `struct setup_header`: boot protocol 2.15, through `kernel_info_offset`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(
    missing_docs,
    reason = "the names are those of Documentation/arch/x86/boot.rst, which describes them"
)]
pub struct SetupHeader {
    pub setup_sects: u8,
    pub root_flags: U16,
    pub syssize: U32,
    pub ram_size: U16,
    pub vid_mode: U16,
    pub root_dev: U16,
    pub boot_flag: U16,
    pub jump: [u8; 2],
    pub header: U32,
    pub version: U16,
    pub realmode_swtch: U32,
    pub start_sys_seg: U16,
    pub kernel_version: U16,
    pub type_of_loader: u8,
    pub loadflags: u8,
    pub setup_move_size: U16,
    pub code32_start: U32,
    pub ramdisk_image: U32,
    pub ramdisk_size: U32,
    pub bootsect_kludge: U32,
    pub heap_end_ptr: U16,
    pub ext_loader_ver: u8,
    pub ext_loader_type: u8,
    pub cmd_line_ptr: U32,
    pub initrd_addr_max: U32,
    pub kernel_alignment: U32,
    pub relocatable_kernel: u8,
    pub min_alignment: u8,
    pub xloadflags: U16,
    pub cmdline_size: U32,
    pub hardware_subarch: U32,
    pub hardware_subarch_data: U64,
    pub payload_offset: U32,
    pub payload_length: U32,
    pub setup_data: U64,
    pub pref_address: U64,
    pub init_size: U32,
    pub handover_offset: U32,
    pub kernel_info_offset: U32,
}

/// `struct efi_info`, at 0x1c0 of `boot_params`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(
    missing_docs,
    reason = "the names are those of asm/bootparam.h; each pair is the low and high half of an address"
)]
pub struct EfiInfo {
    pub efi_loader_signature: [u8; 4],
    pub efi_systab: U32,
    pub efi_memdesc_size: U32,
    pub efi_memdesc_version: U32,
    pub efi_memmap: U32,
    pub efi_memmap_size: U32,
    pub efi_systab_hi: U32,
    pub efi_memmap_hi: U32,
}

/// `struct boot_e820_entry`, `asm/setup_data.h` (6.1: `asm/bootparam.h`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BootE820Entry {
    /// Address of the first byte.
    pub addr: U64,
    /// Length in bytes.
    pub size: U64,
    /// Kind of the range, see [`E820Kind`](super::E820Kind).
    pub kind: U32,
}

/// `struct boot_params`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(
    missing_docs,
    reason = "the names are those of Documentation/arch/x86/zero-page.rst, which describes them"
)]
pub struct BootParams {
    pub screen_info: [u8; 0x40],
    pub apm_bios_info: [u8; 0x14],
    pub pad2: [u8; 4],
    pub tboot_addr: U64,
    pub ist_info: [u8; 0x10],
    pub acpi_rsdp_addr: U64,
    pub pad3: [u8; 8],
    pub hd0_info: [u8; 16],
    pub hd1_info: [u8; 16],
    pub sys_desc_table: [u8; 16],
    pub olpc_ofw_header: [u8; 16],
    pub ext_ramdisk_image: U32,
    pub ext_ramdisk_size: U32,
    pub ext_cmd_line_ptr: U32,
    pub pad4: [u8; 112],
    pub cc_blob_address: U32,
    pub edid_info: [u8; 0x80],
    pub efi_info: EfiInfo,
    pub alt_mem_k: U32,
    pub scratch: U32,
    pub e820_entries: u8,
    pub eddbuf_entries: u8,
    pub edd_mbr_sig_buf_entries: u8,
    pub kbd_status: u8,
    pub secure_boot: u8,
    pub pad5: [u8; 2],
    pub sentinel: u8,
    pub pad6: u8,
    pub hdr: SetupHeader,
    pub pad7: [u8; HDR_MAX - size_of::<SetupHeader>()],
    pub edd_mbr_sig_buffer: [U32; 16],
    pub e820_table: [BootE820Entry; E820_IN_PAGE],
    pub pad8: [u8; 48],
    pub eddbuf: [u8; 6 * 82],
    pub pad9: [u8; 276],
}

/// Fails the build when a field is not where the boot protocol has it.
macro_rules! pinned {
    ($of:ty: $($field:ident @ $at:expr),* $(,)?) => {
        $(const _: () = assert!(offset_of!($of, $field) == $at, stringify!($field));)*
    };
}

// Documentation/arch/x86/zero-page.rst; comments beside the fields in asm/bootparam.h.
const _: () = assert!(size_of::<BootParams>() == BOOT_PARAMS_LEN);
pinned!(BootParams:
    screen_info @ 0x000, apm_bios_info @ 0x040, tboot_addr @ 0x058, ist_info @ 0x060,
    acpi_rsdp_addr @ 0x070, hd0_info @ 0x080, hd1_info @ 0x090, sys_desc_table @ 0x0a0,
    olpc_ofw_header @ 0x0b0, ext_ramdisk_image @ 0x0c0, ext_ramdisk_size @ 0x0c4,
    ext_cmd_line_ptr @ 0x0c8, cc_blob_address @ 0x13c, edid_info @ 0x140, efi_info @ 0x1c0,
    alt_mem_k @ 0x1e0, scratch @ 0x1e4, e820_entries @ 0x1e8, eddbuf_entries @ 0x1e9,
    edd_mbr_sig_buf_entries @ 0x1ea, kbd_status @ 0x1eb, secure_boot @ 0x1ec, sentinel @ 0x1ef,
    hdr @ HDR_OFFSET, edd_mbr_sig_buffer @ 0x290, e820_table @ 0x2d0, pad8 @ 0xcd0, eddbuf @ 0xd00,
    pad9 @ 0xeec,
);
// Documentation/arch/x86/boot.rst, table of header fields; offsets there count from the image's start.
const _: () = assert!(size_of::<SetupHeader>() == 0x26c - HDR_OFFSET);
pinned!(SetupHeader:
    setup_sects @ 0, syssize @ 0x1f4 - HDR_OFFSET, boot_flag @ 0x1fe - HDR_OFFSET,
    jump @ 0x200 - HDR_OFFSET, header @ 0x202 - HDR_OFFSET, version @ 0x206 - HDR_OFFSET,
    kernel_version @ 0x20e - HDR_OFFSET, type_of_loader @ 0x210 - HDR_OFFSET,
    loadflags @ 0x211 - HDR_OFFSET, code32_start @ 0x214 - HDR_OFFSET,
    ramdisk_image @ 0x218 - HDR_OFFSET, ramdisk_size @ 0x21c - HDR_OFFSET,
    heap_end_ptr @ 0x224 - HDR_OFFSET, ext_loader_ver @ 0x226 - HDR_OFFSET,
    cmd_line_ptr @ 0x228 - HDR_OFFSET, initrd_addr_max @ 0x22c - HDR_OFFSET,
    kernel_alignment @ 0x230 - HDR_OFFSET, relocatable_kernel @ 0x234 - HDR_OFFSET,
    xloadflags @ 0x236 - HDR_OFFSET, cmdline_size @ 0x238 - HDR_OFFSET,
    hardware_subarch @ 0x23c - HDR_OFFSET, payload_offset @ 0x248 - HDR_OFFSET,
    setup_data @ 0x250 - HDR_OFFSET, pref_address @ 0x258 - HDR_OFFSET,
    init_size @ 0x260 - HDR_OFFSET, handover_offset @ 0x264 - HDR_OFFSET,
    kernel_info_offset @ 0x268 - HDR_OFFSET,
);
// struct efi_info, asm/bootparam.h.
const _: () = assert!(size_of::<EfiInfo>() == 0x20);
pinned!(EfiInfo: efi_systab @ 4, efi_memdesc_size @ 8, efi_memmap @ 16, efi_memmap_size @ 20,
    efi_systab_hi @ 24, efi_memmap_hi @ 28);
// struct boot_e820_entry is packed: 20 bytes.
const _: () = assert!(size_of::<BootE820Entry>() == 20);

impl BootParams {
    /// Makes a page of zeros.
    pub fn zeroed() -> Box<Self> {
        Box::new(FromZeros::new_zeroed())
    }

    /// Returns the physical address of the first `setup_data` node, 0 if there is none.
    pub fn setup_data(&self) -> u64 {
        self.hdr.setup_data.get()
    }
}
