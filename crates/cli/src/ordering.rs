//! Output of kho's generator for systemd (systemd.generator(7)): an order of kho's units after the mounts that the kept
//! content lies on and before those that need a network, and whether `kexec.target` may start.
//!
//! `local-fs.target` waits for all mounts except those with `nofail`. systemd may mount these later, and unmount them
//! while services still stop. Without the order, a restore would write below the mount point, and a capture would find
//! the empty directory there.

use crate::exit::Fail;
use crate::keepd::{self, parse::Kind};
use crate::kexec_target::{self, GENERATED};
use crate::list;
use crate::mounts::{self, Units};
use crate::output::Output;
use crate::session::Session;
use crate::systemd;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Name by which systemd runs this program.
pub const NAME: &str = "kho-generator";

/// Path at which the package installs the generator.
const INSTALLED: &str = "/usr/lib/systemd/system-generators/kho-generator";

/// Units that use the kept content.
const UNITS: [&str; 2] = ["kho-restore.service", "kho-capture.service"];

/// Name of the drop-ins.
const DROP_IN: &str = "50-mounts.conf";

/// Start of a line of the drop-in, for a mount that kho needs.
const AFTER: &str = "After=";

/// Start of a line of the drop-in, for a mount that needs a network.
const BEFORE: &str = "Before=";

/// Largest file of mounts that is read, in bytes.
const LIMIT: u64 = 16 << 20;

/// Makes systemd read its units again if they are out of date: the order lacks the mounts of a new path on the list, or
/// the start of `kexec.target` must now be refused or allowed.
pub fn update(session: &Session, out: Output) {
    if !session.has_systemd() || !Path::new(INSTALLED).exists() {
        return;
    }
    let generated = Path::new(GENERATED);
    let [_, capture] = UNITS;
    let text = std::fs::read_to_string(generated.join(format!("{capture}.d/{DROP_IN}")));
    let text = text.unwrap_or_default();
    let ordered: BTreeSet<&str> = text.lines().collect();
    let in_order = lines(&units(session)).all(|line| ordered.contains(&*line));
    let refused = kexec_target::file(generated).exists();
    let to_be_refused = kexec_target::to_be_refused(session);
    if in_order && refused == to_be_refused {
        return;
    }
    if systemd::systemctl(&["daemon-reload"]).is_ok_and(|output| output.status.success()) {
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

/// Returns the mount units of all kept content: of `keep.d`, of the user's entries, and of the content that arrived.
/// Ignores a list that cannot be read; the command that needs the list reports the error.
pub fn units(session: &Session) -> Units {
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

/// Returns the lines of the order.
fn lines(units: &Units) -> impl Iterator<Item = String> {
    let line = |how: &'static str| move |unit: &String| format!("{how}{unit}");
    let local = units.local.iter().map(line(AFTER));
    local.chain(units.network.iter().map(line(BEFORE)))
}

/// Writes the drop-ins. Writes none if `units` is empty.
pub fn write(folder: &Path, units: &Units) -> std::io::Result<()> {
    if *units == Units::default() {
        return Ok(());
    }
    let mut text = "# By kho-generator: what is kept lies on these, or below.\n[Unit]\n".to_owned();
    for line in lines(units) {
        text.push_str(&line);
        text.push('\n');
    }
    for unit in UNITS {
        let folder = folder.join(format!("{unit}.d"));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(DROP_IN), &text)?;
    }
    Ok(())
}

/// Writes a message to the kernel log: when systemd first runs generators, there is no journal.
pub fn complain(what: &str) {
    let what = what.replace('\n', " ");
    if std::fs::write("/dev/kmsg", format!("<4>{NAME}: {what}\n")).is_err() {
        eprintln!("{NAME}: {what}");
    }
}

/// Returns the mounts that systemd knows and that are not mounted; none if systemd does not run.
///
/// # Errors
///
/// If systemd does not answer.
pub fn missing_mounts(paths: &[&Path], session: &Session) -> Result<Vec<mounts::Missing>, Fail> {
    if !session.has_systemd() {
        return Ok(Vec::new());
    }
    // Reading a directory mounts an automount.
    for path in paths {
        let _ = std::fs::read_dir(path);
    }
    // With a pattern, systemctl leaves out inactive units unless `--all` is given.
    let shown = systemd::show(
        &["--all", "--property", mounts::SHOWN, "*.mount"],
        "which mounts are missing",
    )?;
    Ok(mounts::missing(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_units_get_the_order_and_nothing_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &Units::default()).unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        let units = Units {
            local: ["srv.mount", "srv-a.mount"].map(str::to_owned).into(),
            network: ["srv-net.mount".to_owned()].into(),
        };
        write(folder.path(), &units).unwrap();
        for unit in UNITS {
            let text =
                std::fs::read_to_string(folder.path().join(format!("{unit}.d/{DROP_IN}"))).unwrap();
            assert!(
                text.contains("[Unit]\nAfter=srv-a.mount\nAfter=srv.mount\nBefore=srv-net.mount\n"),
                "{text}"
            );
        }
    }
}
