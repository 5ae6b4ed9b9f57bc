//! The keep list: what arrived, minus what was removed, plus what was added in this boot.

use crate::arrived::Arrived;
use crate::shown;
use crate::state::{Content, KeepFile};
use kho::abi::LeaveOut;
use serde::Serialize;
use std::path::PathBuf;

/// One entry of the list and where the next load takes its content from.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name of the blob.
    pub label: String,
    /// Path it belongs to; none for a raw blob.
    pub path: Option<PathBuf>,
    /// What is left out whenever the path is read.
    pub leave_out: LeaveOut,
    /// Where the content comes from.
    pub source: Source,
}

/// Where the next load takes an entry's content from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The file system, read at load time.
    Path,
    /// Bytes taken from standard input, in this file of the state directory.
    Taken {
        /// Number of the file.
        file: u64,
        /// Its length in bytes.
        size: u64,
        /// When they were taken, nanoseconds since the epoch.
        taken: u64,
    },
    /// The bytes that arrived, named again where they are.
    Arrived {
        /// Index among the arrived blobs.
        index: usize,
    },
}

/// An entry for people and scripts.
#[derive(Clone, Debug, Serialize)]
pub struct EntryJson {
    /// Name of the blob.
    pub name: String,
    /// `files` or `raw`.
    pub kind: &'static str,
    /// Path it belongs to, as [`shown::path`] writes it.
    pub path: Option<String>,
    /// Where the next load takes the content from.
    pub from: String,
}

impl Entry {
    /// For people and scripts.
    pub fn json(&self) -> EntryJson {
        let from = match (&self.source, &self.path) {
            (Source::Path, Some(path)) => shown::path(path),
            (Source::Path, None) => String::new(), // not built: a path source has a path
            (Source::Taken { size, .. }, _) => {
                format!("standard input, {}", crate::output::bytes(*size))
            }
            (Source::Arrived { .. }, Some(path)) => {
                format!("arrived, not yet restored to {}", shown::path(path))
            }
            (Source::Arrived { .. }, None) => "arrived".to_owned(),
        };
        let kind = if self.path.is_some() { "files" } else { "raw" };
        EntryJson {
            name: self.label.clone(),
            kind,
            path: self.path.as_ref().map(shown::path),
            from,
        }
    }
}

/// The list as the next load sees it: arrived entries in their order, then those of this boot.
pub fn effective(arrived: Option<&Arrived>, keep: &KeepFile) -> Vec<Entry> {
    let mut list: Vec<Entry> = Vec::new();
    for (index, blob) in arrived
        .map(|a| a.blobs.as_slice())
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        if keep.removed.contains(&blob.label) {
            continue;
        }
        let source = if blob.path.is_some() && keep.restored.contains(&blob.label) {
            Source::Path
        } else {
            Source::Arrived { index }
        };
        list.push(Entry {
            label: blob.label.clone(),
            path: blob.path.clone(),
            leave_out: blob.leave_out,
            source,
        });
    }
    for local in &keep.entries {
        let (path, leave_out, source) = match &local.content {
            Content::Files {
                path,
                skip_special,
                one_file_system,
            } => (
                Some(PathBuf::from(path)),
                LeaveOut {
                    special: *skip_special,
                    other_file_systems: *one_file_system,
                },
                Source::Path,
            ),
            Content::Raw { file, size, taken } => (
                None,
                LeaveOut::default(),
                Source::Taken {
                    file: *file,
                    size: *size,
                    taken: *taken,
                },
            ),
        };
        list.push(Entry {
            label: local.label.clone(),
            path,
            leave_out,
            source,
        });
    }
    list
}
