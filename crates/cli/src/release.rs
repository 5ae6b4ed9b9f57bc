//! Memory that arrived: the ranges that must be reserved, and the ranges that are released.

use crate::arrived::Arrived;
use crate::exit::Fail;
use crate::module;
use crate::session::Session;
use crate::state::KeepFile;
use kho::PhysRange;

/// Returns the ranges that must be reserved: without the module, the whole mem cache; with the module, the blobs that
/// were not released. The other ranges then belong to the module, which may have released them.
pub fn to_be_reserved(arrived: &Arrived, released: &[String], session: &Session) -> Vec<PhysRange> {
    if module::present(&session.root) {
        arrived
            .blobs
            .iter()
            .filter(|blob| !released.contains(&blob.label))
            .flat_map(|blob| blob.mem.iter().copied())
            .collect()
    } else {
        arrived.ranges().collect()
    }
}

/// Releases the memory of blobs that are no longer needed, if the module is loaded. For each blob, updates the keep
/// list before the memory is released: the next load follows the list. If the command is killed between the two steps,
/// the list must not carry on memory that has another owner by then.
///
/// # Errors
///
/// If the list cannot be written. No memory is then released.
pub fn blobs(labels: &[String], keep: &mut KeepFile, session: &Session) -> Result<(), Fail> {
    // The loaded image may name these pages.
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

/// Returns the path of the node of blob number `index`, as in `kho::abi`.
pub fn blob_node(index: usize) -> String {
    format!("/blobs/blob-{index}")
}
