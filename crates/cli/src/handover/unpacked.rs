//! Unpacked size of an initrd. The initrd is read by the kernel's rules (`unpack_to_rootfs`, `init/initramfs.c`, 5.10
//! to 7.3).
//!
//! The kernel skips zeros, then takes a "newc" archive, or one compressed stream that holds archives, and repeats this
//! after it. `kho` refuses a truncated or damaged stream before the load; the next kernel would unpack only a part of
//! it.

use super::decode;
use super::lzop;
use kho_kexec::cpio;
use kho_kexec::image::Compression;
use std::io::{ErrorKind, Read, Result};
use thiserror::Error as Failure;

/// Assumed ratio of unpacked to packed bytes, for a stream that is not decoded.
const RATIO: u64 = 4;

/// Reason why the kernel would not unpack the whole initrd.
#[derive(Debug, Failure, PartialEq, Eq)]
pub enum Damage {
    /// An archive that ends in the middle of an entry.
    #[error("the initrd is cut short: its cpio archive at {at:#x} has no end")]
    Archive {
        /// Offset of the archive in the initrd.
        at: usize,
    },
    /// A compressed part that cannot be decoded.
    #[error(
        "the initrd is cut short or damaged: its {format} part at {at:#x} ends after {bytes:#x} unpacked bytes ({why})"
    )]
    Stream {
        /// Name of the compression.
        format: &'static str,
        /// Offset of the part in the initrd.
        at: usize,
        /// Number of bytes that were unpacked before the error.
        bytes: u64,
        /// Message of the decoder.
        why: String,
    },
    /// A compressed part that holds no archive.
    #[error(
        "the {format} part of the initrd at {at:#x} holds no cpio archive (newc), but {first:02x?} ..."
    )]
    NoArchive {
        /// Name of the compression.
        format: &'static str,
        /// Offset of the part in the initrd.
        at: usize,
        /// First bytes of the unpacked part.
        first: Vec<u8>,
    },
}

/// Returns the number of bytes of all archives in an initrd. Stops counting a little above `most`.
///
/// # Errors
///
/// [`Damage`], if the kernel would not unpack all of it.
pub fn measure(file: &[u8], most: u64) -> std::result::Result<u64, Damage> {
    let mut total = 0u64;
    let mut at = 0usize;
    while total <= most {
        let rest = file.get(at..).unwrap_or_default();
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        at = at.saturating_add(zeros);
        let rest = file.get(at..).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        if rest.starts_with(b"07070") {
            let len = archive(rest).ok_or(Damage::Archive { at })?;
            total = total.saturating_add(len as u64);
            at = at.saturating_add(len);
            continue;
        }
        // After the first part the kernel accepts unknown bytes, such as a boot configuration: it logs a message and
        // goes on.
        let Some(format) = Compression::of(rest) else {
            break;
        };
        match stream(format, rest, at, most)? {
            Some((bytes, used)) => {
                total = total.saturating_add(bytes);
                at = at.saturating_add(used);
            }
            None => {
                total = total.saturating_add((rest.len() as u64).saturating_mul(RATIO));
                break;
            }
        }
    }
    Ok(total)
}

/// Whether the kernel unpacks a file with this name, without `./` in front, from the initrd. Parts that cannot be read
/// hold no file.
pub fn holds(file: &[u8], name: &str) -> bool {
    let mut at = 0usize;
    loop {
        let rest = file.get(at..).unwrap_or_default();
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        at = at.saturating_add(zeros);
        let rest = file.get(at..).unwrap_or_default();
        let mut left = rest;
        let found = match Compression::of(rest) {
            _ if rest.starts_with(b"07070") => has_entry(&mut left, name),
            Some(format) => match decode::reader(format, &mut left) {
                Ok(Some(mut decoder)) => stream_has_entry(&mut *decoder, name),
                _ => return false,
            },
            None => return false,
        };
        let used = rest.len().saturating_sub(left.len());
        match found {
            Ok(true) => return true,
            Ok(false) if used > 0 => at = at.saturating_add(used),
            _ => return false,
        }
    }
}

/// Reads a stream of archives up to an entry with this name, or to its end.
fn stream_has_entry(from: &mut dyn Read, name: &str) -> Result<bool> {
    loop {
        match has_entry(from, name) {
            Ok(false) => {}
            Err(err) if err.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            result => return result,
        }
    }
}

/// Reads an archive up to an entry with this name, or to its end.
fn has_entry(from: &mut dyn Read, name: &str) -> Result<bool> {
    const HEADER: usize = 110;
    let field = |header: &[u8], n: usize| {
        let text = header.get(6 + 8 * n..14 + 8 * n);
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        text.and_then(|text| u64::from_str_radix(text, 16).ok())
    };
    let skip =
        |from: &mut dyn Read, len: u64| std::io::copy(&mut from.take(len), &mut std::io::sink());
    loop {
        // Zeros may precede every header, in multiples of four bytes.
        let mut header = [0; HEADER];
        from.read_exact(header.get_mut(..4).unwrap_or_default())?;
        if header.starts_with(&[0; 4]) {
            continue;
        }
        from.read_exact(header.get_mut(4..).unwrap_or_default())?;
        let bad = || std::io::Error::from(ErrorKind::InvalidData);
        if !header.starts_with(b"07070") {
            return Err(bad());
        }
        let (len, name_len) = (
            field(&header, 6).ok_or_else(bad)?,
            field(&header, 11).ok_or_else(bad)?,
        );
        let padded = (HEADER as u64 + name_len).next_multiple_of(4) - HEADER as u64;
        if name_len == 0 || padded > 4096 + 4 {
            return Err(bad());
        }
        let mut found = vec![0; usize::try_from(padded).unwrap_or(0)];
        from.read_exact(&mut found)?;
        let found = found.split(|byte| *byte == 0).next().unwrap_or_default();
        if found.strip_prefix(b"./").unwrap_or(found) == name.as_bytes() {
            return Ok(true);
        }
        skip(from, len.next_multiple_of(4))?;
        if found == b"TRAILER!!!" {
            return Ok(false);
        }
    }
}

/// Returns the length of the archive at the start of `bytes` with its trailer; `None` if the archive has no trailer.
fn archive(bytes: &[u8]) -> Option<usize> {
    let mut entries = cpio::entries(bytes);
    entries.by_ref().for_each(drop);
    let rest = bytes.get(entries.offset()..)?;
    // The header has 110 bytes; the name follows.
    let name = rest.get(110..)?;
    (rest.starts_with(b"07070") && name.starts_with(b"TRAILER!!!\0"))
        .then(|| entries.offset() + (110 + 11usize).next_multiple_of(4))
}

/// Returns the unpacked and the packed size, in bytes, of the stream at the start of `bytes`; `None` if the stream is
/// not decoded.
fn stream(
    format: Compression,
    bytes: &[u8],
    at: usize,
    most: u64,
) -> std::result::Result<Option<(u64, usize)>, Damage> {
    let mut count = Count::default();
    let mut left = bytes;
    // The blocks of lzop contain their sizes, so nothing has to be decoded.
    let result = if format == Compression::Lzo {
        lzop::measure(&mut left).map(|bytes| count.bytes = bytes)
    } else {
        match decode::reader(format, &mut left) {
            Ok(None) => return Ok(None),
            Ok(Some(mut decoder)) => count.drain(&mut *decoder, most),
            Err(err) => Err(err),
        }
    };
    let damage = |why: String| Damage::Stream {
        format: format.name(),
        at,
        bytes: count.bytes,
        why,
    };
    match result {
        Ok(()) => {}
        Err(err) if err.kind() == ErrorKind::OutOfMemory => return Ok(None),
        Err(err) => return Err(damage(err.to_string())),
    }
    let first: Vec<u8> = count
        .first
        .iter()
        .copied()
        .skip_while(|b| *b == 0)
        .collect();
    if !first.is_empty() && !b"07070".starts_with(first.get(..5).unwrap_or(&first)) {
        return Err(Damage::NoArchive {
            format: format.name(),
            at,
            first,
        });
    }
    Ok(Some((count.bytes, bytes.len().saturating_sub(left.len()))))
}

/// Output of a decoder.
#[derive(Default)]
struct Count {
    bytes: u64,
    /// First bytes of the output.
    first: Vec<u8>,
}

impl Count {
    fn add(&mut self, bytes: &[u8]) {
        const FIRST: usize = 8;
        let missing = FIRST.saturating_sub(self.first.len());
        self.first.extend(bytes.iter().take(missing));
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
    }

    /// Counts the output of the decoder until its end, or until there are more than `most` bytes.
    fn drain(&mut self, decoder: &mut dyn Read, most: u64) -> Result<()> {
        let mut buffer = vec![0; 1 << 18];
        while self.bytes <= most {
            match decoder.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => self.add(buffer.get(..n).unwrap_or_default()),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::{BOOTCONFIG, LZ4_CHUNK, LZ4_MAGIC};
    use super::*;
    use std::io::Write;

    const ALL: u64 = u64::MAX;

    /// Returns an archive with one file of `len` bytes.
    fn archive_of(len: usize) -> Vec<u8> {
        let mut writer = cpio::Writer::new();
        let bytes = (0..=250u8).flat_map(|byte| [byte; 7]);
        let data: Vec<u8> = bytes.cycle().take(len).collect();
        writer.file(b"file", 0o644, &data).unwrap();
        writer.finish()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let options = lzma_rust2::XzOptions::with_preset(1);
        let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn lz4_legacy(bytes: &[u8]) -> Vec<u8> {
        let mut out = LZ4_MAGIC.to_le_bytes().to_vec();
        for chunk in bytes.chunks(LZ4_CHUNK) {
            let packed = lz4_flex::block::compress(chunk);
            out.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            out.extend(packed);
        }
        out
    }

    type Pack = (&'static str, fn(&[u8]) -> Vec<u8>);
    const PACKS: [Pack; 4] = [
        ("gzip", gzip),
        ("xz", xz),
        ("zstd", zstd),
        ("lz4", lz4_legacy),
    ];

    #[test]
    fn a_file_is_found_in_any_part() {
        let with = |names: &[&str]| {
            let mut writer = cpio::Writer::new();
            for name in names {
                writer.file(name.as_bytes(), 0o700, b"content").unwrap();
            }
            writer.finish()
        };
        let gzip = |bytes: &[u8]| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(bytes).unwrap();
            packed.finish().unwrap()
        };
        let (first, second) = (with(&["a", "./b/c"]), with(&["d"]));
        for initrd in [
            [first.clone(), second.clone()].concat(),
            [first.clone(), vec![0; 8], gzip(&second)].concat(),
            [gzip(&first), vec![0; 4], gzip(&second)].concat(),
        ] {
            for name in ["a", "b/c", "d"] {
                assert!(holds(&initrd, name), "{name}");
            }
            for name in ["", "b", "c", "content", "e"] {
                assert!(!holds(&initrd, name), "{name}");
            }
            // Whatever the length, the search ends.
            for len in 0..initrd.len() {
                assert!(!holds(&initrd[..len], "e"));
            }
        }
    }

    #[test]
    fn what_an_initrd_unpacks_to_is_counted() {
        let (small, large) = (archive_of(1000), archive_of(20 << 20));
        let trailer = archive(&small).unwrap() as u64;
        assert!(trailer <= small.len() as u64 && trailer > 1000);
        assert_eq!(measure(&small, ALL), Ok(trailer));
        assert_eq!(measure(&[0; 4096], ALL), Ok(0));
        for (name, pack) in PACKS {
            let packed = pack(&large);
            assert!(packed.len() < large.len() / 4, "{name}");
            assert_eq!(measure(&packed, ALL), Ok(large.len() as u64), "{name}");
            // Microcode at the start, another archive at the end, zeros between them.
            let mut joined = small.clone();
            joined.extend([0; 64]);
            joined.extend(&packed);
            joined.extend([0; 8]);
            joined.extend(&small);
            let all = large.len() as u64 + 2 * trailer;
            assert_eq!(measure(&joined, ALL), Ok(all), "{name}");
            // Decoding stops once the limit is exceeded.
            let some = measure(&packed, 1 << 20).unwrap();
            assert!(
                (1 << 20..large.len() as u64).contains(&some),
                "{name}: {some:#x}"
            );
        }
    }

    #[test]
    fn an_initrd_that_is_cut_short_is_found() {
        let whole = archive_of(3 << 20);
        assert_eq!(
            measure(&whole[..whole.len() / 2], ALL),
            Err(Damage::Archive { at: 0 })
        );
        for (name, pack) in PACKS {
            let packed = pack(&whole);
            for cut in [packed.len() / 2, packed.len() - 9, 30] {
                let mut file = archive_of(10);
                let begin = file.len();
                file.extend(&packed[..cut]);
                match measure(&file, ALL) {
                    Err(Damage::Stream { format, at, .. }) => {
                        assert_eq!((format, at), (name, begin), "cut at {cut}");
                    }
                    other => panic!("{name} cut at {cut}: {other:?}"),
                }
            }
        }
        // A wrong checksum.
        let mut damaged = gzip(&whole);
        let at = damaged.len() - 6;
        damaged[at] ^= 1;
        assert!(matches!(measure(&damaged, ALL), Err(Damage::Stream { .. })));
    }

    #[test]
    fn what_is_no_archive_is_found() {
        let text = gzip(b"#!/bin/sh\necho no archive\n");
        assert!(matches!(measure(&text, ALL), Err(Damage::NoArchive { .. })));
        assert_eq!(measure(&gzip(b""), ALL), Ok(0));
        // A boot configuration at the end (`Documentation/admin-guide/bootconfig.rst`).
        for (name, pack) in PACKS {
            let mut file = pack(&archive_of(5000));
            let unpacked = measure(&file, ALL).unwrap();
            file.resize(file.len().next_multiple_of(4), 0);
            file.extend(b"kernel.x = 1\0\0\0\0");
            file.extend([16, 0, 0, 0, 0x34, 0x12, 0, 0]);
            file.extend(BOOTCONFIG);
            assert_eq!(measure(&file, ALL), Ok(unpacked), "{name}");
        }
    }

    #[test]
    fn bzip2_and_lzop_are_measured_too() {
        let archive = archive_of(2 << 20);
        let mut packed = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        packed.write_all(&archive).unwrap();
        for (name, packed) in [
            ("bzip2", packed.finish().unwrap()),
            ("lzo", lzop::tests::lzop(&archive)),
        ] {
            let len = archive.len() as u64;
            assert_eq!(measure(&packed, ALL), Ok(len), "{name}");
            let mut joined = packed.clone();
            joined.extend(gzip(&archive));
            assert_eq!(measure(&joined, ALL), Ok(2 * len), "{name}");
            match measure(&packed[..packed.len() - 9], ALL) {
                Err(Damage::Stream { format, at: 0, .. }) => assert_eq!(format, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        let garbage = [&b"BZh91AY&SY"[..], &[1; 990]].concat();
        assert!(matches!(measure(&garbage, ALL), Err(Damage::Stream { .. })));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_measured_or_refused(
            magic in proptest::sample::select(vec![&b""[..], b"070701", b"BZh91AY&SY", b"\x1f\x8b\x08\0", b"\xfd7zXZ\0", b"\x5d\0\0\x80\0", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18"]),
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        ) {
            let _ = measure(&[magic, &bytes].concat(), 1 << 20);
        }
    }
}
