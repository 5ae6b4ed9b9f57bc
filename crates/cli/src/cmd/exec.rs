//! `kho exec`: start the loaded kernel, if it is the one that was meant.

use crate::exit::{Fail, OrStatus, Status, chain};
use crate::handover::fresh;
use crate::output::Output;
use crate::session::Session;
use crate::state::LoadedFile;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::sys::loaded::{self, Identity};
use kho_kexec::sys::syscalls::{Kernel, System};

/// Runs `kho exec`.
///
/// # Errors
///
/// [`Status::NothingLoaded`], [`Status::NotOurs`], [`Status::Stale`]; on success it does not return.
pub fn run(stale_ok: bool, session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    go(stale_ok, session, out)
}

/// With the lock held.
///
/// # Errors
///
/// As [`run`].
pub fn go(stale_ok: bool, session: &Session, out: Output) -> Result<(), Fail> {
    let record = require_ours(session)?;
    require_phase(&record, session)?;
    if !stale_ok {
        fresh::require(&record, session, out)?;
    }
    out.remark(&format!("starting {} (hop {})", record.release, record.hop));
    out.last_warnings();
    System.sync();
    match System.reboot_kexec() {
        Ok(never) => match never {},
        Err(err) => Err(Fail::new(Status::LoadFailed, chain(&err))),
    }
}

/// The record of our load, if what is loaded is still that.
///
/// # Errors
///
/// [`Status::NothingLoaded`], [`Status::NotOurs`], [`Status::CannotTell`].
pub fn require_ours(session: &Session) -> Result<LoadedFile, Fail> {
    if KexecState::read(&session.root)
        .or_status(Status::Failed)?
        .loaded
        == Some(false)
    {
        return Err(Fail::new(Status::NothingLoaded, "no kernel is loaded").fix("kho load KERNEL"));
    }
    let reload = "kho load replaces it; kexec -e starts it without a handover";
    let Some(record) = session.state.loaded()? else {
        return Err(Fail::new(Status::NotOurs, "a kernel is loaded, but not by kho").fix(reload));
    };
    match loaded::identify(&session.root, &record.identity) {
        Identity::Ours => Ok(record),
        Identity::Nothing => {
            Err(Fail::new(Status::NothingLoaded, "no kernel is loaded").fix("kho load KERNEL"))
        }
        Identity::SomebodyElses(_) => Err(Fail::new(
            Status::NotOurs,
            "the loaded kernel was loaded by somebody else, after kho",
        )
        .fix(reload)),
        Identity::CannotTell(why) => Err(cannot_tell(&why)),
    }
}

/// The failure where nobody can say whose image is loaded.
fn cannot_tell(why: &str) -> Fail {
    Fail::new(
        Status::CannotTell,
        format!("cannot tell whether the loaded kernel is the one that kho loaded: {why}"),
    )
    .fix(
        "kho doctor says what is missing; kho load --arm and systemctl kexec do not depend on it, and kho unload --force removes the image",
    )
}

/// Refuses where `kho exec` could not find out whose image is loaded: before something is loaded that it would not start.
///
/// # Errors
///
/// [`Status::CannotTell`].
pub fn require_can_tell(session: &Session) -> Result<(), Fail> {
    loaded::can_tell(&session.root).map_err(|why| cannot_tell(&why))
}

/// Refuses when drivers are not frozen as they were for the load. Not even `--stale-ok` starts such an image: the
/// memory that it keeps in place may be somebody else's by now.
///
/// # Errors
///
/// [`Status::Stale`].
pub fn require_phase(record: &LoadedFile, session: &Session) -> Result<(), Fail> {
    let now = crate::module::generation(&session.root)?;
    let what = if now != record.kernel_generation {
        "the active phase is not the one that was loaded: drivers were frozen or went on since"
    } else if record.again && crate::module::present(&session.root) {
        "the module was loaded since, and takes care of what drivers left"
    } else {
        return Ok(());
    };
    Err(Fail::new(Status::Stale, what).fix("kho load again"))
}
