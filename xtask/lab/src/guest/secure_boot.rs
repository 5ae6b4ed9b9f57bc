//! Kernels that firmware with Secure Boot starts: signed with the key that OVMF's package brings for tests.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Key and certificate, in OVMF's variables too, and the password of the key (its README.Debian).
const KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
const CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
const PASSWORD: &str = "pass:snakeoil";

/// Replaces the signatures of an image. The kernel reads only the first one of several. `dir` is for the open key.
pub fn sign(image: &Path, dir: &Path) -> Result<()> {
    let key = dir.join("secure-boot.key");
    run(Command::new("openssl")
        .args(["rsa", "-in", KEY, "-passin", PASSWORD, "-out"])
        .arg(&key))?;
    // Fails if there is none, which is fine.
    let _ = run(Command::new("sbattach").arg("--remove").arg(image));
    run(Command::new("sbsign")
        .arg("--key")
        .arg(&key)
        .args(["--cert", CERTIFICATE, "--output"])
        .arg(image)
        .arg(image))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
