//! Sizes in the container of lzop, as the kernel reads it (`unlzo`, `lib/decompress_unlzo.c`, 5.10 to 7.3). Each block
//! begins with its packed and its unpacked size, so the sizes are known without decoding.

use std::io::{Error, ErrorKind, Result};

const MAGIC: &[u8] = b"\x89LZO\0\r\n\x1a\n";

/// Largest unpacked size of a block, in bytes (`LZO_BLOCK_SIZE`).
const BLOCK: u32 = 256 * 1024;

const HAS_FILTER: u32 = 0x800;

/// First version whose headers have a level and 64-bit times.
const LEVEL: u16 = 0x0940;

/// Takes the stream from the start of `left`. Returns its unpacked size, in bytes.
///
/// # Errors
///
/// If the stream ends early, or has a header or a block that the kernel refuses.
pub fn measure(left: &mut &[u8]) -> Result<u64> {
    header(left)?;
    let mut total = 0u64;
    loop {
        let unpacked = word(left)?;
        if unpacked == 0 {
            return Ok(total);
        }
        let packed = word(left)?;
        // The checksum of the unpacked block.
        word(left)?;
        if unpacked > BLOCK || packed == 0 || packed > unpacked {
            let what = format!("a block of {packed:#x} bytes for {unpacked:#x}");
            return Err(Error::new(ErrorKind::InvalidData, what));
        }
        skip(left, packed as usize)?;
        total = total.saturating_add(unpacked.into());
    }
}

fn header(left: &mut &[u8]) -> Result<()> {
    if !left.starts_with(MAGIC) {
        return Err(Error::new(ErrorKind::InvalidData, "no header of lzop"));
    }
    skip(left, MAGIC.len())?;
    let [high, low] = *take(left)?;
    let newer = u16::from_be_bytes([high, low]) >= LEVEL;
    // The versions of the library and of the reader, the method and, in newer versions, the level.
    skip(left, 5 + usize::from(newer))?;
    if word(left)? & HAS_FILTER != 0 {
        word(left)?;
    }
    // Mode and time.
    skip(left, 8 + if newer { 4 } else { 0 })?;
    let [name] = *take(left)?;
    skip(left, usize::from(name) + 4)
}

fn word(left: &mut &[u8]) -> Result<u32> {
    Ok(u32::from_be_bytes(*take(left)?))
}

fn skip(left: &mut &[u8], len: usize) -> Result<()> {
    let rest = left.get(len..);
    *left = rest.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
    Ok(())
}

fn take<'a, const N: usize>(left: &mut &'a [u8]) -> Result<&'a [u8; N]> {
    let (first, rest) = left
        .split_first_chunk()
        .ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
    *left = rest;
    Ok(first)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Packs as lzop does for bytes that do not compress: each block is stored as it is.
    pub fn lzop(bytes: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([0x10, 0x30, 0x20, 0x80, 0x09, 0x40, 1, 5]);
        out.extend([0; 4 + 8 + 4]);
        out.extend([1, b'x', 0, 0, 0, 0]);
        for block in bytes.chunks(BLOCK as usize) {
            let len = u32::try_from(block.len()).unwrap().to_be_bytes();
            out.extend([len, len, [0; 4]].concat());
            out.extend(block);
        }
        out.extend([0; 4]);
        out
    }

    #[test]
    fn the_sizes_of_blocks_are_added_up() {
        let file = lzop(&[7; 700_000]);
        let mut left = &[&file[..], b"behind"].concat()[..];
        assert_eq!(measure(&mut left).unwrap(), 700_000);
        assert_eq!(left, b"behind");
        for cut in 0..60 {
            assert!(measure(&mut &file[..cut]).is_err(), "{cut}");
        }
        assert!(measure(&mut &file[..file.len() - 1]).is_err());
        // A block larger than the kernel's limit, and a block larger than its unpacked size.
        let first = file.len() - 700_000 - 3 * 12 - 4;
        for (at, byte) in [(first, 1), (first + 4, 1)] {
            let mut damaged = file.clone();
            damaged[at] = byte;
            let err = measure(&mut &damaged[..]).unwrap_err();
            assert!(err.to_string().contains("a block of"), "{err}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_measured_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = measure(&mut &[MAGIC, &bytes].concat()[..]);
        }
    }
}
