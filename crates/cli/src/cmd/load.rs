//! `kho load`, `kho unload` and `kho reboot`.

use crate::args;
use crate::armed;
use crate::arrived::carrier_name;
use crate::carrier::Wanted;
use crate::entries;
use crate::exit::{Fail, OrStatus, Status};
use crate::handover::machine;
use crate::handover::next::Files;
use crate::handover::{by_initrd, compat, content, load};
use crate::keepd;
use crate::loaded;
use crate::module;
use crate::ordering;
use crate::output::{self, Output};
use crate::session::Session;
use kho::abi::Carrier;
use kho_kexec::sys::doctor;
use kho_kexec::sys::facts::kexec::KexecState;

/// Runs `kho load`.
///
/// # Errors
///
/// The errors of [`load::run`].
pub fn run(args: &args::Load, session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    let mut next = entries::resolve(&args.choice, &args.next, &session.root, out)?;
    next.late = args.late;
    if args.arm {
        let files = Files::read(&next)?;
        compat::check_early(&next.compat, files.initrd.as_deref(), out)?;
        return super::arm::run(&next, args.on_failure, session, out);
    }
    if args.verify {
        content::verify(session, next.forget_arrived, out)?;
    }
    load_now(&next, session, out)
}

/// Runs `kho reboot`.
///
/// # Errors
///
/// The errors of `kho load` and `kho exec`.
pub fn reboot(args: &args::Reboot, session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    let next = entries::resolve(&args.choice, &args.next, &session.root, out)?;
    // Errors in the files come before errors of the machine.
    Files::read(&next)?.parse(&next, &session.root, true)?;
    if next.carrier != Wanted::Initrd {
        match machine::refuse(&doctor::examine(&session.root)) {
            Err(fail) if next.carrier == Wanted::Auto && by_initrd::helps(&fail) => {}
            result => result?,
        }
    }
    loaded::require_can_tell(session)?;
    load_now(&next, session, out)?;
    super::exec::go(false, session, out)
}

fn load_now(args: &args::Next, session: &Session, out: Output) -> Result<(), Fail> {
    keepd::refresh(session, args.forget_arrived, out)?;
    let loaded = load::run(args, session, out)?;
    if let Err(fail) = loaded::require_can_tell(session) {
        out.warn(&format!("kho exec will not start this image: {fail}"));
    }
    ordering::update(session, out);
    out.result(&loaded, || {
        println!(
            "loaded {} for hop {}: {}, {}",
            loaded.release,
            loaded.hop,
            output::count(loaded.entries, "entry", "entries"),
            loaded.amounts(),
        );
        if let Some(entry) = &loaded.entry {
            println!("it is entered at {entry}");
        }
        if loaded.entries == 0 && loaded.drivers == 0 {
            println!("nothing is kept, so the next kernel finds nothing: kho keep PATH...");
        }
        if loaded.carrier == carrier_name(Carrier::Initrd) {
            println!("its initrd carries the content: no memory stays in place");
        }
        println!("kho exec starts it");
    });
    Ok(())
}

/// Runs `kho unload`.
///
/// # Errors
///
/// [`Status::NothingLoaded`] if no image is loaded; [`Status::NotOurs`] if another tool loaded it, unless `force` is
/// set.
pub fn unload(force: bool, session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    if KexecState::read(&session.root)
        .or_status(Status::Failed)?
        .loaded
        == Some(false)
    {
        session.state.clear_loaded()?;
        armed::disarm(session)?;
        return Err(Fail::new(Status::NothingLoaded, "no kernel is loaded"));
    }
    if !force && armed::armed(session)?.is_none() {
        loaded::require_ours(session)?;
    }
    let entered = session.state.loaded()?.filter(|record| record.entered);
    loaded::unload(session)?;
    armed::disarm(session)?;
    // The load froze the drivers only for this image.
    if let Some(record) = entered
        && module::generation(&session.root)? == record.kernel_generation
    {
        module::write(&session.root, "active", "0")?;
    }
    ordering::update(session, out);
    out.result(&serde_json::json!({ "unloaded": true }), || {
        println!("unloaded")
    });
    Ok(())
}
