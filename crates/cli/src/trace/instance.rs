//! The old trace as text in the new kernel's tracefs: the instance `kho-N`, whose buffer has one record for each line.
//!
//! `kho` writes lines to the instance's `trace_marker`, which every kernel has. The kernel gives the records the time
//! of the writing, so the option for the context of a line is off. Each line of text has the context from the old
//! kernel. The old pages themselves cannot be given to a kernel safely, see `docs/src/operations/trace.md`.

use crate::exit::{Fail, Status};
use crate::session::Session;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::Path;

/// Longest text of a record on every kernel, in bytes (`TRACE_BUF_SIZE`, `kernel/trace/trace.h`, 6.1), including its
/// end.
const MAX_TEXT: usize = 1000;
/// Number of bytes of a record beside its text: headers, an address, and rounding.
const RECORD: u64 = 40;
/// Largest buffer, in bytes. The oldest records are lost if the text is longer.
const MAX_BUFFER: u64 = 32 << 20;
/// Smallest buffer, in bytes.
const MIN_BUFFER: u64 = 64 << 10;

/// Creates the instance `kho-N` and fills it with the lines of the file `text`. Does nothing if tracefs is missing.
///
/// # Errors
///
/// [`Status::Failed`] if tracefs reports an error. A new instance is then removed.
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
        // The instance was filled earlier in this boot.
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(err) => return Err(failed(err)),
    }
    // The writing stays on one CPU, so that only one buffer has to be large.
    let before = sched_getaffinity(None).ok();
    let filled = write(&dir, text, before.as_ref());
    if let Some(before) = &before {
        // These are the CPUs from before, so the kernel accepts them.
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

/// Returns the size of the buffer for the lines, in bytes, and the number of bytes at the start of the text that would
/// be lost again before the last line is written.
fn measure(text: &mut impl BufRead) -> io::Result<(u64, u64)> {
    // End of each line in the text, and the buffer bytes of all lines up to it.
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
    // A margin of one tenth: records do not cross page borders.
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

/// Writes one line at a time to `trace_marker`, in pieces if a record is too short for it: each call makes one record.
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

    /// Stores one record for each call.
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
        // Only whole lines are skipped, and no more than necessary.
        assert_eq!(skip % 160, 0);
        let written = (text.len() as u64 - skip) / 160;
        assert!(
            (MAX_BUFFER / 200..=MAX_BUFFER / 200 + 1).contains(&written),
            "{written}"
        );
    }
}
