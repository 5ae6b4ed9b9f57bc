//! The initramfs: PID 1, busybox and a few modules.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kho_guest::{INSTALLED, MEDIA};

use super::cpio::Archive;
use crate::kernel::Module;

const DIRECTORIES: [&str; 18] = [
    "bin",
    "dev",
    "etc",
    "lib",
    "media",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "srv",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/sbin",
    "var",
    "lib/guest-modules",
];

/// The guests' shell.
pub struct Busybox {
    /// The program for guests.
    pub guest: PathBuf,
    /// The same program for this machine, which names the applets.
    pub host: PathBuf,
}

/// The archive, uncompressed: for a guest under TCG, decompressing takes longer than reading.
pub fn build(init: &Path, busybox: &Busybox, modules: &[Module]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for name in DIRECTORIES {
        archive.directory(name, if name == "tmp" { 0o1777 } else { 0o755 });
    }
    // The kernel opens this device for PID 1 before it mounts anything.
    archive.character_device("dev/console", 0o600, 5, 1);
    archive.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
    );
    archive.file("etc/group", 0o644, b"root:x:0:\nuser:x:1000:\n");
    archive.file("init", 0o755, &read(init)?);
    archive.file("bin/busybox", 0o755, &read(&busybox.guest)?);
    for applet in applets(&busybox.host)? {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    archive.symlink("lib/modules", &format!("{MEDIA}/{INSTALLED}"));
    for (index, module) in modules.iter().enumerate() {
        archive.file(
            &format!("lib/guest-modules/{index:03}-{}.ko", module.name),
            0o644,
            &module.content,
        );
    }
    Ok(archive.finish())
}

fn applets(busybox: &Path) -> Result<Vec<String>> {
    let output = Command::new(busybox)
        .arg("--list")
        .output()
        .with_context(|| format!("running {}", busybox.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut names: Vec<_> = text
        .lines()
        .filter(|name| *name != "busybox")
        .map(str::to_owned)
        .collect();
    names.sort();
    ensure!(
        names.iter().any(|name| name == "sh"),
        "{} --list names no sh",
        busybox.display()
    );
    Ok(names)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}
