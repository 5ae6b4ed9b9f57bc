//! `kho load --arm`: the kernel now, the content when the system stops.
//!
//! Kernel and initrd are copied to RAM, because `/boot` may be gone or changed when the content is taken. In
//! the meantime a plain image of the same kernel is loaded: `systemctl kexec` (and, since systemd 254,
//! `reboot`) look at `/sys/kernel/kexec_loaded` before they choose what to do.

use crate::args::Next;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::handover::next::{self, Files};
use crate::handover::prepare::Inputs;
use crate::keepd;
use crate::module;
use crate::on_failure::OnFailure;
use crate::output::{self, Output};
use crate::session::Session;
use crate::state::ArmedFile;
use kho::RangeSet;
use kho_kexec::sys::file_load;
use kho_kexec::sys::syscalls::{Kernel, System};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// Record of what is armed, in the state directory.
const RECORD: &str = "armed.json";

/// Folder of the copies, in the state directory.
const FOLDER: &str = "armed";

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
    let plain_line = next::plain_line(args, &session.root, next.image.needs().cmdline_max)?;
    // What cannot work now will hardly work in a shutdown: say so while somebody listens.
    if !args.no_module_check {
        module::require_for_drivers(&session.root, next.image.release())?;
    }
    let measure = || -> Result<(usize, u64), Fail> {
        let part = module::look(session, arrived, out)?;
        let inputs = Inputs::gather(
            session,
            &session.state.keep()?,
            arrived,
            &next,
            args.max_ranges,
            part,
        )?;
        inputs.plan(&RangeSet::new())?;
        let sizes = inputs.items.iter().map(|item| item.size);
        Ok((inputs.items.len(), sizes.sum()))
    };
    let (entries, bytes) = measure().or_else(|fail| {
        let left = keepd::effort::leave_out_all(&fail, session, args.forget_arrived)?;
        if left.is_empty() {
            return Err(fail);
        }
        out.remark(&format!(
            "warning: without the best-effort entries {}, as of now: {}",
            left.join(", "),
            fail.what
        ));
        measure()
    })?;
    let armed = ArmedFile {
        kernel: args.kernel.clone(),
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
        time: crate::now_ns(),
    };
    disarm(session)?;
    copies(args, session)?;
    session.state.write(RECORD, &armed)?;
    if let Err(fail) = load_plain(&armed, session) {
        disarm(session)?;
        return Err(fail);
    }
    let unit = capture_unit_is_active();
    let doc = serde_json::json!({
        "armed": armed.release, "on_failure": armed.on_failure, "entries": entries,
        "bytes_now": bytes, "capture_unit_active": unit,
    });
    out.result(&doc, || {
        println!(
            "armed {}: {} ({} as of now) {} taken when the system stops",
            armed.release,
            output::count(entries, "entry", "entries"),
            output::bytes(bytes),
            if entries == 1 { "is" } else { "are" },
        );
        println!("systemctl kexec starts it");
    });
    if !unit {
        out.remark(&format!(
            "warning: {CAPTURE_UNIT} is not active, so nothing will take the content: systemctl start {CAPTURE_UNIT}"
        ));
    }
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
        .map_err(|err| crate::handover::load::call_fail(&err, session))?;
    session.state.clear_loaded()?;
    file_load::load(&kernel, initrd.as_ref(), &armed.plain_line).map_err(|err| {
        Fail::new(
            Status::LoadFailed,
            format!(
                "{} without a handover: {}",
                armed.kernel.display(),
                chain(&err)
            ),
        )
        .fix("kho load takes kernel and content at once")
    })
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
