//! The old trace as text in the new kernel's tracefs: the instance `kho-N`, whose buffer holds a line in each record.
//!
//! Lines are written to the instance's `trace_marker`, which every kernel has. Records get the time of the writing, so the context
//! in front of each line is switched off, and the line has its own: that of the old kernel. The pages themselves cannot be
//! given to a kernel safely, see `docs/src/operations/trace.md`.

use super::show::Shown;
use crate::exit::{Fail, Status};
use crate::session::Session;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Most bytes of a record's text on every kernel (`TRACE_BUF_SIZE`, `kernel/trace/trace.h`, 6.1), with its end.
const MAX_TEXT: usize = 1000;
/// What a record takes beside its text: headers, an address, and rounding.
const RECORD: u64 = 40;
/// Largest buffer: what is older than its content falls out of it.
const MAX_BUFFER: u64 = 32 << 20;
/// Smallest buffer.
const MIN_BUFFER: u64 = 64 << 10;

/// Counts instead of writing.
#[derive(Default)]
struct Count {
    bytes: u64,
    lines: u64,
}

impl Write for Count {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes += buf.len() as u64;
        self.lines += buf.iter().filter(|byte| **byte == b'\n').count() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hands `trace_marker` whole lines, or as much of one as a record takes.
struct Marker {
    file: File,
    line: Vec<u8>,
}

impl Write for Marker {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        for byte in buf {
            self.line.push(*byte);
            if *byte == b'\n' || self.line.len() == MAX_TEXT {
                self.file.write_all(&self.line)?;
                self.line.clear();
            }
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes the instance `kho-N` and fills it. Nothing happens where there is no tracefs.
///
/// # Errors
///
/// [`Status::Failed`] when tracefs refuses something; a new instance is removed again then.
pub fn fill(hop: u64, shown: &Shown<'_>, session: &Session) -> Result<(), Fail> {
    let instances = session.root.path("sys/kernel/tracing/instances");
    if !instances.is_dir() {
        return Ok(());
    }
    let dir = instances.join(format!("kho-{hop}"));
    let failed = |err: io::Error| {
        Fail::new(
            Status::Failed,
            format!("the trace of hop {hop} is not at {}: {err}", dir.display()),
        )
        .fix(format!("kho trace --hop {hop} shows it"))
    };
    match std::fs::create_dir(&dir) {
        Ok(()) => {}
        // Filled before in this boot.
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(err) => return Err(failed(err)),
    }
    // Only one CPU's buffer has to be large.
    let before = sched_getaffinity(None).ok();
    let filled = write(&dir, shown, before.as_ref());
    if let Some(before) = &before {
        // It was so before: nothing to refuse.
        let _ = sched_setaffinity(None, before);
    }
    filled.map_err(|err| {
        let _ = std::fs::remove_dir(&dir);
        failed(err)
    })
}

fn write(dir: &Path, shown: &Shown<'_>, allowed: Option<&CpuSet>) -> io::Result<()> {
    let set = |file: &str, value: &str| -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(dir.join(file))?
            .write_all(value.as_bytes())
    };
    let mut count = Count::default();
    shown.text(&mut count)?;
    let room = count
        .bytes
        .saturating_add(count.lines.saturating_mul(RECORD));
    // A tenth more: records do not cross the borders of pages.
    let room = room.saturating_add(room / 10).clamp(MIN_BUFFER, MAX_BUFFER);
    set("buffer_size_kb", "8")?;
    let cpu = allowed.and_then(|set| (0..CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu)));
    let pinned = cpu.filter(|cpu| {
        let mut one = CpuSet::new();
        one.set(*cpu);
        sched_setaffinity(None, &one).is_ok()
    });
    let file = match pinned {
        Some(cpu) => format!("per_cpu/cpu{cpu}/buffer_size_kb"),
        None => "buffer_size_kb".to_owned(),
    };
    set(&file, &(room >> 10).to_string())?;
    set("trace_options", "nocontext-info")?;
    let mut marker = Marker {
        file: OpenOptions::new()
            .write(true)
            .open(dir.join("trace_marker"))?,
        line: Vec::new(),
    };
    shown.text(&mut marker)?;
    marker.flush()?;
    set("tracing_on", "0")
}
