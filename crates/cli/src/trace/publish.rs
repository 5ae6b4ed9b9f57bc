//! Traces and logs as text files under `/run/kho/trace`, for use with a pager.

use super::arrived::ArrivedHop;
use super::file::write_fail;
use super::show::{Choice, Shown};
use crate::exit::{Fail, OrStatus, Status};
use crate::session::Session;
use crate::shown;
use crate::whole;
use kho_trace::kmsg;
use std::io::Write;
use std::path::Path;

/// Assumed bytes of text for each byte of a trace: a record of some 40 bytes becomes a line of some 120, and the rest
/// is a margin for text that the record does not contain.
const GROWTH: u64 = 4;

/// Writes `hop-N.trace` and `hop-N.log` for every trace that arrived. Returns a failure for each file that could not be
/// written.
pub fn all(session: &Session) -> Vec<Fail> {
    let hops = match session.arrived() {
        Ok(Some(arrived)) => arrived.traces.as_ref().map(|traces| traces.hops.as_slice()),
        Ok(None) | Err(_) => None,
    };
    let hops = hops.unwrap_or_default();
    if hops.is_empty() {
        return Vec::new();
    }
    let dir = session.state.path().join("trace");
    if let Err(fail) = make(&dir) {
        return vec![fail];
    }
    let mut failures = Vec::new();
    // The newest trace first: the space may not be enough for all.
    for hop in hops.iter().rev() {
        if let Err(fail) = one(hop, &dir, session, &mut failures) {
            failures.push(fail);
        }
    }
    failures
}

fn make(dir: &Path) -> Result<(), Fail> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(err) if err.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(err).or_status(Status::Failed)
        }
        _ => Ok(()),
    }
}

fn one(
    hop: &ArrivedHop,
    dir: &Path,
    session: &Session,
    failures: &mut Vec<Fail>,
) -> Result<(), Fail> {
    room(hop, dir)?;
    let path = |ending: &str| dir.join(format!("hop-{}.{ending}", hop.hop));
    let log = kmsg::parse(&hop.log(session)?);
    publish(&path("log"), |out| {
        log.iter()
            .try_for_each(|message| writeln!(out, "{}", message.line()))
    })?;
    let (taken, damaged) = hop.open(session)?;
    failures.extend(damaged);
    let shown = Shown::new(&taken, &Choice::default())?;
    let mut unread = Vec::new();
    publish(&path("trace"), |out| {
        unread = shown.text(out)?;
        Ok(())
    })?;
    // Reads the file, so that the text is made only once.
    if let Err(fail) = super::instance::fill(hop.hop, &path("trace"), session) {
        failures.push(fail);
    }
    failures.extend(unread.into_iter().map(|what| {
        Fail::new(
            Status::BlobCorrupt,
            format!("trace of hop {}, {what}", hop.hop),
        )
    }));
    Ok(())
}

/// Checks that the text leaves at least half of the free space of the file system to others.
fn room(hop: &ArrivedHop, dir: &Path) -> Result<(), Fail> {
    let fs = rustix::fs::statvfs(dir).or_status(Status::Failed)?;
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    if hop.size().saturating_mul(GROWTH) <= free / 2 {
        return Ok(());
    }
    Err(Fail::new(
        Status::NoSpace,
        format!(
            "the text of hop {}'s trace was not written to {}: it may take {} of the {} that are free",
            hop.hop,
            dir.display(),
            crate::output::bytes(hop.size().saturating_mul(GROWTH)),
            crate::output::bytes(free)
        ),
    )
    .fix(format!("kho trace --hop {} shows it", hop.hop)))
}

/// Writes a whole file, or changes nothing.
fn publish(
    path: &Path,
    with: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Fail> {
    whole::write(path, |out| with(out)).map_err(|err| write_fail(&shown::path(path), &err))
}
