//! Trees and chains that a hostile kernel might have left. The host forges them in the machine's memory after the next
//! kernel has booted and before its module reads them, because the loader would not load such trees.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use kho::abi::MEM_CACHE;
use kho::abi::kernel_part::{Reference, is_reference};
use kho::abi::setup_data::{SETUP_INDIRECT, SETUP_KHO_RESERVE, SETUP_KHO_TREE};
use kho::tree::{Reader, seal};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_guest::forge::{pair, raw_pair, replace};

use kho_lab::run::Host;

/// File, in the folder of the run, with the bytes that a forgery replaced.
const BEFORE: &str = "before-forgery.json";

/// Largest number of nodes that the walk over a chain visits.
const LONGEST: usize = 200;

/// State tree and reservations that arrived, in the guest's memory.
struct Arrived {
    memory: File,
    /// Reserving nodes: address at which the node states its range, and the range.
    reserved: Vec<(u64, PhysRange)>,
    tree: PhysRange,
}

/// Makes the forgery that the guest reported as `forgery`; the guest also reported the addresses that it needs.
pub fn forge(host: &mut Host<'_>) -> Result<()> {
    let arrived = Arrived::find(host)?;
    let tree = arrived.bytes(arrived.tree)?;
    let part = reference(&tree)?;
    let part = PhysRange::new(part.mem.start(), part.size)?;
    let before = arrived.bytes(part)?;
    // Pages of the test driver: the forgery changes the last one.
    let mut pages = ranges(&before, "/test")?;
    let victim = pages.pop().context("no pages of the test driver")?;
    let reported = |name: &str| -> Result<PhysRange> {
        let text = host.value(name)?;
        let digits = text.trim().trim_start_matches("0x");
        let at = u64::from_str_radix(digits, 16).with_context(|| format!("{name}: {text:?}"))?;
        Ok(PhysRange::new(PhysAddr::new(at), PAGE_SIZE)?)
    };
    let mut changes = Vec::new();
    let mut instead = |bytes: [u8; 16]| -> Result<()> {
        let mut forged = before.clone();
        replace(&mut forged, &pair(victim), &bytes)?;
        seal(&mut forged)?;
        changes.push((part.start().get(), forged));
        Ok(())
    };
    match host.value("forgery")?.trim() {
        // The part names memory that no driver kept.
        place @ ("text" | "memmap" | "firmware" | "scratch" | "blob") => {
            instead(pair(reported(place)?))?;
        }
        "chain" => instead(pair(PhysRange::new(
            PhysAddr::new(head(host)? / PAGE_SIZE * PAGE_SIZE),
            PAGE_SIZE,
        )?))?,
        "own" => instead(pair(PhysRange::new(part.start(), PAGE_SIZE)?))?,
        "twice" => instead(pair(*pages.first().context("one page only")?))?,
        "empty" => instead(raw_pair(victim.start().get(), 0))?,
        "unaligned" => instead(raw_pair(victim.start().get() + 8, PAGE_SIZE))?,
        "wraps" => instead(raw_pair(victim.start().get(), u64::MAX - (PAGE_SIZE - 1)))?,
        "unsealed" => {
            let mut forged = before.clone();
            replace(&mut forged, &pair(victim), &pair(reported("text")?))?;
            changes.push((part.start().get(), forged));
        }
        // The loader's tree claims that early boot reserved this kernel's text or memory map, or the firmware's tables.
        place @ ("cache-text" | "cache-memmap" | "cache-firmware") => {
            let place = reported(place.trim_start_matches("cache-"))?;
            changes.push((arrived.tree.start().get(), arrived.cache(&tree, place)?.1));
        }
        // The chain makes the same claim.
        place @ ("reserve-text" | "reserve-firmware") => {
            let place = reported(place.trim_start_matches("reserve-"))?;
            let (node, forged) = arrived.cache(&tree, place)?;
            changes.push((arrived.tree.start().get(), forged));
            // In `struct setup_indirect` the length comes before the address.
            let mut indirect = place.len().to_ne_bytes().to_vec();
            indirect.extend_from_slice(&place.start().get().to_ne_bytes());
            changes.push((node, indirect));
        }
        other => bail!("no forgery {other}"),
    }
    let mut kept = Vec::new();
    for (at, bytes) in &changes {
        let mut old = vec![0; bytes.len()];
        arrived.memory.read_exact_at(&mut old, *at)?;
        ensure!(old != *bytes, "nothing to forge at {at:#x}");
        kept.push((*at, old));
        arrived.memory.write_all_at(bytes, *at)?;
    }
    let file = host.dir.join(BEFORE);
    std::fs::write(&file, serde_json::to_vec(&kept)?).context("keeping what was there")
}

/// Puts back the bytes that a forgery replaced.
pub fn heal(host: &mut Host<'_>) -> Result<()> {
    let text = std::fs::read(host.dir.join(BEFORE)).context("what was there")?;
    let kept: Vec<(u64, Vec<u8>)> = serde_json::from_slice(&text)?;
    let memory = host.memory()?;
    for (at, bytes) in kept {
        memory.write_all_at(&bytes, at)?;
    }
    Ok(())
}

/// Returns the guest's `hdr.setup_data`: the address of the chain's first node.
fn head(host: &Host<'_>) -> Result<u64> {
    host.value("head")?.trim().parse().context("head")
}

impl Arrived {
    /// Walks the chain as the kernel does.
    fn find(host: &Host<'_>) -> Result<Self> {
        let memory = host.memory()?;
        let word = |at: u64| -> Result<u64> {
            let mut bytes = [0; 8];
            memory.read_exact_at(&mut bytes, at)?;
            Ok(u64::from_ne_bytes(bytes))
        };
        let mut reserved = Vec::new();
        let mut tree = None;
        let mut node = head(host)?;
        for _ in 0..LONGEST {
            if node == 0 {
                break;
            }
            // `struct setup_data` {u64 next; u32 type; u32 len}, `struct setup_indirect` {u32 type; u32 reserved; u64 len;
            // u64 addr}: arch/x86/include/uapi/asm/setup_data.h.
            let outer = u32::try_from(word(node + 8)? & 0xffff_ffff)?;
            if outer == SETUP_INDIRECT {
                let kind = u32::try_from(word(node + 16)? & 0xffff_ffff)?;
                let (len, addr) = (word(node + 24)?, word(node + 32)?);
                let range = PhysRange::new(PhysAddr::new(addr), len);
                match kind {
                    SETUP_KHO_RESERVE => reserved.push((node + 24, range?)),
                    SETUP_KHO_TREE => tree = Some(range?),
                    _ => {}
                }
            }
            node = word(node)?;
        }
        Ok(Self {
            memory,
            reserved,
            tree: tree.context("no state tree in the guest's chain")?,
        })
    }

    fn bytes(&self, range: PhysRange) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(range.len())?];
        self.memory
            .read_exact_at(&mut bytes, range.start().get())
            .with_context(|| format!("reading {range} of the guest"))?;
        Ok(bytes)
    }

    /// Returns a tree with `place` instead of one range of its mem cache, and the address at which the chain states
    /// that range.
    fn cache(&self, tree: &[u8], place: PhysRange) -> Result<(u64, Vec<u8>)> {
        let cache = value_of(tree, MEM_CACHE)?;
        let part = reference(tree)?.mem;
        // The first range is the state. The others ascend, and must ascend after the change.
        let others = self.reserved.get(1..).unwrap_or_default();
        for (node, range) in others {
            // The range with the kernel's part has to stay: without it the tree would be refused for another reason.
            if range.overlaps(part) {
                continue;
            }
            let mut forged = tree.to_vec();
            // If a blob has a range alone, its own node holds the same pair. So replace the pair in the mem cache only.
            let within = forged.get_mut(cache.clone()).context("mem-cache")?;
            if replace(within, &pair(*range), &pair(place)).is_err() {
                continue;
            }
            let mut starts: Vec<PhysRange> = others.iter().map(|(_, other)| *other).collect();
            starts.retain(|other| other != range);
            starts.push(place);
            starts.sort_by_key(|range| range.start());
            let pairs = starts.iter().flat_map(|range| pair(*range));
            let rest = within.get_mut(16..).context("one range only")?;
            let pairs: Vec<u8> = pairs.collect();
            ensure!(rest.len() == pairs.len(), "the chain is not the mem cache");
            rest.copy_from_slice(&pairs);
            seal(&mut forged)?;
            return Ok((*node, forged));
        }
        let ranges: Vec<_> = others.iter().map(|(_, range)| range.to_string()).collect();
        bail!("{place} can replace none of {}", ranges.join(", "))
    }
}

/// Returns the place in the tree, in bytes, of the value of the root's property `name`.
fn value_of(tree: &[u8], name: &str) -> Result<std::ops::Range<usize>> {
    let reader = Reader::new(tree)?;
    let prop = reader
        .root()
        .prop(name)
        .with_context(|| format!("no {name}"))?;
    let bytes = prop.value().bytes();
    let start = bytes.as_ptr().addr() - tree.as_ptr().addr();
    Ok(start..start + bytes.len())
}

/// Returns the reference to the kernel's part, as the loader's tree states it.
fn reference(tree: &[u8]) -> Result<Reference> {
    let tree = Reader::new(tree)?;
    let node = tree.root().children().find(is_reference);
    Reference::read(&node.context("no kernel's part")?).context("its node is malformed")
}

/// Returns the ranges in the `mem` of a node.
fn ranges(tree: &[u8], path: &str) -> Result<Vec<PhysRange>> {
    let tree = Reader::new(tree)?;
    let node = tree.path(path).with_context(|| format!("no {path}"))?;
    let mem = node.prop("mem").context("no mem")?;
    Ok(mem.value().mem()?.collect::<Result<_, _>>()?)
}
