//! `kho restore`: what arrived, back to where it came from.

use crate::args;
use crate::arrived::Blob;
use crate::exit::{Fail, Status, chain};
use crate::output::{self, Output};
use crate::session::Session;
use kho_archive::{Dest, UnpackError, UnpackOptions};
use serde::Serialize;
use std::path::Path;

/// What happened to one entry.
#[derive(Serialize)]
pub struct Outcome {
    name: String,
    bytes: u64,
    /// Where it went, or why it was skipped.
    to: String,
    /// Whether it was.
    pub restored: bool,
    files: u64,
    replaced: u64,
    setid_dropped: u64,
    security_dropped: u64,
    unsupported_dropped: u64,
}

/// Runs `kho restore`.
///
/// # Errors
///
/// The first entry's failure; entries before it are restored (and recorded as such), it and those after
/// it are not.
pub fn run(args: &args::Restore, session: &Session, out: Output) -> Result<(), Fail> {
    if args.boot {
        return super::boot::run(session, out);
    }
    let _lock = session.lock()?;
    let arrived = session.require_arrived()?;
    let mut chosen: Vec<&Blob> = Vec::new();
    if args.names.is_empty() {
        chosen.extend(&arrived.blobs);
    }
    for name in &args.names {
        chosen.push(arrived.blob(name)?);
    }
    let mut keep = session.state.keep()?;
    let mut outcomes = Vec::new();
    let mut result = Ok(());
    for blob in chosen {
        // Restoring an entry twice would put old content over what was written since.
        if args.names.is_empty() && args.into.is_none() && keep.restored.contains(&blob.label) {
            outcomes.push(skipped(blob, "restored before; name it to do so again"));
            continue;
        }
        match one(blob, args, session, out) {
            Ok(outcome) => {
                let in_place = outcome.restored && args.into.is_none();
                if in_place && !keep.restored.contains(&blob.label) {
                    keep.restored.push(blob.label.clone());
                    session.state.set_keep(&keep)?;
                    // Its path is read again on the next hop: nobody needs the bytes that arrived any more.
                    let label = std::slice::from_ref(&blob.label);
                    super::module::release_blobs(label, &mut keep, session)?;
                }
                outcomes.push(outcome);
            }
            Err(fail) => {
                result = Err(fail);
                break;
            }
        }
    }
    print(&outcomes, out);
    result
}

fn skipped(blob: &Blob, why: &str) -> Outcome {
    Outcome {
        name: blob.label.clone(),
        bytes: blob.size,
        to: why.to_owned(),
        restored: false,
        files: 0,
        replaced: 0,
        setid_dropped: 0,
        security_dropped: 0,
        unsupported_dropped: 0,
    }
}

/// One entry, checked before it is written.
///
/// # Errors
///
/// As [`run`]; nothing of it is at its place then.
pub fn one(
    blob: &Blob,
    args: &args::Restore,
    session: &Session,
    out: Output,
) -> Result<Outcome, Fail> {
    let Some(path) = &blob.path else {
        return match &args.into {
            Some(dir) => raw_into(blob, dir, args.force, session, out),
            None => Ok(skipped(blob, "has no path; use kho get, or --into DIR")),
        };
    };
    // A first pass checks the hash, so that damaged content never reaches a file system.
    verify(blob, session, out)?;
    let dest = match &args.into {
        Some(dir) => Dest::Into(dir.canonicalize().map_err(|err| {
            Fail::new(
                Status::BadSource,
                format!("cannot restore into {}: {err}", dir.display()),
            )
            .fix("make the directory first")
        })?),
        None => Dest::Original,
    };
    let options = UnpackOptions {
        force: args.force,
        privileged: args.privileged,
        drop_unsupported_xattrs: true,
        max_bytes: blob.size,
        ..UnpackOptions::default()
    };
    let bar = out.progress(&format!("restoring {}", blob.label), blob.size);
    let stats = kho_archive::unpack(session.open_blob(blob)?, &dest, &options, &mut |n| {
        bar.set_position(n)
    });
    bar.finish_and_clear();
    let stats = stats.map_err(|err| unpack_fail(&blob.label, &err))?;
    let to = match &args.into {
        Some(dir) => dir.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.clone(),
    };
    Ok(Outcome {
        name: blob.label.clone(),
        bytes: blob.size,
        to: to.display().to_string(),
        restored: true,
        files: stats.files,
        replaced: stats.replaced,
        setid_dropped: stats.setid_dropped,
        security_dropped: stats.security_dropped,
        unsupported_dropped: stats.unsupported_dropped,
    })
}

/// Reads all of a blob and compares its hash.
fn verify(blob: &Blob, session: &Session, out: Output) -> Result<(), Fail> {
    let bar = out.progress(&format!("checking {}", blob.label), blob.size);
    let mut reader = session.open_blob(blob)?;
    let read = std::io::copy(&mut bar.wrap_read(&mut reader), &mut std::io::sink());
    bar.finish_and_clear();
    read.map_err(|err| Fail::new(Status::Failed, format!("cannot read {}: {err}", blob.label)))?;
    reader.finish()
}

/// A raw blob becomes a file of its name below the directory, mode 0600: nobody said who may read it.
fn raw_into(
    blob: &Blob,
    dir: &Path,
    force: bool,
    session: &Session,
    out: Output,
) -> Result<Outcome, Fail> {
    use std::os::unix::fs::OpenOptionsExt;
    verify(blob, session, out)?;
    let target = dir.join(&blob.label);
    let beside = dir.join(format!(".kho-restore-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        let mut reader = session.open_blob(blob).map_err(std::io::Error::other)?;
        std::io::copy(&mut reader, &mut file)?;
        let flags = if force {
            rustix::fs::RenameFlags::empty()
        } else {
            rustix::fs::RenameFlags::NOREPLACE
        };
        rustix::fs::renameat_with(rustix::fs::CWD, &beside, rustix::fs::CWD, &target, flags)?;
        Ok(())
    };
    write().map_err(|err| {
        let _ = std::fs::remove_file(&beside);
        let what = format!(
            "cannot restore {} to {}: {err}",
            blob.label,
            target.display()
        );
        match err.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Fail::new(Status::Exists, what).fix("--force replaces it")
            }
            std::io::ErrorKind::StorageFull => Fail::new(Status::NoSpace, what),
            _ => Fail::new(Status::Failed, what),
        }
    })?;
    let mut outcome = skipped(blob, &target.display().to_string());
    outcome.restored = true;
    outcome.files = 1;
    Ok(outcome)
}

fn unpack_fail(label: &str, err: &UnpackError) -> Fail {
    Fail::new(
        status_of(err),
        format!("cannot restore {label}: {}", chain(err)),
    )
}

fn status_of(err: &UnpackError) -> Status {
    match err {
        UnpackError::Format(_) => Status::BlobCorrupt,
        UnpackError::Conflicts { .. } => Status::Exists,
        UnpackError::Symlink { .. } | UnpackError::NotADirectory { .. } => Status::UnsafePath,
        UnpackError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Status::NoSpace
        }
        UnpackError::Incomplete { cause, .. } => status_of(cause),
        _ => Status::Failed,
    }
}

/// What happened, for people or scripts.
pub fn print(outcomes: &[Outcome], out: Output) {
    out.result(&serde_json::json!({ "entries": outcomes }), || {
        for outcome in outcomes {
            let verb = if outcome.restored {
                "restored"
            } else {
                "skipped "
            };
            println!(
                "{verb} {}  {}  {}",
                outcome.name,
                output::bytes(outcome.bytes),
                outcome.to
            );
            for (count, what) in [
                (
                    outcome.setid_dropped,
                    "set-user-ID or set-group-ID bits left off (--privileged restores them)",
                ),
                (
                    outcome.security_dropped,
                    "security.* attributes left out (--privileged restores them)",
                ),
                (
                    outcome.unsupported_dropped,
                    "extended attributes left out that this file system does not take",
                ),
            ] {
                if count > 0 {
                    println!("         note: {count} {what}");
                }
            }
        }
    });
}
