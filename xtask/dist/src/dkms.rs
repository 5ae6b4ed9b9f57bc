//! The package of the kernel module: sources for dkms, with the Rust half compiled.
//!
//! Debian 12 and 13 have an older Rust than the module needs, and a machine that runs databases should not need a
//! compiler for Rust at all. The Rust half asks the C half for all facts about a kernel. The C half is compiled on the
//! machine, so one object serves every kernel with the same mitigations.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kho_lab::cache::{self, Cache};
use kho_lab::command::succeed;
use kho_lab::{module, workspace};

use super::deb::Package;

/// Version of the packages.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Sets of mitigations, as `module/Makefile` names them: those of 6.1, and of 6.12 and later.
const MITIGATIONS: [&str; 2] = ["retpoline rethunk", "retpoline rethunk ibt padding16"];

/// The Rust halves of kho.ko and khofs.ko.
const HALVES: [&str; 2] = ["kho_module.full.o", "khofs_module.full.o"];

/// Names of files and folders, in the copied folders, that the package leaves out.
const LEFT_OUT: [&str; 7] = [
    "target",
    "build",
    ".gitignore",
    "Cargo.toml.orig",
    ".cargo_vcs_info.json",
    "README.md",
    "tests",
];

/// Files of the package, by their path in its folder.
pub type Sources = BTreeMap<PathBuf, Vec<u8>>;

/// Returns the sources and the objects. For guests, objects that were compiled earlier from the same sources are
/// enough.
pub fn sources(for_guests: bool) -> Result<Sources> {
    let work = workspace::target_dir()?.join("dkms");
    std::fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    // Two builds in one checkout would write to the same folder.
    let _lock = cache::lock(&work.join("lock"))?;
    let stage = work.join("kho");
    if stage.exists() {
        std::fs::remove_dir_all(&stage).with_context(|| format!("removing {}", stage.display()))?;
    }
    stage_sources(&stage)?;
    let cache = Cache::open()?;
    let mut sources = Sources::new();
    collect(&stage, Path::new(""), &mut sources)?;
    let objects = if for_guests {
        let _lock = cache.lock("module-objects")?;
        cache.make_dir(&format!("module-objects/{}", module::identity()?), |dir| {
            compile(&cache, &stage, dir)
        })?
    } else {
        let dir = stage.with_file_name("objects");
        compile(&cache, &stage, &dir)?;
        dir
    };
    collect(&objects, Path::new("prebuilt"), &mut sources)?;
    Ok(sources)
}

/// Compiles the Rust halves of the sources in `stage`, for all kernels.
fn compile(cache: &Cache, stage: &Path, to: &Path) -> Result<()> {
    let work = stage.with_file_name("work");
    for mitigations in MITIGATIONS {
        eprintln!("xtask: compiling the modules' Rust halves ({mitigations})");
        let name = mitigations.replace(' ', "-");
        let out = work.join(&name);
        module::object(cache, stage, mitigations, &work.join("target"), &out)?;
        let to = to.join(&name);
        std::fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
        for half in HALVES {
            // The section names the compiler's version, which the sources already state.
            let status = Command::new("objcopy")
                .args(["--strip-debug", "--remove-section=.comment"])
                .arg(out.join(half))
                .arg(to.join(half))
                .status()
                .context("running objcopy")?;
            ensure!(status.success(), "objcopy: {status}");
        }
    }
    Ok(())
}

/// Adds the sources to a package of this version.
pub fn add(package: &mut Package, version: &str, sources: &Sources) {
    for (path, bytes) in sources {
        let target = Path::new(&format!("usr/src/kho-{version}")).join(path);
        let mut bytes = bytes.clone();
        if path == Path::new("dkms.conf") {
            let text = String::from_utf8_lossy(&bytes);
            let version = format!("PACKAGE_VERSION=\"{version}\"");
            let own = format!("PACKAGE_VERSION=\"{}\"", VERSION);
            bytes = text.replace(&own, &version).into_bytes();
        }
        // dkms runs the scripts of a package.
        let mode = if path.extension().is_some_and(|e| e == "sh") {
            0o755
        } else {
            0o644
        };
        package.file(target, mode, bytes);
    }
}

/// Copies the sources that are compiled to `stage`, in the layout that is installed: the core crate lies inside.
fn stage_sources(stage: &Path) -> Result<()> {
    let root = workspace::root();
    copy_tree(&root.join("module"), stage)?;
    let core = stage.join("crates/kho");
    let crate_file = publish("kho")?;
    unpack_crate(&crate_file, &core)?;
    let edit = |name: &str, from: &str, to: &str| -> Result<()> {
        let path = stage.join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        ensure!(text.contains(from), "{name} does not say {from:?}");
        std::fs::write(&path, text.replace(from, to))
            .with_context(|| format!("writing {}", path.display()))
    };
    edit("Cargo.toml", "\"../crates/kho\"", "\"crates/kho\"")?;
    // Without this, cargo would take the crate inside for a workspace member and resolve the dependencies of its tests.
    edit(
        "Cargo.toml",
        "\n[workspace]\n",
        "\n[workspace]\nexclude = [\"crates/kho\"]\n",
    )?;
    let own = format!("PACKAGE_VERSION=\"{}\"", VERSION);
    edit("dkms.conf", &own, &own)
}

/// Runs `cargo package` for one crate, without building it. Returns the path of the crate file.
fn publish(name: &str) -> Result<PathBuf> {
    let target = workspace::target_dir()?.join("dkms/package");
    let mut command = workspace::cargo();
    command.args([
        "package",
        "--quiet",
        "--no-verify",
        "--allow-dirty",
        "-p",
        name,
    ]);
    command.arg("--target-dir").arg(&target);
    succeed(&mut command)?;
    Ok(target.join(format!("package/{name}-{}.crate", VERSION)))
}

fn unpack_crate(file: &Path, to: &Path) -> Result<()> {
    let reader =
        std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(reader));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let inside: PathBuf = path.components().skip(1).collect();
        let name = inside.file_name().unwrap_or_default().to_string_lossy();
        if LEFT_OUT.contains(&&*name) || inside.starts_with("tests") || name == "Cargo.lock" {
            continue;
        }
        let target = to.join(&inside);
        std::fs::create_dir_all(target.parent().unwrap_or(to)).context("making a folder")?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        std::fs::write(&target, bytes).with_context(|| format!("writing {}", target.display()))?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.with_context(|| format!("reading {}", from.display()))?;
        let name = entry.file_name();
        if LEFT_OUT.contains(&&*name.to_string_lossy()) {
            continue;
        }
        let (path, target) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            copy_tree(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

fn collect(from: &Path, to: &Path, sources: &mut Sources) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry.with_context(|| format!("reading {}", from.display()))?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &target, sources)?;
        } else {
            let bytes = std::fs::read(entry.path())
                .with_context(|| format!("reading {}", entry.path().display()))?;
            sources.insert(target, bytes);
        }
    }
    Ok(())
}
