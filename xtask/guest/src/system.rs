//! The test of a full system. A unit starts it at each boot.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kho_guest::{Event, MEDIA, PLAN, Plan};
use rustix::system::RebootCommand;

use crate::control::Control;
use crate::init::{millis, release, run_shown, since_boot};

/// File with the shell command by which the script leaves this boot. Without the file, that is `systemctl kexec`.
pub const LEAVE: &str = "/run/guest-leave";

/// File with the number of boots so far, on the system's own disk.
const BOOTS: &str = "/var/lib/guest-boots";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/media/bin";

/// Time for a shutdown, the capture included.
const SHUTDOWN: Duration = Duration::from_secs(600);

/// `kho-guest system`. Returns only if the port or the disk fails; it reports every other result to the host.
pub fn run() -> Result<()> {
    let hop = match std::fs::read_to_string(BOOTS) {
        Ok(text) => text.trim().parse().context(BOOTS)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error).context(BOOTS),
    };
    // Written at once: a boot that resets the machine must not count as the first one again.
    std::fs::write(BOOTS, format!("{}\n", hop + 1)).context(BOOTS)?;
    rustix::fs::sync();
    let control = Arc::new(Control::open()?);
    control.make_raw()?;
    control.send(&Event::Boot {
        hop,
        release: release(),
        uptime_ms: millis(since_boot()),
    })?;
    match work(&control, hop) {
        Ok(()) => control.send(&Event::Done)?,
        Err(error) => {
            let mut journal = Command::new("journalctl");
            journal.args(["-b", "-n", "100", "--no-pager", "-o", "short-monotonic"]);
            let _ = run_shown(&control, journal);
            control.send(&Event::Verdict {
                hop,
                pass: false,
                why: format!("{error:#}"),
            })?;
        }
    }
    rustix::fs::sync();
    rustix::system::reboot(RebootCommand::PowerOff).context("powering off")?;
    Ok(())
}

/// Runs the script of this boot, then leaves. Returns only after the last boot.
fn work(control: &Arc<Control>, hop: usize) -> Result<()> {
    let plan = std::fs::read(Path::new(MEDIA).join(PLAN)).context("reading the plan")?;
    let plan: Plan = serde_json::from_slice(&plan).context("understanding the plan")?;
    let stage = plan
        .stages
        .get(hop)
        .with_context(|| format!("the plan has no stage {hop}"))?;
    let shell = |arguments: &[&str]| {
        let mut command = Command::new("/bin/sh");
        command
            .args(arguments)
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .env("KHO_HOP", hop.to_string())
            .env("KHO_RELEASE", release())
            .env("KHO_FILES", format!("{MEDIA}/files"))
            .current_dir("/root");
        run_shown(control, command)
    };
    if let Some(script) = &stage.script {
        let status = shell(&["-eu", &format!("{MEDIA}/{script}")])?;
        ensure!(status.success(), "the script's {status}");
    }
    control.send(&Event::Verdict {
        hop,
        pass: true,
        why: String::new(),
    })?;
    if hop + 1 == plan.stages.len() {
        return Ok(());
    }
    let leave = std::fs::read_to_string(LEAVE).unwrap_or_else(|_| "systemctl kexec".to_owned());
    control.send(&Event::Exec { hop })?;
    let status = shell(&["-c", &leave])?;
    ensure!(status.success(), "{leave}: {status}");
    // The shutdown ends this process.
    std::thread::sleep(SHUTDOWN);
    bail!("{leave}: still here after {} s", SHUTDOWN.as_secs())
}
