//! A trace of a real kernel, from a `trace.dat` that was made in a guest.
//!
//! `kho trace --live --output` wrote `tests/data/6.1.dat.gz` on Debian's 6.1.0-50-cloud-amd64 with sched_switch, a
//! kprobe event, `trace_marker` and an instance. `6.1.txt` is the text of that kernel's file `trace` at the same
//! moment.
#![allow(dead_code, reason = "every test uses a part")]

use kho_trace::Taken;
use kho_trace::meta::{ArrayMeta, EventText, Meta};
use kho_trace::take::TakenBuffer;
use std::io::Read;

/// The file.
pub fn dat() -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&include_bytes!("../data/6.1.dat.gz")[..])
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// Text of the kernel's own file `trace`.
pub const TEXT: &str = include_str!("../data/6.1.txt");

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    page_size: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        taken
    }
    fn int(&mut self, size: usize) -> usize {
        let mut word = [0; 8];
        word[..size].copy_from_slice(self.take(size));
        usize::try_from(u64::from_le_bytes(word)).unwrap()
    }
    fn sized(&mut self, size: usize) -> String {
        let len = self.int(size);
        String::from_utf8(self.take(len).to_vec()).unwrap()
    }
    fn name(&mut self) -> String {
        let len = self.bytes[self.at..].iter().position(|b| *b == 0).unwrap();
        let name = String::from_utf8(self.take(len).to_vec()).unwrap();
        self.at += 1;
        name
    }
    fn table(&mut self, array: &str, cpus: usize) -> Vec<TakenBuffer> {
        assert_eq!(self.take(10), b"flyrecord\0");
        let places: Vec<_> = (0..cpus).map(|_| (self.int(8), self.int(8))).collect();
        let buffers = places.iter().enumerate().filter(|(_, (_, len))| *len > 0);
        buffers
            .map(|(cpu, (at, len))| TakenBuffer {
                array: array.to_owned(),
                cpu: u32::try_from(cpu).unwrap(),
                page_size: self.page_size,
                bytes: self.bytes[*at..*at + *len].to_vec(),
            })
            .collect()
    }
}

/// Reads a version 6 file as its manual page describes it, independently of the crate's writer.
pub fn read_dat(bytes: &[u8]) -> Taken {
    let mut c = Cursor {
        bytes,
        at: 0,
        page_size: 4096,
    };
    assert_eq!(c.take(12), b"\x17\x08\x44tracing6\0");
    assert_eq!((c.int(1), c.int(1)), (0, 8));
    c.page_size = c.int(4);
    assert!(c.page_size.is_power_of_two() && c.page_size >= 4096);
    let mut meta = Meta {
        version: 1,
        machine: "x86_64".to_owned(),
        ..Meta::default()
    };
    assert_eq!(c.name(), "header_page");
    meta.header_page = c.sized(8);
    assert_eq!(c.name(), "header_event");
    meta.header_event = c.sized(8);
    for _ in 0..c.int(4) {
        let format = c.sized(8);
        let system = "ftrace".to_owned();
        meta.events.push(EventText { system, format });
    }
    for _ in 0..c.int(4) {
        let system = c.name();
        for _ in 0..c.int(4) {
            let format = c.sized(8);
            let system = system.clone();
            meta.events.push(EventText { system, format });
        }
    }
    meta.symbols = c.sized(4);
    meta.printk_formats = c.sized(4);
    meta.cmdlines = c.sized(8);
    let cpus = c.int(4);
    assert_eq!(c.take(10), b"options  \0");
    let mut arrays = vec![(String::new(), 0)];
    let mut has_clock = false;
    loop {
        match c.int(2) {
            0 => break,
            3 => {
                let len = c.int(4);
                let at = c.int(8);
                let name = c.take(len - 8);
                arrays.push((
                    String::from_utf8(name[..name.len() - 1].to_vec()).unwrap(),
                    at,
                ));
            }
            4 => {
                assert_eq!(c.int(4), 0);
                has_clock = true;
            }
            5 => {
                let uname = c.sized(4);
                meta.release = uname.split(' ').nth(1).unwrap().to_owned();
            }
            other => panic!("option {other}"),
        }
    }
    arrays[0].1 = c.at;
    let mut buffers = Vec::new();
    let mut clock = "local".to_owned();
    for (name, at) in arrays {
        c.at = at;
        buffers.extend(c.table(&name, cpus));
        if has_clock && name.is_empty() {
            let text = c.sized(8);
            let inside = text
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'));
            clock = inside.unwrap().to_owned();
        }
        meta.arrays.push(ArrayMeta {
            name,
            clock: clock.clone(),
            ..ArrayMeta::default()
        });
    }
    Taken {
        meta,
        buffers,
        log: Vec::new(),
    }
}

/// The trace.
pub fn taken() -> Taken {
    read_dat(&dat())
}
