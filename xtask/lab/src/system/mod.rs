//! Full Debian systems for guests: a disk with systemd, services and several kernels. A disk is made once; guests use
//! it copy-on-write.

mod recipe;
mod release;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::command::succeed;
use crate::host::{self, apt, sources};
use crate::kernel::{Store, version};
use crate::workspace;
pub use recipe::Recipe;
pub use release::Release;

/// Room for files that a system writes, in bytes. The disk file is sparse.
const ROOM: u64 = 1 << 30;

/// The setting by which apt accepts expired lists.
const VALID_UNTIL: &str = "Acquire::Check-Valid-Until";

/// Age above which systems by recipes that are not used any more are removed.
const KEEP: Duration = Duration::from_secs(14 * 24 * 3600);

/// A bootable system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Raw image of the root file system. Never written to.
    pub disk: PathBuf,
    /// The release's own kernel.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: PathBuf,
}

/// Finds the system, or makes it.
pub fn find(cache: &Cache, release: Release) -> Result<System> {
    let recipe = Recipe::guest(release);
    let folder = make(cache, &recipe, |tree, to| furnish(release, tree, to))?;
    Ok(System {
        disk: folder.join("disk"),
        kernel: folder.join("kernel"),
        initrd: folder.join("initrd"),
    })
}

/// Runs a script as root in a copy of a tree made by this recipe, and discards the copy. The script finds the files at
/// `/mnt`; the files that it leaves in `/mnt/out` become the folder `out`. Returns the output of the script.
pub fn run_in(
    cache: &Cache,
    recipe: &Recipe,
    files: &[PathBuf],
    script: &str,
    out: &Path,
) -> Result<String> {
    let tree = make(cache, recipe, |_, _| Ok(()))?.join("tree");
    let work = workspace::target_dir()?.join(format!("chroot-{}", recipe.name));
    if work.exists() {
        std::fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    for folder in ["root", "upper", "work", "files", "files/out"] {
        let folder = work.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    for file in files {
        let name = file.file_name().context("a file has a name")?;
        std::fs::copy(file, work.join("files").join(name))
            .with_context(|| format!("copying {}", file.display()))?;
    }
    std::fs::write(work.join("files/script"), script).context("writing the script")?;
    // A separate mount namespace, so that the mounts vanish with it.
    let inside = r#"mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount --bind "$2/files" "$2/root/mnt"
exec chroot "$2/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
	DEBIAN_FRONTEND=noninteractive /bin/sh -eu /mnt/script"#;
    let unshare = host::program("unshare").context("there is no unshare")?;
    let output = Command::new(unshare)
        .args([
            "--mount",
            "--fork",
            "--propagation",
            "private",
            "/bin/sh",
            "-eu",
            "-c",
        ])
        .args([inside, "sh"])
        .arg(&tree)
        .arg(&work)
        .stdin(Stdio::null())
        .output()
        .context("running unshare")?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(output.status.success(), "{}\n{said}", output.status);
    if out.exists() {
        std::fs::remove_dir_all(out).with_context(|| format!("removing {}", out.display()))?;
    }
    std::fs::rename(work.join("files/out"), out)
        .with_context(|| format!("making {}", out.display()))?;
    std::fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    Ok(said)
}

/// The folder that `finish` makes of a tree by this recipe. Another recipe, or other versions of the packages that the
/// recipe names, get another folder.
fn make(
    cache: &Cache,
    recipe: &Recipe,
    finish: impl Fn(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let name = format!("system-{}-{}", recipe.name, &recipe.digest()[..12]);
    let store = Store::new(cache);
    store.remembered(&name, || {
        let versions = versions(&store, recipe)?;
        let mut hasher = blake3::Hasher::new();
        versions.iter().for_each(|line| {
            hasher.update(line.as_bytes());
        });
        let folder = format!("systems/{name}-{}", &hasher.finalize().to_hex()[..12]);
        let made = cache.make_dir(&folder, |dir| {
            eprintln!(
                "xtask: making a Debian system ({}); this takes a minute or two",
                recipe.name
            );
            let tree = dir.join("tree");
            bootstrap(recipe, &tree)?;
            std::fs::write(dir.join("versions"), versions.join("\n") + "\n")?;
            finish(&tree, dir)
        })?;
        forget_older(&made, recipe, &name)?;
        Ok(folder)
    })
}

/// `package version suite` of each package of the recipe, as the current lists have them.
fn versions(store: &Store<'_>, recipe: &Recipe) -> Result<Vec<String>> {
    let apt = store.apt_of(recipe.release.codename())?;
    apt.update()?;
    let mut lines = Vec::new();
    let backports = recipe.release.backports();
    for (suite, wanted) in [
        (recipe.release.codename(), &recipe.packages),
        (&backports, &recipe.backports),
    ] {
        if wanted.is_empty() {
            continue;
        }
        let found = apt.packages(suite, |name| wanted.contains(&name))?;
        for name in wanted.iter() {
            let of_name = found.iter().filter(|package| package.name == *name);
            let newest = version::newest(of_name.cloned().collect())
                .with_context(|| format!("{suite} has no {name}"))?;
            lines.push(format!("{name} {} {suite}", newest.version));
        }
    }
    Ok(lines)
}

/// Removes systems made by the same recipe from older packages, and systems of other recipes of its name that are old.
fn forget_older(made: &Path, recipe: &Recipe, name: &str) -> Result<()> {
    let parent = made.parent().unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(parent)
        .with_context(|| format!("reading {}", parent.display()))?
        .filter_map(Result::ok)
    {
        let text = entry.file_name().to_string_lossy().into_owned();
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        // A digest has twelve digits: `system-bookworm-dkms-…` does not belong to `bookworm`.
        let same_name = text
            .strip_prefix(&format!("system-{}-", recipe.name))
            .is_some_and(|rest| rest.find('-') == Some(12));
        let older = text.starts_with(name) || (same_name && age.is_some_and(|age| age > KEEP));
        if older && entry.path() != made {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Installs the recipe's packages in an empty folder.
fn bootstrap(recipe: &Recipe, tree: &Path) -> Result<()> {
    let program = host::program("mmdebstrap").context("there is no mmdebstrap")?;
    let source = sources::debian(Path::new("/etc/apt"), host::CODENAME)?;
    let list = tree.with_extension("sources");
    let suites = [recipe.release.codename(), &recipe.release.backports()];
    let suites = match recipe.backports.is_empty() {
        true => &suites[..1],
        false => &suites[..],
    };
    std::fs::write(&list, sources::render(&source, suites))
        .with_context(|| format!("writing {}", list.display()))?;
    let mut command = Command::new(program);
    command.args([
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
    ]);
    command.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=force-unsafe-io",
    ]);
    // The lists of testing on a mirror that is not updated have expired. mmdebstrap does not read this machine's
    // setting for that case.
    if let Some(check) = apt::setting(VALID_UNTIL) {
        command.arg(format!("--aptopt={VALID_UNTIL} \"{check}\""));
    }
    for path in ["man", "doc", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    command.arg(format!("--include={}", recipe.packages.join(",")));
    for script in &recipe.before {
        command.arg(format!("--essential-hook={script}"));
    }
    if !recipe.backports.is_empty() {
        // Kernels of two suites share the name of their metapackage, so they are installed one after the other.
        command.arg(format!(
            "--customize-hook=chroot \"$1\" apt-get -qq -y -t {} install {}",
            recipe.release.backports(),
            recipe.backports.join(" ")
        ));
    }
    for script in &recipe.after {
        command.arg(format!("--customize-hook={script}"));
    }
    command.arg(recipe.release.codename()).arg(tree).arg(&list);
    succeed(&mut command)?;
    std::fs::remove_file(&list).with_context(|| format!("removing {}", list.display()))
}

/// Takes the kernel and the initrd out of the tree and makes the disk.
fn furnish(release: Release, tree: &Path, to: &Path) -> Result<()> {
    let (kernel, initrd) = own_kernel(release, tree)?;
    for (from, name) in [(&kernel, "kernel"), (&initrd, "initrd")] {
        std::fs::copy(from, to.join(name))
            .with_context(|| format!("copying {}", from.display()))?;
    }
    let output = Command::new("du")
        .args(["-s", "-B1"])
        .arg(tree)
        .output()
        .context("running du")?;
    let used: u64 = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .next()
        .and_then(|bytes| bytes.parse().ok())
        .context("du gives no number")?;
    let image = to.join("disk");
    std::fs::File::create(&image)
        .and_then(|file| file.set_len((used + ROOM).next_multiple_of(1 << 20)))
        .with_context(|| format!("making {}", image.display()))?;
    let mke2fs = host::program("mke2fs").context("there is no mke2fs")?;
    succeed(
        Command::new(mke2fs)
            .args(["-q", "-F", "-t", "ext4", "-m", "0"])
            // Nothing is written in the background during a test.
            .args(["-E", "lazy_itable_init=0,lazy_journal_init=0", "-d"])
            .arg(tree)
            .arg(&image),
    )?;
    std::fs::remove_dir_all(tree).with_context(|| format!("removing {}", tree.display()))
}

/// The kernel that the release itself has, and its initrd.
fn own_kernel(release: Release, tree: &Path) -> Result<(PathBuf, PathBuf)> {
    let series = match release {
        Release::Bookworm => "6.1.",
        Release::Trixie => "6.12.",
        Release::Forky => "7.",
    };
    let boot = tree.join("boot");
    let kernel = std::fs::read_dir(&boot)
        .with_context(|| format!("reading {}", boot.display()))?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find_map(|name| {
            Some(name.strip_prefix("vmlinuz-")?.to_owned()).filter(|of| of.starts_with(series))
        })
        .with_context(|| format!("{} holds no vmlinuz-{series}*", boot.display()))?;
    Ok((
        boot.join(format!("vmlinuz-{kernel}")),
        boot.join(format!("initrd.img-{kernel}")),
    ))
}
