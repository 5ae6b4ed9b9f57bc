//! Carriers: the ways in which a handover reaches the next kernel.
//!
//! A [`Carrier`] takes a [`Cargo`]: the state tree, the ranges to keep, and the facts for early boot. From it the
//! carrier makes the bytes of the *state segment*, and the one address that the next kernel's parameters must name. The
//! planner decides the cargo. The kernel itself loads what the [`initrd`] carries, so that one has no state segment.
//!
//! # Cost of a range in early boot
//!
//! [`SetupDataCarrier`] uses the `setup_data` chain. The sources of Linux 6.1, 6.12 and 7.3 show these costs:
//!
//! * **memblock** (`memblock_x86_reserve_range_setup_data`, `arch/x86/kernel/setup.c`): one `memblock_reserve` for each
//!   node and one for each indirect range. Regions that touch become one, so the carrier packs the nodes back to back
//!   and they cost *one* region together; scattered nodes would cost one each. Each range that touches no other range
//!   costs one region. The kernel does this before `memblock_allow_resize` (in `e820__memblock_setup`), with a static
//!   table of 128 regions that also holds the kernel, the initrd, the first 64 KiB, the BIOS area and what firmware
//!   drivers reserve. If a reservation does not fit, 6.1 drops it without a message, and 6.12 and 7.3 panic before they
//!   have a console (`memblock_double_array`, `mm/memblock.c`). 6.1 may drop a reservation that is not kho's: the
//!   kernel's own later reservations (its early page tables, `reserve_brk`) go into the same table. A 6.1 guest with
//!   124 ranges started, had every one of them reserved, and hung when its memory was filled. So a check after boot
//!   that all ranges are reserved does not show that the number of ranges was small enough. Ranges that touch or
//!   overlap, such as the tree and the mem-cache entry that covers it, count once, but need a free slot while they are
//!   merged.
//! * **e820, 6.1 and 6.12 only** (`e820__reserve_setup_data`, gone in 7.3): every node and every indirect range becomes
//!   `E820_TYPE_RESERVED_KERN` in `e820_table` (6.1: in `e820_table_kexec` too). A range inside a RAM entry splits the
//!   entry and adds two entries; a node that begins at the end of the last one adds one. The kernel merges entries only
//!   afterwards, so N ranges need up to `3 * N + 5` entries besides the firmware's. The table holds `E820_MAX_ENTRIES =
//!   128 + 3 * MAX_NUMNODES`: 3200 in Debian's kernels (`CONFIG_NODES_SHIFT=10`), 320 with the upstream default of 6,
//!   131 without `CONFIG_NUMA`. When it is full, `__e820__range_add` drops the new entries *after* it has cut the RAM
//!   entry short: the memory above is lost. So a self-built kernel of 6.12 or before without NUMA has room for about 35
//!   ranges, one with `NODES_SHIFT=6` about 90. `/sys/firmware/memmap` shows `e820_table_firmware`, which these
//!   functions do not change: the loader can pass the map on at every hop.
//! * **memblock.memory**: nothing; the pieces of a split RAM entry touch and become one region again.
//! * **KASLR** (`mem_avoid_overlap`, `arch/x86/boot/compressed/kaslr.c`): avoids every node and every indirect range,
//!   without a limit; at most 100 areas between them are candidates (`MAX_SLOT_AREA`). It does *not* avoid the UEFI
//!   memory map that `efi_info` points to, which is why that map lies inside a node.
//! * **sysfs** (`arch/x86/kernel/ksysfs.c`): a directory and two files for each node, for the whole boot.
//!
//! [`EARLY_RANGES`] comes from a measurement of the memblock slots that firmware leaves. [`early_ranges`] computes the
//! number of ranges for which the e820 table has room.

mod early;
pub mod initrd;
mod setup_data;

use kho::{PhysAddr, PhysRange};
use thiserror::Error;

use crate::bootparam::{EfiFacts, MemoryMapEntry};

pub use early::{EARLY_RANGES, KernelConfig, NativeKho, early_ranges};
pub use setup_data::{LinkedCarrier, MAX_NODES, SetupDataCarrier, node_type};

/// Content of a handover, and facts for the next kernel's early boot.
#[derive(Clone, Copy, Debug)]
pub struct Cargo<'a> {
    /// The state tree; `None` if nothing is handed over (a plain kexec).
    pub tree: Option<&'a [u8]>,
    /// The mem cache: page-aligned ranges to reserve, in the order of the tree's `mem-cache` property.
    /// The first of them is the state segment itself.
    pub reserved: &'a [PhysRange],
    /// The firmware's whole memory map. The carrier carries only the entries that do not fit into `boot_params`.
    pub memory_map: &'a [MemoryMapEntry],
    /// UEFI runtime services; `None` if there are none.
    pub efi: Option<&'a EfiFacts>,
    /// Fresh random bytes for the next kernel's random number generator.
    pub rng_seed: Option<&'a [u8; RNG_SEED_LEN]>,
}

/// Bytes of a seed: `RNG_SEED_LENGTH`, `arch/x86/kernel/kexec-bzimage64.c`.
pub const RNG_SEED_LEN: usize = 32;

/// Size of a [`Cargo`], known before the cargo's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateShape {
    /// Length of the state tree, in bytes; `None` if there is no tree.
    pub tree_len: Option<u64>,
    /// Number of ranges to reserve, or an upper bound of it.
    pub reserved: usize,
    /// Number of entries of the memory map.
    pub memory_map: usize,
    /// Number of regions of the UEFI runtime map; `None` if there is no such map.
    pub efi_regions: Option<usize>,
    /// Whether the cargo has a seed.
    pub rng_seed: bool,
}

impl Cargo<'_> {
    /// Returns the size of the cargo.
    pub fn shape(&self) -> StateShape {
        StateShape {
            tree_len: self.tree.map(|tree| crate::bytes::len64(tree.len())),
            reserved: self.reserved.len(),
            memory_map: self.memory_map.len(),
            efi_regions: self.efi.map(|facts| facts.runtime_map.len()),
            rng_seed: self.rng_seed.is_some(),
        }
    }
}

/// The state segment, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Bytes of the segment, from the address for which it was encoded.
    pub bytes: Vec<u8>,
    /// Value of `setup_data` in the next kernel's parameters; `None` if the cargo is empty.
    pub first: Option<PhysAddr>,
    /// Range of exactly the state tree's bytes; `None` if there is no tree.
    pub tree: Option<PhysRange>,
    /// Range of exactly the UEFI memory map's bytes; `None` if there is no such map.
    pub efi_map: Option<PhysRange>,
    /// Number of nodes in the chain.
    pub nodes: usize,
}

/// Method of bringing a handover to the next kernel.
pub trait Carrier {
    /// Returns the name of the carrier, for messages.
    fn name(&self) -> &'static str;

    /// Returns the length of the state segment for a cargo of this shape: in bytes, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// [`CarrierError::TooMany`] or [`CarrierError::TooLarge`].
    fn state_len(&self, shape: &StateShape) -> Result<u64, CarrierError>;

    /// Makes the state segment for the physical address `at`, of `state_len(cargo.shape())` bytes.
    ///
    /// # Errors
    ///
    /// As `state_len`, and [`CarrierError::Misaligned`] if an address or a length is not page-aligned, or
    /// [`CarrierError::OutOfRange`] if the segment leaves the address space.
    fn encode(&self, at: PhysAddr, cargo: &Cargo<'_>) -> Result<State, CarrierError>;
}

/// Reason why a carrier refuses a cargo.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// An address or a length that is not a multiple of the page size.
    #[error("{what} at {at} is not page-aligned")]
    Misaligned {
        /// Name of the part that is misaligned.
        what: &'static str,
        /// Address of the part.
        at: PhysAddr,
    },
    /// More nodes than [`MAX_NODES`].
    #[error(
        "{nodes} setup_data nodes are needed for {reserved} ranges, at most {max} can be carried"
    )]
    TooMany {
        /// Nodes needed.
        nodes: usize,
        /// Ranges among them.
        reserved: usize,
        /// Largest number of nodes.
        max: usize,
    },
    /// A length that does not fit its field.
    #[error("{what} of {len:#x} bytes is too large to be carried, the limit is {max:#x}")]
    TooLarge {
        /// Name of the part that is too large.
        what: &'static str,
        /// Length of the part, in bytes.
        len: u64,
        /// Largest length, in bytes.
        max: u64,
    },
    /// The segment would end past the end of the address space.
    #[error("a state segment of {len:#x} bytes at {at} leaves the address space")]
    OutOfRange {
        /// Address at which the segment would begin.
        at: PhysAddr,
        /// Length of the segment, in bytes.
        len: u64,
    },
}
