//! `kho get`: writes one blob to standard output.

use crate::exit::{Fail, OrStatus, Status};
use crate::output::Output;
use crate::session::Session;
use std::ffi::OsStr;
use std::io::Write;

/// Runs `kho get NAME`.
///
/// # Errors
///
/// [`Status::NoSuchEntry`] if there is no such blob; [`Status::BlobCorrupt`], after the bytes were written, if their
/// hash is wrong.
pub fn run(name: &OsStr, session: &Session, out: Output) -> Result<(), Fail> {
    let arrived = session.require_arrived()?;
    let blob = arrived.blob(name)?;
    let mut reader = session.open_blob(blob)?;
    let bar = out.progress(&blob.label, blob.size);
    let copied = std::io::copy(
        &mut bar.wrap_read(&mut reader),
        &mut std::io::stdout().lock(),
    );
    bar.finish_and_clear();
    match copied {
        Ok(_) => {}
        // The reader of the pipe has closed it: this is no error of `kho`, and no reader is left for a message.
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
        Err(err) => {
            return Err(Fail::new(
                Status::Failed,
                format!("cannot copy {}: {err}", blob.label),
            ));
        }
    }
    std::io::stdout().flush().or_status(Status::Failed)?;
    reader.finish()
}
