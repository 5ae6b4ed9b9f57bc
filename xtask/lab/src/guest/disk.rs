//! The guest's read-only disk.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host;

/// Makes a file system image with the contents of a folder.
pub fn make(tree: &Path, image: &Path) -> Result<()> {
    let (bytes, files) = size(tree).with_context(|| format!("measuring {}", tree.display()))?;
    // Room for rounding each file up to blocks, and for inodes, bitmaps and directories.
    let len = (bytes + files * 8192) * 21 / 20 + (8 << 20);
    File::create(image)
        .and_then(|file| file.set_len(len.next_multiple_of(1 << 20)))
        .with_context(|| format!("making {}", image.display()))?;
    let mke2fs = host::program("mke2fs").context("there is no mke2fs")?;
    let output = Command::new(mke2fs)
        .args([
            "-q",
            "-F",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-E",
            "root_owner=0:0",
            "-m",
            "0",
            "-d",
        ])
        .arg(tree)
        .arg(image)
        .output()
        .context("running mke2fs")?;
    if !output.status.success() {
        bail!(
            "mke2fs: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn size(dir: &Path) -> std::io::Result<(u64, u64)> {
    let (mut bytes, mut files) = (0, 1);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let (inside, more) = size(&entry.path())?;
            bytes += inside;
            files += more;
        } else {
            bytes += entry.metadata()?.len();
            files += 1;
        }
    }
    Ok((bytes, files))
}
