//! The next kernel's `boot_params`, made from the running kernel's.

use kho::{PhysAddr, PhysRange};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::efi::{EFI_DESCRIPTOR_LEN, EfiFacts};
use super::error::BootParamsError;
use super::layout::{BootParams, E820_IN_PAGE, EFI64_LOADER_SIGNATURE, HDR_MAX, HDR_OFFSET};
use super::memmap::{E820Kind, MemoryMapEntry};
use crate::bytes::len64;

/// `hdr.type_of_loader` for a loader without an assigned number: `Documentation/arch/x86/boot.rst`. The field must not
/// be 0, or the kernel ignores the initrd (`reserve_initrd`, `arch/x86/kernel/setup.c`).
const LOADER_UNDEFINED: u8 = 0xff;
/// `LOADED_HIGH`: the only flag of `hdr.loadflags` that is true of every image entered in 64-bit mode. The other flags
/// are requests to the real-mode code, or belong to the decompressor ([`KASLR_FLAG`]).
const LOADED_HIGH: u8 = 1;
/// `KASLR_FLAG`: the kernel was moved to a random virtual address. The decompressor sets it, unless `nokaslr` is given
/// (`choose_random_location`, `arch/x86/boot/compressed/kaslr.c`).
const KASLR_FLAG: u8 = 1 << 1;

/// Sources of the next kernel's parameters.
#[derive(Clone, Copy, Debug)]
pub struct NextKernel<'a> {
    /// The running kernel's parameters.
    pub running: &'a BootParams,
    /// The image's setup header: [`Image::setup_header`](crate::image::Image::setup_header).
    pub setup_header: &'a [u8],
    /// The firmware's memory map. A `SETUP_E820_EXT` node holds the entries past [`E820_IN_PAGE`].
    pub memory_map: &'a [MemoryMapEntry],
    /// UEFI runtime services, and the range of their memory map; `None` after a BIOS boot, or if the running kernel has
    /// no runtime services.
    pub efi: Option<(&'a EfiFacts, PhysRange)>,
    /// ACPI root pointer that UEFI gave the running kernel. It is used if the running kernel's parameters have no root
    /// pointer: the EFI stub of 6.6 and later writes none, and the next kernel finds the pointer by itself only below 1
    /// MiB (BIOS) or with `efi`.
    pub acpi: Option<PhysAddr>,
    /// Range of exactly the initrd's bytes; `None` if there is no initrd.
    pub initrd: Option<PhysRange>,
    /// Address of the command line, which ends with a NUL.
    pub cmdline: PhysAddr,
    /// First node of the `setup_data` chain, `None` for an empty chain.
    pub setup_data: Option<PhysAddr>,
    /// Whether the kernel was moved to a random virtual address: [`Image::moved`](crate::image::Image::moved).
    pub moved: bool,
}

impl BootParams {
    /// Takes the running kernel's parameters from the bytes of `/sys/kernel/boot_params/data`.
    ///
    /// # Errors
    ///
    /// [`BootParamsError::Length`] unless there are [`BOOT_PARAMS_LEN`](super::BOOT_PARAMS_LEN) bytes.
    pub fn from_running(data: &[u8]) -> Result<Box<Self>, BootParamsError> {
        match Self::read_from_bytes(data) {
            Ok(params) => Ok(Box::new(params)),
            Err(_) => Err(BootParamsError::Length { len: data.len() }),
        }
    }
}

/// Makes the next kernel's parameters.
///
/// The parameters keep these values of the running kernel, as in `setup_boot_parameters`: the screen, the ACPI root
/// pointer, EDD, the hardware subarchitecture and UEFI's system table. All other fields are zero, as the boot protocol
/// requires of a loader.
///
/// # Errors
///
/// See [`BootParamsError`].
pub fn build(next: &NextKernel<'_>) -> Result<Box<BootParams>, BootParamsError> {
    let mut params = BootParams::zeroed();
    let header_end = HDR_OFFSET
        .checked_add(next.setup_header.len())
        .filter(|end| *end <= HDR_OFFSET + HDR_MAX)
        .ok_or(BootParamsError::SetupHeader {
            len: next.setup_header.len(),
        })?;
    if let Some(room) = params.as_mut_bytes().get_mut(HDR_OFFSET..header_end) {
        room.copy_from_slice(next.setup_header);
    }

    let running = next.running;
    params.screen_info = running.screen_info;
    params.acpi_rsdp_addr = match running.acpi_rsdp_addr.get() {
        0 => U64::new(next.acpi.map_or(0, PhysAddr::get)),
        _ => running.acpi_rsdp_addr,
    };
    params.edd_mbr_sig_buffer = running.edd_mbr_sig_buffer;
    params.edd_mbr_sig_buf_entries = running.edd_mbr_sig_buf_entries;
    params.eddbuf = running.eddbuf;
    params.eddbuf_entries = running.eddbuf_entries;

    let hdr = &mut params.hdr;
    hdr.hardware_subarch = running.hdr.hardware_subarch;
    hdr.type_of_loader = LOADER_UNDEFINED;
    hdr.loadflags = LOADED_HIGH | if next.moved { KASLR_FLAG } else { 0 };
    hdr.ext_loader_type = 0;
    hdr.ext_loader_ver = 0;
    hdr.setup_data = U64::new(next.setup_data.map_or(0, PhysAddr::get));
    (hdr.cmd_line_ptr, params.ext_cmd_line_ptr) = halves(next.cmdline.get());
    if let Some(initrd) = next.initrd {
        (hdr.ramdisk_image, params.ext_ramdisk_image) = halves(initrd.start().get());
        (hdr.ramdisk_size, params.ext_ramdisk_size) = halves(initrd.len());
    } else {
        (hdr.ramdisk_image, hdr.ramdisk_size) = (U32::ZERO, U32::ZERO);
    }

    if !next.memory_map.iter().any(|e| e.kind == E820Kind::Ram) {
        return Err(BootParamsError::NoMemory {
            entries: next.memory_map.len(),
        });
    }
    for (slot, entry) in params.e820_table.iter_mut().zip(next.memory_map) {
        *slot = entry.to_boot();
    }
    let entries = next.memory_map.len().min(E820_IN_PAGE);
    params.e820_entries = u8::try_from(entries).unwrap_or(u8::MAX);

    if let Some((facts, map_at)) = next.efi {
        efi(&mut params, running, facts, map_at)?;
    }
    Ok(params)
}

/// Fills in the UEFI part of the parameters, as `setup_efi_state` does.
fn efi(
    params: &mut BootParams,
    running: &BootParams,
    facts: &EfiFacts,
    map_at: PhysRange,
) -> Result<(), BootParamsError> {
    let old = running.efi_info;
    if old.efi_loader_signature != EFI64_LOADER_SIGNATURE {
        return Err(BootParamsError::EfiSignature {
            signature: old.efi_loader_signature,
        });
    }
    if facts.runtime_map.is_empty() {
        return Err(BootParamsError::EfiNoMap);
    }
    let needed = len64(facts.runtime_map.len()).saturating_mul(len64(EFI_DESCRIPTOR_LEN));
    let (size, 0) = halves32(needed) else {
        return Err(BootParamsError::EfiMapLength { at: map_at, needed });
    };
    if map_at.len() != needed {
        return Err(BootParamsError::EfiMapLength { at: map_at, needed });
    }
    params.secure_boot = running.secure_boot;
    let info = &mut params.efi_info;
    info.efi_loader_signature = old.efi_loader_signature;
    info.efi_systab = old.efi_systab;
    info.efi_systab_hi = old.efi_systab_hi;
    info.efi_memdesc_version = old.efi_memdesc_version;
    info.efi_memdesc_size = U32::new(halves32(len64(EFI_DESCRIPTOR_LEN)).0);
    info.efi_memmap_size = U32::new(size);
    (info.efi_memmap, info.efi_memmap_hi) = halves(map_at.start().get());
    Ok(())
}

/// Returns the low and the high half of a number.
fn halves32(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

fn halves(value: u64) -> (U32, U32) {
    let (low, high) = halves32(value);
    (U32::new(low), U32::new(high))
}
