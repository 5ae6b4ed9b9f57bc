//! The memory that the next kernel's image needs, and the places of its parts inside scratch.

use crate::addr::{PAGE_SIZE, PhysAddr, PhysRange};
use crate::ranges::{OutOfMemory, RangeSet};
use core::fmt;
use thiserror::Error;

/// The first address that a 32-bit field cannot hold.
pub const FOUR_GIB: PhysAddr = PhysAddr::new(1 << 32);

/// End of the memory that firmware and real-mode code share.
///
/// The kernel reserves all of it on x86 (`reserve_real_mode` in `arch/x86/realmode/init.c`, Linux 5.13 and later), so
/// the planner places and keeps nothing there.
pub const LOW_MEMORY_END: PhysAddr = PhysAddr::new(1 << 20);

/// A kernel image that can be moved, as its setup header describes it (`Documentation/arch/x86/boot.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelNeeds {
    /// Bytes copied from the file: the protected-mode part.
    pub file_len: u64,
    /// `init_size`: bytes from the load address that the kernel overwrites, by decompression and its own bss, before it
    /// reads any memory map.
    pub mem_size: u64,
    /// `kernel_alignment`, a power of two.
    pub align: u64,
    /// `pref_address`. A kernel loaded below it moves itself up to it (`arch/x86/boot/compressed/head_64.S`), so it is
    /// never placed below.
    pub preferred: PhysAddr,
    /// `XLF_CAN_BE_LOADED_ABOVE_4G`: kernel, initrd, parameters and command line may lie above 4 GiB.
    pub above_4g: bool,
}

impl KernelNeeds {
    /// Bytes to set aside at the load address, in whole pages; `None` on overflow.
    pub fn reserve_len(&self) -> Option<u64> {
        self.mem_size
            .max(self.file_len)
            .max(1)
            .checked_next_multiple_of(PAGE_SIZE)
    }
}

/// The initial RAM disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitrdNeeds {
    /// Bytes as loaded, with everything that the loader appends. A length of zero means no initrd.
    pub len: u64,
    /// Bytes of the files that the kernel unpacks it to.
    pub unpacked: u64,
    /// `initrd_addr_max`: the highest address its last byte may have. Ignored when the kernel says
    /// [`KernelNeeds::above_4g`].
    pub max_addr: PhysAddr,
}

/// Memory needed by all parts of the image that go into scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageNeeds {
    /// The kernel.
    pub kernel: KernelNeeds,
    /// The initrd, if there is one.
    pub initrd: Option<InitrdNeeds>,
    /// Bytes of boot parameters, command line and entry code: one piece.
    pub params_len: u64,
}

impl ImageNeeds {
    /// The initrd, unless it is empty.
    pub fn initrd(&self) -> Option<InitrdNeeds> {
        self.initrd.filter(|i| i.len > 0)
    }

    /// The smallest scratch that can hold the image when it starts at a multiple of the kernel's
    /// alignment, one segment right behind the other; `u64::MAX` when the sizes overflow.
    pub fn min_scratch(&self) -> u64 {
        self.copied_bytes()
    }

    /// Bytes of all segments in scratch, in whole pages (`u64::MAX` on overflow): the kernel takes a page of memory for
    /// each page of a segment, filled or not.
    pub fn copied_bytes(&self) -> u64 {
        let pages = |len: u64| len.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
        self.kernel
            .reserve_len()
            .unwrap_or(u64::MAX)
            .saturating_add(self.initrd().map_or(0, |i| pages(i.len)))
            .saturating_add(pages(self.params_len.max(1)))
    }
}

/// A part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImagePart {
    /// The kernel.
    Kernel,
    /// The initrd.
    Initrd,
    /// Boot parameters, command line and entry code.
    Params,
}

impl fmt::Display for ImagePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "the kernel",
            Self::Initrd => "the initrd",
            Self::Params => "the boot parameters",
        })
    }
}

/// Place of one part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Memory that belongs to this part alone, page-aligned. For the kernel all of `init_size`.
    pub reserved: PhysRange,
    /// Bytes of content at the start of `reserved`; the rest is zero.
    pub len: u64,
}

impl Placement {
    /// The destination of the segment: all of `reserved`, also where the content is shorter.
    ///
    /// The kernel decompresses itself inside its `init_size` while it still runs on the page tables that
    /// kexec made, and kexec keeps those (its control pages) away from destinations only
    /// (`kimage_alloc_normal_control_pages` in `kernel/kexec_core.c`).
    pub const fn segment(&self) -> PhysRange {
        self.reserved
    }
}

/// Places of all parts of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImagePlacement {
    /// The kernel.
    pub kernel: Placement,
    /// The initrd, if there is one.
    pub initrd: Option<Placement>,
    /// Boot parameters, command line and entry code.
    pub params: Placement,
}

/// Why a part of the image cannot be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// The size or alignment in the image's header is impossible.
    #[error("{part} asks for {len:#x} bytes aligned to {align:#x}, which no memory can satisfy")]
    Impossible {
        /// The part that cannot be placed.
        part: ImagePart,
        /// Its length in bytes.
        len: u64,
        /// Its alignment in bytes.
        align: u64,
    },
    /// Scratch has no place for the part.
    #[error(
        "{part} needs {len:#x} bytes aligned to {align:#x} between {min} and {max}, and scratch {scratch} has no such room left"
    )]
    NoRoom {
        /// The part that cannot be placed.
        part: ImagePart,
        /// Its length in bytes.
        len: u64,
        /// Its alignment in bytes.
        align: u64,
        /// The lowest address it may start at.
        min: PhysAddr,
        /// The address it may not reach past.
        max: PhysAddr,
        /// The scratch region.
        scratch: PhysRange,
    },
    /// An allocation failed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Places the image's parts without overlap in those bytes of `scratch` that are in `ram`.
///
/// The kernel owns all of its `init_size`, because decompression writes there before the kernel reads anything else. So
/// decompression cannot overwrite the initrd or the parameters.
///
/// # Errors
///
/// See [`PlacementError`].
pub fn place_image(
    scratch: PhysRange,
    ram: &RangeSet,
    image: &ImageNeeds,
) -> Result<ImagePlacement, PlacementError> {
    let whole = RangeSet::from_ranges([scratch])?;
    let free = whole.intersect(ram)?.align_inner(PAGE_SIZE)?;
    let place = |kernel_first| place_in_order(scratch, free.try_clone()?, image, kernel_first);
    // Kernel first suits almost every machine. If scratch extends past the initrd's address limit, the initrd needs the
    // low part of scratch.
    match place(true) {
        Err(PlacementError::NoRoom { .. }) if image.initrd().is_some() => {
            place(false).or_else(|_| place(true))
        }
        result => result,
    }
}

fn place_in_order(
    scratch: PhysRange,
    mut free: RangeSet,
    image: &ImageNeeds,
    kernel_first: bool,
) -> Result<ImagePlacement, PlacementError> {
    let top = PhysAddr::new(u64::MAX);
    let max = if image.kernel.above_4g { top } else { FOUR_GIB };
    let (mut kernel, mut initrd) = (None, None);
    for kernel_now in [kernel_first, !kernel_first] {
        if kernel_now {
            let spot = kernel_spot(&image.kernel, max)?;
            let reserved = first_fit(&mut free, &spot, scratch)?;
            kernel = Some(Placement {
                reserved,
                len: image.kernel.file_len,
            });
        } else if let Some(needs) = image.initrd() {
            let end = needs.max_addr.checked_add(1).unwrap_or(top);
            let spot = Spot {
                part: ImagePart::Initrd,
                len: page_up(ImagePart::Initrd, needs.len)?,
                align: PAGE_SIZE,
                min: scratch.start(),
                max: if image.kernel.above_4g { top } else { end },
            };
            initrd = Some(Placement {
                reserved: first_fit(&mut free, &spot, scratch)?,
                len: needs.len,
            });
        }
    }
    let spot = Spot {
        part: ImagePart::Params,
        len: page_up(ImagePart::Params, image.params_len.max(1))?,
        align: PAGE_SIZE,
        min: scratch.start(),
        max,
    };
    let params = Placement {
        reserved: first_fit(&mut free, &spot, scratch)?,
        len: image.params_len,
    };
    match kernel {
        Some(kernel) => Ok(ImagePlacement {
            kernel,
            initrd,
            params,
        }),
        // Not reachable: one of the two attempts places the kernel.
        None => Err(impossible(ImagePart::Kernel, 0, 0)),
    }
}

/// Needs of one part of the image.
struct Spot {
    part: ImagePart,
    len: u64,
    align: u64,
    min: PhysAddr,
    max: PhysAddr,
}

fn kernel_spot(kernel: &KernelNeeds, max: PhysAddr) -> Result<Spot, PlacementError> {
    let fail = || impossible(ImagePart::Kernel, kernel.mem_size, kernel.align);
    let len = kernel.reserve_len().ok_or_else(fail)?;
    // An image may give an alignment of zero.
    if kernel.align != 0 && !kernel.align.is_power_of_two() {
        return Err(fail());
    }
    Ok(Spot {
        part: ImagePart::Kernel,
        len,
        // Segments are whole pages, so an alignment below a page counts as a page.
        align: kernel.align.max(PAGE_SIZE),
        min: kernel.preferred,
        max,
    })
}

/// Takes the lowest place in `free` that satisfies `spot`.
fn first_fit(
    free: &mut RangeSet,
    spot: &Spot,
    scratch: PhysRange,
) -> Result<PhysRange, PlacementError> {
    let found = free.iter().find_map(|run| {
        let start = run.start().max(spot.min).align_up(spot.align)?;
        let place = PhysRange::new(start, spot.len).ok()?;
        (run.contains_range(place) && place.end() <= spot.max).then_some(place)
    });
    match found {
        Some(place) => {
            free.remove(place)?;
            Ok(place)
        }
        None => Err(PlacementError::NoRoom {
            part: spot.part,
            len: spot.len,
            align: spot.align,
            min: spot.min,
            max: spot.max,
            scratch,
        }),
    }
}

fn page_up(part: ImagePart, len: u64) -> Result<u64, PlacementError> {
    len.checked_next_multiple_of(PAGE_SIZE)
        .ok_or_else(|| impossible(part, len, PAGE_SIZE))
}

fn impossible(part: ImagePart, len: u64, align: u64) -> PlacementError {
    PlacementError::Impossible { part, len, align }
}
