//! The workspace and the programs built from it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::command::{succeed, succeed_shown};

/// Target of the programs for guests. Guests have no C library, so these programs are linked statically.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// C compiler that links programs for arm64.
pub const ARM64_LINKER: &str = "aarch64-linux-gnu-gcc";
/// Compiler flags for that target, which link statically.
pub const STATIC: &str = "-C target-feature=+crt-static";

/// Programs for guests.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The `kho` command.
    pub kho: PathBuf,
    /// PID 1 and script helpers.
    pub guest: PathBuf,
}

/// Folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("."))
}

/// cargo: the one that started this program, if any.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Returns the folder to which cargo writes all its output.
pub fn target_dir() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version=1"])
        .output()
        .context("running cargo metadata")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "cargo metadata says {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )
        })?;
    let dir = metadata
        .get("target_directory")
        .and_then(serde_json::Value::as_str);
    Ok(dir
        .context("cargo metadata names no target directory")?
        .into())
}

/// The compiler's description of itself.
pub struct Rustc {
    /// Output of `rustc -vV`.
    pub verbose: String,
    /// Version, as `1.95.0`.
    pub version: String,
    /// Folder in which the compiler is installed.
    pub sysroot: PathBuf,
}

impl Rustc {
    /// Asks the compiler in `PATH`.
    pub fn ask() -> Result<Self> {
        let ask = |arguments: &[&str]| -> Result<String> {
            let output = Command::new("rustc")
                .args(arguments)
                .output()
                .context("running rustc")?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let verbose = ask(&["-vV"])?;
        let version = field(&verbose, "release")
            .context("rustc -vV names no release")?
            .to_owned();
        Ok(Self {
            verbose,
            version,
            sysroot: ask(&["--print", "sysroot"])?.into(),
        })
    }

    /// The commit from which the compiler was built.
    fn commit(&self) -> &str {
        field(&self.verbose, "commit-hash").unwrap_or("unknown")
    }
}

/// Value of a line `NAME: VALUE`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Flags that keep paths of this machine out of the binaries, so that the same sources give the same bytes on every
/// machine. The paths are those of the checkout, of cargo's registry, and of the Rust library's source, whose name
/// depends on whether rust-src is installed.
fn remaps() -> Result<String> {
    let rustc = Rustc::ask()?;
    let commit = rustc.commit();
    let library = rustc.sysroot.join("lib/rustlib/src/rust");
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let mut places = vec![(root().to_owned(), "/kho".to_owned())];
    places.extend(cargo_home.map(|home| (home, "/cargo".to_owned())));
    let name = format!("/rustc/{commit}");
    places.extend(library.canonicalize().ok().map(|real| (real, name.clone())));
    places.push((library, name));
    // RUSTFLAGS is split at blanks, so a path with a blank stays as it is.
    let flags = places
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .filter(|flag| !flag.contains(char::is_whitespace));
    Ok(flags.collect::<Vec<_>>().join(" "))
}

/// Builds the `kho` command of the next contract, which writes and reads data that no other `kho` command knows.
/// Returns its path.
pub fn build_next() -> Result<PathBuf> {
    eprintln!("xtask: building the kho command of the next contract for guests");
    // The usual packages, so that their dependencies keep the usual features and cargo rebuilds only the command.
    let packages = ["kho-guest", "kho-cli"];
    let only = ["--bin", "kho", "--features", "kho-cli/next-contract"];
    let release = build_static(Arch::X86_64, &packages, &only)?;
    let next = release.join("kho-next");
    std::fs::copy(release.join("kho"), &next)
        .with_context(|| format!("making {}", next.display()))?;
    // Cargo puts both commands in one place, so build the usual one again for later users of that place.
    build_static(Arch::X86_64, &packages, &["--bin", "kho"])?;
    Ok(next)
}

/// Builds packages for guests. Returns the folder with the programs.
fn build_static(arch: Arch, packages: &[&str], options: &[&str]) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--target", arch.target()]);
    if arch == Arch::Arm64 {
        add_library(arch)?;
        command.env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            ARM64_LINKER,
        );
    }
    command.args(packages.iter().flat_map(|package| ["-p", package]));
    command.args(options);
    // With an explicit target these flags affect neither build scripts nor ordinary builds.
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags = format!("{flags} {STATIC} {}", remaps()?);
    command.env("RUSTFLAGS", flags.trim());
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    succeed_shown(&mut command).context("building the guests' programs")?;
    Ok(target_dir()?.join(arch.target()).join("release"))
}

/// Adds Rust's library for an architecture to the toolchain, if the toolchain lacks it.
fn add_library(arch: Arch) -> Result<()> {
    let library = Rustc::ask()?
        .sysroot
        .join("lib/rustlib")
        .join(arch.target());
    if library.join("lib").is_dir() {
        return Ok(());
    }
    eprintln!("xtask: adding Rust's library for {}", arch.target());
    succeed(Command::new("rustup").args(["target", "add", arch.target()]))
}

/// Builds the programs of guests. If `kho` is given, that file is the `kho` command and no command is built.
pub fn build(arch: Arch, kho: Option<&Path>) -> Result<Programs> {
    let mut packages = vec!["kho-guest"];
    if kho.is_none() {
        packages.push("kho-cli");
    }
    eprintln!(
        "xtask: building {} for {} guests",
        packages.join(" and "),
        arch.debian()
    );
    let release = build_static(arch, &packages, &[])?;
    let kho = match kho {
        Some(kho) => kho
            .canonicalize()
            .with_context(|| format!("finding {}", kho.display()))?,
        None => release.join("kho"),
    };
    Ok(Programs {
        kho,
        guest: release.join("kho-guest"),
    })
}
