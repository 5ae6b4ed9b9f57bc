//! Questions to systemd, by systemctl.

use crate::exit::{Fail, Status};
use crate::session::Session;
use std::process::{Command, Output, Stdio};

/// Runs systemctl without input, and returns its output and status.
///
/// # Errors
///
/// If systemctl cannot be run.
pub fn systemctl(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
}

/// Returns what `systemctl show` prints with these arguments. `what` completes "cannot ask systemd".
///
/// # Errors
///
/// [`Status::Failed`] if systemctl cannot be run, or fails.
pub fn show(arguments: &[&str], what: &str) -> Result<String, Fail> {
    let output = systemctl(&[&["show"], arguments].concat())
        .map_err(|err| Fail::new(Status::Failed, format!("cannot run systemctl: {err}")))?;
    if !output.status.success() {
        return Err(Fail::new(
            Status::Failed,
            format!(
                "cannot ask systemd {what}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether user space was started anew by `systemctl soft-reboot` since the kernel started. systemd before 254 has no
/// soft reboot, and prints nothing.
///
/// # Errors
///
/// As [`show`].
pub fn was_soft_rebooted(session: &Session) -> Result<bool, Fail> {
    if !session.has_systemd() {
        return Ok(false);
    }
    let count = show(
        &["--property=SoftRebootsCount", "--value"],
        "whether it was started by a soft reboot",
    )?;
    Ok(!matches!(count.trim(), "" | "0"))
}
