//! The small cpio archive with the program that the next kernel runs first.
//!
//! | path | content |
//! | --- | --- |
//! | `/.kho/` | mode 0700 |
//! | `/.kho/arrive` | the program, [`ARRIVAL_PROGRAM`], which the kernel starts. An initrd may replace it by its own |
//! | `/.kho/arrival` | the same program, which `/.kho/arrive` starts |
//! | `/.kho/ranges` | ranges that must be reserved: pairs of little-endian 64-bit start and length in bytes |
//! | `/.kho/init` | the path of the init to start, without a line break |
//! | `/.kho/kmsg` | the kernel log, character device 1:11 |
//! | `/.kho/sys/`, `/.kho/proc/`, `/.kho/dev/`, `/.kho/root/` | directories where the program mounts |
//!
//! The program's own documentation (`arrival/main.rs`) describes its work.

use kho::PhysRange;
use thiserror::Error;

use crate::bytes::len64;
use crate::cpio::{CpioError, Device, Writer};

/// The arrival program, a static Linux executable for the target of this build; empty if that is neither x86_64 nor
/// arm64 Linux.
pub const ARRIVAL_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/arrive"));

/// Program that the kernel runs if the command line has no `rdinit=`: `ramdisk_execute_command` in `init/main.c`.
const DEFAULT_INIT: &[u8] = b"/init";

/// Length of the buffer into which the program reads the path, in bytes, terminator included.
const MAX_INIT: usize = 4096;

/// Reason why the archive was not made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ArrivalError {
    /// This build is for another target and has no arrival program.
    #[error(
        "this build has no arrival program: it was made for {}-{}, not for x86_64 or arm64 Linux",
        std::env::consts::ARCH,
        std::env::consts::OS
    )]
    NoProgram,
    /// The path in `rdinit=` is too long.
    #[error("rdinit= is {len} bytes long, at most {} can be passed on", MAX_INIT - 1)]
    InitTooLong {
        /// Bytes of the path.
        len: usize,
    },
    /// The archive cannot be written.
    #[error("cannot make the arrival archive")]
    Cpio(#[from] CpioError),
}

/// Makes the archive: `reserved` are the ranges to check, `rdinit` is the path in the user's own `rdinit=`.
///
/// # Errors
///
/// See [`ArrivalError`].
pub fn arrival_archive(
    reserved: &[PhysRange],
    rdinit: Option<&[u8]>,
) -> Result<Vec<u8>, ArrivalError> {
    let ranges: Vec<u8> = reserved
        .iter()
        .flat_map(|r| [r.start().get(), r.len()])
        .flat_map(u64::to_le_bytes)
        .collect();
    archive(&ranges, rdinit)
}

/// Returns the length, in bytes, of the archive that [`arrival_archive`] makes for up to `reserved` ranges.
pub fn arrival_archive_len(reserved: usize, rdinit: Option<&[u8]>) -> Result<u64, ArrivalError> {
    archive(&vec![0; reserved.saturating_mul(16)], rdinit).map(|bytes| len64(bytes.len()))
}

fn archive(ranges: &[u8], rdinit: Option<&[u8]>) -> Result<Vec<u8>, ArrivalError> {
    if ARRIVAL_PROGRAM.is_empty() {
        return Err(ArrivalError::NoProgram);
    }
    let init = rdinit.unwrap_or(DEFAULT_INIT);
    if init.len() >= MAX_INIT {
        return Err(ArrivalError::InitTooLong { len: init.len() });
    }
    let mut cpio = Writer::new();
    cpio.dir(b".kho", 0o700)?;
    // Two files, not two links of one: a file of the initrd that replaces the first would be written to the second too.
    for path in [&b".kho/arrive"[..], b".kho/arrival"] {
        cpio.file(path, 0o700, ARRIVAL_PROGRAM)?;
    }
    cpio.file(b".kho/ranges", 0o600, ranges)?;
    cpio.file(b".kho/init", 0o600, init)?;
    cpio.device(b".kho/kmsg", 0o600, Device::Char(1, 11))?;
    for dir in [&b".kho/sys"[..], b".kho/proc", b".kho/dev", b".kho/root"] {
        cpio.dir(dir, 0o700)?;
    }
    Ok(cpio.finish())
}
