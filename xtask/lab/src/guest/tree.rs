//! The files of a guest's disk.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use kho_guest::{PLAN, Plan};

use super::contents::Contents;
use super::disk;
use crate::command::succeed;
use crate::workspace::Programs;

/// Writes the script of a stage, if it has one. Returns the script's name.
pub(super) fn write_script(hop: usize, text: Option<&str>, tree: &Path) -> Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let name = format!("scripts/{hop}.sh");
    write(&tree.join(&name), text.as_bytes())?;
    Ok(Some(name))
}

/// Writes the files that are on the disk of every guest, then the disk itself.
pub(super) fn finish(
    plan: &Plan,
    contents: &Contents,
    programs: &Programs,
    tree: &Path,
    disk: &Path,
) -> Result<()> {
    write(&tree.join(PLAN), &serde_json::to_vec_pretty(plan)?)?;
    copy(&programs.guest, &tree.join("bin/kho-guest"))?;
    for file in &contents.files {
        let name = file
            .file_name()
            .with_context(|| format!("{} has no name", file.display()))?;
        copy(file, &tree.join("files").join(name))?;
    }
    for root in &contents.roots {
        let to = tree.join("root");
        make_parent(&to.join("usr"))?;
        succeed(
            Command::new("cp")
                .args(["-a", "--reflink=auto"])
                .arg(root.join("usr"))
                .arg(&to),
        )?;
    }
    disk::make(tree, disk)
}

/// Copies a file and makes its folder.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    std::fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Writes a file and makes its folder.
pub(super) fn write(to: &Path, content: &[u8]) -> Result<()> {
    make_parent(to)?;
    std::fs::write(to, content).with_context(|| format!("writing {}", to.display()))
}

fn make_parent(of: &Path) -> Result<()> {
    let parent = of.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))
}
