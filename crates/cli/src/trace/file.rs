//! Files with the text of traces.

use crate::exit::{Fail, Status, chain};
use crate::shown;
use crate::whole;
use std::io::BufWriter;
use std::path::Path;

/// Writes a file that only root can read.
///
/// # Errors
///
/// [`Status::NoSpace`] if the file system is full, [`Status::Failed`] if the file cannot be written for another reason.
pub fn write(
    path: &Path,
    with: impl FnOnce(&mut BufWriter<std::fs::File>) -> std::io::Result<()>,
) -> Result<(), Fail> {
    whole::create(path, with).map_err(|err| write_fail(&shown::path(path), &err))
}

/// Makes the failure for a write error: [`Status::NoSpace`] if the file system is full, else [`Status::Failed`].
pub fn write_fail(what: &str, err: &std::io::Error) -> Fail {
    let status = match err.kind() {
        std::io::ErrorKind::StorageFull => Status::NoSpace,
        _ => Status::Failed,
    };
    Fail::new(status, format!("cannot write {what}: {}", chain(err)))
}
