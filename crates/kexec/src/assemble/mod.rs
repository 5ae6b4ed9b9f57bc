//! Assembly of an image, an initrd and a cargo into the segments of `kexec_load`.
//!
//! | segment | content | place |
//! | --- | --- | --- |
//! | kernel | the image's payload; the destination covers all the memory that the kernel needs to unpack itself or to run | scratch |
//! | initrd | kho's small cpio archive, then the user's initrd | scratch |
//! | parameters | `boot_params`, command line, entry code | scratch |
//! | state | the result of the [`Carrier`]: chain and state tree | outside scratch |
//!
//! Blobs are the caller's own segments.
//!
//! kho's archive goes *before* the user's initrd: the kernel looks at the end of the initrd for a boot configuration
//! (`get_boot_config_from_initrd`, `init/main.c`), LZ4 data has no end mark other than zeros
//! (`lib/decompress_unlz4.c`), and a damaged initrd must not keep the arrival program from running. The kernel finds
//! early microcode and ACPI tables behind kho's archive, because `find_cpio_data` (`lib/earlycpio.c`) walks through all
//! archives that are not compressed.

mod arrival;
mod check;
mod error;
mod segment;

use std::borrow::Cow;

use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use zerocopy::IntoBytes;

use crate::bootparam::{self, BOOT_PARAMS_LEN, BootParams, EfiFacts, MemoryMapEntry, NextKernel};
use crate::bytes::len64;
use crate::carrier::{Cargo, Carrier, RNG_SEED_LEN};
use crate::cmdline::CommandLine;
use crate::entry;
use crate::image::{Image, ImageHeader};

pub use arrival::{ARRIVAL_PROGRAM, ArrivalError, arrival_archive, arrival_archive_len};
pub(crate) use check::check_segments;
pub use error::AssembleError;
pub(crate) use segment::Contents;
pub use segment::{Placement, Segment, SegmentKind};

/// Parts of a load.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The kernel.
    pub image: &'a dyn Image,
    /// The user's initrd.
    pub initrd: Option<&'a [u8]>,
    /// The command line, built with `arrive` if and only if `arrive` is true.
    pub cmdline: &'a CommandLine,
    /// Whether the kernel boots through the arrival program. Only a plain kexec, which hands over nothing, may boot
    /// without it.
    pub arrive: bool,
    /// The running kernel's parameters.
    pub running: &'a BootParams,
    /// The firmware's memory map.
    pub memory_map: &'a [MemoryMapEntry],
    /// UEFI runtime services; `None` if the running kernel has none. A kernel that cannot take them over does not get
    /// them.
    pub efi: Option<&'a EfiFacts>,
    /// ACPI root pointer that UEFI gave the running kernel.
    pub acpi: Option<PhysAddr>,
    /// Whether the running kernel uses five-level paging.
    pub five_level: bool,
    /// Fresh random bytes, for this load only.
    pub rng_seed: &'a [u8; RNG_SEED_LEN],
    /// The state tree; `None` if nothing is handed over.
    pub tree: Option<&'a [u8]>,
    /// The mem cache, in the tree's order.
    pub reserved: &'a [PhysRange],
    /// Destinations of the segments.
    pub placement: Placement,
}

/// Segments and the address to enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled<'a> {
    /// Kernel, initrd, parameters, state.
    pub segments: Vec<Segment<'a>>,
    /// Entry point for `kexec_load`: the address of the entry code, in the parameters.
    pub entry: PhysAddr,
}

/// Returns the length of the parameters segment for a command line of `cmdline_len` bytes: in bytes, a multiple of the
/// page size.
pub fn params_len(cmdline_len: u64) -> u64 {
    entry_offset(cmdline_len)
        .saturating_add(len64(entry::ENTRY_LEN))
        .checked_next_multiple_of(PAGE_SIZE)
        .unwrap_or(u64::MAX)
}

/// Returns the offset of the entry code in the parameters segment: behind the command line and its NUL.
fn entry_offset(cmdline_len: u64) -> u64 {
    len64(BOOT_PARAMS_LEN)
        .saturating_add(cmdline_len)
        .saturating_add(1)
        .checked_next_multiple_of(entry::ENTRY_ALIGN)
        .unwrap_or(u64::MAX)
}

/// Returns the length of the initrd segment, in bytes, a multiple of the page size. The segment holds the arrival
/// archive for up to `reserved` ranges and the user's `rdinit=`, and `user` bytes of initrd.
///
/// # Errors
///
/// [`ArrivalError`] if the archive cannot be made.
pub fn initrd_len(user: u64, reserved: usize, rdinit: Option<&[u8]>) -> Result<u64, ArrivalError> {
    let archive = arrival_archive_len(reserved, rdinit)?;
    Ok(archive
        .saturating_add(user)
        .checked_next_multiple_of(PAGE_SIZE)
        .unwrap_or(u64::MAX))
}

/// Makes the segments of a load, and the address to enter.
///
/// # Errors
///
/// [`AssembleError`], for example if the placement would put the next kernel on memory that is handed over, or let the
/// kernel unpack itself onto such memory. This check does not rely on the planner.
pub fn assemble<'a>(
    load: &Load<'a>,
    carrier: &dyn Carrier,
) -> Result<Assembled<'a>, AssembleError> {
    let place = &load.placement;
    let header = load.image.header();
    if load.tree.is_some() {
        check_receiver(header, load.five_level)?;
        if !load.arrive {
            return Err(AssembleError::NoArrival);
        }
    }
    check_kernel(load)?;

    let cargo = Cargo {
        tree: load.tree,
        reserved: load.reserved,
        memory_map: load.memory_map,
        efi: load.efi.filter(|_| header.efi_kexec),
        rng_seed: Some(load.rng_seed),
    };
    let state = carrier.encode(place.state.start(), &cargo)?;

    let initrd = initrd(load)?;
    let initrd_at = match (&initrd, place.initrd) {
        (None, _) => None,
        (Some(_), None) => {
            return Err(AssembleError::NotPlaced {
                kind: SegmentKind::Initrd,
            });
        }
        (Some(bytes), Some(dest)) => PhysRange::new(dest.start(), len64(bytes.len())).ok(),
    };
    if let (Some(at), Some(max)) = (initrd_at, header.initrd_max)
        && at.end() > max
    {
        return Err(AssembleError::InitrdTooHigh { at, max });
    }

    let (params, entry) = params(load, state.first, state.efi_map, initrd_at)?;
    let contents = Contents {
        kernel: load.image.payload(),
        initrd,
        params,
        state: Some(Cow::Owned(state.bytes)),
    };
    let segments = contents.segments(place);
    check_segments(&segments, load.reserved, load.tree.is_some())?;
    Ok(Assembled { segments, entry })
}

/// Checks that the image's kernel keeps memory that is handed over, and that it can be entered from the running kernel,
/// which uses five-level paging if `five_level` is true.
///
/// # Errors
///
/// [`AssembleError::NoSetupIndirect`], [`AssembleError::FiveLevel`].
pub fn check_receiver(header: &ImageHeader, five_level: bool) -> Result<(), AssembleError> {
    if !header.setup_indirect {
        return Err(AssembleError::NoSetupIndirect);
    }
    if five_level && !header.five_level {
        return Err(AssembleError::FiveLevel);
    }
    Ok(())
}

/// Checks that the kernel's range has the size, alignment and address that the image requires, and that the command
/// line is not too long for the image.
fn check_kernel(load: &Load<'_>) -> Result<(), AssembleError> {
    let header = load.image.header();
    let at = load.placement.kernel;
    let high = at.end().get() > 1 << 32;
    if !at.start().is_aligned(header.alignment)
        || at.start() < header.lowest
        || at.len() < header.mem_size
        || (high && !header.above_4g)
    {
        return Err(AssembleError::KernelPlace {
            at,
            mem_size: header.mem_size,
            alignment: header.alignment,
            lowest: header.lowest,
        });
    }
    let len = len64(load.cmdline.line.len());
    if len > header.cmdline_max {
        return Err(AssembleError::Cmdline(
            crate::cmdline::CmdlineError::CommandLineTooLong {
                len,
                ours: 0,
                max: header.cmdline_max,
            },
        ));
    }
    Ok(())
}

/// Makes the bytes of the initrd segment: kho's archive, if the load goes through the arrival program, and then the
/// user's initrd, unchanged.
fn initrd<'a>(load: &Load<'a>) -> Result<Option<Cow<'a, [u8]>>, AssembleError> {
    if !load.arrive {
        return Ok(load.initrd.map(Cow::Borrowed));
    }
    let mut bytes = arrival_archive(load.reserved, load.cmdline.rdinit.as_deref())?;
    bytes.extend_from_slice(load.initrd.unwrap_or_default());
    Ok(Some(Cow::Owned(bytes)))
}

/// Makes the parameters segment. Returns its bytes, and the address of the entry code in it.
fn params(
    load: &Load<'_>,
    setup_data: Option<PhysAddr>,
    efi_map: Option<PhysRange>,
    initrd: Option<PhysRange>,
) -> Result<(Vec<u8>, PhysAddr), AssembleError> {
    let at = load.placement.params;
    let line = &load.cmdline.line;
    let offset = entry_offset(len64(line.len()));
    let short = |needed| AssembleError::TooShort {
        kind: SegmentKind::Params,
        dest: at,
        needed,
    };
    let (Some(cmdline), Some(entry), Some(kernel_entry)) = (
        at.start().checked_add(len64(BOOT_PARAMS_LEN)),
        at.start().checked_add(offset),
        load.placement
            .kernel
            .start()
            .checked_add(load.image.entry_offset()),
    ) else {
        return Err(short(params_len(len64(line.len()))));
    };
    let boot_params = bootparam::build(&NextKernel {
        running: load.running,
        setup_header: load.image.setup_header(),
        memory_map: load.memory_map,
        efi: load.efi.zip(efi_map),
        acpi: load.acpi,
        initrd,
        cmdline,
        setup_data,
        moved: load.image.moved(),
    })?;
    let mut bytes = boot_params.as_bytes().to_vec();
    bytes.extend_from_slice(line);
    let padded = usize::try_from(offset).map_err(|_| short(offset))?;
    bytes.resize(padded, 0);
    bytes.extend_from_slice(&entry::code(entry, at.start(), kernel_entry));
    Ok((bytes, entry))
}
