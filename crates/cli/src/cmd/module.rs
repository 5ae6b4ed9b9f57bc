//! `kho activate`, `kho abort`, `kho release`.

use crate::exit::{Fail, Status};
use crate::module;
use crate::output::Output;
use crate::session::Session;
use kho_kexec::sys::syscalls::{Kernel, System};

/// Enters the active phase.
///
/// # Errors
///
/// [`Status::Unsupported`] without the module, [`Status::Module`] when a producer fails.
pub fn activate(session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    if module::is_active(&session.root)? {
        return Err(
            Fail::new(Status::Module, "the active phase was entered before")
                .fix("kho load hands over what drivers wrote then; kho abort leaves the phase"),
        );
    }
    module::write(&session.root, "active", "1")?;
    out.result(&serde_json::json!({ "active": true }), || {
        println!("active: drivers are frozen until kho exec or kho abort");
    });
    Ok(())
}

/// Unloads our image, if one is loaded, and leaves the active phase.
///
/// # Errors
///
/// [`Status::Unsupported`] without the module, when nothing was loaded either.
pub fn abort(session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    let ours = match super::exec::require_ours(session) {
        Ok(_) => true,
        Err(fail) if matches!(fail.status, Status::NothingLoaded | Status::NotOurs) => false,
        Err(fail) => return Err(fail),
    };
    // First what the image refers to, so that nothing can start it with memory that is given back meanwhile.
    let active = module::is_active(&session.root)?;
    if active || !ours {
        module::write(&session.root, "active", "0")?;
    }
    if ours {
        System
            .kexec_unload()
            .map_err(|err| crate::handover::load::call_fail(&err, session))?;
        session.state.clear_loaded()?;
    }
    let doc = serde_json::json!({ "active": false, "was_active": active, "unloaded": ours });
    out.result(&doc, || match (active, ours) {
        (true, true) => println!("aborted: drivers go on, and the loaded kernel was unloaded"),
        (true, false) => println!("aborted: drivers go on"),
        (false, true) => println!("the loaded kernel was unloaded"),
        (false, false) => println!("nothing was active or loaded"),
    });
    Ok(())
}

/// Gives memory that arrived and that nobody claimed back to the system: of a blob by its name, of a node by its
/// path, or all.
///
/// # Errors
///
/// [`Status::Unsupported`] without the module, [`Status::NoSuchEntry`], [`Status::Module`] when nothing of it is left.
pub fn release(what: &str, session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    if super::exec::require_ours(session).is_ok() {
        return Err(Fail::new(
            Status::Module,
            "the loaded kernel may be handed the same memory",
        )
        .fix("kho unload, release, and load again"));
    }
    let arrived = session.arrived()?.as_ref();
    if what.starts_with('/') || what == "all" {
        module::release(&session.root, what)?;
    }
    let mut keep = session.state.keep()?;
    let mut released = 0usize;
    for (index, blob) in arrived
        .map(|a| a.blobs.as_slice())
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let node = blob_node(index);
        let by_name = blob.label == what;
        if !(by_name || what == "all" || what == node || what == "/blobs") {
            continue;
        }
        if by_name {
            module::release(&session.root, &node)?;
        }
        released += 1;
        if !keep.released.contains(&blob.label) {
            keep.released.push(blob.label.clone());
        }
        // What has a path is read again from there; the content of anything else is gone.
        if !keep.restored.contains(&blob.label) && !keep.removed.contains(&blob.label) {
            keep.removed.push(blob.label.clone());
        }
    }
    if released == 0 && !what.starts_with('/') && what != "all" {
        return Err(Fail::new(
            Status::NoSuchEntry,
            format!("nothing called {what} arrived, and it is no path of a node"),
        )
        .fix("kho status lists both"));
    }
    session.state.set_keep(&keep)?;
    out.result(&serde_json::json!({ "released": what }), || {
        println!("released {what}");
    });
    Ok(())
}

/// The memory of a blob that is not needed any more goes back, when there is the module to do it. Gives whether it did.
pub fn release_blob(label: &str, session: &Session) -> bool {
    // An image that is loaded may name those pages.
    if !module::present(&session.root) || !matches!(session.state.loaded(), Ok(None)) {
        return false;
    }
    let Ok(Some(arrived)) = session.arrived() else {
        return false;
    };
    let index = arrived.blobs.iter().position(|blob| blob.label == label);
    index.is_some_and(|index| module::release(&session.root, &blob_node(index)).is_ok())
}

/// The node of blob number `index`, as `kho::abi` names it.
fn blob_node(index: usize) -> String {
    format!("/blobs/blob-{index}")
}
