//! Kernels built from Debian's sources: a mainline kernel with built-in Kexec HandOver, and kernels that look for faults
//! of the modules.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::image::{Kernel, SUITES, only_entry};
use super::version;
use crate::cache::{Cache, Fingerprint};
use crate::command::succeed_shown;
use crate::deb;
use crate::host::apt::Apt;
use crate::host::program;

/// Name by which scenarios ask for this kernel.
pub const NAME: &str = "peer";

/// The package with the sources, and its suite.
const PACKAGE: (&str, &str) = ("linux-source-7.3", "trixie-backports");

/// Options that are added to the smallest configuration, for every kernel.
const CONFIG: &str = include_str!("peer/config");

/// More options of the kernels that look for faults, and of each of them.
const DEBUG: [(&str, &[&str]); 3] = [
    (
        "debug",
        &[include_str!("peer/debug"), include_str!("peer/debug-locks")],
    ),
    (
        "debug-kasan",
        &[include_str!("peer/debug"), include_str!("peer/debug-kasan")],
    ),
    (
        "debug-rt",
        &[include_str!("peer/debug"), include_str!("peer/debug-rt")],
    ),
];

/// Names of the kernels that are built here.
pub fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once(NAME).chain(DEBUG.map(|(name, _)| name))
}

/// A kernel that is built here.
struct Recipe {
    name: &'static str,
    config: String,
    /// Whether the kernel takes modules, so that its headers are kept.
    modules: bool,
}

impl Recipe {
    /// Returns `None` for a name that no such kernel has.
    fn of(name: &str) -> Option<Self> {
        if name == NAME {
            return Some(Self {
                name: NAME,
                config: CONFIG.to_owned(),
                modules: false,
            });
        }
        let (name, more) = DEBUG.iter().find(|(known, _)| *known == name)?;
        Some(Self {
            name,
            config: format!(
                "{CONFIG}{}CONFIG_LOCALVERSION=\"-kho-{name}\"\n",
                more.concat()
            ),
            modules: true,
        })
    }

    /// Returns the folder of the kernel, named after the configuration: another configuration is another kernel.
    fn folder(&self, cache: &Cache) -> PathBuf {
        let mut hash = Fingerprint::default();
        hash.add(self.config.as_bytes());
        cache.path(&format!("peer/{hash}"))
    }
}

/// Programs and headers that the build needs, and their packages.
const TOOLS: [(&str, &str); 7] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
];

/// The header that `objtool` is built with, and its package.
const LIBELF: (&str, &str) = ("/usr/include/gelf.h", "libelf-dev");

/// Finds the kernel of this name, if it was built with the present configuration.
///
/// # Errors
///
/// If it was not built.
pub fn find(cache: &Cache, name: &str) -> Result<Kernel> {
    let recipe = Recipe::of(name).with_context(|| format!("no kernel {name} is built here"))?;
    let folder = recipe.folder(cache);
    let image = folder.join("bzImage");
    ensure!(
        image.is_file(),
        "{name} was not built: cargo xtask peer-kernel {name}"
    );
    let modules = match recipe.modules {
        true => Some(only_entry(&folder.join("lib/modules"), "")?),
        false => None,
    };
    Ok(Kernel {
        name: name.to_owned(),
        image,
        suite: None,
        ours: None,
        headers: recipe.modules.then(|| folder.join("headers")),
        modules,
    })
}

/// Removes the built kernel, so that it is built again.
pub fn forget(cache: &Cache, name: &str) -> Result<()> {
    let folder = Recipe::of(name).context("no such kernel")?.folder(cache);
    match folder.exists() {
        true => std::fs::remove_dir_all(folder).context("removing the kernel that is there"),
        false => Ok(()),
    }
}

/// Builds the kernel of this name unless it exists. Returns the path of the bzImage.
pub fn build(cache: &Cache, name: &str) -> Result<PathBuf> {
    let recipe = Recipe::of(name).with_context(|| format!("no kernel {name} is built here"))?;
    let _lock = cache.lock("peer")?;
    let path = recipe.folder(cache);
    let name = path
        .strip_prefix(cache.path(""))
        .ok()
        .and_then(Path::to_str)
        .context("the cache has a strange path")?
        .to_owned();
    let made = cache.make_dir(&name, |dir| {
        let apt = Apt::open(cache, "guest", &SUITES)?;
        apt.update()?;
        let found = apt.packages(PACKAGE.1, |name| name == PACKAGE.0)?;
        let package = version::newest(found)
            .with_context(|| format!("{} has no {}", PACKAGE.1, PACKAGE.0))?;
        let work = dir.join("work");
        std::fs::create_dir(&work)?;
        let deb = apt.download(&[package], &work)?;
        drop(apt);
        tools(cache)?;
        let deb = deb.first().context("nothing was downloaded")?;
        deb::unpack(deb, &work, |path| path.starts_with("usr/src"))?;
        let archive = work.join(format!("usr/src/{}.tar.xz", PACKAGE.0));
        eprintln!("xtask: unpacking {}", PACKAGE.0);
        succeed_shown(
            Command::new("tar")
                .arg("-xJf")
                .arg(&archive)
                .arg("-C")
                .arg(&work),
        )?;
        compile(&recipe, &work.join(PACKAGE.0), &work.join("out"), dir)?;
        let image = work.join("out/arch/x86/boot/bzImage");
        std::fs::rename(&image, dir.join("bzImage"))
            .with_context(|| format!("keeping {}", image.display()))?;
        std::fs::rename(work.join("out/.config"), dir.join("config"))?;
        std::fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
    })?;
    Ok(made.join("bzImage"))
}

fn compile(recipe: &Recipe, source: &Path, out: &Path, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    let make = |what: &[&str]| {
        let mut command = Command::new("make");
        command
            .arg("-s")
            .arg("-C")
            .arg(source)
            .arg(format!("O={}", out.display()));
        command.args(what);
        succeed_shown(&mut command)
    };
    make(&["tinyconfig"])?;
    // If an option is set twice, the last line counts.
    let config = out.join(".config");
    let mut text = std::fs::read_to_string(&config)
        .with_context(|| format!("reading {}", config.display()))?;
    text.push_str(&recipe.config);
    std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
    make(&["olddefconfig"])?;
    let text = std::fs::read_to_string(&config)?;
    let localversion = |line: &str| line.starts_with("CONFIG_LOCALVERSION=");
    let options = recipe.config.lines();
    let lost: Vec<&str> = options
        .filter(|line| line.starts_with("CONFIG_") && !localversion(line))
        .filter(|line| !text.lines().any(|have| have == *line))
        .collect();
    ensure!(
        lost.is_empty(),
        "these sources do not take {}",
        lost.join(", ")
    );
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    eprintln!(
        "xtask: building the kernel {}, this takes some minutes",
        recipe.name
    );
    make(&[&format!("-j{processors}"), "bzImage"])?;
    if !recipe.modules {
        return Ok(());
    }
    make(&[&format!("-j{processors}"), "modules"])?;
    let script = source.join("scripts/package/install-extmod-build");
    let headers = dir.join("headers");
    let command = format!(
        "KBUILD_RUN_COMMAND={} {}",
        script.display(),
        headers.display()
    );
    make(&["run-command", &command])?;
    let release = out.join("include/config/kernel.release");
    let release = std::fs::read_to_string(&release)
        .with_context(|| format!("reading {}", release.display()))?;
    let modules = dir.join("lib/modules").join(release.trim()).join("kernel");
    std::fs::create_dir_all(&modules).with_context(|| format!("making {}", modules.display()))
}

/// Installs the tools that the build needs and this machine lacks, after listing them.
fn tools(cache: &Cache) -> Result<()> {
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| program(tool).is_none())
        .map(|(_, package)| *package)
        .chain((!Path::new(LIBELF.0).exists()).then_some(LIBELF.1))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "building the kernel needs these packages: {}",
            missing.join(" ")
        );
    }
    eprintln!(
        "xtask: installing {} to build the kernel",
        missing.join(" ")
    );
    let apt = Apt::open(cache, "host", &["bookworm", "bookworm-updates"])?;
    apt.update()?;
    apt.install(&missing, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_what_the_test_needs_and_names_nothing_twice() {
        let names: Vec<&str> = CONFIG
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split('=').next().unwrap_or(line))
            .collect();
        for needed in [
            "CONFIG_KEXEC_HANDOVER",
            "CONFIG_KEXEC_HANDOVER_DEBUGFS",
            "CONFIG_TEST_KEXEC_HANDOVER",
            "CONFIG_LIVEUPDATE",
        ] {
            assert!(names.contains(&needed), "{needed}");
        }
        for (place, name) in names.iter().enumerate() {
            assert!(name.starts_with("CONFIG_"), "{name}");
            assert!(!names[..place].contains(name), "{name} twice");
        }
    }

    #[test]
    fn a_kernel_that_looks_for_faults_takes_modules() {
        for name in super::names().skip(1) {
            let recipe = Recipe::of(name).unwrap();
            assert!(
                recipe.modules && recipe.config.contains("CONFIG_MODULES=y"),
                "{name}"
            );
        }
        assert!(Recipe::of("6.1").is_none());
    }
}
