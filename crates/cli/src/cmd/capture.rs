//! `kho capture`: at shutdown, the content for the kernel that `kho load --arm` took.

use super::arm::{self, Armed};
use crate::args::{self, OnFailure};
use crate::exit::{Fail, OrStatus, Status};
use crate::handover::load;
use crate::keepd::{self, effort};
use crate::output::{self, Output};
use crate::session::Session;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::sys::syscalls::{Kernel, System};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// In the state directory while a capture is at work: left there by one that was killed.
const MARK: &str = "capturing";

/// The administrator's usual choice, in the environment: the unit reads it from /etc/default/kho.
const ON_FAILURE: &str = "KHO_ON_FAILURE";

/// Runs `kho capture`.
///
/// # Errors
///
/// What made the capture fail, after the fallback was prepared.
pub fn run(args: &args::Capture, session: &Session, out: Output) -> Result<(), Fail> {
    if args.if_kexec && !is_kexec()? {
        return Ok(());
    }
    let _lock = session.lock()?;
    let armed = arm::armed(session)?;
    let on_failure = args
        .on_failure
        .or(armed.as_ref().and_then(|armed| armed.on_failure))
        .unwrap_or_else(usual);
    let mark = session.state.path().join(MARK);
    if args.settle {
        if !mark.exists() {
            return Ok(());
        }
        let fail = Fail::new(
            Status::Failed,
            "the capture did not come to its end (killed or timed out)",
        );
        return Err(fall_back(fail, on_failure, armed.as_ref(), session));
    }
    std::fs::write(&mark, "").or_status(Status::Failed)?;
    match capture(armed.as_ref(), session, out) {
        Ok(()) => {
            remove(&mark);
            arm::disarm(session)
        }
        Err(fail) => Err(fall_back(fail, on_failure, armed.as_ref(), session)),
    }
}

fn capture(armed: Option<&Armed>, session: &Session, out: Output) -> Result<(), Fail> {
    let Some(armed) = armed else {
        return not_armed(session, out);
    };
    // From here on a failure leaves nothing loaded, least of all something out of date.
    System
        .kexec_unload()
        .map_err(|err| load::call_fail(&err, session))?;
    session.state.clear_loaded()?;
    let changes = keepd::apply(session, keepd::When::Handover)?;
    super::boot::report(&changes, out);
    let unreadable = effort::leave_out_unreadable(session)?;
    for left in changes.left_out.iter().chain(&unreadable) {
        loud(&format!("kho: {left}"));
    }
    let next = armed.next(session);
    let loaded = load::run(&next, session, &System, out).or_else(|fail| {
        let left = effort::leave_out_all(&fail, session)?;
        if left.is_empty() {
            return Err(fail);
        }
        loud(&format!(
            "kho: once more without the best-effort entries {}: {}",
            left.join(", "),
            fail.what.replace('\n', " ")
        ));
        load::run(&next, session, &System, out)
    })?;
    out.result(&loaded, || {
        println!(
            "captured {} {} for {} (hop {}): {} copied, {} in place, {:.1} s",
            loaded.entries,
            if loaded.entries == 1 {
                "entry"
            } else {
                "entries"
            },
            loaded.release,
            loaded.hop,
            output::bytes(loaded.copied),
            output::bytes(loaded.in_place),
            loaded.seconds,
        );
    });
    Ok(())
}

/// Without `load --arm`: an image that `kho load` loaded must still hold what it would hold now.
fn not_armed(session: &Session, out: Output) -> Result<(), Fail> {
    if KexecState::read(&session.root)
        .or_status(Status::Failed)?
        .loaded
        != Some(true)
    {
        loud("kho: no kernel is armed or loaded: nothing is handed over");
        return Ok(());
    }
    match super::exec::require_ours(session) {
        Ok(record) => {
            super::exec::require_phase(&record, session)?;
            super::exec::require_fresh(&record, session)?;
            out.remark(&format!(
                "{} was loaded before and still holds what is kept",
                record.release
            ));
            Ok(())
        }
        // Somebody wanted a plain kexec. That is not a failed handover, but not a silent one either.
        Err(fail) if fail.status == Status::NotOurs => {
            loud(&format!("kho: {}: nothing is handed over", fail.what));
            Ok(())
        }
        Err(fail) => Err(fail),
    }
}

/// Unloads, and prepares what the administrator chose. Gives the failure back, for the exit status.
fn fall_back(
    mut fail: Fail,
    on_failure: OnFailure,
    armed: Option<&Armed>,
    session: &Session,
) -> Fail {
    let unloaded = System.kexec_unload();
    if let Err(err) = &unloaded {
        fail.what.push_str(&format!(
            "; and the loaded image cannot be unloaded: {}",
            crate::exit::chain(err)
        ));
    }
    let then = match (on_failure, armed) {
        (OnFailure::Plain, Some(armed)) => match arm::load_plain(armed, session) {
            Ok(()) => format!("{} starts without a handover", armed.release),
            Err(plain) => format!("a plain start of {} fails too ({}), so the machine reboots", armed.release, plain.what),
        },
        (OnFailure::Plain, None) => "no kernel is armed to start without a handover, so the machine reboots".to_owned(),
        (OnFailure::Cold, _) => "nothing is loaded, so the machine reboots through its firmware".to_owned(),
        (OnFailure::Stop, _) => match stop() {
            Ok(()) => "the shutdown is stopped: emergency shell on the console, systemctl reboot leaves it".to_owned(),
            Err(why) => format!("the shutdown cannot be stopped ({why}), so the machine reboots"),
        },
    };
    loud(&format!(
        "kho: NOTHING IS HANDED OVER: {}",
        fail.what.replace('\n', " ")
    ));
    loud(&format!("kho: {then}"));
    // It is settled: nothing is left for whoever comes after us.
    remove(&session.state.path().join(MARK));
    let _ = session.state.clear_loaded();
    let _ = arm::disarm(session);
    fail.fix(then)
}

/// What the administrator chose for every handover.
fn usual() -> OnFailure {
    let Some(text) = std::env::var_os(ON_FAILURE).filter(|text| !text.is_empty()) else {
        return OnFailure::default();
    };
    let known = text
        .to_str()
        .and_then(|text| <OnFailure as clap::ValueEnum>::from_str(text, false).ok());
    known.unwrap_or_else(|| {
        // A typing error must not be worse than no choice at all.
        loud(&format!(
            "kho: {ON_FAILURE} is {text:?}, which is none of plain, cold, stop: taken as cold"
        ));
        OnFailure::default()
    })
}

/// Calls the shutdown off and asks for the emergency shell.
fn stop() -> Result<(), String> {
    for arguments in [
        &["cancel"][..],
        &[
            "--no-block",
            "--job-mode=replace-irreversibly",
            "start",
            "emergency.target",
        ],
    ] {
        let output = systemctl(arguments).map_err(|err| err.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
    }
    Ok(())
}

/// Whether systemd is on its way to `kexec.target`.
fn is_kexec() -> Result<bool, Fail> {
    let output = systemctl(&["show", "--property=Job", "--value", "kexec.target"])
        .or_status(Status::Failed)?;
    if !output.status.success() {
        return Err(Fail::new(
            Status::Failed,
            format!(
                "cannot ask systemd where it is going: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        ));
    }
    let job = String::from_utf8_lossy(&output.stdout);
    Ok(!matches!(job.trim(), "" | "0"))
}

fn systemctl(arguments: &[&str]) -> std::io::Result<std::process::Output> {
    Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
}

/// To the journal and the console: whoever watches a machine go down reads the latter.
fn loud(text: &str) {
    eprintln!("<2>{text}");
    // A console that cannot be written to is no reason to stop here.
    let _ = std::fs::write("/dev/kmsg", format!("<2>{text}\n"));
}

fn remove(mark: &PathBuf) {
    // The worst that a mark left over does is to ask for the same fallback once more.
    let _ = std::fs::remove_file(mark);
}
