//! `kho trace` and `kho log`: what the previous kernels traced and said.

use crate::args;
use crate::exit::{Fail, OrStatus, Status};
use crate::output::{self, Output};
use crate::session::Session;
use crate::shown;
use crate::trace::arrived::{ArrivedHop, ArrivedTraces};
use crate::trace::file::{write, write_fail};
use crate::trace::show::{Choice, Shown};
use crate::trace::take;
use kho_trace::{Taken, kmsg};
use serde_json::{Value, json};
use std::io::{BufWriter, Write};

/// Runs `kho trace`.
///
/// # Errors
///
/// [`Status::NothingArrived`], [`Status::NoSuchEntry`]; [`Status::BlobCorrupt`] after everything that can be trusted
/// was shown.
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

/// One kernel's trace.
struct Kernel {
    hop: u64,
    taken: Taken,
    /// Buffers that were not read.
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
    let mut problems: Vec<String> = Vec::new();
    let mut documents: Vec<Value> = Vec::new();
    let many = kernels.len() > 1;
    for kernel in &kernels {
        let shown = Shown::new(&kernel.taken, choice)?;
        problems.extend(kernel.damaged.iter().map(|fail| fail.what.clone()));
        let meta = &kernel.taken.meta;
        if let Some(path) = &args.output {
            write(path, |file| shown.dat(file))?;
            if let Some(remark) = shown.dat_remark() {
                out.remark(&remark);
            }
            out.result(
                &json!({ "output": shown::path(path), "hop": kernel.hop, "release": meta.release }),
                || {
                    println!(
                        "{}: the trace of {} up to hop {}",
                        shown::path(path),
                        meta.release,
                        kernel.hop
                    );
                },
            );
        } else if out.json {
            let (events, unread) = shown.json().or_status(Status::Failed)?;
            problems.extend(of_hop(kernel.hop, unread));
            documents.push(json!({
                "hop": kernel.hop,
                "release": meta.release,
                "taken": meta.taken,
                "arrays": meta.arrays,
                "events": events,
            }));
        } else {
            match print(kernel, &shown, many) {
                Ok(unread) => problems.extend(of_hop(kernel.hop, unread)),
                // The reader of a pipe went away: nothing left to tell it.
                Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                Err(err) => return Err(write_fail("the trace", &err)),
            }
        }
    }
    if out.json && args.output.is_none() {
        out.result(
            &json!({ "kernels": documents, "problems": problems }),
            || {},
        );
    }
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

/// Prints one kernel's trace; gives what could not be read.
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
/// As [`run`].
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
