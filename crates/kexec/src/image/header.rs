//! Images of any format: their header, and their interface.

use std::fmt;

use kho::PhysAddr;

/// The checked header of an image: the memory that the kernel needs, and the features of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageHeader {
    /// Bytes of contiguous RAM from the load address on, a multiple of the page size and at least `payload_len`. The
    /// kernel's segment must have all of this memory as its destination, not only the part that the payload fills. The
    /// kernel decompresses itself inside this memory while it still runs on the page tables that kexec made, and kexec
    /// keeps those page tables away from destinations only.
    pub mem_size: u64,
    /// Bytes of the payload, which begins at the load address.
    pub payload_len: u64,
    /// Alignment of the load address, in bytes: a power of two, at least a page.
    pub alignment: u64,
    /// Load address for which the kernel was linked. Any aligned address at or above `lowest` is allowed.
    pub preferred: PhysAddr,
    /// The lowest load address. Below it the kernel would move itself up, out of its segment.
    pub lowest: PhysAddr,
    /// Kernel, initrd, parameters and command line may be above 4 GiB.
    pub above_4g: bool,
    /// The highest address of the initrd's last byte; `None` if there is no limit.
    pub initrd_max: Option<PhysAddr>,
    /// Largest number of bytes of command line that the kernel takes, without the terminating NUL.
    pub cmdline_max: u64,
    /// The kernel can be entered while five-level paging is on: `XLF_5LEVEL`.
    pub five_level: bool,
    /// The kernel uses five-level paging if the processor has it: `XLF_5LEVEL_ENABLED`. If a kernel without this flag
    /// is entered with five-level paging on, the kernel switches it off first.
    pub five_level_on: bool,
    /// The kernel reserves the ranges to which `SETUP_INDIRECT` nodes point (an arm64 kernel: those in its devicetree's
    /// reservation block). Only these reservations keep memory that is handed over.
    pub setup_indirect: bool,
    /// The kernel can take UEFI runtime services over from another kernel: `XLF_EFI_KEXEC`. A kernel that is built
    /// without kexec would assume that it has runtime services, without mapping anything for them
    /// (`kexec_enter_virtual_mode`, `arch/x86/platform/efi/efi.c`).
    pub efi_kexec: bool,
}

impl From<&ImageHeader> for kho::image::KernelNeeds {
    /// Converts the header into the form that the planner takes.
    fn from(header: &ImageHeader) -> Self {
        Self {
            file_len: header.payload_len,
            mem_size: header.mem_size,
            align: header.alignment,
            preferred: header.lowest,
            above_4g: header.above_4g,
            random: None,
        }
    }
}

/// A kernel that can be placed in memory and entered.
pub trait Image: fmt::Debug {
    /// Returns the name of the format, for messages: `bzImage`.
    fn format(&self) -> &'static str;

    /// Returns the kernel's release, as `uname -r` shows it; `None` if the image does not name it.
    fn release(&self) -> Option<&str>;

    /// Returns the checked header of the image.
    fn header(&self) -> &ImageHeader;

    /// Returns the [`ImageHeader::payload_len`] bytes that belong at the load address (an arm64 `Image`: at the entry
    /// point).
    fn payload(&self) -> &[u8];

    /// Returns the number of bytes from the load address to the 64-bit entry point.
    fn entry_offset(&self) -> u64;

    /// Returns the x86 setup header (empty for other kernels), the bytes that belong at offset 0x1f1 of `boot_params` (at most
    /// [`bootparam::HDR_MAX`](crate::bootparam::HDR_MAX) of them).
    fn setup_header(&self) -> &[u8];

    /// Returns whether kho moved the kernel to a random virtual address. The kernel then uses random addresses for its
    /// memory and its modules too (`kaslr_enabled`, `arch/x86/include/asm/setup.h`).
    fn moved(&self) -> bool;
}
