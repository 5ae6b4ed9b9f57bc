//! kho.ko and its companions, built for the kernels that guests run.

mod root;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{Cache, Fingerprint};
use crate::host;
use crate::kernel::{Kernel, Module, Store};
use crate::workspace::{self, Rustc};
use root::BuildRoot;

/// The modules that guests may load: the name, the options of the build, and the path of the file below the output
/// folder of `make -C module`.
const BUILT: [(&str, &[&str], &str); 8] = [
    ("kho", &[], "kho.ko"),
    ("khofs", &[], "khofs/khofs.ko"),
    ("kho_ring", &[], "samples/kho_ring.ko"),
    ("kho_note", &[], "samples/note/kho_note.ko"),
    ("kho_test", &[], "samples/kho_test.ko"),
    // Replaces kho: a test can make its allocations fail.
    ("kho_faults", &["KHO_FAULTS=y", "SAMPLES="], "kho.ko"),
    // Replaces khofs: a test can make it find wrong folios.
    (
        "khofs_faults",
        &["KHO_FAULTS=y", "SAMPLES="],
        "khofs/khofs.ko",
    ),
    // Replaces kho: speaks the next version of the contract.
    ("kho_next", &["NEXT_CONTRACT=y", "SAMPLES="], "kho.ko"),
];

/// Sources of the modules, relative to the workspace.
const SOURCES: [&str; 3] = ["module", "crates/kho/src", "crates/kho/Cargo.toml"];

/// Age above which builds of other sources are removed.
const KEEP: std::time::Duration = std::time::Duration::from_secs(3 * 24 * 3600);

/// Reads the modules in a folder that [`build`] returned.
pub fn read(folder: &Path) -> Result<Vec<Module>> {
    let module = |(name, ..): &(&str, &[&str], &str)| {
        let path = folder.join(format!("{name}.ko"));
        Ok(Module {
            name: (*name).to_owned(),
            content: std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?,
        })
    };
    BUILT.iter().map(module).collect()
}

/// Builds the modules for a kernel unless they exist. Returns the folder that holds them.
pub fn build(cache: &Cache, kernel: &Kernel) -> Result<PathBuf> {
    host::require(cache, "build the kernel module", &NEEDS)?;
    let root = BuildRoot::of(cache, kernel)?;
    let rustc = Rustc::ask()?;
    let release = kernel.release()?;
    let fingerprint = fingerprint(&rustc)?;
    cache.dir("modules")?;
    // Builds of one checkout share cargo's folder, and two checkouts may have the same sources: so two locks.
    let target = workspace::target_dir()?.join("module");
    std::fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
    let _here = cache.lock(&target.to_string_lossy())?;
    let _lock = cache.lock(&format!("modules/{fingerprint}"))?;
    let name = format!("modules/{release}/{fingerprint}");
    if cache.path(&name).exists() {
        return Ok(cache.path(&name));
    }
    forget_old(&cache.dir(&format!("modules/{release}"))?);
    let source = rust_source(cache, &rustc)?;
    cache.make_dir(&name, |dir| {
        eprintln!("xtask: building the kernel module for {release}");
        let make = |mut command: Command, headers: &str, what: &str, options: &[&str]| {
            let out = out(&target, release, options);
            command
                .arg("-s")
                .arg("-C")
                .arg(workspace::root().join("module"))
                .arg(what)
                .args(options)
                .arg(format!("KDIR={headers}"))
                .arg(format!("OUT={}", out.display()))
                .args(
                    source
                        .as_ref()
                        .map(|path| format!("RUST_SRC={}", path.display())),
                )
                .env("CARGO_TARGET_DIR", &target);
            alone(&mut command);
            succeed(&mut command, release)
        };
        let headers = root.headers();
        let mut done: Vec<&[&str]> = Vec::new();
        for (name, options, file) in BUILT {
            if !done.contains(&options) {
                make(
                    Command::new("make"),
                    &headers.to_string_lossy(),
                    "object",
                    options,
                )?;
                make(
                    root.command("make"),
                    &root.headers_inside(),
                    "kbuild",
                    options,
                )?;
                done.push(options);
            }
            let from = out(&target, release, options).join(file);
            std::fs::copy(&from, dir.join(format!("{name}.ko")))
                .with_context(|| format!("keeping {}", from.display()))?;
        }
        Ok(())
    })
}

/// Builds the Rust half alone, from the sources in `dir`, for kernels with these mitigations (in the Makefile's names):
/// `kho_module.full.o` in `out`.
pub fn object(
    cache: &Cache,
    dir: &Path,
    mitigations: &str,
    target: &Path,
    out: &Path,
) -> Result<()> {
    host::require(cache, "build the kernel module", &NEEDS)?;
    let source = rust_source(cache, &Rustc::ask()?)?;
    let mut command = Command::new("make");
    command
        .arg("-s")
        .arg("-C")
        .arg(dir)
        .arg("object")
        .arg(format!("MITIGATIONS={mitigations}"))
        .arg(format!("OUT={}", out.display()))
        .args(
            source
                .as_ref()
                .map(|path| format!("RUST_SRC={}", path.display())),
        )
        .env("CARGO_TARGET_DIR", target);
    alone(&mut command);
    succeed(&mut command, mitigations)
}

/// Returns, as a name, the fingerprint of the sources and the compiler that [`object()`] depends on.
pub fn identity() -> Result<String> {
    Ok(fingerprint(&Rustc::ask()?)?.to_string())
}

/// Removes the environment variables that the cargo which started this program set for another package.
fn alone(command: &mut Command) {
    for variable in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "MAKEFLAGS",
        "CARGO_MAKEFLAGS",
    ] {
        command.env_remove(variable);
    }
}

/// Folder of one kind of build: for one release, with these options.
fn out(target: &Path, release: &str, options: &[&str]) -> PathBuf {
    let kind = options.join("_").replace('=', "");
    target.join("out").join(format!("{release}{kind}"))
}

/// Programs that the build needs on this machine; the others are unpacked.
const NEEDS: [host::Need; 4] = [
    host::Need::program("make", "make"),
    host::Need::program("gcc", "gcc"),
    host::Need::program("nm", "binutils"),
    host::Need::program("unshare", "util-linux"),
];

/// Returns the folder of the Rust library's source, from Debian's package of the same version; `None` if rustup
/// installed the source.
fn rust_source(cache: &Cache, rustc: &Rustc) -> Result<Option<PathBuf>> {
    let library = "library/core/src/lib.rs";
    if rustc
        .sysroot
        .join("lib/rustlib/src/rust")
        .join(library)
        .exists()
    {
        return Ok(None);
    }
    let version = &rustc.version;
    let dir = Store::new(cache).rust_source(version).with_context(|| {
        format!(
            "no source of the Rust library {version}: `rustup component add rust-src` brings it"
        )
    })?;
    let source = dir.join(format!("usr/src/rustc-{version}"));
    if !source.join(library).exists() {
        bail!("{} holds no {library}", source.display());
    }
    Ok(Some(source))
}

/// Returns the fingerprint of a build, which changes with the sources and the compiler.
fn fingerprint(rustc: &Rustc) -> Result<Fingerprint> {
    let mut files = Vec::new();
    for source in SOURCES {
        list(&workspace::root().join(source), &mut files)
            .with_context(|| format!("listing {source}"))?;
    }
    files.sort();
    let mut hash = Fingerprint::default();
    let mut add = |bytes: &[u8]| {
        hash.add(bytes);
        hash.add(&[0]);
    };
    add(rustc.verbose.as_bytes());
    for file in &files {
        let name = file.strip_prefix(workspace::root()).unwrap_or(file);
        add(name.as_os_str().as_encoded_bytes());
        add(&std::fs::read(file).with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(hash)
}

/// Lists the files of a folder, without build output and without files for people.
fn list(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        let other = name == "target"
            || name == "build"
            || bytes.starts_with(b".")
            || bytes.ends_with(b".md");
        if !other && !entry.file_type()?.is_symlink() {
            list(&entry.path(), files)?;
        }
    }
    Ok(())
}

/// Removes the other builds for the same kernel that are older than [`KEEP`].
fn forget_old(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > KEEP) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs a command without showing its output. The error has the output if the command fails or warns.
fn succeed(command: &mut Command, release: &str) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // The compiler, objtool and modpost warn on standard error.
    if output.status.success() && !said.contains("warning") {
        return Ok(());
    }
    bail!(
        "building the kernel module for {release}: {}\n{}{said}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    )
}
