//! The trace and the log of the previous kernel, and the buffers of a running kernel.

use crate::Cursor;
use kho_trace::btf::Structs;
use kho_trace::live::{KernelMemory, Live, Offsets};
use kho_trace::meta::{ArrayMeta, CpuMeta, EventText, Meta};
use kho_trace::read::{Buffer, Knowledge, Merge};
use kho_trace::ring::{Page, PageLayout, unread};
use kho_trace::{dat, kmsg};
use std::cell::Cell;

/// Shows everything in a trace, in every way.
fn show(meta: &Meta, bytes: &[u8], page_size: usize) {
    let Ok(knowledge) = Knowledge::new(meta) else {
        return;
    };
    let half = bytes.len() / 2 / page_size.max(1) * page_size.max(1);
    let (first, second) = bytes.split_at(half.min(bytes.len()));
    let buffers = [(0, first), (1, second)].map(|(cpu, bytes)| Buffer {
        array: "",
        cpu,
        page_size,
        bytes,
    });
    let mut merge = Merge::new(&buffers, knowledge.layout);
    let mut records = 0;
    for record in merge.by_ref() {
        records += 1;
        assert!(
            records <= bytes.len() / 4,
            "more events than there is room for"
        );
        // Formatting is slow, because a format may make long text of a short record.
        if records > 300 {
            continue;
        }
        let line = knowledge.line(meta, &buffers[record.buffer], &record.event);
        assert_harmless(&line);
        let _ = knowledge.fields(record.event.data);
    }
    for problem in merge.problems() {
        let _ = problem.to_string();
    }
    let mut file = Vec::new();
    dat::write(meta, &buffers, &mut file).expect("memory");
    assert!(file.starts_with(b"\x17\x08\x44tracing6\0"));
}

/// Checks that text is harmless on a terminal: line breaks and tabs may pass, no other control character may.
fn assert_harmless(text: &str) {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    assert!(!text.chars().any(obeyed), "{text:?}");
}

/// The length of a description as two bytes, the description, and pages.
pub fn arrived(data: &[u8]) {
    let mut cursor = Cursor(data);
    let len = usize::from(u16::from_le_bytes([cursor.u8(), cursor.u8()]));
    let Ok(meta) = Meta::from_bytes(cursor.bytes(len)) else {
        return;
    };
    let again = Meta::from_bytes(&meta.to_bytes().expect("JSON")).expect("what was written");
    assert_eq!(again, meta);
    show(&meta, cursor.0, 4096);
}

/// Pages, with a valid description. The first byte gives the length of pages, and the number of bytes already read.
pub fn pages(data: &[u8]) {
    let mut cursor = Cursor(data);
    let how = cursor.u8();
    let bytes = cursor.0;
    let layout = PageLayout::default();
    if let Ok(page) = Page::new(bytes, &layout) {
        let events: Vec<_> = page.events().collect();
        assert!(events.len() <= page.len() / 4 + 1);
        let read = usize::from(how) * 4;
        if let Ok(Some(rest)) = unread(bytes, &layout, read) {
            assert_eq!(rest.len(), bytes.len());
            // The rest holds the events from that byte on, at the same times.
            let later: Vec<_> = events
                .iter()
                .filter_map(|event| event.as_ref().ok())
                .filter(|event| event.at >= read)
                .map(|event| (event.time, event.data))
                .collect();
            let left: Vec<_> = Page::new(&rest, &layout)
                .expect("a page that was made")
                .events()
                .filter_map(Result::ok)
                .map(|event| (event.time, event.data.to_vec()))
                .collect();
            let left: Vec<_> = left
                .iter()
                .map(|(time, data)| (*time, data.as_slice()))
                .collect();
            assert_eq!(left, later);
        }
    }
    // Pages of 4 KiB or of 8 KiB; a short input is padded.
    let mut whole = bytes.to_vec();
    whole.resize(bytes.len().next_multiple_of(4096), 0);
    show(&sound(), &whole, if how & 1 == 0 { 4096 } else { 8192 });
    show(&sound(), bytes, 4096);
}

/// Words at addresses, all of them valid kernel memory. The number of reads is limited, so that a huge ring ends.
struct Words<'a>(&'a [u8], Cell<u32>);

const BASE: u64 = 0xffff_8880_0000_0000;

impl KernelMemory for Words<'_> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), String> {
        // Pointers are small in the input: an address is BASE plus an offset into the input, which repeats endlessly.
        let at =
            usize::try_from(addr.wrapping_sub(BASE) % (self.0.len().max(1) as u64)).unwrap_or(0);
        self.1.set(self.1.get() + 1);
        if addr % 4096 == 4095 || self.1.get() > 2_000 {
            return Err("not mapped".to_owned());
        }
        for (byte, from) in buf.iter_mut().zip(self.0.iter().cycle().skip(at)) {
            *byte = *from;
        }
        Ok(())
    }
}

/// The memory of a kernel; the walk begins at its start.
pub fn live(data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let memory = Words(data, Cell::new(0));
    let offsets = Offsets::new(&made_btf()).expect("sound");
    let live = Live::new(&memory, offsets, PageLayout::default());
    let arrays = live.arrays(BASE, BASE + 8).unwrap_or_default();
    assert!(arrays.len() <= 4096);
    let buffers = arrays
        .iter()
        .flat_map(|array| [Some(array.buffer), array.snapshot])
        .flatten()
        .take(3);
    for buffer in buffers.chain([BASE]) {
        if let Ok(Some(found)) = live.cpu(buffer, 0, 64 << 10) {
            let bytes: usize = found.pages.iter().map(|page| page.bytes.len()).sum();
            assert!(bytes <= 64 << 10, "{bytes:#x}");
            for page in &found.pages {
                assert_eq!(page.bytes.len(), found.page_size);
                Page::new(&page.bytes, &PageLayout::default()).expect("a page that can be read");
            }
        }
    }
}

/// BTF that contains the wanted names.
pub fn btf(data: &[u8]) {
    let _ = Offsets::new(data).map_err(|error| error.to_string());
    if let Ok(structs) = Structs::parse(data, &["buffer_page"]) {
        let _ = structs.offsets("buffer_page", ["list", "page"]);
    }
}

/// Records.
pub fn log(data: &[u8]) {
    for limit in [0, data.len() / 2, data.len()] {
        let kept = kmsg::newest(data, limit);
        assert!(kept.len() <= limit && data.ends_with(kept));
        for message in kmsg::parse(kept) {
            let line = message.line();
            assert_harmless(&line);
        }
    }
}

const HEADER_PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\
    \tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
    \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\
    \tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n";

const COMMON: &str = "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
    \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n";

/// Events of several kinds: `print` (5), `function` (1), one that uses all of `print fmt` (300), a probe (301).
fn sound() -> Meta {
    let event = |system: &str, name: &str, id: u16, rest: &str| EventText {
        system: system.to_owned(),
        format: format!("name: {name}\nID: {id}\nformat:\n{COMMON}{rest}\n"),
    };
    Meta {
        version: 1,
        header_page: HEADER_PAGE.to_owned(),
        cmdlines: "7 a b\n".to_owned(),
        printk_formats: "0xffffffff81000000 : \"%s %d\\n\"\n".to_owned(),
        symbols: "ffffffff81000000 T start\nffffffff81000100 t end [x]\n".to_owned(),
        events: vec![
            event(
                "ftrace",
                "print",
                5,
                "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n\tfield:char buf[];\toffset:16;\tsize:0;\tsigned:1;\n\n\
                 print fmt: \"%ps: %s\", (void *)REC->ip, REC->buf",
            ),
            event(
                "ftrace",
                "bprint",
                6,
                "\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;\n\tfield:const char * fmt;\toffset:16;\tsize:8;\tsigned:0;\n\
                 \tfield:u32 buf[];\toffset:24;\tsize:0;\tsigned:0;\n\nprint fmt: \"%ps: %s\", (void *)REC->ip, REC->fmt",
            ),
            event(
                "x",
                "many",
                300,
                "\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:1;\n\tfield:long state;\toffset:24;\tsize:8;\tsigned:1;\n\
                 \tfield:__data_loc char[] name;\toffset:32;\tsize:4;\tsigned:1;\n\tfield:u8 list[8];\toffset:36;\tsize:8;\tsigned:0;\n\n\
                 print fmt: \"%s %ld/%#lx %s %s %s\", REC->comm, REC->state, REC->state & 0xff, \
                 __print_flags(REC->state, \"|\", { 1, \"S\" }, { 2, \"D\" }), __get_str(name), __print_hex(REC->list, 8)",
            ),
            event(
                "kprobes",
                "probe",
                301,
                "\tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n\tfield:__data_loc char[] a;\toffset:16;\tsize:4;\tsigned:1;\n\n\
                 print fmt: \"(%lx) a=\\\"%s\\\"\", REC->__probe_ip, __get_str(a)",
            ),
        ],
        arrays: vec![ArrayMeta {
            clock: "local".to_owned(),
            cpus: vec![CpuMeta::default()],
            ..ArrayMeta::default()
        }],
        ..Meta::default()
    }
}

/// A page with a record of each of these events.
fn page(records: &[(u16, &[u8])]) -> Vec<u8> {
    let mut events = Vec::new();
    for (id, rest) in records {
        let mut record = id.to_le_bytes().to_vec();
        record.extend([0, 1, 7, 0, 0, 0]);
        record.extend(*rest);
        record.resize(record.len().next_multiple_of(4), 0);
        let words = u32::try_from(record.len() / 4).expect("small");
        events.extend(((9 << 5) | words).to_le_bytes());
        events.extend(record);
    }
    // A time extension, padding that is skipped, and the end.
    for word in [(5u32 << 5) | 30, 1, (2 << 5) | 29, 8, 0, 29] {
        events.extend(word.to_le_bytes());
    }
    let mut page = 1000u64.to_le_bytes().to_vec();
    page.extend((events.len() as u64).to_le_bytes());
    page.extend(events);
    page
}

fn sound_page() -> Vec<u8> {
    let mut print = 0xffff_ffff_8100_0010u64.to_le_bytes().to_vec();
    print.extend(b"hello\n\0");
    let mut many = b"comm\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    many.extend(3u64.to_le_bytes());
    many.extend((44u32 | 5 << 16).to_le_bytes());
    many.extend([1, 2, 3, 4, 5, 6, 7, 8]);
    many.extend(b"name\0");
    let mut probe = 0xffff_ffff_8100_0020u64.to_le_bytes().to_vec();
    probe.extend((20u32 | 3 << 16).to_le_bytes());
    probe.extend(b"ab\0");
    page(&[(5, &print), (300, &many), (301, &probe), (77, b"1234")])
}

pub fn arriveds() -> Vec<Vec<u8>> {
    let meta = sound().to_bytes().expect("JSON");
    let mut out = u16::try_from(meta.len())
        .expect("small")
        .to_le_bytes()
        .to_vec();
    out.extend(meta);
    let mut bytes = sound_page();
    bytes.resize(4096, 0);
    out.extend(bytes);
    vec![out]
}

pub fn page_seeds() -> Vec<Vec<u8>> {
    [0u8, 4]
        .map(|how| {
            let mut out = vec![how];
            out.extend(sound_page());
            out
        })
        .to_vec()
}

pub fn logs() -> Vec<Vec<u8>> {
    vec![
        b"6,1,0,-;Linux version\n SUBSYSTEM=x\\x0a\n4,2,1234567,-;a\\x1b[31m\nno record\n".to_vec(),
    ]
}

/// Name, size, and offsets of members.
type Struct = (&'static str, u32, &'static [(&'static str, u32)]);

/// Offsets that leave no hole, so that few bytes make a ring.
const STRUCTS: [Struct; 5] = [
    (
        "trace_array",
        24,
        &[("list", 0), ("name", 8), ("array_buffer", 16)],
    ),
    ("array_buffer", 8, &[("buffer", 0)]),
    ("trace_buffer", 8, &[("buffers", 0)]),
    (
        "ring_buffer_per_cpu",
        40,
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
        24,
        &[("list", 0), ("read", 8), ("order", 12), ("page", 16)],
    ),
];

fn made_btf() -> Vec<u8> {
    let (mut strings, mut types) = (vec![0u8], Vec::new());
    let mut string = |text: &str| {
        let at = u32::try_from(strings.len()).expect("small");
        strings.extend(text.as_bytes());
        strings.push(0);
        at
    };
    for (name, size, members) in STRUCTS {
        let count = u32::try_from(members.len()).expect("small");
        types.extend([string(name), (4 << 24) | count, size]);
        for (member, offset) in members {
            types.extend([string(member), 1, offset * 8]);
        }
    }
    let types: Vec<u8> = types
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect();
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small");
    let mut out = vec![0x9f, 0xeb, 1, 0];
    for word in [24, 0, len(&types), len(&types), len(&strings)] {
        out.extend(word.to_le_bytes());
    }
    out.extend(types);
    out.extend(strings);
    out
}

pub fn btfs() -> Vec<Vec<u8>> {
    vec![made_btf()]
}

pub fn lives() -> Vec<Vec<u8>> {
    let mut memory = vec![0u8; 0x600];
    let mut put = |at: usize, value: u64| memory[at..at + 8].copy_from_slice(&value.to_le_bytes());
    // The list, its one array, the array's buffer, the table, and the CPU's buffer with a ring of two.
    put(0, BASE + 0x40);
    put(0x40, BASE);
    put(0x50, BASE + 0x60);
    put(0x60, BASE + 0x70);
    put(0x70, BASE + 0x80);
    put(0x88, 2);
    put(0x90, BASE + 0xc0);
    put(0x98, BASE + 0xe0);
    put(0xa0, BASE + 0x100);
    put(0xc0, BASE + 0xe0);
    put(0xe0, (BASE + 0xc0) | 1);
    put(0xd0, BASE + 0x200);
    put(0xf0, BASE + 0x300);
    put(0x110, BASE + 0x400);
    for page in [0x200, 0x300, 0x400] {
        put(page, page as u64);
        put(page + 8, 8);
        put(page + 16, 1);
    }
    vec![memory]
}
