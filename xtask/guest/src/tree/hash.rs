//! `kho-guest hash-tree` and `kho-guest hash`

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::control;

/// Prints the digest of the tree and, if `verbose`, a line per entry; reports it to the host if `same` is a key.
pub fn print_hash(dir: &Path, verbose: bool, same: Option<String>) -> Result<()> {
    let mut walk = Walk {
        root: dir,
        first_names: HashMap::new(),
        lines: Vec::new(),
        bytes: 0,
    };
    walk.visit(Path::new("."))?;
    let mut digest = blake3::Hasher::new();
    let mut out = std::io::stdout().lock();
    for line in &walk.lines {
        digest.update(line.as_bytes());
        digest.update(b"\n");
        if verbose {
            writeln!(out, "{line}").context("writing to standard output")?;
        }
    }
    let digest = digest.finalize().to_hex().to_string();
    writeln!(out, "{digest}").context("writing to standard output")?;
    tell(same, digest, walk.bytes)
}

/// Prints the digest of standard input; reports it to the host if `same` is a key.
pub fn hash_stdin(same: Option<String>) -> Result<()> {
    let (digest, bytes) = hash(&mut std::io::stdin().lock()).context("reading standard input")?;
    println!("{digest}");
    tell(same, digest.to_hex().to_string(), bytes)
}

fn tell(key: Option<String>, digest: String, bytes: u64) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    control::report(format!("{key}.bytes"), Some(bytes.to_string()))?;
    control::same(key, Some(digest))
}

struct Walk<'a> {
    root: &'a Path,
    /// First name of each file with several links.
    first_names: HashMap<(u64, u64), PathBuf>,
    lines: Vec<String>,
    /// Bytes of contents read.
    bytes: u64,
}

impl Walk<'_> {
    fn visit(&mut self, name: &Path) -> Result<()> {
        let path = self.root.join(name);
        let metadata = path
            .symlink_metadata()
            .with_context(|| format!("looking at {}", path.display()))?;
        let what = self.describe(name, &path, &metadata)?;
        self.lines.push(format!(
            "{:?} {:o} {}:{} {}.{:09} [{}] {what}",
            name.as_os_str(),
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            attributes(&path)?,
        ));
        if metadata.is_dir() {
            let mut names: Vec<OsString> = std::fs::read_dir(&path)
                .and_then(|entries| {
                    entries
                        .map(|entry| entry.map(|entry| entry.file_name()))
                        .collect()
                })
                .with_context(|| format!("reading {}", path.display()))?;
            names.sort();
            for entry in names {
                self.visit(&name.join(entry))?;
            }
        }
        Ok(())
    }

    fn describe(&mut self, name: &Path, path: &Path, metadata: &Metadata) -> Result<String> {
        let kind = metadata.file_type();
        if kind.is_dir() {
            return Ok("dir".into());
        }
        if metadata.nlink() > 1 {
            let first = self
                .first_names
                .entry((metadata.dev(), metadata.ino()))
                .or_insert_with(|| name.to_owned());
            if first != name {
                return Ok(format!("same as {:?}", first.as_os_str()));
            }
        }
        if kind.is_symlink() {
            let target =
                std::fs::read_link(path).with_context(|| format!("reading {}", path.display()))?;
            return Ok(format!("-> {:?}", target.as_os_str()));
        }
        if kind.is_block_device() || kind.is_char_device() {
            return Ok(format!("device {:#x}", metadata.rdev()));
        }
        if !kind.is_file() {
            return Ok("special".into());
        }
        let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let (digest, bytes) =
            hash(&mut file).with_context(|| format!("reading {}", path.display()))?;
        self.bytes += bytes;
        Ok(format!(
            "links {} len {} {digest}",
            metadata.nlink(),
            metadata.len()
        ))
    }
}

fn hash(from: &mut impl Read) -> std::io::Result<(blake3::Hash, u64)> {
    let mut digest = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok((digest.finalize(), digest.count()));
        }
        digest.update(&buffer[..len]);
    }
}

/// Names and values of all extended attributes, in the order of the names.
fn attributes(path: &Path) -> Result<String> {
    let mut names = vec![0_u8; 64 << 10];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => {
            return Err(error).with_context(|| format!("attributes of {}", path.display()));
        }
    };
    let mut names: Vec<&[u8]> = names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    let mut text = Vec::new();
    for name in names {
        let mut value = vec![0_u8; 64 << 10];
        let len = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..])
            .with_context(|| format!("attribute {name:?} of {}", path.display()))?;
        text.push(format!(
            "{}={}",
            String::from_utf8_lossy(name),
            value[..len].escape_ascii()
        ));
    }
    Ok(text.join(" "))
}
