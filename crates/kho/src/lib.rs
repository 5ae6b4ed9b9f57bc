//! Kexec HandOver (KHO): the parts that do not depend on an operating system.
//!
//! This crate holds the handover *format* and the *decisions*: the state tree that describes the memory and data that
//! are handed over ([`tree`], [`abi`]), the chain by which the tree arrives ([`chain`]), physical ranges ([`addr`],
//! [`ranges`]), the needs of an image ([`image`]), the bounded mem cache that early boot honours ([`memcache`]), the
//! places of the next kernel and of everything handed over ([`scratch`], [`plan`]), and the order of the steps
//! ([`phase`]).
//!
//! It performs no I/O, reads no clock and has no global state. Memory comes from the caller's buffers or from fallible
//! allocation. No input makes it panic, because the same code runs in a kernel module and reads data that a previous
//! kernel left behind.
//!
//! # A loader: places for everything, and the tree that records them
//!
//! [`plan::plan`] takes a description of the machine, the image, and the sizes of what is handed over. It returns
//! places, or the reason why the next kernel must not be started.
//!
//! ```
//! use kho::abi::{BlobDescription, Carrier, Content, Description, Label, MACHINE_X86_64, measure_handover, write_handover};
//! use kho::headroom::UserSpace;
//! use kho::image::{ImageNeeds, InitrdNeeds, KernelNeeds};
//! use kho::plan::{Limits, PayloadNeeds, PlanRequest, ScratchSource, plan};
//! use kho::{PhysAddr, PhysRange, RangeSet};
//!
//! const MIB: u64 = 1 << 20;
//! // The firmware's RAM, and what of it the running kernel has reserved.
//! let ram = RangeSet::from_ranges([PhysRange::new(PhysAddr::new(MIB), 2047 * MIB)?])?;
//! let pinned = RangeSet::from_ranges([PhysRange::new(PhysAddr::new(1900 * MIB), 4096)?])?;
//! let request = PlanRequest {
//!     ram: &ram,
//!     pinned: &pinned,
//!     in_place: &RangeSet::new(),
//!     scratch: ScratchSource::Choose { size: None },
//!     image: ImageNeeds {
//!         kernel: KernelNeeds {
//!             file_len: 12 * MIB,
//!             mem_size: 60 * MIB,
//!             align: 2 * MIB,
//!             preferred: PhysAddr::new(16 * MIB),
//!             above_4g: true,
//!             random: None,
//!         },
//!         initrd: Some(InitrdNeeds { len: 40 * MIB, unpacked: 160 * MIB, max_addr: PhysAddr::new(0x7fff_ffff) }),
//!         params_len: 8192,
//!     },
//!     payload: PayloadNeeds { state: 16 << 10, blobs: &[5 * MIB] },
//!     landing: &[],
//!     cmdline: b"root=/dev/vda1",
//!     user_space: UserSpace { cpus: 4, ..UserSpace::default() },
//!     limits: Limits { max_entries: 96, max_payload_segments: 13, load_limit: 1024 * MIB },
//! };
//! let plan = plan(&request)?;
//! // A second look that shares no code with the first one.
//! plan.check_invariants(&request)?;
//!
//! let mem_cache: Vec<PhysRange> = plan.mem_cache_state_first().collect();
//! let blob: Vec<PhysRange> = plan.blob_pieces(0).map(|piece| piece.dest).collect();
//! let description = Description {
//!     generation: 0x1234_5678, // random, fresh for each load
//!     hop: 1,
//!     previous_release: "6.12.95",
//!     machine: MACHINE_X86_64,
//!     time: 1_763_000_000_000_000_000,
//!     carrier: Carrier::Memory,
//!     scratch: plan.scratch,
//!     mem_cache: &mem_cache,
//!     blobs: &[BlobDescription {
//!         label: Label::new("sessions")?,
//!         content: Content::Raw,
//!         size: 5 * MIB,
//!         mem: &blob,
//!         blake3: [0; 32], // of the content
//!         taken: 1_763_000_000_000_000_000,
//!         arrived_hop: 1,
//!     }],
//! };
//! let mut tree = vec![0; measure_handover(&description)?];
//! write_handover(&description, &mut tree)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A VMM or another tool: the content of a tree
//!
//! [`abi::Handover::parse`] checks every rule of the contract. The caller has one more check to make: whether the
//! kernel really reserved the ranges.
//!
//! ```
//! use kho::abi::Handover;
//! use kho::tree::Reader;
//! # use kho::abi::*;
//! # use kho::{PhysAddr, PhysRange};
//! # let range = |at, len| PhysRange::new(PhysAddr::new(at), len).unwrap();
//! # let description = Description {
//! #     generation: 1, hop: 1, previous_release: "6.12.95", machine: MACHINE_X86_64, time: 1,
//! #     carrier: Carrier::Memory, scratch: range(0x100_0000, 0x800_0000),
//! #     mem_cache: &[range(0x6000_0000, 0x2000), range(0x4000_0000, 0x1000)],
//! #     blobs: &[BlobDescription {
//! #         label: Label::new("token").unwrap(), content: Content::Raw, size: 6, mem: &[range(0x4000_0000, 0x1000)],
//! #         blake3: [7; 32], taken: 1, arrived_hop: 1,
//! #     }],
//! # };
//! # let mut bytes = vec![0; measure_handover(&description)?];
//! # write_handover(&description, &mut bytes)?;
//!
//! // `bytes` are those of the range that the chain's first node points to.
//! let handover = Handover::parse(&Reader::new(&bytes)?)?;
//! println!("from {}, hop {}", handover.previous_release, handover.hop);
//! let token = handover.blob("token").ok_or("no token arrived")?;
//! for range in token.ranges() {
//!     println!("{} of its {} bytes are at {range}", range.len(), token.size);
//! }
//! # assert_eq!(token.ranges().count(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A kernel: the ranges that early boot has to reserve
//!
//! The mem cache is one property of the root. Reading it takes no allocation. Bytes that are not a tree cause an error,
//! never a panic.
//!
//! ```
//! use kho::abi::MEM_CACHE;
//! use kho::tree::{Reader, verify};
//! # use kho::tree::{Writer, seal};
//! # use kho::{PhysAddr, PhysRange};
//! # let mut bytes = vec![0; 4096];
//! # let mut w = Writer::new(&mut bytes);
//! # w.begin_node("")?;
//! # w.prop_mem(MEM_CACHE, [PhysRange::new(PhysAddr::new(0x6000_0000), 0x2000)?])?;
//! # w.prop_u32("checksum", 0)?;
//! # w.end_node()?;
//! # w.finish()?;
//! # seal(&mut bytes)?;
//! # let mut reserved = 0;
//! # let mut reserve = |_start: u64, len: u64| reserved += len;
//!
//! let tree = Reader::new(&bytes)?;
//! verify(&tree)?; // the checksum over all of it
//! let cache = tree.root().prop(MEM_CACHE).ok_or("no mem cache")?;
//! for range in cache.value().mem()? {
//!     let range = range?; // a pair that is no range
//!     reserve(range.start().get(), range.len());
//! }
//! # assert_eq!(reserved, 0x2000);
//! # assert!(Reader::new(b"anything else").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A kernel on x86 does not have to read the mem cache: it reserves the ranges that the nodes of the `setup_data` chain
//! point to. [`chain::walk`] reads that chain.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
// Only Kani sets `kani`, see `proofs`.
#![allow(unexpected_cfgs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi;
pub mod addr;
pub mod bytes;
pub mod chain;
pub mod headroom;
pub mod image;
pub mod memcache;
pub mod phase;
pub mod plan;
#[cfg(any(kani, test))]
mod proofs;
pub mod ranges;
pub mod scratch;
pub mod sort;
#[cfg(test)]
mod testing;
pub mod tree;

pub use addr::{PAGE_SIZE, PhysAddr, PhysRange, RangeError};
pub use ranges::{OutOfMemory, RangeSet};

/// The example in README.md, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
