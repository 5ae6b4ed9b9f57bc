//! Decoders of the compression formats of kernels and initrds.

use kho_kexec::image::Compression;
use std::io::{Error, ErrorKind, Read, Result};

/// Largest window of a stream, in bytes. A stream that needs a larger one is not decoded. The kernel's own limit for
/// zstd is 128 MiB (`ZSTD_WINDOWSIZE_MAX`, `lib/decompress_unzstd.c`).
const WINDOW: usize = 256 << 20;

/// Bytes of a chunk of a legacy LZ4 frame, unpacked (`LZ4_DEFAULT_UNCOMPRESSED_CHUNK_SIZE`, `lib/decompress_unlz4.c`).
pub(super) const LZ4_CHUNK: usize = 8 << 20;
pub(super) const LZ4_MAGIC: u32 = 0x184c_2102;

/// Last bytes of an initrd that has a boot configuration (`get_boot_config_from_initrd`, `init/main.c`).
pub(super) const BOOTCONFIG: &[u8] = b"#BOOTCONFIG\n";

/// Whether there is a decoder for the format.
pub fn knows(format: Compression) -> bool {
    use Compression::{Bzip2, Gzip, Lz4Legacy, Lzma, Xz, Zstd};
    matches!(format, Bzip2 | Gzip | Zstd | Xz | Lzma | Lz4Legacy)
}

/// Returns a decoder that takes the stream from the start of `left`; `None` for a format that has no decoder here
/// (lzo).
///
/// # Errors
///
/// If the decoder refuses the start of the stream. If the window is too large, the kind is [`ErrorKind::OutOfMemory`],
/// also for an error of the decoder itself.
pub fn reader<'l>(format: Compression, left: &'l mut &[u8]) -> Result<Option<Box<dyn Read + 'l>>> {
    Ok(Some(match format {
        Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(left)),
        Compression::Zstd => Box::new(
            ruzstd::decoding::StreamingDecoder::new_with_max_window_size(left, WINDOW as u64)
                .map_err(|err| Error::other(err.to_string()))?,
        ),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
            left,
            false,
            kib(WINDOW),
        )),
        Compression::Lzma => Box::new(lzma_rust2::LzmaReader::new_mem_limit(
            left,
            kib(WINDOW),
            None,
        )?),
        Compression::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(left)),
        Compression::Lz4Legacy => Box::new(Lz4::new(left)),
        _ => return Ok(None),
    }))
}

/// Unpacks a stream that should have `len` bytes. Returns at most one byte more than that, so that the caller notices a
/// longer stream.
///
/// # Errors
///
/// The reason, in words: damage, a format that has no decoder here, or too little memory.
pub fn unpacked(
    format: Compression,
    packed: &[u8],
    len: u64,
) -> std::result::Result<Vec<u8>, String> {
    let mut left = packed;
    let reader = reader(format, &mut left).map_err(|err| err.to_string())?;
    let reader = reader.ok_or("there is no decoder here")?;
    let mut bytes = Vec::new();
    let most = len.saturating_add(1);
    usize::try_from(most)
        .ok()
        .and_then(|len| bytes.try_reserve_exact(len).ok())
        .ok_or_else(|| format!("no memory for {most:#x} bytes"))?;
    reader
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|err| err.to_string())?;
    Ok(bytes)
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024).unwrap_or(u32::MAX)
}

/// Decoder of the legacy LZ4 frame: a magic number, then chunks, each after its length. The decoder skips a magic
/// number between chunks. A length of zero ends the frame (`unlz4`, `lib/decompress_unlz4.c`).
struct Lz4<'l, 'b> {
    left: &'l mut &'b [u8],
    chunk: Vec<u8>,
    /// Part of the chunk that the reader has not taken yet.
    ready: std::ops::Range<usize>,
}

impl<'l, 'b> Lz4<'l, 'b> {
    fn new(left: &'l mut &'b [u8]) -> Self {
        Self {
            left,
            chunk: vec![0; LZ4_CHUNK],
            ready: 0..0,
        }
    }

    /// Decodes the next chunk; false at the end.
    fn next(&mut self) -> Result<bool> {
        loop {
            // Fewer bytes than a length has end the frame, as in the kernel.
            let Some((head, rest)) = self.left.split_first_chunk::<4>() else {
                *self.left = &[];
                return Ok(false);
            };
            let len = u32::from_le_bytes(*head);
            if len == LZ4_MAGIC {
                *self.left = rest;
                continue;
            }
            if len == 0 || self.left.ends_with(BOOTCONFIG) && (len as usize) > rest.len() {
                return Ok(false);
            }
            let packed = rest
                .get(..len as usize)
                .ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
            let n = lz4_flex::block::decompress_into(packed, &mut self.chunk)
                .map_err(|err| Error::other(err.to_string()))?;
            self.ready = 0..n;
            *self.left = rest.get(len as usize..).unwrap_or_default();
            if n > 0 {
                return Ok(true);
            }
        }
    }
}

impl Read for Lz4<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        if self.ready.is_empty() && !buf.is_empty() && !self.next()? {
            return Ok(0);
        }
        let mut ready = self.chunk.get(self.ready.clone()).unwrap_or_default();
        let n = ready.read(buf)?;
        self.ready.start += n;
        Ok(n)
    }
}
