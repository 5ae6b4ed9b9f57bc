//! Files from which a full system boots.

use std::path::Path;

use anyhow::Result;
use kho_guest::{Plan, Stage, TOKEN_PARAMETER};

use super::contents::{CMDLINE, Contents};
use super::tree::{finish, write_script};
use crate::qemu::Media;
use crate::system::System;
use crate::workspace::Programs;

/// Writes the disk of a full system, as [`super::prepare`] does for kernels. The kernel and the initrd are those of the
/// system, and units of the system start the scripts. The disk does not hold the command under test: a package installs
/// it.
pub fn prepare(
    system: &System,
    contents: &Contents,
    programs: &Programs,
    token: &str,
    dir: &Path,
) -> Result<Media> {
    let tree = dir.join("disk");
    let mut plan = Plan { stages: Vec::new() };
    for (hop, script) in contents.scripts.iter().enumerate() {
        plan.stages.push(Stage {
            kernel: String::new(),
            folder: String::new(),
            script: write_script(hop, script.as_deref(), &tree)?,
            cmdline: String::new(),
        });
    }
    let cmdline = format!(
        "root=/dev/vda rw {CMDLINE} {TOKEN_PARAMETER}={token} {}",
        contents.append
    );
    let media = Media {
        kernel: system.kernel.clone(),
        initrd: system.initrd.clone(),
        cmdline: cmdline.trim().to_owned(),
        disk: dir.join("disk.img"),
        system: Some(system.disk.clone()),
    };
    finish(&plan, contents, programs, &tree, &media.disk)?;
    Ok(media)
}
