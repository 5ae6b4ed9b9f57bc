//! `kho capture`: takes the content at the end of the shutdown, for the armed kernel.

use crate::args;
use crate::armed;
use crate::exit::{Fail, Status};
use crate::handover::{fresh, load, places, steps};
use crate::keepd::{self, effort};
use crate::last::{Attempt, Outcome};
use crate::list;
use crate::loaded;
use crate::lost::lost;
use crate::module;
use crate::notify;
use crate::on_failure::OnFailure;
use crate::output::{self, Output};
use crate::session::{Session, busy};
use crate::state::ArmedFile;
use crate::systemd;
use crate::trace::wish;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::sys::lock::{Lock, LockError};
use std::time::Duration;

/// Longest wait for another `kho` before the fallback, after a capture that was killed or timed out.
const GRACE: Duration = Duration::from_secs(10);

/// Longest wait for a killed `kho` to end: the kernel finishes a running system call first.
const KILLED: Duration = Duration::from_secs(10);

/// Shortest time for a fallback, whatever `TimeoutStopSec=` says: the fallback reads a kernel and loads it.
const FALL_BACK_TIME: Duration = Duration::from_secs(120);

/// Runs `kho capture`.
///
/// # Errors
///
/// The failure of the capture, after the fallback is prepared.
pub fn run(args: &args::Capture, session: &Session, out: Output) -> Result<(), Fail> {
    if args.settle {
        return settle(args, session);
    }
    if args.at_end {
        return at_end(args, session);
    }
    if !args.if_kexec {
        let _lock = session.lock()?;
        return take(args, session, out);
    }
    session.state.clear_settled()?;
    let _alive = notify::WhileWorking::start();
    // From here on every failure leads to the fallback: the image that was loaded must not start as if the capture had
    // succeeded.
    let locked = is_kexec().and_then(|kexec| {
        kexec
            .then(|| seize(Duration::from_secs(args.wait), session))
            .transpose()
    });
    let result = match locked {
        Ok(None) => return Ok(()),
        Ok(Some(_lock)) => take(args, session, out),
        Err(fail) => Err(fall_back(fail, args, session)),
    };
    session.state.set_settled();
    result
}

/// Captures; falls back to the administrator's choice if that fails. The caller holds the lock.
fn take(args: &args::Capture, session: &Session, out: Output) -> Result<(), Fail> {
    let armed = armed::armed(session);
    match armed.and_then(|armed| capture(armed.as_ref(), session, out)) {
        Ok(()) => armed::disarm(session),
        Err(fail) => Err(fall_back(fail, args, session)),
    }
}

/// Runs after the capture of the unit. Does nothing if that capture finished; otherwise runs the fallback.
fn settle(args: &args::Capture, session: &Session) -> Result<(), Fail> {
    if session.state.is_settled() {
        return Ok(());
    }
    // If systemd does not answer, a kexec is assumed: unloading an image does no harm in any other kind of shutdown.
    if args.if_kexec && matches!(is_kexec(), Ok(false)) {
        return Ok(());
    }
    // The administrator sets a short `TimeoutStopSec=` for the capture. It must not end the fallback that follows.
    notify::extend(FALL_BACK_TIME);
    fail_unsettled(
        "the capture did not come to its end (killed or timed out)",
        args,
        session,
    )
}

/// Runs after all services have stopped and file systems are gone, right before systemd starts the loaded image. Runs
/// the fallback unless a capture finished. The capture's unit may be masked or may never have been started. systemd
/// skips the unit for `systemctl kexec --force`, and when the time for the shutdown is over.
fn at_end(args: &args::Capture, session: &Session) -> Result<(), Fail> {
    if session.state.is_settled() {
        return Ok(());
    }
    let nothing = KexecState::read(&session.root).is_ok_and(|state| state.loaded == Some(false));
    if nothing && matches!(armed::armed(session), Ok(None)) {
        return Ok(());
    }
    let why = format!(
        "the system went down without {}, which takes the content",
        armed::CAPTURE_UNIT
    );
    fail_unsettled(&why, args, session)
}

/// Runs the fallback if a kernel is armed, or loaded with a handover, and no capture finished.
fn fail_unsettled(why: &str, args: &args::Capture, session: &Session) -> Result<(), Fail> {
    let mut fail = Fail::new(Status::Failed, why);
    if matches!(armed::armed(session), Ok(None))
        && let Err(other) = loaded::require_ours(session)
        // If `kho` cannot tell who loaded the image, the image may be its own, with content that is out of date.
        && matches!(other.status, Status::NotOurs | Status::NothingLoaded)
    {
        match lost(session) {
            Some(what) => {
                fail = Fail::new(other.status, format!("{why}; {}, and {what}", other.what))
            }
            None => {
                alert(
                    session,
                    &format!("kho: {why}; {}: left as it is", other.what),
                );
                return Ok(());
            }
        }
    }
    let _lock = seize(GRACE, session);
    let fail = fall_back(fail, args, session);
    session.state.set_settled();
    Err(fail)
}

/// Takes the lock. Kills a `kho` that holds the lock for longer than `wait`: systemd would kill that `kho` a little
/// later, with all other processes, and until then it could load an image. A killed command has done all of its work or
/// none.
///
/// # Errors
///
/// [`Status::Busy`] if the lock cannot be taken even after that.
fn seize(wait: Duration, session: &Session) -> Result<Lock, Fail> {
    session.state.prepare()?;
    let held = match session.lock_within(wait) {
        Ok(lock) => return Ok(lock),
        Err(held) => held,
    };
    let LockError::Held { pid: Some(pid), .. } = held else {
        return Err(busy(&held));
    };
    alert(
        session,
        &format!("kho: another kho (process {pid}) is still at work: it is killed"),
    );
    let killed = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    match killed {
        Some(Ok(())) => session.lock_within(KILLED).map_err(|held| busy(&held)),
        _ => Err(busy(&held)),
    }
}

fn capture(armed: Option<&ArmedFile>, session: &Session, out: Output) -> Result<(), Fail> {
    let Some(armed) = armed else {
        return not_armed(session, out);
    };
    // From here on, after a failure no image is loaded: an old image would hand over content that is out of date.
    loaded::unload(session)?;
    let changes = keepd::bring_up_to_date(session, armed.forget_arrived)?;
    keepd::report(&changes, out);
    let entries = list::effective(
        session.carried(armed.forget_arrived)?,
        &session.state.keep()?,
    );
    let elsewhere = places::changed(&armed.places, &entries, session)?;
    let (elsewhere, required) = effort::leave_out(elsewhere, session, armed.forget_arrived)?;
    if let Some(lost) = required.first() {
        return Err(Fail::new(
            Status::BadSource,
            format!("{}: {}", lost.label, lost.why),
        ));
    }
    for left in changes.left_out.iter().chain(&elsewhere) {
        alert(session, &format!("kho: {left}"));
    }
    let loaded = load_what_can_be(armed, session, out)?;
    let taken = Outcome::Captured {
        hop: loaded.hop,
        entries: loaded.entries,
    };
    remember(&Attempt::now(Some(loaded.release.clone()), taken), session);
    out.result(&loaded, || {
        println!(
            "captured {} for {} (hop {}): {}",
            output::count(loaded.entries, "entry", "entries"),
            loaded.release,
            loaded.hop,
            loaded.amounts(),
        );
    });
    Ok(())
}

/// Loads. If the load fails, retries without best-effort content where that may help: without the trace, without the
/// best-effort entries of `keep.d`, or without both.
fn load_what_can_be(
    armed: &ArmedFile,
    session: &Session,
    out: Output,
) -> Result<steps::Loaded, Fail> {
    let mut next = armed.next(session);
    let mut left_out = false;
    loop {
        let fail = match load::run(&next, session, out) {
            Ok(loaded) => return Ok(loaded),
            Err(fail) => fail,
        };
        let why = fail.what.replace('\n', " ");
        if fail.status == Status::Trace && !next.without_trace {
            next.without_trace = true;
            alert(
                session,
                &format!("kho: THE TRACE IS NOT HANDED OVER, the rest is tried without it: {why}"),
            );
            continue;
        }
        let mut without = Vec::new();
        if !std::mem::replace(&mut left_out, true) {
            without = effort::leave_out_all(&fail, session, armed.forget_arrived)?;
        }
        if without.is_empty()
            && !next.without_trace
            && effort::too_much(&fail)
            && trace_is_kept(session)?
        {
            without.push("the trace".to_owned());
            next.without_trace = true;
        }
        if without.is_empty() {
            return Err(fail);
        }
        alert(
            session,
            &format!(
                "kho: the capture failed and begins once more without the best-effort entries {}: {why}",
                without.join(", ")
            ),
        );
    }
}

fn trace_is_kept(session: &Session) -> Result<bool, Fail> {
    let arrived = session.arrived()?.as_ref();
    Ok(wish::effective(arrived, &session.state.keep()?).is_some())
}

/// Captures without an armed kernel: the image that `kho load` loaded must still hold the content that a load would
/// take now. If something is kept, and another tool loaded the kernel or no kernel is loaded, the handover failed: the
/// kept content ends with this kernel.
fn not_armed(session: &Session, out: Output) -> Result<(), Fail> {
    let fail = match loaded::require_ours(session) {
        Ok(record) => {
            loaded::require_phase(&record, session)?;
            fresh::require(&record, session, out)?;
            let taken = Outcome::Captured {
                hop: record.hop,
                entries: list::effective(session.arrived()?.as_ref(), &session.state.keep()?).len(),
            };
            remember(&Attempt::now(Some(record.release.clone()), taken), session);
            out.remark(&format!(
                "{} was loaded before and still holds what is kept",
                record.release
            ));
            return Ok(());
        }
        Err(fail) => fail,
    };
    if !matches!(fail.status, Status::NotOurs | Status::NothingLoaded) {
        return Err(fail);
    }
    match lost(session) {
        Some(what) => Err(Fail::new(fail.status, format!("{}, and {what}", fail.what))),
        // A plain kexec is intended, and no content is lost.
        None => {
            alert(
                session,
                &format!("kho: {}: nothing is handed over", fail.what),
            );
            Ok(())
        }
    }
}

/// Unloads the image, and prepares the administrator's choice. Returns the failure, for the exit status.
fn fall_back(mut fail: Fail, args: &args::Capture, session: &Session) -> Fail {
    // A record that cannot be read is treated as no record.
    let armed = armed::armed(session).ok().flatten();
    let on_failure = args
        .on_failure
        .or(armed.as_ref().and_then(|armed| armed.on_failure))
        .unwrap_or_else(|| configured(session));
    let armed = armed.as_ref();
    // If another tool loaded the image, a plain start of that image is also what its user intended.
    let theirs =
        armed.is_none() && fail.status == Status::NotOurs && on_failure == OnFailure::Plain;
    if !theirs {
        fail = loaded::unloaded_after(fail, session);
    }
    // A capture that was killed may have left drivers frozen for an image that is gone.
    if matches!(module::is_active(&session.root), Ok(true))
        && let Err(thaw) = module::write(&session.root, "active", "0")
    {
        alert(session, &format!("kho: drivers stay frozen: {}", thaw.what));
    }
    let then = match (on_failure, armed) {
        (OnFailure::Plain, Some(armed)) => match armed::load_plain(armed, session) {
            Ok(()) => format!("{} starts without a handover", armed.release),
            Err(plain) => format!("a plain start of {} fails too ({}), so the machine reboots", armed.release, plain.what),
        },
        (OnFailure::Plain, None) if theirs => "the kernel that somebody else loaded starts without a handover".to_owned(),
        (OnFailure::Plain, None) => "no kernel is armed to start without a handover, so the machine reboots".to_owned(),
        (OnFailure::Cold, _) if still_loaded(session) => {
            "an image is still loaded, and starts instead of the firmware".to_owned()
        }
        (OnFailure::Cold, _) => "nothing is loaded, so the machine reboots through its firmware".to_owned(),
        (OnFailure::Stop, _) => match stop() {
            Ok(()) => "the shutdown is stopped: emergency shell on the console, systemctl reboot leaves it".to_owned(),
            Err(why) => format!("the shutdown cannot be stopped ({why}), so the machine reboots"),
        },
    };
    alert(
        session,
        &format!(
            "kho: NOTHING IS HANDED OVER: {}",
            fail.what.replace('\n', " ")
        ),
    );
    alert(session, &format!("kho: {then}"));
    let release = armed.map(|armed| armed.release.clone());
    remember(&Attempt::failed(release, &fail, &then), session);
    // The capture is over: a later command must find no record.
    let _ = session.state.clear_loaded();
    let _ = armed::disarm(session);
    fail.fix(then)
}

/// Leaves a record of the attempt, which `kho status` shows after the next boot.
fn remember(attempt: &Attempt, session: &Session) {
    if let Err(err) = attempt.record(&session.root) {
        alert(
            session,
            &format!("kho: cannot record the result of the capture for the next boot: {err}"),
        );
    }
}

/// Whether an image is loaded; also true if the kernel does not say.
fn still_loaded(session: &Session) -> bool {
    !KexecState::read(&session.root).is_ok_and(|state| state.loaded == Some(false))
}

/// Returns the administrator's choice for failed handovers.
fn configured(session: &Session) -> OnFailure {
    armed::configured_choice().unwrap_or_else(|what| {
        // After an error in the file the default holds, as if there were no choice.
        alert(session, &format!("kho: {what}"));
        OnFailure::default()
    })
}

/// Stops the shutdown and asks for the emergency shell.
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
        let output = systemd::systemctl(arguments).map_err(|err| err.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
    }
    Ok(())
}

/// Whether systemd is shutting down for `kexec.target`.
fn is_kexec() -> Result<bool, Fail> {
    let job = systemd::show(
        &["--property=Job", "--value", "kexec.target"],
        "where it is going",
    )?;
    Ok(!matches!(job.trim(), "" | "0"))
}

/// Writes to the journal and to the console: a user who watches the shutdown reads the console.
fn alert(session: &Session, text: &str) {
    eprintln!("<2>{text}");
    // A console that cannot be written to must not stop the capture.
    let _ = std::fs::write(session.root.path("dev/kmsg"), format!("<2>{text}\n"));
}
