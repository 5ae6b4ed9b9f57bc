//! The rules of all files, read and compared with each other.

use super::parse::{self, Rule};
use crate::exit::{Fail, Status};
use crate::session::Session;
use crate::state::{Content, escape_path};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Start of the name of every entry that comes from `keep.d`.
pub const PREFIX: &str = "keep.d:";

/// Largest number of rules in all files together.
const MAX_RULES: usize = 1024;

/// Folders of the files, in order. A file in an earlier folder hides files of the same name in later folders.
pub fn dirs(session: &Session) -> Vec<PathBuf> {
    vec![
        "/etc/kho/keep.d".into(),
        session.state.path().join("keep.d"),
        "/usr/local/lib/kho/keep.d".into(),
        "/usr/lib/kho/keep.d".into(),
    ]
}

impl Rule {
    /// Name of the rule's entry on the keep list.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{PREFIX}{name}"),
            None => format!("{PREFIX}{}", escape_path(&self.path)),
        }
    }

    /// Content of the rule's entry, as the keep list describes it.
    pub fn content(&self) -> Content {
        Content::Files {
            path: self.path.clone().into_os_string(),
            skip_special: self.skip_special,
            one_file_system: self.one_file_system,
        }
    }
}

/// Reads all rules.
///
/// # Errors
///
/// [`Status::BadConfig`] with every wrong file and line. No rule of any file is then used.
pub fn read(dirs: &[PathBuf]) -> Result<Vec<Rule>, Fail> {
    let (mut rules, mut errors) = (Vec::new(), Vec::new());
    for path in files(dirs, &mut errors).into_values() {
        match text(&path) {
            Ok(None) => {}
            Ok(Some(bytes)) => match parse::file(&path, &bytes) {
                Ok(more) => rules.extend(more),
                Err(more) => errors.extend(more.iter().map(ToString::to_string)),
            },
            Err(why) => errors.push(format!("{}: {why}", path.display())),
        }
    }
    let mut seen: BTreeMap<String, &Rule> = BTreeMap::new();
    for rule in &rules {
        let label = rule.label();
        if label.len() > 255 {
            errors.push(format!(
                "{}: the path is too long for a name; give it one with name=",
                rule.place
            ));
        }
        if let Some(first) = seen.insert(label, rule) {
            errors.push(format!(
                "{}: same name as at {}; give it another with name=",
                rule.place, first.place
            ));
        }
    }
    for (at, rule) in rules.iter().enumerate() {
        if let Some(other) = rules
            .iter()
            .take(at)
            .find(|other| overlap(&rule.path, &other.path))
        {
            errors.push(format!(
                "{}: {} is kept by {} too",
                rule.place,
                rule.path.display(),
                other.place
            ));
        }
    }
    if rules.len() > MAX_RULES {
        errors.push(format!("{} rules are more than {MAX_RULES}", rules.len()));
    }
    if errors.is_empty() {
        return Ok(rules);
    }
    let shown = errors
        .iter()
        .take(20)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n  ");
    let more = match errors.len().saturating_sub(20) {
        0 => String::new(),
        n => format!("\n  and {n} more"),
    };
    Err(Fail::new(Status::BadConfig, format!("what to keep is not clear:\n  {shown}{more}"))
        .fix("correct these lines; a file of the same name in /etc/kho/keep.d replaces one in /usr/lib/kho/keep.d"))
}

/// Whether the paths are equal or one lies inside the other. Content of both would be carried and restored twice.
pub fn overlap(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// Returns the files to read, by name: of several files with the same name, the file in the first folder.
fn files(dirs: &[PathBuf], errors: &mut Vec<String>) -> BTreeMap<OsString, PathBuf> {
    let mut files = BTreeMap::new();
    for dir in dirs {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
            Err(err) => {
                errors.push(format!("{}: {err}", dir.display()));
                continue;
            }
        };
        // A user who can write to this folder can link to a file of any owner.
        match std::fs::metadata(dir).map(|meta| foreign(&meta)) {
            Ok(None) => {}
            Ok(Some(why)) => {
                errors.push(format!("{}: {why}", dir.display()));
                continue;
            }
            Err(err) => {
                errors.push(format!("{}: {err}", dir.display()));
                continue;
            }
        }
        for entry in entries {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name();
                    let hidden = name.as_encoded_bytes().starts_with(b".");
                    if !hidden && name.as_encoded_bytes().ends_with(b".conf") {
                        files.entry(name).or_insert_with(|| entry.path());
                    }
                }
                Err(err) => errors.push(format!("{}: {err}", dir.display())),
            }
        }
    }
    files
}

/// Returns the reason why a file or folder of rules is not trusted; `None` if it is trusted. A user who can write to it
/// chooses which files root reads and writes.
fn foreign(meta: &std::fs::Metadata) -> Option<String> {
    let owner = rustix::process::geteuid().as_raw();
    let others = (meta.uid() != 0 && meta.uid() != owner) || meta.mode() & 0o022 != 0;
    others.then(|| {
        let (mode, uid) = (meta.mode() & 0o7777, meta.uid());
        format!("others than root may write to it (mode {mode:#o}, owner {uid})")
    })
}

/// Returns the content of one file; `None` if the file is masked by a link to /dev/null.
fn text(path: &Path) -> Result<Option<Vec<u8>>, String> {
    // O_NONBLOCK: opening a pipe must not block a boot or a shutdown.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
        .open(path)
        .map_err(|err| err.to_string())?;
    let meta = file.metadata().map_err(|err| err.to_string())?;
    if meta.file_type().is_char_device() {
        let null = std::fs::metadata("/dev/null").map_err(|err| err.to_string())?;
        return if meta.rdev() == null.rdev() {
            Ok(None)
        } else {
            Err("it is a device".to_owned())
        };
    }
    if !meta.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if let Some(why) = foreign(&meta) {
        return Err(why);
    }
    let mut bytes = Vec::new();
    file.take(parse::MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|err| err.to_string())?;
    if bytes.len() as u64 > parse::MAX_FILE {
        return Err(format!("it is longer than {:#x} bytes", parse::MAX_FILE));
    }
    Ok(Some(bytes))
}
