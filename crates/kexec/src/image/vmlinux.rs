//! The kernel inside a bzImage, laid out and moved before the kexec, so that kexec enters it without the decompressor.
//!
//! # Work of the decompressor (`arch/x86/boot/compressed/misc.c`, 5.10, 6.1, 6.12; read from images: 7.3)
//!
//! | step | here |
//! | --- | --- |
//! | unpacks the payload at `payload_offset`; the unpacked length is the payload's last word | [`Packed`], and a decoder of the caller |
//! | `parse_elf`: moves each `PT_LOAD` to `p_paddr - pref_address` | [`Vmlinux::lay_out`] |
//! | `handle_relocations`: adds the distance to the addresses in the text | [`Vmlinux::relocate`] |
//! | `choose_random_location`: a multiple of `kernel_alignment` for the virtual address | [`Vmlinux::relocate`] |
//! | … and for the physical address | nothing: the planner places the kernel in scratch |
//! | sets `KASLR_FLAG` in `loadflags` | [`Image::moved`] |
//! | looks for the ACPI root pointer | nothing: the kernel does so itself, and [`bootparam`](crate::bootparam) passes the running kernel's on |
//! | switches five-level paging | nothing: the caller enters only a kernel that uses the mode that is on |
//! | jumps to `e_entry - pref_address`, with `boot_params` in `rsi` | [`Image::entry_offset`] |
//!
//! # The table of relocations
//!
//! The table follows the ELF file. Its words have 32 bits, each the low half of a virtual address, sorted. 5.10 to
//! 6.12: a zero, the places of 64-bit addresses, a zero, those of inverse 32-bit ones (relative to per-CPU data), a
//! zero, those of 32-bit ones. 7.3 has no per-CPU data at address 0, and no inverse part. A kernel that is built
//! without `CONFIG_RANDOMIZE_BASE` has no table and stays at its address.
//!
//! The kernel promises none of this as an interface. So the code checks every value against these versions, and refuses
//! a kernel that differs. The loader then loads the bzImage itself, which unpacks itself.

use kho::PAGE_SIZE;
use kho::bytes::{u16_at, u32_at, u64_at};
use thiserror::Error;

use super::field::BadField;
use super::header::{Image, ImageHeader};
use super::sniff::Compression;
use crate::bytes::len64;

/// `MIN_KERNEL_ALIGN`: the kernel maps itself by pages of this size (`__startup_64`, `arch/x86/kernel/head64.c`).
const HUGE: u64 = 2 << 20;
/// `__START_KERNEL_map` (`arch/x86/include/asm/page_64_types.h`).
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// `KERNEL_IMAGE_SIZE` of a kernel with `CONFIG_RANDOMIZE_BASE`: the end of its virtual addresses, from
/// [`KERNEL_MAP`] on.
const KERNEL_IMAGE_SIZE: u64 = 1 << 30;
/// Largest number of program headers of a kernel; kernels up to 7.3 have at most 5.
const MAX_SEGMENTS: u16 = 32;

const EHDR_LEN: u64 = 64;
const PHDR_LEN: u16 = 56;
const SHDR_LEN: u16 = 64;
const PT_LOAD: u32 = 1;
const SHT_NOBITS: u32 = 8;
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;

/// The packed kernel inside a bzImage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed<'a> {
    /// Format of the bytes; `None` if the format is unknown.
    pub format: Option<Compression>,
    /// The compressed stream, without the length behind it.
    pub bytes: &'a [u8],
    /// Number of bytes that the stream unpacks to, at most `init_size`.
    pub len: u64,
    /// Whether the decompressor knows `nokaslr`, and therefore moves the kernel.
    pub moves: bool,
}

/// Reason why kexec cannot enter the kernel inside a bzImage directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VmlinuxError {
    /// A field holds a value that this field does not have in kernels up to 7.3.
    #[error("the kernel inside of it is laid out in an unknown way: {} at {:#x} is {:#x}, {}", .0.field, .0.offset, .0.value, .0.wanted)]
    Unknown(BadField),
    /// Decompressor and kernel disagree about whether the kernel can be moved.
    #[error("its decompressor {} the kernel, which has {} relocations", if *.moves { "moves" } else { "does not move" }, if *.moves { "no" } else { "a table of" })]
    Relocations {
        /// Whether the decompressor moves the kernel.
        moves: bool,
    },
}

fn unknown(field: &'static str, offset: u64, value: u64, wanted: &'static str) -> VmlinuxError {
    VmlinuxError::Unknown(BadField {
        field,
        offset,
        value,
        wanted,
    })
}

impl<'a> Packed<'a> {
    /// Finds the packed kernel in the protected-mode part of a bzImage: `len` bytes from `offset` on
    /// (`Documentation/arch/x86/boot.rst`, `payload_offset` and `payload_length`).
    pub(super) fn find(
        image: &'a [u8],
        offset: u32,
        len: u32,
        init_size: u64,
    ) -> Result<Self, VmlinuxError> {
        const AT: u64 = 0x248;
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|start| start.checked_add(usize::try_from(len).ok()?));
        let whole = start.zip(end).and_then(|(start, end)| {
            Some((
                image.get(..start)?,
                image.get(start..end)?,
                image.get(end..)?,
            ))
        });
        let (before, bytes, after) =
            whole
                .filter(|(before, ..)| !before.is_empty())
                .ok_or(unknown(
                    "payload_offset",
                    AT,
                    offset.into(),
                    "not inside of the image",
                ))?;
        let format = Compression::of(bytes);
        let (stream, word) = bytes.split_last_chunk::<4>().ok_or(unknown(
            "payload_length",
            AT + 4,
            len.into(),
            "shorter than a length",
        ))?;
        let unpacked = u64::from(u32::from_le_bytes(*word));
        if unpacked > init_size || unpacked < EHDR_LEN {
            let at = u64::from(offset).saturating_add(len64(stream.len()));
            let wanted = "the unpacked length, more than init_size or less than a header";
            return Err(unknown("its last word", at, unpacked, wanted));
        }
        let knows = |part: &[u8]| part.windows(8).any(|text| text == b"nokaslr\0");
        Ok(Self {
            format,
            // The last word of a gzip stream is part of the stream: the same number (RFC 1952, ISIZE).
            bytes: match format {
                Some(Compression::Gzip) => bytes,
                _ => stream,
            },
            len: unpacked,
            moves: knows(before) || knows(after),
        })
    }
}

/// A kernel in the form that it has in memory, for an entry at its own entry point.
///
/// # Invariants
///
/// Those of [`Image`]; and the offset of every relocation is inside the payload.
#[derive(Clone)]
pub struct Vmlinux {
    release: Option<String>,
    setup_header: Vec<u8>,
    header: ImageHeader,
    memory: Vec<u8>,
    entry: u64,
    relocations: Option<Relocations>,
    moved: bool,
}

impl std::fmt::Debug for Vmlinux {
    /// Shows neither the memory nor its address, which is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vmlinux")
            .field("release", &self.release)
            .field("header", &self.header)
            .field("places", &self.places())
            .finish_non_exhaustive()
    }
}

/// Offsets in the kernel of the addresses that change with the kernel's address, and the number of addresses to choose
/// from.
#[derive(Clone)]
struct Relocations {
    wide: Vec<u32>,
    inverse: Vec<u32>,
    narrow: Vec<u32>,
    /// Number of virtual addresses, `align` bytes apart. The first one is the address for which the kernel was linked.
    places: u64,
    align: u64,
}

/// One `PT_LOAD`.
#[derive(Clone, Copy)]
struct Segment {
    from: u64,
    to: u64,
    file: u64,
    memory: u64,
}

impl Vmlinux {
    /// Lays out `unpacked`: the unpacked bytes of `packed`, which is the packed kernel of `image`.
    ///
    /// # Errors
    ///
    /// [`VmlinuxError`] if the kernel differs from the form of the kernels up to 7.3.
    pub fn lay_out(
        image: &dyn Image,
        packed: &Packed<'_>,
        unpacked: Vec<u8>,
    ) -> Result<Self, VmlinuxError> {
        let header = image.header();
        let len = len64(unpacked.len());
        if len != packed.len {
            return Err(unknown(
                "its length",
                0,
                len,
                "not the length that the image names",
            ));
        }
        if header.alignment < HUGE {
            let wanted = "less than 2 MiB";
            return Err(unknown("kernel_alignment", 0x230, header.alignment, wanted));
        }
        let preferred = header.preferred.get();
        let elf = Elf::read(&unpacked, preferred, header.mem_size)?;
        let table = table(&unpacked, elf.end)?;
        if table.is_some() != packed.moves {
            return Err(VmlinuxError::Relocations {
                moves: packed.moves,
            });
        }
        let size = len.max(elf.memory).next_multiple_of(HUGE);
        let relocations = table
            .map(|table| table.resolve(preferred, elf.file, size, header.alignment))
            .transpose()?;
        let memory = elf.move_segments(unpacked, &relocations);
        Ok(Self {
            release: image.release().map(str::to_owned),
            setup_header: image.setup_header().to_vec(),
            header: ImageHeader {
                // The kernel maps all of its last huge page, but its memory has never been more than `init_size`.
                mem_size: elf.memory.next_multiple_of(HUGE).min(header.mem_size),
                payload_len: len64(memory.len()),
                ..header.clone()
            },
            memory,
            entry: elf.entry,
            relocations,
            moved: false,
        })
    }

    /// Returns the number of virtual addresses that [`Vmlinux::relocate`] chooses from; `None` if the kernel cannot be
    /// moved.
    pub fn places(&self) -> Option<u64> {
        self.relocations.as_ref().map(|table| table.places)
    }

    /// Moves the kernel, once, to the virtual address that `random` chooses, as `find_random_virt_addr`
    /// (`arch/x86/boot/compressed/kaslr.c`) does. A kernel without relocations stays at its address.
    pub fn relocate(&mut self, random: u64) {
        let Some(table) = self.relocations.as_ref().filter(|_| !self.moved) else {
            return;
        };
        let place = random.checked_rem(table.places).unwrap_or(0);
        let distance = place.saturating_mul(table.align);
        let [a, b, c, d, ..] = distance.to_le_bytes();
        let low = u32::from_le_bytes([a, b, c, d]);
        for at in &table.narrow {
            change(&mut self.memory, *at, |old| {
                u32::from_le_bytes(old).wrapping_add(low).to_le_bytes()
            });
        }
        for at in &table.inverse {
            change(&mut self.memory, *at, |old| {
                u32::from_le_bytes(old).wrapping_sub(low).to_le_bytes()
            });
        }
        for at in &table.wide {
            change(&mut self.memory, *at, |old| {
                u64::from_le_bytes(old).wrapping_add(distance).to_le_bytes()
            });
        }
        self.moved = true;
    }
}

/// Adds to the value at this offset.
fn change<const N: usize>(memory: &mut [u8], at: u32, new: impl Fn([u8; N]) -> [u8; N]) {
    let rest = usize::try_from(at).ok().and_then(|at| memory.get_mut(at..));
    if let Some(value) = rest.and_then(|rest| rest.first_chunk_mut::<N>()) {
        *value = new(*value);
    }
}

impl Image for Vmlinux {
    fn format(&self) -> &'static str {
        "vmlinux"
    }

    fn release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    fn header(&self) -> &ImageHeader {
        &self.header
    }

    fn payload(&self) -> &[u8] {
        &self.memory
    }

    fn entry_offset(&self) -> u64 {
        self.entry
    }

    fn setup_header(&self) -> &[u8] {
        &self.setup_header
    }

    fn moved(&self) -> bool {
        self.moved
    }
}

/// A checked ELF file.
struct Elf {
    segments: Vec<Segment>,
    entry: u64,
    /// Offset of the end of the file. The bytes behind it are not part of it.
    end: u64,
    /// Number of bytes of the kernel that the file has.
    file: u64,
    /// Number of bytes of the kernel in memory.
    memory: u64,
}

impl Elf {
    fn read(bytes: &[u8], preferred: u64, room: u64) -> Result<Self, VmlinuxError> {
        let magic = u32_at(bytes, 0).unwrap_or(0);
        if magic.to_le_bytes() != *b"\x7fELF" {
            return Err(unknown("e_ident", 0, magic.into(), "not an ELF file's"));
        }
        let half = |at: u64| at_offset(bytes, at, u16_at);
        let long = |at: u64| at_offset(bytes, at, u64_at);
        let want = |field, at: u64, wanted, holds: &dyn Fn(u16) -> bool| {
            let value = half(at).unwrap_or(0);
            match holds(value) {
                true => Ok(value),
                false => Err(unknown(field, at, value.into(), wanted)),
            }
        };
        // ELFCLASS64, ELFDATA2LSB.
        want("e_ident", 4, "not a 64-bit file's", &|v| v == 0x0102)?;
        want("e_type", 16, "not that of a program", &|v| v == ET_EXEC)?;
        want("e_machine", 18, "not x86_64", &|v| v == EM_X86_64)?;
        want("e_phentsize", 54, "not 56", &|v| v == PHDR_LEN)?;
        let count = want("e_phnum", 56, "no number of segments", &|v| {
            (1..=MAX_SEGMENTS).contains(&v)
        })?;
        let headers = long(32).unwrap_or(0);
        let mut end = headers
            .checked_add(u64::from(count) * u64::from(PHDR_LEN))
            .filter(|end| *end <= len64(bytes.len()))
            .ok_or(unknown("e_phoff", 32, headers, "not inside of the file"))?;
        let mut segments: Vec<Segment> = Vec::new();
        for n in 0..u64::from(count) {
            let at = headers + n * u64::from(PHDR_LEN);
            if at_offset(bytes, at, u32_at) != Some(PT_LOAD) {
                continue;
            }
            let segment = segment(bytes, at, preferred, room, segments.last())?;
            end = end.max(segment.from + segment.file);
            segments.push(segment);
        }
        let last = segments.last().ok_or(unknown(
            "e_phnum",
            56,
            count.into(),
            "the number of headers of no PT_LOAD",
        ))?;
        let (file, memory) = (last.to + last.file, last.to + last.memory);
        end = end.max(sections_end(bytes)?);
        let entry = long(24).unwrap_or(0);
        let offset = entry
            .checked_sub(preferred)
            .filter(|offset| {
                let inside = |s: &Segment| (s.to..s.to + s.file).contains(offset);
                segments.iter().any(inside)
            })
            .ok_or(unknown("e_entry", 24, entry, "not inside of a segment"))?;
        Ok(Self {
            entry: offset,
            end,
            file,
            memory,
            segments,
        })
    }

    /// Moves every segment to its place, as `parse_elf` does, and fills the gaps between segments with zeros. Cuts off
    /// the zeros at the end, which the kernel fills in anyway.
    fn move_segments(&self, mut bytes: Vec<u8>, relocations: &Option<Relocations>) -> Vec<u8> {
        let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        for segment in &self.segments {
            let from = index(segment.from)..index(segment.from.saturating_add(segment.file));
            if from.end <= bytes.len() {
                bytes.copy_within(from, index(segment.to));
            }
        }
        for pair in self.segments.windows(2) {
            if let [one, next] = pair
                && let Some(gap) = bytes.get_mut(index(one.to + one.file)..index(next.to))
            {
                gap.fill(0);
            }
        }
        bytes.truncate(index(self.file));
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        let entry = index(self.entry) + 1;
        let places = relocations.as_ref().map_or(0, Relocations::end);
        bytes.truncate(used.max(entry).max(index(places)));
        bytes.shrink_to_fit();
        bytes
    }
}

/// Reads a number at a 64-bit offset.
fn at_offset<T>(bytes: &[u8], at: u64, read: impl Fn(&[u8], usize) -> Option<T>) -> Option<T> {
    read(bytes, usize::try_from(at).ok()?)
}

/// Reads the `PT_LOAD` whose header is at `at`. It must follow `before` in the file and in memory.
fn segment(
    bytes: &[u8],
    at: u64,
    preferred: u64,
    room: u64,
    before: Option<&Segment>,
) -> Result<Segment, VmlinuxError> {
    let long = |offset: u64| at_offset(bytes, at + offset, u64_at).unwrap_or(0);
    let [from, virt, phys, file, memory, align] = [8, 16, 24, 32, 40, 48].map(long);
    let bad = |field, offset: u64, value, wanted| Err(unknown(field, at + offset, value, wanted));
    if align == 0 || !align.is_multiple_of(HUGE) {
        return bad("p_align", 48, align, "not a multiple of 2 MiB");
    }
    if from
        .checked_add(file)
        .is_none_or(|end| end > len64(bytes.len()))
    {
        return bad("p_filesz", 32, file, "more than the file has");
    }
    if memory < file || memory == 0 {
        return bad("p_memsz", 40, memory, "less than p_filesz, or nothing");
    }
    let free = before.map_or(0, |before| before.to + before.memory);
    let Some(to) = phys.checked_sub(preferred).filter(|to| *to >= free) else {
        return bad(
            "p_paddr",
            24,
            phys,
            "below pref_address or the segment before it",
        );
    };
    if to.checked_add(memory).is_none_or(|end| end > room) {
        return bad(
            "p_paddr",
            24,
            phys,
            "the begin of more than init_size has room for",
        );
    }
    if before.is_none() && to != 0 {
        return bad("p_paddr", 24, phys, "not pref_address");
    }
    // Per-CPU data of kernels before 6.15 is linked for address 0.
    if virt != 0 && Some(virt) != KERNEL_MAP.checked_add(phys) {
        return bad("p_vaddr", 16, virt, "not the virtual address of p_paddr");
    }
    // Segments move down, one after the other. No segment may move onto one that has not moved yet.
    let moved = before.map_or(0, |before| before.to + before.file);
    if from < to || from < moved {
        return bad("p_offset", 8, from, "not behind its place in memory");
    }
    Ok(Segment {
        from,
        to,
        file,
        memory,
    })
}

/// Returns the end of the section headers and of the sections that they name; 0 if the file has none.
fn sections_end(bytes: &[u8]) -> Result<u64, VmlinuxError> {
    let long = |at: u64| at_offset(bytes, at, u64_at).unwrap_or(0);
    let half = |at: u64| at_offset(bytes, at, u16_at).unwrap_or(0);
    let (table, size, count) = (long(40), half(58), half(60));
    if table == 0 {
        return Ok(0);
    }
    if size != SHDR_LEN {
        return Err(unknown("e_shentsize", 58, size.into(), "not 64"));
    }
    let len = u64::from(count) * u64::from(SHDR_LEN);
    let inside = |end: &u64| *end <= len64(bytes.len());
    let mut end = table.checked_add(len).filter(inside).ok_or(unknown(
        "e_shoff",
        40,
        table,
        "not inside of the file",
    ))?;
    for n in 0..u64::from(count) {
        let at = table + n * u64::from(SHDR_LEN);
        if at_offset(bytes, at + 4, u32_at) == Some(SHT_NOBITS) {
            continue;
        }
        let (from, len) = (long(at + 24), long(at + 32));
        let section = from.checked_add(len).filter(inside);
        end = end.max(section.ok_or(unknown("sh_size", at + 32, len, "more than the file has"))?);
    }
    Ok(end)
}

/// The table of relocations: the low halves of virtual addresses.
struct Table {
    /// Offset of the table in the unpacked bytes.
    at: u64,
    wide: Vec<u32>,
    inverse: Vec<u32>,
    narrow: Vec<u32>,
}

/// Reads the table that begins at `at`; `None` if the bytes end there.
fn table(bytes: &[u8], at: u64) -> Result<Option<Table>, VmlinuxError> {
    const NAME: &str = "the table of relocations";
    let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
    let rest = rest.unwrap_or_default();
    if rest.is_empty() {
        return Ok(None);
    }
    let (words, odd) = rest.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let mut parts = words.split(|word| *word == 0);
    let first = parts.next();
    if !odd.is_empty() || first.is_none_or(|before| !before.is_empty()) {
        let value = words.first().copied().unwrap_or(0);
        return Err(unknown(
            NAME,
            at,
            value.into(),
            "not the begin of whole words behind a zero",
        ));
    }
    // Four parts are enough to show that the table has too many.
    let parts: Vec<&[u32]> = parts.take(4).collect();
    let (wide, inverse, narrow) = match *parts.as_slice() {
        [wide, inverse, narrow] => (wide, inverse, narrow),
        [wide, narrow] => (wide, &[][..], narrow),
        _ => {
            let count = len64(parts.len());
            return Err(unknown(
                NAME,
                at,
                count,
                "the number of its parts, other than 2 and 3",
            ));
        }
    };
    Ok(Some(Table {
        at,
        wide: wide.to_vec(),
        inverse: inverse.to_vec(),
        narrow: narrow.to_vec(),
    }))
}

impl Table {
    /// Converts the addresses into offsets, all of them in the first `file` bytes of the kernel. `size` and `align`
    /// determine the number of virtual addresses to choose from.
    fn resolve(
        self,
        preferred: u64,
        file: u64,
        size: u64,
        align: u64,
    ) -> Result<Relocations, VmlinuxError> {
        let at = self.at;
        let base = KERNEL_MAP.saturating_add(preferred);
        let offsets = |words: Vec<u32>, width: u64| {
            let mut last = None;
            words
                .into_iter()
                .map(|word| {
                    // Sign-extended: each is in the last 2 GiB.
                    let offset = (0xffff_ffff_0000_0000 | u64::from(word))
                        .checked_sub(base)
                        .filter(|offset| offset.saturating_add(width) <= file)
                        .and_then(|offset| u32::try_from(offset).ok())
                        .filter(|offset| last.is_none_or(|last| last < *offset));
                    last = offset;
                    let wanted = "a place outside of the kernel, or out of order";
                    offset.ok_or(unknown(
                        "a relocation behind the ELF file",
                        at,
                        word.into(),
                        wanted,
                    ))
                })
                .collect::<Result<Vec<u32>, _>>()
        };
        let room = KERNEL_IMAGE_SIZE
            .checked_sub(preferred)
            .and_then(|room| room.checked_sub(size))
            .ok_or(unknown(
                "the kernel's length",
                0,
                size,
                "more than its virtual addresses",
            ))?;
        Ok(Relocations {
            wide: offsets(self.wide, 8)?,
            inverse: offsets(self.inverse, 4)?,
            narrow: offsets(self.narrow, 4)?,
            places: room.checked_div(align).unwrap_or(0).saturating_add(1),
            align,
        })
    }
}

impl Relocations {
    /// Returns the offset behind the last relocation.
    fn end(&self) -> u64 {
        let end =
            |places: &[u32], width: u64| places.last().map_or(0, |last| u64::from(*last) + width);
        let narrow = end(&self.narrow, 4).max(end(&self.inverse, 4));
        narrow.max(end(&self.wide, 8))
    }
}

const _: () = assert!(HUGE.is_multiple_of(PAGE_SIZE));
