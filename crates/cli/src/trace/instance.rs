//! The old trace as text in the new kernel's tracefs: the instance `kho-N`, whose buffer holds a line in each record.
//!
//! Lines are written to the instance's `trace_marker`, which every kernel has. Records get the time of the writing, so
//! the context in front of each line is switched off, and the line has its own: that of the old kernel. The pages
//! themselves cannot be given to a kernel safely, see `docs/src/operations/trace.md`.

use crate::exit::{Fail, Status};
use crate::session::Session;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::Path;

/// Longest text of a record on every kernel, in bytes (`TRACE_BUF_SIZE`, `kernel/trace/trace.h`, 6.1), with its end.
const MAX_TEXT: usize = 1000;
/// Number of bytes that a record takes beside its text: headers, an address, and rounding.
const RECORD: u64 = 40;
/// Largest buffer, in bytes: records older than its content fall out of it.
const MAX_BUFFER: u64 = 32 << 20;
/// Smallest buffer, in bytes.
const MIN_BUFFER: u64 = 64 << 10;

/// Makes the instance `kho-N` and fills it with the lines of the file `text`. Does nothing if there is no tracefs.
///
/// # Errors
///
/// [`Status::Failed`] if tracefs refuses something; a new instance is removed again then.
pub fn fill(hop: u64, text: &Path, session: &Session) -> Result<(), Fail> {
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
    let filled = write(&dir, text, before.as_ref());
    if let Some(before) = &before {
        // It was so before: nothing to refuse.
        let _ = sched_setaffinity(None, before);
    }
    filled.map_err(|err| {
        let _ = std::fs::remove_dir(&dir);
        failed(err)
    })
}

fn write(dir: &Path, text: &Path, allowed: Option<&CpuSet>) -> io::Result<()> {
    let set = |file: &str, value: &str| -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(dir.join(file))?
            .write_all(value.as_bytes())
    };
    let (room, skip) = measure(&mut BufReader::new(File::open(text)?))?;
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
    let mut marker = OpenOptions::new()
        .write(true)
        .open(dir.join("trace_marker"))?;
    let mut from = File::open(text)?;
    from.seek(io::SeekFrom::Start(skip))?;
    records(&mut BufReader::new(from), &mut marker)?;
    set("tracing_on", "0")
}

/// Returns the size of the buffer for the lines, in bytes, and the number of bytes of the text that would fall out of
/// it again before the last line is written.
fn measure(text: &mut impl BufRead) -> io::Result<(u64, u64)> {
    // End of each line in the text, and the bytes that it and those before it take in the buffer.
    let mut ends = Vec::new();
    let (mut at, mut taken) = (0u64, 0u64);
    let mut line = Vec::new();
    while text.read_until(b'\n', &mut line)? > 0 {
        let len = line.len() as u64;
        at += len;
        taken += len + RECORD * len.div_ceil(MAX_TEXT as u64);
        ends.push((at, taken));
        line.clear();
    }
    // A tenth more: records do not cross the borders of pages.
    let room = taken
        .saturating_add(taken / 10)
        .clamp(MIN_BUFFER, MAX_BUFFER);
    let over = taken.saturating_sub(MAX_BUFFER);
    let first = ends.partition_point(|(_, taken)| *taken <= over);
    let skip = match first.checked_sub(1).and_then(|last| ends.get(last)) {
        Some((end, _)) => *end,
        None => 0,
    };
    Ok((room, skip))
}

/// Hands `trace_marker` a line at a time, or as much of a line as a record takes: each call makes one record.
fn records(text: &mut impl BufRead, marker: &mut impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    while text.read_until(b'\n', &mut line)? > 0 {
        for record in line.chunks(MAX_TEXT) {
            marker.write_all(record)?;
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One record for each call.
    #[derive(Default)]
    struct Marker(Vec<Vec<u8>>);

    impl Write for Marker {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.push(buf.to_vec());
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_for_each_line_and_more_for_a_long_one() {
        let long = "y".repeat(1500);
        let text = format!("one\n{long}\nlast");
        let mut marker = Marker::default();
        records(&mut text.as_bytes(), &mut marker).unwrap();
        let lens: Vec<usize> = marker.0.iter().map(Vec::len).collect();
        assert_eq!(lens, [4, 1000, 501, 4]);
        assert_eq!(marker.0.concat(), text.as_bytes());
        assert_eq!(measure(&mut text.as_bytes()).unwrap(), (MIN_BUFFER, 0));
    }

    #[test]
    fn lines_that_would_fall_out_again_are_not_written() {
        let line = format!("{}\n", "z".repeat(159));
        let text = line.repeat(400_000);
        let (room, skip) = measure(&mut text.as_bytes()).unwrap();
        assert_eq!(room, MAX_BUFFER);
        // Whole lines, and as many as the buffer takes.
        assert_eq!(skip % 160, 0);
        let written = (text.len() as u64 - skip) / 160;
        assert!(
            (MAX_BUFFER / 200..=MAX_BUFFER / 200 + 1).contains(&written),
            "{written}"
        );
    }
}
