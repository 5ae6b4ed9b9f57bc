//! The arm64 `Image`, and the two packed forms in which distributions ship it.
//!
//! Layout and fields: `Documentation/arch/arm64/booting.rst` (6.1: `Documentation/arm64/booting.rst`), section 4. The
//! checks match those of `image_probe` and `image_load` in `arch/arm64/kernel/kexec_image.c` (6.1, 6.12, 7.3), plus a
//! check of every field that is used.
//!
//! | form | found by |
//! | --- | --- |
//! | `Image` | "ARM\x64" at 56 |
//! | gzip'ed `Image` (`Image.gz`) | [`packed_arm64`] |
//! | EFI zboot (`vmlinuz.efi`, `CONFIG_EFI_ZBOOT`) | [`packed_arm64`] |

use kho::bytes::{u32_at, u64_at};
use kho::{PAGE_SIZE, PhysAddr};
use thiserror::Error;

use super::field::BadField;
use super::header::{Image, ImageHeader};
use super::pe::sections_end;
use super::sniff::{Compression, Found, identify};
use crate::bytes::len64;

/// The kernel goes to a multiple of this, plus `text_offset` (booting.rst, section 4).
const BASE_ALIGN: u64 = 2 << 20;
/// Largest `image_size`, in bytes: `KIMAGE_VADDR` and the modules share 2 GiB (`arch/arm64/include/asm/memory.h`), and
/// builds with every option on stay below a quarter of that.
const MAX_IMAGE_SIZE: u64 = 1 << 30;
/// Largest number of bytes of command line, without NUL: `COMMAND_LINE_SIZE`,
/// `arch/arm64/include/uapi/asm/setup.h` (6.1 to 7.3).
const CMDLINE_MAX: u64 = 2047;

const AT_TEXT_OFFSET: usize = 8;
const AT_IMAGE_SIZE: usize = 16;
const AT_FLAGS: usize = 24;
const HEADER_LEN: u64 = 64;

const FLAG_BIG_ENDIAN: u64 = 1 << 0;
const FLAG_ANYWHERE: u64 = 1 << 3;

// `drivers/firmware/efi/libstub/zboot-header.S` (6.1 to 7.3).
const AT_ZBOOT_OFFSET: usize = 8;
const AT_ZBOOT_SIZE: usize = 12;

/// An arm64 `Image` whose header was checked.
///
/// # Invariants
///
/// `text_offset` is whole pages and less than 2 MiB, and the memory behind it covers the payload.
#[derive(Clone, Debug)]
pub struct Arm64Image<'a> {
    banner: Option<&'a str>,
    payload: &'a [u8],
    text_offset: u64,
    page_size: u64,
    header: ImageHeader,
}

/// Reason why kho refuses a file as an arm64 kernel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Arm64ImageError {
    /// The file has another format.
    #[error("this is {found}; needed is an arm64 Image (Debian: /boot/vmlinuz-*-arm64)")]
    WrongFormat {
        /// Kind of the file.
        found: Found,
    },
    /// The file ends before the image does.
    #[error(
        "the arm64 Image is truncated: {needed:#x} bytes belong to it, the file has {len:#x}; copy the file again"
    )]
    Truncated {
        /// Bytes in the file.
        len: u64,
        /// Number of bytes that the headers state.
        needed: u64,
    },
    /// `image_size` is 0.
    #[error(
        "the arm64 Image does not say how much memory it needs (image_size is 0); needed is Linux 3.17 or later"
    )]
    NoSize,
    /// Bit 0 of `flags`.
    #[error("the arm64 kernel is big-endian (flags {flags:#x}); needed is a little-endian one")]
    BigEndian {
        /// The field `flags`.
        flags: u64,
    },
    /// Bit 3 of `flags` is clear.
    #[error(
        "the arm64 kernel has to lie at the start of memory (flags {flags:#x}): it cannot be placed in the scratch region; needed is Linux 4.6 or later"
    )]
    FixedPlace {
        /// The field `flags`.
        flags: u64,
    },
    /// Running kernel or image use pages of another size than 4 KiB.
    #[error(
        "the arm64 kernel uses pages of {} KiB and the running kernel pages of {} KiB; kho hands over between kernels with pages of 4 KiB",
        image >> 10,
        running >> 10
    )]
    PageSize {
        /// Page size of the image, in bytes.
        image: u64,
        /// Page size of the running kernel, in bytes.
        running: u64,
    },
    /// A field holds a value that no kernel build writes.
    #[error("the header of the arm64 {} is corrupt: {} at offset {:#x} is {:#x}, {}", if *.packed { "zboot kernel" } else { "Image" }, .field.field, .field.offset, .field.value, .field.wanted)]
    Corrupt {
        /// Whether the field belongs to the packed form.
        packed: bool,
        /// The field.
        field: BadField,
    },
    /// The packed form cannot be unpacked.
    #[error("the arm64 kernel cannot be unpacked ({format}: {why}); copy the file again")]
    Packed {
        /// Name of the compression.
        format: &'static str,
        /// Message of the decoder.
        why: String,
    },
    /// The packed form names a compression that kho does not know.
    #[error(
        "the arm64 zboot kernel is packed in an unknown way (\"{name}\", its data begins with {first:02x?})"
    )]
    UnknownCompression {
        /// Name in the header, with invalid bytes replaced.
        name: String,
        /// First bytes of the packed data.
        first: Vec<u8>,
    },
}

fn corrupt(field: &'static str, at: usize, value: u64, wanted: &'static str) -> Arm64ImageError {
    bad(false, field, at, value, wanted)
}

fn bad(
    packed: bool,
    field: &'static str,
    at: usize,
    value: u64,
    wanted: &'static str,
) -> Arm64ImageError {
    Arm64ImageError::Corrupt {
        packed,
        field: BadField {
            field,
            offset: len64(at),
            value,
            wanted,
        },
    }
}

impl<'a> Arm64Image<'a> {
    /// Checks the header of `file`, an `Image` that is not packed.
    ///
    /// # Errors
    ///
    /// [`Arm64ImageError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, Arm64ImageError> {
        match identify(file) {
            Found::Arm64Image => {}
            found => return Err(Arm64ImageError::WrongFormat { found }),
        }
        let len = len64(file.len());
        let field = |at| {
            u64_at(file, at).ok_or(Arm64ImageError::Truncated {
                len,
                needed: HEADER_LEN,
            })
        };
        let flags = field(AT_FLAGS)?;
        let image_size = field(AT_IMAGE_SIZE)?;
        if image_size == 0 {
            return Err(Arm64ImageError::NoSize);
        }
        if flags & FLAG_BIG_ENDIAN != 0 {
            return Err(Arm64ImageError::BigEndian { flags });
        }
        if flags & FLAG_ANYWHERE == 0 {
            return Err(Arm64ImageError::FixedPlace { flags });
        }
        let page_size = match flags >> 1 & 3 {
            1 => 4 << 10,
            2 => 16 << 10,
            3 => 64 << 10,
            _ => return Err(corrupt("flags", AT_FLAGS, flags, "without a page size")),
        };
        let text_offset = field(AT_TEXT_OFFSET)?;
        if text_offset >= BASE_ALIGN || !text_offset.is_multiple_of(page_size) {
            let wanted = "not whole pages below 2 MiB";
            return Err(corrupt("text_offset", AT_TEXT_OFFSET, text_offset, wanted));
        }
        // The EFI stub makes the Image a PE program, whose sections end where the kernel does. A signature follows.
        let needed = sections_end(file).unwrap_or(len).max(HEADER_LEN);
        if len < needed {
            return Err(Arm64ImageError::Truncated { len, needed });
        }
        if !(needed..=MAX_IMAGE_SIZE).contains(&image_size) {
            let wanted = "smaller than the file, or more than 1 GiB";
            return Err(corrupt("image_size", AT_IMAGE_SIZE, image_size, wanted));
        }
        let payload = usize::try_from(needed).ok().and_then(|n| file.get(..n));
        let payload = payload.unwrap_or(file);
        Ok(Self {
            banner: banner(payload),
            payload,
            text_offset,
            page_size,
            header: ImageHeader {
                mem_size: text_offset + image_size.next_multiple_of(page_size),
                payload_len: len64(payload.len()),
                alignment: BASE_ALIGN,
                preferred: PhysAddr::new(0),
                lowest: PhysAddr::new(0),
                above_4g: true,
                initrd_max: None,
                cmdline_max: CMDLINE_MAX,
                five_level: true,
                five_level_on: true,
                setup_indirect: true,
                efi_kexec: true,
            },
        })
    }

    /// Returns the version line behind "Linux version": the release, and the user, place and time of the build.
    pub fn banner(&self) -> Option<&'a str> {
        self.banner
    }

    /// Page size of the kernel, in bytes: 4, 16 or 64 KiB.
    pub fn page_size(&self) -> u64 {
        self.page_size
    }

    /// Checks that memory can be handed over from a kernel with pages of `running` bytes: both must have pages of
    /// [`PAGE_SIZE`], in which the planner counts.
    ///
    /// # Errors
    ///
    /// [`Arm64ImageError::PageSize`].
    pub fn check_page_size(&self, running: u64) -> Result<(), Arm64ImageError> {
        if self.page_size == PAGE_SIZE && running == PAGE_SIZE {
            return Ok(());
        }
        Err(Arm64ImageError::PageSize {
            image: self.page_size,
            running,
        })
    }
}

impl Image for Arm64Image<'_> {
    fn format(&self) -> &'static str {
        "arm64 Image"
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

    /// Returns `text_offset`: whole pages, below 2 MiB.
    fn entry_offset(&self) -> u64 {
        self.text_offset
    }

    /// Returns nothing: an arm64 kernel takes no `boot_params`.
    fn setup_header(&self) -> &[u8] {
        &[]
    }

    fn moved(&self) -> bool {
        false
    }
}

/// Returns the text behind "Linux version " (`linux_banner`, `init/version-timestamp.c`), up to the end of its line.
/// The same words stand before a conversion, `%s`, in other strings of a kernel.
fn banner(payload: &[u8]) -> Option<&str> {
    const WORDS: &[u8] = b"Linux version ";
    const LONGEST: usize = 512;
    let mut rest = payload;
    loop {
        let at = rest
            .windows(WORDS.len())
            .position(|window| window == WORDS)?;
        rest = rest.get(at.checked_add(WORDS.len())?..)?;
        if !rest.first()?.is_ascii_digit() {
            continue;
        }
        let line = rest.get(..LONGEST).unwrap_or(rest);
        let end = line.iter().position(|byte| matches!(byte, b'\n' | 0))?;
        return core::str::from_utf8(line.get(..end)?).ok();
    }
}

/// An arm64 kernel inside a compressed file. The caller unpacks it and hands the bytes to [`Arm64Image::parse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedArm64<'a> {
    /// Format of the bytes.
    pub format: Compression,
    /// The compressed stream.
    pub bytes: &'a [u8],
    /// Number of bytes that the stream unpacks to: from 64 to 1 GiB.
    pub len: u64,
}

/// Finds the packed kernel in an EFI zboot kernel for arm64, or in a gzip'ed file; `None` if the file is neither. The
/// content of a gzip'ed file is not known before it is unpacked.
///
/// # Errors
///
/// [`Arm64ImageError::WrongFormat`] if the zboot kernel is for another machine, [`Arm64ImageError::Truncated`],
/// [`Arm64ImageError::Corrupt`], [`Arm64ImageError::UnknownCompression`].
pub fn packed_arm64(file: &[u8]) -> Result<Option<PackedArm64<'_>>, Arm64ImageError> {
    match identify(file) {
        Found::Compressed(Compression::Gzip) => {
            // RFC 1952: the last word is the unpacked length.
            let at = file.len().saturating_sub(4);
            let len = u32_at(file, at).unwrap_or(0);
            Ok(Some(PackedArm64 {
                format: Compression::Gzip,
                bytes: file,
                len: unpacked_len("ISIZE", at, len)?,
            }))
        }
        Found::EfiZboot { machine } => {
            if machine.is_some_and(|machine| machine != COFF_ARM64) {
                let found = Found::EfiZboot { machine };
                return Err(Arm64ImageError::WrongFormat { found });
            }
            zboot(file).map(Some)
        }
        _ => Ok(None),
    }
}

/// `IMAGE_FILE_MACHINE_ARM64`.
const COFF_ARM64: u16 = 0xaa64;

fn zboot(file: &[u8]) -> Result<PackedArm64<'_>, Arm64ImageError> {
    let short = |needed: u64| Arm64ImageError::Truncated {
        len: len64(file.len()),
        needed,
    };
    let word = |at| u32_at(file, at).ok_or_else(|| short(HEADER_LEN));
    let (offset, size) = (word(AT_ZBOOT_OFFSET)?, word(AT_ZBOOT_SIZE)?);
    let needed = u64::from(offset).saturating_add(u64::from(size));
    let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
    let (start, len) = range.ok_or_else(|| short(needed))?;
    if u64::from(offset) < HEADER_LEN {
        let wanted = "inside the header";
        let value = u64::from(offset);
        return Err(bad(true, "payload_offset", AT_ZBOOT_OFFSET, value, wanted));
    }
    let end = start.checked_add(len).ok_or_else(|| short(needed))?;
    let bytes = file.get(start..end).ok_or_else(|| short(needed))?;
    let Some(format) = Compression::of(bytes) else {
        let name = file.get(24..56).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        return Err(Arm64ImageError::UnknownCompression {
            name: String::from_utf8_lossy(name).into_owned(),
            first: bytes.iter().take(4).copied().collect(),
        });
    };
    // The unpacked length is the last word of a gzip stream, and follows the stream of every other format.
    let at = match format {
        Compression::Gzip => end.saturating_sub(4),
        _ => end,
    };
    let len = u32_at(file, at).ok_or_else(|| short(needed.saturating_add(4)))?;
    Ok(PackedArm64 {
        format,
        bytes,
        len: unpacked_len("the unpacked length", at, len)?,
    })
}

fn unpacked_len(field: &'static str, at: usize, len: u32) -> Result<u64, Arm64ImageError> {
    let len = u64::from(len);
    if (HEADER_LEN..=MAX_IMAGE_SIZE).contains(&len) {
        return Ok(len);
    }
    Err(bad(true, field, at, len, "not between 64 bytes and 1 GiB"))
}
