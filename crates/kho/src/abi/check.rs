//! The rules of the contract, against which [`Handover::parse`] and [`Handover::check_all`] check a tree.

mod ftrace;

use super::ftrace::{FTRACE, FTRACE_V1, Traces};
use super::handover::{Blob, Carrier, Content, Handover, Unknown};
use super::numbered::is_numbered;
use super::problem::shown;
use super::{
    ARRIVED_HOP, AbiError, BLAKE3, BLOB_PREFIX, BLOB_V1, BLOBS, BLOBS_V1, CARRIER, CARRIER_INITRD,
    COMPATIBLE, GENERATION, HANDOVER_V1, HOP, KIND, KIND_FILES, KIND_RAW, LABEL, Label, LeaveOut,
    MACHINE, MAX_UTS, MEM, MEM_CACHE, ONE_FILE_SYSTEM, PAGE_BYTES, PAGE_SIZE_NAME, PATH,
    PREVIOUS_RELEASE, Problem, ProblemKind, SCRATCH, SIZE, SKIP_SPECIAL, TAKEN, TIME, check_path,
};
use crate::addr::PhysRange;
use crate::ranges::{OutOfMemory, RangeSet, push};
use crate::tree::{ChecksumError, Event, Index, Node, Reader, Value, ValueError, verify};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;

/// Why an inspection ended early.
enum Stop {
    /// The caller asked to stop after this problem.
    Asked,
    /// Memory was refused.
    OutOfMemory(OutOfMemory),
}

impl From<OutOfMemory> for Stop {
    fn from(error: OutOfMemory) -> Self {
        Self::OutOfMemory(error)
    }
}

/// Receiver of problems; breaking ends the inspection.
type Sink<'s> = dyn FnMut(Problem) -> ControlFlow<()> + 's;

impl<'a> Handover<'a> {
    /// Checks the tree and reads all of it. O(n log n) in its nodes and ranges.
    ///
    /// # Errors
    ///
    /// [`AbiError::Problem`] with the first problem of the tree, or [`AbiError::OutOfMemory`].
    pub fn parse(tree: &Reader<'a>) -> Result<Self, AbiError> {
        let mut first = None;
        let found = inspect(tree, &mut |problem| {
            first = Some(problem);
            ControlFlow::Break(())
        });
        match (found, first) {
            (_, Some(problem)) => Err(AbiError::Problem(problem)),
            (Ok(Some(handover)), None) => Ok(handover),
            // If no problem was reported, only a failed allocation can be the reason for the missing handover.
            (Ok(None) | Err(_), None) => Err(AbiError::OutOfMemory(OutOfMemory)),
        }
    }

    /// Checks the tree, calls `report` with every problem of it and returns the number of problems. For a tree of
    /// another version it reports one problem only: this reader cannot judge the rest of the tree.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if an allocation fails. The problems that were reported before the failure remain true.
    pub fn check_all(
        tree: &Reader<'a>,
        mut report: impl FnMut(Problem),
    ) -> Result<usize, OutOfMemory> {
        let mut count = 0usize;
        let found = inspect(tree, &mut |problem| {
            count = count.saturating_add(1);
            report(problem);
            ControlFlow::Continue(())
        });
        match found {
            Ok(_) | Err(Stop::Asked) => Ok(count),
            Err(Stop::OutOfMemory(error)) => Err(error),
        }
    }
}

/// Checks `tree` and calls `sink` with every problem; returns the handover if there was no problem.
fn inspect<'a>(tree: &Reader<'a>, sink: &mut Sink<'_>) -> Result<Option<Handover<'a>>, Stop> {
    let mut check = Check {
        tree: *tree,
        index: None,
        problems: 0,
        sink,
    };
    let root = tree.root();
    let Some(version) = check.str(root, COMPATIBLE)? else {
        return Ok(None);
    };
    if version != HANDOVER_V1 {
        let found = shown(version)?;
        check.report(root, ProblemKind::RootVersion { found })?;
        return Ok(None);
    }
    if let Err(error) = verify(tree) {
        let kind = match error {
            ChecksumError::Missing => ProblemKind::Missing {
                property: super::CHECKSUM,
            },
            other => ProblemKind::Checksum(other),
        };
        check.report(root, kind)?;
    }
    if let Some(found) = check.read(root, PAGE_SIZE_NAME, Value::u32)?
        && found != PAGE_BYTES
    {
        check.report(root, ProblemKind::PageSize { found })?;
    }
    let generation = check.u64(root, GENERATION)?;
    let hop = check.u64(root, HOP)?;
    if hop == Some(0) {
        check.report(root, ProblemKind::Hop)?;
    }
    let time = check.u64(root, TIME)?;
    let previous_release = check.text(root, PREVIOUS_RELEASE)?;
    let machine = check.text(root, MACHINE)?;
    let carrier = check.carrier(root)?;
    let scratch = check.scratch(root)?;
    let mem_cache = check.mem_cache(root, scratch)?;
    check.mem(&mem_cache, scratch)?;
    let children = check.children(root, hop)?;
    let (Some(generation), Some(hop), Some(time), Some(previous_release), Some(machine)) =
        (generation, hop, time, previous_release, machine)
    else {
        return Ok(None);
    };
    Ok(match scratch {
        Some(scratch) if check.problems == 0 => Some(Handover {
            generation,
            hop,
            previous_release,
            machine,
            time,
            carrier,
            scratch,
            mem_cache,
            blobs: children.blobs,
            traces: children.traces,
            unknown: children.unknown,
            tree: *tree,
        }),
        _ => None,
    })
}

/// Content of the nodes below the root.
struct Children<'a> {
    blobs: Vec<Blob<'a>>,
    traces: Option<Traces<'a>>,
    unknown: Vec<Unknown<'a>>,
}

/// An inspection under way.
struct Check<'a, 's, 't> {
    tree: Reader<'a>,
    /// Index for the paths in problems; `None` before the first problem.
    index: Option<Index<'a>>,
    problems: usize,
    sink: &'s mut Sink<'t>,
}

impl<'a> Check<'a, '_, '_> {
    /// The index of the tree.
    fn index(&mut self) -> Result<&Index<'a>, Stop> {
        if self.index.is_none() {
            self.index = Some(Index::new(&self.tree).map_err(|_| OutOfMemory)?);
        }
        self.index.as_ref().ok_or(Stop::OutOfMemory(OutOfMemory))
    }

    /// The path of `node`.
    fn path(&mut self, node: &Node<'a>) -> Result<String, Stop> {
        Ok(self.index()?.path_of(node)?)
    }

    /// Calls the sink with a problem of `node`.
    #[cold]
    fn report(&mut self, node: Node<'a>, kind: ProblemKind) -> Result<(), Stop> {
        let node = self.path(&node)?;
        self.problems = self.problems.saturating_add(1);
        match (self.sink)(Problem { node, kind }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stop::Asked),
        }
    }

    /// Reads a required property with `read`. If the property is missing or malformed, reports it and returns `None`.
    fn read<T>(
        &mut self,
        node: Node<'a>,
        property: &'static str,
        read: impl FnOnce(Value<'a>) -> Result<T, ValueError>,
    ) -> Result<Option<T>, Stop> {
        let kind = match node.prop(property).map(|prop| read(prop.value())) {
            Some(Ok(value)) => return Ok(Some(value)),
            Some(Err(cause)) => ProblemKind::Value { property, cause },
            None => ProblemKind::Missing { property },
        };
        self.report(node, kind)?;
        Ok(None)
    }

    fn u64(&mut self, node: Node<'a>, property: &'static str) -> Result<Option<u64>, Stop> {
        self.read(node, property, Value::u64)
    }

    fn str(&mut self, node: Node<'a>, property: &'static str) -> Result<Option<&'a str>, Stop> {
        self.read(node, property, Value::str)
    }

    /// Reads a string such as `uname` gives: 1 to [`MAX_UTS`] bytes without control characters.
    fn text(&mut self, node: Node<'a>, property: &'static str) -> Result<Option<&'a str>, Stop> {
        let text = self.str(node, property)?;
        if let Some(text) = text
            && (text.is_empty() || text.len() > MAX_UTS || text.contains(char::is_control))
        {
            let len = text.len();
            self.report(node, ProblemKind::Text { property, len })?;
        }
        Ok(text)
    }

    /// Calls `each` with the index and range of every pair of a property. Reports ranges that are not page-aligned.
    /// Reports pairs that are not valid ranges, and does not call `each` for them.
    fn pairs(
        &mut self,
        node: Node<'a>,
        property: &'static str,
        value: Value<'a>,
        mut each: impl FnMut(&mut Self, usize, PhysRange) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let pairs = match value.mem() {
            Ok(pairs) => pairs,
            Err(cause) => return self.report(node, ProblemKind::Value { property, cause }),
        };
        for (index, pair) in pairs.enumerate() {
            match pair {
                Ok(range) => {
                    if !range.is_page_aligned() {
                        let kind = ProblemKind::Unaligned {
                            property,
                            index,
                            range,
                        };
                        self.report(node, kind)?;
                    }
                    each(self, index, range)?;
                }
                Err(cause) => {
                    let kind = ProblemKind::Range {
                        property,
                        index,
                        cause,
                    };
                    self.report(node, kind)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the carrier.
    fn carrier(&mut self, root: Node<'a>) -> Result<Carrier, Stop> {
        if root.prop(CARRIER).is_none() {
            return Ok(Carrier::Memory);
        }
        match self.str(root, CARRIER)? {
            None | Some(CARRIER_INITRD) => {}
            Some(other) => {
                let found = shown(other)?;
                self.report(root, ProblemKind::Carrier { found })?;
            }
        }
        Ok(Carrier::Initrd)
    }

    /// Reads the scratch region.
    fn scratch(&mut self, root: Node<'a>) -> Result<Option<PhysRange>, Stop> {
        let Some(value) = self.read(root, SCRATCH, Ok)? else {
            return Ok(None);
        };
        let mut scratch = None;
        let mut found = 0usize;
        self.pairs(root, SCRATCH, value, |_, index, range| {
            scratch = Some(range);
            found = index.saturating_add(1);
            Ok(())
        })?;
        if found > 1 || value.bytes().is_empty() {
            let kind = ProblemKind::Pairs {
                property: SCRATCH,
                found,
                expected: "one",
            };
            self.report(root, kind)?;
        }
        Ok(scratch)
    }

    /// Reads the mem cache, in the order of the tree, and checks its order and overlaps.
    fn mem_cache(
        &mut self,
        root: Node<'a>,
        scratch: Option<PhysRange>,
    ) -> Result<Vec<PhysRange>, Stop> {
        let mut entries: Vec<PhysRange> = Vec::new();
        let Some(value) = self.read(root, MEM_CACHE, Ok)? else {
            return Ok(entries);
        };
        self.pairs(root, MEM_CACHE, value, |check, index, range| {
            if let Some(scratch) = scratch.filter(|scratch| scratch.overlaps(range)) {
                let kind = ProblemKind::CacheScratch {
                    index,
                    range,
                    scratch,
                };
                check.report(root, kind)?;
            }
            let state = entries.first().copied();
            // Entry 0 is the state: its address does not have to ascend with those of the other entries.
            let before = entries.get(1..).and_then(<[_]>::last).copied();
            let overlapped = [state, before]
                .into_iter()
                .flatten()
                .find(|other| other.overlaps(range));
            if let Some(other) = overlapped {
                let kind = ProblemKind::CacheOverlap {
                    index,
                    range,
                    other,
                };
                check.report(root, kind)?;
            } else if let Some(before) = before.filter(|before| range < *before) {
                let kind = ProblemKind::CacheOrder {
                    index,
                    range,
                    before,
                };
                check.report(root, kind)?;
            }
            Ok(push(&mut entries, range)?)
        })?;
        if value.bytes().is_empty() {
            let kind = ProblemKind::Pairs {
                property: MEM_CACHE,
                found: 0,
                expected: "one or more",
            };
            self.report(root, kind)?;
        }
        Ok(entries)
    }

    /// Checks every `mem` property of the tree.
    fn mem(&mut self, mem_cache: &[PhysRange], scratch: Option<PhysRange>) -> Result<(), Stop> {
        let cache = RangeSet::from_ranges(mem_cache.iter().copied())?;
        // Each range, with the number of its node in the order of the tree.
        let mut all: Vec<(PhysRange, usize)> = Vec::new();
        let mut node = self.tree.root();
        let mut number = 0usize;
        for event in self.tree.walk() {
            let prop = match event {
                Event::Begin(begun) => {
                    node = begun;
                    number = number.saturating_add(1);
                    continue;
                }
                // In a tree, the properties of a node come before its children, so the property belongs to `node`.
                Event::Prop(prop) if prop.is(MEM) => prop,
                _ => continue,
            };
            self.pairs(node, MEM, prop.value(), |check, index, range| {
                if let Some(scratch) = scratch.filter(|scratch| scratch.overlaps(range)) {
                    let kind = ProblemKind::InScratch {
                        index,
                        range,
                        scratch,
                    };
                    check.report(node, kind)?;
                } else if !cache.contains_range(range) {
                    check.report(node, ProblemKind::Unreserved { index, range })?;
                }
                Ok(push(&mut all, (range, number.saturating_sub(1)))?)
            })?;
        }
        crate::sort::sort(&mut all);
        // The range with the highest end among the ranges checked so far.
        let mut highest: Option<(PhysRange, usize)> = None;
        for &(range, number) in &all {
            if let Some((other, other_number)) = highest {
                if range.overlaps(other) {
                    self.overlap((range, number), (other, other_number))?;
                }
                if range.end() <= other.end() {
                    continue;
                }
            }
            highest = Some((range, number));
        }
        Ok(())
    }

    /// Reports two ranges that overlap, of the nodes with these numbers.
    #[cold]
    fn overlap(
        &mut self,
        (range, number): (PhysRange, usize),
        (other, other_number): (PhysRange, usize),
    ) -> Result<(), Stop> {
        let index = self.index()?;
        let (Some(node), Some(other_node)) = (index.nth(number), index.nth(other_number)) else {
            return Ok(());
        };
        let other_node = self.path(&other_node)?;
        let kind = ProblemKind::Overlap {
            range,
            other,
            other_node,
        };
        self.report(node, kind)
    }

    /// Reads the nodes below the root.
    fn children(&mut self, root: Node<'a>, hop: Option<u64>) -> Result<Children<'a>, Stop> {
        let (mut blobs, mut unknown) = (Vec::new(), Vec::new());
        let mut traces = None;
        for node in root.children() {
            let Some(compatible) = self.str(node, COMPATIBLE)? else {
                continue;
            };
            if node.name() == BLOBS && compatible == BLOBS_V1 {
                self.blobs(node, hop, &mut blobs, &mut unknown)?;
            } else if node.name() == FTRACE && compatible == FTRACE_V1 {
                traces = self.traces(node, hop, &mut unknown)?;
            } else {
                let leave = Unknown {
                    node,
                    in_blobs: false,
                    compatible,
                };
                push(&mut unknown, leave)?;
            }
        }
        self.labels(&blobs)?;
        Ok(Children {
            blobs,
            traces,
            unknown,
        })
    }

    /// Reads the nodes below `/blobs`.
    fn blobs(
        &mut self,
        parent: Node<'a>,
        hop: Option<u64>,
        blobs: &mut Vec<Blob<'a>>,
        unknown: &mut Vec<Unknown<'a>>,
    ) -> Result<(), Stop> {
        for (place, node) in parent.children().enumerate() {
            if !is_numbered(node.name(), BLOB_PREFIX, place as u64) {
                self.report(node, ProblemKind::BlobName { place })?;
            }
            let Some(compatible) = self.str(node, COMPATIBLE)? else {
                continue;
            };
            if compatible != BLOB_V1 {
                let leave = Unknown {
                    node,
                    in_blobs: true,
                    compatible,
                };
                push(unknown, leave)?;
            } else if let Some(blob) = self.blob(node, hop)? {
                push(blobs, blob)?;
            }
        }
        Ok(())
    }

    /// Reads one blob.
    fn blob(&mut self, node: Node<'a>, hop: Option<u64>) -> Result<Option<Blob<'a>>, Stop> {
        let label = match self.str(node, LABEL)?.map(Label::new) {
            Some(Err(error)) => {
                self.report(node, ProblemKind::Label(error))?;
                None
            }
            Some(Ok(label)) => Some(label),
            None => None,
        };
        let content = self.content(node)?;
        let size = self.u64(node, SIZE)?;
        let mem = self.sized_mem(node, size)?;
        let blake3 = self.read(node, BLAKE3, Value::array)?;
        let taken = self.u64(node, TAKEN)?;
        let arrived_hop = self.u64(node, ARRIVED_HOP)?;
        if let (Some(arrived), Some(hop)) = (arrived_hop, hop)
            && (arrived == 0 || arrived > hop)
        {
            self.report(node, ProblemKind::ArrivedHop { arrived, hop })?;
        }
        Ok((|| {
            Some(Blob {
                node,
                label: label?,
                content: content?,
                size: size?,
                blake3: blake3?,
                taken: taken?,
                arrived_hop: arrived_hop?,
                mem: mem?,
            })
        })())
    }

    /// Reads the `mem` of a node whose content has `size` bytes, and checks the sum of its lengths. `Check::mem` has
    /// already checked the ranges of every node.
    fn sized_mem(&mut self, node: Node<'a>, size: Option<u64>) -> Result<Option<Value<'a>>, Stop> {
        let mem = self.read(node, MEM, Ok)?;
        if let (Some(size), Some(mem)) = (size, mem) {
            let total = mem
                .mem()
                .into_iter()
                .flatten()
                .flatten()
                .fold(0u64, |sum, range| sum.saturating_add(range.len()));
            if size.checked_next_multiple_of(crate::addr::PAGE_SIZE) != Some(total) {
                self.report(node, ProblemKind::Size { size, mem: total })?;
            }
        }
        Ok(mem)
    }

    /// Reads the kind of a blob's content, and for files the path and what a load leaves out.
    fn content(&mut self, node: Node<'a>) -> Result<Option<Content<'a>>, Stop> {
        let path = node.prop(PATH);
        match self.str(node, KIND)? {
            Some(KIND_FILES) => {
                let Some(path) = self.read(node, PATH, Ok)?.map(Value::bytes) else {
                    return Ok(None);
                };
                if let Err(error) = check_path(path) {
                    self.report(node, ProblemKind::Path(error))?;
                    return Ok(None);
                }
                let leave_out = LeaveOut {
                    special: node.prop(SKIP_SPECIAL).is_some(),
                    other_file_systems: node.prop(ONE_FILE_SYSTEM).is_some(),
                };
                Ok(Some(Content::Files { path, leave_out }))
            }
            Some(KIND_RAW) => {
                if path.is_some() {
                    self.report(node, ProblemKind::Unexpected { property: PATH })?;
                }
                Ok(Some(Content::Raw))
            }
            Some(other) => {
                let found = shown(other)?;
                self.report(node, ProblemKind::Kind { found })?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Checks that no two blobs have the same label.
    fn labels(&mut self, blobs: &[Blob<'a>]) -> Result<(), Stop> {
        let mut sorted: Vec<(Label<'a>, usize)> = Vec::new();
        for (place, blob) in blobs.iter().enumerate() {
            push(&mut sorted, (blob.label, place))?;
        }
        crate::sort::sort(&mut sorted);
        for pair in sorted.windows(2) {
            if let [(label, other), (same, place)] = pair
                && label == same
                && let Some(blob) = blobs.get(*place)
            {
                let kind = ProblemKind::LabelTwice {
                    label: shown(label.as_str())?,
                    other: *other,
                };
                self.report(blob.node, kind)?;
            }
        }
        Ok(())
    }
}
