//! Number of early reservations that a plan may have.

use super::arch::{EARLY_RANGES, Scale, early_ranges, small_table};
use crate::args;
use crate::exit::{Fail, Status};
use kho_kexec::carrier::KernelConfig;
use kho_kexec::sys::facts::host::release_version;
use kho_kexec::sys::root::{LISTING_LIMIT, Root};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Number of early reservations, with advice for a plan that needs more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Early {
    /// Largest number of early reservations, chain and tree included.
    pub cap: usize,
    /// Advice for the user if the number is too small.
    pub fix: String,
}

/// Returns the configuration file of a kernel, from the places where distributions and `kho load --arm` put it.
pub fn config_file(kernel: &Path, release: &str, root: &Root) -> Option<PathBuf> {
    // The release comes from the kernel's file and becomes part of a path.
    if release.contains('/') {
        return None;
    }
    let name = format!("config-{release}");
    let kernel = kernel.canonicalize().unwrap_or_else(|_| kernel.to_owned());
    let paths = [
        kernel.with_file_name(&name),
        root.path(&format!("boot/{name}")),
        root.path(&format!("lib/modules/{release}/config")),
    ];
    paths.into_iter().find(|path| path.is_file())
}

/// Returns the configuration of a kernel; `None` if it is not found.
pub fn config(kernel: &Path, release: Option<&str>, root: &Root) -> Option<KernelConfig> {
    let release = release?;
    let text = match config_file(kernel, release, root) {
        Some(path) => read(File::open(path).ok()?)?,
        // The running kernel shows its own (CONFIG_IKCONFIG_PROC).
        None if root.attribute("proc/sys/kernel/osrelease").ok()? == release => {
            let file = File::open(root.path("proc/config.gz")).ok()?;
            read(flate2::read::GzDecoder::new(file))?
        }
        None => return None,
    };
    Some(KernelConfig::parse(&text))
}

fn read(from: impl Read) -> Option<String> {
    let mut text = Vec::new();
    from.take(LISTING_LIMIT).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Decides the number of early reservations: the number that a kernel of this release accepts on a machine of this
/// `scale`, or a smaller number from the arguments.
///
/// # Errors
///
/// [`Status::Usage`] if the arguments ask for more than any known kernel accepts, or for fewer than a plan needs.
/// [`Status::TooManyRanges`] if this kernel accepts fewer than a plan needs.
pub fn decide(
    args: &args::Next,
    release: Option<&str>,
    config: Option<KernelConfig>,
    scale: Scale,
) -> Result<Early, Fail> {
    let takes = early_ranges(release.and_then(release_version), config, scale);
    let asked = args.max_ranges.unwrap_or(EARLY_RANGES);
    if !(2..=EARLY_RANGES).contains(&asked) {
        return Err(Fail::new(
            Status::Usage,
            format!("--max-ranges {asked} is not between 2 and {EARLY_RANGES}"),
        )
        .fix("more than that is not known to boot"));
    }
    let name = release.unwrap_or("the next kernel");
    let fix = match config {
        _ if takes == EARLY_RANGES => "keep less, or fewer and larger pieces".to_owned(),
        None => format!(
            "the configuration of {name} is not known, so kho assumes that it takes few early ranges: put config-{} beside the kernel or into /boot",
            release.unwrap_or("RELEASE")
        ),
        Some(_) => small_table(name, scale),
    };
    if takes < 2 {
        return Err(Fail::new(
            Status::TooManyRanges,
            format!("{name} has no room for early reservations on this machine"),
        )
        .fix(fix));
    }
    Ok(Early {
        cap: asked.min(takes),
        fix,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "6.12.95+deb12-amd64";

    fn next(max_ranges: Option<usize>) -> args::Next {
        args::Next {
            max_ranges,
            ..args::Next::of_kernel("/boot/vmlinuz")
        }
    }

    #[test]
    fn the_number_comes_from_the_configuration_and_the_map() {
        let numa = Some(KernelConfig::parse("CONFIG_NUMA=y\nCONFIG_NODES_SHIFT=6\n"));
        let scale = |map_entries| Scale {
            map_entries,
            cpus: 1,
        };
        let decide = |max, config, map| decide(&next(max), Some(RELEASE), config, scale(map));
        assert_eq!(decide(None, numa, 12).unwrap().cap, EARLY_RANGES);
        assert_eq!(decide(Some(7), numa, 12).unwrap().cap, 7);
        let long = decide(None, numa, 200).unwrap();
        assert_eq!(long.cap, 38);
        assert!(long.fix.contains("200 entries"), "{}", long.fix);
        let unknown = decide(None, None, 12).unwrap();
        assert_eq!(unknown.cap, 38);
        assert!(
            unknown.fix.contains(&format!("config-{RELEASE}")),
            "{}",
            unknown.fix
        );
        // The arguments may ask for more than this kernel accepts: both numbers are upper bounds.
        assert_eq!(decide(Some(90), None, 12).unwrap().cap, 38);
        let none = decide(None, None, 200).unwrap_err();
        assert_eq!(none.status, Status::TooManyRanges);
        for wrong in [0, 1, EARLY_RANGES + 1] {
            assert_eq!(
                decide(Some(wrong), numa, 12).unwrap_err().status,
                Status::Usage
            );
        }
    }

    #[test]
    fn the_configuration_is_where_distributions_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let kernel = dir.path().join("kernel");
        let put = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "CONFIG_NUMA=y\nCONFIG_NODES_SHIFT=6\n").unwrap();
            path
        };
        assert_eq!(config(&kernel, Some(RELEASE), &root), None);
        put("proc/config.gz");
        std::fs::create_dir_all(dir.path().join("proc/sys/kernel")).unwrap();
        let file = File::create(dir.path().join("proc/config.gz")).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, b"CONFIG_KEXEC_HANDOVER=y\n").unwrap();
        packed.finish().unwrap();
        for (running, native) in [
            ("6.1.0", None),
            (RELEASE, Some(kho_kexec::carrier::NativeKho::OnDemand)),
        ] {
            std::fs::write(dir.path().join("proc/sys/kernel/osrelease"), running).unwrap();
            let found = config(&kernel, Some(RELEASE), &root);
            assert_eq!(found.map(|config| config.native_kho()), native);
        }
        for path in [
            format!("lib/modules/{RELEASE}/config"),
            format!("boot/config-{RELEASE}"),
            format!("config-{RELEASE}"),
        ] {
            let path = put(&path);
            assert_eq!(config_file(&kernel, RELEASE, &root), Some(path));
        }
        assert!(config(&kernel, Some(RELEASE), &root).is_some());
        assert_eq!(config(&kernel, Some("../x"), &root), None);
        assert_eq!(config(&kernel, None, &root), None);
    }
}
