//! `kho exec`: starts the loaded kernel, if it is the one that `kho` loaded.

use crate::exit::{Fail, Status, chain};
use crate::handover::fresh;
use crate::late::Published;
use crate::loaded;
use crate::output::Output;
use crate::session::Session;

/// Runs `kho exec`.
///
/// # Errors
///
/// [`Status::NothingLoaded`], [`Status::NotOurs`], [`Status::Stale`]. On success the function does not return.
pub fn run(stale_ok: bool, session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    go(stale_ok, session, out)
}

/// Starts the loaded kernel. The caller holds the lock.
///
/// # Errors
///
/// The errors of [`run`].
pub fn go(stale_ok: bool, session: &Session, out: Output) -> Result<(), Fail> {
    let record = loaded::require_ours(session)?;
    loaded::require_phase(&record, session)?;
    if !stale_ok {
        fresh::require(&record, session, out)?;
    }
    let _published = match record.late {
        Some(_) => Some(Published::publish(&session.root, out)?),
        None => None,
    };
    out.remark(&format!("starting {} (hop {})", record.release, record.hop));
    out.last_warnings();
    session.kernel.sync();
    match session.kernel.reboot_kexec() {
        Ok(never) => match never {},
        Err(err) => Err(Fail::new(Status::LoadFailed, chain(&err))),
    }
}
