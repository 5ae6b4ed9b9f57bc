//! Pages of the kernel's ring buffer, in the layout of `trace_pipe_raw` and of memory.
//!
//! A page (or *sub-buffer*, several pages, since 6.8) begins with `u64 time_stamp` and `local_t commit`. Behind them
//! are `commit` bytes of events. Each event begins with a word: its low 5 bits are the type, the others the time since
//! the previous event (`struct ring_buffer_event`, `include/linux/ring_buffer.h`, and `rb_event_data_length`,
//! `kernel/trace/ring_buffer.c`, 6.1 to 7.3). The file `events/header_page` states the offsets of the members.

use crate::bytes::{u32_at, u64_at};
use crate::format::Field;
use thiserror::Error;

/// Smallest sub-buffer.
pub const PAGE: usize = 4096;
/// Largest accepted sub-buffer (`buffer_subbuf_size_kb` allows 2^7 pages of 4 KiB).
pub const MAX_PAGE: usize = 128 * PAGE;
/// Bits of `commit` that are a length; above are flags (`RB_MISSED_EVENTS` 1 << 31, `RB_MISSED_STORED` 1 << 30).
const COMMIT_MASK: u64 = (1 << 27) - 1;
const MISSED: u64 = 1 << 31;
const MISSED_STORED: u64 = 1 << 30;

const PADDING: u32 = 29;
const TIME_EXTEND: u32 = 30;
const TIME_STAMP: u32 = 31;
/// Bits of a time stamp that an event cannot hold (`TS_MSB`).
const TS_MSB: u64 = 0xf8 << 56;

/// Offsets of the members of a page, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// Offset of `commit`.
    pub commit: usize,
    /// Size of `commit`, in bytes.
    pub commit_size: usize,
    /// Offset of the first event.
    pub data: usize,
}

/// The layout on 64-bit machines, from 6.1 to 7.3.
impl Default for PageLayout {
    fn default() -> Self {
        Self {
            commit: 8,
            commit_size: 8,
            data: 16,
        }
    }
}

/// Reason why a page cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PageError {
    /// The file `header_page` does not state the offset of a member.
    #[error("header_page does not say where `{0}` is")]
    Header(&'static str),
    /// The page is too short for its header.
    #[error("a page of {0:#x} bytes has no header")]
    Short(usize),
    /// More committed bytes than the page has.
    #[error("{commit:#x} committed bytes in a page with room for {room:#x}")]
    Commit {
        /// Number of bytes that the page states.
        commit: u64,
        /// Number of bytes that the page can have.
        room: usize,
    },
    /// An event that does not fit its page.
    #[error("the event at byte {at:#x} of a page reaches beyond its {end:#x} bytes")]
    Event {
        /// Offset of the event, in bytes from the first event on.
        at: usize,
        /// Bytes of all events.
        end: usize,
    },
}

impl PageLayout {
    /// Reads `events/header_page`.
    ///
    /// # Errors
    ///
    /// [`PageError::Header`].
    pub fn parse(header_page: &str) -> Result<Self, PageError> {
        let field = |name: &'static str| {
            header_page
                .lines()
                .filter_map(Field::parse)
                .find(|field| field.name == name)
                .ok_or(PageError::Header(name))
        };
        let (commit, data) = (field("commit")?, field("data")?);
        if !matches!(commit.size, 4 | 8) || data.offset > PAGE || commit.offset > PAGE {
            return Err(PageError::Header("commit"));
        }
        Ok(Self {
            commit: commit.offset,
            commit_size: commit.size,
            data: data.offset,
        })
    }

    /// Whether the copy of a page was still whole when `header` was read after it: a page that is being overwritten
    /// first has fewer committed bytes, and then another time.
    pub(crate) fn still_holds(&self, copied: &[u8], header: &[u8]) -> bool {
        let commit = |bytes: &[u8]| {
            let word = crate::bytes::uint_at(bytes, self.commit, self.commit_size)?;
            Some(word & COMMIT_MASK)
        };
        u64_at(copied, 0) == u64_at(header, 0)
            && commit(header).is_some_and(|now| commit(copied).is_some_and(|then| then <= now))
    }
}

/// One page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Time of the page, in units of the trace clock.
    pub time: u64,
    /// Number of events lost before the first one: `None` if none were lost, 0 if the number is not known.
    pub missed: Option<u64>,
    events: &'a [u8],
}

/// One event of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Time of the event, in units of the trace clock.
    pub time: u64,
    /// The record, which starts with the common fields.
    pub data: &'a [u8],
    /// Offset of the event, in bytes from the first event of the page on.
    pub at: usize,
}

impl<'a> Page<'a> {
    /// Reads the header of a page.
    ///
    /// # Errors
    ///
    /// [`PageError`].
    pub fn new(bytes: &'a [u8], layout: &PageLayout) -> Result<Self, PageError> {
        let short = PageError::Short(bytes.len());
        let time = u64_at(bytes, 0).ok_or(short)?;
        let commit =
            crate::bytes::uint_at(bytes, layout.commit, layout.commit_size).ok_or(short)?;
        let room = bytes.get(layout.data..).ok_or(short)?;
        let len = commit & COMMIT_MASK;
        let events = usize::try_from(len)
            .ok()
            .and_then(|len| room.get(..len))
            .ok_or(PageError::Commit {
                commit: len,
                room: room.len(),
            })?;
        let missed = (commit & MISSED != 0).then(|| {
            let stored = (commit & MISSED_STORED != 0)
                .then(|| u64_at(room, events.len()))
                .flatten();
            stored.unwrap_or(0)
        });
        Ok(Self {
            time,
            missed,
            events,
        })
    }

    /// Returns the number of committed bytes.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether the page has no committed bytes.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Returns the time of the last event that can be read; the time of the page if no event can be read.
    pub fn newest(&self) -> u64 {
        let last = self.events().map_while(Result::ok).last();
        last.map_or(self.time, |event| event.time)
    }

    /// Its events in order. After an error the iterator ends.
    pub fn events(&self) -> Events<'a> {
        Events {
            bytes: self.events,
            at: 0,
            time: self.time,
        }
    }
}

/// Iterator over the events of a page.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    bytes: &'a [u8],
    at: usize,
    time: u64,
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, PageError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.bytes.len() {
            let at = self.at;
            match self.step() {
                Some(Some(event)) => return Some(Ok(event)),
                Some(None) => {}
                None => {
                    self.at = self.bytes.len();
                    let end = self.bytes.len();
                    return Some(Err(PageError::Event { at, end }));
                }
            }
        }
        None
    }
}

impl<'a> Events<'a> {
    /// Moves past one event. Outer `None` if the event does not fit, inner `None` if it is not a record.
    fn step(&mut self) -> Option<Option<Event<'a>>> {
        let at = self.at;
        let head = u32_at(self.bytes, at)?;
        let (kind, delta) = (head & 31, u64::from(head >> 5));
        let body = at.checked_add(4)?;
        let second = || u32_at(self.bytes, body);
        let (start, end) = match kind {
            PADDING if delta == 0 => {
                // The rest of the page is empty.
                self.at = self.bytes.len();
                return Some(None);
            }
            TIME_EXTEND | TIME_STAMP => {
                let value = (u64::from(second()?) << 27) | delta;
                self.time = if kind == TIME_EXTEND {
                    self.time.wrapping_add(value)
                } else {
                    absolute(value, self.time)
                };
                self.at = body.checked_add(4)?;
                return Some(None);
            }
            PADDING | 0 => {
                let len = usize::try_from(second()?).ok()?;
                // The length includes the word that holds it.
                (body.checked_add(4)?, body.checked_add(len)?)
            }
            words => (body, body.checked_add(usize::try_from(words).ok()? * 4)?),
        };
        let data = self.bytes.get(start..end)?;
        self.at = end.checked_next_multiple_of(4)?.min(self.bytes.len());
        self.time = self.time.wrapping_add(delta);
        Some((kind != PADDING).then_some(Event {
            time: self.time,
            data,
            at,
        }))
    }
}

/// A time stamp of 59 bits with the missing ones of `before` (`rb_fix_abs_ts`).
fn absolute(value: u64, before: u64) -> u64 {
    if before & TS_MSB == 0 {
        return value;
    }
    let full = value | (before & TS_MSB);
    if full < before {
        full.wrapping_add(1 << 59)
    } else {
        full
    }
}

/// Returns the part of a page that no reader has read: the events from byte `read` on, as a page in the form that
/// `ring_buffer_read_page` would return. `None` if no event is left.
///
/// # Errors
///
/// [`PageError`].
pub fn unread(
    bytes: &[u8],
    layout: &PageLayout,
    read: usize,
) -> Result<Option<Vec<u8>>, PageError> {
    let page = Page::new(bytes, layout)?;
    if read == 0 {
        return Ok((!page.is_empty()).then(|| bytes.to_vec()));
    }
    if read >= page.len() {
        return Ok(None);
    }
    for event in page.events() {
        let event = event?;
        if event.at < read {
            continue;
        }
        // The first event keeps its delta, so the page gets the time before that event.
        let delta = u32_at(page.events, event.at).unwrap_or(0) >> 5;
        let time = event.time.wrapping_sub(u64::from(delta));
        let rest = page.events.get(event.at..).unwrap_or_default();
        let mut out = vec![0; bytes.len()];
        put(&mut out, 0, &time.to_le_bytes());
        let commit = (rest.len() as u64).to_le_bytes();
        let commit = commit.get(..layout.commit_size).unwrap_or_default();
        put(&mut out, layout.commit, commit);
        put(&mut out, layout.data, rest);
        return Ok(Some(out));
    }
    Ok(None)
}

/// Copies `bytes` to offset `at`, if there is room for them.
fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    let end = at.saturating_add(bytes.len());
    if let Some(room) = out.get_mut(at..end) {
        room.copy_from_slice(bytes);
    }
}
