//! PE files, as far as kernel images use the format.

use kho::bytes::{u16_at, u32_at};

/// "PE Format", Microsoft: the signature's offset at 0x3c, then the COFF header, the optional header, the sections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pe {
    /// Offset of the signature.
    pub(super) at: usize,
    pub(super) machine: u16,
    pub(super) sections: u16,
    /// Bytes of the optional header.
    optional: u16,
}

/// Bytes of the signature and of the COFF header behind it.
const COFF_LEN: usize = 24;

impl Pe {
    /// Reads the headers; `None` if the file ends before the end of the COFF header.
    pub(super) fn of(file: &[u8]) -> Option<Self> {
        if !file.starts_with(b"MZ") {
            return None;
        }
        let at = usize::try_from(u32_at(file, 0x3c)?).ok()?;
        let pe = file.get(at..)?;
        if !pe.starts_with(b"PE\0\0") {
            return None;
        }
        Some(Self {
            at,
            machine: u16_at(pe, 4)?,
            sections: u16_at(pe, 6)?,
            optional: u16_at(pe, 20)?,
        })
    }

    /// Offset of the section table; `None` on overflow.
    pub(super) fn table(&self) -> Option<usize> {
        self.at.checked_add(COFF_LEN + usize::from(self.optional))
    }
}

/// Returns the offset in a PE file at which the content of the last section ends; `None` if the file is no PE file or
/// ends before its section table does.
pub(super) fn sections_end(file: &[u8]) -> Option<u64> {
    const ENTRY_LEN: usize = 40;
    let pe = Pe::of(file)?;
    let table = pe.table()?;
    let len = ENTRY_LEN.checked_mul(pe.sections.into())?;
    let table = file.get(table..table.checked_add(len)?)?;
    // `SizeOfRawData`, `PointerToRawData`.
    let ends = table
        .chunks_exact(ENTRY_LEN)
        .filter_map(|entry| Some(u64::from(u32_at(entry, 16)?) + u64::from(u32_at(entry, 20)?)));
    ends.max()
}

/// Returns the offset in a PE file at which the signature behind it ends: the certificate table is number 4 of the data
/// directories, and the only one whose address is an offset in the file. `None` if the file has no signature.
pub(super) fn signature_end(file: &[u8]) -> Option<u64> {
    /// `IMAGE_NT_OPTIONAL_HDR64_MAGIC`.
    const PE32_PLUS: u16 = 0x20b;
    const DIRECTORIES: usize = 112;
    const CERTIFICATES: u32 = 4;
    let optional = Pe::of(file)?.at.checked_add(COFF_LEN)?;
    let header = file.get(optional..)?;
    if u16_at(header, 0)? != PE32_PLUS || u32_at(header, DIRECTORIES - 4)? <= CERTIFICATES {
        return None;
    }
    let entry = DIRECTORIES + 8 * 4;
    let (at, len) = (u32_at(header, entry)?, u32_at(header, entry + 4)?);
    (len != 0).then(|| u64::from(at) + u64::from(len))
}
