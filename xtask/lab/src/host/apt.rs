//! apt with private lists, a private cache and a private list of sources, so that the machine's own stay unchanged.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::sources;
use crate::cache::{Cache, Lock};

/// Age above which package lists are fetched again before a lookup.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// A private apt that knows some suites of the machine's own Debian mirror.
pub struct Apt {
    dir: PathBuf,
    /// Architecture of the packages, if it is not this machine's.
    foreign: Option<&'static str>,
    _lock: Lock,
}

/// One binary package as the lists describe it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Debian version.
    pub version: String,
}

/// A setting of this machine's apt, if it has one.
pub fn setting(name: &str) -> Option<String> {
    let mut command = Command::new("apt-config");
    let output = command
        .args(["dump", "--no-empty", "--format", "%v%n", name])
        .output()
        .ok()?;
    let value = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

impl Apt {
    /// The apt for `suites`. Waits while another process uses it.
    pub fn open(cache: &Cache, name: &str, suites: &[&str]) -> Result<Self> {
        let dir = cache.dir(&format!("apt/{name}"))?;
        let lock = cache.lock(&format!("apt-{name}"))?;
        for folder in ["lists/partial", "cache/archives/partial", "empty"] {
            let folder = dir.join(folder);
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("making {}", folder.display()))?;
        }
        let source = sources::debian(Path::new("/etc/apt"), sources::CODENAME)?;
        let list = dir.join("debian.sources");
        let text = sources::render(&source, suites);
        if std::fs::read_to_string(&list).ok().as_ref() != Some(&text) {
            std::fs::write(&list, text).with_context(|| format!("writing {}", list.display()))?;
            // Lists of other suites or of another mirror do not count as fresh.
            let _ = std::fs::remove_file(dir.join("updated"));
        }
        Ok(Self {
            dir,
            foreign: None,
            _lock: lock,
        })
    }

    /// The apt for another architecture, with nothing installed. It needs lists of its own.
    pub fn of(self, architecture: &'static str) -> Result<Self> {
        let status = self.dir.join("empty/status");
        std::fs::write(&status, "").with_context(|| format!("writing {}", status.display()))?;
        Ok(Self {
            foreign: Some(architecture),
            ..self
        })
    }

    /// Fetches the package lists unless they are fresh.
    pub fn update(&self) -> Result<()> {
        let stamp = self.dir.join("updated");
        let age = stamp
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok();
        if age
            .and_then(|age| SystemTime::now().duration_since(age).ok())
            .is_some_and(|age| age < FRESH)
        {
            return Ok(());
        }
        eprintln!("xtask: fetching package lists from the configured Debian mirror");
        self.succeed(
            self.command("apt-get")
                .args(["-q", "update", "--error-on=any"]),
            "apt-get update",
        )?;
        std::fs::write(&stamp, "").with_context(|| format!("writing {}", stamp.display()))
    }

    /// All packages of one suite whose name passes the filter.
    pub fn packages(&self, suite: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<Package>> {
        let mut found = Vec::new();
        for file in self.index_files(suite)? {
            let mut reader = self.command("/usr/lib/apt/apt-helper");
            let output = reader
                .arg("cat-file")
                .arg(&file)
                .output()
                .context("running apt-helper")?;
            if !output.status.success() {
                bail!(
                    "apt-helper cannot read {file}: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
            }
            parse_packages(
                &String::from_utf8_lossy(&output.stdout),
                &wanted,
                &mut found,
            );
        }
        Ok(found)
    }

    /// Downloads packages, verified by apt, into `to`. Returns the files in the order of `packages`.
    pub fn download(&self, packages: &[Package], to: &Path) -> Result<Vec<PathBuf>> {
        for package in packages {
            eprintln!("xtask: downloading {} {}", package.name, package.version);
        }
        let mut command = self.command("apt-get");
        command.current_dir(to).args(["-q", "download"]);
        // apt would switch to its own user, who cannot enter this folder, and would warn about it.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command.args(
            packages
                .iter()
                .map(|package| format!("{}={}", package.name, package.version)),
        );
        self.succeed(&mut command, "apt-get download")?;
        let files = std::fs::read_dir(to)
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<Vec<_>, _>>()
            })
            .with_context(|| format!("reading {}", to.display()))?;
        let file_of = |package: &Package| {
            let prefix = format!("{}_", package.name);
            let is_it = |file: &&PathBuf| {
                file.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            };
            files
                .iter()
                .find(is_it)
                .cloned()
                .with_context(|| format!("apt-get download left no {prefix}*.deb"))
        };
        packages.iter().map(file_of).collect()
    }

    /// Downloads packages and all their dependencies into `to`, as for a machine without any packages. They come only
    /// from `suites`, which have to be among those of this apt, preferably from the last suite.
    pub fn download_closure(
        &self,
        packages: &[&str],
        suites: &[&str],
        to: &Path,
    ) -> Result<Vec<PathBuf>> {
        eprintln!(
            "xtask: downloading {} and what it needs",
            packages.first().unwrap_or(&"nothing")
        );
        for (file, what) in [
            ("status", "installed packages"),
            ("extended", "their states"),
        ] {
            std::fs::write(self.dir.join("empty").join(file), "")
                .with_context(|| format!("writing an empty list of {what}"))?;
        }
        let source = sources::debian(Path::new("/etc/apt"), sources::CODENAME)?;
        let list = self.dir.join("closure.sources");
        std::fs::write(&list, sources::render(&source, suites))
            .with_context(|| format!("writing {}", list.display()))?;
        let archives = to.join("archives");
        std::fs::create_dir_all(archives.join("partial"))
            .with_context(|| format!("making {}", archives.display()))?;
        let mut command = self.command("apt-get");
        let empty = self.dir.join("empty");
        for option in [
            format!("Dir::State::status={}", empty.join("status").display()),
            format!(
                "Dir::State::extended_states={}",
                empty.join("extended").display()
            ),
            format!("Dir::Cache::archives={}", archives.display()),
            // These caches hold the packages that are installed on this machine.
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            format!("Dir::Etc::sourcelist={}", list.display()),
            "APT::Sandbox::User=root".to_owned(),
            "APT::Keep-Downloaded-Packages=true".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.args(["-q", "-y", "--no-install-recommends", "--download-only"]);
        command.args(
            suites
                .last()
                .map(|suite| format!("--target-release={suite}")),
        );
        command.arg("install").args(packages);
        self.succeed(&mut command, "apt-get install --download-only")?;
        let entries = std::fs::read_dir(&archives)
            .with_context(|| format!("reading {}", archives.display()))?;
        let files = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(files
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect())
    }

    /// Installs packages on this machine, with their dependencies preferably from `suite`.
    pub fn install(&self, packages: &[&str], suite: Option<&str>) -> Result<()> {
        let mut command = self.command("apt-get");
        command.args(["-q", "-y", "--no-install-recommends"]);
        command.args(suite.map(|suite| format!("--target-release={suite}")));
        command.arg("install").args(packages);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        self.succeed(&mut command, "apt-get install")
    }

    fn index_files(&self, suite: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-get");
        command.args([
            "indextargets",
            "--format",
            "$(CODENAME) $(SUITE) $(FILENAME)",
            "Created-By: Packages",
        ]);
        let output = command.output().context("running apt-get indextargets")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let files: Vec<String> = text
            .lines()
            .filter_map(|line| {
                line.split_once(' ')
                    .and_then(|(codename, rest)| Some((codename, rest.split_once(' ')?)))
            })
            .filter(|(codename, (name, _))| *codename == suite || *name == suite)
            .map(|(_, (_, file))| file.to_owned())
            .collect();
        if files.is_empty() {
            bail!(
                "apt has no package list of {suite}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(files)
    }

    /// apt's own configuration applies (proxies, time outs …), except for paths.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = self.dir.display();
        for option in [
            format!("Dir::State={dir}"),
            format!("Dir::State::lists={dir}/lists"),
            // The machine's own apt keeps the record of installed packages and of those that are only dependencies.
            "Dir::State::status=/var/lib/dpkg/status".to_owned(),
            "Dir::State::extended_states=/var/lib/apt/extended_states".to_owned(),
            format!("Dir::Cache={dir}/cache"),
            "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".to_owned(),
            format!("Dir::Etc::sourcelist={dir}/debian.sources"),
            format!("Dir::Etc::sourceparts={dir}/empty"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        if let Some(architecture) = self.foreign {
            for option in [
                format!("APT::Architecture={architecture}"),
                format!("APT::Architectures={architecture}"),
                format!("Dir::State::status={dir}/empty/status"),
            ] {
                command.arg("-o").arg(option);
            }
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command quietly. If it fails, shows all its output.
    fn succeed(&self, command: &mut Command, what: &str) -> Result<()> {
        let output = command
            .output()
            .with_context(|| format!("running {what}"))?;
        if !output.status.success() {
            bail!(
                "{what}: {}\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

fn parse_packages(text: &str, wanted: impl Fn(&str) -> bool, found: &mut Vec<Package>) {
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        if let (Some(name), Some(version)) = (field("Package"), field("Version"))
            && wanted(name)
        {
            found.push(Package {
                name: name.to_owned(),
                version: version.to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_by_name() {
        let text = "Package: a\nDescription: Package: x\nVersion: 1\n\nPackage: b\nVersion: 2:2~1\nSize: 3\n\n";
        let mut found = Vec::new();
        parse_packages(text, |name| name == "b", &mut found);
        assert_eq!(
            found,
            [Package {
                name: "b".into(),
                version: "2:2~1".into()
            }]
        );
    }
}
