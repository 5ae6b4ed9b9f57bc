//! A trace that no kernel wrote, which `kho-guest load-damaged` hands over to the next kernel.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kho::PhysRange;
use kho::abi::MACHINE_X86_64;
use kho::abi::ftrace::{
    TraceHopDescription, TraceKind, TracePartDescription, TracesDescription, write_traces,
};
use serde_json::json;

use crate::loader::{Places, RELEASE};

const TRACEFS: &str = "/sys/kernel/tracing";
const PAGE: usize = 4096;

/// State tree and content that are handed over.
pub(crate) struct Forged {
    pub(crate) tree: Vec<u8>,
    /// Content, from the start of the first range on.
    pub(crate) content: Vec<u8>,
}

/// Forges a trace with two pages of CPU 0, the second of which is wrong: with `cut`, its end is missing; otherwise it
/// states more bytes than it can have. The hashes of the pages are right. The metadata that explains the pages goes
/// into the range `first`, the pages into `second`.
pub(crate) fn forge(
    cut: bool,
    places: &Places,
    first: PhysRange,
    second: PhysRange,
) -> Result<Forged> {
    let read = |path: &str| {
        let path = Path::new(TRACEFS).join(path);
        // In one read: `header_page` returns only the bytes for which the first read has room.
        let mut text = vec![0; 64 << 10];
        let len = File::open(&path)
            .and_then(|mut file| file.read(&mut text))
            .with_context(|| format!("reading {}", path.display()))?;
        text.truncate(len);
        String::from_utf8(text).with_context(|| format!("{} is no text", path.display()))
    };
    let print = read("events/ftrace/print/format")?;
    let id = print
        .lines()
        .find_map(|line| line.strip_prefix("ID: "))
        .context("the format of print has no number")?
        .parse()?;
    let meta = json!({
        "version": 1, "release": RELEASE, "machine": MACHINE_X86_64, "taken": 1, "uptime": 1,
        "header_page": read("events/header_page")?, "header_event": read("events/header_event")?,
        "cmdlines": "", "tgids": "", "printk_formats": "", "symbols": "",
        "events": [{ "system": "ftrace", "format": print }],
        "arrays": [{
            "name": "", "clock": "local", "tracer": "nop", "options": "", "on": false,
            "cpus": [{ "cpu": 0, "stats": "", "left_out": 0 }],
        }],
    });
    let meta = serde_json::to_vec(&meta)?;
    let mut pages = page(id, 1_000_000_000, "the last that can be trusted\n");
    pages.extend(page(id, 2_000_000_000, "of a page that cannot\n"));
    if !cut {
        pages[PAGE + 8..PAGE + 16].copy_from_slice(&0x1234_u64.to_le_bytes());
    }
    ensure!(
        meta.len() as u64 <= first.len() && pages.len() as u64 <= second.len(),
        "the content is too short for a trace"
    );
    let whole_pages = |range: PhysRange, bytes: &[u8]| {
        PhysRange::new(range.start(), bytes.len().next_multiple_of(PAGE) as u64)
    };
    let first_mem = [whole_pages(first, &meta)?];
    let second_mem = [whole_pages(second, &pages)?];
    let part = |kind, bytes: &[u8], mem| TracePartDescription {
        kind,
        size: bytes.len() as u64,
        mem,
        blake3: *blake3::hash(bytes).as_bytes(),
    };
    let cpu = TraceKind::Cpu {
        array: "",
        cpu: 0,
        sub_buffer: u32::try_from(PAGE)?,
    };
    let parts = [
        part(TraceKind::Meta, &meta, &first_mem[..]),
        part(cpu, &pages, &second_mem[..]),
    ];
    let hops = [TraceHopDescription {
        hop: 1,
        release: RELEASE,
        taken: 1,
        parts: &parts,
    }];
    let traces = TracesDescription {
        limit: 1 << 20,
        keep_hops: 1,
        configured: false,
        hops: &hops,
    };
    let mut tree = places.tree(&places.reserved, &[], |w| write_traces(w, &traces))?;
    if cut {
        // The writers cannot write such a tree, so change the finished one.
        cut_off(&mut tree, parts[1].blake3, pages.len() as u64)?;
        kho::tree::seal(&mut tree)?;
    }
    let mut content = meta;
    content.resize(usize::try_from(first.len())?, 0);
    content.extend(pages);
    Ok(Forged { tree, content })
}

/// Makes the buffer with this hash 100 bytes shorter than its `len`. In the tree, the buffer's `size` stands before
/// its `mem`, whose length is the same number, and before its hash.
fn cut_off(tree: &mut [u8], blake3: [u8; 32], len: u64) -> Result<()> {
    let hash = tree.windows(32).position(|window| window == blake3);
    let before = hash.and_then(|at| tree.get_mut(..at)).context("no hash")?;
    let size = len.to_ne_bytes();
    let mut places = before.windows(8).enumerate().rev();
    let mut next = || places.find(|(_, window)| *window == size);
    let (_, place) = (next(), next());
    let (at, _) = place.context("no size in front of the hash")?;
    before[at..at + 8].copy_from_slice(&(len - 100).to_ne_bytes());
    Ok(())
}

/// A page with one `print` record (`struct print_entry`, `kernel/trace/trace_entries.h`).
fn page(id: u16, time: u64, text: &str) -> Vec<u8> {
    let mut record = id.to_le_bytes().to_vec();
    // Flags, preemption count, task, and the caller's address.
    record.extend([0; 2]);
    record.extend(7u32.to_le_bytes());
    record.extend(0u64.to_le_bytes());
    record.extend(text.as_bytes());
    record.push(0);
    record.resize(record.len().next_multiple_of(4), 0);
    let mut out = time.to_le_bytes().to_vec();
    let words = u32::try_from(record.len() / 4).unwrap_or(0);
    out.extend((4 + record.len() as u64).to_le_bytes());
    // `struct ring_buffer_event`: the length of the record in words in the low five bits, and a time delta of 0.
    out.extend((words & 31).to_le_bytes());
    out.extend(record);
    out.resize(PAGE, 0);
    out
}
