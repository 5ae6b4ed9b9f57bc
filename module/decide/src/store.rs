//! Ownership of pages: of memory that arrived, and of memory that kho.ko lends to producers.

use crate::arena::{self, Arenas, Search};
use crate::arrival::{self, Arrival, Nothing, mem};
use crate::errno::{EAGAIN, EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, Errno};
use crate::holds::Holds;
use crate::iomem::{self, Map};
use crate::session::{Limits, Session};
use crate::system::{Failed, Record, Reserved, System, Tree, log};
use crate::text::Level;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::ControlFlow;
use kho::tree::{Event, Index, Node};
use kho::{PhysRange, RangeSet};

/// State of all pages that kho.ko manages.
pub struct Store<S: System> {
    map: Map,
    arrival: Result<Arrival<S>, Nothing>,
    reserved: S::Reserved,
    arenas: Arenas<S>,
    search: Search,
    /// Scratch region that root set, if none arrived in this boot.
    told_scratch: Option<PhysRange>,
    /// Destinations of a loaded image that kho.ko completes before the jump: nothing may be kept there.
    image: RangeSet,
    /// Numbers of nodes of the kernel's part of which a driver claimed the whole.
    claimed: Vec<i64>,
    /// Nodes that arrived and that producers hold. Their memory is still reserved.
    holds: Holds,
    /// Record of `claimed` for a later instance of this module; `None` before a driver takes over the first node.
    record: Option<S::Record>,
    /// Memory that arrived and that the active phase names again: until the phase ends, no driver can claim it and root
    /// cannot release it.
    frozen: RangeSet,
    /// Memory that arrived and that producers name in the active phase: until the phase ends it cannot be released, but
    /// its holder may claim it.
    named: RangeSet,
}

/// Memory in which kho.ko may allocate pages that are kept.
pub struct Ground {
    /// RAM without the destinations of a loaded image.
    map: Map,
    scratch: Option<PhysRange>,
    search: Search,
    image: RangeSet,
}

impl Ground {
    /// Allocates `pages` zeroed pages.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn block<S: System>(&mut self, pages: u64) -> Result<S::Block, Errno> {
        arena::block::<S>(&self.map, self.scratch, &mut self.search, pages)
    }

    /// Allocates a block for an arena, of which the caller will lend `count` pages.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn block_for<S: System>(&mut self, count: usize) -> Result<S::Block, Errno> {
        arena::block_for::<S>(&self.map, self.scratch, &mut self.search, count)
    }
}

/// Reason why memory cannot be released.
#[derive(Debug, PartialEq, Eq)]
enum Kept<'a> {
    /// The memory is handed over in the active phase.
    Active,
    /// The producer of this name holds the memory, as part of the node of this number.
    Held(&'a str, i64),
}

/// A node of the kernel's part, with all nodes below it.
struct Top<'a> {
    node: Node<'a>,
    /// Numbers of the node and of all nodes below it.
    numbers: core::ops::Range<i64>,
}

/// State of a node that arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// All memory of the node is still reserved, and no driver took over one of its nodes.
    Untouched,
    /// Some of the node was taken over or released.
    Partly,
    /// All of the node was taken over or released.
    Gone,
}

impl<S: System> Store<S> {
    /// Makes a store in which nothing arrived and no memory of the machine is known.
    pub const fn new() -> Self {
        Self {
            map: Map {
                readable: RangeSet::new(),
                ram: RangeSet::new(),
                taken: RangeSet::new(),
            },
            arrival: Err(Nothing::Ordinary),
            reserved: S::Reserved::NOTHING,
            arenas: Arenas::new(),
            search: Search::new(),
            told_scratch: None,
            image: RangeSet::new(),
            claimed: Vec::new(),
            holds: Holds::new(),
            record: None,
            frozen: RangeSet::new(),
            named: RangeSet::new(),
        }
    }

    /// Reads the memory map of the machine and the handover that arrived. A handover that is not trusted is not an
    /// error: this kernel then works as after an ordinary boot.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; the error of reading `/proc/iomem`; [`EINVAL`] if that file shows no RAM.
    pub fn open(&mut self) -> Result<(), Errno> {
        let text = S::iomem().inspect_err(|error| {
            log!(
                S,
                Level::Error,
                "cannot read /proc/iomem (error {}): is /proc mounted?",
                error.0
            );
        })?;
        let map = iomem::parse(&text)?;
        if map.ram.is_empty() {
            log!(
                S,
                Level::Error,
                "/proc/iomem shows no RAM: the module has to be loaded by root"
            );
            return Err(EINVAL);
        }
        self.arrival = match arrival::receive::<S>(&map) {
            Ok((arrival, reserved)) => {
                self.reserved = reserved;
                log!(
                    S,
                    Level::Info,
                    "handover {} from {}: {} KiB handed over, {} KiB of slack released",
                    arrival.hop,
                    arrival.previous,
                    self.reserved.set().total() / 1024,
                    arrival.slack / 1024
                );
                Ok(arrival)
            }
            Err(Nothing::Failed(ENOMEM)) => return Err(ENOMEM),
            Err(nothing) => {
                match nothing {
                    Nothing::Ordinary => {
                        log!(S, Level::Info, "nothing arrived: this was an ordinary boot");
                    }
                    Nothing::Refused(why) => log!(
                        S,
                        Level::Error,
                        "what arrived is ignored and stays reserved: {why}"
                    ),
                    Nothing::Failed(error) => log!(
                        S,
                        Level::Error,
                        "whether anything arrived is not known (error {}); what did stays reserved",
                        error.0
                    ),
                }
                Err(nothing)
            }
        };
        self.map = map;
        self.remember()
    }

    /// Reads which nodes drivers took over before this module was loaded again.
    fn remember(&mut self) -> Result<(), Errno> {
        let Some((part, nodes)) = self.part() else {
            return Ok(());
        };
        let record = S::find_record(part, nodes);
        for number in record.iter().flat_map(S::Record::numbers) {
            self.claimed.try_reserve(1)?;
            self.claimed.extend(i64::try_from(number));
        }
        self.record = record;
        Ok(())
    }

    /// The pages of the kernel's part, and its number of nodes; `None` if there is no kernel's part.
    fn part(&self) -> Option<(&S::Stays, usize)> {
        let arrival = self.trees()?;
        Some((
            arrival.part.as_ref()?,
            arrival.kernel.as_ref()?.index().len(),
        ))
    }

    /// Makes the record of nodes that drivers take over, unless there is one already.
    fn make_record(&mut self) -> Result<(), Errno> {
        if self.record.is_none() {
            let (part, nodes) = self.part().ok_or(ENOENT)?;
            self.record = Some(S::make_record(part, nodes, |pages| self.block(pages))?);
        }
        Ok(())
    }

    /// Frees the idle arenas and forgets all other state: unclaimed memory stays reserved, and kho.ko no longer knows
    /// the lent memory.
    pub fn close(&mut self) {
        let lent = self.arenas.lent_bytes();
        if lent != 0 {
            log!(
                S,
                Level::Warning,
                "{lent} bytes that drivers did not give back are lost"
            );
        }
        self.arenas.abandon();
        *self = Self::new();
    }

    /// The handover that arrived, or the reason why there is none.
    pub fn arrival(&self) -> Result<&Arrival<S>, Nothing> {
        self.arrival.as_ref().map_err(|nothing| *nothing)
    }

    /// The handover that arrived, with the kernel's part and the user's tree; `None` if there is none.
    fn trees(&self) -> Option<&Arrival<S>> {
        self.arrival.as_ref().ok()
    }

    /// The nodes of the kernel's part.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no kernel's part.
    pub fn nodes(&self) -> Result<&Index<'_>, Errno> {
        let tree = self.trees().and_then(|a| a.kernel.as_ref());
        tree.map(Tree::index).ok_or(ENOENT)
    }

    /// Node number `node` of the kernel's part.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such node.
    pub fn node(&self, node: i64) -> Result<Node<'_>, Errno> {
        let number = usize::try_from(node).map_err(|_| ENOENT)?;
        self.nodes()?.nth(number).ok_or(ENOENT)
    }

    /// Number of the first node of the kernel's part that `matches`, from number `from` on.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such node.
    pub fn find(&self, from: usize, matches: impl Fn(&Node<'_>) -> bool) -> Result<i64, Errno> {
        let tree = self.trees().and_then(|a| a.kernel.as_ref()).ok_or(ENOENT)?;
        let found = (from..tree.index().len())
            .find(|n| tree.index().nth(*n).is_some_and(|node| matches(&node)));
        found.and_then(|n| i64::try_from(n).ok()).ok_or(ENOENT)
    }

    /// The number of the node at `path`.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such node.
    pub fn find_path(&self, path: &str) -> Result<i64, Errno> {
        let tree = self.trees().and_then(|a| a.kernel.as_ref()).ok_or(ENOENT)?;
        let wanted = tree.index().path(path).ok_or(ENOENT)?;
        self.find(0, |node| same(node, &wanted))
    }

    /// The number of the child `name` of node number `node`.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such node.
    pub fn find_child(&self, node: i64, name: &str) -> Result<i64, Errno> {
        let wanted = self.node(node)?.child(name).ok_or(ENOENT)?;
        self.find(0, |node| same(node, &wanted))
    }

    /// Makes the caller the owner of `range`.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if no `mem` names the range; [`EBUSY`] if some of it was claimed or released; [`EAGAIN`] if the
    /// active phase hands some of it over again; `EHWPOISON` if the memory of a page failed and `failed` is
    /// [`Failed::Refused`]; no memory.
    pub fn claim(&mut self, range: PhysRange, failed: Failed) -> Result<(), Errno> {
        self.arrived(range)?;
        self.thawed(range)?;
        self.reserved
            .claim(&RangeSet::from_ranges([range])?, failed)
    }

    /// Refuses a range that the active phase names again, with [`EAGAIN`].
    fn thawed(&self, range: PhysRange) -> Result<(), Errno> {
        if self.frozen.overlaps(range) {
            Err(EAGAIN)
        } else {
            Ok(())
        }
    }

    /// Makes the caller the owner of all ranges of a node, or of none.
    ///
    /// # Errors
    ///
    /// As for [`claim`](Self::claim); [`ENOENT`] if there is no such node; [`EBUSY`] also if a driver took over the
    /// node before.
    pub fn claim_node(&mut self, node: i64) -> Result<(), Errno> {
        let mut wanted = RangeSet::new();
        for range in mem(&self.node(node)?) {
            self.thawed(range)?;
            wanted.insert(range)?;
        }
        if self.claimed.contains(&node) {
            return Err(EBUSY);
        }
        self.claimed.try_reserve(1)?;
        self.make_record()?;
        self.reserved.claim(&wanted, Failed::Refused)?;
        self.claimed.push(node);
        if let (Some(record), Ok(number)) = (&mut self.record, usize::try_from(node)) {
            record.add(number);
        }
        Ok(())
    }

    /// Records that `producer`, which is registered, holds a node with all nodes below it, and may hand their memory on
    /// unchanged.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such node; [`EBUSY`] if some of its memory was claimed or released, or is held by a
    /// producer; [`EAGAIN`] if the active phase hands it over again; no memory.
    pub fn hold(&mut self, producer: &str, node: i64) -> Result<(), Errno> {
        let mem = mem_below(&self.node(node)?)?;
        if !mem.subtract(self.reserved.set())?.is_empty() {
            return Err(EBUSY);
        }
        if overlap(&mem, &self.frozen) {
            return Err(EAGAIN);
        }
        self.holds.add(producer, node, mem)
    }

    /// Ends the hold of `producer` on all its nodes.
    pub fn let_go(&mut self, producer: &str) {
        self.holds.remove_all(producer);
    }

    /// Memory that `producer` holds and that is still reserved: the producer may hand it on unchanged.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn held(&self, producer: &str) -> Result<RangeSet, Errno> {
        Ok(self
            .holds
            .of(Some(producer))?
            .intersect(self.reserved.set())?)
    }

    /// Releases the unclaimed memory of a node that `producer` holds, zeroed. The producer then no longer holds that
    /// node.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if the producer does not hold that node; [`EBUSY`] if the memory is handed over in the active phase;
    /// no memory. In each case nothing has changed.
    pub fn release_held(&mut self, producer: &str, node: i64) -> Result<(), Errno> {
        let mem = self.holds.mem(producer, node)?;
        let wanted = mem.intersect(self.reserved.set())?;
        if self.is_handed_over(&wanted) {
            return Err(EBUSY);
        }
        self.reserved.free(&wanted, true)?;
        self.holds.remove(node);
        Ok(())
    }

    /// Releases `range`, zeroed.
    ///
    /// # Errors
    ///
    /// As for [`claim`](Self::claim); [`EBUSY`] also if a producer holds some of the range, or names some of it in the
    /// active phase.
    pub fn release(&mut self, range: PhysRange) -> Result<(), Errno> {
        self.arrived(range)?;
        let wanted = RangeSet::from_ranges([range])?;
        self.may_release(&wanted).map_err(|_| EBUSY)?;
        self.reserved.free(&wanted, true).map(|_| ())
    }

    fn is_handed_over(&self, set: &RangeSet) -> bool {
        overlap(set, &self.frozen) || overlap(set, &self.named)
    }

    /// Checks that no producer holds any of `set`, and that the active phase does not hand over any of it. The error is
    /// the reason why the memory is kept.
    fn may_release(&self, set: &RangeSet) -> Result<(), Kept<'_>> {
        if self.is_handed_over(set) {
            return Err(Kept::Active);
        }
        match self.holds.holder(set) {
            Some((producer, node)) => Err(Kept::Held(producer, node)),
            None => Ok(()),
        }
    }

    /// Checks that `range` arrived, even if it was claimed or released since; [`EINVAL`] if it never arrived.
    fn arrived(&self, range: PhysRange) -> Result<(), Errno> {
        let within = |node: &Node<'_>| mem(node).any(|m| m.contains_range(range));
        let arrival = self.trees().ok_or(EINVAL)?;
        let user = arrival.user.reader().nodes();
        let part = arrival.kernel.as_ref().map(|t| t.reader().nodes());
        let mut all = user.chain(part.into_iter().flatten());
        if self.reserved.set().contains_range(range) || all.any(|(_, node)| within(&node)) {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }

    /// Releases the unclaimed memory of the node at `path` and of the nodes below it, or all unclaimed memory if `path`
    /// is `all`. Returns the number of bytes.
    ///
    /// # Errors
    ///
    /// [`ENOENT`] if there is no such node; [`EBUSY`] if none of its memory is unclaimed, a producer holds some of it,
    /// or some of it is handed over in the active phase; no memory. In each case nothing has changed.
    pub fn release_path(&mut self, path: &str) -> Result<u64, Errno> {
        let wanted = if path == "all" {
            self.reserved.set().try_clone()?
        } else {
            let named = self.mem_below(path)?;
            let left = named.intersect(self.reserved.set())?;
            if left.is_empty() {
                return Err(EBUSY);
            }
            left
        };
        if let Err(kept) = self.may_release(&wanted) {
            self.log_kept(path, &kept);
            return Err(EBUSY);
        }
        self.reserved.free(&wanted, true)
    }

    fn log_kept(&self, path: &str, kept: &Kept<'_>) {
        match *kept {
            Kept::Active => log!(
                S,
                Level::Error,
                "{path} is not released: it is handed over in the active phase, and can be released after an abort"
            ),
            Kept::Held(producer, node) => {
                let tree = self.trees().and_then(|a| a.kernel.as_ref());
                let node = self.node(node).ok();
                let held = tree.zip(node).and_then(|(t, n)| t.index().path_of(&n).ok());
                log!(
                    S,
                    Level::Error,
                    "{path} is not released: the producer {producer} has {}, which only that producer can release",
                    held.as_deref().unwrap_or("some of it")
                );
            }
        }
    }

    /// All `mem` of the node at `path` and of the nodes below it. The function searches the user's tree for the path,
    /// then the kernel's part.
    fn mem_below(&self, path: &str) -> Result<RangeSet, Errno> {
        let arrival = self.trees().ok_or(ENOENT)?;
        let kernel = arrival.kernel.as_ref();
        let node = arrival
            .user
            .index()
            .path(path)
            .filter(|_| path != "/")
            .or_else(|| kernel.and_then(|t| t.index().path(path)))
            .ok_or(ENOENT)?;
        mem_below(&node)
    }

    /// Calls `tell` for each node that has unclaimed memory, until `tell` breaks: with the node's path, its number of
    /// unclaimed bytes, and the name of the producer that holds it, if one does.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn leftovers(
        &self,
        mut tell: impl FnMut(&str, u64, Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        let Some(arrival) = self.trees() else {
            return Ok(());
        };
        for tree in [Some(&arrival.user), arrival.kernel.as_ref()]
            .into_iter()
            .flatten()
        {
            for (_, node) in tree.reader().nodes() {
                let bytes = mem(&node)
                    .map(|range| self.reserved.set().overlap_len(range))
                    .fold(0, u64::saturating_add);
                if bytes == 0 {
                    continue;
                }
                let holder = self.holds.holder(&RangeSet::from_ranges(mem(&node))?);
                let holder = holder.map(|(producer, _)| producer);
                if tell(&tree.index().path_of(&node)?, bytes, holder).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The nodes below the root of the kernel's part.
    fn tops(&self) -> impl Iterator<Item = Top<'_>> {
        self.nodes_at(1, 0..i64::MAX)
    }

    /// The untouched children, with memory, of a node that has no memory of its own: each of them can be handed over
    /// again by itself. A node with memory of its own has no such children.
    fn parts(&self, top: &Top<'_>) -> Result<Vec<Top<'_>>, Errno> {
        let mut parts = Vec::new();
        if mem(&top.node).next().is_some() {
            return Ok(parts);
        }
        for part in self.nodes_at(2, top.numbers.clone()) {
            let has_memory = !mem_below(&part.node)?.is_empty();
            if has_memory && self.fate(&part)? == Fate::Untouched {
                parts.try_reserve(1)?;
                parts.push(part);
            }
        }
        Ok(parts)
    }

    /// The nodes that are `level` levels below the root of the kernel's part and whose numbers are in `numbers`.
    fn nodes_at(
        &self,
        level: usize,
        numbers: core::ops::Range<i64>,
    ) -> impl Iterator<Item = Top<'_>> {
        let tree = self.trees().and_then(|a| a.kernel.as_ref());
        let mut nodes = tree
            .map(|t| t.reader().nodes())
            .into_iter()
            .flatten()
            .zip(0i64..)
            .filter(move |((depth, _), number)| *depth >= level && numbers.contains(number))
            .peekable();
        core::iter::from_fn(move || {
            let ((_, node), first) = nodes.next()?;
            let mut end = first.saturating_add(1);
            while nodes.next_if(|((depth, _), _)| *depth > level).is_some() {
                end = end.saturating_add(1);
            }
            Some(Top {
                node,
                numbers: first..end,
            })
        })
    }

    fn fate(&self, top: &Top<'_>) -> Result<Fate, Errno> {
        let set = mem_below(&top.node)?;
        let left = set.intersect(self.reserved.set())?.total();
        let had = self.claimed.iter().any(|n| top.numbers.contains(n));
        Ok(if left == set.total() && !had {
            Fate::Untouched
        } else if left == 0 {
            Fate::Gone
        } else {
            Fate::Partly
        })
    }

    /// Number of untouched nodes that arrived. If a part of a node is gone, counts the untouched parts of the node
    /// instead.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn untouched(&self) -> Result<usize, Errno> {
        let mut count = 0usize;
        for top in self.tops() {
            let more = match self.fate(&top)? {
                Fate::Untouched => 1,
                Fate::Partly => self.parts(&top)?.len(),
                Fate::Gone => 0,
            };
            count = count.saturating_add(more);
        }
        Ok(count)
    }

    /// Writes the untouched nodes that arrived into `session` again, and keeps them unchanged until
    /// [`thaw`](Self::thaw): a boot of a kernel without the driver must not lose the driver's state. `taken` returns
    /// whether a producer has the given name. Returns the number of nodes.
    ///
    /// # Errors
    ///
    /// As [`Session::carry`].
    pub fn carry(
        &mut self,
        session: &mut Session,
        taken: impl Fn(&str) -> bool,
    ) -> Result<usize, Errno> {
        let mut frozen = RangeSet::new();
        let mut count = 0usize;
        for top in self.tops() {
            let name = top.node.name();
            let all = mem_below(&top.node)?;
            let rest = all
                .intersect(self.reserved.set())?
                .subtract(session.kept())?;
            if rest.is_empty() && !all.is_empty() {
                // An owner has the memory, or its producer hands the memory on unchanged.
                continue;
            }
            let fate = self.fate(&top)?;
            if fate == Fate::Gone || (all.is_empty() && taken(name)) {
                // A producer took the node over, and describes its present state itself.
                continue;
            }
            let whole = fate == Fate::Untouched && !overlap(&all, session.kept());
            let mut parts = Vec::new();
            let mut again = RangeSet::new();
            if whole {
                again = all;
            } else {
                parts = self.parts(&top)?;
                parts.retain(|part| !mem_overlaps(&part.node, session.kept()));
                for part in &parts {
                    again = again.union(&mem_below(&part.node)?)?;
                }
            }
            if !whole && !rest.subtract(&again)?.is_empty() {
                log!(
                    S,
                    Level::Warning,
                    "/{name} was claimed in part: the rest of it is not handed over again"
                );
            }
            if !whole && parts.is_empty() {
                continue;
            }
            let mut other = String::new();
            let name = if taken(name) {
                free_name(&mut other, name, |name| {
                    taken(name) || self.tops().any(|top| top.node.name() == name)
                })?;
                log!(
                    S,
                    Level::Warning,
                    "/{name} is handed over again as /{other}"
                );
                other.as_str()
            } else {
                name
            };
            session.carry::<S>(name, &top.node, |child| {
                whole || parts.iter().any(|part| same(&part.node, child))
            })?;
            frozen = frozen.union(&again)?;
            count = count.saturating_add(1);
        }
        self.frozen = frozen;
        self.named = session.kept().intersect(self.reserved.set())?;
        Ok(count)
    }

    /// Allows claims and releases of memory that the active phase named.
    pub fn thaw(&mut self) {
        self.frozen = RangeSet::new();
        self.named = RangeSet::new();
    }

    /// Number of bytes that arrived and are unclaimed.
    pub fn unclaimed(&self) -> u64 {
        self.reserved.set().total()
    }

    /// The scratch region: the one that arrived, else the one that root set; `None` if there is neither.
    pub fn scratch(&self) -> Option<PhysRange> {
        self.trees().map(|a| a.scratch).or(self.told_scratch)
    }

    /// Sets the scratch region, as root states it, so that memory for producers is allocated outside of it.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if a scratch region arrived; [`EINVAL`] unless `range` is page-aligned RAM.
    pub fn tell_scratch(&mut self, range: PhysRange) -> Result<(), Errno> {
        if self.trees().is_some() {
            return Err(EBUSY);
        }
        if !range.is_page_aligned() || !self.map.ram.contains_range(range) {
            return Err(EINVAL);
        }
        self.told_scratch = Some(range);
        Ok(())
    }

    /// Limits of the memory that producers may keep.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn limits(&self) -> Result<Limits, Errno> {
        Ok(Limits {
            ram: self.map.ram.subtract(&self.image)?,
            scratch: self.scratch(),
            held: self.holds.of(None)?.intersect(self.reserved.set())?,
        })
    }

    /// Checks that a producer may keep `range`, as far as the check is possible outside of an activation.
    ///
    /// # Errors
    ///
    /// As `kho_prop_mem` in `include/kho.h`.
    pub fn may_keep(&self, range: PhysRange) -> Result<(), Errno> {
        self.limits()?.check::<S>(range).map_err(|(error, _)| error)
    }

    /// Lends `count` pages to a producer, if the arenas have as many. Otherwise see [`crate::lend`].
    pub fn lend(&mut self, count: usize) -> Option<PhysRange> {
        let scratch = self.scratch();
        self.arenas.lend(scratch, count)
    }

    /// Makes `block` an arena, and lends `count` pages of it to a producer.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn lend_of(&mut self, block: S::Block, count: usize) -> Result<PhysRange, Errno> {
        self.arenas.lend_of(block, count)
    }

    /// Takes pages back from a producer.
    pub fn take_back(&mut self, range: PhysRange) {
        if !self.arenas.take_back(range) {
            log!(
                S,
                Level::Error,
                "{range} was given back, but had not been lent as such; it is kept"
            );
        }
    }

    /// Number of bytes that are lent to producers.
    pub fn lent(&self) -> u64 {
        self.arenas.lent_bytes()
    }

    /// The memory in which pages may be allocated, for a caller that allocates them without the store's lock.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn ground(&self) -> Result<Ground, Errno> {
        Ok(Ground {
            map: Map {
                readable: RangeSet::new(),
                ram: self.map.ram.subtract(&self.image)?,
                taken: self.map.taken.try_clone()?,
            },
            scratch: self.scratch(),
            image: self.image.try_clone()?,
            search: self.search,
        })
    }

    /// Keeps the progress that a search made in `ground`. Returns whether memory of `ground` may still be kept: since
    /// then neither scratch nor a loaded image has changed.
    pub fn searched(&mut self, ground: &Ground) -> bool {
        self.search = ground.search;
        self.scratch() == ground.scratch && self.image == ground.image
    }

    /// Sets the destinations of an image that kho.ko completes before the jump: from now on kho.ko allocates nothing
    /// there, and producers may keep nothing there. An empty set ends that.
    pub fn set_image(&mut self, image: RangeSet) {
        self.image = image;
    }

    /// Memory that arrived and is unclaimed.
    pub fn unclaimed_pages(&self) -> &RangeSet {
        self.reserved.set()
    }

    /// Allocates `pages` pages outside scratch.
    fn block(&self, pages: u64) -> Result<S::Block, Errno> {
        let mut search = self.search;
        arena::block::<S>(&self.map, self.scratch(), &mut search, pages)
    }
}

/// All `mem` of a node and of the nodes below it.
fn mem_below(node: &Node<'_>) -> Result<RangeSet, Errno> {
    let mut set = RangeSet::new();
    for event in node.walk() {
        if let Event::Begin(node) = event {
            for range in mem(&node) {
                set.insert(range)?;
            }
        }
    }
    Ok(set)
}

/// Whether a node or one below it has some of `set`.
fn mem_overlaps(node: &Node<'_>, set: &RangeSet) -> bool {
    let nodes = node.walk().filter_map(|event| match event {
        Event::Begin(node) => Some(node),
        _ => None,
    });
    nodes
        .flat_map(|node| mem(&node))
        .any(|range| set.overlaps(range))
}

/// Writes a name into `out` that is like `name` and not taken.
fn free_name(out: &mut String, name: &str, taken: impl Fn(&str) -> bool) -> Result<(), Errno> {
    /// Length of the longest suffix below, or more.
    const SUFFIX: usize = 16;
    out.try_reserve(name.len().saturating_add(SUFFIX))?;
    for number in 1u32..=1000 {
        out.clear();
        out.push_str(name);
        // INVARIANT: there is room.
        let _ = match number {
            1 => write!(out, ",left"),
            _ => write!(out, ",left-{number}"),
        };
        if !taken(out) {
            return Ok(());
        }
    }
    Err(EEXIST)
}

fn overlap(one: &RangeSet, other: &RangeSet) -> bool {
    one.iter().any(|range| other.overlaps(range))
}

fn same(a: &Node<'_>, b: &Node<'_>) -> bool {
    core::ptr::eq(a.name_bytes(), b.name_bytes())
}

#[cfg(test)]
mod tests;
