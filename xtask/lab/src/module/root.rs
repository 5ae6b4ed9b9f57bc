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
pub struct BuildRoot {
    dir: PathBuf,
    release: String,
}

impl BuildRoot {
    /// Returns the build root of a kernel, and downloads it if necessary.
    pub fn of(cache: &Cache, kernel: &Kernel) -> Result<Self> {
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
        let root = Self {
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
        self.dir.join(self.headers_inside().trim_start_matches('/'))
    }

    /// Path of the headers, as a command of [`command`](Self::command) sees them.
    pub fn headers_inside(&self) -> String {
        format!("/usr/src/linux-headers-{}", self.release)
    }

    /// Returns a command that sees this folder's `usr` and otherwise the files of the machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command
            .args(["--mount", "--", "/bin/sh", "-eu", "-c"])
            .arg(r#"mount --bind "$1/usr" /usr; shift; exec "$@""#)
            .arg("sh")
            .arg(&self.dir)
            .arg(program);
        command
    }
}
