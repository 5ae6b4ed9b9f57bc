//! `kho kexec`: kexec(8) with a handover.

mod options;

use super::arm;
use crate::args::{self, Next};
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::handover::{load, next};
use crate::list;
use crate::output::Output;
use crate::session::Session;
use kho_kexec::image;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::sys::file_load;
use kho_kexec::sys::syscalls::{Kernel, System};
use options::{Request, Syscall, Wanted};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Exit status of kexec(8) for wrong arguments and for `die()`.
const USAGE: u8 = 1;

/// Exit status of kexec(8) when a load, an unload or a start failed: its functions return -1.
const FAILED: u8 = 255;

/// Names under which a real kexec(8) may be found when this program has taken its place.
const REAL: [&str; 4] = [
    "/usr/sbin/kexec.distrib",
    "/sbin/kexec.distrib",
    "/usr/sbin/kexec",
    "/sbin/kexec",
];

const HELP: &str = "\
Usage: kho kexec [OPTION]... [KERNEL]
The options and exit statuses of kexec(8), with what is kept handed over.

 -l, --load               Load KERNEL with what is kept. Where kho-capture.service is active the
                          content is taken when the system stops (as kho load --arm does).
 -e, --exec               Start what is loaded.
 -f, --force              Load and start at once, without a shutdown.
 -u, --unload             Unload.
 -S, --status             Exit with 1 if the crash kernel (with -l: the next kernel) is loaded, else 0.
     --initrd=FILE, --ramdisk=FILE
     --append=STRING, --command-line=STRING
     --reuse-cmdline      Start from the running kernel's command line.
 -t, --type=TYPE          bzImage or bzImage64.
 -c, --kexec-syscall      Use kexec_load, which hands over.
 -a, --kexec-syscall-auto The same: kexec_file_load cannot hand over.
 -s, --kexec-file-syscall Use kexec_file_load. The kernel itself then writes what it tells its successor, so
                          nothing can be handed over: refused as long as something is kept.
 -y, --no-sync            Do not write dirty data before the start.
 -d, --debug              Say what is ignored, and why.
 -p, --load-panic         Given to kexec(8) of kexec-tools: the crash kernel is not kho's.
     --print-ckr-size     Size of the crash kernel's region.
 -h, --help   -v, --version

Without effect here: -i -x --mem-min --mem-max --dtb --hotplug and options of the console.

Examples:
  kho kexec -l /boot/vmlinuz-6.12 --initrd=/boot/initrd.img-6.12 --reuse-cmdline
  kho kexec -e";

/// Why it failed, and the exit status.
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

/// Runs as kexec(8) when called by that name or as `kho kexec`.
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

/// `kho --json kexec …` and the like: kexec(8) has no place for options before its own.
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
        Ok(Request::Help) => println!("{HELP}"),
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
            eprintln!("kexec: {what}\n{HELP}");
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
        // Without the kernel's file kexec(8) fails, too.
        return Ok(loaded.map_or(FAILED, u8::from));
    }
    if wanted.panic {
        return Err(real(args));
    }
    if wanted.unload {
        let _lock = session.lock()?;
        System
            .kexec_unload()
            .map_err(|err| load::call_fail(&err, &session))?;
        session.state.clear_loaded()?;
        arm::disarm(&session)?;
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

fn load_kernel(wanted: &Wanted, session: &Session, out: Output) -> Result<(), Refusal> {
    let Some(kernel) = &wanted.kernel else {
        return Err(Refusal(FAILED, format!("No kernel specified\n{HELP}")));
    };
    // Its functions that read files die, with another status than those that load.
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
    let text = |text: &OsString| {
        text.clone()
            .into_string()
            .map_err(|_| Refusal(FAILED, "the command line is not UTF-8".to_owned()))
    };
    let next = Next {
        no_activate: false,
        no_module_check: false,
        kernel: kernel.into(),
        initrd: wanted.initrd.as_ref().map(PathBuf::from),
        reuse_cmdline: wanted.reuse_cmdline,
        command_line: None,
        append: wanted.append.as_ref().map(text).transpose()?,
        scratch: None,
        max_ranges: None,
        forget_arrived: false,
        compat: crate::args::Compat::default(),
    };
    let _lock = session.lock()?;
    if wanted.syscall == Syscall::File {
        return load_file(&next, session, out);
    }
    // Services still run: what is read now would be old when they have stopped.
    let later = wanted.said_load && !wanted.exec && arm::capture_unit_is_active();
    if later {
        arm::run(&next, None, session, out)?;
    } else {
        super::boot::report(
            &crate::keepd::apply(session, crate::keepd::When::Handover)?,
            out,
        );
        let loaded = load::run(&next, session, &System, out)?;
        arm::disarm(session)?;
        if wanted.debug {
            eprintln!(
                "kexec: {} for hop {}, {} entries handed over",
                loaded.release, loaded.hop, loaded.entries
            );
        }
    }
    Ok(())
}

/// `-s`: what the kernel itself can do.
fn load_file(next: &Next, session: &Session, out: Output) -> Result<(), Refusal> {
    super::boot::report(
        &crate::keepd::apply(session, crate::keepd::When::Handover)?,
        out,
    );
    let kept = list::effective(session.arrived()?.as_ref(), &session.state.keep()?);
    if !kept.is_empty() {
        return Err(Refusal(
            FAILED,
            format!(
                "-s cannot hand over what is kept ({} entries): with kexec_file_load the kernel itself writes what its \
                 successor is told\n  -> use -c or -a, or take everything off the list: kho keep --remove",
                kept.len()
            ),
        ));
    }
    out.remark("kexec: -s: nothing is kept, so this is a plain kexec");
    let bytes = image::read(&next.kernel).map_err(|err| {
        Refusal(
            FAILED,
            format!("{}: {}", next.kernel.display(), chain(&err)),
        )
    })?;
    let parsed = image::parse(&bytes).map_err(|err| {
        Refusal(
            FAILED,
            format!("{}: {}", next.kernel.display(), chain(&err)),
        )
    })?;
    let line = next::plain_line(next, &session.root, parsed.needs().cmdline_max)?;
    let open = |path: &Path| {
        File::open(path).map_err(|err| Refusal(FAILED, format!("{}: {err}", path.display())))
    };
    let kernel = open(&next.kernel)?;
    let initrd = next.initrd.as_deref().map(open).transpose()?;
    session.state.clear_loaded()?;
    arm::disarm(session)?;
    file_load::load(&kernel, initrd.as_ref(), &line).map_err(|err| Refusal(FAILED, chain(&err)))
}

/// Starts whatever is loaded, as kexec(8) does: systemd calls it when all file systems are gone, where nothing
/// can be checked any more. What is armed and was not captured is captured first.
fn start(wanted: &Wanted, session: &Session, out: Output) -> Refusal {
    match arm::armed(session) {
        Ok(None) => {}
        Ok(Some(_)) => {
            if let Err(fail) = super::capture::run(&args::Capture::NOW, session, out) {
                return fail.into();
            }
        }
        Err(fail) => return fail.into(),
    }
    if wanted.sync {
        System.sync();
    }
    match System.reboot_kexec() {
        Ok(never) => match never {},
        Err(err) => Refusal(FAILED, format!("kexec failed: {}", chain(&err))),
    }
}

/// Hands over to the real kexec(8); comes back only with a reason.
fn real(args: &[OsString]) -> Refusal {
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
        "-p: the crash kernel is loaded by kexec(8) of kexec-tools, which is not installed"
            .to_owned(),
    )
}
