//! Scratch: the region where the next kernel and its initrd are placed, free of handed-over memory.
//!
//! The loader chooses it at the first boot ([`choose`]). The state tree records it, and every later boot reuses the
//! recorded interval ([`reuse`]). So the guarantee "no handed-over page lies in scratch" carries from kernel to kernel,
//! and any number of hops works. Scratch is an address interval; the running system goes on using its memory.
//!
//! # Placement, and why below 4 GiB
//!
//! Always below 4 GiB if it fits there, also for kernels that could be loaded above. Scratch takes no memory away from
//! the next kernel: it is exactly the memory that is *guaranteed* to be free when that kernel starts. So memory that a
//! kernel must find below 4 GiB (swiotlb, DMA32, the low part of a crash kernel) can be allocated from scratch,
//! contiguously. And the recorded interval has to suit every later kernel, which may lack `XLF_CAN_BE_LOADED_ABOVE_4G`.
//! Within this limit `choose` takes the lowest place from 16 MiB up: the ISA DMA zone below 16 MiB stays free, and a
//! low address satisfies `initrd_addr_max` (2 GiB - 1 in every x86_64 kernel so far) and kernels that cannot be
//! relocated (16 MiB).

use crate::addr::{PhysAddr, PhysRange};
use crate::image::{FOUR_GIB, ImageNeeds, LOW_MEMORY_END, PlacementError, place_image};
use crate::ranges::{OutOfMemory, RangeSet};
use thiserror::Error;

/// Scratch chosen by this crate starts and ends at multiples of this: a huge page.
pub const SCRATCH_ALIGN: u64 = 2 << 20;

/// A derived scratch is at least this large if RAM permits, so that later, larger kernels fit.
pub const DERIVED_MIN: u64 = 128 << 20;

/// A derived scratch is never larger than this, unless the image itself is.
pub const DERIVED_MAX: u64 = 1 << 30;

/// A derived scratch takes at most one part in this many of RAM, unless the image itself is larger.
pub const DERIVED_RAM_SHARE: u64 = 4;

/// The name of the option that gives the size of scratch on the kernel command line.
pub const SCRATCH_OPTION: &str = "kho_scratch";

/// End of the ISA DMA zone.
const ISA_DMA_END: PhysAddr = PhysAddr::new(16 << 20);

/// Input of [`choose`].
#[derive(Clone, Copy, Debug)]
pub struct ScratchRequest<'a> {
    /// RAM according to the firmware.
    pub ram: &'a RangeSet,
    /// Memory that is to be kept in place.
    pub kept: &'a RangeSet,
    /// Pages that the running kernel holds as reserved: some of them are firmware data that only this kernel knows.
    pub pinned: &'a RangeSet,
    /// Memory that is preferred for scratch if scratch fits there. May be empty.
    pub prefer: &'a RangeSet,
    /// Size in bytes that the user gave; `None` derives one from the image.
    pub size: Option<u64>,
    /// The image that has to fit.
    pub image: &'a ImageNeeds,
}

/// Why no usable scratch was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScratchError {
    /// The previous kernel recorded no scratch region.
    #[error(
        "no scratch region is recorded for this boot: start again from a normal boot, with kho_scratch=SIZE if the derived size does not suit"
    )]
    Absent,
    /// The image does not fit.
    #[error(
        "scratch is {have:#x} bytes and the next kernel needs {need:#x} (its init_size, initrd and parameters): use a smaller initrd, or boot normally with a larger kho_scratch="
    )]
    TooSmall {
        /// Bytes needed.
        need: u64,
        /// Length of scratch, in bytes.
        have: u64,
    },
    /// The recorded interval is not on whole pages, or reaches into the low 1 MiB.
    #[error("the recorded scratch {scratch} is not a page-aligned range above the low 1 MiB")]
    Malformed {
        /// The recorded interval.
        scratch: PhysRange,
    },
    /// The image would fit into the recorded interval, if all of that were RAM.
    #[error(
        "the recorded scratch {scratch} is not all RAM ({hole} is not), and in what is left of it the next kernel finds no room for {need:#x} bytes (its init_size, initrd and parameters)"
    )]
    NotRam {
        /// The recorded interval.
        scratch: PhysRange,
        /// The first part of the interval that is not RAM.
        hole: PhysRange,
        /// Bytes needed.
        need: u64,
    },
    /// Handed-over memory lies in scratch.
    #[error(
        "{kept} is to be kept but lies in scratch {scratch}, where the next kernel will be placed: move or release it"
    )]
    Overlaps {
        /// The scratch region.
        scratch: PhysRange,
        /// The memory that lies in scratch.
        kept: PhysRange,
    },
    /// No free place is large enough.
    #[error(
        "no contiguous place for a scratch of {size:#x} bytes; the largest free one has {largest:#x}: give a smaller kho_scratch= or reboot to defragment"
    )]
    NoPlace {
        /// Bytes wanted.
        size: u64,
        /// The largest aligned place there is, in bytes.
        largest: u64,
    },
    /// The image fits by size but not with its alignment and address limits.
    #[error("the next kernel does not fit into scratch")]
    Image(#[from] PlacementError),
    /// An allocation failed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// The size of a scratch derived from the image: twice what the image needs, at least [`DERIVED_MIN`], at
/// most [`DERIVED_MAX`] and a [`DERIVED_RAM_SHARE`]th of RAM, but never less than the image needs; in
/// multiples of [`SCRATCH_ALIGN`].
///
/// Twice, because later hops reuse the interval and kernels and initrds grow. A larger scratch costs nothing while the
/// system runs.
pub fn derived_size(image: &ImageNeeds, ram_bytes: u64) -> u64 {
    let need = image.min_scratch();
    let share = ram_bytes.checked_div(DERIVED_RAM_SHARE).unwrap_or(0);
    let size = need
        .saturating_mul(2)
        .clamp(DERIVED_MIN, DERIVED_MAX)
        .min(share)
        .max(need);
    size.checked_next_multiple_of(SCRATCH_ALIGN)
        .unwrap_or(u64::MAX)
}

/// Chooses scratch on the first boot. See the [module](self) for the place and the reasons.
///
/// `choose` rounds a size given by the user up to 2 MiB and otherwise uses it unchanged. A derived size is a wish: if
/// no place of that size is free, `choose` takes the largest one that holds the image.
///
/// # Errors
///
/// [`ScratchError::TooSmall`], [`ScratchError::NoPlace`], [`ScratchError::Image`] or
/// [`ScratchError::OutOfMemory`].
pub fn choose(request: &ScratchRequest<'_>) -> Result<PhysRange, ScratchError> {
    let need = request.image.min_scratch();
    let size = match request.size {
        Some(have) if have < need => return Err(ScratchError::TooSmall { need, have }),
        Some(size) => size
            .checked_next_multiple_of(SCRATCH_ALIGN)
            .unwrap_or(u64::MAX),
        None => derived_size(request.image, request.ram.total()),
    };
    let zones = [
        (ISA_DMA_END, FOUR_GIB),
        (LOW_MEMORY_END, FOUR_GIB),
        (FOUR_GIB, PhysAddr::new(u64::MAX)),
    ];
    let zones = if request.image.kernel.above_4g {
        zones.as_slice()
    } else {
        zones.get(..2).unwrap_or(&[])
    };
    let mut largest: Option<PhysRange> = None;
    let mut refusal = None;
    for (low, high) in zones {
        let Ok(zone) = PhysRange::from_bounds(*low, *high) else {
            continue;
        };
        // The loop handles one zone at a time, so that it copies only the ranges in that zone.
        let free = RangeSet::from_ranges([zone])?
            .intersect(request.ram)?
            .subtract(request.kept)?
            .subtract(request.pinned)?;
        let preferred = free.intersect(request.prefer)?;
        for source in [&preferred, &free] {
            for run in source.iter().filter_map(|r| r.intersection(zone)) {
                let Some(run) = run.align_inner(SCRATCH_ALIGN) else {
                    continue;
                };
                if largest.is_none_or(|l| l.len() < run.len()) {
                    largest = Some(run);
                }
                match place_in_run(run, size, request) {
                    Ok(found) => return Ok(found),
                    Err(ScratchError::NoPlace { .. }) => {}
                    Err(error) => refusal = Some(error),
                }
            }
        }
    }
    if request.size.is_none()
        && let Some(run) = largest
        && run.len() >= need
        && place_image(run, request.ram, request.image).is_ok()
    {
        return Ok(run);
    }
    Err(refusal.unwrap_or(ScratchError::NoPlace {
        size,
        largest: largest.map_or(0, PhysRange::len),
    }))
}

/// The lowest place of `size` bytes in `run` into which the image goes.
fn place_in_run(
    run: PhysRange,
    size: u64,
    request: &ScratchRequest<'_>,
) -> Result<PhysRange, ScratchError> {
    let mut error = ScratchError::NoPlace {
        size,
        largest: run.len(),
    };
    // A kernel has a lowest address. If the run starts below that address, starting at it may help.
    let starts = [
        Some(run.start()),
        request
            .image
            .kernel
            .preferred
            .align_down(SCRATCH_ALIGN)
            .filter(|a| run.contains(*a)),
    ];
    for start in starts.into_iter().flatten() {
        let Ok(place) = PhysRange::new(start, size) else {
            continue;
        };
        if !run.contains_range(place) {
            continue;
        }
        match place_image(place, request.ram, request.image) {
            Ok(_) => return Ok(place),
            Err(refused) => error = refused.into(),
        }
    }
    Err(error)
}

/// Checks a recorded scratch for use on this boot, and returns it.
///
/// Ordinary memory that the running kernel has put into scratch meanwhile does not matter: the kexec overwrites it.
/// Memory that is handed over must not lie in scratch. Parts of scratch may no longer be RAM, since memory fails: the
/// planner places the image beside them.
///
/// # Errors
///
/// Every [`ScratchError`] but `NoPlace`.
pub fn reuse(
    recorded: Option<PhysRange>,
    ram: &RangeSet,
    kept: &RangeSet,
    image: &ImageNeeds,
) -> Result<PhysRange, ScratchError> {
    let scratch = recorded.ok_or(ScratchError::Absent)?;
    if !scratch.is_page_aligned() || scratch.start() < LOW_MEMORY_END {
        return Err(ScratchError::Malformed { scratch });
    }
    if let Some(kept) = kept.first_overlap(scratch) {
        return Err(ScratchError::Overlaps { scratch, kept });
    }
    let (need, have) = (image.min_scratch(), scratch.len());
    if have < need {
        return Err(ScratchError::TooSmall { need, have });
    }
    let Err(error) = place_image(scratch, ram, image) else {
        return Ok(scratch);
    };
    let whole = RangeSet::from_ranges([scratch])?;
    let hole = ram.gaps(scratch)?.iter().next();
    match hole.filter(|_| place_image(scratch, &whole, image).is_ok()) {
        Some(hole) => Err(ScratchError::NotRam {
            scratch,
            hole,
            need,
        }),
        None => Err(error.into()),
    }
}

/// Why a string is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SizeError {
    /// The text is empty.
    #[error("the size is empty: write a number with K, M, G or T, for example 512M")]
    Empty,
    /// No digit where one is expected.
    #[error(
        "the size does not start with a digit: write a number with K, M, G or T, for example 512M"
    )]
    NoDigit,
    /// The number or the product does not fit into 64 bits.
    #[error("the size does not fit into 64 bits")]
    TooLarge,
    /// The size is zero.
    #[error("the size is zero: leave the option out to have one derived")]
    Zero,
    /// The character after the number is not a known suffix.
    #[error("unexpected character {:?} at position {at} of the size: only K, M, G or T may follow the number", char::from(*byte))]
    Unexpected {
        /// Index of the offending byte.
        at: usize,
        /// The byte.
        byte: u8,
    },
}

/// Reads a size in bytes: decimal or `0x` hexadecimal, followed by at most one of `K M G T` (powers of 1024,
/// either case).
///
/// Unlike the kernel's `memparse` it refuses text that it does not understand.
///
/// # Errors
///
/// See [`SizeError`].
///
/// # Example
///
/// ```
/// assert_eq!(kho::scratch::parse_size("512M"), Ok(512 << 20));
/// assert!(kho::scratch::parse_size("512MB").is_err());
/// ```
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    parse_size_bytes(text.as_bytes())
}

/// [`parse_size`] for text that need not be UTF-8.
///
/// # Errors
///
/// See [`SizeError`].
pub fn parse_size_bytes(text: &[u8]) -> Result<u64, SizeError> {
    if text.is_empty() {
        return Err(SizeError::Empty);
    }
    let (radix, skip) = match text {
        [b'0', b'x' | b'X', ..] => (16u32, 2usize),
        _ => (10, 0),
    };
    let mut number: Option<u64> = None;
    let mut rest = text.iter().copied().enumerate().skip(skip);
    let mut next = rest.next();
    while let Some((_, byte)) = next {
        let Some(digit) = char::from(byte).to_digit(radix) else {
            break;
        };
        let grown = number
            .unwrap_or(0)
            .checked_mul(u64::from(radix))
            .and_then(|n| n.checked_add(u64::from(digit)))
            .ok_or(SizeError::TooLarge)?;
        number = Some(grown);
        next = rest.next();
    }
    let number = number.ok_or(SizeError::NoDigit)?;
    let shift = match next {
        None => 0u32,
        Some((_, b'k' | b'K')) => 10,
        Some((_, b'm' | b'M')) => 20,
        Some((_, b'g' | b'G')) => 30,
        Some((_, b't' | b'T')) => 40,
        Some((at, byte)) => return Err(SizeError::Unexpected { at, byte }),
    };
    if let Some((at, byte)) = rest.next() {
        return Err(SizeError::Unexpected { at, byte });
    }
    let bytes = number
        .checked_mul(1u64.checked_shl(shift).unwrap_or(0))
        .ok_or(SizeError::TooLarge)?;
    if bytes == 0 {
        return Err(SizeError::Zero);
    }
    Ok(bytes)
}

/// The size given by the last `kho_scratch=` on a kernel command line, if any. A kernel with KHO of its own has an option
/// of that name, too, whose values have another form ([`NativeScratch`](crate::headroom::NativeScratch)): they do not
/// count here, as this one does not count there.
///
/// # Errors
///
/// [`SizeError`] if the option is present and its value is not a size.
pub fn size_from_cmdline(cmdline: &[u8]) -> Result<Option<u64>, SizeError> {
    let mut found = None;
    for (name, value) in crate::headroom::params(cmdline) {
        let value = value.unwrap_or(b"");
        if crate::headroom::same_name(name, SCRATCH_OPTION.as_bytes())
            && !crate::headroom::NativeScratch::is_native(value)
        {
            found = Some(value);
        }
    }
    found.map(parse_size_bytes).transpose()
}

#[cfg(test)]
mod tests;
