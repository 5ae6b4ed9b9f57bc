//! Facts that kho's generator tells systemd (systemd.generator(7)): the order of kho's units after the mounts that the
//! kept content lies on, and whether `kexec.target` may be started.
//!
//! `local-fs.target` waits for every mount but those with `nofail`. Those may come after it, and go while services
//! still stop: a restore would write beneath them, and a capture would find the directory that they covered.

use crate::exit::{Fail, Status};
use crate::keepd::{self, parse::Kind};
use crate::kexec_target::{self, GENERATED};
use crate::list;
use crate::mounts;
use crate::output::Output;
use crate::session::Session;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name under which systemd calls this program.
pub const NAME: &str = "kho-generator";

/// Path at which the package installs the generator.
const INSTALLED: &str = "/usr/lib/systemd/system-generators/kho-generator";

/// Units that use what is kept.
const UNITS: [&str; 2] = ["kho-restore.service", "kho-capture.service"];

/// Name of the drop-ins.
const DROP_IN: &str = "50-mounts.conf";

/// Start of a line of the drop-in.
const AFTER: &str = "After=";

/// Longest file of mounts that is read, in bytes.
const LIMIT: u64 = 16 << 20;

/// Makes systemd read its units again if they no longer fit: a path came on the list whose mounts are not in the order
/// yet, or the start of `kexec.target` is to be refused or allowed.
pub fn update(session: &Session, out: Output) {
    if !session.has_systemd() || !Path::new(INSTALLED).exists() {
        return;
    }
    let generated = Path::new(GENERATED);
    let [_, capture] = UNITS;
    let text = std::fs::read_to_string(generated.join(format!("{capture}.d/{DROP_IN}")));
    let text = text.unwrap_or_default();
    let ordered: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix(AFTER))
        .collect();
    let in_order = units(session).iter().all(|unit| ordered.contains(&**unit));
    let refused = kexec_target::file(generated).exists();
    let to_be_refused = kexec_target::to_be_refused(session);
    if in_order && refused == to_be_refused {
        return;
    }
    let reloaded = Command::new("systemctl")
        .arg("daemon-reload")
        .stdin(Stdio::null())
        .status();
    if reloaded.is_ok_and(|status| status.success()) {
        return;
    }
    let failed = "systemctl daemon-reload failed";
    if !in_order {
        out.warn(&format!(
            "{failed}: mounts with nofail may go before the content is taken"
        ));
    }
    match (refused, to_be_refused) {
        (false, true) => out.warn(&format!(
            "{failed}: systemctl kexec would load a kernel itself, and the kept content would be lost: run kho load --arm KERNEL first"
        )),
        (true, false) => out.warn(&format!(
            "{failed}: systemctl kexec stays refused until it succeeds"
        )),
        _ => {}
    }
}

/// Returns the mount units of everything that is kept: by `keep.d`, by hand, and of what arrived. A list that cannot be
/// read adds none; the command that needs it reports the error.
pub fn units(session: &Session) -> BTreeSet<String> {
    let mut paths: Vec<PathBuf> = Vec::new();
    match keepd::rules::read(&keepd::rules::dirs(session)) {
        Ok(rules) => paths.extend(
            rules
                .into_iter()
                .filter(|rule| rule.kind != Kind::Trace)
                .map(|rule| rule.path),
        ),
        Err(fail) => complain(&fail.what),
    }
    let arrived = session.arrived().ok().and_then(Option::as_ref);
    let keep = session.state.keep().unwrap_or_default();
    paths.extend(
        list::effective(arrived, &keep)
            .into_iter()
            .filter_map(|entry| entry.path),
    );
    let file = |path: &str| session.root.bytes(path, LIMIT).unwrap_or_default();
    mounts::units(
        paths.iter().map(PathBuf::as_path),
        &mounts::wanted(&file("etc/fstab")),
        &mounts::mounted(&file("proc/self/mountinfo")),
    )
}

/// Writes the drop-ins; none if `units` is empty.
pub fn write(folder: &Path, units: &BTreeSet<String>) -> std::io::Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    let mut text = "# By kho-generator: what is kept lies on these, or below.\n[Unit]\n".to_owned();
    for unit in units {
        text.push_str(&format!("{AFTER}{unit}\n"));
    }
    for unit in UNITS {
        let folder = folder.join(format!("{unit}.d"));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(DROP_IN), &text)?;
    }
    Ok(())
}

/// Writes a message to the kernel log: there is no journal yet when systemd first calls generators.
pub fn complain(what: &str) {
    let what = what.replace('\n', " ");
    if std::fs::write("/dev/kmsg", format!("<4>{NAME}: {what}\n")).is_err() {
        eprintln!("{NAME}: {what}");
    }
}

/// Returns the mounts that systemd knows of and that are not mounted; none if systemd does not run.
///
/// # Errors
///
/// If systemd does not answer.
pub fn missing_mounts(paths: &[&Path], session: &Session) -> Result<Vec<mounts::Missing>, Fail> {
    if !session.has_systemd() {
        return Ok(Vec::new());
    }
    // A look into it mounts what is mounted on access.
    for path in paths {
        let _ = std::fs::read_dir(path);
    }
    let output = Command::new("systemctl")
        // Without `--all` a pattern leaves out units that are not active.
        .args(["show", "--all", "--property", mounts::SHOWN, "*.mount"])
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(mounts::missing(&String::from_utf8_lossy(&output.stdout)))
        }
        Ok(output) => Err(Fail::new(
            Status::Failed,
            format!(
                "cannot ask systemd which mounts are missing: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        )),
        Err(err) => Err(Fail::new(
            Status::Failed,
            format!("cannot run systemctl: {err}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_units_get_the_order_and_nothing_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &BTreeSet::new()).unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        let units = ["srv.mount", "srv-a.mount"].map(str::to_owned).into();
        write(folder.path(), &units).unwrap();
        for unit in UNITS {
            let text =
                std::fs::read_to_string(folder.path().join(format!("{unit}.d/{DROP_IN}"))).unwrap();
            assert!(
                text.contains("[Unit]\nAfter=srv-a.mount\nAfter=srv.mount\n"),
                "{text}"
            );
        }
    }
}
