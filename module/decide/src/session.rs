//! One serialization: the nodes of producers, checked while the producers write them.
//!
//! The session records the calls, and writes the tree from the record after the last producer, because the size of the
//! tree is known only then.

use crate::errno::{EADDRINUSE, EADDRNOTAVAIL, EBUSY, EHWPOISON, EINVAL, ENXIO, Errno};
use crate::system::{System, log};
use crate::text::Level;
use alloc::vec::Vec;
use core::ops::Range;
use kho::abi::{COMPATIBLE, MEM};
use kho::tree::{Event, Node, WriteError, Writer};
use kho::{PhysRange, RangeSet};

/// Limits of the memory that a producer may keep on this machine.
#[derive(Debug)]
pub struct Limits {
    /// RAM in which pages may be kept.
    pub ram: RangeSet,
    /// Scratch region, where the next kernel is placed; `None` while it is not known.
    pub scratch: Option<PhysRange>,
    /// Unclaimed memory that arrived and that the producer holds: it is reserved, but the producer may hand it on
    /// unchanged.
    pub held: RangeSet,
}

enum Note {
    Begin(Range<usize>),
    End,
    Prop(Range<usize>, Range<usize>),
}

/// The record of one activation.
pub struct Session {
    notes: Vec<Note>,
    data: Vec<u8>,
    /// Writer that checks names, nesting and duplicates as the real writer will.
    measure: Writer<'static>,
    kept: RangeSet,
    limits: Limits,
    depth: usize,
    has_compatible: bool,
    error: Option<Errno>,
}

impl Limits {
    /// Checks that the pages of `range` may be kept.
    ///
    /// # Errors
    ///
    /// As `kho_prop_mem` in `include/kho.h`.
    pub fn check<S: System>(&self, range: PhysRange) -> Result<(), (Errno, &'static str)> {
        if !range.is_page_aligned() {
            Err((EINVAL, "is not page-aligned"))
        } else if !self.ram.contains_range(range) {
            Err((ENXIO, "is not RAM that a handover may use"))
        } else if self.scratch.is_some_and(|s| s.overlaps(range)) {
            Err((EADDRNOTAVAIL, "is in scratch"))
        } else if !self
            .only_ours::<S>(range)
            .map_err(|e| (e, "cannot be checked"))?
        {
            Err((EBUSY, "is reserved"))
        } else if S::first_failed(range).is_some() {
            Err((EHWPOISON, "has memory that failed"))
        } else {
            Ok(())
        }
    }

    /// Whether every reserved page of `range` is reserved because it arrived, and the producer holds it.
    fn only_ours<S: System>(&self, range: PhysRange) -> Result<bool, Errno> {
        if !self.held.overlaps(range) {
            return Ok(S::none_reserved(range));
        }
        let rest = RangeSet::from_ranges([range])?.subtract(&self.held)?;
        Ok(rest.iter().all(S::none_reserved))
    }
}

impl Session {
    /// Begins a session with an open root and no content.
    ///
    /// Not inlined, so that the copies that it makes are off the stack when it returns.
    ///
    /// # Errors
    ///
    /// No memory.
    #[inline(never)]
    pub fn new(limits: Limits) -> Result<Self, Errno> {
        let mut session = Self {
            notes: Vec::new(),
            data: Vec::new(),
            measure: Writer::measuring(),
            kept: RangeSet::new(),
            limits,
            depth: 0,
            has_compatible: false,
            error: None,
        };
        session.measure.begin_node("")?;
        Ok(session)
    }

    /// Opens the producer's node, until [`end_producer`](Self::end_producer). `held` is the memory that arrived and
    /// that the producer holds.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub fn begin_producer(&mut self, name: &str, held: RangeSet) -> Result<(), Errno> {
        self.has_compatible = false;
        self.limits.held = held;
        self.begin(name)
    }

    /// Ends the producer's node.
    ///
    /// # Errors
    ///
    /// An error that the producer ignored; [`EINVAL`] if the producer left a node open or its node has no `compatible`.
    pub fn end_producer(&mut self) -> Result<(), Errno> {
        self.good()?;
        if self.depth != 1 || !self.has_compatible {
            return Err(EINVAL);
        }
        self.depth = 0;
        self.note_end()
    }

    /// Remembers the first error, so that no producer can ignore it. If a call finds an error before it reaches the
    /// session, the caller must pass that error through this function too.
    pub fn sticky<T>(&mut self, result: Result<T, Errno>) -> Result<T, Errno> {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
        result
    }

    fn good(&self) -> Result<(), Errno> {
        self.error.map_or(Ok(()), Err)
    }

    fn store(&mut self, bytes: &[u8]) -> Result<Range<usize>, Errno> {
        let start = self.data.len();
        self.data.try_reserve(bytes.len())?;
        self.data.extend_from_slice(bytes);
        Ok(start..self.data.len())
    }

    fn note(&mut self, note: Note) -> Result<(), Errno> {
        self.notes.try_reserve(1)?;
        self.notes.push(note);
        Ok(())
    }

    fn note_end(&mut self) -> Result<(), Errno> {
        let result = self.measure.end_node().map_err(Errno::from);
        let result = result.and_then(|()| self.note(Note::End));
        self.sticky(result)
    }

    /// Begins a node.
    ///
    /// # Errors
    ///
    /// If the name is not valid; no memory; the error of an earlier call.
    pub fn begin(&mut self, name: &str) -> Result<(), Errno> {
        self.good()?;
        let result = self.try_begin(name);
        self.sticky(result)
    }

    fn try_begin(&mut self, name: &str) -> Result<(), Errno> {
        self.measure.begin_node(name)?;
        let name = self.store(name.as_bytes())?;
        self.note(Note::Begin(name))?;
        self.depth = self.depth.saturating_add(1);
        Ok(())
    }

    /// Ends the node that the producer began last.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for the producer's own node; the error of an earlier call.
    pub fn end(&mut self) -> Result<(), Errno> {
        self.good()?;
        match self.depth.checked_sub(1) {
            Some(depth) if depth > 0 => {
                self.depth = depth;
                self.note_end()
            }
            _ => self.sticky(Err(EINVAL)),
        }
    }

    /// Writes a property.
    ///
    /// # Errors
    ///
    /// If the property is not valid; [`EINVAL`] for `mem`, which only [`mem`](Self::mem) writes; no memory; the error
    /// of an earlier call.
    pub fn prop(&mut self, name: &str, value: &[u8]) -> Result<(), Errno> {
        self.good()?;
        // `mem` means pages: only `mem` below may write this property.
        let result = if name == MEM {
            Err(EINVAL)
        } else {
            self.try_prop(name, value)
        };
        self.sticky(result)
    }

    fn try_prop(&mut self, name: &str, value: &[u8]) -> Result<(), Errno> {
        self.measure.prop_bytes(name, value)?;
        let name_at = self.store(name.as_bytes())?;
        let value_at = self.store(value)?;
        self.note(Note::Prop(name_at, value_at))?;
        self.has_compatible |= self.depth == 1 && name == COMPATIBLE;
        Ok(())
    }

    /// Writes a string property, with its NUL.
    ///
    /// # Errors
    ///
    /// As [`prop`](Self::prop).
    pub fn prop_str(&mut self, name: &str, text: &[u8]) -> Result<(), Errno> {
        let mut value = Vec::new();
        let result = value
            .try_reserve_exact(text.len().saturating_add(1))
            .map_err(Errno::from);
        self.sticky(result)?;
        value.extend_from_slice(text);
        value.push(0);
        self.prop(name, &value)
    }

    /// Writes the `mem` property.
    ///
    /// # Errors
    ///
    /// See `kho_prop_mem` in `include/kho.h`.
    pub fn mem<S: System>(
        &mut self,
        ranges: impl Iterator<Item = Result<PhysRange, Errno>>,
    ) -> Result<(), Errno> {
        self.good()?;
        let result = self.try_mem::<S>(ranges);
        self.sticky(result)
    }

    fn try_mem<S: System>(
        &mut self,
        ranges: impl Iterator<Item = Result<PhysRange, Errno>>,
    ) -> Result<(), Errno> {
        let mut value: Vec<u8> = Vec::new();
        for range in ranges {
            let range = range?;
            self.check::<S>(range)?;
            self.kept.insert(range)?;
            value.try_reserve(16)?;
            value.extend_from_slice(&range.start().get().to_ne_bytes());
            value.extend_from_slice(&range.len().to_ne_bytes());
        }
        self.try_prop(MEM, &value)
    }

    /// Writes again, as `name`, an untouched node that arrived, with the children for which `wanted` is true and all
    /// nodes below them. The pages of the node are reserved, and kho.ko checked them when they arrived.
    ///
    /// # Errors
    ///
    /// [`EADDRINUSE`] if a producer keeps one of the node's pages; [`EHWPOISON`] if the memory of a page failed since
    /// it arrived; if the name is not valid; no memory.
    pub fn carry<S: System>(
        &mut self,
        name: &str,
        node: &Node<'_>,
        wanted: impl Fn(&Node<'_>) -> bool,
    ) -> Result<(), Errno> {
        self.good()?;
        let result = self.try_carry::<S>(name, node, wanted);
        self.depth = 0;
        self.sticky(result)
    }

    fn try_carry<S: System>(
        &mut self,
        name: &str,
        node: &Node<'_>,
        wanted: impl Fn(&Node<'_>) -> bool,
    ) -> Result<(), Errno> {
        let mut outermost = Some(name);
        let mut level = 0usize;
        // Level of a child that is left out, while the walk is inside it.
        let mut left_out = None;
        for event in node.walk() {
            match event {
                Event::Begin(node) => {
                    level = level.saturating_add(1);
                    if left_out.is_none() && level == 2 && !wanted(&node) {
                        left_out = Some(level);
                    }
                    if left_out.is_none() {
                        self.try_begin(outermost.take().unwrap_or(node.name()))?;
                    }
                }
                Event::Prop(prop) if left_out.is_none() => {
                    if prop.is(MEM) {
                        for range in prop.value().mem().map_err(|_| EINVAL)? {
                            let range = range.map_err(|_| EINVAL)?;
                            if self.kept.overlaps(range) {
                                return Err(EADDRINUSE);
                            }
                            if let Some(page) = S::first_failed(range) {
                                log!(
                                    S,
                                    Level::Error,
                                    "the memory of /{name} at {page} failed, so it is not handed over again as it was: after \
                                     an abort, its driver can take it, or root can release it"
                                );
                                return Err(EHWPOISON);
                            }
                            self.kept.insert(range)?;
                        }
                    }
                    self.try_prop(prop.name(), prop.value().bytes())?;
                }
                Event::Prop(_) => {}
                Event::End => {
                    if left_out.is_none() {
                        self.note_end()?;
                    }
                    if left_out == Some(level) {
                        left_out = None;
                    }
                    level = level.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    fn check<S: System>(&self, range: PhysRange) -> Result<(), Errno> {
        let result = match self.limits.check::<S>(range) {
            Ok(()) if self.kept.overlaps(range) => Err((EADDRINUSE, "is kept already")),
            other => other,
        };
        result.map_err(|(error, why)| {
            log!(
                S,
                Level::Error,
                "a producer wants to keep {range}, which {why}"
            );
            error
        })
    }

    /// All memory that is kept.
    pub fn kept(&self) -> &RangeSet {
        &self.kept
    }

    /// Writes the whole tree; `root` writes the root's properties, first with a measuring writer.
    ///
    /// # Errors
    ///
    /// The error of an earlier call; the [`Errno`] of a write that failed; no memory.
    pub fn tree(
        &self,
        root: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>,
    ) -> Result<Vec<u8>, Errno> {
        self.good()?;
        let size = self.write_to(Writer::measuring(), &root)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size)?;
        bytes.resize(size, 0);
        self.write_to(Writer::new(&mut bytes), &root)?;
        Ok(bytes)
    }

    /// Writes the whole tree with `writer`. Returns the number of bytes.
    #[inline(never)]
    fn write_to(
        &self,
        mut writer: Writer<'_>,
        root: &impl Fn(&mut Writer<'_>) -> Result<(), WriteError>,
    ) -> Result<usize, Errno> {
        self.write(&mut writer, root)?;
        Ok(writer.finish()?)
    }

    fn write(
        &self,
        writer: &mut Writer<'_>,
        root: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>,
    ) -> Result<(), Errno> {
        writer.begin_node("")?;
        root(writer)?;
        for note in &self.notes {
            match note {
                Note::Begin(name) => writer.begin_node(self.text(name)?)?,
                Note::End => writer.end_node()?,
                Note::Prop(name, value) => {
                    writer.prop_bytes(self.text(name)?, self.bytes(value)?)?;
                }
            }
        }
        writer.end_node()?;
        Ok(())
    }

    fn bytes(&self, range: &Range<usize>) -> Result<&[u8], Errno> {
        self.data.get(range.clone()).ok_or(EINVAL)
    }

    fn text(&self, range: &Range<usize>) -> Result<&str, Errno> {
        core::str::from_utf8(self.bytes(range)?).map_err(|_| EINVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::EEXIST;
    use crate::fake::{Fake, with};
    use kho::tree::Reader;
    use kho::{PAGE_SIZE, PhysAddr};

    fn pages(first: u64, count: u64) -> Result<PhysRange, Errno> {
        PhysRange::new(PhysAddr::new(first * PAGE_SIZE), count * PAGE_SIZE).map_err(|_| EINVAL)
    }

    fn session() -> Session {
        let ram = RangeSet::from_ranges([pages(256, 1000).unwrap()]).unwrap();
        let scratch = Some(pages(600, 100).unwrap());
        Session::new(Limits {
            ram,
            scratch,
            held: RangeSet::new(),
        })
        .unwrap()
    }

    fn keep(list: &[Result<PhysRange, Errno>]) -> Result<(), Errno> {
        let mut session = session();
        session.begin_producer("p", RangeSet::new()).unwrap();
        session.mem::<Fake>(list.iter().copied())
    }

    #[test]
    fn what_was_written_is_in_the_tree() {
        let mut session = session();
        session.begin_producer("ring", RangeSet::new()).unwrap();
        session.prop_str("compatible", b"ring-v1").unwrap();
        session
            .mem::<Fake>([pages(300, 2), pages(256, 1)].into_iter())
            .unwrap();
        session.begin("child").unwrap();
        session.prop("x", &7u64.to_ne_bytes()).unwrap();
        session.end().unwrap();
        session.end_producer().unwrap();
        let bytes = session
            .tree(|w| w.prop_str("compatible", "root-v1"))
            .unwrap();
        let tree = Reader::new(&bytes).unwrap();
        let node = tree.path("/ring").unwrap();
        let mem = node.prop("mem").unwrap().value().mem().unwrap();
        // The ranges have the order of the producer; they are not sorted.
        assert_eq!(
            mem.map(|r| r.unwrap().start().get() / PAGE_SIZE)
                .collect::<Vec<_>>(),
            [300, 256]
        );
        let child = tree.path("/ring/child").unwrap();
        assert_eq!(child.prop("x").unwrap().value().u64(), Ok(7));
    }

    #[test]
    fn a_node_that_arrived_is_named_again_as_it_was() {
        let mut before = session();
        before.begin_producer("ring", RangeSet::new()).unwrap();
        before.prop_str("compatible", b"ring-v1").unwrap();
        before.mem::<Fake>([pages(300, 2)].into_iter()).unwrap();
        before.begin("child").unwrap();
        before.prop("x", &7u64.to_ne_bytes()).unwrap();
        before.mem::<Fake>([pages(310, 1)].into_iter()).unwrap();
        before.end().unwrap();
        before.end_producer().unwrap();
        let root = |w: &mut Writer<'_>| w.prop_str("compatible", "root-v1");
        let old = before.tree(root).unwrap();
        let old = Reader::new(&old).unwrap();
        let node = old.path("/ring").unwrap();

        let mut after = session();
        after.carry::<Fake>("ring", &node, |_| true).unwrap();
        let new = after.tree(root).unwrap();
        assert_eq!(old.bytes(), new);
        assert_eq!(after.kept().total(), 3 * PAGE_SIZE);

        let mut part = session();
        part.carry::<Fake>("ring", &node, |_| false).unwrap();
        let part = part.tree(root).unwrap();
        let part = Reader::new(&part).unwrap();
        assert!(part.path("/ring").unwrap().prop("mem").is_some());
        assert!(part.path("/ring/child").is_none());

        // The node goes beside a producer of the same name, and is refused if the same pages are kept already.
        let mut beside = session();
        beside.begin_producer("ring", RangeSet::new()).unwrap();
        beside.prop_str("compatible", b"ring-v1").unwrap();
        beside.end_producer().unwrap();
        beside.carry::<Fake>("ring,left", &node, |_| true).unwrap();
        assert_eq!(
            beside.carry::<Fake>("again", &node, |_| true),
            Err(EADDRINUSE)
        );
    }

    #[test]
    fn ranges_that_cannot_be_kept_have_their_own_errors() {
        let odd = PhysRange::new(PhysAddr::new(300 * PAGE_SIZE + 8), PAGE_SIZE).map_err(|_| EINVAL);
        assert_eq!(keep(&[odd]), Err(EINVAL));
        assert_eq!(keep(&[pages(1255, 2)]), Err(ENXIO));
        assert_eq!(keep(&[pages(599, 2)]), Err(EADDRNOTAVAIL));
        assert_eq!(keep(&[pages(300, 2), pages(301, 1)]), Err(EADDRINUSE));
        assert_eq!(keep(&[pages(300, 2), pages(302, 1)]), Ok(()));
    }

    #[test]
    fn memory_that_failed_is_not_handed_over_as_good() {
        with(|machine| machine.page(301).failed = true);
        assert_eq!(keep(&[pages(300, 2)]), Err(EHWPOISON));
        assert_eq!(keep(&[pages(300, 1), pages(302, 1)]), Ok(()));

        // Memory that arrived and that no driver took is not handed over as good either.
        let mut before = session();
        before.begin_producer("ring", RangeSet::new()).unwrap();
        before.prop_str("compatible", b"ring-v1").unwrap();
        before.mem::<Fake>([pages(310, 2)].into_iter()).unwrap();
        before.end_producer().unwrap();
        let old = before
            .tree(|w| w.prop_str("compatible", "root-v1"))
            .unwrap();
        let old = Reader::new(&old).unwrap();
        let node = old.path("/ring").unwrap();
        assert_eq!(session().carry::<Fake>("ring", &node, |_| true), Ok(()));
        with(|machine| machine.page(311).failed = true);
        assert_eq!(
            session().carry::<Fake>("ring", &node, |_| true),
            Err(EHWPOISON)
        );
    }

    #[test]
    fn an_ignored_error_ends_the_activation() {
        let mut session = session();
        session.begin_producer("p", RangeSet::new()).unwrap();
        session.prop_str("compatible", b"p-v1").unwrap();
        assert_eq!(session.prop("compatible", &[]), Err(EEXIST));
        assert_eq!(session.prop("fine", &[]), Err(EEXIST));
        assert_eq!(session.end_producer(), Err(EEXIST));
    }

    #[test]
    fn open_nodes_and_nodes_without_compatible_are_refused() {
        let mut one = session();
        one.begin_producer("p", RangeSet::new()).unwrap();
        assert_eq!(one.end_producer(), Err(EINVAL));
        let mut two = session();
        two.begin_producer("p", RangeSet::new()).unwrap();
        two.prop_str("compatible", b"p-v1").unwrap();
        two.begin("left-open").unwrap();
        assert_eq!(two.end_producer(), Err(EINVAL));
        let mut three = session();
        three.begin_producer("p", RangeSet::new()).unwrap();
        assert_eq!(
            three.end(),
            Err(EINVAL),
            "the producer's own node is not its to end"
        );
    }
}
