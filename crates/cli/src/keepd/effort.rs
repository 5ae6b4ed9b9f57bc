//! Best-effort entries: if one cannot be taken, the others are handed over without it.
//!
//! An entry is left out of one handover only: the next `keep.d` sync puts it on the list again.

use super::parse::Rule;
use super::rules::{dirs, read};
use crate::arrived::Arrived;
use crate::exit::{Fail, Status};
use crate::handover::content;
use crate::list::{self, Entry, Source};
use crate::session::Session;
use crate::state::KeepFile;
use std::collections::BTreeSet;

/// An entry that is not handed over, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Name of the entry.
    pub label: String,
    /// Reason why the entry cannot be taken, in one line.
    pub why: String,
}

impl LeftOut {
    /// Makes the value for the entry with this name. The message of `fail` is the reason.
    pub fn new(label: &str, fail: &Fail) -> Self {
        Self {
            label: label.to_owned(),
            why: fail.what.replace('\n', " "),
        }
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} is not handed over (best-effort): {}",
            self.label, self.why
        )
    }
}

/// Takes the best-effort entries whose content cannot be read now off the list, and returns them.
///
/// # Errors
///
/// If the rules or what arrived cannot be read.
pub fn leave_out_unreadable(
    session: &Session,
    forget_arrived: bool,
    keep: &mut KeepFile,
) -> Result<Vec<LeftOut>, Fail> {
    let arrived = session.carried(forget_arrived)?;
    let mut left = Vec::new();
    for entry in entries(arrived, keep, session)? {
        let label = entry.label.clone();
        if let Err(fail) = content::measure(vec![entry], arrived, true, session) {
            left.push(LeftOut::new(&label, &fail));
        }
    }
    take_off(left.iter().map(|left| left.label.clone()), keep);
    Ok(left)
}

/// Whether a handover that failed with `after` may succeed without some of the entries.
fn may_help(after: &Fail) -> bool {
    too_much(after) || matches!(after.status, Status::BadSource | Status::SourceChanged)
}

/// Whether a handover failed because of the size of its content.
pub fn too_much(after: &Fail) -> bool {
    matches!(
        after.status,
        Status::TooLarge
            | Status::TooManyRanges
            | Status::Headroom
            | Status::LoadLimit
            | Status::NotEnoughMemory
    )
}

/// After a failed handover, takes all best-effort entries off the list if a handover without them may succeed. Returns
/// their names.
///
/// # Errors
///
/// The errors of [`leave_out_unreadable`], and if the list cannot be read or written.
pub fn leave_out_all(
    after: &Fail,
    session: &Session,
    forget_arrived: bool,
) -> Result<Vec<String>, Fail> {
    if !may_help(after) {
        return Ok(Vec::new());
    }
    let mut keep = session.state.keep()?;
    let labels: Vec<String> = entries(session.carried(forget_arrived)?, &keep, session)?
        .into_iter()
        .map(|entry| entry.label)
        .collect();
    if !labels.is_empty() {
        take_off(labels.iter().cloned(), &mut keep);
        session.state.set_keep(&keep)?;
    }
    Ok(labels)
}

/// Takes the best-effort entries in `wrong` off the list. Returns them, and the other entries in `wrong`.
///
/// # Errors
///
/// The errors of [`leave_out_all`].
pub fn leave_out(
    wrong: Vec<LeftOut>,
    session: &Session,
    forget_arrived: bool,
) -> Result<(Vec<LeftOut>, Vec<LeftOut>), Fail> {
    if wrong.is_empty() {
        return Ok((wrong, Vec::new()));
    }
    let mut keep = session.state.keep()?;
    let may = entries(session.carried(forget_arrived)?, &keep, session)?;
    let (left, required): (Vec<LeftOut>, Vec<LeftOut>) = wrong
        .into_iter()
        .partition(|left| may.iter().any(|entry| entry.label == left.label));
    take_off(left.iter().map(|left| left.label.clone()), &mut keep);
    session.state.set_keep(&keep)?;
    Ok((left, required))
}

/// Returns the best-effort entries whose path would be read. Leaves out entries that arrived and were not restored:
/// without them, their content would be lost.
fn entries(
    arrived: Option<&Arrived>,
    keep: &KeepFile,
    session: &Session,
) -> Result<Vec<Entry>, Fail> {
    let labels: BTreeSet<String> = read(&dirs(session))?
        .iter()
        .filter(|rule| rule.best_effort)
        .map(Rule::label)
        .collect();
    Ok(list::effective(arrived, keep)
        .into_iter()
        .filter(|entry| labels.contains(&entry.label) && matches!(entry.source, Source::Path))
        .collect())
}

/// Takes the entries with these names off the list, until the next `keep.d` sync.
pub fn take_off(labels: impl Iterator<Item = String>, keep: &mut KeepFile) {
    for label in labels {
        keep.entries.retain(|local| local.label != label);
        for list in [&mut keep.removed, &mut keep.left_out] {
            if !list.contains(&label) {
                list.push(label.clone());
            }
        }
    }
}
