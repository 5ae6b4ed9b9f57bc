//! Memory that arrived: the ranges that must be reserved, and the ranges that are released.

use crate::arrived::Arrived;
use crate::exit::Fail;
use crate::module;
use crate::session::Session;
use crate::state::KeepFile;
use kho::PhysRange;
use kho::abi::Carrier;
use kho_kexec::sys::physmem::InitrdFiles;

/// Returns the ranges that must be reserved; none if the initrd was the carrier. Otherwise, without the module, the whole mem cache; with the module, the blobs that
/// were not released. The other ranges then belong to the module, which may have released them.
pub fn to_be_reserved(arrived: &Arrived, released: &[String], session: &Session) -> Vec<PhysRange> {
    if arrived.carrier == Carrier::Initrd {
        Vec::new()
    } else if module::present(&session.root) {
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

/// Releases the memory of blobs that are no longer needed, if the module is loaded or the content is in files. For each blob, updates the keep
/// list before the memory is released: the next load follows the list. If the command is killed between the two steps,
/// the list must not carry on memory that has another owner by then.
///
/// # Errors
///
/// If the list cannot be written. No memory is then released.
pub fn blobs(labels: &[String], keep: &mut KeepFile, session: &Session) -> Result<(), Fail> {
    let Ok(Some(arrived)) = session.arrived() else {
        return Ok(());
    };
    let files = match arrived.carrier {
        Carrier::Initrd => match InitrdFiles::open(&session.root) {
            Ok(files) => Some(files),
            Err(_) => return Ok(()),
        },
        Carrier::Memory if !module::present(&session.root) => return Ok(()),
        Carrier::Memory => None,
    };
    // The loaded image may name these pages, and a load may be compared with this content.
    if !matches!(session.state.loaded(), Ok(None)) {
        return Ok(());
    }
    for label in labels {
        let Some(index) = arrived.blobs.iter().position(|blob| blob.label == *label) else {
            continue;
        };
        if keep.released.contains(label) {
            continue;
        }
        keep.released.push(label.clone());
        session.state.set_keep(keep)?;
        let gone = match (&files, arrived.blobs.get(index)) {
            (Some(files), Some(blob)) => files.release(&blob.mem).is_ok(),
            _ => module::release(&session.root, &blob_node(index)).is_ok(),
        };
        if !gone {
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
