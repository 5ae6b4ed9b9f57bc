//! Entry into the next kernel: into the kernel itself, which the loader unpacks before the kexec, or into the bzImage,
//! which unpacks the kernel during the kexec, while the machine is down.
//!
//! The loader chooses the kernel itself only if the decompressor of the bzImage would do nothing that the loader does
//! not do ([`kho_kexec::image::Vmlinux`] has the list).

use super::decode;
use crate::args;
use crate::enter::Enter;
use crate::exit::{Fail, Status, chain};
use crate::output;
use crate::random;
use crate::shown;
use kho::headroom::same_name;
use kho_kexec::cmdline;
use kho_kexec::image::{BzImage, Compression, Image, Packed, Vmlinux};
use kho_kexec::sys::facts::host;
use kho_kexec::sys::facts::meminfo::MemInfo;
use kho_kexec::sys::root::Root;
use serde::Serialize;
use std::fmt;

/// Options of the next kernel that change where its decompressor puts it (`handle_mem_options` and
/// `parse_immovable_mem`, `arch/x86/boot/compressed/{kaslr,acpi}.c`, 5.10 to 6.12), or the memory that it may use.
const PLACING: [&str; 5] = ["mem", "memmap", "movable_node", "mem_encrypt", "acpi_rsdp"];

/// Free memory that unpacking needs, as a multiple of the unpacked length: the result, the decoder's window, and the
/// same amount again as a margin.
const PARTS: u64 = 4;

/// Place at which the next kernel is entered, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "at", rename_all = "lowercase")]
pub enum Way {
    /// The kernel itself.
    Kernel {
        /// Name of its compression format.
        unpacked: &'static str,
        /// Number of virtual addresses from which its address was chosen, 1 if it stays at the address it was linked
        /// for; `None` before it is unpacked.
        places: Option<u64>,
    },
    /// The file, which is the kernel itself: an arm64 `Image`.
    Image,
    /// The bzImage.
    Bzimage {
        /// Reason for this choice.
        why: String,
    },
}

impl fmt::Display for Way {
    /// Completes the sentence "it is entered at …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { unpacked, places } => {
                write!(f, "the kernel itself, ")?;
                match places {
                    None => write!(f, "which the load unpacks ({unpacked})"),
                    Some(1) => write!(f, "unpacked now ({unpacked}), where it was linked for"),
                    Some(n) => write!(
                        f,
                        "unpacked now ({unpacked}), at one of {n} virtual addresses"
                    ),
                }
            }
            Self::Image => f.write_str("its first byte"),
            Self::Bzimage { why } => write!(f, "the bzImage, which unpacks itself: {why}"),
        }
    }
}

/// Chooses the [`Way`] for `file`, a bzImage that was parsed as `image`, by the arguments, the command line and the
/// paging of this machine.
///
/// # Errors
///
/// [`Status::NextKernel`] if the arguments require the kernel itself, and it must not be entered.
pub fn way(
    args: &args::Next,
    file: &[u8],
    image: &dyn Image,
    line: &[u8],
    five_level: bool,
) -> Result<Way, Fail> {
    if args.enter == Enter::Bzimage {
        let why = "as chosen".to_owned();
        return Ok(Way::Bzimage { why });
    }
    let able = host::processor_has_five_level_paging();
    let format = placed_freely(line)
        .and_then(|()| same_paging(image.header().five_level_on, line, five_level, able))
        .and_then(|()| Ok(packed(file)?.1));
    match format {
        Ok(format) => Ok(Way::Kernel {
            unpacked: format.name(),
            places: None,
        }),
        Err(why) => instead(args, why),
    }
}

/// If `way` is [`Way::Kernel`], unpacks the kernel of `file` and chooses its virtual address. Returns the kernel and
/// the [`Way`] that is possible. `still` is the number of bytes of memory that the load takes after this.
///
/// # Errors
///
/// [`Status::NextKernel`] if the arguments require the kernel itself, and it cannot be entered. If there are no random
/// numbers.
pub fn unpacked(
    args: &args::Next,
    way: &Way,
    file: &[u8],
    image: &dyn Image,
    line: &[u8],
    root: &Root,
    still: u64,
) -> Result<(Option<Vmlinux>, Way), Fail> {
    let &Way::Kernel { unpacked, .. } = way else {
        return Ok((None, way.clone()));
    };
    let laid = enough(file, root, still).and_then(|()| lay_out(file, image));
    let mut kernel = match laid {
        Ok(kernel) => kernel,
        Err(why) => return Ok((None, instead(args, why)?)),
    };
    let mut places = 1;
    if let Some(all) = kernel.places().filter(|_| randomizes(line)) {
        kernel.relocate(random::number()?);
        places = all;
    }
    let places = Some(places);
    Ok((Some(kernel), Way::Kernel { unpacked, places }))
}

/// Returns [`Way::Bzimage`], or an error if the arguments require the kernel itself.
fn instead(args: &args::Next, why: String) -> Result<Way, Fail> {
    if args.enter != Enter::Kernel {
        return Ok(Way::Bzimage { why });
    }
    let what = format!(
        "{} cannot be entered at the kernel itself: {why}",
        shown::path(&args.kernel)
    );
    Err(Fail::new(Status::NextKernel, what)
        .fix("leave --enter kernel out: the bzImage then unpacks itself"))
}

/// Whether a kernel with this command line randomizes its addresses, if it can.
pub fn randomizes(line: &[u8]) -> bool {
    !has_word(line, b"nokaslr")
}

/// Whether the command line has this word, by the rules of the decompressor (`cmdline_find_option_bool`,
/// `arch/x86/boot/cmdline.c`).
fn has_word(line: &[u8], word: &[u8]) -> bool {
    line.split(|byte| *byte <= b' ').any(|found| found == word)
}

fn placed_freely(line: &[u8]) -> Result<(), String> {
    let named =
        |name: &&str| cmdline::arguments(line).any(|arg| same_name(arg.name, name.as_bytes()));
    match PLACING.iter().find(|name| named(name)) {
        Some(name) => Err(format!("{name} is on its command line")),
        None => Ok(()),
    }
}

/// Checks that the next kernel needs the paging mode that is on now. `able` says whether the processor supports five
/// levels. The decompressor would switch the mode (`configure_5level_paging`, `arch/x86/boot/compressed/pgtable_64.c`).
/// The kernel itself keeps the mode that it finds.
fn same_paging(
    five_level_on: bool,
    line: &[u8],
    five_level: bool,
    able: bool,
) -> Result<(), String> {
    let wants = five_level_on && !has_word(line, b"no5lvl") && able;
    match (wants, five_level) {
        (true, false) => Err("it switches five-level paging on".to_owned()),
        (false, true) => Err("it switches five-level paging off".to_owned()),
        _ => Ok(()),
    }
}

/// Finds the packed kernel and its format. Fails for a format that has no decoder here.
fn packed(file: &[u8]) -> Result<(Packed<'_>, Compression), String> {
    let packed = BzImage::parse(file)
        .map_err(|err| chain(&err))?
        .packed()
        .map_err(|err| err.to_string())?;
    match packed.format {
        Some(format) if decode::knows(format) => Ok((packed, format)),
        Some(format) => Err(format!("there is no decoder for {} here", format.name())),
        None => Err("its compression is not known".to_owned()),
    }
}

/// Checks that enough memory is free to unpack the kernel, and to hold it while the load takes `still` bytes more. The
/// plan found that the load fits without the unpacked kernel.
fn enough(file: &[u8], root: &Root, still: u64) -> Result<(), String> {
    let (packed, _) = packed(file)?;
    let memory = MemInfo::read(root).map_err(|err| chain(&err))?;
    let peak = packed.len.saturating_mul(PARTS);
    let needed = peak.max(packed.len.saturating_add(still));
    match memory.available < needed {
        true => Err(format!(
            "to unpack it takes {}, and {} are available",
            output::bytes(needed),
            output::bytes(memory.available)
        )),
        false => Ok(()),
    }
}

/// Unpacks and lays out the kernel.
fn lay_out(file: &[u8], image: &dyn Image) -> Result<Vmlinux, String> {
    let (packed, format) = packed(file)?;
    let unpacked = unpack(&packed, format)?;
    Vmlinux::lay_out(image, &packed, unpacked).map_err(|err| err.to_string())
}

fn unpack(packed: &Packed<'_>, format: Compression) -> Result<Vec<u8>, String> {
    decode::unpacked(format, packed.bytes, packed.len)
        .map_err(|why| format!("it cannot be unpacked ({}: {why})", format.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho_kexec::image;
    use object::Endianness;
    use object::elf::{FileHeader64, PT_LOAD};
    use object::read::elf::{FileHeader, ProgramHeader};

    /// Checks the kernels that `KHO_TEST_KERNELS` names, as `cargo xtask test` does: the layout agrees with that of
    /// another reader of ELF files.
    #[test]
    fn whole_kernels_are_laid_out() {
        let Some(paths) = std::env::var_os("KHO_TEST_KERNELS").filter(|paths| !paths.is_empty())
        else {
            std::println!("SKIP whole_kernels_are_laid_out: KHO_TEST_KERNELS names no kernels");
            return;
        };
        for path in std::env::split_paths(&paths) {
            let name = path.display();
            let file = image::read(&path).unwrap();
            let outer = BzImage::parse(&file).unwrap();
            let mut kernel = lay_out(&file, &outer).unwrap();
            let (packed, format) = packed(&file).unwrap();
            let elf = unpack(&packed, format).unwrap();
            assert!(packed.moves, "{name}");
            let before = kernel.payload().to_vec();
            let entry = entry_and_segments(&elf, &before);
            assert_eq!(kernel.entry_offset(), entry, "{name}");
            assert!(
                kernel.header().mem_size <= outer.header().mem_size,
                "{name}"
            );
            // 16 MiB to 1 GiB, in steps of 2 MiB.
            let places = kernel.places().unwrap();
            assert!((400..505).contains(&places), "{name}: {places}");
            kernel.relocate(places - 1);
            let changed = before
                .chunks(8)
                .zip(kernel.payload().chunks(8))
                .filter(|(old, new)| old != new)
                .count();
            assert!(changed > 100_000, "{name}: {changed}");
            hostile(&outer, &packed, &elf);
        }
    }

    /// Compares `memory` with the segments that the `object` crate finds. Returns the offset of the entry point.
    fn entry_and_segments(elf: &[u8], memory: &[u8]) -> u64 {
        let header = FileHeader64::<Endianness>::parse(elf).unwrap();
        let endian = header.endian().unwrap();
        let preferred = 16 << 20;
        let mut end = 0;
        for segment in header.program_headers(endian, elf).unwrap() {
            if segment.p_type(endian) != PT_LOAD {
                continue;
            }
            let to = usize::try_from(segment.p_paddr(endian) - preferred).unwrap();
            let data = segment.data(endian, elf).unwrap();
            assert!(
                memory
                    .get(end..to)
                    .is_some_and(|gap| gap.iter().all(|byte| *byte == 0))
            );
            end = to + data.len();
            let (stored, cut) = data.split_at(data.len().min(memory.len() - to));
            assert!(memory[to..].starts_with(stored), "{to:#x}");
            assert!(cut.iter().all(|byte| *byte == 0), "{to:#x}");
        }
        header.e_entry(endian) - preferred
    }

    /// Checks that truncated and changed copies of a real kernel are refused.
    fn hostile(outer: &BzImage<'_>, packed: &Packed<'_>, elf: &[u8]) {
        let half = packed.bytes.len() / 2;
        let format = packed.format.unwrap();
        let cut = Packed {
            bytes: &packed.bytes[..half],
            ..*packed
        };
        let result = unpack(&cut, format);
        assert!(result.is_err() || result.is_ok_and(|bytes| bytes.len() as u64 != packed.len));
        for len in [0, 63, 4096, elf.len() / 2, elf.len() - 1, elf.len() - 4] {
            // The image may also have a wrong length.
            let packed = Packed {
                len: len as u64,
                ..*packed
            };
            let laid = Vmlinux::lay_out(outer, &packed, elf[..len].to_vec());
            // Without its last word, the table is a valid one with one relocation less.
            assert_eq!(laid.is_ok(), len == elf.len() - 4, "{len:#x}");
        }
    }

    #[test]
    fn options_that_place_the_kernel_are_for_its_decompressor() {
        for line in [
            "mem=1G",
            "quiet memmap=64M$1G",
            "movable_node ro",
            "movable-node",
            "mem_encrypt=off",
            "\"mem=1G\"",
        ] {
            assert!(placed_freely(line.as_bytes()).is_err(), "{line}");
        }
        for line in ["", "quiet", "memtest=3 rootmem=1", "memblock=debug"] {
            assert!(placed_freely(line.as_bytes()).is_ok(), "{line}");
        }
        assert!(has_word(b"quiet nokaslr", b"nokaslr"));
        assert!(has_word(b"nokaslr -- x", b"nokaslr"));
        assert!(has_word(b"x -- nokaslr", b"nokaslr"));
        assert!(!has_word(b"nokaslr=1 xnokaslr \"nokaslr\"", b"nokaslr"));
    }
    #[test]
    fn paging_that_has_to_be_switched_is_for_the_decompressor() {
        // Five-level support of the kernel, its command line, five-level paging on now, five-level support of the
        // processor.
        for (built, line, on, able, fits) in [
            (true, "quiet", true, true, true),
            (true, "quiet", false, false, true),
            (true, "quiet", false, true, false),
            (true, "no5lvl", false, true, true),
            (true, "no5lvl", true, true, false),
            (false, "quiet", true, true, false),
            (false, "quiet", false, true, true),
        ] {
            let result = same_paging(built, line.as_bytes(), on, able);
            assert_eq!(result.is_ok(), fits, "{built} {line} {on} {able}");
        }
    }
}
