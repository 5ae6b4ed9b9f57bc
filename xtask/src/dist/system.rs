//! The packages in a full Debian system: installed, used by `systemctl kexec`, upgraded, purged.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cache::Cache;
use crate::host::{self, sources};
use crate::workspace;

/// What the system consists of, besides what is essential.
const PACKAGES: &str = "systemd,systemd-sysv,udev,dbus,kmod,initramfs-tools,zstd,procps,init-system-helpers,\
redis-server,kexec-tools,linux-image-cloud-amd64";

/// Three boots of a whole system, without KVM.
const LIMIT: Duration = Duration::from_secs(1200);

/// Room for what the system itself writes, in bytes.
const ROOM: u64 = 384 << 20;

/// A Debian release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Release {
    /// bookworm, with the kernel of its backports as the second one.
    #[value(name = "12")]
    Bookworm,
    /// trixie.
    #[value(name = "13")]
    Trixie,
}

impl Release {
    fn codename(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// Suites to install from, and packages that are only named by their suite.
    fn suites(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Bookworm => (
                &["bookworm", "bookworm-backports"],
                &["linux-image-cloud-amd64/bookworm-backports"],
            ),
            Self::Trixie => (&["trixie"], &[]),
        }
    }
}

/// Installs the package in a fresh system, boots it, and lets it test itself.
pub fn run(release: Release, deb: &Path) -> Result<()> {
    let cache = Cache::open()?;
    host::prepare(&cache)?;
    let _lock = cache.lock("system")?;
    let base = base(&cache, release)?;
    let dir = workspace::target_dir()?.join(format!("system-{}", release.codename()));
    let _ = std::fs::remove_dir_all(&dir);
    let tree = dir.join("root");
    std::fs::create_dir_all(&tree).with_context(|| format!("making {}", tree.display()))?;
    succeed(
        Command::new("tar")
            .arg("-C")
            .arg(&tree)
            .arg("-xf")
            .arg(&base),
    )?;
    furnish(&tree, deb)?;
    let (kernel, initrd) = first_kernel(&tree)?;
    for (from, name) in [(&kernel, "kernel"), (&initrd, "initrd")] {
        std::fs::copy(from, dir.join(name))
            .with_context(|| format!("copying {}", from.display()))?;
    }
    let image = dir.join("disk");
    let used = String::from_utf8_lossy(
        &Command::new("du")
            .args(["-s", "-B1"])
            .arg(&tree)
            .output()
            .context("running du")?
            .stdout,
    )
    .split_whitespace()
    .next()
    .and_then(|bytes| bytes.parse::<u64>().ok())
    .context("du gives no number")?;
    std::fs::File::create(&image)
        .and_then(|file| file.set_len((used + ROOM).next_multiple_of(1 << 20)))
        .with_context(|| format!("making {}", image.display()))?;
    let mke2fs = host::program("mke2fs").context("there is no mke2fs")?;
    succeed(
        Command::new(mke2fs)
            .args(["-q", "-F", "-t", "ext4", "-m", "0", "-d"])
            .arg(&tree)
            .arg(&image),
    )?;
    std::fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))?;
    boot(&dir)?;
    judge(&dir)
}

/// The archive of a system without the package; made once.
fn base(cache: &Cache, release: Release) -> Result<PathBuf> {
    let codename = release.codename();
    let (suites, more) = release.suites();
    let folder = cache.make_dir(&format!("system/{codename}-1"), |dir| {
        let program = host::program("mmdebstrap").context("there is no mmdebstrap: install it")?;
        let source = sources::debian(Path::new("/etc/apt"), host::CODENAME)?;
        let list = dir.join("debian.sources");
        std::fs::write(&list, sources::render(&source, suites))?;
        eprintln!("xtask: making a Debian system ({codename}); this takes some minutes");
        let mut command = Command::new(program);
        command.args(["--quiet", "--variant=minbase"]);
        command.args(["--aptopt=APT::Install-Recommends \"false\""]);
        command.arg(format!("--include={PACKAGES}"));
        for package in more {
            command.arg(format!(
                "--customize-hook=chroot \"$1\" apt-get -q -y install {package}"
            ));
        }
        command
            .arg("--customize-hook=rm -rf \"$1\"/var/cache/apt/archives/*.deb \"$1\"/var/lib/apt/lists/*");
        command.arg(codename).arg(dir.join("root.tar")).arg(&list);
        succeed(&mut command)
    })?;
    Ok(folder.join("root.tar"))
}

/// Adds the package, the test, and the tmpfs that Redis keeps its data in.
fn furnish(tree: &Path, deb: &Path) -> Result<()> {
    let test = workspace::root().join("packaging/test");
    let users = std::fs::read_to_string(tree.join("etc/passwd")).context("reading passwd")?;
    let redis = users
        .lines()
        .find_map(|line| line.strip_prefix("redis:"))
        .context("there is no user redis")?;
    let ids: Vec<&str> = redis.split(':').collect();
    let (Some(uid), Some(gid)) = (ids.get(1), ids.get(2)) else {
        bail!("passwd is malformed");
    };
    let fstab = format!(
        "/dev/vda / ext4 rw,noatime 0 1\ntmpfs /var/lib/redis tmpfs size=64M,mode=0750,uid={uid},gid={gid} 0 0\n"
    );
    std::fs::write(tree.join("etc/fstab"), fstab)?;
    std::fs::write(tree.join("etc/hostname"), "guest\n")?;
    std::fs::create_dir_all(tree.join("var/log/journal"))?;
    copy(deb, &tree.join("root/kho.deb"))?;
    copy(&test.join("guest.sh"), &tree.join("root/guest.sh"))?;
    let units = tree.join("etc/systemd/system");
    copy(
        &test.join("guest-test.service"),
        &units.join("guest-test.service"),
    )?;
    let wants = units.join("multi-user.target.wants");
    std::fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink("../guest-test.service", wants.join("guest-test.service"))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The oldest kernel of the system and its initrd.
fn first_kernel(tree: &Path) -> Result<(PathBuf, PathBuf)> {
    let mut releases: Vec<String> = std::fs::read_dir(tree.join("boot"))
        .context("reading boot")?
        .filter_map(Result::ok)
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("vmlinuz-")
                .map(str::to_owned)
        })
        .collect();
    // By the first two numbers: 6.1 is older than 6.12.
    releases.sort_by_key(|release| {
        let mut numbers = release
            .split('.')
            .map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next())
    });
    let release = releases.first().context("there is no kernel")?;
    let file = |name: &str| tree.join(format!("boot/{name}-{release}"));
    Ok((file("vmlinuz"), file("initrd.img")))
}

fn boot(dir: &Path) -> Result<()> {
    let setpriv = host::program("setpriv").context("there is no setpriv")?;
    let qemu = host::program("qemu-system-x86_64").context("there is no QEMU")?;
    let mut child = Command::new(setpriv)
        .current_dir(dir)
        .args(["--pdeathsig", "KILL", "--"])
        .arg(qemu)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-nic",
            "none",
        ])
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "max,-erms,-fsrm",
        ])
        .args([
            "-m",
            "1536M",
            "-serial",
            "file:console",
            "-serial",
            "file:said",
        ])
        .args([
            "-drive",
            "if=none,id=disk,format=raw,cache=unsafe,file=disk",
            "-device",
            "virtio-blk-pci,drive=disk",
            "-device",
            "virtio-rng-pci",
        ])
        .args([
            "-kernel",
            "kernel",
            "-initrd",
            "initrd",
            "-append",
            "root=/dev/vda rw console=ttyS0 panic=-1",
        ])
        .stdin(Stdio::null())
        .spawn()
        .context("starting QEMU")?;
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().context("waiting for QEMU")? {
            ensure!(status.success(), "QEMU: {status}");
            return Ok(());
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            bail!(
                "not finished after {} s; see {}",
                LIMIT.as_secs(),
                dir.display()
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What the system said about itself, and whether a kernel complained.
fn judge(dir: &Path) -> Result<()> {
    let read = |name: &str| -> Result<String> {
        let bytes = std::fs::read(dir.join(name)).with_context(|| format!("reading {name}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (said, console) = (read("said")?, read("console")?);
    print!("{said}");
    let failed: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("TEST: FAILED"))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    ensure!(
        said.contains("TEST: done"),
        "the test did not come to its end"
    );
    for stage in 0..3 {
        ensure!(
            said.contains(&format!("TEST: stage {stage} ")),
            "stage {stage} was not reached"
        );
    }
    let complaint = console.lines().find(|line| {
        ["BUG:", "WARNING:", "Oops", "Call Trace"]
            .iter()
            .any(|word| line.contains(word))
    });
    ensure!(
        complaint.is_none(),
        "a kernel complained: {}",
        complaint.unwrap_or_default()
    );
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("running {name}"))?;
    ensure!(
        output.status.success(),
        "{name}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
