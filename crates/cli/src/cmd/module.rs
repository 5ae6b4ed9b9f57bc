//! `kho activate`, `kho abort` and `kho release`.

use crate::armed;
use crate::exit::{Fail, Status};
use crate::khofs;
use crate::loaded;
use crate::module;
use crate::output::Output;
use crate::release::blob_node;
use crate::session::Session;

/// Enters the active phase.
///
/// # Errors
///
/// [`Status::Unsupported`] without the module; [`Status::Module`] if a producer fails.
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

/// Unloads the image that `kho` loaded or armed, if there is one, and leaves the active phase.
///
/// # Errors
///
/// [`Status::Unsupported`] without the module, if no image was loaded either.
pub fn abort(session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    let armed = armed::armed(session)?.is_some();
    let ours = match loaded::require_ours(session) {
        Ok(_) => true,
        Err(fail) if matches!(fail.status, Status::NothingLoaded | Status::NotOurs) => false,
        // The image may have been loaded by `kho`, and then it must not stay.
        Err(fail) if fail.status == Status::CannotTell => true,
        Err(fail) => return Err(fail),
    };
    // The phase ends before the unload: an image that starts meanwhile then hands over no memory of drivers, which may
    // be in other use.
    let active = module::is_active(&session.root)?;
    if active || !(ours || armed) {
        module::write(&session.root, "active", "0")?;
    }
    // While a kernel is armed, its plain image is loaded. No user may start that image after an abort either.
    if ours || armed {
        loaded::unload(session)?;
        armed::disarm(session)?;
    }
    let doc = serde_json::json!({
        "active": false, "was_active": active, "unloaded": ours, "disarmed": armed,
    });
    out.result(&doc, || {
        let gone = match (ours, armed) {
            (_, true) => Some("the armed kernel was unloaded"),
            (true, false) => Some("the loaded kernel was unloaded"),
            (false, false) => None,
        };
        match (active, gone) {
            (true, Some(gone)) => println!("aborted: drivers go on, and {gone}"),
            (true, None) => println!("aborted: drivers go on"),
            (false, Some(gone)) => println!("{gone}"),
            (false, None) => println!("nothing was active or loaded"),
        }
    });
    Ok(())
}

/// Gives memory back to the system that arrived and that no consumer claimed: the memory of a blob by its name, that of
/// a node by its path, or all.
///
/// # Errors
///
/// [`Status::Unsupported`] without the module. [`Status::NoSuchEntry`], with the existing names. [`Status::Module`] if
/// that memory was released or claimed before.
pub fn release(what: &str, session: &Session, out: Output) -> Result<(), Fail> {
    let _lock = session.lock()?;
    match loaded::require_ours(session) {
        Ok(_) => {
            return Err(Fail::new(
                Status::Module,
                "the loaded kernel may be handed the same memory",
            )
            .fix("kho unload, release, and load again"));
        }
        Err(fail) if matches!(fail.status, Status::NothingLoaded | Status::NotOurs) => {}
        // `kho` cannot tell whether it loaded the image.
        Err(fail) => return Err(fail),
    }
    if khofs::release(&session.root, what)? {
        out.result(&serde_json::json!({ "released": what }), || {
            println!("released {what}");
        });
        return Ok(());
    }
    let blobs = session
        .arrived()?
        .as_ref()
        .map(|arrived| arrived.blobs.as_slice())
        .unwrap_or_default();
    let before = session.state.keep()?;
    let mut keep = before.clone();
    // A path or "all" is released as given; the name of a blob becomes the path of its node.
    let mut path = (what.starts_with('/') || what == "all").then(|| what.to_owned());
    for (index, blob) in blobs.iter().enumerate() {
        let node = blob_node(index);
        let by_name = blob.label == what;
        if !(by_name || what == "all" || what == node || what == "/blobs") {
            continue;
        }
        path = path.or(by_name.then_some(node));
        if !keep.released.contains(&blob.label) {
            keep.released.push(blob.label.clone());
        }
        // Content with a path is read from there at the next load; other content is lost.
        if !keep.restored.contains(&blob.label) && !keep.removed.contains(&blob.label) {
            keep.removed.push(blob.label.clone());
        }
    }
    let Some(path) = path else {
        return Err(Fail::new(
            Status::NoSuchEntry,
            format!("nothing called {what} arrived, and it is no path of a node"),
        )
        .fix(releasable(session, keep.released.as_slice())));
    };
    module::require_nobodys(&session.root, &path)?;
    // Writes the list first, see `release_blobs`.
    session.state.set_keep(&keep)?;
    if let Err(fail) = module::release(&session.root, &path) {
        session.state.set_keep(&before)?;
        return Err(match fail.status {
            Status::NoSuchEntry => fail.fix(releasable(session, &before.released)),
            _ => fail,
        });
    }
    out.result(&serde_json::json!({ "released": what }), || {
        println!("released {what}");
    });
    Ok(())
}

/// Returns advice with names that can be released: blobs that are not in `released`, instances of khofs, and nodes with
/// memory that no consumer claimed. Names only a few of them if there are many.
fn releasable(session: &Session, released: &[String]) -> String {
    const FEW: usize = 8;
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(arrived)) = session.arrived() {
        let labels = arrived.blobs.iter().map(|blob| &blob.label);
        names.extend(labels.filter(|label| !released.contains(label)).cloned());
    }
    if let Ok(Some(instances)) = khofs::instances(&session.root) {
        names.extend(instances.iter().map(khofs::Instance::node));
    }
    for unclaimed in module::unclaimed(&session.root).unwrap_or_default() {
        // An instance is released as a whole; the blobs are already in the list.
        let node = khofs::instance_node(&unclaimed.node).unwrap_or(&unclaimed.node);
        if !node.starts_with("/blobs/") && !names.iter().any(|name| name == node) {
            names.push(node.to_owned());
        }
    }
    match names.len() {
        0 => "there is nothing to release".to_owned(),
        count if count <= FEW => format!("there is {}", names.join(", ")),
        count => format!(
            "there is {} and {} more, see kho status",
            names[..FEW].join(", "),
            count - FEW
        ),
    }
}
