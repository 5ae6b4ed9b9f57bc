//! Comparison of the content that a load read with the content that the same load would read now: first the time
//! stamps, then all bytes.
//!
//! Time stamps do not show every write, see [`kho_kexec::sys::mappings`]. So before a kernel starts, `kho` reads the
//! content of every copied path once more, and compares its hash with that of the loaded content. `kho` cannot see a
//! change after this second reading: it names the processes that can still write through a mapping.

use super::content::{self, Item, Supply};
use super::placed::Placed;
use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status};
use crate::hash;
use crate::keepd;
use crate::list;
use crate::output::{self, Output};
use crate::session::Session;
use crate::shown;
use crate::state::{KeepFile, LoadedFile};
use kho_kexec::sys::facts::meminfo::MemInfo;
use kho_kexec::sys::mappings::{FileId, Mappings};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Number of processes that a message names for each entry.
const NAMED: usize = 4;

const AGAIN: &str = "kho load again, or kho exec --stale-ok to hand over what was read then";

/// Refuses to start the kernel if the content differs from the loaded content, and warns of processes that could still
/// change it unseen.
///
/// # Errors
///
/// [`Status::Stale`], with the name of the entry that changed.
pub fn require(record: &LoadedFile, session: &Session, out: Output) -> Result<(), Fail> {
    require_memory(record, session)?;
    let arrived = session.carried(record.forget_arrived)?;
    let items = unchanged(record, arrived, session)?;
    let mut unknown = Vec::new();
    for item in copied(&items) {
        match record.contents.get(&item.entry.label) {
            // An older kho wrote this record, without a hash. The other entries are compared first: a change there is
            // an error.
            None => unknown.push(item.entry.label.as_str()),
            Some(loaded) if *loaded == read_again(item, session, out).map_err(stale)? => {}
            Some(_) => {
                return Err(Fail::new(
                    Status::Stale,
                    format!(
                        "changed since the load: {}; its time stamps did not change, so a process writes to it through a mapping",
                        shown_path(item)
                    ),
                )
                .fix(format!("stop that process; {AGAIN}")));
            }
        }
    }
    if !unknown.is_empty() {
        out.warn(&format!(
            "an older kho loaded this, and noted no hash of {}: writes through a mapping are not noticed",
            unknown.join(", ")
        ));
    }
    warn(&mapped(&items, session), out);
    Ok(())
}

/// Refuses to start the kernel if more memory has failed since the record was made.
fn require_memory(record: &LoadedFile, session: &Session) -> Result<(), Fail> {
    let failed = MemInfo::read(&session.root)
        .or_status(Status::Failed)?
        .hardware_corrupted;
    if record.memory_failed.is_some_and(|before| failed > before) {
        return Err(Fail::new(
            Status::Stale,
            "memory failed since the load (a hardware error): the image or what is kept may be in it, and the next kernel would use it",
        )
        .fix("kho load again"));
    }
    Ok(())
}

/// Reads the content that a process can write to through a mapping once more, right after `items` were read and
/// `placed`.
///
/// # Errors
///
/// [`Status::SourceChanged`] if the content differs: the first reading may mix the content of several moments.
pub fn settle(
    items: &[Item],
    placed: &[Placed],
    session: &Session,
    out: Output,
) -> Result<(), Fail> {
    let mapped = mapped(items, session);
    for (item, placed) in items.iter().zip(placed) {
        if mapped.by_entry.contains_key(item.entry.label.as_str())
            && read_again(item, session, out)? != hex(&placed.blake3)
        {
            return Err(Fail::new(
                Status::SourceChanged,
                format!(
                    "{} changed while it was read: {}",
                    shown_path(item),
                    mapped.who(&item.entry.label)
                ),
            )
            .fix("stop what writes there and load again; nothing was loaded"));
        }
    }
    warn(&mapped, out);
    Ok(())
}

/// Returns the hashes of the content that was copied from paths, by name, in the form of a load's record.
pub fn contents(items: &[Item], placed: &[Placed]) -> BTreeMap<String, String> {
    items
        .iter()
        .zip(placed)
        .filter(|(item, _)| matches!(item.supply, Supply::Pack(_)))
        .map(|(item, placed)| (item.entry.label.clone(), hex(&placed.blake3)))
        .collect()
}

/// Returns path and digest of every item that was read from the file system.
pub fn sources(items: &[Item]) -> Vec<(OsString, String)> {
    items
        .iter()
        .filter_map(|item| {
            Some((
                item.entry.path.clone()?.into_os_string(),
                item.fingerprint()?,
            ))
        })
        .collect()
}

/// Returns a digest of everything in the handover that can change between load and exec.
pub fn digest(
    keep: &KeepFile,
    arrived: Option<&Arrived>,
    sources: &[(OsString, String)],
) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for entry in list::effective(arrived, keep) {
        field(entry.label.as_bytes());
        field(
            entry
                .path
                .as_deref()
                .map(|p| p.as_os_str().as_bytes())
                .unwrap_or_default(),
        );
        field(format!("{:?} {:?}", entry.leave_out, entry.source).as_bytes());
    }
    if let Some(wish) = crate::trace::wish::effective(arrived, keep) {
        field(format!("{wish:?}").as_bytes());
    }
    for (path, digest) in sources {
        field(path.as_bytes());
        field(digest.as_bytes());
    }
    hasher.finalize()
}

/// Returns the items that a load would read now, if their names, sizes and times equal those of the load.
fn unchanged(
    record: &LoadedFile,
    arrived: Option<&Arrived>,
    session: &Session,
) -> Result<Vec<Item>, Fail> {
    let (keep, changes) =
        keepd::as_loaded(session, record.forget_arrived).map_err(|fail| match fail.status {
            Status::BadSource => stale(fail),
            _ => fail,
        })?;
    let items =
        content::measure(list::effective(arrived, &keep), arrived, true, session).map_err(stale)?;
    let sources = sources(&items);
    if digest(&keep, arrived, &sources) == parse_digest(&record.content_digest)? {
        return Ok(items);
    }
    let mut what = "the list of what is kept changed since the load".to_owned();
    let listed = [(&changes.added, "adds"), (&changes.removed, "takes off")];
    for (names, verb) in listed.iter().filter(|(names, _)| !names.is_empty()) {
        what.push_str(&format!("; keep.d {verb} {}", names.join(", ")));
    }
    let paths: Vec<String> = sources
        .iter()
        .filter(|source| !record.sources.contains(source))
        .map(|(path, _)| shown::path(path))
        .collect();
    if listed.iter().all(|(names, _)| names.is_empty()) && !paths.is_empty() {
        what = format!("changed since the load: {}", paths.join(", "));
    }
    Err(Fail::new(Status::Stale, what).fix(AGAIN))
}

fn stale(fail: Fail) -> Fail {
    Fail::new(
        Status::Stale,
        format!("what is kept changed since the load: {}", fail.what),
    )
    .fix(AGAIN)
}

/// Returns the items whose content is read from paths.
fn copied(items: &[Item]) -> impl Iterator<Item = &Item> {
    items
        .iter()
        .filter(|item| matches!(item.supply, Supply::Pack(_)))
}

/// Reads the content once more and returns its hash.
fn read_again(item: &Item, session: &Session, out: Output) -> Result<String, Fail> {
    let bar = out.progress(&format!("comparing {}", item.entry.label), item.size);
    let read = hash::passing(item.size, |to| {
        item.write(to, session, &mut |n| bar.set_position(n))
    });
    bar.finish_and_clear();
    read.map(|(hash, _)| hex(hash.as_bytes()))
}

fn hex(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}

fn shown_path(item: &Item) -> String {
    item.entry
        .path
        .as_ref()
        .map(shown::path)
        .unwrap_or_default()
}

/// Processes that can write to the content of entries through a mapping.
struct Mapped {
    /// Path of the entry and its processes, by the entry's name.
    by_entry: BTreeMap<String, (String, Vec<String>)>,
    /// Number of processes whose mappings could not be read.
    hidden: usize,
}

impl Mapped {
    fn who(&self, label: &str) -> String {
        let Some((_, processes)) = self.by_entry.get(label) else {
            return String::new();
        };
        let more = match processes.len().saturating_sub(NAMED) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let named: Vec<&str> = processes.iter().take(NAMED).map(String::as_str).collect();
        let (s, have) = match processes.len() {
            1 => ("", "has"),
            _ => ("es", "have"),
        };
        format!(
            "process{s} {}{more} {have} files of it mapped, shared and writable",
            named.join(", ")
        )
    }
}

fn mapped(items: &[Item], session: &Session) -> Mapped {
    let mut found = Mapped {
        by_entry: BTreeMap::new(),
        hidden: 0,
    };
    if copied(items).next().is_none() {
        return found;
    }
    let mappings = Mappings::read(&session.root);
    found.hidden = mappings.hidden.len();
    for item in items {
        let Supply::Pack(measure) = &item.supply else {
            continue;
        };
        let holds = |file: FileId| measure.holds(file.device, file.inode);
        let mut processes: Vec<String> = mappings
            .writable
            .iter()
            .filter(|m| holds(m.mapped) || m.stat.is_some_and(holds))
            .map(|m| format!("{} ({})", m.process, m.program))
            .collect();
        processes.dedup();
        if !processes.is_empty() {
            found
                .by_entry
                .insert(item.entry.label.clone(), (shown_path(item), processes));
        }
    }
    found
}

fn warn(mapped: &Mapped, out: Output) {
    for (label, (path, _)) in &mapped.by_entry {
        out.warn(&format!(
            "{path}: {}; what is written from now on is not handed over",
            mapped.who(label)
        ));
    }
    if mapped.hidden > 0 {
        out.warn(&format!(
            "{} may write to what is kept through a mapping: the kernel does not show their memory to kho",
            output::count(mapped.hidden, "process", "processes")
        ));
    }
}

fn parse_digest(hex: &str) -> Result<blake3::Hash, Fail> {
    blake3::Hash::from_hex(hex).map_err(|err| {
        Fail::new(
            Status::Failed,
            format!("the record of the load is damaged: {err}"),
        )
        .fix("kho load again")
    })
}
