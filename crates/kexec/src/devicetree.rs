//! The flattened devicetree with which an arm64 kernel starts: what arrived in it, and the edited one for the next
//! kernel.
//!
//! Format: devicetree specification v0.4, chapter 5. An edit changes two things: the memory reservation block
//! (`/memreserve/`) and the properties of `/chosen`. It adds no node beside `/chosen`: a kernel that boots by ACPI takes
//! a tree with any other node for a hardware description (`dt_is_stub`, `arch/arm64/kernel/acpi.c`, 6.1 to 7.3).
//!
//! All cells of a hardware description are big-endian. The tree comes from the firmware or from the previous kernel, so
//! it is untrusted: [`DeviceTree::parse`] accepts only what [`kho::tree::Reader`] accepts.
//!
//! # Properties of `/chosen`
//!
//! | property | after an edit |
//! | --- | --- |
//! | `bootargs` | the next kernel's command line |
//! | `linux,initrd-start`, `linux,initrd-end` | the next initrd, or absent |
//! | `kaslr-seed`, `rng-seed` | fresh: the running kernel has overwritten the bytes that it used (`get_kaslr_seed`, `early_init_dt_scan_chosen`) |
//! | `kho,state-tree`, `kho,mem-cache`, `kho,scratch` | the next handover, or absent (`docs/src/abi/chosen.md`) |
//! | `linux,kho-fdt`, `linux,kho-scratch`, `linux,ima-kexec-buffer`, `linux,elfcorehdr`, `linux,usable-memory-range` | absent: they name memory of an earlier kexec |
//! | all others, such as `stdout-path` and `linux,uefi-system-table` | unchanged |

use std::collections::BTreeMap;

use kho::tree::{Event, Node, Prop, Reader, TreeError};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use thiserror::Error;

use crate::bytes::len64;
use crate::carrier::RNG_SEED_LEN;

/// Largest tree, in bytes, that an arm64 kernel maps: `MAX_FDT_SIZE`, `arch/arm64/include/asm/fixmap.h`. The kernel
/// ignores a larger one without a message (`fixmap_remap_fdt`, `arch/arm64/mm/fixmap.c`).
pub const MAX_LEN: u64 = 2 << 20;

/// Largest number of entries of the memory reservation block that are read, and largest number of ranges in
/// `kho,mem-cache`. More than twice as many as any arm64 kernel can reserve early.
pub const MAX_RANGES: usize = 1024;

const STATE_TREE: &str = "kho,state-tree";
const MEM_CACHE: &str = "kho,mem-cache";
const SCRATCH: &str = "kho,scratch";

const INITRD_START: &str = "linux,initrd-start";
const INITRD_END: &str = "linux,initrd-end";

/// Properties of `/chosen` that an edit replaces or drops.
const REPLACED: [&str; 13] = [
    "bootargs",
    INITRD_START,
    INITRD_END,
    "kaslr-seed",
    "rng-seed",
    STATE_TREE,
    MEM_CACHE,
    SCRATCH,
    "linux,kho-fdt",
    "linux,kho-scratch",
    "linux,ima-kexec-buffer",
    "linux,elfcorehdr",
    "linux,usable-memory-range",
];

/// Header words by index: "Header", specification, 5.2.
const HEADER_LEN: usize = 40;
const AT_TOTAL_SIZE: usize = 4;
const AT_RESERVATIONS: usize = 16;
const AT_BOOT_CPU: usize = 28;
const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LAST_COMPATIBLE: u32 = 16;

// Tokens: "Lexical structure", specification, 5.4.1.
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const END: u32 = 9;

/// A checked hardware description.
///
/// # Invariants
///
/// [`Reader`] accepts `bytes`: those of the tree, without its reservations.
#[derive(Clone, Debug)]
pub struct DeviceTree {
    bytes: Vec<u8>,
    reservations: Vec<PhysRange>,
    boot_cpu: u32,
}

/// Memory that is handed over, as `/chosen` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The state tree.
    pub state_tree: PhysRange,
    /// Ranges that the kernel leaves alone. The first covers the state tree.
    pub mem_cache: Vec<PhysRange>,
    /// Region into which this kernel and every later one is loaded.
    pub scratch: PhysRange,
}

/// Facts for the next kernel.
#[derive(Clone, Copy, Debug)]
pub struct NextKernel<'a> {
    /// The command line, without NUL.
    pub cmdline: &'a [u8],
    /// The initrd, to the byte.
    pub initrd: Option<PhysRange>,
    /// Fresh random bytes for the next kernel's address layout.
    pub kaslr_seed: u64,
    /// Fresh random bytes for the next kernel's random number generator.
    pub rng_seed: &'a [u8; RNG_SEED_LEN],
    /// The handover; `None` if nothing is handed over.
    pub handover: Option<&'a Handover>,
}

/// Reason why a hardware description is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeviceTreeError {
    /// The container is damaged.
    #[error("the devicetree of this kernel is damaged or unusual")]
    Tree(#[from] TreeError),
    /// The memory reservation block has no end in the tree, or too many entries.
    #[error(
        "the memory reservation block of the devicetree at {at:#x} has no end within {MAX_RANGES} entries"
    )]
    Reservations {
        /// Offset of the block.
        at: u32,
    },
    /// An entry of the block or of a property ends past the end of the address space.
    #[error("{what} of the devicetree has the impossible range {start:#x}, {len:#x} bytes")]
    Range {
        /// Name of the part.
        what: &'static str,
        /// First address.
        start: u64,
        /// Length, in bytes.
        len: u64,
    },
    /// A property of `/chosen` that has another length than its definition.
    #[error("/chosen/{name} of the devicetree has {len:#x} bytes; it holds {wanted}")]
    Length {
        /// Name of the property.
        name: &'static str,
        /// Bytes of the value.
        len: usize,
        /// Description of a valid value.
        wanted: &'static str,
    },
    /// Some of kho's properties are there, and others are not.
    #[error("/chosen of the devicetree has {has} and no {lacks}")]
    Incomplete {
        /// Name of a property that is there.
        has: &'static str,
        /// Name of a property that is missing.
        lacks: &'static str,
    },
    /// Ranges of a handover that contradict each other, or are no whole pages.
    #[error("/chosen/{name} of the devicetree: {range:?} {fault}")]
    Handover {
        /// Name of the property.
        name: &'static str,
        /// The range.
        range: PhysRange,
        /// Fault of the range.
        fault: &'static str,
    },
    /// A tree of more than [`MAX_LEN`] bytes.
    #[error("the devicetree has {len:#x} bytes, an arm64 kernel takes at most {MAX_LEN:#x}")]
    TooLarge {
        /// Length of the tree.
        len: u64,
    },
    /// More ranges than the reader accepts.
    #[error("{count} ranges are to be reserved, the devicetree has room for {MAX_RANGES}")]
    TooManyRanges {
        /// Number of ranges, with those that the firmware reserved.
        count: usize,
    },
}

impl DeviceTree {
    /// Checks the tree at the start of `bytes`, such as the content of `/sys/firmware/fdt`.
    ///
    /// # Errors
    ///
    /// [`DeviceTreeError::Tree`], [`DeviceTreeError::Reservations`], [`DeviceTreeError::Range`],
    /// [`DeviceTreeError::TooLarge`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DeviceTreeError> {
        if be32(bytes, 0) != Some(MAGIC) {
            // `Reader` says what is wrong.
            Reader::new(bytes)?;
        }
        let size = be32(bytes, AT_TOTAL_SIZE).unwrap_or(0);
        if u64::from(size) > MAX_LEN {
            return Err(DeviceTreeError::TooLarge { len: size.into() });
        }
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        let mut copy = bytes.get(..len).unwrap_or(bytes).to_vec();
        let at = be32(&copy, AT_RESERVATIONS).unwrap_or(0);
        let reservations = reservations(&copy, at)?;
        // `Reader` reads state trees, whose block is empty. The entries are known now: the first one becomes the end.
        let first = usize::try_from(at).ok();
        let first = first.and_then(|at| copy.get_mut(at..at.checked_add(16)?));
        if let Some(first) = first {
            first.fill(0);
        }
        Reader::new(&copy)?;
        // INVARIANT: `Reader` accepted these bytes.
        Ok(Self {
            boot_cpu: be32(&copy, AT_BOOT_CPU).unwrap_or(0),
            bytes: copy,
            reservations,
        })
    }

    /// Length of the tree, in bytes, at most [`MAX_LEN`].
    pub fn size(&self) -> u64 {
        len64(self.bytes.len())
    }

    /// Ranges of the memory reservation block, in its order.
    pub fn reservations(&self) -> &[PhysRange] {
        &self.reservations
    }

    /// Returns whether any node is compatible with `name`, exactly.
    pub fn has_compatible(&self, name: &str) -> bool {
        let has = |node: Node<'_>| {
            let value = node.prop("compatible").map(|prop| prop.value().bytes());
            let names = value.unwrap_or_default().split(|byte| *byte == 0);
            names.into_iter().any(|found| found == name.as_bytes())
        };
        self.reader()
            .is_ok_and(|reader| reader.nodes().any(|(_, node)| has(node)))
    }

    /// Returns the handover that `/chosen` names; `None` if it names none.
    ///
    /// # Errors
    ///
    /// [`DeviceTreeError::Length`], [`DeviceTreeError::Range`], [`DeviceTreeError::Incomplete`],
    /// [`DeviceTreeError::Handover`].
    pub fn handover(&self) -> Result<Option<Handover>, DeviceTreeError> {
        let reader = self.reader()?;
        let Some(chosen) = chosen(&reader) else {
            return Ok(None);
        };
        let state_tree = ranges(&chosen, STATE_TREE, 1)?;
        let mem_cache = ranges(&chosen, MEM_CACHE, MAX_RANGES)?;
        let scratch = ranges(&chosen, SCRATCH, 1)?;
        let found = [
            (STATE_TREE, &state_tree),
            (MEM_CACHE, &mem_cache),
            (SCRATCH, &scratch),
        ];
        let is = |ranges: &Option<Vec<PhysRange>>| ranges.is_some();
        let has = found.iter().find(|(_, ranges)| is(ranges));
        let lacks = found.iter().find(|(_, ranges)| !is(ranges));
        if let (Some((has, _)), Some((lacks, _))) = (has, lacks) {
            return Err(DeviceTreeError::Incomplete { has, lacks });
        }
        let first = |ranges: Option<Vec<PhysRange>>| ranges?.first().copied();
        let (Some(state_tree), Some(mem_cache), Some(scratch)) =
            (first(state_tree), mem_cache, first(scratch))
        else {
            return Ok(None);
        };
        let handover = Handover {
            state_tree,
            mem_cache,
            scratch,
        };
        handover.check()?;
        Ok(Some(handover))
    }

    /// Makes the tree for the next kernel.
    ///
    /// The next kernel reserves the ranges of the handover, and those that the firmware had reserved: all entries of
    /// this tree that are neither memory of the handover that arrived nor the running kernel's initrd.
    ///
    /// # Errors
    ///
    /// [`DeviceTreeError::Handover`], [`DeviceTreeError::TooManyRanges`], [`DeviceTreeError::TooLarge`]; those of
    /// [`handover`](Self::handover) if the tree itself holds a damaged handover.
    pub fn edit(&self, next: &NextKernel<'_>) -> Result<Vec<u8>, DeviceTreeError> {
        let mut reserved = self.firmware_reservations()?;
        if let Some(handover) = next.handover {
            handover.check()?;
            reserved.extend(&handover.mem_cache);
        }
        if reserved.len() > MAX_RANGES {
            return Err(DeviceTreeError::TooManyRanges {
                count: reserved.len(),
            });
        }
        let reader = self.reader()?;
        let mut out = Structure::default();
        let mut depth = 0usize;
        let mut skipping = false;
        let mut done = false;
        for event in reader.walk() {
            match event {
                Event::Begin(node) => {
                    out.begin(node.name_bytes());
                    skipping = depth == 1 && !done && is_chosen(&node);
                    if skipping {
                        next.put(&mut out);
                        done = true;
                    }
                    depth = depth.saturating_add(1);
                }
                Event::Prop(prop) => {
                    if !(skipping && REPLACED.iter().any(|name| prop.is(name))) {
                        out.prop(prop.name(), prop.value().bytes());
                    }
                }
                Event::End => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && !done {
                        out.begin(b"chosen");
                        next.put(&mut out);
                        out.end();
                    }
                    skipping = false;
                    out.end();
                }
            }
        }
        let bytes = out.finish(&reserved, self.boot_cpu);
        let len = len64(bytes.len());
        if len > MAX_LEN {
            return Err(DeviceTreeError::TooLarge { len });
        }
        Ok(bytes)
    }

    /// Returns the reservations that came from the firmware.
    fn firmware_reservations(&self) -> Result<Vec<PhysRange>, DeviceTreeError> {
        let arrived = self.handover()?;
        let kept = arrived.map(|arrived| arrived.mem_cache).unwrap_or_default();
        let initrd = self.initrd()?;
        let own = |range: &PhysRange| {
            kept.contains(range) || initrd.is_some_and(|initrd| initrd.start() == range.start())
        };
        let all = self.reservations.iter().filter(|range| !own(range));
        Ok(all.copied().collect())
    }

    /// Returns the running kernel's initrd. Its addresses have one cell or two.
    fn initrd(&self) -> Result<Option<PhysRange>, DeviceTreeError> {
        let reader = self.reader()?;
        let address = |name| {
            let value = chosen(&reader)?.prop(name)?.value().bytes();
            match value.len() {
                4 => be32(value, 0).map(u64::from),
                _ => be64(value),
            }
        };
        let bounds = address(INITRD_START).zip(address(INITRD_END));
        Ok(bounds.and_then(|(start, end)| {
            PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).ok()
        }))
    }

    fn reader(&self) -> Result<Reader<'_>, DeviceTreeError> {
        Ok(Reader::new(&self.bytes)?)
    }
}

impl Handover {
    /// Checks that all ranges are whole pages, that the first range of the mem cache covers the state tree, that the
    /// others ascend, and that scratch overlaps none of them.
    ///
    /// # Errors
    ///
    /// [`DeviceTreeError::Handover`].
    fn check(&self) -> Result<(), DeviceTreeError> {
        let fail = |name, range, fault| Err(DeviceTreeError::Handover { name, range, fault });
        for (n, range) in self.mem_cache.iter().enumerate() {
            if !range.is_page_aligned() {
                return fail(MEM_CACHE, *range, "is not whole pages");
            }
            let others = self.mem_cache.iter().take(n);
            if others.clone().any(|other| other.overlaps(*range)) {
                return fail(MEM_CACHE, *range, "overlaps another range");
            }
            if others.skip(1).any(|other| other.start() > range.start()) {
                return fail(MEM_CACHE, *range, "does not ascend");
            }
            if range.overlaps(self.scratch) {
                return fail(MEM_CACHE, *range, "overlaps scratch");
            }
        }
        if !self.scratch.is_page_aligned() {
            return fail(SCRATCH, self.scratch, "is not whole pages");
        }
        let covers = |range: &PhysRange| range.contains_range(self.state_tree);
        if !self.mem_cache.first().is_some_and(covers) {
            let fault = "is not inside the first range of kho,mem-cache";
            return fail(STATE_TREE, self.state_tree, fault);
        }
        if !self.state_tree.start().is_aligned(PAGE_SIZE) {
            return fail(STATE_TREE, self.state_tree, "does not begin with a page");
        }
        Ok(())
    }
}

impl NextKernel<'_> {
    /// Writes the properties into `/chosen`, which has begun.
    fn put(&self, out: &mut Structure) {
        let mut line = self.cmdline.to_vec();
        line.push(0);
        out.prop("bootargs", &line);
        if let Some(initrd) = self.initrd {
            out.prop(INITRD_START, &initrd.start().get().to_be_bytes());
            out.prop(INITRD_END, &initrd.end().get().to_be_bytes());
        }
        out.prop("kaslr-seed", &self.kaslr_seed.to_be_bytes());
        out.prop("rng-seed", self.rng_seed);
        if let Some(handover) = self.handover {
            out.prop(STATE_TREE, &cells(&[handover.state_tree]));
            out.prop(MEM_CACHE, &cells(&handover.mem_cache));
            out.prop(SCRATCH, &cells(&[handover.scratch]));
        }
    }
}

/// Structure and strings of a tree that is being written.
#[derive(Default)]
struct Structure {
    words: Vec<u8>,
    strings: Vec<u8>,
    /// Offsets of the names in `strings`.
    names: BTreeMap<String, u32>,
}

impl Structure {
    fn token(&mut self, token: u32) {
        self.words.extend(token.to_be_bytes());
    }

    fn pad(&mut self) {
        self.words.resize(self.words.len().next_multiple_of(4), 0);
    }

    fn begin(&mut self, name: &[u8]) {
        self.token(BEGIN_NODE);
        self.words.extend(name);
        self.words.push(0);
        self.pad();
    }

    fn end(&mut self) {
        self.token(END_NODE);
    }

    fn prop(&mut self, name: &str, value: &[u8]) {
        let next = word(self.strings.len());
        let offset = *self.names.entry(name.to_owned()).or_insert(next);
        if offset == next {
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
        }
        self.token(PROP);
        self.token(word(value.len()));
        self.token(offset);
        self.words.extend(value);
        self.pad();
    }

    fn finish(mut self, reserved: &[PhysRange], boot_cpu: u32) -> Vec<u8> {
        self.token(END);
        let mut reservations = cells(reserved);
        reservations.extend([0; 16]);
        let structure = HEADER_LEN.saturating_add(reservations.len());
        let strings = structure.saturating_add(self.words.len());
        let total = strings.saturating_add(self.strings.len());
        let header = [
            MAGIC,
            word(total),
            word(structure),
            word(strings),
            word(HEADER_LEN),
            VERSION,
            LAST_COMPATIBLE,
            boot_cpu,
            word(self.strings.len()),
            word(self.words.len()),
        ];
        let header = header.map(u32::to_be_bytes);
        [
            header.as_flattened(),
            &reservations,
            &self.words,
            &self.strings,
        ]
        .concat()
    }
}

/// A length as a word. The caller refuses a tree of more than [`MAX_LEN`] bytes, so a cut-off value is never used.
fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The node that the kernel takes for `/chosen` (`early_init_dt_scan_chosen`, `drivers/of/fdt.c`).
fn chosen<'a>(reader: &Reader<'a>) -> Option<Node<'a>> {
    reader.root().children().find(is_chosen)
}

fn is_chosen(node: &Node<'_>) -> bool {
    node.name() == "chosen" || node.name().starts_with("chosen@")
}

fn cells(ranges: &[PhysRange]) -> Vec<u8> {
    let pairs = ranges.iter().flat_map(|r| [r.start().get(), r.len()]);
    pairs.flat_map(u64::to_be_bytes).collect()
}

/// Returns the ranges in a property of up to `most` pairs; `None` if the node does not have the property.
fn ranges(
    node: &Node<'_>,
    name: &'static str,
    most: usize,
) -> Result<Option<Vec<PhysRange>>, DeviceTreeError> {
    let Some(value) = node.prop(name).as_ref().map(Prop::value) else {
        return Ok(None);
    };
    let bytes = value.bytes();
    let (pairs, rest) = bytes.as_chunks::<16>();
    if !rest.is_empty() || pairs.is_empty() || pairs.len() > most {
        return Err(DeviceTreeError::Length {
            name,
            len: bytes.len(),
            wanted: match most {
                1 => "an address and a size, two cells each",
                _ => "pairs of an address and a size, two cells each",
            },
        });
    }
    let ranges = pairs.iter().map(|pair| range(name, pair));
    ranges.collect::<Result<_, _>>().map(Some)
}

/// Returns the range of a pair.
fn range(what: &'static str, pair: &[u8; 16]) -> Result<PhysRange, DeviceTreeError> {
    let pair = u128::from_be_bytes(*pair);
    let [start, len] = [pair >> 64, pair & u128::from(u64::MAX)];
    let [start, len] = [start, len].map(|half| u64::try_from(half).unwrap_or(u64::MAX));
    PhysRange::new(PhysAddr::new(start), len).map_err(|_| DeviceTreeError::Range {
        what,
        start,
        len,
    })
}

/// Returns the entries of the memory reservation block at `at`. A size of zero ends the block
/// (`early_init_fdt_scan_reserved_mem`, `drivers/of/fdt.c`).
fn reservations(bytes: &[u8], at: u32) -> Result<Vec<PhysRange>, DeviceTreeError> {
    let none = DeviceTreeError::Reservations { at };
    let start = usize::try_from(at).ok().filter(|at| *at >= HEADER_LEN);
    let block = start.and_then(|at| bytes.get(at..)).ok_or(none.clone())?;
    let pairs = block.as_chunks::<16>().0;
    let end = pairs
        .iter()
        .take(MAX_RANGES.saturating_add(1))
        .position(|pair| pair.ends_with(&[0; 8]))
        .ok_or(none)?;
    let entries = pairs.get(..end).unwrap_or_default();
    let entry = |pair| range("the memory reservation block", pair);
    entries.iter().map(entry).collect()
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    kho::bytes::u32_at(bytes, at).map(u32::swap_bytes)
}

fn be64(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
