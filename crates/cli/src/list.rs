//! The keep list: the entries that arrived, without those that were removed, and the entries that were added in this
//! boot.

use crate::arrived::Arrived;
use crate::shown;
use crate::state::{Content, KeepFile};
use kho::abi::LeaveOut;
use serde::Serialize;
use std::path::PathBuf;

/// An entry of the list, with the source from which the next load takes its content.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name of the blob.
    pub label: String,
    /// Path of the content; `None` for a raw blob.
    pub path: Option<PathBuf>,
    /// Parts of the path that every reading leaves out.
    pub leave_out: LeaveOut,
    /// Source of the content.
    pub source: Source,
}

/// Source from which the next load takes the content of an entry.
#[derive(Clone, Debug)]
pub enum Source {
    /// The file system, read at load time.
    Path,
    /// Bytes taken from standard input, in this file of the state directory.
    Taken {
        /// Number of the file.
        file: u64,
        /// Length of the file, in bytes.
        size: u64,
        /// Time at which the bytes were taken, in nanoseconds since the epoch.
        taken: u64,
    },
    /// The bytes that arrived. They stay in place, and the next tree names their address.
    Arrived {
        /// Index among the arrived blobs.
        index: usize,
    },
}

/// An entry, for people and scripts.
#[derive(Clone, Debug, Serialize)]
pub struct EntryJson {
    /// Name of the blob.
    pub name: String,
    /// `files` or `raw`.
    pub kind: &'static str,
    /// Path of the content, in the form of [`shown::path`].
    pub path: Option<String>,
    /// Source from which the next load takes the content.
    pub from: String,
}

impl Entry {
    /// Returns the entry in its form for people and scripts.
    pub fn json(&self) -> EntryJson {
        let from = match (&self.source, &self.path) {
            (Source::Path, Some(path)) => shown::path(path),
            (Source::Path, None) => String::new(), // unreachable: a path source has a path
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

/// Returns the list for the next load: arrived entries in their order, then those of this boot.
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
