//! Memory that arrived: what of it has to be reserved, and what is given back.

use crate::arrived::Arrived;
use crate::exit::Fail;
use crate::module;
use crate::session::Session;
use crate::state::KeepFile;
use kho::PhysRange;

/// What has to be reserved. With the module those are the blobs that it has not given back: whose the rest is by now
/// it knows better.
pub fn to_be_reserved(arrived: &Arrived, released: &[String], session: &Session) -> Vec<PhysRange> {
    if module::present(&session.root) {
        arrived
            .blobs
            .iter()
            .filter(|blob| !released.contains(&blob.label))
            .flat_map(|blob| blob.mem.iter().copied())
            .collect()
    } else {
        arrived.mem_cache.clone()
    }
}

/// Gives the memory of blobs that are not needed any more back, when there is the module to do it. The list that says so
/// must have been written before: it is what the next load goes by, and a command that is killed between the two must not
/// leave a list that carries on memory which is somebody else's by then.
///
/// # Errors
///
/// When the list cannot be written; nothing is given back then.
pub fn blobs(labels: &[String], keep: &mut KeepFile, session: &Session) -> Result<(), Fail> {
    // An image that is loaded may name those pages.
    if !module::present(&session.root) || !matches!(session.state.loaded(), Ok(None)) {
        return Ok(());
    }
    let Ok(Some(arrived)) = session.arrived() else {
        return Ok(());
    };
    for label in labels {
        let Some(index) = arrived.blobs.iter().position(|blob| blob.label == *label) else {
            continue;
        };
        if keep.released.contains(label) {
            continue;
        }
        keep.released.push(label.clone());
        session.state.set_keep(keep)?;
        if module::release(&session.root, &blob_node(index)).is_err() {
            keep.released.retain(|released| released != label);
            session.state.set_keep(keep)?;
        }
    }
    Ok(())
}

/// The node of blob number `index`, as `kho::abi` names it.
pub fn blob_node(index: usize) -> String {
    format!("/blobs/blob-{index}")
}
