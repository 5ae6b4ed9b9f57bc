//! `kho trace` and `kho log`: show the traces and logs of previous kernels.

use crate::args;
use crate::exit::{Fail, Status};
use crate::output::{self, Output};
use crate::session::Session;
use crate::shown;
use crate::trace::arrived::{ArrivedHop, ArrivedTraces};
use crate::trace::file::{write, write_fail};
use crate::trace::show::{Choice, Shown};
use crate::trace::take;
use kho_trace::{Taken, kmsg};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::json;
use std::cell::RefCell;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Runs `kho trace`.
///
/// # Errors
///
/// [`Status::NothingArrived`], [`Status::NoSuchEntry`]; [`Status::BlobCorrupt`] after all trusted parts were shown.
pub fn run(args: &args::Trace, session: &Session, out: Output) -> Result<(), Fail> {
    let choice = Choice {
        cpus: args.cpu.clone(),
        instance: args.instance.clone(),
        since: args
            .since
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|what: String| Fail::new(Status::Usage, what))?,
    };
    if args.live {
        let taken = take::take(u64::MAX, session)?;
        let kernel = Kernel {
            hop: session.arrived()?.as_ref().map_or(0, |a| a.hop) + 1,
            taken,
            damaged: Vec::new(),
        };
        return show(vec![kernel], args, &choice, out);
    }
    let traces = traces(session)?;
    let chosen: Vec<&ArrivedHop> = if args.follow_hops {
        traces.hops.iter().collect()
    } else {
        vec![traces.hop(args.hop)?]
    };
    let mut kernels = Vec::new();
    for hop in chosen {
        let (taken, damaged) = hop.open(session)?;
        kernels.push(Kernel {
            hop: hop.hop,
            taken,
            damaged,
        });
    }
    show(kernels, args, &choice, out)
}

/// The trace of one kernel.
struct Kernel {
    hop: u64,
    taken: Taken,
    /// Failures of the buffers that were not read.
    damaged: Vec<Fail>,
}

fn traces(session: &Session) -> Result<&ArrivedTraces, Fail> {
    session.require_arrived()?.traces.as_ref().ok_or_else(|| {
        Fail::new(Status::NoSuchEntry, "no trace arrived")
            .fix("kho keep --trace before the handover")
    })
}

fn show(
    kernels: Vec<Kernel>,
    args: &args::Trace,
    choice: &Choice,
    out: Output,
) -> Result<(), Fail> {
    let shown = kernels
        .iter()
        .map(|kernel| Shown::new(&kernel.taken, choice))
        .collect::<Result<Vec<_>, _>>()?;
    let damaged = kernels.iter().flat_map(|kernel| &kernel.damaged);
    let mut problems: Vec<String> = damaged.map(|fail| fail.what.clone()).collect();
    if out.json && args.output.is_none() {
        let document = Document {
            kernels: &kernels,
            shown: &shown,
            problems: RefCell::new(problems),
        };
        if !out.stream(&document) {
            return Ok(());
        }
        return untrusted(&document.problems.into_inner());
    }
    for (kernel, shown) in kernels.iter().zip(&shown) {
        if let Some(path) = &args.output {
            file(kernel, shown, path, out)?;
            continue;
        }
        match print(kernel, shown, kernels.len() > 1) {
            Ok(unread) => problems.extend(of_hop(kernel.hop, unread)),
            // The reader of the pipe has closed it: no reader is left for a message.
            Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(err) => return Err(write_fail("the trace", &err)),
        }
    }
    untrusted(&problems)
}

/// Fails with a list of the parts that could not be shown, if there are any. The caller has shown the other parts.
fn untrusted(problems: &[String]) -> Result<(), Fail> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Fail::new(
        Status::BlobCorrupt,
        format!(
            "not all of the trace can be trusted:\n  {}",
            problems.join("\n  ")
        ),
    )
    .fix("what was shown is intact"))
}

/// Document that `--json` prints. Its members are made during the writing: a trace of 16 MiB takes a gigabyte as
/// objects.
struct Document<'a> {
    kernels: &'a [Kernel],
    shown: &'a [Shown<'a>],
    /// Messages about parts that cannot be read. The list is complete after the events of all kernels are written.
    problems: RefCell<Vec<String>>,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut document = to.serialize_map(None)?;
        document.serialize_entry("kernels", &Kernels(self))?;
        document.serialize_entry("problems", &*self.problems.borrow())?;
        let warnings = output::take_warnings();
        if !warnings.is_empty() {
            document.serialize_entry("warnings", &warnings)?;
        }
        document.end()
    }
}

/// The member `kernels`.
struct Kernels<'a>(&'a Document<'a>);

impl Serialize for Kernels<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(document) = self;
        let mut kernels = to.serialize_seq(Some(document.kernels.len()))?;
        for (kernel, shown) in document.kernels.iter().zip(document.shown) {
            kernels.serialize_element(&One {
                kernel,
                shown,
                problems: &document.problems,
            })?;
        }
        kernels.end()
    }
}

/// The trace of one kernel in the document.
struct One<'a> {
    kernel: &'a Kernel,
    shown: &'a Shown<'a>,
    problems: &'a RefCell<Vec<String>>,
}

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let meta = &self.kernel.taken.meta;
        let unread = RefCell::default();
        let mut one = to.serialize_map(Some(5))?;
        one.serialize_entry("arrays", &meta.arrays)?;
        one.serialize_entry("events", &self.shown.events(&unread))?;
        one.serialize_entry("hop", &self.kernel.hop)?;
        one.serialize_entry("release", &meta.release)?;
        one.serialize_entry("taken", &meta.taken)?;
        let unread = of_hop(self.kernel.hop, unread.into_inner());
        self.problems.borrow_mut().extend(unread);
        one.end()
    }
}

/// Writes the `trace.dat` of one kernel.
fn file(kernel: &Kernel, shown: &Shown<'_>, path: &Path, out: Output) -> Result<(), Fail> {
    let release = &kernel.taken.meta.release;
    write(path, |file| shown.dat(file))?;
    if let Some(remark) = shown.dat_remark() {
        out.remark(&remark);
    }
    out.result(
        &json!({ "output": shown::path(path), "hop": kernel.hop, "release": release }),
        || {
            println!(
                "{}: the trace of {release} up to hop {}",
                shown::path(path),
                kernel.hop
            );
        },
    );
    Ok(())
}

/// Prints the trace of one kernel. Returns a message for each part that could not be read.
fn print(kernel: &Kernel, shown: &Shown<'_>, many: bool) -> std::io::Result<Vec<String>> {
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    let meta = &kernel.taken.meta;
    if many {
        let time = output::time(meta.taken);
        writeln!(stdout, "# hop {}: {}, {time}", kernel.hop, meta.release)?;
    }
    let unread = shown.text(&mut stdout)?;
    stdout.flush()?;
    Ok(unread)
}

fn of_hop(hop: u64, unread: Vec<String>) -> impl Iterator<Item = String> {
    unread
        .into_iter()
        .map(move |what| format!("trace of hop {hop}, {what}"))
}

/// Runs `kho log`.
///
/// # Errors
///
/// The errors of [`run`].
pub fn log(args: &args::Log, session: &Session, out: Output) -> Result<(), Fail> {
    let traces = traces(session)?;
    let chosen: Vec<&ArrivedHop> = if args.follow_hops {
        traces.hops.iter().collect()
    } else {
        vec![traces.hop(args.hop)?]
    };
    let mut documents = Vec::new();
    for hop in &chosen {
        let messages = kmsg::parse(&hop.log(session)?);
        if out.json {
            documents.push(json!({ "hop": hop.hop, "release": hop.release, "messages": messages }));
            continue;
        }
        let mut stdout = BufWriter::new(std::io::stdout().lock());
        let mut text = || -> std::io::Result<()> {
            if chosen.len() > 1 {
                writeln!(stdout, "# hop {}: {}", hop.hop, hop.release)?;
            }
            for message in &messages {
                writeln!(stdout, "{}", message.line())?;
            }
            stdout.flush()
        };
        match text() {
            Ok(()) => {}
            Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(err) => return Err(write_fail("the log", &err)),
        }
    }
    if out.json {
        out.result(&json!({ "kernels": documents }), || {});
    }
    Ok(())
}
