//! The Debian packages: their contents, and a check that they install. Manuals and completions come from the definition
//! of the command line.

mod copyright;
mod deb;
mod dkms;
pub mod installed;
pub mod pages;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use kho_lab::cache::Cache;
use kho_lab::{host, workspace};

use deb::{Body, Package};
use dkms::VERSION;

/// Crates that are published. Each comes after the crates that it needs.
pub const PUBLISHED: [&str; 2] = ["kho", "kho-kexec"];

/// Program that the check needs, in lintian's package.
const LINTIAN: [host::Need; 1] = [host::Need::program("lintian", "lintian")];

/// Runs lintian on packages; every finding is an error.
pub fn lintian(cache: &Cache, files: &[PathBuf]) -> Result<()> {
    host::require(cache, "check packages", &LINTIAN)?;
    let status = Command::new("lintian")
        .args([
            "--no-cfg",
            "--allow-root",
            "--info",
            "--fail-on=error,warning",
        ])
        .args(files)
        .status()
        .context("running lintian")?;
    ensure!(status.success(), "lintian found something: {status}");
    Ok(())
}

/// Makes the packages and returns their paths.
pub fn make(program: &Path, out: &Path) -> Result<[PathBuf; 2]> {
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    eprintln!("xtask: making the Debian packages");
    Ok([write_kho(program, out)?, write_dkms(out)?])
}

/// A version that guests upgrade to.
const LATER: &str = concat!(env!("CARGO_PKG_VERSION"), "+later");

/// Writes the package of the tool and returns its path.
fn write_kho(program: &Path, out: &Path) -> Result<PathBuf> {
    write(&kho(program, VERSION, time()?)?, "kho", VERSION, out)
}

fn write(package: &Package, name: &str, version: &str, out: &Path) -> Result<PathBuf> {
    let file = out.join(format!("{name}_{version}_amd64.deb"));
    // The file appears as a whole or not at all, because another run may be reading it.
    let beside = file.with_extension(format!("deb.{}", std::process::id()));
    std::fs::write(&beside, package.write()?)
        .and_then(|()| std::fs::rename(&beside, &file))
        .with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// The packages for full systems in guests, and a later version of the tool's, whose configuration differs.
pub fn for_guests(program: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    eprintln!("xtask: making the Debian packages for guests");
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let mut later = kho(program, LATER, time()?)?;
    for path in CONFFILES {
        let Some(Body::File(text)) = later
            .files
            .get_mut(Path::new(path))
            .map(|entry| &mut entry.body)
        else {
            bail!("{path} is not in the package");
        };
        text.extend_from_slice(b"# A line of the later version.\n");
    }
    let sources = dkms::sources(true)?;
    Ok(vec![
        write_kho(program, out)?,
        write(&later, "kho", LATER, out)?,
        write(&dkms(VERSION, time()?, &sources)?, "kho-dkms", VERSION, out)?,
        write(&dkms(LATER, time()?, &sources)?, "kho-dkms", LATER, out)?,
    ])
}

/// Units of systemd in the package.
const UNITS: [&str; 2] = ["kho-restore.service", "kho-capture.service"];

/// Files of the package that belong to the administrator.
const CONFFILES: [&str; 1] = ["etc/default/kho"];

/// Writes the package of the module and returns its path.
fn write_dkms(out: &Path) -> Result<PathBuf> {
    let package = dkms(VERSION, time()?, &dkms::sources(false)?)?;
    write(&package, "kho-dkms", VERSION, out)
}

fn dkms(version: &str, time: u64, sources: &dkms::Sources) -> Result<Package> {
    let mut package = start("kho-dkms", version, time)?;
    dkms::add(&mut package, version, sources);
    for name in [
        "kho_ring.c",
        "kho_test.c",
        "outside/Kbuild",
        "outside/dkms.conf",
    ] {
        let path = workspace::root().join("module/samples").join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        package.file(
            format!("usr/share/doc/kho-dkms/examples/{name}"),
            0o644,
            text,
        );
    }
    package.gzip(
        "usr/share/doc/kho-dkms/README.md",
        &std::fs::read(workspace::root().join("module/README.md"))
            .context("reading the module's README")?,
    )?;
    Ok(package)
}

/// Starts a package with the parts that every package has: the fields, the documents that policy wants, the scripts.
fn start(name: &str, version: &str, time: u64) -> Result<Package> {
    let control = packaging(&format!("debian/{name}/control"))?;
    let mut fields = vec![];
    for (name, default) in [
        ("Package", name),
        ("Version", version),
        ("Architecture", "amd64"),
    ] {
        fields.push((name, default.to_owned()));
    }
    for name in [
        "Maintainer",
        "Section",
        "Priority",
        "Depends",
        "Recommends",
        "Suggests",
        "Homepage",
        "Description",
    ] {
        if let Some(value) = field(&control, name) {
            fields.push((name, value));
        }
    }
    let mut package = Package::new(fields, time);
    let doc = format!("usr/share/doc/{name}");
    package.file(format!("{doc}/copyright"), 0o644, copyright::of(name)?);
    let changelog = packaging("debian/changelog")?;
    ensure!(
        changelog.starts_with(&format!("kho ({VERSION}) ")),
        "packaging/debian/changelog does not begin with version {VERSION}"
    );
    package.gzip(&format!("{doc}/changelog"), changelog.as_bytes())?;
    package.file(
        format!("usr/share/lintian/overrides/{name}"),
        0o644,
        packaging(&format!("debian/{name}/lintian-overrides"))?,
    );
    for script in ["postinst", "prerm", "postrm"] {
        let path = format!("debian/{name}/{script}");
        if workspace::root().join("packaging").join(&path).exists() {
            let text = packaging(&path)?.replace("@VERSION@", version);
            package.scripts.insert(script, text);
        }
    }
    Ok(package)
}

fn kho(program: &Path, version: &str, time: u64) -> Result<Package> {
    let mut package = start("kho", version, time)?;
    package.file("usr/bin/kho", 0o755, stripped(program)?);
    for unit in UNITS {
        let text = packaging(&format!("systemd/{unit}"))?;
        package.file(format!("usr/lib/systemd/system/{unit}"), 0o644, text);
    }
    package.file(
        "usr/lib/systemd/system-shutdown/kho",
        0o755,
        packaging("systemd/kho.shutdown")?,
    );
    package.file(
        "usr/lib/systemd/system/kdump-tools.service.d/kho.conf",
        0o644,
        packaging("systemd/kdump-tools.conf")?,
    );
    for (path, source) in [
        (
            "usr/share/initramfs-tools/hooks/kho",
            "initramfs-tools/hook",
        ),
        (
            "usr/share/initramfs-tools/scripts/init-top/kho",
            "initramfs-tools/script",
        ),
        (
            "usr/lib/dracut/modules.d/50kho/module-setup.sh",
            "dracut/module-setup.sh",
        ),
        ("usr/lib/dracut/modules.d/50kho/carry.sh", "dracut/carry.sh"),
    ] {
        package.file(path, 0o755, packaging(source)?);
    }
    // An opt-in: linked as /usr/local/sbin/kexec, or as the target of a diversion, it replaces kexec(8).
    for path in CONFFILES {
        let name = path.trim_start_matches("etc/");
        package.file(path, 0o644, packaging(name)?);
    }
    let conffiles = CONFFILES.map(|path| format!("/{path}\n")).concat();
    package.scripts.insert("conffiles", conffiles);
    package.link("usr/lib/kho/kexec", "../../bin/kho");
    package.link(
        "usr/lib/systemd/system-generators/kho-generator",
        "../../../bin/kho",
    );
    package.directory("etc/kho/keep.d");
    package.directory("usr/lib/kho/keep.d");
    package.file(
        "usr/share/doc/kho/examples/keep.d/example.conf",
        0o644,
        packaging("keep.d/example.conf")?,
    );
    for page in ["keep.d.5", "khofs.5"] {
        package.gzip(
            &format!("usr/share/man/man5/{page}"),
            packaging(&format!("man/{page}"))?.as_bytes(),
        )?;
    }
    pages::add(&mut package)?;
    Ok(package)
}

/// A program without its symbols, as policy wants it.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let copy = workspace::target_dir()?.join(format!("kho-stripped-{}", std::process::id()));
    let status = Command::new("strip")
        .args(["--strip-all", "--remove-section=.comment", "-o"])
        .arg(&copy)
        .arg(program)
        .status()
        .context("running strip")?;
    ensure!(status.success(), "strip: {status}");
    let bytes = std::fs::read(&copy).with_context(|| format!("reading {}", copy.display()))?;
    std::fs::remove_file(&copy).with_context(|| format!("removing {}", copy.display()))?;
    Ok(bytes)
}

fn packaging(name: &str) -> Result<String> {
    let path = workspace::root().join("packaging").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The value of a field, with the lines that continue it.
fn field(text: &str, name: &str) -> Option<String> {
    let mut lines = text
        .lines()
        .skip_while(|line| !line.starts_with(&format!("{name}: ")));
    let mut value = lines.next()?[name.len() + 2..].to_owned();
    for line in lines.take_while(|line| line.starts_with(' ')) {
        value.push('\n');
        value.push_str(line);
    }
    Some(value)
}

/// SOURCE_DATE_EPOCH, or the time of the last commit.
pub fn time() -> Result<u64> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        return text.parse().context("SOURCE_DATE_EPOCH is no number");
    }
    let output = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(workspace::root())
        .output()
        .context("running git; without it, set SOURCE_DATE_EPOCH")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .context("git names no time of the last commit; set SOURCE_DATE_EPOCH")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// dkms compares the release with the pattern by bash's `=~`.
    #[test]
    fn dkms_builds_for_the_kernels_that_the_modules_know() {
        let conf = workspace::root().join("module/dkms.conf");
        let builds = |release: &str| {
            let script = "kernel_source_dir= dkms_tree= kernelver= arch=; . \"$1\" && [[ $2 =~ $BUILD_EXCLUSIVE_KERNEL ]]";
            let mut bash = Command::new("bash");
            bash.args(["-c", script, "bash"]).arg(&conf).arg(release);
            bash.status().unwrap().success()
        };
        for release in [
            "6.1.0-50-cloud-amd64",
            "6.12.95+deb12-amd64",
            "7.0.0-14-generic",
            "7.2.12-cloud-amd64",
            "7.3.4+deb13-cloud-amd64",
            "7.3-rc7",
            "6.18",
        ] {
            assert!(builds(release), "{release}");
        }
        for release in [
            "5.10.0-30-amd64",
            "6.0.1",
            "7.4.0-1-amd64",
            "7.30.1",
            "8.0.0",
            "16.1.0",
        ] {
            assert!(!builds(release), "{release}");
        }
    }

    #[test]
    fn units_have_only_what_kho_needs() {
        for unit in UNITS {
            let text = packaging(&format!("systemd/{unit}")).unwrap();
            let (_, service) = text.split_once("\n[Service]\n").unwrap();
            let (service, _) = service.split_once("\n[Install]\n").unwrap();
            let lines: Vec<&str> = service.lines().collect();
            for line in [
                "NoNewPrivileges=yes",
                "RestrictAddressFamilies=AF_UNIX",
                "RestrictRealtime=yes",
                "LockPersonality=yes",
                "SystemCallArchitectures=native",
                "UMask=0077",
            ] {
                assert!(lines.contains(&line), "{unit} lacks {line}");
            }
            // These hide mounts or devices, or forbid the restore of a file with the set-user-ID bit.
            for line in lines {
                let name = line.split_once('=').map_or(line, |(name, _)| name);
                let hides = ["Private", "Protect"].iter().any(|s| name.starts_with(s));
                assert!(!hides && name != "RestrictSUIDSGID", "{unit}: {line}");
            }
        }
    }

    #[test]
    fn a_kernel_without_headers_is_named() {
        let script = packaging("debian/kho-dkms/postinst").unwrap();
        let dir = workspace::target_dir()
            .unwrap()
            .join(format!("kho-postinst-{}", std::process::id()));
        for path in [
            "lib/modules/6.1-a/build",
            "lib/modules/6.1-b",
            "lib/modules/6.1-gone",
            "boot",
        ] {
            std::fs::create_dir_all(dir.join(path)).unwrap();
        }
        std::fs::write(dir.join("boot/vmlinuz-6.1-b"), "").unwrap();
        let root = dir.to_str().unwrap();
        let script = script
            .replace("/lib/modules/", &format!("{root}/lib/modules/"))
            .replace("/boot/", &format!("{root}/boot/"));
        let script = format!("dkms() {{ [ $1 != status ] || echo added; }}\n{script}");
        let output = Command::new("sh")
            .args(["-c", &script, "postinst", "configure"])
            .output()
            .unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert_eq!(
            said.matches("install linux-headers-6.1-b").count(),
            1,
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
