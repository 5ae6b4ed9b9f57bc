//! Unified kernel images for tests, as small as "PE Format" (Microsoft) permits.

/// Offset of the signature "PE".
const SIGNATURE: usize = 64;
/// Bytes of the optional header (PE32+), with all 16 data directories.
const OPTIONAL: usize = 240;
/// Alignment of sections in the file.
const ALIGN: usize = 512;
/// Bytes of a section header.
const SECTION: usize = 40;

/// Makes a PE program for x86_64 with these sections, by name and content.
///
/// The program must be smaller than 4 GiB.
#[allow(clippy::cast_possible_truncation, reason = "files of a test are small")]
pub fn unified(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let headers = SIGNATURE + 24 + OPTIONAL + SECTION * sections.len();
    let mut file = b"MZ".to_vec();
    file.resize(0x3c, 0);
    file.extend((SIGNATURE as u32).to_le_bytes());
    file.extend(b"PE\0\0");
    file.extend(0x8664u16.to_le_bytes());
    file.extend((sections.len() as u16).to_le_bytes());
    file.extend([0; 12]);
    file.extend((OPTIONAL as u16).to_le_bytes());
    file.extend(0x22u16.to_le_bytes());
    file.extend(0x20bu16.to_le_bytes());
    file.resize(SIGNATURE + 24 + 108, 0);
    file.extend(16u32.to_le_bytes());
    file.resize(SIGNATURE + 24 + OPTIONAL, 0);
    let mut at = headers.next_multiple_of(ALIGN);
    for (name, content) in sections {
        let mut padded = name.as_bytes().to_vec();
        padded.resize(8, 0);
        file.extend(padded);
        let in_file = content.len().next_multiple_of(ALIGN);
        for value in [content.len(), at, in_file, at] {
            file.extend((value as u32).to_le_bytes());
        }
        file.extend([0; 16]);
        at += in_file;
    }
    for (_, content) in sections {
        file.resize(file.len().next_multiple_of(ALIGN), 0);
        file.extend(*content);
    }
    file.resize(file.len().next_multiple_of(ALIGN), 0);
    file
}
