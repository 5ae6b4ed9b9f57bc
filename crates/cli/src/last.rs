//! Record of the last capture, on disk. After a failed capture the machine boots without a handover, and a user who
//! misses the kept content sees only an ordinary boot.

use crate::exit::Fail;
use crate::output;
use crate::whole;
use kho_kexec::sys::root::Root;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;

/// Folder of the record, below a [`Root`]. It survives a boot.
const DIR: &str = "var/lib/kho";
const FILE: &str = "last-capture.json";

/// Longest record that is read, in bytes.
const LIMIT: u64 = 64 * 1024;

/// Version of the record. A record of another version is ignored.
const VERSION: u32 = 1;

/// An attempt at a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Version of the record.
    version: u32,
    /// Time at which the capture ended, in nanoseconds since the epoch.
    pub time: u64,
    /// Release of the kernel that was to start; `None` if no kernel was armed or loaded.
    pub release: Option<String>,
    /// Outcome of the capture.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Outcome of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// The content was taken.
    Captured {
        /// Hop count that the next kernel was to see.
        hop: u64,
        /// Entries handed over.
        entries: usize,
    },
    /// The content was not taken.
    Failed {
        /// Name of the exit status.
        status: String,
        /// Reason of the failure.
        why: String,
        /// Action that followed.
        then: String,
    },
}

impl Attempt {
    /// Makes an attempt that ends now.
    pub fn now(release: Option<String>, outcome: Outcome) -> Self {
        Self {
            version: VERSION,
            time: crate::clock::now_ns(),
            release,
            outcome,
        }
    }

    /// Makes an attempt that ends now with a failure. `then` is the action that followed.
    pub fn failed(release: Option<String>, fail: &Fail, then: &str) -> Self {
        let outcome = Outcome::Failed {
            status: fail.status.name().to_owned(),
            why: fail.what.clone(),
            then: then.to_owned(),
        };
        Self::now(release, outcome)
    }

    /// Returns the attempt as one line, for people.
    pub fn text(&self) -> String {
        let time = output::time(self.time);
        let release = self.release.as_deref().unwrap_or("no kernel");
        match &self.outcome {
            Outcome::Captured { hop, entries } => format!(
                "{} taken for {release} (hop {hop}) at {time}",
                output::count(*entries, "entry", "entries")
            ),
            Outcome::Failed { why, then, .. } => {
                format!("FAILED at {time}, for {release}: {why}; {then}")
            }
        }
    }

    /// Replaces the record, and waits until it is on disk.
    ///
    /// # Errors
    ///
    /// If the record cannot be written. The old record is then unchanged.
    pub fn record(&self, root: &Root) -> std::io::Result<()> {
        let dir = root.path(DIR);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let text = serde_json::to_vec_pretty(self)?;
        whole::write(&dir.join(FILE), |out| {
            out.write_all(&text)?;
            out.flush()?;
            out.get_ref().sync_all()
        })?;
        File::open(&dir)?.sync_all()
    }

    /// Returns the last attempt; `None` if there was none, or if its record cannot be read.
    pub fn last(root: &Root) -> Option<Self> {
        let text = root.text(&format!("{DIR}/{FILE}"), LIMIT).ok()?;
        let attempt: Self = serde_json::from_str(&text).ok()?;
        (attempt.version == VERSION).then_some(attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Status;

    #[test]
    fn the_last_attempt_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(Attempt::last(&root), None);
        let captured = Attempt::now(
            Some("6.12".to_owned()),
            Outcome::Captured { hop: 3, entries: 2 },
        );
        captured.record(&root).unwrap();
        assert_eq!(Attempt::last(&root), Some(captured));
        let fail = Fail::new(Status::TooLarge, "it does not fit");
        let failed = Attempt::failed(Some("6.12".to_owned()), &fail, "the machine reboots");
        failed.record(&root).unwrap();
        assert_eq!(Attempt::last(&root), Some(failed.clone()));
        let text = failed.text();
        assert!(text.starts_with("FAILED at "), "{text}");
        assert!(
            text.ends_with("it does not fit; the machine reboots"),
            "{text}"
        );
        for text in [
            "",
            "{}",
            &serde_json::to_string(&failed)
                .unwrap()
                .replace(":1,", ":2,"),
        ] {
            std::fs::write(dir.path().join(DIR).join(FILE), text).unwrap();
            assert_eq!(Attempt::last(&root), None, "{text}");
        }
    }
}
