//! The ring buffers of the running kernel, read in place.
//!
//! A per-CPU buffer is a ring of `struct buffer_page`, each with its data page, and one more page, the *reader page*,
//! which the kernel took out of the ring for the reader. In order of time come the unread part of the reader page, then
//! the pages of the ring from the *head* up to the page to which the kernel commits (`kernel/trace/ring_buffer.c`, 6.1
//! to 7.3). The pointer to the head has one of its low two bits set (`RB_PAGE_HEAD`, `RB_PAGE_UPDATE`).
//!
//! Tracing goes on while this module reads, and other readers may consume pages meanwhile. User space cannot lock the
//! buffer, so this module reads everything twice:
//!
//! * the walk over the ring has to close after the number of pages that the kernel states, has to find a head, and has
//!   to find the same reader page before and after;
//! * a page counts only if its header after the copy still fits the copied header: the same time stamp, and at least as
//!   many committed bytes. A writer takes a page by setting `commit` to 0 before it writes an event, and writes a new
//!   time stamp before it commits one (`rb_tail_page_update`, `__rb_reserve_next`). Events up to `commit` do not change
//!   any more (`rb_set_commit_to_write`);
//! * after the copies, every page still has to belong to the ring, with the same data page. A page that a reader took
//!   out, or that the kernel freed when it shrank the buffer, may by then hold bytes of another user of that memory.

use crate::btf::{BtfError, Structs};
use crate::bytes::{u64_at, uint_at, until_nul};
use crate::ring::{PAGE, Page, PageLayout, unread};
use std::collections::BTreeSet;
use thiserror::Error;

/// Most pages of a ring: 64 GiB of 4 KiB pages.
const MAX_PAGES: u64 = 16 << 20;
/// Most arrays; each is a folder of `instances`.
const MAX_ARRAYS: usize = 4096;
/// Most walks over a ring that changes during each of them.
const TRIES: usize = 20;

/// Kernel memory by virtual address.
pub trait KernelMemory {
    /// Fills `buf` with the bytes at `addr`.
    ///
    /// # Errors
    ///
    /// If the memory cannot be read: the reason.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), String>;
}

/// Reason why a buffer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LiveError {
    /// Memory that cannot be read.
    #[error("{0}")]
    Memory(String),
    /// Offsets that the kernel does not state.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A value that the structure cannot have: the memory does not hold the structure that it should.
    #[error("{what} is {value:#x}, which cannot be")]
    Value {
        /// Name of the value.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// The ring changed during every walk.
    #[error("the ring buffer changed under every one of {TRIES} walks")]
    Busy,
}

/// Offsets of the members of the kernel's structures, and sizes of these, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    array: [usize; 3],
    array_buffer: usize,
    /// Offset of the array's second buffer; `None` on kernels that have no such buffer.
    snapshot: Option<usize>,
    buffers: usize,
    cpu: [usize; 5],
    cpu_size: usize,
    page: [usize; 3],
    page_size: usize,
    order: Option<usize>,
}

const STRUCTS: [&str; 5] = [
    "trace_array",
    "array_buffer",
    "trace_buffer",
    "ring_buffer_per_cpu",
    "buffer_page",
];

impl Offsets {
    /// Reads the offsets from the kernel's BTF.
    ///
    /// # Errors
    ///
    /// [`BtfError`].
    pub fn new(btf: &[u8]) -> Result<Self, BtfError> {
        let structs = Structs::parse(btf, &STRUCTS)?;
        let (array, _) = structs.offsets("trace_array", ["list", "name", "array_buffer"])?;
        // The buffer of a snapshot or a latency tracer (CONFIG_TRACER_SNAPSHOT); 7.x renamed it.
        let snapshot = ["max_buffer", "snapshot_buffer"]
            .into_iter()
            .find_map(|name| structs.offsets("trace_array", [name]).ok())
            .map(|([at], _)| at);
        let ([array_buffer], _) = structs.offsets("array_buffer", ["buffer"])?;
        let ([buffers], _) = structs.offsets("trace_buffer", ["buffers"])?;
        let (cpu, cpu_size) = structs.offsets(
            "ring_buffer_per_cpu",
            ["cpu", "nr_pages", "head_page", "commit_page", "reader_page"],
        )?;
        let (page, page_size) = structs.offsets("buffer_page", ["list", "read", "page"])?;
        // Sub-buffers of several pages exist since 6.8.
        let order = structs
            .offsets("buffer_page", ["order"])
            .ok()
            .map(|([at], _)| at);
        if !(8..=PAGE).contains(&cpu_size) || !(8..=PAGE).contains(&page_size) {
            return Err(BtfError::Format("a struct has an impossible size"));
        }
        Ok(Self {
            array,
            array_buffer,
            snapshot,
            buffers,
            cpu,
            cpu_size,
            page,
            page_size,
            order,
        })
    }
}

/// One page that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct LivePage {
    /// Time at which the page began, in units of the trace clock.
    pub time: u64,
    /// Time of the page's newest event: on a quiet CPU long after the page began.
    pub newest: u64,
    /// All of its bytes.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for LivePage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "page of {:#x} bytes at {}", self.bytes.len(), self.time)
    }
}

/// The buffer of one CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveBuffer {
    /// Bytes of a page.
    pub page_size: usize,
    /// Pages that are unread, oldest first.
    pub pages: Vec<LivePage>,
    /// Number of pages that tracing overwrote, or that a reader took out, while they were read, or that exceed the
    /// limit.
    pub left_out: u64,
}

/// One trace array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveArray {
    /// Its name; empty for the top level.
    pub name: String,
    /// Address of its buffer.
    pub buffer: u64,
    /// Address of the buffer in which a snapshot or a latency tracer saved events; `None` if the array has no such
    /// buffer. The buffer may be empty.
    pub snapshot: Option<u64>,
}

/// The kernel's trace arrays.
pub struct Live<'m> {
    memory: &'m dyn KernelMemory,
    offsets: Offsets,
    layout: PageLayout,
}

impl<'m> Live<'m> {
    /// Reads through `memory`.
    pub fn new(memory: &'m dyn KernelMemory, offsets: Offsets, layout: PageLayout) -> Self {
        Self {
            memory,
            offsets,
            layout,
        }
    }

    fn bytes(&self, addr: u64, len: usize) -> Result<Vec<u8>, LiveError> {
        let mut buf = vec![0; len];
        self.memory
            .read(addr, &mut buf)
            .map_err(LiveError::Memory)?;
        Ok(buf)
    }

    fn word(&self, addr: u64, offset: usize) -> Result<u64, LiveError> {
        let addr = addr.checked_add(offset as u64).ok_or(LiveError::Value {
            what: "a kernel address",
            value: addr,
        })?;
        let bytes = self.bytes(addr, 8)?;
        Ok(u64_at(&bytes, 0).unwrap_or(0))
    }

    /// Name and buffer of every array, from the addresses of `ftrace_trace_arrays` (the list of all) and of
    /// `global_trace` (the top level, which gets the empty name).
    ///
    /// # Errors
    ///
    /// [`LiveError`].
    pub fn arrays(&self, list: u64, global: u64) -> Result<Vec<LiveArray>, LiveError> {
        let mut found = self.list(list, global);
        // The pointers of an instance that is being removed may lead anywhere, so a failed walk is repeated.
        for _ in 1..TRIES {
            if found.is_ok() {
                break;
            }
            found = self.list(list, global);
        }
        found
    }

    fn list(&self, list: u64, global: u64) -> Result<Vec<LiveArray>, LiveError> {
        let [link, name, buffer] = self.offsets.array;
        let mut arrays = Vec::new();
        let mut at = self.word(list, 0)?;
        while at != list {
            if arrays.len() >= MAX_ARRAYS {
                return Err(LiveError::Value {
                    what: "the number of trace arrays",
                    value: arrays.len() as u64,
                });
            }
            let array = at.wrapping_sub(link as u64);
            let name = match self.word(array, name)? {
                _ if array == global => String::new(),
                0 => String::from("?"),
                // The kernel allocates names; a name may lie at the end of a page, so `text` reads no further than that
                // page.
                text => self.text(text)?,
            };
            let of = |at: usize| self.word(array, at.saturating_add(self.offsets.array_buffer));
            arrays.push(LiveArray {
                name,
                buffer: of(buffer)?,
                snapshot: match self.offsets.snapshot {
                    Some(at) => Some(of(at)?).filter(|buffer| *buffer != 0),
                    None => None,
                },
            });
            at = self.word(at, 0)?;
        }
        Ok(arrays)
    }

    fn text(&self, addr: u64) -> Result<String, LiveError> {
        // Read to the end of the page at most: the next page may not be memory.
        let room = PAGE as u64 - addr % PAGE as u64;
        let bytes = self.bytes(addr, usize::try_from(room.min(256)).unwrap_or(256))?;
        Ok(String::from_utf8_lossy(until_nul(&bytes)).into_owned())
    }

    /// Reads the buffer of one CPU, at most its newest `limit` bytes. `None` if the CPU has no buffer.
    ///
    /// # Errors
    ///
    /// [`LiveError`].
    pub fn cpu(&self, buffer: u64, cpu: u32, limit: u64) -> Result<Option<LiveBuffer>, LiveError> {
        let table = self.word(buffer, self.offsets.buffers)?;
        let slot = table.wrapping_add(8 * u64::from(cpu));
        let cpu_buffer = self.word(slot, 0)?;
        if cpu_buffer == 0 {
            return Ok(None);
        }
        let before = self.settled(cpu_buffer, cpu)?;
        let (mut found, copies) = self.copy(&before, limit)?;
        let after = self.settled(cpu_buffer, cpu)?;
        let here: BTreeSet<u64> = after.ring.iter().copied().chain([after.reader]).collect();
        for copy in copies.into_iter().rev() {
            let is_here = here.contains(&copy.page)
                && self.word(copy.page, self.offsets.page[2])? == copy.data;
            let Some(bytes) = copy.bytes.filter(|_| is_here) else {
                found.left_out += 1;
                continue;
            };
            match unread(&bytes, &self.layout, copy.read) {
                Ok(Some(bytes)) => {
                    let page = Page::new(&bytes, &self.layout);
                    let (time, newest) = page.map_or((0, 0), |page| (page.time, page.newest()));
                    found.pages.push(LivePage {
                        time,
                        newest,
                        bytes,
                    });
                }
                Ok(None) => {}
                Err(_) => found.left_out += 1,
            }
        }
        Ok(Some(found))
    }

    /// Returns the ring in a state that did not change during the walk.
    fn settled(&self, cpu_buffer: u64, cpu: u32) -> Result<Ring, LiveError> {
        let mut last = LiveError::Busy;
        for _ in 0..TRIES {
            match self.walk(cpu_buffer, cpu) {
                Ok(Some(ring)) => return Ok(ring),
                Ok(None) => last = LiveError::Busy,
                // A pointer read a moment ago may lead anywhere by now, so try again.
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The used members of a per-CPU buffer: pages, head, commit page, reader page.
    fn state(&self, cpu_buffer: u64, cpu: u32) -> Result<[u64; 4], LiveError> {
        let state = self.bytes(cpu_buffer, self.offsets.cpu_size)?;
        let [number, count, head, commit, reader] = self.offsets.cpu;
        let found = uint_at(&state, number, 4).unwrap_or(u64::MAX);
        if found != u64::from(cpu) {
            return Err(LiveError::Value {
                what: "the CPU of a per-CPU buffer",
                value: found,
            });
        }
        let [count, head, commit, reader] =
            [count, head, commit, reader].map(|at| u64_at(&state, at).unwrap_or(0));
        if count == 0 || count > MAX_PAGES {
            return Err(LiveError::Value {
                what: "the number of pages of a ring buffer",
                value: count,
            });
        }
        Ok([count, head, commit, reader])
    }

    /// Walks the ring once. `None` if the ring changed during the walk.
    fn walk(&self, cpu_buffer: u64, cpu: u32) -> Result<Option<Ring>, LiveError> {
        let [count, hint, commit, reader] = self.state(cpu_buffer, cpu)?;
        let Some(ring) = self.ring(hint, count)? else {
            return Ok(None);
        };
        let end = ring.iter().position(|page| *page == commit);
        if commit != reader && end.is_none() {
            return Ok(None);
        }
        // If a reader took the head out meanwhile, the old reader page is in the head's place.
        let [count_after, _, _, reader_after] = self.state(cpu_buffer, cpu)?;
        Ok(
            (count_after == count && reader_after == reader).then_some(Ring {
                reader,
                written: end.map_or(0, |end| end + 1),
                ring,
            }),
        )
    }

    /// Returns the pages of the ring from its head on. `None` if the ring does not close, or has no head for a moment.
    fn ring(&self, hint: u64, count: u64) -> Result<Option<Vec<u64>>, LiveError> {
        let link = self.offsets.page[0];
        let mut ring = Vec::new();
        let (mut at, mut head) = (hint, None);
        for index in 0..count {
            ring.push(at);
            let next = self.word(at, link)?;
            if next & 3 != 0 {
                head = usize::try_from(index + 1).ok();
            }
            at = (next & !3).wrapping_sub(link as u64);
        }
        let (Some(head), true) = (head, at == hint) else {
            return Ok(None);
        };
        let len = ring.len();
        ring.rotate_left(head % len.max(1));
        Ok(Some(ring))
    }

    /// Copies the newest `limit` bytes; newest first.
    fn copy(&self, ring: &Ring, limit: u64) -> Result<(LiveBuffer, Vec<Copied>), LiveError> {
        let mut buffer = LiveBuffer {
            page_size: PAGE,
            ..LiveBuffer::default()
        };
        let mut copies = Vec::new();
        let mut bytes_left = limit;
        // Newest first, so that the limit leaves out the oldest pages.
        for (index, page) in ring.order().iter().enumerate().rev() {
            let state = self.bytes(*page, self.offsets.page_size)?;
            let [_, read, data] = self.offsets.page;
            // `read` counts only for the reader page. A reader page that returns to the ring keeps its number until it
            // is the reader page again (`rb_get_reader_page`), whatever the kernel writes to it.
            let read = uint_at(&state, read, 4).filter(|_| *page == ring.reader);
            let read = usize::try_from(read.unwrap_or(0)).unwrap_or(0);
            let data = u64_at(&state, data).unwrap_or(0);
            let order = self
                .offsets
                .order
                .and_then(|at| uint_at(&state, at, 4))
                .unwrap_or(0);
            // The kernel offers orders up to 7; a larger shift would overflow.
            let size = u32::try_from(order)
                .ok()
                .filter(|order| *order <= 7)
                .map(|order| PAGE << order)
                .ok_or(LiveError::Value {
                    what: "the order of a sub-buffer",
                    value: order,
                })?;
            buffer.page_size = size;
            if bytes_left < size as u64 {
                buffer.left_out = index as u64 + 1;
                break;
            }
            let bytes = self.bytes(data, size)?;
            let header = self.bytes(data, self.layout.data.clamp(8, PAGE))?;
            copies.push(Copied {
                page: *page,
                data,
                read,
                bytes: self.layout.still_holds(&bytes, &header).then_some(bytes),
            });
            bytes_left -= size as u64;
        }
        Ok((buffer, copies))
    }
}

/// Pages of a per-CPU buffer.
struct Ring {
    reader: u64,
    /// From the head on.
    ring: Vec<u64>,
    /// Number of written pages of the ring: those up to the page to which the kernel commits.
    written: usize,
}

impl Ring {
    /// The pages that hold events, oldest first.
    fn order(&self) -> Vec<u64> {
        let ring = self.ring.iter().copied().take(self.written);
        [self.reader].into_iter().chain(ring).collect()
    }
}

/// A page that was copied and has not been checked again yet.
struct Copied {
    page: u64,
    data: u64,
    read: usize,
    /// Bytes of the page; `None` if tracing overwrote it meanwhile.
    bytes: Option<Vec<u8>>,
}
