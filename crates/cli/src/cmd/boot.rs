//! `kho restore --boot`: the work that `kho-restore.service` does before the services start.

use crate::args;
use crate::arrived::Blob;
use crate::exit::{Fail, OrStatus, Status};
use crate::handover::next;
use crate::keepd::{self, parse::Rule};
use crate::notify;
use crate::ordering;
use crate::output::Output;
use crate::release;
use crate::restore;
use crate::session::Session;
use crate::systemd;
use crate::whole;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Restores the entries, applies keep.d, publishes traces and status. Continues after a failure: the other entries are
/// restored, and the failed one stays reserved for `kho restore NAME`.
///
/// # Errors
///
/// The first failure, after all steps were tried.
pub fn run(session: &Session, out: Output) -> Result<(), Fail> {
    let lock = session.lock()?;
    let _alive = notify::WhileWorking::start();
    let mut failures = Vec::new();
    let rules = keepd::rules::read(&keepd::rules::dirs(session));
    if let Err(fail) = restore_all(rules.as_deref().ok(), session, out, &mut failures) {
        failures.push(fail);
    }
    match rules {
        // After the restore, because the next handover reads a restored entry from its path.
        Ok(_) => match keepd::apply(session, false, keepd::When::Boot) {
            Ok(changes) => {
                keepd::report(&changes, out);
                // A path that is missing now may exist by the time of the handover.
                for left in &changes.left_out {
                    out.remark(&format!("note: {left}"));
                }
            }
            Err(fail) => failures.push(fail),
        },
        Err(fail) => failures.insert(0, fail),
    }
    // A trace that cannot be shown must not stop a service from starting.
    for fail in crate::trace::publish::all(session) {
        eprintln!("<4>kho: {fail}");
    }
    drop(lock);
    for result in [publish(session), publish_line(session)] {
        failures.extend(result.err());
    }
    for fail in failures.iter().skip(1) {
        eprintln!("<3>kho: {fail}");
    }
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Restores every entry as its rule says. If the rules could not be read (`rules` is `None`), the entries that `keep.d`
/// put on the list wait and stay reserved: their rules may forbid the restore, and say which files and privileges it
/// may use.
fn restore_all(
    rules: Option<&[Rule]>,
    session: &Session,
    out: Output,
    failures: &mut Vec<Fail>,
) -> Result<(), Fail> {
    let Some(arrived) = session.arrived()?.as_ref() else {
        out.remark("nothing arrived: this was an ordinary boot");
        return Ok(());
    };
    out.remark(&format!(
        "hop {} from {}: {} entries arrived",
        arrived.hop,
        arrived.previous_release,
        arrived.blobs.len()
    ));
    let paths: Vec<&Path> = arrived
        .blobs
        .iter()
        .filter_map(|blob| blob.path.as_deref())
        .collect();
    let missing = ordering::missing_mounts(&paths, session)?;
    // After a soft reboot the content at a path may be newer than what arrived.
    let may_replace = !systemd::was_soft_rebooted(session)?;
    let mut outcomes = Vec::new();
    for blob in &arrived.blobs {
        let mut keep = session.state.keep()?;
        if blob.path.is_none() || keep.restored.contains(&blob.label) {
            continue;
        }
        if rules.is_none() && blob.label.starts_with(keepd::rules::PREFIX) {
            out.warn(&format!(
                "{} is NOT RESTORED: its rule in keep.d cannot be read; correct it, then: systemctl restart kho-restore.service",
                blob.label
            ));
            continue;
        }
        let rule = rules
            .unwrap_or_default()
            .iter()
            .find(|rule| rule.label() == blob.label);
        if rule.is_some_and(|rule| rule.manual) {
            out.remark(&format!(
                "{}: left for kho restore, as {} says",
                blob.label,
                rule.map_or("", |r| &r.place)
            ));
            continue;
        }
        let beneath = blob
            .path
            .as_deref()
            .and_then(|path| missing.iter().find(|mount| mount.concerns(path)));
        if let Some(mount) = beneath {
            failures.push(not_mounted(blob, &mount.at));
            continue;
        }
        let how = args::Restore {
            names: Vec::new(),
            first: Vec::new(),
            into: None,
            force: may_replace && rule.is_some_and(|rule| rule.replace),
            privileged: rule.is_some_and(|rule| rule.privileged),
            boot: false,
        };
        match restore::one(blob, &how, session, out) {
            Ok(outcome) => {
                if outcome.restored {
                    keep.restored.push(blob.label.clone());
                    session.state.set_keep(&keep)?;
                    let label = std::slice::from_ref(&blob.label);
                    release::blobs(label, &mut keep, session)?;
                }
                outcomes.push(outcome);
            }
            Err(fail) => failures.push(fail),
        }
    }
    restore::print(&outcomes, out);
    Ok(())
}

/// Makes the failure for an entry whose mount is missing: `kho` would write the files into the directory under the
/// mount point, and a later mount would hide them.
fn not_mounted(blob: &Blob, at: &Path) -> Fail {
    Fail::new(
        Status::Failed,
        format!(
            "{} is not restored: {} is not mounted",
            blob.label,
            at.display()
        ),
    )
    .fix(format!("mount it, then kho restore {}", blob.label))
}

/// Writes the command line without the arrival program to `cmdline`, if it starts that program. kdump-tools copies the
/// command line for a kernel with another initrd, and reads this file instead (`kdump-tools.service.d/kho.conf`).
fn publish_line(session: &Session) -> Result<(), Fail> {
    match next::line_without_arrival(&session.root)? {
        Some(line) => write_state("cmdline", &[&line, &b"\n"[..]].concat(), session),
        None => Ok(()),
    }
}

/// Writes the output of `kho status --json` to `status.json`, for users who may read the state directory.
fn publish(session: &Session) -> Result<(), Fail> {
    let me = std::env::current_exe().or_status(Status::Failed)?;
    let output = Command::new(me)
        .args(["--json", "--state-dir"])
        .arg(session.state.path())
        .arg("status")
        .stdin(Stdio::null())
        .output()
        .or_status(Status::Failed)?;
    write_state("status.json", &output.stdout, session)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Fail::new(
        Status::Failed,
        format!(
            "kho status: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    ))
}

/// Writes a whole file in the state directory, or changes nothing.
fn write_state(name: &str, bytes: &[u8], session: &Session) -> Result<(), Fail> {
    let path = session.state.path().join(name);
    whole::write(&path, |out| out.write_all(bytes)).map_err(|err| {
        let what = format!("cannot write {}: {err}", path.display());
        Fail::new(Status::Failed, what)
    })
}
