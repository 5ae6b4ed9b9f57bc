//! Folder with a kernel's headers and the compiler that fits them. During a build, the folder's `usr` replaces that of
//! the machine.
//!
//! Modules must be built with the compiler of the kernel, and the headers' host tools need the C library of their
//! suite. The headers and the compiler come from packages that are only unpacked. They refer to each other by absolute
//! paths under `/usr`. So one folder is mounted over the machine's `/usr`, in a mount namespace of the build alone.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::deb;
use crate::kernel::{Kernel, Store};

/// Programs that Kbuild calls, besides those that the headers depend on.
const TOOLS: [&str; 11] = [
    "bash",
    "binutils",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "gcc",
    "grep",
    "make",
    "mawk",
    "sed",
];

/// Headers and compiler of one kernel.
pub enum BuildRoot {
    /// A folder that replaces the machine's `/usr` during a build.
    Unpacked {
        /// Path of the folder.
        dir: PathBuf,
        /// The kernel's release.
        release: String,
    },
    /// Headers of a kernel that the machine's own compiler built.
    Here(PathBuf),
}

impl BuildRoot {
    /// Returns the build root of a kernel, and downloads it if necessary.
    pub fn of(cache: &Cache, kernel: &Kernel) -> Result<Self> {
        if let Some(headers) = &kernel.headers {
            return Ok(Self::Here(headers.clone()));
        }
        let release = kernel.release()?;
        let suite = kernel.suite.with_context(|| {
            format!(
                "the headers of {} are known for Debian's kernels only",
                kernel.name
            )
        })?;
        let _lock = cache.lock(&format!("headers-{release}"))?;
        let dir = cache.make_dir(&format!("headers/{release}"), |dir| {
            // One release only: packages of two releases of Debian do not fit together.
            let base = suite.trim_end_matches("-backports");
            let suites: Vec<&str> = if base == suite {
                vec![base]
            } else {
                vec![base, suite]
            };
            let apt = Store::new(cache).apt_of(suite)?;
            apt.update()?;
            let headers = format!("linux-headers-{release}");
            let packages: Vec<&str> = std::iter::once(headers.as_str()).chain(TOOLS).collect();
            let work = dir.join("debs");
            let files = apt.download_closure(&packages, &suites, &work)?;
            eprintln!("xtask: unpacking headers and compiler of {release}");
            for file in files {
                deb::unpack_at(&file, dir, |path| {
                    deb::merged(path).filter(|path| !path.starts_with("usr/share"))
                })?;
            }
            // Debian's alternatives are links that only an installation makes.
            let awk = dir.join("usr/bin/awk");
            let _ = std::fs::remove_file(&awk);
            std::os::unix::fs::symlink("mawk", &awk)
                .with_context(|| format!("making {}", awk.display()))?;
            std::fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
        })?;
        let root = Self::Unpacked {
            dir,
            release: release.to_owned(),
        };
        ensure!(
            root.headers().join("include/config/auto.conf").is_file(),
            "{} holds no headers",
            root.headers().display()
        );
        Ok(root)
    }

    /// Path of the headers, as the machine sees them.
    pub fn headers(&self) -> PathBuf {
        let inside = self.headers_inside();
        match self {
            Self::Unpacked { dir, .. } => dir.join(inside.trim_start_matches('/')),
            Self::Here(headers) => headers.clone(),
        }
    }

    /// Path of the headers, as a command of [`command`](Self::command) sees them.
    pub fn headers_inside(&self) -> String {
        match self {
            Self::Unpacked { release, .. } => format!("/usr/src/linux-headers-{release}"),
            Self::Here(headers) => headers.to_string_lossy().into_owned(),
        }
    }

    /// Returns a command that sees the unpacked folder's `usr` and otherwise the files of the machine.
    pub fn command(&self, program: &str) -> Command {
        let dir = match self {
            Self::Unpacked { dir, .. } => dir,
            Self::Here(_) => return Command::new(program),
        };
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command
            .args(["--mount", "--", "/bin/sh", "-eu", "-c"])
            .arg(r#"mount --bind "$1/usr" /usr; shift; exec "$@""#)
            .arg("sh")
            .arg(dir)
            .arg(program);
        command
    }
}
