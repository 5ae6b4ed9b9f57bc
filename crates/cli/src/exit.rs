//! Failures of verbs, each with its exit status.

pub use crate::status::Status;
pub use kho_format::human::chain;

use serde::Serialize;
use std::fmt;

/// Failure of a verb: the message, the advice and the status.
#[derive(Debug)]
pub struct Fail {
    /// The exit status.
    pub status: Status,
    /// Message: the problem, with its place.
    pub what: String,
    /// Advice for the user; may be empty.
    pub fix: String,
}

impl Fail {
    /// Makes a failure without advice.
    pub fn new(status: Status, what: impl fmt::Display) -> Self {
        Self {
            status,
            what: what.to_string(),
            fix: String::new(),
        }
    }

    /// Adds the advice.
    #[must_use]
    pub fn fix(mut self, fix: impl fmt::Display) -> Self {
        self.fix = fix.to_string();
        self
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.fix.is_empty() {
            write!(f, "\n  -> {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fail {}

/// The JSON form of a failure.
#[derive(Serialize)]
pub struct FailJson<'a> {
    /// Name of the status.
    pub error: &'a str,
    /// Number of the status.
    pub status: u8,
    /// The problem, with its place.
    pub what: &'a str,
    /// Advice for the user.
    pub fix: &'a str,
    /// Warnings of this run that no JSON document contains yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl<'a> FailJson<'a> {
    /// Makes the JSON form of a failure, with the warnings that no JSON document contains yet.
    pub fn new(fail: &'a Fail, warnings: Vec<String>) -> Self {
        Self {
            error: fail.status.name(),
            status: fail.status.code(),
            what: &fail.what,
            fix: &fail.fix,
            warnings,
        }
    }
}

/// Extension that gives any error a status: `result.or_status(Status::BadInitrd)?`.
pub trait OrStatus<T> {
    /// Makes a failure with this status. The message has the whole chain of the error.
    fn or_status(self, status: Status) -> Result<T, Fail>;
}

impl<T, E: std::error::Error> OrStatus<T> for Result<T, E> {
    fn or_status(self, status: Status) -> Result<T, Fail> {
        self.map_err(|err| Fail::new(status, chain(&err)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_and_names_are_distinct() {
        let codes: BTreeSet<u8> = Status::ALL.iter().map(|s| s.code()).collect();
        let names: BTreeSet<&str> = Status::ALL.iter().map(|s| s.name()).collect();
        assert_eq!(codes.len(), Status::ALL.len());
        assert_eq!(names.len(), Status::ALL.len());
        assert!(!codes.contains(&0));
    }
}
