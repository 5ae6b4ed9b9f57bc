//! A kernel that a guest runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::modules::{self, Module};

/// The suites of guest packages.
pub const SUITES: [&str; 4] = [
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
];

/// A kernel ready to be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Name that the user gave.
    pub name: String,
    /// The bzImage.
    pub image: PathBuf,
    /// Suite of the kernel's package.
    pub suite: Option<&'static str>,
    /// Folder with kho's modules for this kernel, if they are wanted.
    pub ours: Option<PathBuf>,
    /// Headers of a kernel that was built on this machine, with its compiler.
    pub headers: Option<PathBuf>,
    /// `/lib/modules/RELEASE`, if the kernel has one.
    pub(super) modules: Option<PathBuf>,
}

impl Kernel {
    /// Returns the release: the text that `uname -r` prints.
    pub fn release(&self) -> Result<&str> {
        let dir = self.modules.as_deref().and_then(Path::file_name);
        dir.and_then(|name| name.to_str()).with_context(|| {
            format!(
                "the release of {} is not known: it has no modules",
                self.name
            )
        })
    }

    /// Returns the path of the kernel's configuration; `None` if its package has none.
    pub fn config(&self) -> Option<PathBuf> {
        let name = format!("config-{}", self.release().ok()?);
        // `lib/modules/RELEASE` and `usr/lib/modules/RELEASE`: the package's root is above them.
        let roots = self.modules.as_deref()?.ancestors().skip(3).take(2);
        let mut files = roots.map(|root| root.join("boot").join(&name));
        files.find(|path| path.is_file())
    }

    /// Returns the modules that the guest needs from this kernel, decompressed, in the order in which to load them.
    /// Modules that are built in, or do not exist in this kernel, are left out.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        match &self.modules {
            Some(dir) => modules::closure(dir, wanted)
                .with_context(|| format!("modules of kernel {}", self.name)),
            None => Ok(Vec::new()),
        }
    }
}

/// Returns the path of the entry of a folder whose name has this prefix.
pub(super) fn only_entry(dir: &Path, prefix: &str) -> Result<PathBuf> {
    std::fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .with_context(|| format!("{} holds no {prefix}*", dir.display()))
}
