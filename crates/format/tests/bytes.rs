//! Byte by byte, the tree that the loader writes and that the book shows.

mod common;

use common::range;
use kho::abi::{
    BlobDescription, Content, Description, Label, MACHINE_X86_64, measure_handover, write_handover,
};
use std::fmt::Write as _;

/// A handover of one blob of six bytes.
fn tree() -> Vec<u8> {
    let mem = [range(0x4000_0000, 0x1000)];
    let description = Description {
        generation: 0x0123_4567_89ab_cdef,
        hop: 1,
        previous_release: "6.1.0-50-cloud-amd64",
        machine: MACHINE_X86_64,
        time: 1_763_000_000_000_000_000,
        carrier: kho::abi::Carrier::Memory,
        scratch: range(0x100_0000, 0x800_0000),
        mem_cache: &[range(0x6000_0000, 0x2000), range(0x4000_0000, 0x1000)],
        blobs: &[BlobDescription {
            label: Label::new("token").unwrap(),
            content: Content::Raw,
            size: 6,
            mem: &mem,
            blake3: [7; 32],
            taken: 1_763_000_000_000_000_000,
            arrived_hop: 1,
        }],
    };
    let mut buf = vec![0; measure_handover(&description).unwrap()];
    let len = write_handover(&description, &mut buf).unwrap();
    buf.truncate(len);
    buf
}

/// The bytes with an explanation of each. The function parses the tokens itself, as a second reader of the container.
fn picture(bytes: &[u8]) -> String {
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let size = |at: usize| usize::try_from(word(at)).unwrap();
    let text = |at: usize| {
        let end = bytes[at..].iter().position(|byte| *byte == 0).unwrap();
        std::str::from_utf8(&bytes[at..at + end]).unwrap()
    };
    let mut out = String::new();
    let mut row = |at: usize, len: usize, what: &str| {
        for (index, chunk) in bytes[at..at + len].chunks(16).enumerate() {
            let hex: Vec<String> = chunk
                .chunks(4)
                .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect())
                .collect();
            let what = if index == 0 { what } else { "" };
            let line = format!("{:5}  {:36} {what}", at + 16 * index, hex.join(" "));
            let _ = writeln!(out, "{}", line.trim_end());
        }
    };
    let header = [
        "magic",
        "size of all",
        "where the structure begins",
        "where the strings begin",
        "where the reservations begin",
        "version",
        "last compatible version",
        "boot CPU, not used",
        "size of the strings",
        "size of the structure",
    ];
    for (index, what) in header.iter().enumerate() {
        row(4 * index, 4, what);
    }
    row(size(16), 16, "no reservation");
    let strings = size(12);
    let mut at = size(8);
    loop {
        match word(at) {
            1 => {
                row(at, 4, "BEGIN_NODE");
                let name = text(at + 4);
                let shown = if name.is_empty() { "the root" } else { name };
                let len = (name.len() + 1).next_multiple_of(4);
                row(at + 4, len, &format!("name: {shown}"));
                at += 4 + len;
            }
            3 => {
                let (len, name) = (size(at + 4), text(strings + size(at + 8)));
                row(at, 12, &format!("PROP, {len} bytes: {name}"));
                let padded = len.next_multiple_of(4);
                row(
                    at + 12,
                    padded,
                    meaning(&bytes[at + 12..at + 12 + len], name).as_str(),
                );
                at += 12 + padded;
            }
            2 => {
                row(at, 4, "END_NODE");
                at += 4;
            }
            9 => {
                row(at, 4, "END");
                break;
            }
            token => panic!("token {token} at {at}"),
        }
    }
    row(
        strings,
        bytes.len() - strings,
        "names of properties, each with a NUL",
    );
    out
}

fn meaning(value: &[u8], name: &str) -> String {
    let u64_at = |at: usize| u64::from_ne_bytes(value[at..at + 8].try_into().unwrap());
    match name {
        "mem" | "scratch" | "mem-cache" => {
            let ranges = (0..value.len() / 16).map(|n| (u64_at(16 * n), u64_at(16 * n + 8)));
            let ranges: Vec<String> = ranges
                .map(|(addr, len)| format!("{len:#x} bytes at {addr:#x}"))
                .collect();
            ranges.join(", ")
        }
        "blake3" => "the hash".to_owned(),
        _ => match (value.len(), std::str::from_utf8(value)) {
            (_, Ok(text))
                if text.ends_with('\0')
                    && text.len() > 1
                    && !text.starts_with('\0')
                    && text[..text.len() - 1].bytes().all(|b| b.is_ascii_graphic()) =>
            {
                format!("\"{}\"", &text[..text.len() - 1])
            }
            (4, _) => format!("{:#x}", u32::from_ne_bytes(value.try_into().unwrap())),
            (8, _) => format!("{:#x}", u64_at(0)),
            _ => String::new(),
        },
    }
}

#[test]
#[cfg(target_endian = "little")]
fn the_book_shows_these_bytes() {
    let path = common::workspace().join("docs/src/abi/container.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("<!-- bytes of a tree -->").unwrap();
    let (_, after) = rest.split_once("<!-- end of bytes -->").unwrap();
    let shown = picture(&tree());
    let page = format!(
        "{before}<!-- bytes of a tree -->\n\n```text\n{shown}```\n\n<!-- end of bytes -->{after}"
    );
    common::golden(&path, &page);
}
