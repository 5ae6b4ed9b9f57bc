//! Programs of other projects that guests run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::command::succeed;
use crate::deb;
use crate::kernel::{Store, version};
use crate::workspace;

/// A program, or a few programs of one project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// The POSIX file system suite, as rewritten in Rust.
    Pjdfstest,
    /// The file system exerciser, as rewritten in Rust.
    Fsx,
    /// fio.
    Fio,
    /// getfacl(1) and setfacl(1).
    Acl,
    /// mount(8) that makes idmapped mounts.
    Mount,
    /// The shell of SQLite.
    Sqlite,
    /// QEMU for x86, with its firmware.
    Qemu,
}

impl Foreign {
    /// A folder with a `usr` that can be merged with those of others; made if it does not exist.
    pub fn folder(self, cache: &Cache) -> Result<PathBuf> {
        match self {
            Self::Pjdfstest => from_crate(cache, "pjdfstest", "0.2.2"),
            Self::Fsx => from_crate(cache, "fsx", "0.3.2"),
            Self::Fio => from_debian(cache, "fio", &["bookworm"]),
            Self::Acl => from_debian(cache, "acl", &["trixie"]),
            Self::Mount => from_debian(cache, "mount", &["trixie"]),
            Self::Sqlite => from_debian(cache, "sqlite3", &["bookworm"]),
            Self::Qemu => from_debian(
                cache,
                "qemu-system-x86",
                &["bookworm", "bookworm-backports"],
            ),
        }
    }
}

/// The programs of a crate, linked statically.
fn from_crate(cache: &Cache, name: &str, version: &str) -> Result<PathBuf> {
    let _lock = cache.lock(&format!("program-{name}"))?;
    cache.make_dir(&format!("programs/{name}-{version}"), |dir| {
        eprintln!("xtask: building {name} {version} for guests");
        let build = dir.join("build");
        let mut command = workspace::cargo();
        command
            .args(["install", "--quiet", "--locked", "--no-track", name])
            .args(["--version", version, "--target", workspace::TARGET])
            .arg("--root")
            .arg(dir.join("usr"))
            .arg("--target-dir")
            .arg(&build)
            .env("RUSTFLAGS", workspace::STATIC)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            // These programs do not need optimization, which takes long.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        succeed(&mut command)?;
        std::fs::remove_dir_all(&build).with_context(|| format!("removing {}", build.display()))
    })
}

/// A Debian package and its dependencies, without files that only people or other programs read. If several suites have
/// a package, the last suite counts.
fn from_debian(cache: &Cache, name: &str, suites: &[&str]) -> Result<PathBuf> {
    let store = Store::new(cache);
    store.remembered(&format!("program-{name}"), || {
        let apt = store.apt()?;
        apt.update()?;
        let suite = suites.last().copied().unwrap_or_default();
        let newest = version::newest(apt.packages(suite, |found| found == name)?)
            .with_context(|| format!("{suite} has no {name}"))?;
        let folder = format!(
            "programs/{name}_{}",
            newest.version.replace([':', '/'], "_")
        );
        cache.make_dir(&folder, |dir| {
            let work = dir.join("debs");
            for file in apt.download_closure(&[name], suites, &work)? {
                deb::unpack_at(&file, dir, place)?;
            }
            std::fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
        })?;
        Ok(folder)
    })
}

fn place(path: &Path) -> Option<PathBuf> {
    const NOT: [&str; 6] = [
        "usr/lib/python3",
        "usr/lib/python3.11",
        "usr/lib/systemd",
        "usr/lib/x86_64-linux-gnu/gconv",
        "usr/lib/x86_64-linux-gnu/perl-base",
        "usr/lib/x86_64-linux-gnu/dri",
    ];
    const DATA: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/share/vgabios"];
    let path = deb::merged(path)?;
    let data = !path.starts_with("usr/share") || DATA.iter().any(|name| path.starts_with(name));
    (data && !NOT.iter().any(|name| path.starts_with(name))).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_and_libraries_and_no_documentation() {
        let place = |path: &str| place(Path::new(path));
        assert_eq!(place("lib64/ld.so"), Some("usr/lib64/ld.so".into()));
        assert_eq!(
            place("usr/share/seabios/bios.bin"),
            Some("usr/share/seabios/bios.bin".into())
        );
        assert_eq!(place("usr/share/doc/fio/README"), None);
        assert_eq!(place("etc/x"), None);
    }
}
