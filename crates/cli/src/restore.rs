//! Restores entries that arrived to their paths.

use crate::args;
use crate::arrived::Blob;
use crate::exit::{Fail, Status, chain};
use crate::output::{self, Output};
use crate::session::Session;
use crate::shown;
use kho_archive::{Dest, UnpackError, UnpackOptions};
use kho_kexec::sys::facts::security::selinux_policy;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Result of the restore of one entry.
#[derive(Serialize)]
pub struct Outcome {
    name: String,
    bytes: u64,
    /// Destination, or the reason why the entry was skipped.
    to: String,
    /// Whether the entry was restored.
    pub restored: bool,
    files: u64,
    replaced: u64,
    setid_dropped: u64,
    security_dropped: u64,
    labels_dropped: u64,
    unsupported_dropped: u64,
    /// Names of the attributes that the file system refused. The next field has the first file with such an attribute.
    unsupported: Vec<String>,
    first_unsupported: Option<String>,
}

impl Outcome {
    /// Returns a message with the attributes that the file system refused; `None` if it refused none. A lost ACL may
    /// open a file to other users.
    fn unsupported(&self) -> Option<String> {
        let first = self.first_unsupported.as_ref()?;
        let mut names: Vec<&str> = self
            .unsupported
            .iter()
            .map(|name| match name.as_str() {
                "system.posix_acl_access" => "access ACLs",
                "system.posix_acl_default" => "default ACLs",
                name => name,
            })
            .collect();
        names.sort_unstable();
        Some(format!(
            "{} left out that this file system does not take: {}; the first belongs to {first}",
            match self.unsupported_dropped {
                1 => "an extended attribute".to_owned(),
                n => format!("{n} extended attributes"),
            },
            names.join(", ")
        ))
    }
}

/// Makes the outcome of an entry that was not restored, with the reason.
pub fn skipped(blob: &Blob, why: &str) -> Outcome {
    Outcome {
        name: blob.label.clone(),
        bytes: blob.size,
        to: why.to_owned(),
        restored: false,
        files: 0,
        replaced: 0,
        setid_dropped: 0,
        security_dropped: 0,
        labels_dropped: 0,
        unsupported_dropped: 0,
        unsupported: Vec::new(),
        first_unsupported: None,
    }
}

/// Restores one entry: writes it beside its path, checks its hash, and moves it to its path. The entry is on disk when
/// this returns, because the caller may then release the memory that it came from.
///
/// # Errors
///
/// The errors of [`run`]. Nothing of the entry is then at its path.
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
    let dest = match &args.into {
        Some(dir) => Dest::Into(dir.canonicalize().map_err(|err| {
            Fail::new(
                Status::BadSource,
                format!("cannot restore into {}: {err}", shown::path(dir)),
            )
            .fix("make the directory first")
        })?),
        None => Dest::Original,
    };
    let options = UnpackOptions {
        force: args.force,
        privileged: args.privileged,
        labels: selinux_policy(&session.root),
        drop_unsupported_xattrs: true,
        fsync: true,
        max_bytes: blob.size,
        ..UnpackOptions::default()
    };
    let mut reader = session.open_blob(blob)?;
    let bar = out.progress(&format!("restoring {}", blob.label), blob.size);
    let stats = kho_archive::unpack_if(
        &mut reader,
        &dest,
        &options,
        &mut |n| bar.set_position(n),
        // The archive has an end of its own, but the hash is over all bytes of the blob.
        |reader| {
            reader
                .rest()
                .map_err(|fail| std::io::Error::other(fail.what))
        },
    );
    bar.finish_and_clear();
    let stats = match stats {
        Ok(stats) => stats,
        Err(err) => {
            // If the bytes are corrupt, the error of the archive has no meaning: the hash error is returned.
            reader.rest()?;
            return Err(unpack_fail(&blob.label, &err));
        }
    };
    let to = match &args.into {
        Some(dir) => dir.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.clone(),
    };
    Ok(Outcome {
        name: blob.label.clone(),
        bytes: blob.size,
        to: shown::path(to),
        restored: true,
        files: stats.files,
        replaced: stats.replaced,
        setid_dropped: stats.setid_dropped,
        security_dropped: stats.security_dropped,
        labels_dropped: stats.labels_dropped,
        unsupported_dropped: stats.unsupported_dropped,
        unsupported: stats.unsupported,
        first_unsupported: stats.first_unsupported.map(|path| {
            let place = args.into.as_deref().unwrap_or(Path::new("/"));
            shown::path(place.join(path))
        }),
    })
}

/// Writes a raw blob to a file of its name below the directory, with mode 0600: a blob has no permissions of its own.
fn raw_into(
    blob: &Blob,
    dir: &Path,
    force: bool,
    session: &Session,
    out: Output,
) -> Result<Outcome, Fail> {
    let target = dir.join(&blob.label);
    let beside = dir.join(format!(".kho-restore-{}", std::process::id()));
    let mut reader = session.open_blob(blob)?;
    let bar = out.progress(&format!("restoring {}", blob.label), blob.size);
    let staged = stage_raw(&beside, &mut bar.wrap_read(&mut reader));
    bar.finish_and_clear();
    // Corrupt bytes do not get the name of the blob, and a write error about them has no meaning.
    let placed = reader.rest().and_then(|()| {
        staged
            .and_then(|file| place_raw(&file, &beside, &target, force))
            .map_err(|err| raw_fail(blob, &target, &err))
    });
    if let Err(fail) = placed {
        let _ = std::fs::remove_file(&beside);
        return Err(fail);
    }
    let mut outcome = skipped(blob, &shown::path(&target));
    outcome.restored = true;
    outcome.files = 1;
    Ok(outcome)
}

fn stage_raw(beside: &Path, reader: &mut impl Read) -> std::io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)?;
    std::io::copy(reader, &mut file)?;
    file.sync_all()?;
    Ok(file)
}

fn place_raw(file: &File, beside: &Path, target: &Path, force: bool) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with, syncfs};
    let flags = if force {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    renameat_with(CWD, beside, CWD, target, flags)?;
    Ok(syncfs(file)?)
}

fn raw_fail(blob: &Blob, target: &Path, err: &std::io::Error) -> Fail {
    let what = format!(
        "cannot restore {} to {}: {err}",
        blob.label,
        shown::path(target)
    );
    match err.kind() {
        ErrorKind::AlreadyExists => Fail::new(Status::Exists, what).fix("--force replaces it"),
        ErrorKind::StorageFull => Fail::new(Status::NoSpace, what),
        _ => Fail::new(Status::Failed, what),
    }
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
        UnpackError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
            Status::NoSpace
        }
        UnpackError::Incomplete { cause, .. } => status_of(cause),
        _ => Status::Failed,
    }
}

/// Prints the outcomes, for people or scripts.
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
                    outcome.labels_dropped,
                    "SELinux labels left out that this system's policy does not take (restorecon -R gives others)",
                ),
            ] {
                if count > 0 {
                    println!("         note: {count} {what}");
                }
            }
            if let Some(lost) = outcome.unsupported() {
                println!("         note: {lost}");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_system_does_not_take_is_named() {
        let mut outcome = Outcome {
            name: "srv".to_owned(),
            bytes: 0,
            to: "/srv".to_owned(),
            restored: true,
            files: 2,
            replaced: 0,
            setid_dropped: 0,
            security_dropped: 0,
            labels_dropped: 0,
            unsupported_dropped: 0,
            unsupported: Vec::new(),
            first_unsupported: None,
        };
        assert_eq!(outcome.unsupported(), None);
        outcome.unsupported_dropped = 3;
        outcome.unsupported = vec!["user.x".to_owned(), "system.posix_acl_access".to_owned()];
        outcome.first_unsupported = Some("/srv/a".to_owned());
        assert_eq!(
            outcome.unsupported().unwrap(),
            "3 extended attributes left out that this file system does not take: access ACLs, user.x; the first belongs to /srv/a"
        );
    }
}
