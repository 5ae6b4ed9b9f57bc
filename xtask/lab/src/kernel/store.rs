//! Store of the kernels and of the other packages of guests.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::image::{Kernel, SUITES, only_entry};
use super::{peer, version};
use crate::arch::Arch;
use crate::cache::Cache;
use crate::deb;
use crate::host::apt::{Apt, Package};

/// Age above which the store looks for a newer kernel again.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// The suite of the oldest kernel. It has separate lists: if the mirror drops the suite, the other lists remain.
const OLD_SUITE: &str = "bullseye";

/// The suite of the coming release. It has separate lists, because they change every day.
const TESTING_SUITE: &str = "forky";

/// Flavour of the kernel that is installed in a guest if the kernel's name has no flavour.
const FLAVOUR: &str = "cloud-amd64";

/// Kernel series and the suite that has it.
const SERIES: [(&str, &str); 4] = [
    ("5.10", OLD_SUITE),
    ("6.1", "bookworm"),
    ("6.12", "bookworm-backports"),
    ("7.3", "trixie-backports"),
];

/// Name of the newest kernel of Debian testing, whatever its series.
const TESTING: &str = "testing";

/// Names of the known kernels, without [`TESTING`].
pub fn names() -> [&'static str; 4] {
    SERIES.map(|(series, _)| series)
}

/// A store of guest kernels and of other guest packages.
pub struct Store<'a> {
    cache: &'a Cache,
}

impl<'a> Store<'a> {
    /// A store in this cache.
    pub fn new(cache: &'a Cache) -> Self {
        Self { cache }
    }

    /// Finds a kernel by name (`6.1`, `6.12-amd64` …) or by the path of its bzImage, downloading it if needed.
    pub fn kernel(&self, name: &str) -> Result<Kernel> {
        if let Some((series, suite, flavour)) = known(name) {
            let name_of_record = format!("linux-{series}-{flavour}");
            let arch = Arch::of_kernel(name);
            let dir = self.packages_of(arch, suite, &name_of_record, |apt| {
                newest(apt, series, suite, flavour)
            })?;
            return in_packages(name, &dir, suite);
        }
        if peer::names().any(|built| built == name) {
            return peer::find(self.cache, name);
        }
        let path = Path::new(name);
        if path.is_file() {
            let image = path
                .canonicalize()
                .with_context(|| format!("finding {name}"))?;
            return Ok(Kernel {
                name: name.to_owned(),
                image,
                suite: None,
                ours: None,
                headers: None,
                modules: None,
            });
        }
        let names = names();
        bail!(
            "{name:?} is neither a kernel known by name ({}, {TESTING}; also with -amd64) nor a file",
            names.join(", ")
        )
    }

    /// The static busybox.
    pub fn busybox(&self, arch: Arch) -> Result<PathBuf> {
        let record = match arch {
            Arch::X86_64 => "busybox",
            Arch::Arm64 => "busybox-arm64",
        };
        let dir = self.packages_of(arch, "bookworm", record, |apt| {
            let found = apt.packages("bookworm", |name| name == "busybox-static")?;
            Ok(vec![
                version::newest(found).context("bookworm has no busybox-static")?,
            ])
        })?;
        first_existing(&dir, &["bin/busybox", "usr/bin/busybox"])
    }

    /// The folder with the unpacked source of the Rust library of this version (`1.91.0`).
    pub fn rust_source(&self, version: &str) -> Result<PathBuf> {
        self.packages(&format!("rust-src-{version}"), |apt| {
            let mut found = Vec::new();
            for suite in SUITES {
                found.extend(apt.packages(suite, |name| name == "rust-src")?);
            }
            // Debian's revision follows the upstream version: `+dfsg1-2`.
            found.retain(|package| {
                let rest = package.version.strip_prefix(version);
                rest.is_some_and(|rest| rest.starts_with(['+', '-']))
            });
            let newest = version::newest(found);
            Ok(vec![newest.with_context(|| {
                format!("Debian has no rust-src {version}")
            })?])
        })
    }

    /// trace-cmd with everything that it needs to run without an installed system: the loader and the libraries.
    pub fn trace_cmd(&self) -> Result<Vec<PathBuf>> {
        const PACKAGES: [&str; 6] = [
            "trace-cmd",
            "libtracecmd1",
            "libtracefs1",
            "libtraceevent1",
            "libzstd1",
            "libc6",
        ];
        let dir = self.packages("trace-cmd", |apt| {
            PACKAGES
                .iter()
                .map(|wanted| {
                    let found = apt.packages("bookworm", |name| name == *wanted)?;
                    version::newest(found).with_context(|| format!("bookworm has no {wanted}"))
                })
                .collect()
        })?;
        let libraries = [
            "ld-linux-x86-64.so.2",
            "libc.so.6",
            "libtraceevent.so.1",
            "libtracefs.so.1",
            "libtracecmd.so.1",
            "libzstd.so.1",
        ];
        let found = libraries.iter().map(|name| {
            let places = [
                "usr/lib/x86_64-linux-gnu",
                "lib/x86_64-linux-gnu",
                "lib64",
                "usr/lib64",
            ];
            let places: Vec<String> = places
                .iter()
                .map(|place| format!("{place}/{name}"))
                .collect();
            let places: Vec<&str> = places.iter().map(String::as_str).collect();
            first_existing(&dir, &places)
        });
        std::iter::once(first_existing(&dir, &["usr/bin/trace-cmd"]))
            .chain(found)
            .collect()
    }

    /// The folder with the unpacked packages that `find` returns.
    fn packages(&self, name: &str, find: impl Fn(&Apt) -> Result<Vec<Package>>) -> Result<PathBuf> {
        self.remembered(name, || self.fetch(self.apt()?, name, &find))
    }

    /// The folder with the unpacked packages that `find` returns, all from this suite.
    fn packages_of(
        &self,
        arch: Arch,
        suite: &str,
        name: &str,
        find: impl Fn(&Apt) -> Result<Vec<Package>>,
    ) -> Result<PathBuf> {
        self.remembered(name, || {
            let apt = match arch {
                Arch::X86_64 => self.apt_of(suite)?,
                Arch::Arm64 => Apt::open(self.cache, "guest-arm64", &SUITES)?.of(arch.debian())?,
            };
            self.fetch(apt, name, &find)
        })
    }

    /// The folder of the cache that `make` names and fills. The store remembers the name for some days, and longer if
    /// `make` fails, for example because the mirror cannot be reached.
    pub fn remembered(&self, name: &str, make: impl Fn() -> Result<String>) -> Result<PathBuf> {
        let _lock = self.cache.lock(name)?;
        let record = self.cache.dir("found")?.join(format!("{name}.json"));
        let known: Option<Found> = std::fs::read(&record)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let known = known.filter(|found| self.cache.path(&found.folder).is_dir());
        if let Some(found) = &known
            && found.is_fresh(&record)
        {
            return Ok(self.cache.path(&found.folder));
        }
        match make() {
            Ok(folder) => {
                let found = Found { folder };
                let beside = record.with_extension("partial");
                std::fs::write(&beside, serde_json::to_vec(&found)?)?;
                std::fs::rename(&beside, &record)
                    .with_context(|| format!("writing {}", record.display()))?;
                Ok(self.cache.path(&found.folder))
            }
            Err(error) => match known {
                Some(found) => {
                    eprintln!(
                        "xtask: {name}: using what was downloaded before, because: {error:#}"
                    );
                    Ok(self.cache.path(&found.folder))
                }
                None => Err(error).with_context(|| format!("getting {name}")),
            },
        }
    }

    /// apt with the lists of all suites of guest packages.
    pub fn apt(&self) -> Result<Apt> {
        Apt::open(self.cache, "guest", &SUITES)
    }

    /// apt with lists that include this suite.
    pub fn apt_of(&self, suite: &str) -> Result<Apt> {
        match suite {
            OLD_SUITE => Apt::open(self.cache, "guest-old", &[OLD_SUITE]),
            TESTING_SUITE => Apt::open(self.cache, "guest-testing", &[TESTING_SUITE]),
            _ => self.apt(),
        }
    }

    fn fetch(
        &self,
        apt: Apt,
        name: &str,
        find: impl Fn(&Apt) -> Result<Vec<Package>>,
    ) -> Result<String> {
        apt.update()?;
        let packages = find(&apt)?;
        let first = packages.first().context("no package was found")?;
        let folder = format!("unpacked/{name}_{}", first.version.replace([':', '/'], "_"));
        self.cache.make_dir(&folder, |dir| {
            let debs = dir.join("debs");
            std::fs::create_dir(&debs)?;
            for file in apt.download(&packages, &debs)? {
                deb::unpack(&file, dir, |path| !path.starts_with("usr/share"))?;
            }
            std::fs::remove_dir_all(&debs).with_context(|| format!("removing {}", debs.display()))
        })?;
        Ok(folder)
    }
}

/// Record of the folder into which the packages of one name were unpacked. The age of the record is the age of the
/// knowledge.
#[derive(Serialize, Deserialize)]
struct Found {
    folder: String,
}

impl Found {
    fn is_fresh(&self, record: &Path) -> bool {
        let modified = record
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok();
        modified
            .and_then(|time| SystemTime::now().duration_since(time).ok())
            .is_some_and(|age| age < FRESH)
    }
}

/// Series, suite and flavour for a name.
fn known(name: &str) -> Option<(&'static str, &'static str, &str)> {
    let (wanted, flavour) = name.split_once('-').unwrap_or((name, FLAVOUR));
    let mut all = SERIES.iter().chain(&[(TESTING, TESTING_SUITE)]);
    let &(series, suite) = all.find(|(series, _)| *series == wanted)?;
    let known = match flavour {
        "cloud-amd64" | "amd64" => true,
        // The apt of arm64 has lists of these suites only.
        "cloud-arm64" | "arm64" => SUITES.contains(&suite),
        _ => false,
    };
    known.then_some((series, suite, flavour))
}

/// The newest image package of a series, and its parts.
fn newest(apt: &Apt, series: &str, suite: &str, flavour: &str) -> Result<Vec<Package>> {
    let is_of_series = |release: &str| {
        let number = match series {
            TESTING => release.split_once('.').map(|(_, rest)| rest),
            _ => release
                .strip_prefix(series)
                .and_then(|rest| rest.strip_prefix('.')),
        };
        number.is_some_and(|rest| {
            let number = rest.trim_end_matches(flavour);
            // `6.12.3+deb12-rt-amd64` is another flavour; so is `-cloud-amd64` if plain amd64 is wanted.
            rest.ends_with(flavour)
                && number.ends_with('-')
                && !number.contains("-rt-")
                && !number.contains("-cloud-")
        })
    };
    let release_of = |name: &str, part: &str| -> Option<String> {
        Some(
            name.strip_prefix("linux-")?
                .strip_prefix(part)?
                .strip_prefix('-')?
                .to_owned(),
        )
    };
    let all = apt.packages(suite, |name| name.starts_with("linux-"))?;
    let images = all
        .iter()
        .filter(|package| release_of(&package.name, "image").is_some_and(|of| is_of_series(&of)));
    let image = version::newest(images.cloned().collect())
        .with_context(|| format!("{suite} has no linux-image-{series}.*-{flavour}"))?;
    let release = release_of(&image.name, "image").unwrap_or_default();
    // Since 7.x the image package only depends on its parts.
    let is_part = |package: &&Package| {
        package.version == image.version
            && ["binary", "modules", "base"]
                .iter()
                .any(|part| release_of(&package.name, part).as_ref() == Some(&release))
    };
    let parts = all.iter().filter(is_part).cloned();
    Ok(std::iter::once(image.clone()).chain(parts).collect())
}

/// The kernel in a folder of unpacked packages, in any of their layouts.
fn in_packages(name: &str, dir: &Path, suite: &'static str) -> Result<Kernel> {
    let modules = first_existing(dir, &["lib/modules", "usr/lib/modules"])?;
    let modules = only_entry(&modules, "")?;
    let image = modules.join("vmlinuz");
    let image = if image.is_file() {
        image
    } else {
        only_entry(&dir.join("boot"), "vmlinuz-")?
    };
    Ok(Kernel {
        name: name.to_owned(),
        image,
        suite: Some(suite),
        ours: None,
        headers: None,
        modules: Some(modules),
    })
}

fn first_existing(dir: &Path, names: &[&str]) -> Result<PathBuf> {
    names
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.exists())
        .with_context(|| format!("{} holds none of {}", dir.display(), names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(known("6.1"), Some(("6.1", "bookworm", "cloud-amd64")));
        assert_eq!(
            known("6.12-amd64"),
            Some(("6.12", "bookworm-backports", "amd64"))
        );
        assert_eq!(
            known("6.1-cloud-arm64"),
            Some(("6.1", "bookworm", "cloud-arm64"))
        );
        assert_eq!(known("5.10-cloud-arm64"), None);
        assert_eq!(known("6.1-armmp"), None);
        assert_eq!(known("5.10"), Some(("5.10", "bullseye", "cloud-amd64")));
        assert_eq!(known("5.1"), None);
        assert_eq!(known("testing-amd64"), Some(("testing", "forky", "amd64")));
    }
}
