//! The `setup_data` chain, encoded: `Documentation/arch/x86/boot.rst`, field `setup_data`.
//!
//! Layout of the state segment, from its first byte:
//!
//! | part | bytes |
//! | --- | --- |
//! | node 0: `SETUP_INDIRECT`, private type [`node_type::TREE`], the state tree | 40 |
//! | one node for each mem-cache entry: `SETUP_INDIRECT`, private type [`node_type::RESERVE`] | 40 each |
//! | `SETUP_EFI`: `struct efi_setup_data`, then the memory map that `efi_info` points to | 112 + 40 each |
//! | `SETUP_E820_EXT`: memory map entries past the 128th | 16 + 20 each, to a multiple of 8 |
//! | `SETUP_RNG_SEED` | 48 |
//! | zeros up to a page boundary | |
//! | the state tree, zeros up to a page boundary | |
//!
//! Every node begins where the one before it ends, so that memblock sees one region.

use core::mem::{offset_of, size_of};

use kho::chain::{HEADER_LEN, INDIRECT_LEN};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Cargo, Carrier, CarrierError, RNG_SEED_LEN, State, StateShape};
use crate::bootparam::{
    BootE820Entry, E820_IN_PAGE, EFI_DESCRIPTOR_LEN, EFI_SETUP_DATA_LEN, EfiFacts,
};
use crate::bytes::len64;

/// Largest number of nodes in a chain. It is more than early boot can reserve.
pub const MAX_NODES: usize = 256;

/// Node types.
pub mod node_type {
    /// `SETUP_E820_EXT`, `arch/x86/include/uapi/asm/setup_data.h` (6.1: `bootparam.h`).
    pub const E820_EXT: u32 = 1;
    /// `SETUP_EFI`.
    pub const EFI: u32 = 4;
    /// `SETUP_RNG_SEED`.
    pub const RNG_SEED: u32 = 9;
    /// `SETUP_INDIRECT`: the data is a `struct setup_indirect`.
    pub const INDIRECT: u32 = 1 << 31;
    pub use kho::abi::setup_data::{SETUP_KHO_RESERVE as RESERVE, SETUP_KHO_TREE as TREE};
}

const _: () = assert!(node_type::INDIRECT == kho::abi::setup_data::SETUP_INDIRECT);

/// `struct setup_data` without its data.
#[derive(Clone, Copy, Debug, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    next: U64,
    kind: U32,
    len: U32,
}

/// `struct setup_indirect`.
#[derive(Clone, Copy, Debug, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct IndirectData {
    kind: U32,
    /// Must be zero.
    reserved: U32,
    len: U64,
    addr: U64,
}

// arch/x86/include/uapi/asm/setup_data.h (6.1: bootparam.h).
const _: () = assert!(size_of::<Header>() == HEADER_LEN);
const _: () = assert!(offset_of!(Header, kind) == 8 && offset_of!(Header, len) == 12);
const _: () = assert!(size_of::<IndirectData>() == INDIRECT_LEN);
const _: () = assert!(offset_of!(IndirectData, len) == 8 && offset_of!(IndirectData, addr) == 16);

const ENTRY_LEN: u64 = size_of::<BootE820Entry>() as u64;

/// Carrier through the `setup_data` chain. The kernel reserves the ranges that `SETUP_INDIRECT` nodes name before it
/// allocates memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetupDataCarrier;

/// As [`SetupDataCarrier`], with a chain that does not end, but goes on with the node at `next`: a late block
/// ([`kho::abi::late`]).
#[derive(Clone, Copy, Debug)]
pub struct LinkedCarrier {
    /// Address of the next node. It must hold a valid chain when the image starts.
    pub next: PhysAddr,
}

/// Lengths of the parts of a state segment.
struct Layout {
    nodes: usize,
    efi: Option<u64>,
    e820: Option<u64>,
    /// Number of bytes from the segment's start to the tree.
    chain: u64,
    total: u64,
}

/// Returns the length of a node's data, in bytes.
fn data_len(what: &'static str, count: usize, each: u64, fixed: u64) -> Result<u64, CarrierError> {
    let len = len64(count)
        .checked_mul(each)
        .and_then(|n| n.checked_add(fixed))
        .unwrap_or(u64::MAX);
    // Early boot maps a node with early_memremap, which has 64 pages (NR_FIX_BTMAPS,
    // arch/x86/include/asm/fixmap.h); one less, because the node may begin anywhere in a page.
    let max = 63 * PAGE_SIZE;
    if len > max {
        return Err(CarrierError::TooLarge { what, len, max });
    }
    Ok(len)
}

impl Layout {
    fn of(shape: &StateShape) -> Result<Self, CarrierError> {
        let efi = match shape.efi_regions {
            Some(regions) => Some(data_len(
                "the UEFI memory map",
                regions,
                len64(EFI_DESCRIPTOR_LEN),
                len64(EFI_SETUP_DATA_LEN),
            )?),
            None => None,
        };
        let e820 = match shape.memory_map.saturating_sub(E820_IN_PAGE) {
            0 => None,
            more => {
                Some(data_len("the firmware memory map", more, ENTRY_LEN, 0)?.next_multiple_of(8))
            }
        };
        let indirect = shape
            .reserved
            .saturating_add(usize::from(shape.tree_len.is_some()));
        let others = [efi.is_some(), e820.is_some(), shape.rng_seed];
        let nodes = indirect.saturating_add(others.iter().filter(|x| **x).count());
        if nodes > MAX_NODES {
            return Err(CarrierError::TooMany {
                nodes,
                reserved: shape.reserved,
                max: MAX_NODES,
            });
        }
        // No overflow: at most MAX_NODES nodes with data of less than 64 pages.
        let data = len64(indirect * INDIRECT_LEN)
            + efi.unwrap_or(0)
            + e820.unwrap_or(0)
            + if shape.rng_seed {
                len64(RNG_SEED_LEN)
            } else {
                0
            };
        let chain = (len64(nodes * HEADER_LEN) + data).next_multiple_of(PAGE_SIZE);
        let tree = shape.tree_len.unwrap_or(0);
        let max = 1 << 40;
        if tree > max {
            return Err(CarrierError::TooLarge {
                what: "the state tree",
                len: tree,
                max,
            });
        }
        Ok(Self {
            nodes,
            efi,
            e820,
            chain,
            total: chain + tree.next_multiple_of(PAGE_SIZE),
        })
    }
}

/// Appends nodes, each pointing to where the next one will begin.
struct Chain {
    bytes: Vec<u8>,
    at: PhysAddr,
    left: usize,
    /// Address of the node behind the last one of this chain; 0 if there is none.
    link: u64,
}

impl Chain {
    /// Returns the physical address of the next byte. The caller has checked that the whole segment lies in the address
    /// space.
    fn here(&self) -> u64 {
        self.at.get().saturating_add(len64(self.bytes.len()))
    }

    fn node(&mut self, kind: u32, data: &[u8]) {
        self.left = self.left.saturating_sub(1);
        let end = self.here().saturating_add(len64(HEADER_LEN + data.len()));
        let header = Header {
            next: U64::new(if self.left == 0 { self.link } else { end }),
            kind: U32::new(kind),
            // The layout bounds every node's data far below 4 GiB.
            len: U32::new(u32::try_from(data.len()).unwrap_or(u32::MAX)),
        };
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
    }

    fn indirect(&mut self, kind: u32, range: PhysRange) {
        let data = IndirectData {
            kind: U32::new(kind),
            reserved: U32::ZERO,
            len: U64::new(range.len()),
            addr: U64::new(range.start().get()),
        };
        self.node(node_type::INDIRECT, data.as_bytes());
    }

    /// Appends the UEFI node. Returns the range of the memory map in it.
    fn efi(&mut self, facts: &EfiFacts) -> Option<PhysRange> {
        let map = facts.memory_map();
        let map_at = self
            .here()
            .saturating_add(len64(HEADER_LEN + EFI_SETUP_DATA_LEN));
        let mut data = facts.setup_data().to_vec();
        data.extend_from_slice(&map);
        self.node(node_type::EFI, &data);
        PhysRange::new(PhysAddr::new(map_at), len64(map.len())).ok()
    }
}

impl Carrier for SetupDataCarrier {
    fn name(&self) -> &'static str {
        "setup_data"
    }

    fn state_len(&self, shape: &StateShape) -> Result<u64, CarrierError> {
        Ok(Layout::of(shape)?.total)
    }

    fn encode(&self, at: PhysAddr, cargo: &Cargo<'_>) -> Result<State, CarrierError> {
        encode(at, cargo, 0)
    }
}

impl Carrier for LinkedCarrier {
    fn name(&self) -> &'static str {
        SetupDataCarrier.name()
    }

    fn state_len(&self, shape: &StateShape) -> Result<u64, CarrierError> {
        SetupDataCarrier.state_len(shape)
    }

    fn encode(&self, at: PhysAddr, cargo: &Cargo<'_>) -> Result<State, CarrierError> {
        encode(at, cargo, self.next.get())
    }
}

/// Makes the state segment. The last node of its chain has `link` as its `next`.
fn encode(at: PhysAddr, cargo: &Cargo<'_>, link: u64) -> Result<State, CarrierError> {
    let shape = cargo.shape();
    let layout = Layout::of(&shape)?;
    if !at.is_aligned(PAGE_SIZE) {
        return Err(CarrierError::Misaligned {
            what: "the state segment",
            at,
        });
    }
    let crooked =
        |r: &&PhysRange| !r.start().is_aligned(PAGE_SIZE) || !r.len().is_multiple_of(PAGE_SIZE);
    if let Some(range) = cargo.reserved.iter().find(crooked) {
        return Err(CarrierError::Misaligned {
            what: "a mem-cache entry",
            at: range.start(),
        });
    }
    let out_of_range = CarrierError::OutOfRange {
        at,
        len: layout.total,
    };
    at.checked_add(layout.total).ok_or(out_of_range.clone())?;
    let (Ok(chain_len), Ok(total)) = (usize::try_from(layout.chain), usize::try_from(layout.total))
    else {
        return Err(out_of_range);
    };

    let tree = match (cargo.tree, at.checked_add(layout.chain)) {
        (Some(tree), Some(start)) => PhysRange::new(start, len64(tree.len())).ok(),
        _ => None,
    };
    let mut chain = Chain {
        bytes: Vec::with_capacity(total),
        at,
        left: layout.nodes,
        link,
    };
    if cargo.tree.is_some() {
        let empty = CarrierError::TooLarge {
            what: "an empty state tree",
            len: 0,
            max: 0,
        };
        chain.indirect(node_type::TREE, tree.ok_or(empty)?);
    }
    for range in cargo.reserved {
        chain.indirect(node_type::RESERVE, *range);
    }
    let efi_map = match cargo.efi {
        Some(facts) => chain.efi(facts),
        None => None,
    };
    debug_assert_eq!(efi_map.is_some(), layout.efi.is_some());
    if let Some(len) = layout.e820 {
        let mut data: Vec<u8> = cargo
            .memory_map
            .iter()
            .skip(E820_IN_PAGE)
            .flat_map(|entry| entry.to_boot().as_bytes().to_vec())
            .collect();
        // The padding is shorter than an entry, so the kernel's division by the entry's size drops it.
        data.resize(usize::try_from(len).unwrap_or(data.len()), 0);
        chain.node(node_type::E820_EXT, &data);
    }
    if let Some(seed) = cargo.rng_seed {
        chain.node(node_type::RNG_SEED, seed);
    }
    let mut bytes = chain.bytes;
    bytes.resize(chain_len, 0);
    bytes.extend_from_slice(cargo.tree.unwrap_or_default());
    bytes.resize(total, 0);
    Ok(State {
        bytes,
        first: (layout.nodes > 0).then_some(at),
        tree,
        efi_map,
        nodes: layout.nodes,
    })
}
