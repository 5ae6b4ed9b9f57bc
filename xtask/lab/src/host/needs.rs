//! Prepares this machine: finds missing programs and files, says which packages it will install, and installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use super::sources::CODENAME;
use crate::cache::Cache;
use crate::workspace;

/// Suite that has a new enough QEMU.
const BACKPORTS: &str = "bookworm-backports";

const QEMU: &str = "qemu-system-x86";
const QEMU_PACKAGES: &str = "qemu-system-";

/// The suites of the packages for this machine.
const SUITES: [&str; 3] = ["bookworm", "bookworm-updates", BACKPORTS];

/// Oldest accepted version of QEMU: older ones corrupt guests under TCG with several processors.
const OLDEST_QEMU: (u32, u32) = (10, 0);

/// Condition that shows that a need is met.
pub enum Sign {
    /// A program of this name exists.
    Program(&'static str),
    /// This file exists.
    File(&'static str),
    /// The QEMU of this name is installed and new enough.
    Qemu(&'static str),
}

/// A need of this machine, and the package that meets it.
pub struct Need {
    sign: Sign,
    package: &'static str,
}

impl Need {
    /// Returns the need of a program.
    pub const fn program(name: &'static str, package: &'static str) -> Self {
        Self {
            sign: Sign::Program(name),
            package,
        }
    }
}

const NEEDS: [Need; 12] = [
    Need {
        sign: Sign::Qemu("qemu-system-x86_64"),
        package: QEMU,
    },
    Need {
        sign: Sign::File("/usr/share/OVMF/OVMF_CODE_4M.fd"),
        package: "ovmf",
    },
    Need {
        sign: Sign::Program("sbsign"),
        package: "sbsigntool",
    },
    Need {
        sign: Sign::Program("openssl"),
        package: "openssl",
    },
    Need {
        sign: Sign::Program("swtpm"),
        package: "swtpm",
    },
    Need {
        sign: Sign::Program("gcc"),
        package: "gcc",
    },
    Need {
        sign: Sign::Program("ld"),
        package: "binutils",
    },
    Need {
        sign: Sign::File("/usr/lib/x86_64-linux-gnu/libc.a"),
        package: "libc6-dev",
    },
    Need {
        sign: Sign::Program("mke2fs"),
        package: "e2fsprogs",
    },
    Need {
        sign: Sign::Program("dtc"),
        package: "device-tree-compiler",
    },
    Need {
        sign: Sign::Program("mmdebstrap"),
        package: "mmdebstrap",
    },
    Need {
        sign: Sign::Program("setpriv"),
        package: "util-linux",
    },
];

/// Needs of guests for arm64, beside the others.
const ARM64_NEEDS: [Need; 3] = [
    Need {
        sign: Sign::Qemu("qemu-system-aarch64"),
        package: "qemu-system-arm",
    },
    Need {
        sign: Sign::Program(workspace::ARM64_LINKER),
        package: "gcc-aarch64-linux-gnu",
    },
    Need {
        sign: Sign::File("/usr/aarch64-linux-gnu/lib/libc.a"),
        package: "libc6-dev-arm64-cross",
    },
];

/// Checks all that guests for arm64 need beside what other guests need, and installs the missing packages.
pub fn prepare_arm64(cache: &Cache) -> Result<()> {
    require(cache, "run guests for arm64", &ARM64_NEEDS)
}

/// Checks all that guests need and installs the missing packages.
pub fn prepare(cache: &Cache) -> Result<()> {
    require(cache, "run guests", &NEEDS)
}

/// Checks all that a purpose (`run guests`) needs. Says which packages are missing, and installs them.
pub fn require(cache: &Cache, purpose: &str, needs: &[Need]) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "guests are x86_64 and their programs are built natively; this machine is {}",
            std::env::consts::ARCH
        );
    }
    let mut missing = Vec::new();
    for need in needs {
        if let Some(why) = lacks(&need.sign)? {
            missing.push((need.package, why));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(package, _)| *package).collect();
    eprintln!("xtask: this machine lacks what is needed to {purpose}:");
    for (package, why) in &missing {
        eprintln!("xtask:   {package}: {why}");
    }
    let by_hand = format!(
        "install these Debian packages and run this again: {} ({QEMU} from {BACKPORTS})",
        packages.join(" ")
    );
    if !is_bookworm() {
        bail!("this is not Debian 12 ({CODENAME}), so nothing is installed here; {by_hand}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("only root can install packages; {by_hand}");
    }
    eprintln!(
        "xtask: installing them now, from the configured Debian mirror (suites {})",
        SUITES.join(", ")
    );
    let apt = Apt::open(cache, "host", &SUITES)?;
    apt.update()?;
    let (qemu, others): (Vec<&str>, Vec<&str>) = packages
        .iter()
        .partition(|package| package.starts_with(QEMU_PACKAGES));
    if !qemu.is_empty() {
        apt.install(&qemu, Some(BACKPORTS))?;
    }
    if !others.is_empty() {
        apt.install(&others, None)?;
    }
    for need in needs {
        if let Some(why) = lacks(&need.sign)? {
            bail!("{} was installed, and still: {why}", need.package);
        }
    }
    Ok(())
}

/// Finds a program in PATH or in the folders in which Debian keeps the administrator's programs.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

fn lacks(sign: &Sign) -> Result<Option<String>> {
    Ok(match sign {
        Sign::Program(name) => program(name)
            .is_none()
            .then(|| format!("there is no {name}")),
        Sign::File(path) => (!Path::new(path).exists()).then(|| format!("there is no {path}")),
        Sign::Qemu(name) => match qemu_version(name)? {
            None => Some(format!("there is no {name}")),
            Some(version) if version < OLDEST_QEMU => Some(format!(
                "QEMU {}.{} is installed; before {}.{} it corrupts guests with several processors",
                version.0, version.1, OLDEST_QEMU.0, OLDEST_QEMU.1
            )),
            Some(_) => None,
        },
    })
}

fn qemu_version(name: &str) -> Result<Option<(u32, u32)>> {
    let Some(qemu) = program(name) else {
        return Ok(None);
    };
    let output = Command::new(qemu)
        .arg("--version")
        .output()
        .with_context(|| format!("running {name} --version"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text)
        .map(Some)
        .with_context(|| format!("{name} --version says {:?}", text.trim()))
}

/// `QEMU emulator version 10.0.2 (Debian …)`
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .split("version ")
        .nth(1)?
        .split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn is_bookworm() -> bool {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| text.lines().any(|have| have.replace('"', "") == line);
    has("ID=debian") && has(&format!("VERSION_CODENAME={CODENAME}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_qemu() {
        assert_eq!(
            parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopy"),
            Some((10, 0))
        );
        assert_eq!(
            parse_version("QEMU emulator version 7.2.17 (Debian)"),
            Some((7, 2))
        );
        assert_eq!(parse_version("something else"), None);
    }
}
