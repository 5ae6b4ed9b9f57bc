//! `kho exec`: start the loaded kernel, if it is the one that was meant.

use crate::exit::{Fail, OrStatus, Status, chain};
use crate::handover::{content, load};
use crate::keepd;
use crate::list;
use crate::output::Output;
use crate::session::Session;
use crate::state::LoadedFile;
use kho::phase::{Fingerprint, Generation, Machine as Phases, Phase};
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
        require_fresh(&record, session)?;
    }
    out.remark(&format!("starting {} (hop {})", record.release, record.hop));
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
/// [`Status::NothingLoaded`], [`Status::NotOurs`].
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
        Identity::CannotTell(why) => Err(Fail::new(
            Status::NotOurs,
            format!("cannot tell whether the loaded kernel is the one that kho loaded: {why}"),
        )
        .fix("run as root with /proc/kcore and /proc/kallsyms readable")),
    }
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

/// Refuses when what would be handed over is no longer what was read.
///
/// # Errors
///
/// [`Status::Stale`], naming what changed.
pub fn require_fresh(record: &LoadedFile, session: &Session) -> Result<(), Fail> {
    let changed = |fail: Fail| {
        Fail::new(
            Status::Stale,
            format!("what is kept changed since the load: {}", fail.what),
        )
        .fix("kho load again, or kho exec --stale-ok to hand over what was read then")
    };
    let arrived = session.carried(record.forget_arrived)?;
    let (keep, changes) =
        keepd::as_loaded(session, record.forget_arrived).map_err(|fail| match fail.status {
            Status::BadSource => changed(fail),
            _ => fail,
        })?;
    let items =
        content::measure(list::effective(arrived, &keep), arrived, session).map_err(changed)?;
    let sources = load::sources(&items);
    let now = load::fingerprint(&keep, arrived, &sources);
    let generation = Generation::from_raw(record.generation);
    let loaded = parse_fingerprint(&record.content_digest)?;
    let mut phases = Phases::restore(Phase::Loaded(generation, loaded), generation);
    phases.execute(generation, now).map_err(|_| {
        let mut what = "the list of what is kept changed since the load".to_owned();
        let listed = [(&changes.added, "adds"), (&changes.removed, "takes off")];
        for (names, verb) in listed.iter().filter(|(names, _)| !names.is_empty()) {
            what.push_str(&format!("; keep.d {verb} {}", names.join(", ")));
        }
        let paths: Vec<String> = sources
            .iter()
            .filter(|source| !record.sources.contains(source))
            .map(|(path, _)| path.display().to_string())
            .collect();
        if listed.iter().all(|(names, _)| names.is_empty()) && !paths.is_empty() {
            what = format!("changed since the load: {}", paths.join(", "));
        }
        Fail::new(Status::Stale, what)
            .fix("kho load again, or kho exec --stale-ok to hand over what was read then")
    })
}

fn parse_fingerprint(hex: &str) -> Result<Fingerprint, Fail> {
    blake3::Hash::from_hex(hex)
        .map(|hash| Fingerprint(*hash.as_bytes()))
        .map_err(|err| {
            Fail::new(
                Status::Failed,
                format!("the record of the load is damaged: {err}"),
            )
            .fix("kho load again")
        })
}
