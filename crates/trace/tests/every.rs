//! Every event of every tested kernel: each format gives a line, and for synthetic records the lines equal those of
//! trace-cmd.
//!
//! `data/formats.xz` holds the formats of Debian's cloud kernels 5.10, 6.1, 6.12 and 7.3, those of their modules
//! included, each once: a line with the kernels and the folder, and the file without its number. `data/trace-cmd.xz` is
//! the output of trace-cmd 3.1.6 for the records of this test. A run with `KHO_FORMATS` or `KHO_TRACE_CMD` set writes
//! the two files again, and the next run compares them.

mod common;

use kho_trace::Names;
use kho_trace::dat;
use kho_trace::eval::Scope;
use kho_trace::expr::Expr;
use kho_trace::format::{EventFormat, Place};
use kho_trace::meta::{ArrayMeta, EventText, Meta};
use kho_trace::read::{Buffer, Knowledge, Merge};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;

const FORMATS: &[u8] = include_bytes!("data/formats.xz");
const TRACE_CMD: &[u8] = include_bytes!("data/trace-cmd.xz");
/// An address in the first of two symbols, and also the address of a string.
const ADDRESS: u64 = 0xffff_ffff_8100_0010;
const SYMBOLS: &str = "ffffffff81000000 T start\nffffffff81000100 T next\n";
const STRINGS: &str = "0xffffffff81000010 : \"a string\"\n";

fn unpack(bytes: &[u8]) -> String {
    let mut text = String::new();
    lzma_rust2::XzReader::new(bytes, true)
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// One format; its number is its index.
struct Format {
    kernels: String,
    text: EventText,
}

fn formats() -> Vec<Format> {
    let text = unpack(FORMATS);
    let mut found: Vec<Format> = Vec::new();
    let mut rest = text.as_str();
    while let Some((head, body)) = rest.split_once('\n') {
        let (kernels, system) = head.split_once('\t').unwrap();
        // The head of the next format begins with the byte 1.
        let next = body
            .match_indices("\n\u{1}")
            .next()
            .map_or(body.len(), |(at, _)| at + 1);
        let (format, after) = body.split_at(next);
        rest = after.strip_prefix('\u{1}').unwrap_or(after);
        let id = format!("\nID: {}\n", found.len() + 1);
        found.push(Format {
            kernels: kernels.to_owned(),
            text: EventText {
                system: system.to_owned(),
                format: format.replacen('\n', &id, 1),
            },
        });
    }
    found
}

/// A record of this kind; every integer has a different value, small or near the largest.
fn record(format: &EventFormat, large: bool) -> Vec<u8> {
    let end = |field: &kho_trace::format::Field| field.offset + field.size;
    let len = format.fields.iter().map(end).max().unwrap_or(8);
    let mut out = vec![0; len.next_multiple_of(8)];
    out[..2].copy_from_slice(&format.id.to_le_bytes());
    out[4..8].copy_from_slice(&u32::from(format.id).to_le_bytes());
    for (index, field) in format.own_fields().enumerate() {
        let index = index as u64;
        let at = field.offset;
        if field.place != Place::Here {
            let bytes: Vec<u8> = match field.is_text() {
                true => b"text\0".to_vec(),
                // These bytes also begin like a socket address.
                false => (0..24)
                    .map(|byte| if byte == 0 { 2 } else { byte - 1 })
                    .collect(),
            };
            let base = if field.place == Place::RelLoc {
                at + 4
            } else {
                0
            };
            let word = (bytes.len() << 16) | (out.len() - base);
            out[at..at + 4].copy_from_slice(&u32::try_from(word).unwrap().to_le_bytes());
            out.extend(&bytes);
            out.resize(out.len().next_multiple_of(8), 0);
        } else if field.is_text() {
            if field.size > 1 {
                out[at] = b'c';
            }
        } else if field.size <= 8 {
            let value = match (field.kind.ends_with('*'), large) {
                (true, _) => ADDRESS,
                (_, true) => u64::MAX - index,
                (_, false) => index + 1,
            };
            out[at..at + field.size].copy_from_slice(&value.to_le_bytes()[..field.size]);
        } else {
            for (byte, value) in out[at..at + field.size].iter_mut().zip((1..=250).cycle()) {
                *byte = value;
            }
        }
    }
    out
}

/// Two records of each format, a microsecond apart, on pages.
fn pages(formats: &[EventFormat]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut page: Vec<u8> = Vec::new();
    let mut close = |page: &mut Vec<u8>, first: usize| {
        let time = first as u64 * 1000;
        out.extend(time.to_le_bytes());
        out.extend((page.len() as u64).to_le_bytes());
        page.resize(4080, 0);
        out.append(page);
    };
    let mut first = 0;
    for (number, (format, large)) in formats
        .iter()
        .flat_map(|format| [(format, false), (format, true)])
        .enumerate()
    {
        // trace-cmd reads the number of elements that the record states, even past the record's end.
        let counts = format.print.as_ref().is_some_and(|print| {
            let print = format!("{print:?}");
            print.contains("__print_hex") || print.contains("__print_array")
        });
        let record = record(format, large && !counts);
        if page.len() + record.len() + 8 > 4080 {
            close(&mut page, first);
        }
        if page.is_empty() {
            first = number;
        }
        let delta: u32 = if page.is_empty() { 0 } else { 1000 };
        page.extend((delta << 5).to_le_bytes());
        page.extend(u32::try_from(record.len() + 4).unwrap().to_le_bytes());
        page.extend(record);
    }
    close(&mut page, first);
    out
}

fn meta(formats: &[Format]) -> Meta {
    let real = common::taken().meta;
    Meta {
        header_page: real.header_page,
        header_event: real.header_event,
        symbols: SYMBOLS.to_owned(),
        printk_formats: STRINGS.to_owned(),
        events: formats.iter().map(|format| format.text.clone()).collect(),
        arrays: vec![ArrayMeta {
            clock: "local".to_owned(),
            ..ArrayMeta::default()
        }],
        ..Meta::default()
    }
}

fn parsed(formats: &[Format]) -> Vec<EventFormat> {
    let parse = |format: &Format| EventFormat::parse(&format.text.system, &format.text.format);
    formats
        .iter()
        .map(|format| parse(format).unwrap())
        .collect()
}

/// Returns the text that this crate shows for each record, behind the name of the event.
fn shown(formats: &[Format], parsed: &[EventFormat]) -> Vec<String> {
    let meta = meta(formats);
    let knowledge = Knowledge::new(&meta).unwrap();
    let bytes = pages(parsed);
    let buffers = [Buffer {
        array: "",
        cpu: 0,
        page_size: 4096,
        bytes: &bytes,
    }];
    let mut merge = Merge::new(&buffers, knowledge.layout);
    let lines = merge
        .by_ref()
        .map(|record| knowledge.body(None, &record.event))
        .collect();
    assert_eq!(merge.problems(), []);
    lines
}

/// Returns the text that `trace-cmd report` shows for each record, behind the name of the event.
fn reported(report: &str, count: usize) -> Vec<String> {
    let mut found = vec![None; count];
    let mut last = None;
    for line in report.lines() {
        let head = line
            .trim_start()
            .strip_prefix("<...>-")
            .and_then(|rest| rest.split_once(": "));
        let Some((head, rest)) = head else {
            // A further line of a text with several lines.
            if let Some(text) = last.and_then(|at: usize| found[at].as_mut()) {
                *text += "\n";
                *text += line;
            }
            continue;
        };
        let time = head.rsplit(' ').next().unwrap().replace('.', "");
        let number: usize = time.parse().unwrap();
        let text = rest.split_once(':').unwrap().1;
        found[number] = Some(text.trim_start().to_owned());
        last = Some(number);
    }
    let safe = |text: String| {
        let mut out = String::new();
        kho_trace::printf::push_safe(&mut out, &text);
        out
    };
    let texts = found.into_iter().map(Option::unwrap_or_default);
    texts.map(safe).collect()
}

fn pack(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path);
    let options = lzma_rust2::XzOptions::with_preset(9);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    std::fs::write(path, writer.finish().unwrap()).unwrap();
}

/// KHO_FORMATS is a folder with a file for each kernel, named as the kernel. The file holds the output of this command
/// in a guest with all modules that have events:
/// `cd /sys/kernel/tracing/events; for f in */*/format; do echo "SYSTEM ${f%%/*}"; cat $f; done`.
/// KHO_TRACE_CMD is the path of trace-cmd, which must not find its plug-ins.
fn made_anew() {
    if let Ok(folder) = std::env::var("KHO_FORMATS") {
        let mut all: BTreeMap<(String, String, String), BTreeSet<String>> = BTreeMap::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let kernel = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = format!("\n{}", std::fs::read_to_string(&path).unwrap());
            for one in text.split("\nSYSTEM ").skip(1) {
                let (system, format) = one.split_once('\n').unwrap();
                let name = format.lines().next().unwrap().to_owned();
                let lines = format.lines().filter(|line| !line.starts_with("ID: "));
                let format = lines.map(|line| format!("{line}\n")).collect();
                let kernels = all.entry((system.to_owned(), name, format)).or_default();
                kernels.insert(kernel.clone());
            }
        }
        let entries: Vec<String> = all
            .into_iter()
            .map(|((system, _, format), kernels)| {
                let kernels: Vec<String> = kernels.into_iter().collect();
                format!("{}\t{system}\n{format}", kernels.join(" "))
            })
            .collect();
        pack("formats.xz", &entries.join("\u{1}"));
        return;
    }
    let Ok(program) = std::env::var("KHO_TRACE_CMD") else {
        return;
    };
    let formats = formats();
    let parsed = parsed(&formats);
    let bytes = pages(&parsed);
    let buffer = Buffer {
        array: "",
        cpu: 0,
        page_size: 4096,
        bytes: &bytes,
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.dat");
    let mut file = std::fs::File::create(&path).unwrap();
    dat::write(&meta(&formats), &[buffer], &mut file).unwrap();
    let output = std::process::Command::new(program)
        .args(["report", "-N", "-i"])
        .arg(&path)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    pack(
        "trace-cmd.xz",
        &reported(&report, parsed.len() * 2).join("\u{1}"),
    );
}

/// Whether an expression has a part that only the kernel knows: a constant, a function, a statement.
fn is_open(expr: &Expr) -> bool {
    match expr {
        Expr::Name(_) | Expr::Source(_) => true,
        Expr::Int(_) | Expr::Text(_) | Expr::Field(_) => false,
        Expr::Unary(_, inner) | Expr::Cast(_, inner) => is_open(inner),
        Expr::Binary(_, a, b) | Expr::Index(a, b) | Expr::Pair(a, b) => is_open(a) || is_open(b),
        Expr::Choice(a, b, c) => is_open(a) || is_open(b) || is_open(c),
        Expr::Call(name, arguments) => {
            let known = ["__get_", "__print_"]
                .iter()
                .any(|start| name.starts_with(start));
            // The first argument may be the name of a field.
            let first = arguments
                .first()
                .is_some_and(|first| !matches!(first, Expr::Name(_)) && is_open(first));
            !known || first || arguments.iter().skip(1).any(is_open)
        }
    }
}

fn has_open(format: &EventFormat) -> bool {
    (format.print.as_ref()).is_some_and(|print| print.arguments.iter().any(is_open))
}

/// Numbers and words of a line. Pointers are numbers; `+0x10/0x100` loses its size, which trace-cmd does not know.
fn words(line: &str) -> Vec<Result<i128, String>> {
    let line = line.replace("(nil)", "0");
    let mut out = Vec::new();
    for word in line.split(|c: char| !(c.is_ascii_alphanumeric() || "_-/".contains(c))) {
        let word = word.split('/').next().unwrap_or(word);
        let hex = word
            .strip_prefix("0x")
            .or(Some(word).filter(|w| w.len() == 16));
        let number = match hex.map(|hex| u64::from_str_radix(hex, 16)) {
            Some(Ok(number)) => Some(i128::from(number)),
            _ => word.parse().ok(),
        };
        if !word.is_empty() {
            out.push(number.ok_or_else(|| word.to_owned()));
        }
    }
    out
}

/// Whether two lines mean the same. trace-cmd extends the signs of small integers differently, which shows in a record
/// with large ones: numbers may differ by a multiple of 256 if the larger one is above 127.
fn same(ours: &str, theirs: &str) -> bool {
    let (ours, theirs) = (words(ours), words(theirs));
    let equal = |pair: (&Result<i128, String>, &Result<i128, String>)| match pair {
        (Ok(a), Ok(b)) => a == b || a.rem_euclid(256) == b.rem_euclid(256) && a.max(b) > &127,
        (a, b) => a == b,
    };
    ours.len() == theirs.len() && ours.iter().zip(&theirs).all(equal)
}

/// Formats of which only the fields can be shown: they consist of C that only the kernel can run. (Formats of Xen
/// consist of one constant; taking a trace puts its number there.)
const STATEMENTS: [&str; 3] = [
    "kvm_mmu_prepare_zap_page",
    "kvm_mmu_sync_page",
    "kvm_mmu_unsync_page",
];

#[test]
fn every_format_has_a_line() {
    made_anew();
    let formats = formats();
    let kernels: BTreeSet<&str> = formats.iter().flat_map(|f| f.kernels.split(' ')).collect();
    assert_eq!(kernels, BTreeSet::from(["5.10", "6.1", "6.12", "7.3"]));
    let names = Names::parse("", "", STRINGS, SYMBOLS);
    for (format, of) in parsed(&formats).iter().zip(&formats) {
        for large in [false, true] {
            let scope = Scope {
                format,
                record: &record(format, large),
                names: &names,
            };
            let line = format.print.as_ref().and_then(|print| scope.line(print));
            let excused = STATEMENTS.contains(&format.name.as_str()) || format.system == "xen";
            assert!(line.is_some() || excused, "{}", of.text.format);
        }
    }
}

/// Events for which trace-cmd 3.1.6 prints another line than the kernel.
const OTHERS: [(&str, &str); 14] = [
    (
        "alarmtimer:",
        "a number is shifted by more bits than it has",
    ),
    (
        "btrfs:",
        "a constant below 0 is not found, and an int that has no name is not extended",
    ),
    (
        "ext4:ext4_es_",
        "what is left of flags of 8 bits is not extended",
    ),
    (
        "ext4:ext4_fc_stats",
        "the elements of an array are counted in bytes",
    ),
    (
        "fs_dax:dax_pmd_insert_mapping",
        "a flag is named that is not set",
    ),
    ("ipi:ipi_send_cpumask", "a mask is a list"),
    ("kvm:", "numbers below 0 are compared without their sign"),
    ("sock:", "numbers below 0 are compared without their sign"),
    (
        "timer:",
        "numbers below 0 are divided without their sign, and a mask in parentheses is not applied",
    ),
    ("mhi_host:", "`0x%p` has two prefixes"),
    (
        "netfs:",
        "a character is shown as its code, and a short has no sign",
    ),
    ("nfs4:nfs4_state_lock_reclaim", "a flag is left out"),
    ("sched:sched_skip_cpuset_numa", "`%*pbl` is not known"),
    (
        "xfs:xfs_",
        "a flag of 0 is never set, and one beyond 32 bits always",
    ),
];

#[test]
fn records_read_as_trace_cmd_reads_them() {
    let formats = formats();
    let parsed = parsed(&formats);
    let ours = shown(&formats, &parsed);
    let golden = unpack(TRACE_CMD);
    let theirs: Vec<&str> = golden.split('\u{1}').collect();
    assert_eq!(ours.len(), theirs.len());
    let (mut compared, mut wrong) = (0, Vec::new());
    let mut needed = BTreeSet::new();
    for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let format = &parsed[number / 2];
        // Events that are shown as the kernel shows them, not by their formats.
        let special = matches!(format.system.as_str(), "ftrace" | "syscalls");
        // Lines that trace-cmd cannot read, and lines that it leaves empty where the kernel prints `(einval)`.
        let theirs_is_none = theirs.starts_with("[FAILED TO PARSE]")
            || theirs.contains("%.*s")
            || ours.contains("(einval)");
        let name = format!("{}:{}", format.system, format.name);
        let other = OTHERS.iter().position(|(start, _)| name.starts_with(start));
        if special || theirs_is_none || has_open(format) {
            continue;
        }
        compared += 1;
        let shown = ours.split_once(':').unwrap().1;
        if same(shown, theirs) {
            continue;
        }
        if let Some(other) = other {
            needed.insert(other);
        } else {
            wrong.push(format!(
                "{}:{}\n ours   {shown}\n theirs {theirs}",
                format.system, format.name
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {compared}\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(needed.len(), OTHERS.len(), "one of these is not needed");
    assert!(compared > 10_000, "{compared}");
}
