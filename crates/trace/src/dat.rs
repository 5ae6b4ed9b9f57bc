//! `trace.dat`, version 6: the format that `trace-cmd report` and KernelShark open (trace-cmd.dat.v6(5)).
//!
//! One file holds one kernel's trace: numbers of events, symbols and tasks are those of that kernel.

use crate::meta::Meta;
use crate::read::Buffer;
use crate::ring::{MAX_PAGE, PAGE};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// Options between header and data, by number (`include/trace-cmd/trace-cmd.h` of trace-cmd 3.1).
const OPTION_BUFFER: u16 = 3;
const OPTION_TRACECLOCK: u16 = 4;
const OPTION_UNAME: u16 = 5;
/// Place of an array's table, and place and bytes of each CPU's data.
type Section<'a> = (u64, Vec<(u64, Cow<'a, [u8]>)>);

/// Writes the trace of one kernel.
///
/// # Errors
///
/// If writing to `out` fails. A NUL in the name of an instance is not an error: no kernel can have had such an
/// instance.
pub fn write(meta: &Meta, buffers: &[Buffer<'_>], out: &mut impl Write) -> io::Result<()> {
    let cpus = cpus(meta, buffers);
    let page_size = page_size(buffers);
    let mut arrays: Vec<&str> = vec![""];
    // Arrays without pages are listed too: the kernel had them.
    let described = meta.arrays.iter().map(|array| array.name.as_str());
    for name in described.chain(buffers.iter().map(|buffer| buffer.array)) {
        if !arrays.contains(&name) {
            arrays.push(name);
        }
    }
    let mut head = header(meta, cpus, page_size);
    // Sizes first: options hold the offsets of sections behind them.
    let options_len = options(meta, &arrays, &[]).len() as u64;
    let section = 10 + 16 * u64::from(cpus);
    // The clock lies behind the table of the top level. The option marks the clock in use, as the kernel's file does.
    let mut clock = Vec::new();
    sized64(&mut clock, &format!("[{}]", file_clock(meta)));
    let mut at = head.len() as u64 + options_len + section + clock.len() as u64;
    let mut places: Vec<u64> = Vec::new();
    let mut sections: Vec<Section<'_>> = Vec::new();
    for (index, array) in arrays.iter().enumerate() {
        let start = if index == 0 {
            head.len() as u64 + options_len
        } else {
            at
        };
        if index > 0 {
            places.push(start);
            at = at.saturating_add(section);
        }
        let mut data = Vec::new();
        for cpu in 0..cpus {
            let bytes = buffers
                .iter()
                .find(|b| b.array == *array && b.cpu == cpu)
                .map_or(Cow::Borrowed(&[][..]), |b| resized(b, page_size));
            // The data of a CPU begins at a page.
            at = at.next_multiple_of(page_size as u64);
            let len = bytes.len() as u64;
            data.push((at, bytes));
            at = at.saturating_add(len);
        }
        sections.push((start, data));
    }
    head.extend(options(meta, &arrays, &places));
    let mut written = head.len() as u64;
    out.write_all(&head)?;
    for (index, (start, data)) in sections.iter().enumerate() {
        pad(out, &mut written, *start)?;
        let mut table = b"flyrecord\0".to_vec();
        for (place, bytes) in data {
            table.extend(place.to_le_bytes());
            table.extend((bytes.len() as u64).to_le_bytes());
        }
        if index == 0 {
            table.extend(&clock);
        }
        out.write_all(&table)?;
        written += table.len() as u64;
        for (place, bytes) in data {
            pad(out, &mut written, *place)?;
            out.write_all(bytes)?;
            written += bytes.len() as u64;
        }
    }
    Ok(())
}

/// Returns the clock of the file, which has only one clock: that of the top level, or, if the top level is not
/// described, the clock that all instances share.
fn file_clock(meta: &Meta) -> &str {
    let top = meta.array("").or(meta.arrays.first());
    top.map(|array| array.clock.as_str())
        .filter(|clock| !clock.is_empty())
        .unwrap_or("local")
}

/// Zeros up to offset `to`.
fn pad(out: &mut impl Write, written: &mut u64, to: u64) -> io::Result<()> {
    let missing = usize::try_from(to.saturating_sub(*written)).unwrap_or(0);
    out.write_all(&vec![0; missing])?;
    *written += missing as u64;
    Ok(())
}

/// CPUs that the file describes.
fn cpus(meta: &Meta, buffers: &[Buffer<'_>]) -> u32 {
    let described = meta
        .arrays
        .iter()
        .flat_map(|array| &array.cpus)
        .map(|cpu| cpu.cpu);
    let highest = buffers.iter().map(|b| b.cpu).chain(described).max();
    // Linux supports at most 8192 CPUs; more would only fill the file with empty tables.
    highest.map_or(0, |cpu| cpu.saturating_add(1)).min(8192)
}

/// Bytes of a page of the file. All pages have the size of the largest pages of any buffer.
fn page_size(buffers: &[Buffer<'_>]) -> usize {
    let sizes = buffers.iter().map(|buffer| buffer.page_size);
    sizes
        .filter(|size| size.is_power_of_two() && (PAGE..=MAX_PAGE).contains(size))
        .max()
        .unwrap_or(PAGE)
}

/// The pages of a buffer, each with zeros up to `page_size` behind it: the rest of a page that was not committed.
fn resized<'a>(buffer: &Buffer<'a>, page_size: usize) -> Cow<'a, [u8]> {
    if buffer.page_size >= page_size || buffer.page_size == 0 {
        return Cow::Borrowed(buffer.bytes);
    }
    let mut pages = Vec::new();
    for page in buffer.bytes.chunks(buffer.page_size) {
        pages.extend_from_slice(page);
        pages.resize(pages.len() - page.len() + page_size, 0);
    }
    Cow::Owned(pages)
}

fn header(meta: &Meta, cpus: u32, page_size: usize) -> Vec<u8> {
    let mut out = b"\x17\x08\x44tracing6\0".to_vec();
    // Little endian, 8 bytes in a long, bytes of a page.
    out.extend([0, 8]);
    out.extend(count(page_size));
    for (name, text) in [
        ("header_page\0", &meta.header_page),
        ("header_event\0", &meta.header_event),
    ] {
        out.extend(name.as_bytes());
        sized64(&mut out, text);
    }
    let mut systems: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in &meta.events {
        systems
            .entry(&event.system)
            .or_default()
            .push(&event.format);
    }
    let ftrace = systems.remove("ftrace").unwrap_or_default();
    out.extend(count(ftrace.len()));
    for format in ftrace {
        sized64(&mut out, format);
    }
    out.extend(count(systems.len()));
    for (system, formats) in systems {
        out.extend(system.as_bytes());
        out.push(0);
        out.extend(count(formats.len()));
        for format in formats {
            sized64(&mut out, format);
        }
    }
    for text in [&meta.symbols, &meta.printk_formats] {
        out.extend(count(text.len()));
        out.extend(text.as_bytes());
    }
    sized64(&mut out, &cmdlines(&meta.cmdlines));
    out.extend(cpus.to_le_bytes());
    out
}

/// The text with each task once: the kernel's file may name a task twice.
fn cmdlines(text: &str) -> String {
    let mut seen = BTreeSet::new();
    text.lines()
        .filter(|line| seen.insert(line.split(' ').next().unwrap_or_default()))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn options(meta: &Meta, arrays: &[&str], places: &[u64]) -> Vec<u8> {
    let mut out = b"options  \0".to_vec();
    let mut option = |id: u16, bytes: &[u8]| {
        out.extend(id.to_le_bytes());
        out.extend(count(bytes.len()));
        out.extend(bytes);
    };
    option(
        OPTION_UNAME,
        format!("Linux {} {}\0", meta.release, meta.machine).as_bytes(),
    );
    option(OPTION_TRACECLOCK, &[]);
    for (index, array) in arrays.iter().skip(1).enumerate() {
        let place = places.get(index).copied().unwrap_or(0);
        let mut bytes = place.to_le_bytes().to_vec();
        bytes.extend(array.as_bytes());
        bytes.push(0);
        option(OPTION_BUFFER, &bytes);
    }
    out.extend(0u16.to_le_bytes());
    out
}

fn count(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes()
}

fn sized64(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
