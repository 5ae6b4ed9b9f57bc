//! Downloads, and files made from them, in the user's cache directory, shared by all checkouts.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// The cache directory: `$XDG_CACHE_HOME/kho` or `~/.cache/kho`.
pub struct Cache {
    root: PathBuf,
}

/// A lock that one process holds at a time. Released when dropped, or by the kernel when the process ends.
pub struct Lock {
    _file: File,
}

/// A name derived from the inputs of a cached thing: FNV-1a, in hexadecimal.
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Adds an input.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// Waits for the lock on this file.
pub fn lock(path: &Path) -> Result<Lock> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!(
            "xtask: waiting for another process, which holds {}",
            path.display()
        );
        flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("locking {}", path.display()))?;
    }
    Ok(Lock { _file: file })
}

impl Cache {
    /// Finds the directory, or makes it.
    pub fn open() -> Result<Self> {
        let base = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
            .context("neither XDG_CACHE_HOME nor HOME says where downloads may be kept")?;
        let cache = Self {
            root: base.join("kho"),
        };
        std::fs::create_dir_all(&cache.root)
            .with_context(|| format!("making {}", cache.root.display()))?;
        Ok(cache)
    }

    /// A folder of the cache, made if needed.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// A path in the cache.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Waits for the lock of this name.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        lock(&self.root.join(format!("{name}.lock")))
    }

    /// Makes a folder of the cache. A closure fills an empty folder beside it, so that the folder appears as a whole or
    /// not at all. The caller holds a lock.
    pub fn make_dir(&self, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let path = self.root.join(name);
        if path.exists() {
            return Ok(path);
        }
        let beside = path.with_file_name(format!(
            "{}.partial",
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
        if beside.exists() {
            std::fs::remove_dir_all(&beside)
                .with_context(|| format!("removing {}", beside.display()))?;
        }
        std::fs::create_dir_all(&beside).with_context(|| format!("making {}", beside.display()))?;
        fill(&beside)?;
        std::fs::rename(&beside, &path).with_context(|| format!("naming {}", path.display()))?;
        Ok(path)
    }
}
