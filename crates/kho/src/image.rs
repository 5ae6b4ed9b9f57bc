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
    /// A random number that picks one of the kernel's possible places in scratch, for a kernel that stays where it is
    /// loaded (`CONFIG_RANDOMIZE_BASE`). `None`: the lowest place.
    pub random: Option<u64>,
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
/// With [`KernelNeeds::random`] the other parts go to the highest places, and the kernel to any place in the rest. If the
/// rest has no place for it, the kernel gets the lowest place as it does without a random number.
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
    if let Some(random) = image.kernel.random
        && let Some(placed) = place_at_random(free.try_clone()?, image, random)?
    {
        return Ok(placed);
    }
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
    let (mut kernel, mut initrd) = (None, None);
    for kernel_now in [kernel_first, !kernel_first] {
        if kernel_now {
            let spot = kernel_spot(&image.kernel, limit(image))?;
            let reserved = first_fit(&mut free, &spot, scratch)?;
            kernel = Some(Placement {
                reserved,
                len: image.kernel.file_len,
            });
        } else if let Some(needs) = image.initrd() {
            initrd = Some(Placement {
                reserved: first_fit(&mut free, &initrd_spot(&needs, image)?, scratch)?,
                len: needs.len,
            });
        }
    }
    let params = Placement {
        reserved: first_fit(&mut free, &params_spot(image)?, scratch)?,
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

/// Returns `None` if the parts do not fit in this order.
fn place_at_random(
    mut free: RangeSet,
    image: &ImageNeeds,
    random: u64,
) -> Result<Option<ImagePlacement>, PlacementError> {
    let Some(params) = last_fit(&mut free, &params_spot(image)?)? else {
        return Ok(None);
    };
    let mut initrd = None;
    if let Some(needs) = image.initrd() {
        let Some(reserved) = last_fit(&mut free, &initrd_spot(&needs, image)?)? else {
            return Ok(None);
        };
        let len = needs.len;
        initrd = Some(Placement { reserved, len });
    }
    Ok(
        random_fit(&free, &kernel_spot(&image.kernel, limit(image))?, random).map(|reserved| {
            ImagePlacement {
                kernel: Placement {
                    reserved,
                    len: image.kernel.file_len,
                },
                initrd,
                params: Placement {
                    reserved: params,
                    len: image.params_len,
                },
            }
        }),
    )
}

/// Needs of one part of the image.
struct Spot {
    part: ImagePart,
    len: u64,
    align: u64,
    min: PhysAddr,
    max: PhysAddr,
}

impl Spot {
    /// The part of `run` in which a place must lie; `None` if the part does not fit there.
    fn window(&self, run: PhysRange) -> Option<PhysRange> {
        let start = run.start().max(self.min).align_up(self.align)?;
        let len = run.end().min(self.max).offset_from(start)?;
        let window = PhysRange::new(start, len).ok()?;
        (len >= self.len).then_some(window)
    }

    /// Number of places in a [`window`](Self::window).
    fn places(&self, window: PhysRange) -> u64 {
        let more = window.len().saturating_sub(self.len);
        more.checked_div(self.align).unwrap_or(0).saturating_add(1)
    }
}

/// The highest address that a part may reach, exclusive.
fn limit(image: &ImageNeeds) -> PhysAddr {
    match image.kernel.above_4g {
        true => PhysAddr::new(u64::MAX),
        false => FOUR_GIB,
    }
}

fn initrd_spot(needs: &InitrdNeeds, image: &ImageNeeds) -> Result<Spot, PlacementError> {
    let top = PhysAddr::new(u64::MAX);
    let end = needs.max_addr.checked_add(1).unwrap_or(top);
    Ok(Spot {
        part: ImagePart::Initrd,
        len: page_up(ImagePart::Initrd, needs.len)?,
        align: PAGE_SIZE,
        min: PhysAddr::new(0),
        max: if image.kernel.above_4g { top } else { end },
    })
}

fn params_spot(image: &ImageNeeds) -> Result<Spot, PlacementError> {
    Ok(Spot {
        part: ImagePart::Params,
        len: page_up(ImagePart::Params, image.params_len.max(1))?,
        align: PAGE_SIZE,
        min: PhysAddr::new(0),
        max: limit(image),
    })
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
        let window = spot.window(run)?;
        PhysRange::new(window.start(), spot.len).ok()
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
            min: spot.min.max(scratch.start()),
            max: spot.max,
            scratch,
        }),
    }
}

/// Takes the highest place in `free` that satisfies `spot`; `None` if there is none.
fn last_fit(free: &mut RangeSet, spot: &Spot) -> Result<Option<PhysRange>, OutOfMemory> {
    let found = free.iter().rev().find_map(|run| spot.window(run));
    let Some(window) = found else {
        return Ok(None);
    };
    let last = spot.places(window).saturating_sub(1);
    let Some(place) = place_at(window, spot, last) else {
        return Ok(None);
    };
    free.remove(place)?;
    Ok(Some(place))
}

/// Returns one of all places in `free` that satisfy `spot`; `None` if there is none.
fn random_fit(free: &RangeSet, spot: &Spot, random: u64) -> Option<PhysRange> {
    let windows = || free.iter().filter_map(|run| spot.window(run));
    let all = windows().fold(0u64, |all, window| all.saturating_add(spot.places(window)));
    let mut index = random.checked_rem(all)?;
    for window in windows() {
        match index.checked_sub(spot.places(window)) {
            Some(rest) => index = rest,
            None => return place_at(window, spot, index),
        }
    }
    None
}

/// Returns the place of this index in a window, counted from the lowest.
fn place_at(window: PhysRange, spot: &Spot, index: u64) -> Option<PhysRange> {
    let start = window.start().checked_add(spot.align.checked_mul(index)?)?;
    PhysRange::new(start, spot.len).ok()
}

fn page_up(part: ImagePart, len: u64) -> Result<u64, PlacementError> {
    len.checked_next_multiple_of(PAGE_SIZE)
        .ok_or_else(|| impossible(part, len, PAGE_SIZE))
}

fn impossible(part: ImagePart, len: u64, align: u64) -> PlacementError {
    PlacementError::Impossible { part, len, align }
}
