//! The files in `/sys/fs/khofs`: the texts that processes read, and the actions of writes.

use crate::state::{STATE, release_instance};
use kho_boundary::log;
use kho_decide::errno::{EINVAL, Errno};
use kho_decide::text::{Level, Text};
use khofs_decide::show;

/// `status`: see [`show::status`].
pub fn status_show(out: &mut Text<'_>) {
    show::status(&*STATE.lock(), out);
}

/// `release`: the name of an instance to end, with all its files.
///
/// # Errors
///
/// `ENOENT`, `EBUSY`: see [`release_instance`].
pub fn release_store(text: &[u8]) -> Result<(), Errno> {
    let name = core::str::from_utf8(text.trim_ascii()).map_err(|_| EINVAL)?;
    release_instance(name)?;
    log!(Level::Info, "instance {name} was released");
    Ok(())
}

/// Options of an instance, in the form of `/proc/mounts`.
///
/// # Errors
///
/// [`EINVAL`] if the options do not fit; `ENOENT` if there is no such instance.
pub fn options_show(id: u32, out: &mut Text<'_>) -> Result<(), Errno> {
    show::options(STATE.lock().instance(id)?, out)
}
