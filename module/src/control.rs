//! The files in `/sys/kernel/kho`: the texts that processes read, and the actions of writes.

use crate::phase::{PHASE, SEALED};
use crate::store::STORE;
use kho_boundary::log;
use kho_decide::errno::{EINVAL, Errno};
use kho_decide::show::{self, LateStep};
use kho_decide::text::{Level, Text};

/// `active`: 1 or 0.
///
/// # Errors
///
/// None in practice.
pub fn active_show(out: &mut Text<'_>) -> Result<(), Errno> {
    show::active(&PHASE.lock(), out)
}

/// `1` activates, `0` aborts.
///
/// # Errors
///
/// [`EINVAL`] for any other text; the error of the activation.
pub fn active_store(text: &[u8]) -> Result<(), Errno> {
    if show::is_activation(text)? {
        PHASE.lock().activate()
    } else {
        PHASE.lock().abort();
        Ok(())
    }
}

/// `generation`: the generation of the active phase, or 0 outside of it.
///
/// # Errors
///
/// None in practice.
pub fn generation_show(out: &mut Text<'_>) -> Result<(), Errno> {
    show::generation(&PHASE.lock(), out)
}

/// `late`: lines "name value".
///
/// # Errors
///
/// See [`show::late`].
pub fn late_show(out: &mut Text<'_>) -> Result<(), Errno> {
    show::late(&PHASE.lock(), out)
}

/// Executes a step of a late load: `prepare`, `arm` with the bounds on the lines behind it, `publish` or `disarm`.
///
/// # Errors
///
/// [`EINVAL`] for any other text; the error of the step.
pub fn late_store(text: &[u8]) -> Result<(), Errno> {
    let step = show::late_step(text)?;
    let mut phase = PHASE.lock();
    match step {
        LateStep::Prepare => phase.prepare(),
        LateStep::Arm(bounds) => phase.arm(bounds),
        LateStep::Publish => phase.publish(),
        LateStep::Disarm => {
            phase.disarm();
            Ok(())
        }
    }
}

/// `scratch`: "0xbase 0xsize".
///
/// # Errors
///
/// `ENODATA` while no scratch region is known.
pub fn scratch_show(out: &mut Text<'_>) -> Result<(), Errno> {
    show::scratch(&STORE.lock(), out)
}

/// Sets the scratch region, as root states it.
///
/// # Errors
///
/// [`EINVAL`] unless the text is "0xbase 0xsize" of RAM; `EBUSY` if a scratch region arrived.
pub fn scratch_store(text: &[u8]) -> Result<(), Errno> {
    let range = show::told_scratch(text)?;
    STORE.lock().tell_scratch(range)
}

/// Reads a piece of `release`, see [`show::leftovers`]. The text is made anew for each piece, so a change between two
/// pieces can move a line across their border.
///
/// # Errors
///
/// No memory.
pub fn release_read(buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut out = Text::from_offset(buf, offset);
    show::leftovers(&STORE.lock(), &mut out)?;
    Ok(out.written())
}

/// Releases a node, or `all`.
///
/// # Errors
///
/// [`EINVAL`] if `offset` is not 0: a write must have the whole path, and no path is longer than a page; see
/// [`release_path`](kho_decide::store::Store::release_path).
pub fn release_write(text: &[u8], offset: u64) -> Result<(), Errno> {
    if offset != 0 {
        return Err(EINVAL);
    }
    let path = core::str::from_utf8(text.trim_ascii()).map_err(|_| EINVAL)?;
    let bytes = STORE.lock().release_path(path)?;
    log!(Level::Info, "released {path}: {} KiB", bytes / 1024);
    Ok(())
}

/// `status`: lines "name: value".
///
/// # Errors
///
/// None in practice.
pub fn status_show(out: &mut Text<'_>) -> Result<(), Errno> {
    show::phase_status(&PHASE.lock(), out)?;
    show::store_status(&STORE.lock(), out)
}

/// Reads a piece of `dt`.
pub fn dt_read(buf: &mut [u8], offset: u64) -> usize {
    show::piece(&SEALED.lock(), buf, offset)
}

/// Reads a piece of `in/dt`.
pub fn in_dt_read(buf: &mut [u8], offset: u64) -> usize {
    let store = STORE.lock();
    match store.arrival().ok().map(|a| a.kernel_bytes()) {
        Some(Ok(bytes)) => show::piece(bytes, buf, offset),
        _ => 0,
    }
}

/// Length of `in/dt` in bytes, 0 if there is no such tree.
pub fn in_dt_size() -> usize {
    let store = STORE.lock();
    let bytes = store.arrival().ok().map(|a| a.kernel_bytes());
    bytes.and_then(Result::ok).map_or(0, <[u8]>::len)
}
