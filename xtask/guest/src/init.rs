//! PID 1 of a test guest.
//!
//! The kernel may start it as its first program, or an arrival program that has already mounted /proc and /sys may exec
//! it. So it makes each mount only if it is missing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kho_guest::{Event, HOP_PARAMETER, MEDIA, MODULES, PLAN, Plan, parameter};
use rustix::mount::{MountFlags, mount};
use rustix::system::RebootCommand;

use crate::control::Control;

/// File that `kho-guest loaded` writes. It holds [`BARE`], or the options for `kho exec`.
pub const LOADED: &str = "/run/next-kernel-is-loaded";

/// Content of [`LOADED`] if the loaded image is to be started without `kho exec`.
pub const BARE: &str = "bare";

const DISK: &str = "/dev/vda";
const PATH: &str = "/media/bin:/bin:/sbin:/usr/bin:/usr/sbin";

/// Mounts, in this order: file system, directory, options.
const MOUNTS: [(&str, &str, &str); 9] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    ("devpts", "/dev/pts", "mode=0620"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/tmp", "mode=1777,size=80%"),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("debugfs", "/sys/kernel/debug", ""),
];

/// Runs the stage of this kernel, then powers off. Never returns: the kernel panics if PID 1 ends.
pub fn run() -> ! {
    let outcome = stage();
    if let Err(error) = &outcome {
        // Without a control port only the kernel's console is left.
        eprintln!("kho-guest: {error:#}");
    }
    rustix::fs::sync();
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn stage() -> Result<()> {
    for (kind, target, options) in MOUNTS {
        mount_if_absent(kind, target, options)?;
    }
    let cmdline = std::fs::read("/proc/cmdline").context("reading /proc/cmdline")?;
    let cmdline = String::from_utf8_lossy(&cmdline);
    let hop = parameter(&cmdline, HOP_PARAMETER)
        .and_then(|hop| hop.parse().ok())
        .unwrap_or(0);
    let control = Arc::new(Control::open()?);
    control.make_raw()?;
    control.send(&Event::Boot {
        hop,
        release: release(),
        uptime_ms: millis(since_boot()),
    })?;

    match work(&control, hop) {
        Ok(()) => control.send(&Event::Done),
        Err(error) => control.send(&Event::Verdict {
            hop,
            pass: false,
            why: format!("{error:#}"),
        }),
    }
}

/// Runs the stage's script and makes the hop after it. Returns only if no further hop follows.
fn work(control: &Arc<Control>, hop: usize) -> Result<()> {
    load_modules()?;
    mount_media()?;
    let plan = std::fs::read(Path::new(MEDIA).join(PLAN)).context("reading the plan")?;
    let plan: Plan = serde_json::from_slice(&plan).context("understanding the plan")?;
    let stage = plan
        .stages
        .get(hop)
        .with_context(|| format!("the plan has no stage {hop}"))?;
    let next = plan.stages.get(hop + 1);

    let mut environment = vec![
        ("PATH", PATH.to_owned()),
        ("HOME", "/root".to_owned()),
        ("KHO_HOP", hop.to_string()),
        ("KHO_HOPS", (plan.stages.len() - 1).to_string()),
        ("KHO_KERNEL", stage.kernel.clone()),
        ("KHO_RELEASE", release()),
        ("KHO_FILES", format!("{MEDIA}/files")),
    ];
    // Set in the last kernel too, and empty there: scripts run with `-u`.
    environment.push((
        "KHO_NEXT",
        next.map_or_else(String::new, |next| next.kernel.clone()),
    ));
    if let Some(next) = next {
        environment.push((
            "KHO_NEXT_KERNEL",
            format!("{MEDIA}/{}/bzImage", next.folder),
        ));
        environment.push(("KHO_NEXT_INITRD", format!("{MEDIA}/{}/initrd", next.folder)));
        environment.push((
            "KHO_NEXT_CMDLINE",
            format!("{} {HOP_PARAMETER}={}", next.cmdline, hop + 1),
        ));
    }
    let shell = |line: &str, arguments: &[&str]| -> Result<ExitStatus> {
        let mut command = Command::new(line);
        command
            .args(arguments)
            .env_clear()
            .envs(environment.iter().map(|(key, value)| (key, value)));
        run_shown(control, command)
    };

    if let Some(script) = &stage.script {
        let status = shell("/bin/sh", &["-eu", &format!("{MEDIA}/{script}")])?;
        if !status.success() {
            bail!("the script's {status}");
        }
    }
    control.send(&Event::Verdict {
        hop,
        pass: true,
        why: String::new(),
    })?;
    if next.is_none() {
        return Ok(());
    }
    if !Path::new(LOADED).exists() {
        // To unpack a zstd kernel beforehand takes an emulated processor some seconds more than it saves. Scripts that
        // do not say how they load do so.
        let load = r#"kho load --enter bzimage "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE""#;
        let status = shell("/bin/sh", &["-eu", "-c", load])?;
        if !status.success() {
            bail!("kho load: {status}");
        }
    }
    control.send(&Event::Exec { hop })?;
    let how = std::fs::read_to_string(LOADED).unwrap_or_default();
    if how == BARE {
        rustix::fs::sync();
        rustix::system::reboot(RebootCommand::Kexec).context("starting the loaded kernel")?;
    }
    let status = shell("/bin/sh", &["-eu", "-c", &format!("kho exec {how}")])?;
    bail!("kho exec came back: {status}");
}

/// Runs a command and shows its output line by line, so that no event gets into the middle of a line.
pub fn run_shown(control: &Arc<Control>, mut command: Command) -> Result<ExitStatus> {
    let (output, input) = std::io::pipe().context("making a pipe")?;
    command
        .stdin(Stdio::null())
        .stdout(input.try_clone().context("copying a pipe")?)
        .stderr(input);
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    // The command holds copies of the writing end; while it lives the pipe has no end.
    drop(command);
    let (finished, finish) = mpsc::channel();
    let shown = Arc::clone(control);
    std::thread::spawn(move || {
        show_lines(output, &shown);
        // If a background process kept the pipe open for too long, the receiver is gone.
        let _ = finished.send(());
    });
    let status = child.wait().context("waiting for a command")?;
    // A background process keeps the pipe open; its later output is not waited for.
    let _ = finish.recv_timeout(Duration::from_millis(500));
    Ok(status)
}

fn show_lines(output: impl Read, control: &Control) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if control.line(&line).is_err() {
            return;
        }
        line.clear();
    }
}

fn mount_if_absent(kind: &str, target: &str, options: &str) -> Result<()> {
    let _ = std::fs::create_dir_all(target);
    let path = Path::new(target);
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev());
    if let (Some(parent), Ok(own)) = (path.parent(), device(path))
        && device(parent).is_ok_and(|of_parent| of_parent != own)
    {
        return Ok(());
    }
    let options = std::ffi::CString::new(options).context("mount options")?;
    match mount(
        kind,
        target,
        kind,
        MountFlags::empty(),
        Some(options.as_c_str()),
    ) {
        // A script can run on a kernel without tracing or debugging too.
        Err(_) if target.starts_with("/sys/") => Ok(()),
        result => result.with_context(|| format!("mounting {kind} at {target}")),
    }
}

fn load_modules() -> Result<()> {
    let mut modules: Vec<_> = match std::fs::read_dir(MODULES) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(MODULES),
    };
    modules.sort();
    for path in modules {
        let module = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        match rustix::system::finit_module(&module, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("loading module {}", path.display()));
            }
        }
    }
    Ok(())
}

fn mount_media() -> Result<()> {
    let patience = Instant::now() + Duration::from_secs(30);
    while !Path::new(DISK).exists() {
        if Instant::now() > patience {
            bail!("the disk {DISK} did not appear");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    mount(DISK, MEDIA, "ext4", MountFlags::RDONLY, None)
        .with_context(|| format!("mounting {DISK} at {MEDIA}"))
}

/// Time since this kernel started its clock.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `uname -r`
pub fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}
