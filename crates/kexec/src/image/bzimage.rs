//! bzImage: the x86 boot protocol's image, entered in 64-bit mode.
//!
//! Layout and fields: `Documentation/arch/x86/boot.rst` (6.1: `Documentation/x86/boot.rst`), "The Real-Mode Kernel
//! Header" and "64-bit Boot Protocol". The checks match those of `bzImage64_probe` and `bzImage64_load` in
//! `arch/x86/kernel/kexec-bzimage64.c` (6.1, 6.12, 7.3), plus a check of every field that is used.

use kho::abi::setup_data::SETUP_INDIRECT;
use kho::bytes::{u16_at, u32_at, u64_at};
use kho::{PAGE_SIZE, PhysAddr};

use super::error::ImageError;
use super::field::BadField;
use super::header::{Image, ImageHeader};
use super::pe::signature_end;
use super::sniff::{AT_BOOT_FLAG, AT_MAGIC, BOOT_FLAG, MAGIC};
use super::vmlinux::{Packed, VmlinuxError};
use crate::bootparam::{HDR_MAX, HDR_OFFSET, SetupHeader};
use crate::bytes::len64;

const SECTOR: usize = 512;
/// `startup_64` is 0x200 bytes into the protected-mode part; part of the protocol.
const ENTRY_64: u64 = 0x200;
/// The first version with `xloadflags`.
const MIN_VERSION: u16 = 0x020c;
/// Lowest load address: the loader loads nothing into the first MiB.
const LOWEST: u64 = 0x10_0000;

const LOADED_HIGH: u8 = 1 << 0;
const XLF_KERNEL_64: u16 = 1 << 0;
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 1 << 1;
const XLF_EFI_KEXEC: u16 = 1 << 4;
const XLF_5LEVEL: u16 = 1 << 5;
const XLF_5LEVEL_ENABLED: u16 = 1 << 6;

/// The first version with `kernel_info_offset`.
const KERNEL_INFO_VERSION: u16 = 0x020f;
/// "LToP", `kernel_info.header`.
const KERNEL_INFO_MAGIC: u32 = 0x506f_544c;

macro_rules! offset {
    ($field:ident) => {
        HDR_OFFSET + core::mem::offset_of!(SetupHeader, $field)
    };
}

/// A bzImage whose header was checked.
///
/// # Invariants
///
/// The setup header is at most [`HDR_MAX`] bytes, the payload holds the entry point, and
/// `header.mem_size >= payload.len()`.
#[derive(Clone, Debug)]
pub struct BzImage<'a> {
    banner: Option<&'a str>,
    setup_header: &'a [u8],
    payload: &'a [u8],
    header: ImageHeader,
}

impl<'a> BzImage<'a> {
    /// Checks the header of `file`, which begins with the boot sector.
    ///
    /// # Errors
    ///
    /// Every [`ImageError`] but those of reading a file.
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        let len = len64(file.len());
        let short = |needed: u64| ImageError::Truncated {
            len,
            needed,
            missing: needed.saturating_sub(len),
        };
        let head = len64(HDR_OFFSET + HDR_MAX);
        let byte = |at| file.get(at).copied().ok_or_else(|| short(head));
        let half = |at| u16_at(file, at).ok_or_else(|| short(head));
        let word = |at| u32_at(file, at).ok_or_else(|| short(head));
        let long = |at| u64_at(file, at).ok_or_else(|| short(head));

        require(
            "boot_flag",
            AT_BOOT_FLAG,
            half(AT_BOOT_FLAG)?.into(),
            "not 0xaa55",
            |v| v == u64::from(BOOT_FLAG),
        )?;
        require(
            "header",
            AT_MAGIC,
            word(AT_MAGIC)?.into(),
            "not the magic number \"HdrS\"",
            |v| v == u64::from(MAGIC),
        )?;
        let version = half(offset!(version))?;
        if version < MIN_VERSION {
            return Err(ImageError::OldProtocol { version });
        }
        let loadflags = byte(offset!(loadflags))?;
        if loadflags & LOADED_HIGH == 0 {
            return Err(ImageError::LoadedLow { loadflags });
        }
        let xloadflags = half(offset!(xloadflags))?;
        if xloadflags & XLF_KERNEL_64 == 0 {
            return Err(ImageError::No64BitEntry { xloadflags });
        }
        let relocatable = byte(offset!(relocatable_kernel))?;
        if relocatable == 0 || xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G == 0 {
            return Err(ImageError::NotRelocatable {
                relocatable,
                xloadflags,
            });
        }

        // The header ends where the jump at its beginning goes: 0x202 plus the byte at 0x201.
        let at_jump = offset!(jump) + 1;
        let header_end = usize::from(byte(at_jump)?) + AT_MAGIC;
        require(
            "jump",
            at_jump,
            len64(header_end - AT_MAGIC),
            "the setup header would end before the field init_size, or be longer than boot_params has room for",
            |_| (offset!(handover_offset)..=HDR_OFFSET + HDR_MAX).contains(&header_end),
        )?;
        let header = file
            .get(HDR_OFFSET..header_end)
            .ok_or_else(|| short(len64(header_end)))?;

        // Zero means four, for images from before the field existed.
        let at_sects = offset!(setup_sects);
        let sectors = match byte(at_sects)? {
            0 => 4,
            n => usize::from(n),
        };
        let setup_len = (sectors + 1) * SECTOR;
        let at_syssize = offset!(syssize);
        let paragraphs = word(at_syssize)?;
        let payload_len = u64::from(paragraphs) * 16;
        require(
            "syssize",
            at_syssize,
            paragraphs.into(),
            "too small to hold the entry point",
            |_| payload_len > ENTRY_64,
        )?;
        // The build pads the payload to whole units of syssize (`arch/x86/boot/tools/build.c`; since 6.17 the linker).
        // So a file that is shorter was cut off, and has lost at least its checksum or its signature.
        let needed = len64(setup_len).saturating_add(payload_len);
        let needed = needed.max(signature_end(file).unwrap_or(0));
        if len < needed {
            return Err(short(needed));
        }
        let payload = file.get(setup_len..).unwrap_or_default();
        // Bytes behind the payload (a signature for Secure Boot) are not part of the kernel.
        let payload = usize::try_from(payload_len)
            .ok()
            .and_then(|n| payload.get(..n))
            .unwrap_or(payload);

        let at_align = offset!(kernel_alignment);
        let alignment = u64::from(word(at_align)?);
        require(
            "kernel_alignment",
            at_align,
            alignment,
            "not a power of two between a page and 1 GiB",
            |v| v.is_power_of_two() && (PAGE_SIZE..=1 << 30).contains(&v),
        )?;
        let at_pref = offset!(pref_address);
        let preferred = long(at_pref)?;
        require(
            "pref_address",
            at_pref,
            preferred,
            "not a multiple of kernel_alignment below 4 GiB",
            |v| v.is_multiple_of(alignment) && v < 1 << 32,
        )?;
        let at_init = offset!(init_size);
        let init_size = u64::from(word(at_init)?);
        require(
            "init_size",
            at_init,
            init_size,
            "smaller than the payload",
            |v| v >= len64(payload.len()),
        )?;
        let at_cmdline = offset!(cmdline_size);
        let cmdline_max = u64::from(word(at_cmdline)?);
        require(
            "cmdline_size",
            at_cmdline,
            cmdline_max,
            "not between 255 bytes and 1 MiB",
            |v| (255..=1 << 20).contains(&v),
        )?;
        // Every kernel that can be loaded above 4 GiB takes its initrd there too, so the limit in `initrd_addr_max`
        // does not bind. A value that no build writes still means that the header is damaged.
        let at_initrd = offset!(initrd_addr_max);
        require(
            "initrd_addr_max",
            at_initrd,
            word(at_initrd)?.into(),
            "below 16 MiB",
            |v| v >= 16 << 20,
        )?;

        let setup_indirect = knows_setup_indirect(file, version, setup_len, payload.len())
            .ok_or_else(|| short(head))??;

        Ok(Self {
            banner: banner(file, half(offset!(kernel_version))?, setup_len)?,
            setup_header: header,
            payload,
            header: ImageHeader {
                mem_size: init_size.next_multiple_of(PAGE_SIZE),
                payload_len: len64(payload.len()),
                alignment,
                preferred: PhysAddr::new(preferred),
                lowest: PhysAddr::new(preferred.max(LOWEST)),
                above_4g: true,
                initrd_max: None,
                cmdline_max,
                five_level: xloadflags & XLF_5LEVEL != 0,
                five_level_on: xloadflags & XLF_5LEVEL_ENABLED != 0,
                setup_indirect,
                efi_kexec: xloadflags & XLF_EFI_KEXEC != 0,
            },
        })
    }

    /// Returns the whole version line: the release, and the user, place and time of the build. `None` if the image has
    /// no such line.
    pub fn banner(&self) -> Option<&'a str> {
        self.banner
    }

    /// Returns the packed kernel.
    ///
    /// # Errors
    ///
    /// [`VmlinuxError::Unknown`] if the packed kernel is not at the place that the header states, or unpacks to more
    /// than `init_size`.
    pub fn packed(&self) -> Result<Packed<'a>, VmlinuxError> {
        let word = |at: usize| u32_at(self.setup_header, at).unwrap_or(0);
        Packed::find(
            self.payload,
            word(core::mem::offset_of!(SetupHeader, payload_offset)),
            word(core::mem::offset_of!(SetupHeader, payload_length)),
            self.header.mem_size,
        )
    }
}

impl Image for BzImage<'_> {
    fn format(&self) -> &'static str {
        "bzImage"
    }

    fn release(&self) -> Option<&str> {
        self.banner?.split(' ').next()
    }

    fn header(&self) -> &ImageHeader {
        &self.header
    }

    fn payload(&self) -> &[u8] {
        self.payload
    }

    fn entry_offset(&self) -> u64 {
        ENTRY_64
    }

    fn setup_header(&self) -> &[u8] {
        self.setup_header
    }

    /// The decompressor moves the kernel later.
    fn moved(&self) -> bool {
        false
    }
}

fn require(
    field: &'static str,
    offset: usize,
    value: u64,
    wanted: &'static str,
    holds: impl FnOnce(u64) -> bool,
) -> Result<(), ImageError> {
    if holds(value) {
        return Ok(());
    }
    Err(ImageError::Corrupt(BadField {
        field,
        offset: len64(offset),
        value,
        wanted,
    }))
}

/// Returns whether `kernel_info.setup_type_max` has the bit of `SETUP_INDIRECT`: "The kernel_info" in
/// `Documentation/arch/x86/boot.rst`. Images from before boot protocol 2.15 have no `kernel_info`. `None` if the header
/// is incomplete.
fn knows_setup_indirect(
    file: &[u8],
    version: u16,
    setup_len: usize,
    payload_len: usize,
) -> Option<Result<bool, ImageError>> {
    if version < KERNEL_INFO_VERSION {
        return Some(Ok(false));
    }
    let at_offset = offset!(kernel_info_offset);
    let offset = u32_at(file, at_offset)?;
    let info = usize::try_from(offset)
        .ok()
        .filter(|at| *at < payload_len)
        .and_then(|at| file.get(setup_len.checked_add(at)?..));
    let word = |at| info.and_then(|info| u32_at(info, at));
    let checked = require(
        "kernel_info_offset",
        at_offset,
        offset.into(),
        "not the place of a kernel_info in the payload",
        |_| word(0) == Some(KERNEL_INFO_MAGIC),
    );
    // `size` counts the fields of fixed size: without setup_type_max it is 12.
    let has_field = word(4).is_some_and(|size| size >= 16);
    let type_max = word(12).filter(|_| has_field).unwrap_or(0);
    Some(checked.map(|()| type_max & SETUP_INDIRECT != 0))
}

/// Returns the version string, `kernel_version + 0x200` bytes into the file and inside the setup part.
fn banner(file: &[u8], kernel_version: u16, setup_len: usize) -> Result<Option<&str>, ImageError> {
    if kernel_version == 0 {
        return Ok(None);
    }
    let text = file
        .get(usize::from(kernel_version) + SECTOR..setup_len)
        .and_then(|rest| {
            rest.split(|b| *b == 0)
                .next()
                .filter(|text| text.len() < rest.len())
        })
        .filter(|text| !text.is_empty() && text.iter().all(|b| (0x20..0x7f).contains(b)))
        .and_then(|text| std::str::from_utf8(text).ok());
    let wanted = "not the place of a printable version string in the setup part";
    require(
        "kernel_version",
        offset!(kernel_version),
        kernel_version.into(),
        wanted,
        |_| text.is_some(),
    )?;
    Ok(text)
}
