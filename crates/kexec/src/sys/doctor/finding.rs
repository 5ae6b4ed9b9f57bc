//! Findings, and the list that collects them.

use crate::sys::root::{advice, in_full};
use serde::Serialize;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Fine, or only for information.
    Ok,
    /// A handover is possible; the user should read this first.
    Warn,
    /// A handover would be refused, or would not be safe.
    Block,
}

impl core::fmt::Display for Severity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Block => "block",
        })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Subject of the finding, for machines: the same in every version. See [`IDS`](super::IDS).
    pub id: &'static str,
    /// Severity of the finding.
    pub severity: Severity,
    /// The fact that was found, in words: one line of a terminal, unless it quotes something long.
    pub what: String,
    /// Explanation of the fact, in whole sentences; empty if the fact needs none.
    pub details: String,
    /// Advice about the fact; empty if there is nothing to do.
    pub fix: String,
}

impl Finding {
    /// Returns the fact with its explanation.
    pub fn explained(&self) -> String {
        match self.details.as_str() {
            "" => self.what.clone(),
            details => format!("{}. {details}", self.what),
        }
    }
}

/// List of findings, in the order in which they are added.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
}

impl Findings {
    pub(super) fn ok(&mut self, id: &'static str, what: impl Into<String>) {
        self.add(id, Severity::Ok, what, "");
    }

    pub(super) fn warn(&mut self, id: &'static str, what: impl Into<String>, fix: &str) {
        self.add(id, Severity::Warn, what, fix);
    }

    pub(super) fn block(&mut self, id: &'static str, what: impl Into<String>, fix: &str) {
        self.add(id, Severity::Block, what, fix);
    }

    fn add(&mut self, id: &'static str, severity: Severity, what: impl Into<String>, fix: &str) {
        self.list.push(Finding {
            id,
            severity,
            what: what.into(),
            details: String::new(),
            fix: fix.to_owned(),
        });
    }

    /// Explains the finding that was added last.
    pub(super) fn explain(&mut self, details: impl Into<String>) {
        if let Some(last) = self.list.last_mut() {
            last.details = details.into();
        }
    }

    /// Adds the finding that a fact could not be read.
    pub(super) fn unreadable(&mut self, id: &'static str, error: &dyn std::error::Error) {
        self.block(
            id,
            in_full(error),
            &format!("{}; /proc and /sys must be mounted", advice()),
        );
    }
}
