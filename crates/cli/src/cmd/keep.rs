//! `kho keep`: chooses the content that the next kernel gets.

use crate::args;
use crate::exit::{Fail, OrStatus, Status};
use crate::keepd;
use crate::keepd::rules::PREFIX;
use crate::list::{self, Entry};
use crate::ordering;
use crate::output::{self, Output};
use crate::release;
use crate::session::Session;
use crate::shown;
use crate::state::{Content, KeepFile, Local, escape_path};
use crate::trace::wish::{self, Said, Wish};
use kho::abi::Label;
use std::ffi::OsStr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Runs `kho keep`.
///
/// # Errors
///
/// One [`Fail`] per cause. The list is then unchanged.
pub fn run(args: &args::Keep, session: &Session, out: Output) -> Result<(), Fail> {
    if args.list {
        return show(session, out);
    }
    let _lock = session.lock()?;
    if args.from_config {
        let changes = keepd::apply(session, false, keepd::When::Handover)?;
        keepd::report(&changes, out);
        for left in &changes.left_out {
            out.warn(&left.to_string());
        }
        drop_unused_files(session, &session.state.keep()?);
        ordering::update(session, out);
        return show(session, out);
    }
    let mut keep = session.state.keep()?;
    if args.no_trace {
        keep.trace = Said::Drop;
    } else if args.trace {
        let limit = match &args.trace_size {
            Some(size) => wish::parse_size(size).map_err(|what| Fail::new(Status::Usage, what))?,
            None => wish::DEFAULT_LIMIT,
        };
        keep.trace = Said::Keep(Wish {
            limit,
            hops: args.trace_hops.unwrap_or(1),
            configured: false,
        });
    }
    let removed = keep.removed.len();
    if args.remove.is_empty() {
        add(args, session, &mut keep, out)?;
    } else {
        for name in &args.remove {
            remove(name, session, &mut keep, out)?;
        }
    }
    session.state.set_keep(&keep)?;
    let removed = keep.removed.split_off(removed);
    keep.removed.extend(removed.iter().cloned());
    release::blobs(&removed, &mut keep, session)?;
    drop_unused_files(session, &keep);
    ordering::update(session, out);
    show(session, out)
}

fn show(session: &Session, out: Output) -> Result<(), Fail> {
    let (arrived, keep) = (session.readable(out)?, session.state.keep()?);
    let entries = list::effective(arrived, &keep);
    let trace = wish::effective(arrived, &keep);
    let shown: Vec<list::EntryJson> = entries.iter().map(Entry::json).collect();
    out.result(
        &serde_json::json!({ "keep": shown, "trace": trace }),
        || {
            if shown.is_empty() && trace.is_none() {
                println!("nothing is kept");
                return;
            }
            let mut rows = vec![["NAME", "KIND", "FROM"].map(str::to_owned).to_vec()];
            rows.extend(
                shown
                    .iter()
                    .map(|e| vec![e.name.clone(), e.kind.to_owned(), e.from.clone()]),
            );
            if !shown.is_empty() {
                print!("{}", output::table(&rows, &[]));
            }
            if let Some(trace) = trace {
                println!("{}", trace.text());
            }
        },
    );
    Ok(())
}

fn add(args: &args::Keep, session: &Session, keep: &mut KeepFile, out: Output) -> Result<(), Fail> {
    let from_stdin = args.paths.iter().any(|p| p == Path::new("-"));
    if from_stdin && args.paths.len() > 1 {
        return Err(Fail::new(
            Status::Usage,
            "`-` (standard input) cannot be combined with paths",
        )
        .fix("keep the paths in a command of their own"));
    }
    if from_stdin {
        let Some(name) = &args.name else {
            return Err(Fail::new(Status::Usage, "standard input has no name")
                .fix("kho keep --name NAME -"));
        };
        let label = label(name)?;
        refuse_taken(session, keep, &label, out)?;
        let file = keep.next_file;
        let size = session
            .state
            .take_blob(file, &mut std::io::stdin().lock())?;
        keep.next_file += 1;
        keep.entries.push(Local {
            label,
            content: Content::Raw {
                file,
                size,
                taken: crate::clock::now_ns(),
            },
        });
        return Ok(());
    }
    if args.name.is_some() && args.paths.len() > 1 {
        return Err(Fail::new(
            Status::Usage,
            "--name names one path, not several",
        ));
    }
    for path in &args.paths {
        let path = resolve(path)?;
        check_source(&path, session)?;
        let label = match &args.name {
            Some(name) => label(name)?,
            None => label(OsStr::new(&escape_path(&path)))?,
        };
        let content = Content::Files {
            path: path.clone().into_os_string(),
            skip_special: args.skip_special,
            one_file_system: args.one_file_system,
        };
        // A path that is on the list already only gets the new options.
        if let Some(old) = keep
            .entries
            .iter_mut()
            .find(|l| l.label == label && same_path(&l.content, &path))
        {
            old.content = content;
            continue;
        }
        let entries = list::effective(session.readable(out)?, keep);
        refuse_kept(&path, &label, &entries)?;
        refuse_taken(session, keep, &label, out)?;
        refuse_overlap(&path, &entries)?;
        keep.entries.push(Local { label, content });
    }
    Ok(())
}

/// Refuses a path that is already kept by another name.
fn refuse_kept(path: &Path, label: &str, entries: &[Entry]) -> Result<(), Fail> {
    if let Some(other) = entries
        .iter()
        .find(|e| e.path.as_deref() == Some(path) && e.label != label)
    {
        return Err(Fail::new(
            Status::BadName,
            format!("{} is kept already, as {}", shown::path(path), other.label),
        )
        .fix(format!("kho keep --remove {}", other.label)));
    }
    Ok(())
}

/// Refuses a path that lies inside a kept path, or contains one. If two entries hold the same file, the second one
/// cannot be restored, and every later handover would carry its old content on.
fn refuse_overlap(path: &Path, entries: &[Entry]) -> Result<(), Fail> {
    if let Some((other, there)) = entries.iter().find_map(|e| {
        let there = e.path.as_deref()?;
        (there != path && (path.starts_with(there) || there.starts_with(path)))
            .then_some((e, there))
    }) {
        return Err(Fail::new(
            Status::BadSource,
            format!(
                "{} and {}, which is kept as {}, overlap",
                shown::path(path),
                shown::path(there),
                other.label
            ),
        )
        .fix(format!("kho keep --remove {}", other.label)));
    }
    Ok(())
}

/// Refuses a name that is on the list. The user must remove that entry first: replacing it silently would lose its
/// content.
fn refuse_taken(session: &Session, keep: &KeepFile, label: &str, out: Output) -> Result<(), Fail> {
    match list::effective(session.readable(out)?, keep)
        .into_iter()
        .find(|e| e.label == *label)
    {
        None => Ok(()),
        Some(entry) => Err(Fail::new(
            Status::BadName,
            format!("{label} is on the list already ({})", entry.json().from),
        )
        .fix(format!(
            "choose another --name, or kho keep --remove {label}"
        ))),
    }
}

fn remove(name: &OsStr, session: &Session, keep: &mut KeepFile, out: Output) -> Result<(), Fail> {
    let entries = list::effective(session.readable(out)?, keep);
    let found = entries
        .iter()
        .find(|e| OsStr::new(&e.label) == name)
        .or_else(|| {
            let path = resolve(Path::new(name)).ok()?;
            entries.iter().find(|e| e.path.as_deref() == Some(&*path))
        });
    let Some(entry) = found else {
        return Err(Fail::new(
            Status::NoSuchEntry,
            format!("nothing is kept by the name or path {}", shown::name(name)),
        )
        .fix("kho keep --list shows what is"));
    };
    let before = keep.entries.len();
    keep.entries.retain(|local| local.label != entry.label);
    if keep.entries.len() == before {
        keep.removed.push(entry.label.clone());
    }
    Ok(())
}

/// Removes the bytes of entries that were removed. If a file cannot be removed, it only occupies memory.
fn drop_unused_files(session: &Session, keep: &KeepFile) {
    for file in 0..keep.next_file {
        let used = keep
            .entries
            .iter()
            .any(|l| matches!(l.content, Content::Raw { file: f, .. } if f == file));
        if !used {
            let _ = std::fs::remove_file(session.state.blob_path(file));
        }
    }
}

fn label(name: &OsStr) -> Result<String, Fail> {
    let Some(text) = name.to_str() else {
        return Err(
            Fail::new(Status::BadName, format!("the name {name:?} is not UTF-8"))
                .fix("choose another --name"),
        );
    };
    Label::new(text).or_status(Status::BadName).map_err(|fail| {
        fail.fix("a name has 1 to 255 bytes, no '/' and no control characters, and is neither '.' nor '..'")
    })?;
    if text.starts_with(PREFIX) {
        return Err(Fail::new(
            Status::BadName,
            format!("{text}: names that begin with {PREFIX} belong to entries that keep.d puts on the list"),
        )
        .fix("choose another --name, or write a line for keep.d, see keep.d(5)"));
    }
    Ok(text.to_owned())
}

fn same_path(content: &Content, path: &Path) -> bool {
    matches!(content, Content::Files { path: p, .. } if p == path.as_os_str())
}

/// Returns the absolute form of a path. Resolves symlinks in the parents, but not in the last component: a kept symlink
/// is kept as a symlink.
fn resolve(path: &Path) -> Result<PathBuf, Fail> {
    let bad = |what: String| Fail::new(Status::BadSource, what);
    let Some(name) = path.file_name() else {
        // Paths such as "/", ".." and "." have no last component, so all of it is resolved.
        return path
            .canonicalize()
            .map_err(|err| bad(format!("cannot keep {}: {err}", shown::path(path))));
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = parent.canonicalize().map_err(|err| {
        bad(format!(
            "cannot keep {}: {}: {err}",
            shown::path(path),
            shown::path(parent)
        ))
    })?;
    Ok(parent.join(name))
}

fn check_source(path: &Path, session: &Session) -> Result<(), Fail> {
    let bad = |what: String| Fail::new(Status::BadSource, what);
    let meta = std::fs::symlink_metadata(path)
        .map_err(|err| bad(format!("cannot keep {}: {err}", shown::path(path))))?;
    let kind = meta.file_type();
    let special = if kind.is_socket() {
        Some("a socket")
    } else if kind.is_block_device() {
        Some("a block device")
    } else if kind.is_char_device() {
        Some("a character device")
    } else if kind.is_fifo() {
        Some("a named pipe")
    } else {
        None
    };
    if let Some(what) = special {
        return Err(bad(format!(
            "cannot keep {}: it is {what}, which has no content to carry",
            shown::path(path)
        ))
        .fix(
            "keep what its user writes to, or send the bytes with: ... | kho keep --name NAME -",
        ));
    }
    if path == Path::new("/") {
        return Err(bad(
            "cannot keep /: it holds /proc, /sys and the state of kho itself".to_owned(),
        )
        .fix("name the directories that matter"));
    }
    if path.starts_with(session.state.path()) || session.state.path().starts_with(path) {
        return Err(bad(format!(
            "cannot keep {}: kho's own state is there",
            shown::path(path)
        )));
    }
    // The files of pseudo file systems are interfaces of the kernel, not content.
    let dir = if meta.is_dir() {
        path
    } else {
        path.parent().unwrap_or(path)
    };
    if let Ok(fs) = rustix::fs::statfs(dir) {
        const PSEUDO: [(u32, &str); 6] = [
            (0x9fa0, "proc"),
            (0x6265_6572, "sysfs"),
            (0x6462_6720, "debugfs"),
            (0x7472_6163, "tracefs"),
            (0x6367_7270, "cgroup2"),
            (0x6165_676c, "pstore"),
        ];
        // The magic numbers of statfs(2) are 32-bit values in a wider field.
        let magic = u64::try_from(fs.f_type).unwrap_or(0);
        if let Some((_, name)) = PSEUDO.iter().find(|(m, _)| u64::from(*m) == magic) {
            return Err(bad(format!(
                "cannot keep {}: {name} shows the kernel, it holds no files",
                shown::path(path)
            )));
        }
    }
    Ok(())
}
