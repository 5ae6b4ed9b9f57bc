//! `kho exec`: start the loaded kernel, if it is the one that was meant.

use crate::exit::{Fail, Status, chain};
use crate::handover::fresh;
use crate::loaded;
use crate::output::Output;
use crate::session::Session;

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
    let record = loaded::require_ours(session)?;
    loaded::require_phase(&record, session)?;
    if !stale_ok {
        fresh::require(&record, session, out)?;
    }
    out.remark(&format!("starting {} (hop {})", record.release, record.hop));
    out.last_warnings();
    session.kernel.sync();
    match session.kernel.reboot_kexec() {
        Ok(never) => match never {},
        Err(err) => Err(Fail::new(Status::LoadFailed, chain(&err))),
    }
}
