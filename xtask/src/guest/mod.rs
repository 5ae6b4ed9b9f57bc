//! What a guest boots: an initramfs per kernel and one read-only disk.

mod disk;
mod initramfs;
mod system;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kho_guest::{HOP_PARAMETER, INSTALLED, PLAN, Plan, Stage, TOKEN_PARAMETER};

use crate::kernel::{Kernel, Module};
use crate::system::{System, succeed};
use crate::workspace::Programs;

/// Modules that every guest needs to find its disk.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "virtio_rng"];

/// Kernel command line of every stage: all messages on the first serial port from the first instruction on, and a
/// panic ends the guest. The timer is not tested: on a host with too much to do an emulated one misses ticks, and the kernel
/// takes it for broken and panics (KVM guests leave the test out by themselves: arch/x86/kernel/kvm.c).
const CMDLINE: &str = "earlyprintk=serial,ttyS0,115200 console=ttyS0 panic=-1 \
                       rcupdate.rcu_cpu_stall_timeout=60 no_timer_check";

/// What is to run where.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The kernels, in the order in which they run; one more than there are hops.
    pub kernels: Vec<Kernel>,
    /// Script of each kernel.
    pub scripts: Vec<Option<String>>,
    /// More kernel parameters for every kernel.
    pub append: String,
    /// More modules.
    pub modules: Vec<String>,
    /// Our own modules to load, in this order, in kernels that they were built for.
    pub ours: Vec<String>,
    /// Files for the scripts, found at `$KHO_FILES`.
    pub files: Vec<PathBuf>,
    /// Folders whose contents scripts find together at `/media/root`.
    pub roots: Vec<PathBuf>,
    /// A full system that boots by itself, in place of `kernels`: there is one script for each of its boots.
    pub system: Option<System>,
}

impl Contents {
    /// How many kernels are to be started.
    pub fn stages(&self) -> usize {
        self.scripts.len()
    }
}

/// Files to start a guest with.
#[derive(Debug)]
pub struct Media {
    /// First kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Its command line.
    pub cmdline: String,
    /// The disk.
    pub disk: PathBuf,
    /// The disk of a full system, which comes before the above. What is written goes to a copy.
    pub system: Option<PathBuf>,
}

/// Writes everything that a guest boots from into a folder.
pub fn prepare(
    contents: &Contents,
    programs: &Programs,
    busybox: &Path,
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
            let mut load = kernel.modules(&modules)?;
            load.append(&mut own_modules(kernel, &contents.ours, &tree)?);
            let initrd = initramfs::build(&programs.guest, busybox, &load)?;
            write(&to.join("initrd"), &initrd)?;
        }
        let script = write_script(hop, script.as_deref(), &tree)?;
        let cmdline = format!("{CMDLINE} {TOKEN_PARAMETER}={token} {}", contents.append);
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

fn write_script(hop: usize, text: Option<&str>, tree: &Path) -> Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let name = format!("scripts/{hop}.sh");
    write(&tree.join(&name), text.as_bytes())?;
    Ok(Some(name))
}

/// What is on the disk of every guest; then the disk itself.
fn finish(
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

/// Puts all of our modules that were built for a kernel on the disk, as if they were installed; gives those to load.
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

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    std::fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn write(to: &Path, content: &[u8]) -> Result<()> {
    make_parent(to)?;
    std::fs::write(to, content).with_context(|| format!("writing {}", to.display()))
}

fn make_parent(of: &Path) -> Result<()> {
    let parent = of.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))
}
