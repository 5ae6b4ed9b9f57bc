//! The loaded image: who loaded it, and how it is unloaded.

use crate::exit::{Fail, OrStatus, Status, chain};
use crate::late;
use crate::module;
use crate::session::Session;
use crate::state::LoadedFile;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::sys::facts::security::Lockdown as KernelLockdown;
use kho_kexec::sys::loaded::{self, Identity};
use kho_kexec::sys::syscalls::CallError;

/// Returns the record of kho's load if its image is still the loaded one.
///
/// # Errors
///
/// [`Status::NothingLoaded`] if no image is loaded, [`Status::NotOurs`] if another tool loaded it,
/// [`Status::CannotTell`] if kho cannot tell who loaded it.
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

/// Makes the failure for an image of which kho cannot tell who loaded it.
fn cannot_tell(why: &str) -> Fail {
    Fail::new(
        Status::CannotTell,
        format!("cannot tell whether the loaded kernel is the one that kho loaded: {why}"),
    )
    .fix(
        "kho doctor says what is missing; kho load --arm and systemctl kexec do not depend on it, and kho unload --force removes the image",
    )
}

/// Refuses a load after which `kho exec` could not tell who loaded the image, and so would not start it.
///
/// # Errors
///
/// [`Status::CannotTell`] if that is so.
pub fn require_can_tell(session: &Session) -> Result<(), Fail> {
    loaded::can_tell(&session.root).map_err(|why| cannot_tell(&why))
}

/// Refuses to start an image if drivers are not frozen as they were for its load, or if the module was loaded since.
/// Not even `--stale-ok` allows it: the memory that the image keeps in place may have another owner by now.
///
/// # Errors
///
/// [`Status::Stale`] in these cases.
pub fn require_phase(record: &LoadedFile, session: &Session) -> Result<(), Fail> {
    if let Some(nonce) = record.late {
        return late::require(&session.root, nonce);
    }
    let now = module::generation(&session.root)?;
    let what = if now != record.kernel_generation {
        "the active phase is not the one that was loaded: since the load, drivers thawed or were frozen again"
    } else if record.again && module::present(&session.root) {
        "kho.ko was loaded after this image, and now owns the memory that drivers of an earlier kernel left"
    } else {
        return Ok(());
    };
    Err(Fail::new(Status::Stale, what).fix("kho load again"))
}

/// Unloads the loaded image and removes its record.
///
/// # Errors
///
/// The error of [`call_fail`]; nothing has changed then. If the record cannot be removed after the image was unloaded.
pub fn unload(session: &Session) -> Result<(), Fail> {
    unload_image(session).map_err(|err| call_fail(&err, session))?;
    forget(session)
}

/// Unloads as [`unload`] does, for a load that is going to call `kexec_load`: where the kernel refuses that call, the
/// unload is refused too.
///
/// # Errors
///
/// As [`unload`].
pub fn unload_for_memory(session: &Session) -> Result<(), Fail> {
    session
        .kernel
        .kexec_unload()
        .map_err(|err| call_fail(&err, session))?;
    forget(session)
}

/// Removes what belongs to an image that is gone.
fn forget(session: &Session) -> Result<(), Fail> {
    late::disarm(&session.root)?;
    session.state.clear_loaded()
}

/// Unloads the loaded image, by the call that the kernel allows: one that is locked down refuses `kexec_load`
/// (`kexec_load_check`, `kernel/kexec.c`), and unloads by `kexec_file_load` (`kernel/kexec_file.c`, 5.10 to 7.3).
///
/// # Errors
///
/// The error of `kexec_load`.
pub fn unload_image(session: &Session) -> Result<(), CallError> {
    match session.kernel.kexec_unload() {
        Err(err) if is_refusal(&err) && session.kernel.kexec_file_unload().is_ok() => Ok(()),
        result => result,
    }
}

/// `EPERM`, `EACCES` and `ENOSYS` in errno(3).
const REFUSED: [i32; 3] = [1, 13, NO_CALL];
const NO_CALL: i32 = 38;

/// Whether the kernel does not allow the call at all, whatever the arguments.
fn is_refusal(err: &CallError) -> bool {
    err.errno().is_some_and(|errno| REFUSED.contains(&errno))
}

/// Unloads the loaded image after the failure `fail`, and returns `fail`. If the unload fails too, adds that to `fail`,
/// because the image may then start.
pub fn unloaded_after(mut fail: Fail, session: &Session) -> Fail {
    if let Err(err) = unload_image(session) {
        fail.what.push_str(&format!(
            "; and the loaded image CANNOT BE UNLOADED and may start: {}",
            chain(&err)
        ));
    }
    fail
}

/// Makes the failure for a refused system call, with the reason if the system shows one.
pub fn call_fail(err: &CallError, session: &Session) -> Fail {
    if err.errno() == Some(NO_CALL) {
        return Fail::new(Status::LockedDown, chain(err));
    }
    if is_refusal(err) {
        let switched_off = KexecState::read(&session.root)
            .ok()
            .and_then(|state| state.refusal());
        if switched_off.is_some() {
            return Fail::new(Status::KexecDisabled, chain(err));
        }
        let locked =
            KernelLockdown::read(&session.root).is_ok_and(|lockdown| lockdown.blocks_kexec_load());
        let asked = session
            .root
            .bytes("proc/cmdline", kho_kexec::sys::root::ATTRIBUTE_LIMIT)
            .is_ok_and(|line| {
                line.split(u8::is_ascii_whitespace)
                    .any(|word| word.starts_with(b"lockdown="))
            });
        if locked || asked {
            return Fail::new(Status::LockedDown, chain(err))
                .fix("switch Secure Boot off in the firmware, or boot without lockdown=; it cannot be lifted at run time");
        }
    }
    Fail::new(Status::LoadFailed, chain(err))
}
