//! Best-effort entries: one that cannot be taken must not cost the others.
//!
//! What is left out is left out of one handover only: the next `keep.d` sync puts it on the list again.

use super::{dirs, read};
use crate::exit::{Fail, Status};
use crate::handover::content;
use crate::list::{self, Entry, Source};
use crate::session::Session;
use std::collections::BTreeSet;

/// An entry that is not handed over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub label: String,
    /// What is wrong with it.
    pub why: String,
}

impl LeftOut {
    /// Of this name, because of this failure.
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

/// Takes those off the list whose content cannot be read now.
///
/// # Errors
///
/// When the list or the rules cannot be read.
pub fn leave_out_unreadable(session: &Session) -> Result<Vec<LeftOut>, Fail> {
    let arrived = session.arrived()?.as_ref();
    let mut left = Vec::new();
    for entry in entries(session)? {
        let label = entry.label.clone();
        if let Err(fail) = content::measure(vec![entry], arrived, session) {
            left.push(LeftOut::new(&label, &fail));
        }
    }
    take_off(left.iter().map(|left| left.label.clone()), session)?;
    Ok(left)
}

/// Whether a handover that failed so may succeed without some of the entries.
fn may_help(after: &Fail) -> bool {
    too_much(after) || matches!(after.status, Status::BadSource | Status::SourceChanged)
}

/// Whether a handover failed for the size of what it takes.
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

/// Takes all of them off the list after a handover with them failed, if leaving them out may help.
///
/// # Errors
///
/// As [`leave_out_unreadable`].
pub fn leave_out_all(after: &Fail, session: &Session) -> Result<Vec<String>, Fail> {
    if !may_help(after) {
        return Ok(Vec::new());
    }
    let labels: Vec<String> = entries(session)?
        .into_iter()
        .map(|entry| entry.label)
        .collect();
    take_off(labels.iter().cloned(), session)?;
    Ok(labels)
}

/// The best-effort entries that would be read. What arrived and was not restored is never one: it would be lost.
fn entries(session: &Session) -> Result<Vec<Entry>, Fail> {
    let labels: BTreeSet<String> = read(&dirs(session))?
        .iter()
        .filter(|rule| rule.best_effort)
        .map(super::Rule::label)
        .collect();
    let list = list::effective(session.arrived()?.as_ref(), &session.state.keep()?);
    Ok(list
        .into_iter()
        .filter(|entry| labels.contains(&entry.label) && matches!(entry.source, Source::Path))
        .collect())
}

fn take_off(labels: impl Iterator<Item = String>, session: &Session) -> Result<(), Fail> {
    let mut keep = session.state.keep()?;
    for label in labels {
        keep.entries.retain(|local| local.label != label);
        if !keep.removed.contains(&label) {
            keep.removed.push(label);
        }
    }
    session.state.set_keep(&keep)
}
