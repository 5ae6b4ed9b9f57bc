//! Commands of this machine.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs a command; its output becomes the error when it fails.
pub fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("running {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    ensure!(
        output.status.success(),
        "{name}: {}: {}",
        output.status,
        lines[lines.len().saturating_sub(40)..].join("\n")
    );
    Ok(())
}

/// The date, as `date` writes it.
pub fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map_or_else(
        |_| "an unknown day".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
