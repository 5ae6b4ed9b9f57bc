//! One serialization: what producers write, checked as they write it.
//!
//! Calls are noted and the tree is written from the notes when every producer is done, because the buffer
//! that the tree needs is known only then.

use crate::boundary::kernel::zeros;
use crate::boundary::pages::none_reserved;
use crate::errno::{
    EADDRINUSE, EADDRNOTAVAIL, EBUSY, EINVAL, ENXIO, Errno,
};
use crate::text::{Level, log};
use alloc::vec::Vec;
use kho::abi::{COMPATIBLE, MEM};
use kho::tree::{WriteError, Writer};
use kho::{PhysRange, RangeSet};
use core::ops::Range;

/// What the machine allows to keep.
#[derive(Debug)]
pub struct Limits {
    /// RAM that pages may be kept in.
    pub ram: RangeSet,
    /// Where the next kernel goes, once that is known.
    pub scratch: Option<PhysRange>,
}

enum Note {
    Begin(Range<usize>),
    End,
    Prop(Range<usize>, Range<usize>),
}

/// The notes of one activation.
pub struct Session {
    notes: Vec<Note>,
    data: Vec<u8>,
    /// Checks names, nesting and duplicates as the real writer will.
    measure: Writer<'static>,
    kept: RangeSet,
    limits: Limits,
    depth: usize,
    has_compatible: bool,
    error: Option<Errno>,
}

impl Session {
    /// Nothing written yet; the root is open.
    ///
    /// # Errors
    ///
    /// No memory.
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

    /// The producer's node is open from here to [`end_producer`](Self::end_producer).
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub fn begin_producer(&mut self, name: &str) -> Result<(), Errno> {
        self.has_compatible = false;
        self.begin(name)
    }

    /// Ends the producer's node.
    ///
    /// # Errors
    ///
    /// An error that the producer ignored; [`EINVAL`] when it left a node open or has no `compatible`.
    pub fn end_producer(&mut self) -> Result<(), Errno> {
        self.good()?;
        if self.depth != 1 || !self.has_compatible {
            return Err(EINVAL);
        }
        self.depth = 0;
        self.note_end()
    }

    /// Remembers the first error, so that no producer can ignore it.
    fn sticky<T>(&mut self, result: Result<T, Errno>) -> Result<T, Errno> {
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
    /// What is wrong with the name; no memory; an earlier error.
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
    /// [`EINVAL`] for the producer's own node; an earlier error.
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

    /// A property.
    ///
    /// # Errors
    ///
    /// What is wrong with it; no memory; an earlier error.
    pub fn prop(&mut self, name: &str, value: &[u8]) -> Result<(), Errno> {
        self.good()?;
        // `mem` means pages: only `mem` below may write one.
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

    /// A string property.
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

    /// The `mem` property.
    ///
    /// # Errors
    ///
    /// See `kho_prop_mem` in `include/kho.h`.
    pub fn mem(
        &mut self,
        ranges: impl Iterator<Item = Result<PhysRange, Errno>>,
    ) -> Result<(), Errno> {
        self.good()?;
        let result = self.try_mem(ranges);
        self.sticky(result)
    }

    fn try_mem(
        &mut self,
        ranges: impl Iterator<Item = Result<PhysRange, Errno>>,
    ) -> Result<(), Errno> {
        let mut value: Vec<u8> = Vec::new();
        for range in ranges {
            let range = range?;
            self.check(range)?;
            self.kept.insert(range)?;
            value.try_reserve(16)?;
            value.extend_from_slice(&range.start().get().to_ne_bytes());
            value.extend_from_slice(&range.len().to_ne_bytes());
        }
        self.try_prop(MEM, &value)
    }

    fn check(&self, range: PhysRange) -> Result<(), Errno> {
        let (error, why) = if !range.is_page_aligned() {
            (EINVAL, "is not page-aligned")
        } else if !self.limits.ram.contains_range(range) {
            (ENXIO, "is not RAM that a handover may use")
        } else if self.limits.scratch.is_some_and(|s| s.overlaps(range)) {
            (EADDRNOTAVAIL, "is in scratch")
        } else if self.kept.overlaps(range) {
            (EADDRINUSE, "is kept already")
        } else if !none_reserved(range) {
            (EBUSY, "is reserved")
        } else {
            return Ok(());
        };
        log!(Level::Error, "a producer wants to keep {range}, which {why}");
        Err(error)
    }

    /// Everything that is kept.
    pub fn kept(&self) -> &RangeSet {
        &self.kept
    }

    /// The whole tree; `root` writes the root's properties, first with a measuring writer.
    ///
    /// # Errors
    ///
    /// An earlier error; [`Errno`] of what is wrong; no memory.
    pub fn tree(
        &self,
        root: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>,
    ) -> Result<Vec<u8>, Errno> {
        self.good()?;
        let mut measure = Writer::measuring();
        self.write(&mut measure, &root)?;
        let mut bytes = zeros(measure.finish()?)?;
        let mut writer = Writer::new(&mut bytes);
        self.write(&mut writer, &root)?;
        writer.finish()?;
        Ok(bytes)
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
