//! Tests of the packages and the crates that boot no guest.

use std::fs;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use kho_cases::Stock;
use kho_dist as dist;
use kho_lab::command::succeed;
use kho_lab::run::End;
use kho_lab::system::Release;
use kho_lab::workspace;

use super::tally::Tally;

/// A test: its name, whether only `--all` runs it, and its function.
type Test = (&'static str, bool, fn(&Stock) -> Result<String>);

const TESTS: [Test; 6] = [
    ("packages:lintian", false, lintian),
    ("packages:dkms-12", true, |stock| {
        dkms(stock, Release::Bookworm)
    }),
    ("packages:dkms-13", false, |stock| {
        dkms(stock, Release::Trixie)
    }),
    ("packages:crates", false, |_| crates()),
    ("packages:cargo-install", true, |_| install()),
    ("packages:reproducible", true, |stock| {
        reproducible(&stock.packages()?)
    }),
];

/// Names and whether they are slow, for `--list`.
pub fn names() -> impl Iterator<Item = (&'static str, bool)> {
    TESTS.iter().map(|(name, slow, _)| (*name, *slow))
}

/// Runs them.
pub fn run(stock: &Stock, filter: &str, slow_too: bool, tally: &mut Tally) {
    for (name, slow, test) in TESTS {
        if !name.contains(filter) || (slow && !slow_too) {
            continue;
        }
        let start = Instant::now();
        let result = test(stock);
        let took = format!("{:.1} s", start.elapsed().as_secs_f64());
        match result {
            Ok(remark) => tally.add(name, &End::Pass, &format!("{took} {remark}"), String::new),
            Err(error) => tally.add(name, &End::Fail("see below".into()), &took, || {
                format!("{error:#}")
            }),
        }
    }
}

fn lintian(stock: &Stock) -> Result<String> {
    // The packages of the later version are for upgrades only.
    let ours: Vec<_> = stock
        .packages()?
        .into_iter()
        .filter(|deb| !deb.to_string_lossy().contains("+later"))
        .collect();
    dist::lintian(stock.lab.cache(), &ours)?;
    Ok(format!("{} packages", ours.len()))
}

/// kho-dkms installs, builds for every kernel, upgrades and purges.
fn dkms(stock: &Stock, release: Release) -> Result<String> {
    let built = stock.dkms(release)?.kernels;
    ensure!(built.len() == 2, "built for {built:?}");
    Ok(built.join(", "))
}

/// The published crates are complete: cargo builds each from the files that it would upload, and does everything except
/// the upload, which needs an account.
fn crates() -> Result<String> {
    // Cargo unpacks a package into its home, in a folder named after this path, and unpacks a version only once. At a
    // path that was used before it would verify against the kho of an earlier commit.
    let parent = workspace::target_dir()?.join("published");
    if parent.exists() {
        fs::remove_dir_all(&parent)?;
    }
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let dir = parent.join(started.as_nanos().to_string());
    let mut command = workspace::cargo();
    command.args(["publish", "--dry-run", "--allow-dirty"]);
    command.args(dist::PUBLISHED.iter().flat_map(|name| ["-p", name]));
    command.arg("--target-dir").arg(dir);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Cargo packages a crate without a description or a licence with a warning; the registry later refuses it.
    let warned = said.lines().any(|line| {
        line.starts_with("warning") && line != "warning: aborting upload due to dry run"
    });
    ensure!(
        output.status.success() && !warned,
        "{}\n{said}",
        output.status
    );
    Ok(dist::PUBLISHED.join(", "))
}

/// `cargo install` makes a command that runs.
fn install() -> Result<String> {
    let root = workspace::target_dir()?.join("installed");
    let mut command = workspace::cargo();
    command.args([
        "install",
        "--quiet",
        "--locked",
        "--force",
        "--path",
        "crates/cli",
    ]);
    command.arg("--root").arg(&root);
    succeed(&mut command)?;
    let output = std::process::Command::new(root.join("bin/kho"))
        .arg("--version")
        .output()?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        version.starts_with("kho "),
        "kho --version says {version:?}"
    );
    Ok(version)
}

/// A copy of the sources in another folder makes the same packages.
fn reproducible(debs: &[std::path::PathBuf]) -> Result<String> {
    let copy = workspace::target_dir()?.join("elsewhere/with-a-longer-name");
    if copy.exists() {
        std::fs::remove_dir_all(&copy)?;
    }
    std::fs::create_dir_all(&copy)?;
    let mut archive = std::process::Command::new("sh");
    archive.args([
        "-euc",
        "cd \"$1\" && git ls-files -z --cached --others --exclude-standard \
         | tar -c --null --ignore-failed-read -T - | tar -x -C \"$2\"",
        "sh",
    ]);
    archive.arg(workspace::root()).arg(&copy);
    succeed(&mut archive)?;
    let mut command = std::process::Command::new("cargo");
    command.current_dir(&copy).args(["xtask", "dist"]);
    command.env("SOURCE_DATE_EPOCH", dist::time()?.to_string());
    command.env_remove("CARGO_TARGET_DIR");
    succeed(&mut command)?;
    let mut same = Vec::new();
    for deb in debs {
        let name = deb.file_name().unwrap_or_default();
        let other = copy.join("target/dist").join(name);
        if other.exists() {
            ensure!(
                std::fs::read(deb)? == std::fs::read(&other)?,
                "{} and {} differ",
                deb.display(),
                other.display()
            );
            same.push(name.to_string_lossy().into_owned());
        }
    }
    ensure!(same.len() == 2, "only {same:?} could be compared");
    std::fs::remove_dir_all(Path::new(&copy))?;
    Ok(same.join(", "))
}
