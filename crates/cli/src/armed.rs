//! The armed kernel, whose content is taken at the end of the shutdown, and the stand-in that is loaded until then.

use crate::args::Next;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::loaded;
use crate::on_failure::OnFailure;
use crate::session::Session;
use crate::state::ArmedFile;
use crate::systemd;
use kho::PhysAddr;
use kho_kexec::stand_in;
use kho_kexec::sys::syscalls::SegmentRef;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Name of the record of the armed kernel, in the state directory.
pub const RECORD: &str = "armed.json";

/// Name of the folder, in the state directory, with the copies of kernel, initrd and configuration.
const FOLDER: &str = "armed";

/// Name of the setting, in the environment and in [`DEFAULTS`], with the administrator's choice for failed handovers.
const ON_FAILURE: &str = "KHO_ON_FAILURE";

/// File with the settings of the capture, in lines of `NAME=VALUE`.
const DEFAULTS: &str = "/etc/default/kho";

/// Message on the serial console if a user starts the stand-in while a kernel is armed.
const STARTED_TOO_EARLY: &str = "\r\nkho: NOTHING IS HANDED OVER: the armed kernel was started before kho took its content. The machine resets now.\r\n";

/// Name of the unit that takes the content.
pub const CAPTURE_UNIT: &str = "kho-capture.service";

/// Returns the record of the kernel that is armed in this boot; `None` if none is armed.
///
/// # Errors
///
/// If the record cannot be read.
pub fn armed(session: &Session) -> Result<Option<ArmedFile>, Fail> {
    session.state.read(RECORD)
}

/// Forgets the armed kernel and removes its copies. The caller unloads the loaded image.
///
/// # Errors
///
/// If a file cannot be removed.
pub fn disarm(session: &Session) -> Result<(), Fail> {
    let gone = |result: std::io::Result<()>| match result {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).or_status(Status::Failed)
        }
        _ => Ok(()),
    };
    gone(std::fs::remove_file(session.state.path().join(RECORD)))?;
    gone(std::fs::remove_dir_all(session.state.path().join(FOLDER)))
}

impl ArmedFile {
    /// Returns the arguments of the load. They name the copies, not the original files.
    pub fn next(&self, session: &Session) -> Next {
        let dir = session.state.path().join(FOLDER);
        Next {
            initrd: self
                .initrd
                .then(|| dir.join("initrd"))
                .into_iter()
                .collect(),
            no_initrd: !self.initrd,
            reuse_cmdline: self.reuse_cmdline,
            command_line: self.command_line.clone(),
            append: self.append.clone(),
            scratch: self.scratch.clone(),
            max_ranges: self.max_ranges,
            carrier: self.carrier,
            enter: self.enter,
            no_activate: self.no_activate,
            no_module_check: self.no_module_check,
            forget_arrived: self.forget_arrived,
            // At shutdown a slow load is better than no handover.
            slow_ok: true,
            // The check was made when the kernel was armed: at shutdown no user can react to it.
            compat: crate::args::Compat {
                next_catalogue: None,
                ignore_compat: true,
            },
            ..Next::of_kernel(dir.join("kernel"))
        }
    }
}

/// Loads the armed kernel without a handover.
///
/// # Errors
///
/// [`Status::LoadFailed`] if the kernel refuses the image.
pub fn load_plain(armed: &ArmedFile, session: &Session) -> Result<(), Fail> {
    let next = armed.next(session);
    let open = |path: &Path| {
        File::open(path).map_err(|err| {
            Fail::new(
                Status::Failed,
                format!("cannot read {}: {err}", path.display()),
            )
        })
    };
    let kernel = open(&next.kernel)?;
    let initrd = next.initrd.first().map(|path| open(path)).transpose()?;
    loaded::unload(session)?;
    session
        .kernel
        .kexec_file_load(&kernel, initrd.as_ref(), &armed.plain_line)
        .map_err(|err| {
            Fail::new(
                Status::LoadFailed,
                format!("{} without a handover: {}", armed.kernel, chain(&err)),
            )
            .fix("kho load takes kernel and content at once")
        })
}

/// Loads an image that resets the machine, into the page of memory at address `at`.
///
/// # Errors
///
/// [`Status::LoadFailed`] if the kernel refuses the image.
pub fn load_stand_in(at: PhysAddr, session: &Session) -> Result<(), Fail> {
    let running = session
        .root
        .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
        .or_status(Status::Failed)?;
    let image = stand_in::image(STARTED_TOO_EARLY, &running);
    let segment = SegmentRef {
        buf: &image,
        dest: at,
        memsz: stand_in::LEN,
    };
    loaded::unload(session)?;
    session
        .kernel
        .kexec_load(at, &[segment])
        .map_err(|err| loaded::call_fail(&err, session))
}

/// Returns the administrator's choice for failed handovers: from the environment, else from [`DEFAULTS`], else the
/// default.
///
/// # Errors
///
/// If the value is not a valid choice, or if [`DEFAULTS`] cannot be read. The caller then uses the default.
pub fn configured_choice() -> Result<OnFailure, String> {
    let in_environment =
        std::env::var_os(ON_FAILURE).map(|text| text.to_string_lossy().into_owned());
    let (text, place) = match in_environment.filter(|text| !text.is_empty()) {
        Some(text) => (text, "the environment"),
        None => match std::fs::read_to_string(DEFAULTS) {
            Ok(file) => match setting(&file, ON_FAILURE) {
                Some(text) => (text, DEFAULTS),
                None => return Ok(OnFailure::default()),
            },
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                return Ok(OnFailure::default());
            }
            Err(err) => return Err(format!("{DEFAULTS}: {err}; {ON_FAILURE} is taken as cold")),
        },
    };
    <OnFailure as clap::ValueEnum>::from_str(&text, false).map_err(|_| {
        format!(
            "{ON_FAILURE} is {text:?} in {place}, which is none of plain, cold, stop: taken as cold"
        )
    })
}

/// Returns the last value of a name in lines of `NAME=VALUE`, in the format of `EnvironmentFile=` in systemd.exec(5);
/// `None` if the name is missing or the value is empty.
fn setting(file: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        let value = line.trim().strip_prefix(name)?.strip_prefix('=')?.trim();
        let quoted = ['"', '\'']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        Some(quoted.unwrap_or(value).to_owned())
    };
    let last = file.lines().rev().find_map(value);
    last.filter(|value| !value.is_empty())
}

/// Copies the kernel, the joined initrds, and the file with the configuration of this release to the state directory:
/// `/boot` may be gone when the content is taken.
pub fn copies(
    mut kernel: &[u8],
    release: &str,
    initrd: Option<&[u8]>,
    config: Option<&Path>,
    session: &Session,
) -> Result<(), Fail> {
    session.state.prepare()?;
    let dir = session.state.path().join(FOLDER);
    DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .or_status(Status::Failed)?;
    let copy = |name: &str, from: &mut dyn Read| -> Result<(), Fail> {
        let to = dir.join(name);
        let copied = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&to)
            .and_then(|mut out| std::io::copy(from, &mut out));
        if let Err(err) = copied {
            disarm(session)?;
            let full = err.kind() == std::io::ErrorKind::StorageFull;
            let status = if full {
                Status::NoSpace
            } else {
                Status::Failed
            };
            return Err(Fail::new(
                status,
                format!("cannot copy the {name} to {}: {err}", to.display()),
            )
            .fix("the copies stay in RAM until the system stops; enlarge that file system"));
        }
        Ok(())
    };
    copy("kernel", &mut kernel)?;
    if let Some(mut initrd) = initrd {
        copy("initrd", &mut initrd)?;
    }
    if let Some(config) = config {
        let name = format!("config-{release}");
        copy(&name, &mut File::open(config).or_status(Status::Failed)?)?;
    }
    Ok(())
}

/// Whether systemd will run `kho capture` at the end of the shutdown.
pub fn capture_unit_is_active(session: &Session) -> bool {
    session.has_systemd()
        && systemd::systemctl(&["is-active", "--quiet", CAPTURE_UNIT])
            .is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_setting_of_a_name_counts() {
        let file = "# KHO_ON_FAILURE=stop\nOTHER=1\n KHO_ON_FAILURE=plain\nKHO_ON_FAILURE=\"stop\"\nKHO_ON_FAILURES=cold\n";
        assert_eq!(setting(file, ON_FAILURE).as_deref(), Some("stop"));
        assert_eq!(
            setting("KHO_ON_FAILURE='plain'", ON_FAILURE).as_deref(),
            Some("plain")
        );
        assert_eq!(
            setting("KHO_ON_FAILURE=plain\nKHO_ON_FAILURE=\n", ON_FAILURE),
            None
        );
        assert_eq!(setting("#KHO_ON_FAILURE=plain\n", ON_FAILURE), None);
    }
}
