//! Headroom: the free memory that the next kernel needs to start, compared with the memory that it would find.
//!
//! The next kernel cannot use the memory in the mem cache, slack included, before its user space releases it. A kernel
//! that runs out of memory before that loses the handover. This module adds up the memory that the kernel needs until
//! then, in total and below 4 GiB, and refuses a handover that would leave less.

mod cmdline;
mod native;
mod words;

pub use cmdline::{CmdlineMemory, DEFAULT_CRASH_LOW};
pub use native::{NativeScratch, asks_for_live_update, native_switch};
pub use words::{params, same_name};

use crate::addr::{PhysAddr, PhysRange};
use crate::image::{FOUR_GIB, ImageNeeds, LOW_MEMORY_END};
use crate::ranges::{OutOfMemory, RangeSet};
use core::fmt;
use thiserror::Error;

/// Share of RAM that `struct page` takes, as a divisor: 64 bytes for each page of 4096.
pub const MEMMAP_SHARE: u64 = 64;

/// Share of RAM that the hash tables sized at boot take, as a divisor: 8 bytes per 8 KiB for dentries (`fs/dcache.c`),
/// 8 per 16 KiB for inodes (`fs/inode.c`), and less than as much again for mounts, sockets and pids.
pub const HASHES_SHARE: u64 = 400;

/// `IO_TLB_DEFAULT_SIZE` of `include/linux/swiotlb.h`: the bounce buffer below 4 GiB.
pub const SWIOTLB_DEFAULT: u64 = 64 << 20;

/// Bytes that a kernel and the beginnings of a user space need besides all other terms, on [`BASE_CPUS`] processors:
/// for slab, per-CPU data, init, a service manager and the command that restores. An allowance, not a measurement.
pub const BASE_TOTAL: u64 = 96 << 20;

/// Number of processors that [`BASE_TOTAL`] covers.
pub const BASE_CPUS: u32 = 2;

/// Bytes that each processor beyond [`BASE_CPUS`] takes: for its per-CPU area, the stacks of its kernel threads, its
/// lists of free pages and its slab caches. An allowance, not a measurement.
pub const PER_CPU: u64 = 1 << 20;

/// Part of [`BASE_TOTAL`], in bytes, that should be found below 4 GiB: for DMA pools and drivers with 32-bit devices.
pub const BASE_LOW: u64 = 32 << 20;

/// Purpose for which the next kernel takes memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TermKind {
    /// The kernel image, `init_size`.
    Kernel,
    /// The initrd as loaded, until it is unpacked.
    Initrd,
    /// The initrd's files.
    InitrdFiles,
    /// `struct page` for all RAM.
    PageStructs,
    /// Hash tables sized by RAM.
    HashTables,
    /// The bounce buffer.
    Swiotlb,
    /// `crashkernel=`.
    CrashKernel,
    /// `hugepages=`.
    HugePages,
    /// Content that is copied out of handed-over memory into file systems in memory (tmpfs).
    Copies,
    /// Scratch areas of the kernel's own KHO.
    NativeScratch,
    /// Everything else, as an allowance.
    Base,
}

impl TermKind {
    /// Name of the term, a few words for a table.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel image",
            Self::Initrd => "initrd as loaded",
            Self::InitrdFiles => "initrd unpacked",
            Self::PageStructs => "struct page",
            Self::HashTables => "hash tables",
            Self::Swiotlb => "bounce buffer",
            Self::CrashKernel => "crashkernel=",
            Self::HugePages => "hugepages=",
            Self::Copies => "copies on tmpfs",
            Self::NativeScratch => "scratch of its own KHO",
            Self::Base => "kernel and user space",
        }
    }
}

impl fmt::Display for TermKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// One term of the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Purpose of the memory.
    pub kind: TermKind,
    /// Bytes needed, at any address.
    pub total: u64,
    /// Part of `total`, in bytes, that has to be below 4 GiB.
    pub low: u64,
}

/// Number of terms in a report.
pub const TERMS: usize = 11;

/// The memory that the next kernel needs, term by term, and the memory that it will find free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadroomReport {
    /// Every term, including those that are zero.
    pub terms: [Term; TERMS],
    /// Bytes needed in all.
    pub need_total: u64,
    /// Bytes needed below 4 GiB.
    pub need_low: u64,
    /// Bytes the next kernel will find free.
    pub free_total: u64,
    /// Part of `free_total`, in bytes, that is below 4 GiB.
    pub free_low: u64,
    /// Whether there is RAM above 4 GiB. If not, only the total matters.
    pub has_high: bool,
}

/// Memory use of the next kernel that neither its image nor its command line tells, before its user space can release
/// the memory that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct UserSpace {
    /// Processors that are online.
    pub cpus: u32,
    /// Bytes that are restored to file systems in memory (tmpfs) while their source is still reserved.
    pub copies: u64,
    /// Number of nodes with memory, if the kernel has KHO of its own and that is on: it then sets scratch areas aside.
    /// `None` if it does not.
    pub native_nodes: Option<u32>,
}

/// Input of [`check`] and [`report`].
#[derive(Clone, Copy, Debug)]
pub struct HeadroomInput<'a> {
    /// RAM that the next kernel will use: the firmware's RAM, as far as the next kernel's command line leaves it.
    pub ram: &'a RangeSet,
    /// All memory that early boot reserves: the mem cache with its slack.
    pub reserved: &'a RangeSet,
    /// Scratch region, into which the image goes. Kernel and initrd count as low if scratch starts below 4 GiB.
    pub scratch: PhysRange,
    /// The image.
    pub image: &'a ImageNeeds,
    /// The next kernel's command line.
    pub cmdline: &'a CmdlineMemory,
    /// Memory use of the next kernel's user space.
    pub user_space: UserSpace,
}

/// Why the next kernel would find too little memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeadroomError {
    /// The next kernel would find less free memory than it needs in total.
    #[error(
        "the next kernel needs {need:#x} bytes of free memory to start and would find {free:#x}: hand over {:#x} bytes less", need.saturating_sub(*free)
    )]
    Total {
        /// Bytes needed.
        need: u64,
        /// Bytes that would be free.
        free: u64,
    },
    /// Not enough memory below 4 GiB.
    #[error(
        "the next kernel needs {need:#x} bytes of free memory below 4 GiB to start and would find {free:#x}: hand over {:#x} bytes less there", need.saturating_sub(*free)
    )]
    Low {
        /// Bytes needed.
        need: u64,
        /// Bytes that would be free.
        free: u64,
    },
    /// An allocation failed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Adds up the memory that the next kernel needs and the memory that it would find, without comparing the two.
///
/// # Errors
///
/// [`OutOfMemory`].
pub fn report(input: &HeadroomInput<'_>) -> Result<HeadroomReport, OutOfMemory> {
    let low_memory = below(LOW_MEMORY_END)?;
    let free = input.ram.subtract(input.reserved)?.subtract(&low_memory)?;
    let below_4g = below(FOUR_GIB)?;
    let ram_total = input.ram.total();
    let reserved_total = input.reserved.total();
    let reserved_low = input.reserved.intersect(&below_4g)?.total();
    let has_high = input.ram.span().is_some_and(|s| s.end() > FOUR_GIB);
    let image_low = input.scratch.start() < FOUR_GIB;
    let initrd = input.image.initrd();
    let initrd_len = initrd.map_or(0, |i| i.len);
    let initrd_files = initrd.map_or(0, |i| i.unpacked);
    let swiotlb = match input.cmdline.swiotlb {
        // With `force` the kernel allocates the buffer on every machine; otherwise only if there is RAM above 4 GiB
        // (`pci_swiotlb_detect` in `arch/x86/kernel/pci-dma.c`).
        _ if !has_high && !input.cmdline.swiotlb_forced => 0,
        Some(bytes) => bytes,
        None => SWIOTLB_DEFAULT,
    };
    let kernel = input.image.kernel.reserve_len().unwrap_or(u64::MAX);
    let more_cpus = u64::from(input.user_space.cpus.saturating_sub(BASE_CPUS));
    let base = BASE_TOTAL.saturating_add(PER_CPU.saturating_mul(more_cpus));
    let term = |kind, total: u64, low: u64| Term { kind, total, low };
    let if_low = |bytes: u64| if image_low { bytes } else { 0 };
    let structs = ram_total.div_ceil(MEMMAP_SHARE);
    let hashes = ram_total.div_ceil(HASHES_SHARE);
    let native = input.user_space.native_nodes.map_or((0, 0), |nodes| {
        let early = [kernel, initrd_len, structs, hashes];
        let early = early.into_iter().fold(0, u64::saturating_add);
        let scratch = input.cmdline.native_scratch;
        scratch.bytes(
            reserved_total.saturating_add(early),
            reserved_low.saturating_add(if_low(kernel.saturating_add(initrd_len))),
            nodes,
        )
    });
    let terms = [
        term(TermKind::Kernel, kernel, if_low(kernel)),
        term(TermKind::Initrd, initrd_len, if_low(initrd_len)),
        term(TermKind::InitrdFiles, initrd_files, 0),
        term(TermKind::PageStructs, structs, 0),
        term(TermKind::HashTables, hashes, 0),
        term(TermKind::Swiotlb, swiotlb, swiotlb),
        term(
            TermKind::CrashKernel,
            input.cmdline.crash,
            input.cmdline.crash_low,
        ),
        term(TermKind::HugePages, input.cmdline.hugepages, 0),
        term(TermKind::Copies, input.user_space.copies, 0),
        term(TermKind::NativeScratch, native.0, native.1),
        term(TermKind::Base, base, BASE_LOW),
    ];
    let sum = |value: fn(&Term) -> u64| terms.iter().map(value).fold(0, u64::saturating_add);
    Ok(HeadroomReport {
        need_total: sum(|t| t.total),
        need_low: sum(|t| t.low),
        free_total: free.total(),
        free_low: free.intersect(&below_4g)?.total(),
        has_high,
        terms,
    })
}

/// Returns sizes of the scratch areas for a kernel with this image that has KHO of its own, on a machine with
/// `ram_bytes` of RAM in `nodes` nodes: twice what that kernel reserves early itself, as by default, without what is
/// handed over.
pub fn native_scratch(image: &ImageNeeds, ram_bytes: u64, nodes: u32) -> NativeScratch {
    let structs = ram_bytes.div_ceil(MEMMAP_SHARE);
    let hashes = ram_bytes.div_ceil(HASHES_SHARE);
    NativeScratch::twice(
        image.copied_bytes(),
        structs.saturating_add(hashes),
        structs.div_ceil(u64::from(nodes.max(1))),
    )
}

impl HeadroomReport {
    /// Returns an error if the next kernel would find less memory than it needs.
    ///
    /// # Errors
    ///
    /// [`HeadroomError::Total`] or [`HeadroomError::Low`].
    pub fn verdict(&self) -> Result<(), HeadroomError> {
        if self.free_total < self.need_total {
            return Err(HeadroomError::Total {
                need: self.need_total,
                free: self.free_total,
            });
        }
        if self.has_high && self.free_low < self.need_low {
            return Err(HeadroomError::Low {
                need: self.need_low,
                free: self.free_low,
            });
        }
        Ok(())
    }
}

/// Returns the [`report`], or an error if the next kernel would find too little memory.
///
/// # Errors
///
/// See [`HeadroomError`].
pub fn check(input: &HeadroomInput<'_>) -> Result<HeadroomReport, HeadroomError> {
    let report = report(input)?;
    report.verdict()?;
    Ok(report)
}

/// All addresses below `end`.
fn below(end: PhysAddr) -> Result<RangeSet, OutOfMemory> {
    RangeSet::from_ranges(PhysRange::from_bounds(PhysAddr::new(0), end).ok())
}

#[cfg(test)]
mod tests;
