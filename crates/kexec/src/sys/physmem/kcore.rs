//! `/proc/kcore`: kernel memory as an ELF core file.
//!
//! Every piece of RAM is a `PT_LOAD` header with its physical address in `p_paddr`; areas without a physical address
//! (vmalloc, modules) have -1 (`read_kcore_iter`, `fs/proc/kcore.c`, 6.1 to 7.3). Debian sets CONFIG_PROC_KCORE.
//!
//! **The file holds memory that is reserved through setup_data**, as whole pages. The pieces are the "System RAM"
//! resources, each rounded *inwards* to pages (`walk_system_ram_range`). Up to 6.12 `e820__reserve_setup_data` splits
//! them at every setup_data node and range (`E820_TYPE_RESERVED_KERN` is "System RAM" as well), so a page that holds
//! such a border, for example the end of a chain that does not fill its last page, belongs to no piece and is not
//! readable here. 7.x does not split. Memory that is handed over is page-aligned and stays readable. A loader that
//! needs a readable chain must pad the chain to whole pages.

use super::memory::{PhysError, PhysMemory, in_pieces};
use crate::sys::root::{FactError, Root};
use kho::bytes::{u16_at, u32_at, u64_at};
use kho::{PhysAddr, PhysRange};
use std::cmp::Reverse;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Largest number of bytes of notes that are read: the kernel's notes have about 10 KiB.
const NOTES: u64 = 1 << 20;
/// Start of the kernel's own mapping on x86_64 (`__START_KERNEL_map`), which contains `KCORE_TEXT`.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

/// One piece of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    virt: u64,
    len: u64,
    offset: u64,
}

/// An open `/proc/kcore`.
#[derive(Debug)]
pub struct Kcore {
    file: File,
    path: PathBuf,
    /// RAM pieces by physical address, sorted, disjoint.
    ram: Vec<(PhysRange, u64)>,
    /// RAM pieces by kernel virtual address, in file order.
    all: Vec<Piece>,
    /// Offset and length of the notes.
    notes: Option<(u64, u64)>,
}

impl Kcore {
    /// Opens the file and reads its headers. Needs CAP_SYS_RAWIO, and no lockdown at level "confidentiality".
    ///
    /// # Errors
    ///
    /// [`PhysError::Fact`] if the file is absent or the kernel refuses to open it, [`PhysError::Format`] if it is not a
    /// core file of a 64-bit little-endian machine with disjoint RAM.
    pub fn open(root: &Root) -> Result<Self, PhysError> {
        let path = root.path("proc/kcore");
        let file = File::open(&path).map_err(|e| {
            FactError::io(&path, e).hinted(": the running kernel lacks CONFIG_PROC_KCORE")
        })?;
        let mut this = Self {
            file,
            path,
            ram: Vec::new(),
            all: Vec::new(),
            notes: None,
        };
        this.read_headers()?;
        Ok(this)
    }

    fn format(&self, what: impl Into<String>) -> PhysError {
        PhysError::Format {
            path: self.path.clone(),
            what: what.into(),
        }
    }

    fn read_headers(&mut self) -> Result<(), PhysError> {
        let mut head = [0u8; HEADER];
        self.pread(0, &mut head)?;
        // Elf64_Ehdr, include/uapi/linux/elf.h.
        let (true, Some(4), Some(offset), Some(size), Some(count)) = (
            head.starts_with(b"\x7fELF\x02\x01"),
            u16_at(&head, 16),
            u64_at(&head, 32),
            u16_at(&head, 54).map(usize::from),
            u16_at(&head, 56).map(usize::from),
        ) else {
            return Err(self.format("not a little-endian 64-bit ELF core file"));
        };
        if size != PROGRAM_HEADER || count == 0 {
            return Err(self.format(format!(
                "{count} program headers of {size} bytes, expected at least one of {PROGRAM_HEADER}"
            )));
        }
        let mut table = vec![0u8; count * PROGRAM_HEADER];
        self.pread(offset, &mut table)?;
        for header in table.chunks_exact(PROGRAM_HEADER) {
            // Elf64_Phdr: type, flags, offset, vaddr, paddr, filesz, memsz, align.
            if let (Some(PT_NOTE), Some(offset), Some(len)) =
                (u32_at(header, 0), u64_at(header, 8), u64_at(header, 32))
            {
                self.notes = Some((offset, len));
            }
            let (Some(PT_LOAD), Some(offset), Some(virt), Some(phys), Some(len @ 1..)) = (
                u32_at(header, 0),
                u64_at(header, 8),
                u64_at(header, 16),
                u64_at(header, 24),
                u64_at(header, 32),
            ) else {
                continue;
            };
            let end = offset.checked_add(len);
            if end.is_none_or(|e| e > i64::MAX as u64) || virt.checked_add(len - 1).is_none() {
                return Err(self.format(format!(
                    "header of {len:#x} bytes at {virt:#x}, file offset {offset:#x}, wraps"
                )));
            }
            if phys == u64::MAX {
                // Areas of vmalloc: holes in them read as zeros, and so does device memory mapped there (ioremap).
                continue;
            }
            self.all.push(Piece { virt, len, offset });
            // KCORE_TEXT names memory that a RAM piece contains as well.
            if virt >= KERNEL_MAP {
                continue;
            }
            let range = PhysRange::new(PhysAddr::new(phys), len)
                .map_err(|e| self.format(format!("header at {virt:#x}: {e}")))?;
            self.ram.push((range, offset));
        }
        self.ram
            .sort_unstable_by_key(|(range, _)| (range.start(), Reverse(range.len())));
        // KCORE_TEXT of arm64, whose address depends on the kernel's configuration, is such a piece too.
        self.ram
            .dedup_by(|inner, outer| outer.0.contains_range(inner.0));
        if let Some(pair) = self.ram.windows(2).find(|p| p[0].0.overlaps(p[1].0)) {
            let what = format!("RAM at {} and {} overlaps", pair[0].0, pair[1].0);
            return Err(self.format(what));
        }
        if self.ram.is_empty() {
            return Err(self.format("no header has a physical address"));
        }
        Ok(())
    }

    /// Returns the readable RAM, sorted.
    pub fn ram(&self) -> impl ExactSizeIterator<Item = PhysRange> + '_ {
        self.ram.iter().map(|(range, _)| *range)
    }

    /// Returns the lowest address of `range` that is not readable, if any.
    pub fn first_missing(&self, range: PhysRange) -> Option<PhysAddr> {
        let mut at = range.start();
        while at < range.end() {
            match self.piece_of(at) {
                Some((piece, _)) => at = piece.end(),
                None => return Some(at),
            }
        }
        None
    }

    fn piece_of(&self, addr: PhysAddr) -> Option<(PhysRange, u64)> {
        let at = self.ram.partition_point(|(r, _)| r.end() <= addr);
        self.ram.get(at).copied().filter(|(r, _)| r.contains(addr))
    }

    /// Fills `buf` with the bytes at a kernel virtual address (the direct map, or the kernel's own data).
    ///
    /// # Errors
    ///
    /// [`PhysError::NotMappedVirtual`] unless one piece holds all of these bytes.
    pub fn read_virtual(&self, addr: u64, buf: &mut [u8]) -> Result<(), PhysError> {
        let len = buf.len() as u64;
        let offset = self.all.iter().find_map(|piece| {
            let skip = addr.checked_sub(piece.virt)?;
            (skip.checked_add(len)? <= piece.len).then(|| piece.offset + skip)
        });
        let Some(offset) = offset else {
            return Err(PhysError::NotMappedVirtual {
                path: self.path.clone(),
                addr,
            });
        };
        self.pread(offset, buf)
    }

    /// Returns the text of the note `VMCOREINFO`, in which the kernel describes itself to readers of its memory
    /// (Documentation/admin-guide/kdump/vmcoreinfo.rst); `None` if the file has no such note.
    ///
    /// # Errors
    ///
    /// [`PhysError`] if the notes cannot be read.
    pub fn vmcoreinfo(&self) -> Result<Option<String>, PhysError> {
        let Some((offset, len)) = self.notes.filter(|(_, len)| *len <= NOTES) else {
            return Ok(None);
        };
        let mut notes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.pread(offset, &mut notes)?;
        // Elf64_Nhdr: lengths of name and content, type; both are padded to 4 bytes.
        let mut at = 0usize;
        while let (Some(name), Some(content)) = (u32_at(&notes, at), u32_at(&notes, at + 4)) {
            let padded = |len: u32| usize::try_from(len).ok()?.checked_next_multiple_of(4);
            let (Some(name_len), Some(content_len)) = (padded(name), padded(content)) else {
                break;
            };
            let start = (at + 12).saturating_add(name_len);
            let end = start.saturating_add(usize::try_from(content).unwrap_or(usize::MAX));
            let is = |bytes: &[u8]| bytes.starts_with(b"VMCOREINFO\0");
            if let (true, Some(text)) =
                (notes.get(at + 12..).is_some_and(is), notes.get(start..end))
            {
                return Ok(Some(String::from_utf8_lossy(text).into_owned()));
            }
            at = start.saturating_add(content_len);
        }
        Ok(None)
    }

    fn pread(&self, offset: u64, buf: &mut [u8]) -> Result<(), PhysError> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            match self.file.read_at(&mut buf[done..], at) {
                Ok(0) => {
                    return Err(PhysError::Short {
                        path: self.path.clone(),
                        offset: at,
                    });
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(FactError::io(&self.path, e).into()),
            }
        }
        Ok(())
    }
}

impl PhysMemory for Kcore {
    fn read_at(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), PhysError> {
        let find = |at| {
            self.piece_of(at).ok_or_else(|| PhysError::NotMapped {
                path: self.path.clone(),
                addr: at,
            })
        };
        in_pieces(addr, buf, find, |offset, skip, part| {
            self.pread(offset + skip, part)
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    /// A program header: virtual address, physical address, bytes.
    pub(crate) type Load = (u64, u64, Vec<u8>);

    /// A core file in the kernel's format, with the contents one after the other.
    pub(crate) fn core_file(loads: &[Load]) -> Vec<u8> {
        core_file_with_notes(loads, &[])
    }

    /// As [`core_file`], with notes: name and content.
    pub(crate) fn core_file_with_notes(loads: &[Load], notes: &[(&str, &str)]) -> Vec<u8> {
        let mut out = vec![0u8; HEADER];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        out[16] = 4;
        out[18] = 62;
        out[32..40].copy_from_slice(&64u64.to_le_bytes());
        out[54..56].copy_from_slice(&56u16.to_le_bytes());
        let count = u16::try_from(loads.len() + 1).unwrap();
        out[56..58].copy_from_slice(&count.to_le_bytes());
        let mut header = |kind: u32, offset: u64, virt: u64, phys: u64, len: u64| {
            out.extend(kind.to_le_bytes());
            out.extend(7u32.to_le_bytes());
            for word in [offset, virt, phys, len, len, 4096] {
                out.extend(word.to_le_bytes());
            }
        };
        let mut note = Vec::new();
        for (name, content) in notes {
            for len in [name.len() + 1, content.len(), 0] {
                note.extend(u32::try_from(len).unwrap().to_le_bytes());
            }
            for text in [format!("{name}\0"), (*content).to_owned()] {
                note.extend(text.as_bytes());
                note.resize(note.len().next_multiple_of(4), 0);
            }
        }
        header(PT_NOTE, 0x8000, 0, 0, note.len() as u64);
        let mut at = 0x10000u64;
        for (virt, phys, bytes) in loads {
            header(PT_LOAD, at, *virt, *phys, bytes.len() as u64);
            at += bytes.len() as u64;
        }
        out.resize(0x8000, 0);
        out.extend(note);
        out.resize(0x10000, 0);
        for (_, _, bytes) in loads {
            out.extend(bytes);
        }
        out
    }

    fn put(loads: &[Load]) -> Fixture {
        let f = Fixture::new();
        f.put("proc/kcore", core_file(loads));
        f
    }

    const MAP: u64 = 0xffff_8880_0000_0000;

    #[test]
    fn reads_across_pieces_and_names_holes() {
        let f = put(&[
            (0xffff_ffff_8100_0000, 0x2000, vec![9; 0x1000]),
            (MAP + 0x3000, 0x3000, vec![3; 0x1000]),
            (MAP + 0x1000, 0x1000, vec![1; 0x2000]),
            (0xffff_c900_0000_0000, u64::MAX, vec![7; 0x1000]),
            (MAP + 0x8000, 0x8000, vec![8; 0x1000]),
        ]);
        let core = Kcore::open(&f.root()).unwrap();
        assert_eq!(core.ram().len(), 3);
        let mut buf = vec![0; 0x2000];
        core.read_at(PhysAddr::new(0x2000), &mut buf).unwrap();
        assert!(buf[..0x1000].iter().all(|b| *b == 1));
        assert!(buf[0x1000..].iter().all(|b| *b == 3));
        let missing = core.read_at(PhysAddr::new(0x3800), &mut buf).unwrap_err();
        assert!(
            matches!(missing, PhysError::NotMapped { addr, .. } if addr.get() == 0x4000),
            "{missing}"
        );
        let range = |s, e| PhysRange::from_bounds(PhysAddr::new(s), PhysAddr::new(e)).unwrap();
        assert_eq!(core.first_missing(range(0x1000, 0x4000)), None);
        assert_eq!(
            core.first_missing(range(0x3000, 0x9000)),
            Some(PhysAddr::new(0x4000))
        );
        let mut word = [0; 8];
        core.read_virtual(0xffff_ffff_8100_0ff8, &mut word).unwrap();
        assert_eq!(word, [9; 8]);
        assert!(core.read_virtual(0xffff_ffff_8100_0ff9, &mut word).is_err());
        assert!(core.read_virtual(u64::MAX, &mut word).is_err());
        // Memory with a second mapping is readable at its RAM address only.
        assert!(core.read_virtual(0xffff_c900_0000_0000, &mut word).is_err());
    }

    #[test]
    fn the_note_of_the_kernel_is_found_among_others() {
        let read = |notes: &[(&str, &str)]| {
            let f = Fixture::new();
            let file = core_file_with_notes(&[(MAP, 0, vec![1; 0x1000])], notes);
            f.put("proc/kcore", file);
            Kcore::open(&f.root()).unwrap().vmcoreinfo().unwrap()
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("CORE", "12345"), ("VMCOREINF", "x")]), None);
        let text = "SYMBOL(a)=1\nB=2\n";
        let found = read(&[("CORE", "12345"), ("VMCOREINFO", text), ("X", "")]);
        assert_eq!(found.as_deref(), Some(text));
    }

    #[test]
    fn hostile_headers_are_errors() {
        let good = core_file(&[(MAP, 0, vec![1; 0x1000])]);
        let first = HEADER + PROGRAM_HEADER;
        let cases: [(usize, &[u8]); 8] = [
            (0, b"x"),
            (4, &[1]),
            (54, &[8, 0]),
            (56, &[0, 0]),
            (32, &[0xff; 8]),
            (first + 8, &[0xff; 8]),
            (first + 32, &[0xff; 8]),
            (
                first + 24,
                &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            ),
        ];
        for (at, bytes) in cases {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            let f = Fixture::new();
            f.put("proc/kcore", &bad);
            assert!(Kcore::open(&f.root()).is_err(), "{at}");
        }
        for len in [0, 63, 64, 100] {
            let f = Fixture::new();
            f.put("proc/kcore", &good[..len]);
            assert!(Kcore::open(&f.root()).is_err(), "{len}");
        }
        let f = put(&[
            (MAP, 0, vec![1; 0x1000]),
            (MAP + 0x800, 0x800, vec![1; 0x1000]),
        ]);
        let text = Kcore::open(&f.root()).unwrap_err().to_string();
        assert!(text.contains("overlaps"), "{text}");
        let f = put(&[(MAP, u64::MAX, vec![1; 16])]);
        assert!(Kcore::open(&f.root()).is_err());
    }
}
