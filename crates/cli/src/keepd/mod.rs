//! `keep.d/*.conf`: paths that an administrator or a package wants to keep, in the style of tmpfiles.d.
//!
//! The name of an entry that comes from these files has a prefix, and travels with the content. So the `kho` of the
//! next kernel knows without a record on a disk which entries come from the files. It removes such an entry from the
//! list if the files no longer have it. It leaves an entry on the list that a user added with `kho keep`.

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
    /// Best-effort entries that are not on the list because their path is not as the rule requires, with the reason.
    pub left_out: Vec<effort::LeftOut>,
}

/// Occasion of an update of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The boot: services may still create the paths, so a missing path is no failure.
    Boot,
    /// A handover, or the request of a user.
    Handover,
}

/// Updates the list by the rules.
///
/// # Errors
///
/// [`Status::BadSource`] if a path that must exist for a handover is missing, or is of another kind than the rule says.
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
            // The path is not read: the old content is still to be restored there.
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
                    // The entry arrived and is restored: from now on it has the rule's options.
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

/// Returns the entry that a user added and that contains everything that the rule names. If two entries hold the same
/// file, the second one cannot be restored, and every later handover would carry its old content on.
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

/// Removes every entry from the list that a user added and that the entry of a rule contains: the reverse of
/// [`covering`]. An entry that arrived and is not restored stays, because no other entry has its content.
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

/// Removes the entries from the list that no rule names any more.
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

/// Whether the path of the rule exists. Fails if the path is of the wrong kind, or if it is missing and the rule is not
/// optional.
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
        // A trace has no path; the caller handles it.
        Kind::Trace => true,
    };
    if !right {
        return Err(bad(format!("{path} is not {}", rule.kind.label()))
            .fix("f is a file, d a directory, L a symbolic link"));
    }
    // Through a link, one file would have two paths, and the link may point elsewhere when the entry is restored.
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

/// Reads the rules and updates the list of this boot by them. The caller holds the lock. With `forget_arrived`, the
/// content that arrived may be damaged: that handover does not use it.
///
/// # Errors
///
/// The errors of [`read`] and [`sync`]. The list is then unchanged.
pub fn apply(session: &Session, forget_arrived: bool, when: When) -> Result<Changes, Fail> {
    let before = session.state.keep()?;
    let (keep, changes) = agreed(&before, session, forget_arrived, when)?;
    if keep != before {
        session.state.set_keep(&keep)?;
    }
    Ok(changes)
}

/// Returns the list `before` after an update by the rules, and the differences.
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

/// Returns the content that arrived, for an update of the list. With `forget_arrived`, returns `None` if it is damaged
/// or of an unknown version.
fn known(session: &Session, forget_arrived: bool) -> Result<Option<&Arrived>, Fail> {
    match session.arrived() {
        // The administrator drops this content, even if it is damaged.
        Err(fail)
            if forget_arrived
                && matches!(fail.status, Status::TreeCorrupt | Status::UnknownVersion) =>
        {
            Ok(None)
        }
        arrived => Ok(arrived?.as_ref()),
    }
}

/// Returns the list that a handover would read now: updated by the rules, without best-effort entries that cannot be
/// read.
///
/// # Errors
///
/// The errors of [`apply`].
pub fn for_handover(session: &Session, forget_arrived: bool) -> Result<(KeepFile, Changes), Fail> {
    let before = session.state.keep()?;
    let (mut keep, mut changes) = agreed(&before, session, forget_arrived, When::Handover)?;
    let unreadable = effort::leave_out_unreadable(session, forget_arrived, &mut keep)?;
    changes.left_out.extend(unreadable);
    Ok((keep, changes))
}

/// Updates the list for a handover.
///
/// # Errors
///
/// The errors of [`apply`]. The list is then unchanged.
pub fn bring_up_to_date(session: &Session, forget_arrived: bool) -> Result<Changes, Fail> {
    let (keep, changes) = for_handover(session, forget_arrived)?;
    if keep != session.state.keep()? {
        session.state.set_keep(&keep)?;
    }
    Ok(changes)
}

/// Updates the list as [`bring_up_to_date`] does, and reports the changes. Used before content is taken that may
/// change.
///
/// # Errors
///
/// The errors of [`apply`]. The list is then unchanged.
pub fn refresh(session: &Session, forget_arrived: bool, out: Output) -> Result<(), Fail> {
    let changes = bring_up_to_date(session, forget_arrived)?;
    report(&changes, out);
    for left in &changes.left_out {
        out.warn(&format!("{left}, as of now"));
    }
    Ok(())
}

/// Returns the list that a load would read now, and the changes of the rules since the last load. Leaves out the
/// entries that the last load left out, because that load reported them.
///
/// # Errors
///
/// The errors of [`apply`].
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

/// Decides whether the trace is kept. A choice of the user holds, in this boot or in the boot whose traces arrived.
/// Otherwise the rule decides. If the rule is gone, a trace that was kept because of it is no longer kept.
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
