//! Logs of guests, and the folders of their runs.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::qemu::{Line, Port};

/// The log of all output of a guest, with the host's time.
pub struct Log {
    file: File,
    start: Instant,
}

impl Log {
    /// Starts a log.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self {
            file,
            start: Instant::now(),
        })
    }

    /// Adds a line; `k` marks the kernel's.
    pub fn line(&mut self, line: &Line) -> Result<()> {
        let port = match line.port {
            Port::Console => 'k',
            Port::Control => 's',
        };
        let at = line.at.saturating_duration_since(self.start).as_secs_f64();
        writeln!(self.file, "{at:9.3} {port} {}", line.text).context("writing a guest's log")
    }

    /// Adds a remark of the host.
    pub fn note(&mut self, text: &str) -> Result<()> {
        writeln!(
            self.file,
            "{:9.3} h {text}",
            self.start.elapsed().as_secs_f64()
        )
        .context("writing a guest's log")
    }
}

/// A folder for the files of one run. Removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder.
    pub fn new(parent: &Path, name: &str) -> Result<Self> {
        let dir = parent.join(format!("{name}.{}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self(dir))
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A later run removes a folder that cannot be removed now.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes folders of processes that have ended.
pub fn remove_leftovers(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let id = name
            .to_str()
            .and_then(|name| name.rsplit_once('.'))
            .and_then(|(_, id)| id.parse::<u32>().ok());
        if id.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Longest line of a log that is shown whole, in characters.
const LONGEST_LINE: usize = 400;

/// The last lines of a log; long lines are cut.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let cut = |line: &&str| line.chars().take(LONGEST_LINE).collect::<String>();
    let last = &all[all.len().saturating_sub(lines)..];
    last.iter().map(cut).collect::<Vec<_>>().join("\n")
}
