//! Assembly of an arm64 kernel, an initrd and a handover into the segments of `kexec_load`.

use std::borrow::Cow;

use kho::{PAGE_SIZE, PhysRange};

use super::entry;
use crate::assemble::{AssembleError, Assembled, Contents, Placement, SegmentKind, check_segments};
use crate::bytes::len64;
use crate::carrier::RNG_SEED_LEN;
use crate::cmdline::CmdlineError;
use crate::devicetree::{DeviceTree, Handover, MAX_LEN, NextKernel};
use crate::image::Image;

/// The initrd and the kernel lie in one window of this length (booting.rst, section 4) …
const WINDOW: u64 = 32 << 30;
/// … that begins at a multiple of this.
const WINDOW_ALIGN: u64 = 1 << 30;

/// Parts of a load.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// The kernel, an [`Arm64Image`](crate::image::Arm64Image).
    pub image: &'a dyn Image,
    /// The initrd, the arrival archive included.
    pub initrd: Option<Cow<'a, [u8]>>,
    /// The command line, without NUL.
    pub cmdline: &'a [u8],
    /// The running kernel's devicetree.
    pub running: &'a DeviceTree,
    /// Fresh random number, for this load only.
    pub kaslr_seed: u64,
    /// Fresh random bytes, for this load only.
    pub rng_seed: &'a [u8; RNG_SEED_LEN],
    /// The state tree; `None` if nothing is handed over.
    pub tree: Option<&'a [u8]>,
    /// The mem cache, in the tree's order.
    pub reserved: &'a [PhysRange],
    /// Region that holds nothing that is handed over.
    pub scratch: PhysRange,
    /// Destinations of the segments. The kernel's range begins with its base, a multiple of 2 MiB, and has
    /// [`ImageHeader::mem_size`](crate::image::ImageHeader::mem_size) bytes or more.
    pub placement: Placement,
}

/// Returns the length of the parameters segment, in bytes, a multiple of the page size: for an upper bound of the number
/// of ranges that are handed over, and for a command line of `cmdline` bytes. `running` is the length of the running
/// kernel's devicetree, in bytes; an edit takes nothing out of it that is not counted here.
pub fn params_len(running: u64, cmdline: u64, reserved: usize) -> u64 {
    /// Bytes of a range in the reservation block and in `kho,mem-cache`.
    const PER_RANGE: u64 = 32;
    /// More than all other properties of `/chosen` with their names, and the alignment of the entry code.
    const OTHERS: u64 = 1 << 10;
    len64(reserved)
        .saturating_mul(PER_RANGE)
        .saturating_add(OTHERS)
        .saturating_add(running)
        .saturating_add(cmdline)
        .saturating_add(len64(entry::ENTRY_LEN))
        .checked_next_multiple_of(PAGE_SIZE)
        .unwrap_or(u64::MAX)
}

/// Makes the segments of a load, and the address to enter.
///
/// # Errors
///
/// [`AssembleError`], for example if the placement would put the next kernel on memory that is handed over. This check
/// does not rely on the planner.
pub fn assemble<'a>(mut load: Load<'a>) -> Result<Assembled<'a>, AssembleError> {
    let place = load.placement;
    let kernel = kernel_at(&load)?;
    let (len, max) = (len64(load.cmdline.len()), load.image.header().cmdline_max);
    if len > max {
        return Err(CmdlineError::CommandLineTooLong { len, ours: 0, max }.into());
    }
    let initrd = load.initrd.take();
    let initrd_at = match (&initrd, place.initrd) {
        (None, _) => None,
        (Some(_), None) => {
            return Err(AssembleError::NotPlaced {
                kind: SegmentKind::Initrd,
            });
        }
        (Some(bytes), Some(dest)) => Some(initrd_at(bytes, dest, kernel)?),
    };
    let (params, entry) = params(&load, kernel, initrd_at)?;
    let contents = Contents {
        kernel: load.image.payload(),
        initrd,
        params,
        state: load.tree.map(Cow::Borrowed),
    };
    let segments = contents.segments(&Placement { kernel, ..place });
    check_segments(&segments, load.reserved, load.tree.is_some())?;
    Ok(Assembled { segments, entry })
}

/// Returns the range that the kernel runs in, from its first byte on.
fn kernel_at(load: &Load<'_>) -> Result<PhysRange, AssembleError> {
    let (at, header) = (load.placement.kernel, load.image.header());
    let refused = || AssembleError::KernelPlace {
        at,
        mem_size: header.mem_size,
        alignment: header.alignment,
        lowest: header.lowest,
    };
    if !at.start().is_aligned(header.alignment) || at.len() < header.mem_size {
        return Err(refused());
    }
    let offset = load.image.entry_offset();
    let start = at.start().checked_add(offset).ok_or_else(refused)?;
    let len = header.mem_size.checked_sub(offset).ok_or_else(refused)?;
    PhysRange::new(start, len).map_err(|_| refused())
}

/// Returns the range of exactly the initrd's bytes.
fn initrd_at(bytes: &[u8], dest: PhysRange, kernel: PhysRange) -> Result<PhysRange, AssembleError> {
    let far = || AssembleError::InitrdFar { at: dest, kernel };
    let at = PhysRange::new(dest.start(), len64(bytes.len())).map_err(|_| far())?;
    let low = at.start().min(kernel.start());
    let high = at.end().max(kernel.end());
    let window = low
        .align_down(WINDOW_ALIGN)
        .and_then(|low| high.offset_from(low));
    match window {
        Some(len) if len <= WINDOW => Ok(at),
        _ => Err(far()),
    }
}

/// Makes the parameters segment. Returns its bytes, and the address of the entry code in it.
fn params(
    load: &Load<'_>,
    kernel: PhysRange,
    initrd: Option<PhysRange>,
) -> Result<(Vec<u8>, kho::PhysAddr), AssembleError> {
    let at = load.placement.params;
    let handover = match load.tree {
        None => None,
        Some(tree) => {
            let dest = load.placement.state;
            let needed = len64(tree.len());
            let short = |_| AssembleError::TooShort {
                kind: SegmentKind::State,
                dest,
                needed,
            };
            Some(Handover {
                state_tree: PhysRange::new(dest.start(), needed).map_err(short)?,
                mem_cache: load.reserved.to_vec(),
                scratch: load.scratch,
            })
        }
    };
    let mut bytes = load.running.edit(&NextKernel {
        cmdline: load.cmdline,
        initrd,
        kaslr_seed: load.kaslr_seed,
        rng_seed: load.rng_seed,
        handover: handover.as_ref(),
    })?;
    let offset = len64(bytes.len()).next_multiple_of(entry::ENTRY_ALIGN);
    let padded = usize::try_from(offset).ok();
    let (Some(entry), Some(padded)) = (at.start().checked_add(offset), padded) else {
        return Err(AssembleError::TooShort {
            kind: SegmentKind::Params,
            dest: at,
            needed: MAX_LEN,
        });
    };
    bytes.resize(padded, 0);
    bytes.extend_from_slice(&entry::code(at.start(), kernel.start()));
    Ok((bytes, entry))
}
