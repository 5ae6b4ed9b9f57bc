//! `keep.d/*.conf`: the paths that an administrator or a package wants kept, in the style of tmpfiles.d.
//!
//! An entry of the keep list that comes from these files has a name with a prefix. The name travels with the content.
//! So the next kernel's `kho` knows, without a record on a disk, which entries come from the files: an entry that is no
//! longer configured leaves the list, an entry that a user kept by hand stays.

pub mod effort;
pub mod parse;
pub mod rules;

use crate::arrived::Arrived;
use crate::exit::{Fail, Status};
use crate::list::{self, Entry, Source};
use crate::output::Output;
use crate::session::Session;
use crate::state::{KeepFile, Local};
use crate::trace::wish::{self, Said, Wish};
use parse::{Kind, Rule};
use rules::{PREFIX, dirs, overlap, read};
use std::collections::BTreeMap;
use std::path::Path;

/// Result of a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names of the entries that are new.
    pub added: Vec<String>,
    /// Names of the entries that left the list.
    pub removed: Vec<String>,
    /// Remarks for the administrator.
    pub remarks: Vec<String>,
    /// Best-effort entries that are not on the list because their path is not as the rule requires, and why.
    pub left_out: Vec<effort::LeftOut>,
}

/// Occasion on which the list is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At boot: services may still create the paths that are to be kept, so a failure would be of no use.
    Boot,
    /// For a handover, or because a user asked.
    Handover,
}

/// Makes the list agree with the rules.
///
/// # Errors
///
/// [`Status::BadSource`] if a path that must exist for a handover does not, or is something else than the rule says.
pub fn sync(
    rules: &[Rule],
    arrived: Option<&Arrived>,
    when: When,
    keep: &mut KeepFile,
) -> Result<Changes, Fail> {
    let mut changes = Changes::default();
    keep.left_out.clear();
    let wanted: BTreeMap<String, &Rule> = rules.iter().map(|rule| (rule.label(), rule)).collect();
    drop_gone(&wanted, arrived, keep, &mut changes);
    for (label, rule) in &wanted {
        let waiting = arrived.is_some_and(|a| a.blobs.iter().any(|b| b.label == *label))
            && !keep.restored.contains(label)
            && !keep.removed.contains(label);
        if waiting {
            // Never reads a path whose content of before is still to be put back there.
            changes.remarks.push(format!(
                "{label} arrived and is not restored: the bytes that arrived are carried on"
            ));
            continue;
        }
        if let Some(other) = covering(rule, &list::effective(arrived, keep)) {
            take_off(label, arrived, keep, &mut changes.removed);
            changes.remarks.push(format!(
                "{}: the entry {}, which was added by hand, keeps this path already",
                rule.place, other.label
            ));
            continue;
        }
        let present = match present(rule) {
            Err(fail) if rule.best_effort => {
                changes.left_out.push(effort::LeftOut::new(label, &fail));
                false
            }
            Err(fail) if when == When::Boot => {
                let what = fail.what;
                changes
                    .remarks
                    .push(format!("{what}: kho load refuses until this is corrected"));
                false
            }
            answer => answer?,
        };
        if !present {
            let mut removed = Vec::new();
            take_off(label, arrived, keep, &mut removed);
            if !rule.best_effort {
                changes.removed.append(&mut removed);
            }
            continue;
        }
        match keep.entries.iter_mut().find(|local| local.label == *label) {
            Some(local) => local.content = rule.content(),
            None => {
                let on_list = list::effective(arrived, keep)
                    .into_iter()
                    .find(|entry| entry.label == *label);
                if on_list.is_some() {
                    // It came with the handover and is restored: from now on the rule's options hold.
                    keep.removed.push(label.clone());
                } else {
                    changes.added.push(label.clone());
                }
                keep.entries.push(Local {
                    label: label.clone(),
                    content: rule.content(),
                });
            }
        }
    }
    keep_once(arrived, keep, &mut changes);
    Ok(changes)
}

/// Returns the entry that a user put on the list by hand and that holds everything that the rule names. If two entries
/// hold the same file, the second could not be restored, and would be carried on as it was for ever.
fn covering(rule: &Rule, entries: &[Entry]) -> Option<Entry> {
    let covers = |entry: &&Entry| {
        !entry.label.starts_with(PREFIX)
            && matches!(entry.source, Source::Path)
            && !entry.leave_out.other_file_systems
            && (entry.path.as_deref())
                .is_some_and(|path| path != rule.path && rule.path.starts_with(path))
    };
    entries.iter().find(covers).cloned()
}

/// Takes an entry off the list.
fn take_off(
    label: &str,
    arrived: Option<&Arrived>,
    keep: &mut KeepFile,
    removed: &mut Vec<String>,
) {
    let before = keep.entries.len();
    keep.entries.retain(|local| local.label != label);
    let arrived = list::effective(arrived, keep)
        .iter()
        .any(|entry| entry.label == label);
    if arrived {
        keep.removed.push(label.to_owned());
    }
    if arrived || keep.entries.len() != before {
        removed.push(label.to_owned());
    }
}

/// Takes every entry off the list that was put there by hand and that the entry of a rule holds too: the reverse of
/// [`covering`]. An entry that arrived and is not restored stays: no other entry holds its content.
fn keep_once(arrived: Option<&Arrived>, keep: &mut KeepFile, changes: &mut Changes) {
    let entries = list::effective(arrived, keep);
    for entry in entries
        .iter()
        .filter(|entry| !entry.label.starts_with(PREFIX))
    {
        let Some((path, other, there)) = entries
            .iter()
            .filter(|other| other.label.starts_with(PREFIX))
            .find_map(|other| {
                let (path, there) = (entry.path.as_deref()?, other.path.as_deref()?);
                overlap(path, there).then_some((path, other, there))
            })
        else {
            continue;
        };
        let read = |entry: &Entry| matches!(entry.source, Source::Path);
        let inside =
            path == there || (path.starts_with(there) && !other.leave_out.other_file_systems);
        if inside && read(entry) && read(other) {
            take_off(&entry.label, arrived, keep, &mut changes.removed);
            changes.remarks.push(format!(
                "{} is kept by {} too, and leaves the list",
                entry.label, other.label
            ));
        } else {
            changes.remarks.push(format!(
                "{} and {} overlap: content that is in both can be restored only once",
                entry.label, other.label
            ));
        }
    }
}

/// Takes the entries off the list that the rules no longer name.
fn drop_gone(
    wanted: &BTreeMap<String, &Rule>,
    arrived: Option<&Arrived>,
    keep: &mut KeepFile,
    changes: &mut Changes,
) {
    let gone = |label: &str| label.starts_with(PREFIX) && !wanted.contains_key(label);
    for local in keep.entries.iter().filter(|local| gone(&local.label)) {
        changes.removed.push(local.label.clone());
    }
    keep.entries.retain(|local| !gone(&local.label));
    for blob in arrived.map(|a| a.blobs.as_slice()).unwrap_or_default() {
        let label = &blob.label;
        if !gone(label) || keep.removed.contains(label) {
            continue;
        }
        if keep.restored.contains(label) {
            keep.removed.push(label.clone());
            changes.removed.push(label.clone());
        } else {
            changes.remarks.push(format!(
                "{label} arrived, was not restored and is no longer configured: kho still hands it on; kho keep --remove {label} ends that"
            ));
        }
    }
}

/// Whether the path of the rule exists. A path of the wrong kind is an error, and so is a missing path unless the rule
/// is optional.
fn present(rule: &Rule) -> Result<bool, Fail> {
    let bad = |what: String| Fail::new(Status::BadSource, format!("{}: {what}", rule.place));
    let path = rule.path.display();
    let meta = match std::fs::symlink_metadata(&rule.path) {
        Ok(meta) => meta,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return if rule.optional {
                Ok(false)
            } else {
                Err(bad(format!("{path} does not exist"))
                    .fix("write - after the type (such as d-) if the path may be missing"))
            };
        }
        Err(err) => return Err(bad(format!("{path}: {err}"))),
    };
    let right = match rule.kind {
        Kind::File => meta.is_file(),
        Kind::Directory => meta.is_dir(),
        Kind::Link => meta.is_symlink(),
        // It is no file, and does not come here.
        Kind::Trace => true,
    };
    if !right {
        return Err(bad(format!("{path} is not {}", rule.kind.label()))
            .fix("f is a file, d a directory, L a symbolic link"));
    }
    // A link on the way would make two paths of one, and may point anywhere at restore time.
    let parent = rule.path.parent().unwrap_or(Path::new("/"));
    let real = parent
        .canonicalize()
        .map_err(|err| bad(format!("{}: {err}", parent.display())))?;
    if real != parent {
        return Err(bad(format!(
            "{} is {} by a symbolic link",
            parent.display(),
            real.display()
        ))
        .fix("write the path without the link"));
    }
    Ok(true)
}

/// Reads the rules and makes the list of this boot agree with them, with the lock held. A handover that forgets what
/// arrived (`forget_arrived`) does not need it, so what arrived may be damaged then.
///
/// # Errors
///
/// As [`read`] and [`sync`]; the list is unchanged then.
pub fn apply(session: &Session, forget_arrived: bool, when: When) -> Result<Changes, Fail> {
    let before = session.state.keep()?;
    let (keep, changes) = agreed(&before, session, forget_arrived, when)?;
    if keep != before {
        session.state.set_keep(&keep)?;
    }
    Ok(changes)
}

/// Returns the list `before` as the rules want it, and the differences.
fn agreed(
    before: &KeepFile,
    session: &Session,
    forget_arrived: bool,
    when: When,
) -> Result<(KeepFile, Changes), Fail> {
    let rules = read(&dirs(session))?;
    if let Some(rule) = rules
        .iter()
        .find(|rule| overlap(&rule.path, session.state.path()))
    {
        return Err(Fail::new(
            Status::BadSource,
            format!(
                "{}: kho's own state is in {}",
                rule.place,
                rule.path.display()
            ),
        ));
    }
    let arrived = known(session, forget_arrived)?;
    let mut keep = before.clone();
    let (traces, rules): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(|rule| rule.kind == Kind::Trace);
    let mut changes = sync(&rules, arrived, when, &mut keep)?;
    sync_trace(traces.first(), arrived, &mut keep, &mut changes);
    Ok((keep, changes))
}

/// Returns what arrived, as the list needs it: `None` also if it is damaged or of an unknown version, and
/// `forget_arrived` drops it.
fn known(session: &Session, forget_arrived: bool) -> Result<Option<&Arrived>, Fail> {
    match session.arrived() {
        // The administrator drops it, damaged or not.
        Err(fail)
            if forget_arrived
                && matches!(fail.status, Status::TreeCorrupt | Status::UnknownVersion) =>
        {
            Ok(None)
        }
        arrived => Ok(arrived?.as_ref()),
    }
}

/// Returns the list as a handover reads it now: as the rules want it, without best-effort entries that cannot be read.
///
/// # Errors
///
/// As [`apply`].
pub fn for_handover(session: &Session, forget_arrived: bool) -> Result<(KeepFile, Changes), Fail> {
    let before = session.state.keep()?;
    let (mut keep, mut changes) = agreed(&before, session, forget_arrived, When::Handover)?;
    let unreadable = effort::leave_out_unreadable(session, forget_arrived, &mut keep)?;
    changes.left_out.extend(unreadable);
    Ok((keep, changes))
}

/// Brings the list up to date for a handover.
///
/// # Errors
///
/// As [`apply`]; the list is unchanged then.
pub fn bring_up_to_date(session: &Session, forget_arrived: bool) -> Result<Changes, Fail> {
    let (keep, changes) = for_handover(session, forget_arrived)?;
    if keep != session.state.keep()? {
        session.state.set_keep(&keep)?;
    }
    Ok(changes)
}

/// As [`bring_up_to_date`], and reports the changes: for use before content is taken that may still change.
///
/// # Errors
///
/// As [`apply`]; the list is unchanged then.
pub fn refresh(session: &Session, forget_arrived: bool, out: Output) -> Result<(), Fail> {
    let changes = bring_up_to_date(session, forget_arrived)?;
    report(&changes, out);
    for left in &changes.left_out {
        out.warn(&format!("{left}, as of now"));
    }
    Ok(())
}

/// Returns the list that a load would read now, and the changes that the rules make to the list that the last load
/// read. Entries that the last load left out stay out: that load reported them.
///
/// # Errors
///
/// As [`apply`].
pub fn as_loaded(session: &Session, forget_arrived: bool) -> Result<(KeepFile, Changes), Fail> {
    let before = session.state.keep()?;
    let (mut keep, mut changes) = agreed(&before, session, forget_arrived, When::Handover)?;
    changes
        .added
        .retain(|label| !before.left_out.contains(label));
    effort::take_off(before.left_out.iter().cloned(), &mut keep);
    Ok((keep, changes))
}

/// Reports the changes that the rules made.
pub fn report(changes: &Changes, out: Output) {
    for (names, what) in [
        (&changes.added, "keep.d adds"),
        (&changes.removed, "keep.d takes off"),
    ] {
        if !names.is_empty() {
            out.remark(&format!("{what} {}", names.join(", ")));
        }
    }
    for remark in &changes.remarks {
        out.remark(&format!("note: {remark}"));
    }
}

/// Decides whether the trace is kept. A choice made by hand, in this boot or in one whose traces arrived, holds;
/// otherwise the rule does. Without a rule, a trace that was kept because of a rule is not kept any more.
fn sync_trace(
    rule: Option<&Rule>,
    arrived: Option<&Arrived>,
    keep: &mut KeepFile,
    changes: &mut Changes,
) {
    let before = wish::effective(arrived, keep);
    let by_hand = match keep.trace {
        Said::Keep(wish) => !wish.configured,
        Said::Drop => true,
        Said::Nothing => before.is_some_and(|wish| !wish.configured),
    };
    if by_hand {
        return;
    }
    keep.trace = match rule {
        Some(rule) => Said::Keep(Wish {
            limit: rule.trace.size.unwrap_or(wish::DEFAULT_LIMIT),
            hops: rule.trace.hops.unwrap_or(1),
            configured: true,
        }),
        None if before.is_some() => Said::Drop,
        None => Said::Nothing,
    };
    match (before, rule) {
        (None, Some(_)) => changes.added.push("the trace".to_owned()),
        (Some(_), None) => changes.removed.push("the trace".to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
