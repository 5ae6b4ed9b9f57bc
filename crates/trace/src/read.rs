//! A trace as events in the order of time.

use crate::bytes::uint_at;
use crate::eval::Scope;
use crate::expr::Expr;
use crate::expr::Print;
use crate::format::{EventFormat, Field};
use crate::ftrace::Line;
use crate::meta::{ArrayMeta, Meta};
use crate::names::Names;
use crate::printf::push_safe;
use crate::ring::{Event, Events, MAX_PAGE, PAGE, Page, PageError, PageLayout};
use crate::value::{Value, hex, time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;
use thiserror::Error;

/// The pages of one CPU of one array.
#[derive(Clone, Copy, Debug)]
pub struct Buffer<'a> {
    /// Name of the array; empty for the top level.
    pub array: &'a str,
    /// The CPU.
    pub cpu: u32,
    /// Bytes of a page (a *sub-buffer*).
    pub page_size: usize,
    /// The pages, oldest first.
    pub bytes: &'a [u8],
}

/// A page that cannot be trusted from some event on. The pages around it can.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}CPU {cpu}, page {page}: {what}", Instance(array))]
pub struct BufferProblem {
    /// Name of the array.
    pub array: String,
    /// The CPU.
    pub cpu: u32,
    /// The page, from 0.
    pub page: usize,
    /// The error.
    pub what: PageError,
}

struct Instance<'a>(&'a str);

impl std::fmt::Display for Instance<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, "instance {}, ", self.0)
        }
    }
}

/// Everything needed to understand records.
pub struct Knowledge {
    /// Layout of pages.
    pub layout: PageLayout,
    /// Names of tasks and symbols, and strings.
    pub names: Names,
    formats: BTreeMap<u16, EventFormat>,
    version: (u32, u32),
    /// Target events of event probes, by folder and name of the probe.
    probed: BTreeMap<(String, String), String>,
}

/// One event, with the buffer in which it was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Index of the buffer in which the event was recorded.
    pub buffer: usize,
    /// The event.
    pub event: Event<'a>,
    /// Number of events lost right before this one: `None` if none were lost, 0 if the number is not known.
    pub missed: Option<u64>,
}

impl Knowledge {
    /// Creates a reader from the description of a trace. Formats that are not understood are left out: the reader shows
    /// their events as bytes.
    ///
    /// # Errors
    ///
    /// [`PageError::Header`] if pages cannot be read at all.
    pub fn new(meta: &Meta) -> Result<Self, PageError> {
        let formats = meta
            .events
            .iter()
            .filter_map(|event| EventFormat::parse(&event.system, &event.format).ok())
            .map(|format| (format.id, format))
            .collect();
        Ok(Self {
            layout: PageLayout::parse(&meta.header_page)?,
            names: Names::parse(
                &meta.cmdlines,
                &meta.tgids,
                &meta.printk_formats,
                &meta.symbols,
            ),
            formats,
            version: version(&meta.release),
            probed: meta.probes.lines().filter_map(probed).collect(),
        })
    }

    /// The format of a record.
    pub fn format(&self, record: &[u8]) -> Option<&EventFormat> {
        self.formats.get(&kind(record)?)
    }

    /// The task of a record.
    pub fn pid(record: &[u8]) -> u32 {
        uint_at(record, 4, 4)
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0)
    }

    /// Interrupt and preemption state as the kernel shows it, 5 letters (`trace_print_lat_fmt`,
    /// `kernel/trace/trace_output.c`). Bit 1 is 7.x's lazy rescheduling; earlier kernels never set it on x86.
    pub fn flags(record: &[u8]) -> String {
        let byte = |at: usize| record.get(at).copied().unwrap_or(0);
        let (flags, count) = (byte(2), byte(3));
        let set = |bit: u8| flags & bit != 0;
        let off = match (set(0x01), set(0x80)) {
            (true, true) => 'D',
            (true, false) => 'd',
            (false, true) => 'b',
            _ => '.',
        };
        let resched = match (set(0x04), set(0x02), set(0x20)) {
            (true, true, true) => 'B',
            (true, false, true) => 'N',
            (false, true, true) => 'L',
            (true, true, false) => 'b',
            (true, false, false) => 'n',
            (false, true, false) => 'l',
            (false, false, true) => 'p',
            _ => '.',
        };
        let (nmi, hard, soft) = (set(0x40), set(0x08), set(0x10));
        let context = match (nmi, hard, soft) {
            (true, true, _) => 'Z',
            (true, ..) => 'z',
            (_, true, true) => 'H',
            (_, true, _) => 'h',
            (_, _, true) => 's',
            _ => '.',
        };
        let digit = |value: u8| match value {
            0 => '.',
            value => char::from_digit(u32::from(value), 16).unwrap_or('.'),
        };
        [off, resched, context, digit(count & 0xf), digit(count >> 4)]
            .iter()
            .collect()
    }

    /// Returns the text of an event of an array, as the kernel's file `trace` shows it, without control characters.
    pub fn body(&self, array: Option<&ArrayMeta>, event: &Event<'_>) -> String {
        let record = event.data;
        let mut out = String::new();
        let Some(format) = self.format(record) else {
            let id = kind(record).unwrap_or(0);
            let rest = record.get(8..).unwrap_or_default();
            let _ = write!(out, "unknown event {id}: {}", hex(rest, " "));
            return out;
        };
        let line = Line {
            names: &self.names,
            format,
            event,
            array,
            version: self.version,
        };
        let text = line.body().unwrap_or_else(|| {
            let shown = self
                .printed(format, record)
                .unwrap_or_else(|| fields_text(format, record));
            format!("{}: {shown}", format.name)
        });
        push_safe(&mut out, text.trim_end_matches('\n'));
        out
    }

    /// Returns the line that the `print fmt` makes of a record. `None` if it makes none.
    fn printed(&self, format: &EventFormat, record: &[u8]) -> Option<String> {
        let print = format.print.as_ref()?;
        let scope = Scope {
            format,
            record,
            names: &self.names,
        };
        // Probes: the kernel shows a symbol where the format has a number (`print_kprobe_event`).
        let probe = ["__probe_ip", "__probe_func"]
            .iter()
            .any(|name| format.field(name).is_some());
        if probe && let Some(rest) = print.template.strip_prefix(b"(%lx") {
            let mut changed = print.clone();
            changed.template = match rest.strip_prefix(b" <- %lx") {
                Some(rest) => {
                    // The function is the first argument; the line shows the return address first.
                    changed.arguments.swap(0, 1);
                    [b"(%pS <- %ps", rest].concat()
                }
                None => [b"(%pS", rest].concat(),
            };
            return scope.line(&with_faults(changed, format, record));
        }
        let line = scope.line(print)?;
        let key = (format.system.clone(), format.name.clone());
        Some(match self.probed.get(&key) {
            Some(event) => format!("({event}){line}"),
            None => line,
        })
    }

    /// The line of an event as the kernel's file `trace` has it.
    pub fn line(&self, meta: &Meta, buffer: &Buffer<'_>, event: &Event<'_>) -> String {
        let array = meta.array(buffer.array);
        let pid = Self::pid(event.data);
        let mut out = String::new();
        let mut task = String::new();
        push_safe(&mut task, self.names.task(pid));
        let _ = write!(out, "{task:>16}-{pid:<7} ");
        if array.is_some_and(|a| a.option("record-tgid", false)) {
            let _ = match self.names.group(pid) {
                Some(group) => write!(out, "({group:>7}) "),
                None => write!(out, "(-------) "),
            };
        }
        let _ = write!(out, "[{:03}] ", buffer.cpu);
        if array.is_none_or(|a| a.option("irq-info", true)) {
            out.push_str(&Self::flags(event.data));
        }
        let _ = write!(
            out,
            " {}: ",
            time(event.time, array.is_none_or(|a| a.in_ns()))
        );
        out.push_str(&self.body(array, event));
        out
    }

    /// Name and value of each field of an event, for scripts.
    pub fn fields(&self, record: &[u8]) -> serde_json::Map<String, serde_json::Value> {
        let Some(format) = self.format(record) else {
            return serde_json::Map::new();
        };
        format
            .own_fields()
            .filter_map(|field| Some((field.name.clone(), field_json(field, record)?)))
            .collect()
    }
}

/// Folder, name and event of a line `e:FOLDER/NAME SYSTEM.EVENT …` of `dynamic_events` (`eprobe_dyn_event_show`,
/// `kernel/trace/trace_eprobe.c`, 6.1 to 7.3); `None` for another kind of probe.
fn probed(line: &str) -> Option<((String, String), String)> {
    let mut words = line.strip_prefix("e:")?.split_whitespace();
    let (folder, name) = words.next()?.split_once('/')?;
    Some((
        (folder.to_owned(), name.to_owned()),
        words.next()?.to_owned(),
    ))
}

/// Returns the first two numbers of a release; 0 for a number that is missing.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The number of a record's kind.
pub fn kind(record: &[u8]) -> Option<u16> {
    uint_at(record, 0, 2).and_then(|id| u16::try_from(id).ok())
}

/// Strings of a probe that could not be read are shown as `(fault)`, without quotes: their length is 0
/// (`print_type_string`, `kernel/trace/trace_probe.c`). Templates of probes have one directive for each argument.
fn with_faults(print: Print, format: &EventFormat, record: &[u8]) -> Print {
    let is_fault = |argument: &Expr| {
        let Expr::Call(name, arguments) = argument else {
            return false;
        };
        let Some(Expr::Name(field)) = arguments.first() else {
            return false;
        };
        name == "__get_str"
            && format
                .field(field)
                .and_then(|field| field.bytes(record))
                .is_some_and(<[u8]>::is_empty)
    };
    if !print.arguments.iter().any(is_fault) {
        return print;
    }
    let mut changed = Print {
        template: Vec::new(),
        arguments: Vec::new(),
    };
    let mut rest = print.template.as_slice();
    for argument in print.arguments {
        let Some(at) = rest.iter().position(|byte| *byte == b'%') else {
            break;
        };
        let (before, after) = rest.split_at(at);
        rest = after;
        if is_fault(&argument)
            && let Some(behind) = after.strip_prefix(b"%s\"")
            && let Some(before) = before.strip_suffix(b"\"")
        {
            changed.template.extend_from_slice(before);
            changed.template.extend_from_slice(b"(fault)");
            rest = behind;
            continue;
        }
        changed.template.extend_from_slice(before);
        changed.template.push(b'%');
        rest = rest.get(1..).unwrap_or_default();
        changed.arguments.push(argument);
    }
    changed.template.extend_from_slice(rest);
    changed
}

fn field_json(field: &Field, record: &[u8]) -> Option<serde_json::Value> {
    if field.is_text() {
        let text =
            String::from_utf8_lossy(crate::bytes::until_nul(field.bytes(record)?)).into_owned();
        return Some(text.into());
    }
    if let Some(size) = field.element {
        let bytes = field.bytes(record)?;
        let items = bytes
            .chunks_exact(size.max(1))
            .filter_map(|item| uint_at(item, 0, item.len()));
        return Some(items.collect::<Vec<_>>().into());
    }
    let bits = field.integer(record)?;
    Some(if field.signed {
        bits.cast_signed().into()
    } else {
        bits.into()
    })
}

/// Returns `name=value` for each field, for a format whose line cannot be made.
fn fields_text(format: &EventFormat, record: &[u8]) -> String {
    let fields: Vec<String> = format
        .own_fields()
        .filter_map(|field| Some(format!("{}={}", field.name, field_json(field, record)?)))
        .collect();
    fields.join(" ")
}

/// A buffer while it is read.
struct Stream<'a> {
    buffer: Buffer<'a>,
    page: usize,
    events: Option<Events<'a>>,
    missed: Option<u64>,
    /// Whether events of a damaged page were left out since the last event.
    damaged: bool,
}

/// The events of several buffers, merged by time; equal times in the order of the buffers.
pub struct Merge<'a> {
    layout: PageLayout,
    streams: Vec<Stream<'a>>,
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    waiting: Vec<Option<(Event<'a>, Option<u64>)>>,
    problems: Vec<BufferProblem>,
}

impl<'a> Merge<'a> {
    /// Creates an iterator that begins with the oldest event.
    pub fn new(buffers: &[Buffer<'a>], layout: PageLayout) -> Self {
        let mut merge = Self {
            layout,
            streams: Vec::new(),
            heap: BinaryHeap::new(),
            waiting: vec![None; buffers.len()],
            problems: Vec::new(),
        };
        for (index, buffer) in buffers.iter().enumerate() {
            merge.streams.push(Stream {
                buffer: *buffer,
                page: 0,
                events: None,
                missed: None,
                damaged: false,
            });
            merge.advance(index);
        }
        merge
    }

    /// Returns the pages that could not be read so far, with the errors.
    pub fn problems(&self) -> &[BufferProblem] {
        &self.problems
    }

    /// Gets the next event of one buffer. A page that cannot be read costs its own events only.
    fn advance(&mut self, index: usize) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        loop {
            match stream.next(&self.layout) {
                Ok(Some(found)) => {
                    self.heap.push(Reverse((found.0.time, index)));
                    if let Some(place) = self.waiting.get_mut(index) {
                        *place = Some(found);
                    }
                    return;
                }
                Ok(None) => return,
                Err(what) => self.problems.push(BufferProblem {
                    array: stream.buffer.array.to_owned(),
                    cpu: stream.buffer.cpu,
                    page: stream.page.saturating_sub(1),
                    what,
                }),
            }
        }
    }
}

impl<'a> Stream<'a> {
    /// Returns the next event, and the number of events that were lost before it: 0 if the number is not known.
    fn next(&mut self, layout: &PageLayout) -> Result<Option<(Event<'a>, Option<u64>)>, PageError> {
        let found = self.next_or_damage(layout);
        self.damaged |= found.is_err();
        found
    }

    fn next_or_damage(
        &mut self,
        layout: &PageLayout,
    ) -> Result<Option<(Event<'a>, Option<u64>)>, PageError> {
        let size = self.buffer.page_size;
        if !(PAGE..=MAX_PAGE).contains(&size) {
            // Without a valid size the buffer cannot be split into pages.
            self.buffer.page_size = PAGE;
            self.buffer.bytes = &[];
            return Err(PageError::Short(size));
        }
        loop {
            if let Some(event) = self.events.as_mut().and_then(Iterator::next) {
                let event = event?;
                let damaged = std::mem::take(&mut self.damaged).then_some(0);
                return Ok(Some((event, self.missed.take().or(damaged))));
            }
            let start = self.page.saturating_mul(size).min(self.buffer.bytes.len());
            let rest = self.buffer.bytes.get(start..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(None);
            }
            self.page += 1;
            let bytes = rest.get(..size).ok_or(PageError::Short(rest.len()))?;
            let page = Page::new(bytes, layout)?;
            self.missed = page.missed;
            self.events = Some(page.events());
        }
    }
}

impl<'a> Iterator for Merge<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let Reverse((_, buffer)) = self.heap.pop()?;
        let (event, missed) = self.waiting.get_mut(buffer)?.take()?;
        self.advance(buffer);
        Some(Record {
            buffer,
            event,
            missed,
        })
    }
}

// Values of records are borrowed or small.
const _: () = assert!(size_of::<Value<'_>>() <= 64);
