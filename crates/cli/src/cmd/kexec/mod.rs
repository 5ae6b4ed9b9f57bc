//! `kho kexec`: takes the arguments of kexec(8), with a handover.

mod options;

use super::arm;
use crate::args::{self, KEXEC_HELP, Next};
use crate::armed;
use crate::carrier;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::handover::arch;
use crate::handover::load;
use crate::handover::next::{self, Files};
use crate::keepd;
use crate::list;
use crate::loaded;
use crate::lost::lost;
use crate::ordering;
use crate::output::Output;
use crate::session::Session;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::{cmdline, image};
use options::{Request, Syscall, Wanted};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Exit status of kexec(8) for wrong arguments and in its function `die()`.
const USAGE: u8 = 1;

/// Exit status of kexec(8) after a load, an unload or a start failed: its functions return -1.
const FAILED: u8 = 255;

/// Names of the real kexec(8) if this program is installed under its name.
const REAL: [&str; 4] = [
    "/usr/sbin/kexec.distrib",
    "/sbin/kexec.distrib",
    "/usr/sbin/kexec",
    "/sbin/kexec",
];

/// Exit status, with the reason for it.
struct Refusal(u8, String);

impl From<Fail> for Refusal {
    fn from(fail: Fail) -> Self {
        let status = if fail.status == Status::BadInitrd {
            USAGE
        } else {
            FAILED
        };
        Self(status, fail.to_string())
    }
}

/// Runs as kexec(8) if the program was called by that name or as `kho kexec`.
pub fn called(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.peekable();
    let program = args.next()?;
    let named = Path::new(&program).file_name() == Some(OsStr::new("kexec"));
    if !named && args.next_if(|verb| verb == "kexec").is_none() {
        return None;
    }
    let args: Vec<OsString> = args.collect();
    Some(ExitCode::from(run(&args)))
}

/// Refuses `kho --json kexec …` and the like: kexec(8) accepts no options before its own.
///
/// # Errors
///
/// Always.
pub fn from_verb(_: &[OsString]) -> Result<(), Fail> {
    Err(
        Fail::new(Status::Usage, "kho kexec takes kexec(8)'s options only")
            .fix("put kexec right after kho"),
    )
}

fn run(args: &[OsString]) -> u8 {
    match options::parse(args.iter().cloned()) {
        Ok(Request::Help) => println!("{KEXEC_HELP}"),
        Ok(Request::Version) => println!(
            "kexec-tools 2.0.29 as kho {} does it",
            env!("CARGO_PKG_VERSION")
        ),
        Ok(Request::CrashSize) => {
            let size = KexecState::read(&kho_kexec::sys::Root::system())
                .ok()
                .and_then(|state| state.crash_size);
            println!("{}", size.unwrap_or(0));
        }
        Ok(Request::Work(wanted)) => match work(&wanted, args) {
            Ok(status) => return status,
            Err(Refusal(status, what)) => {
                eprintln!("kexec: {what}");
                return status;
            }
        },
        Err(what) => {
            eprintln!("kexec: {what}\n{KEXEC_HELP}");
            return USAGE;
        }
    }
    0
}

fn work(wanted: &Wanted, args: &[OsString]) -> Result<u8, Refusal> {
    let dir = std::env::var_os("KHO_STATE_DIR").unwrap_or_else(|| "/run/kho".into());
    let session = Session::new(PathBuf::from(dir));
    let out = Output {
        json: false,
        quiet: false,
    };
    if wanted.debug {
        for option in &wanted.moot {
            eprintln!(
                "kexec: {option} has no effect: the plan decides where things go, and the kernel stops its devices"
            );
        }
    }
    if wanted.status {
        let state = KexecState::read(&session.root).or_status(Status::Failed)?;
        let loaded = if wanted.panic {
            state.crash_loaded
        } else {
            state.loaded
        };
        // If the kernel has no such file, kexec(8) fails too.
        return Ok(loaded.map_or(FAILED, u8::from));
    }
    if wanted.panic {
        let mut args = args.to_vec();
        if wanted.load && starts_arrival(wanted, &session)? {
            // kexec(8) and the kernel use the last `rdinit=`. A crash kernel has an initrd of its own.
            let mut append = OsString::from("--append=");
            append.push(wanted.append.as_deref().unwrap_or_default());
            append.push(" rdinit=/init");
            let end = args.iter().position(|arg| arg == "--");
            args.insert(end.unwrap_or(args.len()), append);
        }
        return Err(real(&args, "-p: the crash kernel is loaded by"));
    }
    if wanted.load && (wanted.kernel.as_deref()).is_some_and(|kernel| only_plain(kernel, &session))
    {
        let _lock = session.lock()?;
        session.state.clear_loaded()?;
        armed::disarm(&session)?;
        out.remark("kexec: the kernel is not relocatable and nothing is kept: kexec(8) loads it where it wants to be");
        return Err(real(args, "a kernel that is not relocatable is loaded by"));
    }
    if wanted.unload {
        let _lock = session.lock()?;
        loaded::unload(&session)?;
        armed::disarm(&session)?;
        ordering::update(&session, out);
    }
    if wanted.load {
        load_kernel(wanted, &session, out)?;
    }
    let loaded = || KexecState::read(&session.root).is_ok_and(|state| state.loaded == Some(true));
    if (wanted.exec || wanted.shutdown) && !loaded() {
        return Err(Refusal(USAGE, "Nothing has been loaded!".to_owned()));
    }
    if wanted.shutdown {
        let err = Command::new("/sbin/shutdown").args(["-r", "now"]).exec();
        return Err(Refusal(FAILED, format!("shutdown: {err}")));
    }
    if wanted.exec {
        return Err(start(wanted, &session, out));
    }
    Ok(0)
}

/// Whether no content would be lost, and the kernel must run at the address that it was linked for, as a memory test
/// must. Without content, no memory has to be protected from that kernel.
pub fn only_plain(kernel: &OsStr, session: &Session) -> bool {
    let file = image::read(Path::new(kernel));
    let relocatable = |bytes: &Vec<u8>| {
        !matches!(
            arch::parse(bytes),
            Err(image::ImageError::NotRelocatable { .. })
        )
    };
    file.is_ok_and(|bytes| !relocatable(&bytes)) && lost(session).is_none()
}

/// Whether the wanted command line comes from a kernel that `kho` loaded, and names the arrival program.
fn starts_arrival(wanted: &Wanted, session: &Session) -> Result<bool, Fail> {
    let mut line = Vec::new();
    if wanted.reuse_cmdline {
        line = session
            .root
            .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
            .or_status(Status::Failed)?;
        line.push(b' ');
    }
    line.extend_from_slice(wanted.append.as_deref().unwrap_or_default().as_bytes());
    Ok(cmdline::starts_arrival(&line))
}

fn load_kernel(wanted: &Wanted, session: &Session, out: Output) -> Result<(), Refusal> {
    let Some(kernel) = &wanted.kernel else {
        return Err(Refusal(
            FAILED,
            format!("No kernel specified\n{KEXEC_HELP}"),
        ));
    };
    // kexec(8) exits with one status if it cannot read a file, and with another if a load fails.
    if let Err(err) = File::open(kernel) {
        return Err(Refusal(
            USAGE,
            format!("Cannot open `{}': {err}", kernel.display()),
        ));
    }
    if let Some(kind) = wanted
        .kind
        .as_deref()
        .filter(|kind| *kind != "bzImage" && *kind != "bzImage64")
    {
        return Err(Refusal(
            FAILED,
            format!("Unsupported kernel type {}", kind.display()),
        ));
    }
    // A unified kernel image has its own initrd and command line.
    let unified = image::read(Path::new(kernel))
        .is_ok_and(|file| matches!(image::identify(&file), image::Found::Uki { .. }));
    let bare = !wanted.reuse_cmdline && wanted.append.is_none() && !unified;
    let next = Next {
        initrd: wanted.initrd.iter().map(PathBuf::from).collect(),
        // As in kexec(8), there is no initrd unless the arguments name one.
        no_initrd: wanted.initrd.is_empty() && !unified,
        carrier: match wanted.syscall {
            Syscall::Load => carrier::Wanted::Memory,
            Syscall::Any | Syscall::File => carrier::Wanted::Auto,
        },
        reuse_cmdline: wanted.reuse_cmdline,
        command_line: match bare {
            true => Some(OsString::new()),
            false => wanted.append.clone().filter(|_| !wanted.reuse_cmdline),
        },
        append: wanted.append.clone().filter(|_| wanted.reuse_cmdline),
        ..Next::of_kernel(kernel)
    };
    if bare {
        let running = session
            .root
            .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
            .or_status(Status::Failed)?;
        if next::loses_root(&running, b"") {
            out.warn("no command line is given, so the next kernel gets an empty one and finds no root file system: --reuse-cmdline takes this kernel's");
        }
    }
    let _lock = session.lock()?;
    if wanted.syscall == Syscall::File {
        return load_file(&next, session, out);
    }
    // Services still run, and may change the content until they stop: it is taken then.
    let later = wanted.said_load && !wanted.exec && armed::capture_unit_is_active(session);
    if later {
        arm::run(&next, None, session, out)?;
    } else {
        keepd::refresh(session, next.forget_arrived, out)?;
        let loaded = load::run(&next, session, out)?;
        armed::disarm(session)?;
        if wanted.debug {
            eprintln!(
                "kexec: {} for hop {}, {} entries handed over",
                loaded.release, loaded.hop, loaded.entries
            );
        }
    }
    Ok(())
}

/// Loads with `-s`: the kernel loads the files itself (`kexec_file_load`). What is kept goes in the initrd.
fn load_file(next: &Next, session: &Session, out: Output) -> Result<(), Refusal> {
    keepd::refresh(session, next.forget_arrived, out)?;
    let kept = list::effective(session.arrived()?.as_ref(), &session.state.keep()?);
    if !kept.is_empty() {
        let next = Next {
            carrier: carrier::Wanted::Initrd,
            ..next.clone()
        };
        let loaded = load::run(&next, session, out).map_err(|fail| {
            Refusal(
                FAILED,
                format!(
                    "-s cannot hand over what is kept ({} entries) in memory, and not in the initrd: {}\n  -> use -c or \
                     -a, or take everything off the list: kho keep --remove",
                    kept.len(),
                    fail.what
                ),
            )
        })?;
        out.remark(&format!(
            "kexec: -s: the initrd carries {} entries",
            loaded.entries
        ));
        return Ok(armed::disarm(session)?);
    }
    out.remark("kexec: -s: nothing is kept, so this is a plain kexec");
    let files = Files::read(next)?;
    let parsed = arch::parse(&files.kernel).map_err(|err| {
        Refusal(
            FAILED,
            format!("{}: {}", next.kernel.display(), chain(&err)),
        )
    })?;
    let line = files.plain_line(next, &session.root, parsed.header().cmdline_max)?;
    if let Some(warning) = next::plain_warning(&*parsed, &line, &session.root)? {
        out.warn(&warning);
    }
    let (kernel, initrd) = files.open()?;
    session.state.clear_loaded()?;
    armed::disarm(session)?;
    session
        .kernel
        .kexec_file_load(&kernel, initrd.as_ref(), &line)
        .map_err(|err| Refusal(FAILED, chain(&err)))
}

/// Starts the loaded image without a check of who loaded it, as kexec(8) does: systemd runs this when all file systems
/// are gone, and no check is possible then. An armed kernel without a capture is captured first.
fn start(wanted: &Wanted, session: &Session, out: Output) -> Refusal {
    match armed::armed(session) {
        Ok(None) => {}
        Ok(Some(_)) => {
            if let Err(fail) = super::capture::run(&args::Capture::NOW, session, out) {
                return fail.into();
            }
        }
        Err(fail) => return fail.into(),
    }
    if wanted.sync {
        session.kernel.sync();
    }
    match session.kernel.reboot_kexec() {
        Ok(never) => match never {},
        Err(err) => Refusal(FAILED, format!("kexec failed: {}", chain(&err))),
    }
}

/// Runs the real kexec(8) for `what`. Returns only if that is impossible, with the reason.
fn real(args: &[OsString], what: &str) -> Refusal {
    let me = std::env::current_exe()
        .and_then(|path| path.canonicalize())
        .ok();
    for path in REAL {
        let found = Path::new(path).canonicalize().ok();
        if found.is_some() && found != me {
            let err = Command::new(path).args(args).exec();
            return Refusal(FAILED, format!("{path}: {err}"));
        }
    }
    Refusal(
        FAILED,
        format!("{what} kexec(8) of kexec-tools, which is not installed"),
    )
}
