//! The `setup_data` chain as bytes, and the walk that early boot does.
//!
//! Layouts: `struct setup_data` and `struct setup_indirect` of `arch/x86/include/uapi/asm/setup_data.h`
//! (Linux 6.12): `{u64 next; u32 type; u32 len}` and `{u32 type; u32 reserved; u64 len; u64 addr}`.

use kho::abi::setup_data::{SETUP_INDIRECT, SETUP_KHO_RESERVE, SETUP_KHO_TREE};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};

const NODE: u64 = 40;

/// Returns the length of a chain that reserves `entries` ranges, in whole pages.
pub fn chain_len(entries: u64) -> u64 {
    ((entries + 1) * NODE).next_multiple_of(PAGE_SIZE)
}

/// Makes a packed chain at `at`: the tree first, then each entry.
pub fn write(at: PhysAddr, tree: PhysRange, entries: impl Iterator<Item = PhysRange>) -> Vec<u8> {
    let nodes: Vec<(u32, PhysRange)> = std::iter::once((SETUP_KHO_TREE, tree))
        .chain(entries.map(|e| (SETUP_KHO_RESERVE, e)))
        .collect();
    let mut out = Vec::new();
    for (i, (kind, range)) in (1u64..).zip(&nodes) {
        let last = i == nodes.len() as u64;
        let next = if last { 0 } else { at.get() + i * NODE };
        out.extend(next.to_ne_bytes());
        out.extend(SETUP_INDIRECT.to_ne_bytes());
        out.extend(24u32.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(0u32.to_ne_bytes());
        out.extend(range.len().to_ne_bytes());
        out.extend(range.start().get().to_ne_bytes());
    }
    out
}

/// Result of a walk: the ranges that the chain names.
#[derive(Debug, Default)]
pub struct Found {
    /// All reserved ranges, in the order of the walk: each node's own bytes, then its range.
    pub reserved: Vec<PhysRange>,
    /// The ranges of the reserve-only nodes, in order.
    pub entries: Vec<PhysRange>,
    /// Range of the state tree; `None` if no node names one.
    pub tree: Option<PhysRange>,
}

/// Walks the chain at `at`, in the bytes that begin at `base`.
///
/// # Errors
///
/// If a node lies below `base`, is cut off, or has an unknown type or inner type, if a range is impossible, or if the
/// chain has more than 10,000 nodes.
pub fn walk(bytes: &[u8], base: PhysAddr, at: PhysAddr) -> Result<Found, String> {
    let mut found = Found::default();
    let mut node = at;
    for _ in 0..10_000 {
        let offset = node
            .offset_from(base)
            .and_then(|o| usize::try_from(o).ok())
            .ok_or("node below the state segment")?;
        let word = |at: usize| -> Result<[u8; 8], String> {
            let bytes = bytes.get(offset + at..offset + at + 8);
            bytes
                .and_then(|b| b.try_into().ok())
                .ok_or_else(|| format!("node {node} is cut off"))
        };
        let half = |at: usize| -> Result<u32, String> {
            let [a, b, c, d, ..] = word(at)?;
            Ok(u32::from_ne_bytes([a, b, c, d]))
        };
        if half(8)? != SETUP_INDIRECT {
            return Err(format!("node {node} has type {:#x}", half(8)?));
        }
        let start = PhysAddr::new(u64::from_ne_bytes(word(32)?));
        let range =
            PhysRange::new(start, u64::from_ne_bytes(word(24)?)).map_err(|e| e.to_string())?;
        found
            .reserved
            .push(PhysRange::new(node, NODE).map_err(|e| e.to_string())?);
        found.reserved.push(range);
        match half(16)? {
            SETUP_KHO_TREE => found.tree = Some(range),
            SETUP_KHO_RESERVE => found.entries.push(range),
            other => return Err(format!("node {node} has inner type {other:#x}")),
        }
        match u64::from_ne_bytes(word(0)?) {
            0 => return Ok(found),
            next => node = PhysAddr::new(next),
        }
    }
    Err("the chain does not end".into())
}
