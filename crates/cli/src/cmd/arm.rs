//! `kho load --arm`: the kernel now, the content when the system stops.
//!
//! Kernel and initrd are copied to RAM, because `/boot` may be gone or changed when the content is taken. In
//! the meantime something must be loaded: `systemctl kexec` (and, since systemd 254, `reboot`) look at
//! `/sys/kernel/kexec_loaded` before they choose what to do. It does what was chosen for a handover that fails, since
//! somebody may start it without asking (`kexec -e`): a plain image of the same kernel, or one that is no kernel and resets
//! the machine ([`kho_kexec::stand_in`]).

use crate::args::Next;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::handover::load;
use crate::handover::memory;
use crate::handover::next::{self, Files};
use crate::handover::places;
use crate::handover::prepare::Inputs;
use crate::handover::time;
use crate::keepd;
use crate::list;
use crate::module;
use crate::on_failure::OnFailure;
use crate::output::{self, Output};
use crate::session::Session;
use crate::state::ArmedFile;
use kho::{PhysAddr, RangeSet};
use kho_kexec::stand_in;
use kho_kexec::sys::file_load;
use kho_kexec::sys::syscalls::{Kernel, LoadFlags, SegmentRef, System};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Record of what is armed, in the state directory.
const RECORD: &str = "armed.json";

/// Folder of the copies, in the state directory.
const FOLDER: &str = "armed";

/// The administrator's usual choice for a handover that fails: in the environment, and in [`DEFAULTS`].
const ON_FAILURE: &str = "KHO_ON_FAILURE";

/// Settings of the capture, lines of `NAME=VALUE`.
const DEFAULTS: &str = "/etc/default/kho";

/// What the serial console shows when somebody starts what is loaded while a kernel is armed.
const STARTED_TOO_EARLY: &str = "\r\nkho: NOTHING IS HANDED OVER: what is armed was started before its content was taken. Resetting the machine.\r\n";

/// The unit that takes the content.
pub const CAPTURE_UNIT: &str = "kho-capture.service";

/// Takes the kernel, with the lock held.
///
/// # Errors
///
/// Everything that would make a load fail now; what was loaded or armed before is then untouched, unless
/// the plain image itself was refused.
pub fn run(
    args: &Next,
    on_failure: Option<OnFailure>,
    session: &Session,
    out: Output,
) -> Result<(), Fail> {
    keepd::refresh(session, args.forget_arrived, out)?;
    let files = Files::read(args)?;
    let arrived = session.carried(args.forget_arrived)?;
    let next = files.parse(args, &session.root, arrived.is_none())?;
    let release = next.image.release().unwrap_or("unknown").to_owned();
    let plain_line = next::plain_line(args, &session.root, next.image.header().cmdline_max)?;
    if let Some(warning) = next::plain_warning(&*next.image, &plain_line, &session.root)? {
        out.warn(&warning);
    }
    // What cannot work now will hardly work in a shutdown: say so while somebody listens.
    if !args.no_module_check {
        module::require_for_drivers(&session.root, next.image.release())?;
    }
    let choice = on_failure
        .map_or_else(usual_choice, Ok)
        .unwrap_or_else(|what| {
            out.warn(&what.to_string());
            OnFailure::default()
        });
    let measure = || -> Result<(usize, u64, PhysAddr, Duration), Fail> {
        let part = module::look(session, arrived, out)?;
        let inputs = Inputs::gather(session, &session.state.keep()?, arrived, &next, args, part)?;
        let plan = inputs.plan(&RangeSet::new())?;
        if let Err(fail) = memory::require(&inputs, &plan, session) {
            out.warn(&format!(
                "as of now, with all services running: {}",
                fail.what
            ));
        }
        let sizes = inputs.items.iter().map(|item| item.size);
        let memory = plan.image.kernel.segment().start();
        let time = time::at_least(plan.totals.payload);
        Ok((inputs.items.len(), sizes.sum(), memory, time))
    };
    let (entries, bytes, memory, time) = measure().or_else(|fail| {
        let left = keepd::effort::leave_out_all(&fail, session, args.forget_arrived)?;
        if left.is_empty() {
            return Err(fail);
        }
        out.warn(&format!(
            "without the best-effort entries {}, as of now: {}",
            left.join(", "),
            fail.what
        ));
        measure()
    })?;
    time::require(time, time::limit(), args.slow_ok)?;
    let armed = ArmedFile {
        kernel: crate::shown::path(&args.kernel),
        release,
        initrd: next.initrd.is_some(),
        reuse_cmdline: args.reuse_cmdline,
        command_line: args.command_line.clone(),
        append: args.append.clone(),
        scratch: args.scratch.clone(),
        max_ranges: args.max_ranges,
        no_activate: args.no_activate,
        no_module_check: args.no_module_check,
        forget_arrived: args.forget_arrived,
        plain_line,
        on_failure,
        places: places::of(&list::effective(arrived, &session.state.keep()?), session)?,
        time: crate::now_ns(),
    };
    disarm(session)?;
    copies(args, session)?;
    session.state.write(RECORD, &armed)?;
    let loaded = match choice {
        OnFailure::Plain => load_plain(&armed, session),
        OnFailure::Cold | OnFailure::Stop => load_stand_in(memory, session),
    };
    if let Err(fail) = loaded.and_then(|()| session.state.clear_settled()) {
        disarm(session)?;
        return Err(fail);
    }
    super::generator::update(session, out);
    let unit = capture_unit_is_active();
    if !unit {
        out.warn(&format!(
            "{CAPTURE_UNIT} is not active, so nothing will take the content: systemctl start {CAPTURE_UNIT}"
        ));
    }
    let doc = serde_json::json!({
        "armed": armed.release, "on_failure": armed.on_failure, "entries": entries,
        "bytes_now": bytes, "capture_unit_active": unit,
        "seconds_at_least": time.as_secs(),
    });
    out.result(&doc, || {
        println!(
            "armed {}: {} ({} as of now) {} taken when the system stops",
            armed.release,
            output::count(entries, "entry", "entries"),
            output::bytes(bytes),
            if entries == 1 { "is" } else { "are" },
        );
        if time.as_secs() >= 10 {
            println!(
                "that takes {} at least, more where a disk is read",
                output::seconds(time)
            );
        }
        println!("systemctl kexec starts it");
    });
    Ok(())
}

/// What is armed in this boot.
///
/// # Errors
///
/// When the record cannot be read.
pub fn armed(session: &Session) -> Result<Option<ArmedFile>, Fail> {
    session.state.read(RECORD)
}

/// Forgets what is armed; the loaded image is the caller's business.
///
/// # Errors
///
/// When a file cannot be removed.
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
    /// The arguments of the load, with the copies in place of the files.
    pub fn next(&self, session: &Session) -> Next {
        let dir = session.state.path().join(FOLDER);
        Next {
            kernel: dir.join("kernel"),
            initrd: self.initrd.then(|| dir.join("initrd")),
            reuse_cmdline: self.reuse_cmdline,
            command_line: self.command_line.clone(),
            append: self.append.clone(),
            scratch: self.scratch.clone(),
            max_ranges: self.max_ranges,
            no_activate: self.no_activate,
            no_module_check: self.no_module_check,
            forget_arrived: self.forget_arrived,
            // At shutdown a slow load is better than none.
            slow_ok: true,
            without_trace: false,
            // Asked when it was armed: at shutdown nobody is there to answer.
            compat: crate::args::Compat {
                next_catalogue: None,
                ignore_compat: true,
            },
        }
    }
}

/// Loads the armed kernel without a handover.
///
/// # Errors
///
/// [`Status::LoadFailed`].
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
    let initrd = next.initrd.as_deref().map(open).transpose()?;
    System
        .kexec_unload()
        .map_err(|err| load::call_fail(&err, session))?;
    session.state.clear_loaded()?;
    file_load::load(&kernel, initrd.as_ref(), &armed.plain_line).map_err(|err| {
        Fail::new(
            Status::LoadFailed,
            format!("{} without a handover: {}", armed.kernel, chain(&err)),
        )
        .fix("kho load takes kernel and content at once")
    })
}

/// Loads what resets the machine, in the page of memory at this address.
///
/// # Errors
///
/// [`Status::LoadFailed`].
fn load_stand_in(at: PhysAddr, session: &Session) -> Result<(), Fail> {
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
    System
        .kexec_unload()
        .map_err(|err| load::call_fail(&err, session))?;
    session.state.clear_loaded()?;
    System
        .kexec_load(at, &[segment], LoadFlags::DEFAULT)
        .map_err(|err| load::call_fail(&err, session))
}

/// What the administrator chose for every handover that fails: in the environment, else in [`DEFAULTS`], else the default.
///
/// # Errors
///
/// What is wrong with the choice; the default holds then.
pub fn usual_choice() -> Result<OnFailure, String> {
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

/// The last value of a name in lines of `NAME=VALUE`, as systemd.exec(5) has them under `EnvironmentFile=`; none when it
/// is empty.
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

/// Copies kernel and initrd to the state directory.
fn copies(args: &Next, session: &Session) -> Result<(), Fail> {
    session.state.prepare()?;
    let dir = session.state.path().join(FOLDER);
    DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .or_status(Status::Failed)?;
    for (from, name) in [
        (Some(&args.kernel), "kernel"),
        (args.initrd.as_ref(), "initrd"),
    ] {
        let Some(from) = from else { continue };
        let to = dir.join(name);
        let copy = || -> std::io::Result<u64> {
            let mut out = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&to)?;
            std::io::copy(&mut File::open(from)?, &mut out)
        };
        if let Err(err) = copy() {
            disarm(session)?;
            let full = err.kind() == std::io::ErrorKind::StorageFull;
            let status = if full {
                Status::NoSpace
            } else {
                Status::Failed
            };
            return Err(Fail::new(
                status,
                format!("cannot copy {} to {}: {err}", from.display(), to.display()),
            )
            .fix("the copies stay in RAM until the system stops; enlarge that file system"));
        }
    }
    Ok(())
}

/// Whether systemd will call `kho capture` when the system stops.
pub fn capture_unit_is_active() -> bool {
    Path::new("/run/systemd/system").is_dir()
        && Command::new("systemctl")
            .args(["is-active", "--quiet", CAPTURE_UNIT])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
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
