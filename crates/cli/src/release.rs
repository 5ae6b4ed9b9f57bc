//! Memory that arrived: the ranges that have to be reserved, and the ranges that are given back.

use crate::arrived::Arrived;
use crate::exit::Fail;
use crate::module;
use crate::session::Session;
use crate::state::KeepFile;
use kho::PhysRange;

/// Returns the ranges that have to be reserved: without the module, the whole mem cache; with the module, the blobs
/// that were not given back. The module knows better who owns the other ranges by now.
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

/// Gives the memory of blobs that are no longer needed back, if the module is loaded. For each blob, the keep list says
/// so before the memory is given back: the next load follows that list, and a command that is killed between the two
/// steps must not leave a list that carries on memory which has another owner by then.
///
/// # Errors
///
/// If the list cannot be written; nothing is given back then.
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

/// Returns the node of blob number `index`, as `kho::abi` names it.
pub fn blob_node(index: usize) -> String {
    format!("/blobs/blob-{index}")
}
