//! The ring buffers of a kernel, in simulated memory.
#![allow(dead_code, reason = "every test uses a part")]

use kho_trace::live::KernelMemory;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Name, size, and offsets of members.
type Struct = (&'static str, u32, &'static [(&'static str, u32)]);

/// Structs and the offsets of their members, all different from those of real kernels.
const STRUCTS: [Struct; 5] = [
    (
        "trace_array",
        64,
        &[
            ("list", 8),
            ("name", 24),
            ("array_buffer", 32),
            ("max_buffer", 40),
        ],
    ),
    ("array_buffer", 24, &[("tr", 0), ("buffer", 16)]),
    ("trace_buffer", 64, &[("flags", 0), ("buffers", 40)]),
    (
        "ring_buffer_per_cpu",
        64,
        &[
            ("cpu", 0),
            ("nr_pages", 8),
            ("head_page", 16),
            ("commit_page", 24),
            ("reader_page", 32),
        ],
    ),
    (
        "buffer_page",
        48,
        &[("list", 8), ("read", 24), ("order", 28), ("page", 32)],
    ),
];

/// BTF with these structs.
pub fn btf() -> Vec<u8> {
    let mut strings = vec![0u8];
    let mut types = Vec::new();
    let mut string = |text: &str| {
        let at = u32::try_from(strings.len()).unwrap();
        strings.extend(text.as_bytes());
        strings.push(0);
        at
    };
    // An integer, a pointer and an enumeration first, which the reader has to skip.
    for (name, info, size, more) in [
        ("int", 1u32 << 24, 4u32, vec![32u32]),
        ("", 2 << 24, 1, vec![]),
        ("e", (6 << 24) | 2, 4, vec![0, 0, 0, 1]),
    ] {
        types.extend([string(name), info, size]);
        types.extend(more);
    }
    // A struct of the same name that lacks the wanted members.
    types.extend([
        string("buffer_page"),
        (4 << 24) | 1,
        8,
        string("other"),
        1,
        0,
    ]);
    for (name, size, members) in STRUCTS {
        types.extend([
            string(name),
            (4 << 24) | u32::try_from(members.len()).unwrap(),
            size,
        ]);
        for (member, offset) in members {
            types.extend([string(member), 1, offset * 8]);
        }
    }
    let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut out = vec![0x9f, 0xeb, 1, 0];
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    for word in [24, 0, len(&types), len(&types), len(&strings)] {
        out.extend(word.to_le_bytes());
    }
    out.extend(types);
    out.extend(strings);
    out
}

/// Addresses of the parts of [`kernel`]'s buffer: the per-CPU buffer, the pages (number 0 is the reader page), and the
/// data of the pages.
pub const CPU: u64 = 0xffff_8000_0001_2000;
pub fn bpage(n: u64) -> u64 {
    0xffff_8000_0001_4000 + n * 0x100
}
pub fn data(n: u64) -> u64 {
    0xffff_8000_0011_0000 + n * 0x1000
}

/// Addresses of `ftrace_trace_arrays`, the list of arrays, and of `global_trace`.
pub const LIST: u64 = 0xffff_8000_0000_1000;
pub const GLOBAL: u64 = 0xffff_8000_0000_2000;

/// A change of a memory.
pub type Change = Box<dyn FnOnce(&Memory)>;

/// Words by address. A test can schedule a change right before a given read.
#[derive(Default)]
pub struct Memory {
    pub words: RefCell<BTreeMap<u64, u64>>,
    pub pages: RefCell<BTreeMap<u64, Vec<u8>>>,
    /// Change, and the number of reads after which it happens.
    pub change: RefCell<Option<(u64, Change)>>,
    pub reads: Cell<u64>,
}

impl Memory {
    pub fn put(&self, addr: u64, value: u64) {
        self.words.borrow_mut().insert(addr, value);
    }

    pub fn put_page(&self, addr: u64, page: Vec<u8>) {
        self.pages.borrow_mut().insert(addr, page);
    }

    /// Makes `change` happen right before read number `read`.
    pub fn at_read(&self, read: u64, change: impl FnOnce(&Self) + 'static) {
        *self.change.borrow_mut() = Some((read, Box::new(change)));
    }
}

impl KernelMemory for Memory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), String> {
        self.reads.set(self.reads.get() + 1);
        let due = matches!(&*self.change.borrow(), Some((when, ..)) if *when <= self.reads.get());
        let change = due.then(|| self.change.borrow_mut().take()).flatten();
        if let Some((_, change)) = change {
            change(self);
        }
        if let Some((start, page)) = self.pages.borrow().range(..=addr).next_back() {
            let skip = usize::try_from(addr - start).unwrap();
            if let Some(part) = page.get(skip..skip + buf.len()) {
                buf.copy_from_slice(part);
                return Ok(());
            }
        }
        let words = self.words.borrow();
        for (at, byte) in buf.iter_mut().enumerate() {
            let addr = addr + at as u64;
            let word = words.get(&(addr & !7)).copied().unwrap_or(0);
            *byte = word.to_le_bytes()[usize::try_from(addr % 8).unwrap()];
        }
        Ok(())
    }
}

/// A page with `events` records of 4 bytes, 10 ns apart, from `time` on.
pub fn page(time: u64, events: u32) -> Vec<u8> {
    let mut out = time.to_le_bytes().to_vec();
    out.extend(u64::from(events * 8).to_le_bytes());
    for number in 0..events {
        let delta: u32 = if number == 0 { 0 } else { 10 };
        out.extend(((delta << 5) | 1).to_le_bytes());
        out.extend(number.to_le_bytes());
    }
    out.resize(4096, 0xee);
    out
}

/// One array at the top level and an instance `net` that share a buffer of one CPU (number 0): the reader page
/// with `reader` events of which `read` are consumed, and a ring of `times` whose head is at `head` and whose
/// last committed page is number `commit`, counted from the head.
pub fn kernel(reader: u32, read: u64, times: &[u64], head: usize, commit: usize) -> Memory {
    let m = Memory::default();
    let base = 0xffff_8000_0001_0000u64;
    let (buffer, table, cpu) = (base, base + 0x1000, CPU);
    // Arrays: list (8), name (24), array_buffer (32) with buffer (16).
    let net = GLOBAL + 0x800;
    m.put(LIST, net + 8);
    m.put(net + 8, GLOBAL + 8);
    m.put(GLOBAL + 8, LIST);
    m.put(net + 24, net + 0x100);
    m.put(net + 0x100, u64::from_le_bytes(*b"net\0\0\0\0\0"));
    for array in [GLOBAL, net] {
        m.put(array + 32 + 16, buffer);
    }
    m.put(buffer + 40, table);
    m.put(table, cpu);
    let count = times.len() as u64;
    m.put(cpu, 0);
    m.put(cpu + 8, count);
    // The hint may point at any page of the ring; only the flag marks the head.
    m.put(cpu + 16, bpage(1));
    m.put(cpu + 32, bpage(0));
    m.put(bpage(0) + 24, read);
    m.put(bpage(0) + 32, data(0));
    m.put_page(data(0), page(1000, reader));
    for (index, time) in times.iter().enumerate() {
        let n = index as u64 + 1;
        let next = (index + 1) % times.len();
        let flag = u64::from(next == head);
        m.put(bpage(n) + 8, (bpage(next as u64 + 1) + 8) | flag);
        m.put(bpage(n) + 32, data(n));
        m.put_page(data(n), page(*time, 5));
    }
    let last = (head + commit) % times.len();
    m.put(cpu + 24, bpage(last as u64 + 1));
    m
}
