//! Files that a guest boots from: an initramfs per kernel and one read-only disk.

mod contents;
mod cpio;
mod disk;
mod initramfs;
mod secure_boot;
mod system;
mod tree;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use kho_guest::{HOP_PARAMETER, INSTALLED, Plan, Stage, TOKEN_PARAMETER};

use crate::arch::Arch;
use crate::kernel::{Kernel, Module};
use crate::qemu::Media;
use crate::workspace::Programs;
pub use contents::Contents;
use contents::{CMDLINE, CMDLINE_ARM64};
pub use initramfs::Busybox;
use tree::{copy, finish, write, write_script};

/// Modules that every guest needs to find and to mount its disk. In cloud kernels some are built in.
const MODULES: [&str; 5] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_rng",
    "crc32c_generic",
    "ext4",
];

/// Writes all files from which a guest boots into a folder.
pub fn prepare(
    arch: Arch,
    contents: &Contents,
    programs: &Programs,
    busybox: &Busybox,
    token: &str,
    dir: &Path,
) -> Result<Media> {
    if let Some(system) = &contents.system {
        return system::prepare(system, contents, programs, token, dir);
    }
    ensure!(
        contents.kernels.len() == contents.scripts.len(),
        "a script (or none) for each kernel"
    );
    let tree = dir.join("disk");
    std::fs::create_dir_all(&tree).with_context(|| format!("making {}", tree.display()))?;

    let modules: Vec<&str> = MODULES
        .into_iter()
        .chain(contents.modules.iter().map(String::as_str))
        .collect();
    let mut plan = Plan { stages: Vec::new() };
    for (hop, (kernel, script)) in contents.kernels.iter().zip(&contents.scripts).enumerate() {
        let first = contents
            .kernels
            .iter()
            .position(|other| other == kernel)
            .unwrap_or(hop);
        let folder = format!("kernels/{first}");
        if first == hop {
            let to = tree.join(&folder);
            std::fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
            copy(&kernel.image, &to.join("bzImage"))?;
            if contents.signed {
                secure_boot::sign(&to.join("bzImage"), dir)?;
            }
            if let Some(config) = kernel.config() {
                let name = config.file_name().unwrap_or_default();
                copy(&config, &to.join(name))?;
            }
            let mut load = kernel.modules(&modules)?;
            load.append(&mut own_modules(kernel, &contents.ours, &tree)?);
            let initrd = initramfs::build(&programs.guest, busybox, &load)?;
            write(&to.join("initrd"), &initrd)?;
        }
        let script = write_script(hop, script.as_deref(), &tree)?;
        let common = match arch {
            Arch::X86_64 => CMDLINE,
            Arch::Arm64 => CMDLINE_ARM64,
        };
        let cmdline = format!("{common} {TOKEN_PARAMETER}={token} {}", contents.append);
        plan.stages.push(Stage {
            kernel: kernel.name.clone(),
            folder,
            script,
            cmdline: cmdline.trim().to_owned(),
        });
    }
    let first = plan.stages.first().context("a guest needs a kernel")?;
    let media = Media {
        kernel: tree.join(&first.folder).join("bzImage"),
        initrd: tree.join(&first.folder).join("initrd"),
        cmdline: format!("{} {HOP_PARAMETER}=0", first.cmdline),
        disk: dir.join("disk.img"),
        system: None,
    };
    copy(&programs.kho, &tree.join("bin/kho"))?;
    finish(&plan, contents, programs, &tree, &media.disk)?;
    Ok(media)
}

/// Puts all modules of this project that were built for a kernel on the disk, as if they were installed. Returns the
/// modules to load.
fn own_modules(kernel: &Kernel, wanted: &[String], tree: &Path) -> Result<Vec<Module>> {
    let Some(folder) = &kernel.ours else {
        return Ok(Vec::new());
    };
    let built = crate::module::read(folder)?;
    let installed = tree.join(INSTALLED).join(kernel.release()?).join("updates");
    for module in &built {
        write(
            &installed.join(format!("{}.ko", module.name)),
            &module.content,
        )?;
    }
    let load = wanted.iter().map(|name| {
        let module = built.iter().find(|module| module.name == *name);
        module
            .cloned()
            .with_context(|| format!("there is no module {name}"))
    });
    load.collect()
}
