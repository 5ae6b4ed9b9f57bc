//! Detection of a file's format, for errors that name the kind of a file that is not a kernel.

use std::fmt;

use super::pe::Pe;
use crate::bootparam::{HDR_OFFSET, SetupHeader};
use kho::bytes::{u16_at, u32_at};

/// "HdrS", `hdr.header`.
pub(super) const MAGIC: u32 = 0x5372_6448;
/// `hdr.boot_flag`.
pub(super) const BOOT_FLAG: u16 = 0xaa55;
pub(super) const AT_BOOT_FLAG: usize = HDR_OFFSET + core::mem::offset_of!(SetupHeader, boot_flag);
pub(super) const AT_MAGIC: usize = HDR_OFFSET + core::mem::offset_of!(SetupHeader, header);

/// `include/linux/pe.h`.
const LINUX_PE_MAGIC: u32 = 0x8182_23cd;
/// `IMAGE_FILE_MACHINE_I386`, `IMAGE_FILE_MACHINE_AMD64`.
const COFF_X86: [u16; 2] = [0x014c, 0x8664];
/// `IMAGE_FILE_MACHINE_LOONGARCH32`, `IMAGE_FILE_MACHINE_LOONGARCH64`.
const COFF_LOONGARCH: [u16; 2] = [0x6232, 0x6264];

/// A compression format, by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// gzip (RFC 1952).
    Gzip,
    /// xz.
    Xz,
    /// LZMA alone.
    Lzma,
    /// Zstandard (RFC 8878).
    Zstd,
    /// The legacy LZ4 frame that kernels and initrds use.
    Lz4Legacy,
    /// The current LZ4 frame.
    Lz4,
    /// bzip2.
    Bzip2,
    /// lzop.
    Lzo,
}

impl Compression {
    /// Recognises the format of `bytes`, by their first bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Compression); 8] = [
            (b"\x1f\x8b", Compression::Gzip),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x5d\0\0", Compression::Lzma),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x02\x21\x4c\x18", Compression::Lz4Legacy),
            (b"\x04\x22\x4d\x18", Compression::Lz4),
            (b"BZh", Compression::Bzip2),
            (b"\x89LZO\0", Compression::Lzo),
        ];
        MAGICS
            .iter()
            .find(|(magic, _)| bytes.starts_with(magic))
            .map(|(_, format)| *format)
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Zstd => "zstd",
            Self::Lz4Legacy | Self::Lz4 => "lz4",
            Self::Bzip2 => "bzip2",
            Self::Lzo => "lzo",
        }
    }
}

/// Recognised kind of a file. `Display` completes the sentence "this is …".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// An x86 kernel with a setup header. Its parser decides whether it can be booted.
    BzImage,
    /// `Documentation/arch/arm64/booting.rst`: "ARM\x64" at 56.
    Arm64Image,
    /// 0x016f2818 at 0x24.
    Arm32ZImage,
    /// `Documentation/arch/riscv/boot-image-header.rst`: "RSC\x05" at 56.
    RiscvImage,
    /// `Documentation/arch/loongarch/booting.rst`: `LINUX_PE_MAGIC` at 56 in a PE file for a LoongArch machine. X86
    /// kernels and zboot images have this magic number too.
    LoongarchImage,
    /// `LINUX_PE_MAGIC` at 56, and no PE header that names the machine.
    EfiKernel,
    /// An ELF file, such as `vmlinux`.
    Elf {
        /// `e_machine`.
        machine: u16,
        /// 64-bit class.
        wide: bool,
        /// Big-endian.
        big_endian: bool,
    },
    /// A unified kernel image: a PE file with a `.linux` section.
    Uki {
        /// The COFF machine number.
        machine: u16,
    },
    /// Any other PE file.
    Pe {
        /// The COFF machine number.
        machine: u16,
    },
    /// A kernel that decompresses itself in the EFI stub (`CONFIG_EFI_ZBOOT`).
    EfiZboot {
        /// The COFF machine number; `None` if the PE header is damaged.
        machine: Option<u16>,
    },
    /// A U-Boot image (legacy header).
    UBoot,
    /// A flattened device tree: a devicetree or a FIT image.
    Fdt,
    /// A cpio archive: an initramfs that is not compressed, or begins with CPU microcode.
    Cpio,
    /// A compressed file.
    Compressed(Compression),
    /// A boot sector without the magic number of boot protocol 2.00.
    BootSector,
    /// Unknown format, with the first bytes of the file.
    Unknown([u8; 8]),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BzImage => f.write_str("a bzImage, a kernel for x86"),
            Self::Arm64Image => f.write_str("an arm64 Image"),
            Self::Arm32ZImage => f.write_str("a 32-bit arm zImage"),
            Self::RiscvImage => f.write_str("a RISC-V Image"),
            Self::LoongarchImage => f.write_str("a LoongArch Image"),
            Self::EfiKernel => {
                f.write_str("the beginning of a kernel with an EFI stub, cut short or damaged")
            }
            Self::Elf {
                machine,
                wide,
                big_endian,
            } => {
                let bits = if *wide { 64 } else { 32 };
                let order = if *big_endian { ", big-endian" } else { "" };
                match elf_machine(*machine) {
                    Some(name) => write!(f, "an ELF file for {name} ({bits}-bit{order})"),
                    None => write!(
                        f,
                        "an ELF file for machine {machine:#x} ({bits}-bit{order})"
                    ),
                }
            }
            Self::Uki { machine } => {
                write!(
                    f,
                    "a unified kernel image for {} (its .linux section holds the kernel)",
                    Coff(*machine)
                )
            }
            Self::Pe { machine } => write!(f, "a PE program for {}", Coff(*machine)),
            Self::EfiZboot { machine: None } => f.write_str("a damaged EFI zboot kernel"),
            Self::EfiZboot {
                machine: Some(machine),
            } => write!(f, "an EFI zboot kernel for {}", Coff(*machine)),
            Self::UBoot => f.write_str("a U-Boot image"),
            Self::Fdt => f.write_str("a flattened device tree or FIT image"),
            Self::Cpio => f.write_str("a cpio archive, an initrd and not a kernel"),
            Self::Compressed(format) => {
                write!(
                    f,
                    "a {}-compressed file, an initrd or a kernel that has to be decompressed first",
                    format.name()
                )
            }
            Self::BootSector => f.write_str(
                "a boot sector without a kernel header (boot protocol before 2.00, or no kernel)",
            ),
            Self::Unknown(first) => {
                f.write_str("no known format (it begins with")?;
                first.iter().try_for_each(|b| write!(f, " {b:02x}"))?;
                f.write_str(")")
            }
        }
    }
}

/// A COFF machine number, displayed as its name.
struct Coff(u16);

impl fmt::Display for Coff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // "PE Format", Microsoft, section "Machine Types".
        match self.0 {
            0x014c => f.write_str("i386"),
            0x8664 => f.write_str("x86_64"),
            0xaa64 => f.write_str("arm64"),
            0x01c0 | 0x01c2 | 0x01c4 => f.write_str("32-bit arm"),
            0x5032 | 0x5064 => f.write_str("RISC-V"),
            0x6232 | 0x6264 => f.write_str("LoongArch"),
            other => write!(f, "machine {other:#x}"),
        }
    }
}

/// Returns the name of an ELF machine number: `include/uapi/linux/elf-em.h`.
fn elf_machine(machine: u16) -> Option<&'static str> {
    Some(match machine {
        3 => "i386",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "PowerPC 64",
        22 => "s390",
        40 => "32-bit arm",
        62 => "x86_64",
        183 => "arm64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => return None,
    })
}

/// Recognises a file by its contents.
pub fn identify(file: &[u8]) -> Found {
    // An x86 kernel is a PE file too, so the check for its own magic number comes first.
    if u32_at(file, AT_MAGIC) == Some(MAGIC) {
        return Found::BzImage;
    }
    let at = |offset: usize, magic: &[u8]| {
        file.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if at(56, b"ARM\x64") {
        return Found::Arm64Image;
    }
    if at(56, b"RSC\x05") || at(48, b"RISCV\0\0\0") {
        return Found::RiscvImage;
    }
    if at(0x24, &[0x18, 0x28, 0x6f, 0x01]) || at(0x24, &[0x01, 0x6f, 0x28, 0x18]) {
        return Found::Arm32ZImage;
    }
    if at(0, b"MZ\0\0zimg") {
        return Found::EfiZboot {
            machine: Pe::of(file).map(|pe| pe.machine),
        };
    }
    if at(0, b"\x7fELF") {
        return elf(file);
    }
    if at(0, b"070701") || at(0, b"070702") {
        return Found::Cpio;
    }
    if let Some(found) = portable_executable(file) {
        return found;
    }
    if at(0, b"MZ") && u32_at(file, 56) == Some(LINUX_PE_MAGIC) {
        return Found::EfiKernel;
    }
    if at(0, &[0x27, 0x05, 0x19, 0x56]) {
        return Found::UBoot;
    }
    if at(0, &[0xd0, 0x0d, 0xfe, 0xed]) {
        return Found::Fdt;
    }
    if let Some(format) = Compression::of(file) {
        return Found::Compressed(format);
    }
    if u16_at(file, AT_BOOT_FLAG) == Some(BOOT_FLAG) {
        return Found::BootSector;
    }
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(file) {
        *to = *from;
    }
    Found::Unknown(first)
}

fn elf(file: &[u8]) -> Found {
    let big_endian = file.get(5) == Some(&2);
    let machine = u16_at(file, 18).unwrap_or_default();
    Found::Elf {
        machine: if big_endian {
            machine.swap_bytes()
        } else {
            machine
        },
        wide: file.get(4) == Some(&2),
        big_endian,
    }
}

fn portable_executable(file: &[u8]) -> Option<Found> {
    let pe = Pe::of(file)?;
    let machine = pe.machine;
    // Every PE program is longer than that, and the part of an x86 kernel with an EFI stub before its own magic number
    // is a PE file.
    if COFF_X86.contains(&machine) && file.len() < AT_MAGIC + size_of_val(&MAGIC) {
        return Some(Found::BzImage);
    }
    if COFF_LOONGARCH.contains(&machine) && u32_at(file, 56) == Some(LINUX_PE_MAGIC) {
        return Some(Found::LoongarchImage);
    }
    let table = pe.table()?;
    let uki = file
        .get(table..)
        .unwrap_or_default()
        .chunks_exact(40)
        .take(pe.sections.into())
        .any(|section| section.starts_with(b".linux\0"));
    Some(if uki {
        Found::Uki { machine }
    } else {
        Found::Pe { machine }
    })
}
