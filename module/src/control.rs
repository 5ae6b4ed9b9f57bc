//! What the files in `/sys/kernel/kho` say and do.

use crate::phase::{PHASE, SEALED};
use crate::store::STORE;
use core::fmt::Write;
use core::ops::ControlFlow;
use kho::{PhysAddr, PhysRange};
use kho_boundary::log;
use kho_decide::arrival::Nothing;
use kho_decide::errno::{EINVAL, ENODATA, Errno};
use kho_decide::iomem::hex;
use kho_decide::text::{Level, Text};

/// `active`: 1 or 0.
///
/// # Errors
///
/// None in practice.
pub fn active_show(out: &mut Text<'_>) -> Result<(), Errno> {
    let active = PHASE.lock().generation().is_some();
    Ok(writeln!(out, "{}", u8::from(active))?)
}

/// `1` activates, `0` aborts.
///
/// # Errors
///
/// [`EINVAL`] for anything else; what activation fails with.
pub fn active_store(text: &[u8]) -> Result<(), Errno> {
    match text.trim_ascii() {
        b"1" => PHASE.lock().activate(),
        b"0" => {
            PHASE.lock().abort();
            Ok(())
        }
        _ => Err(EINVAL),
    }
}

/// `generation`: of the active phase, 0 when there is none.
///
/// # Errors
///
/// None in practice.
pub fn generation_show(out: &mut Text<'_>) -> Result<(), Errno> {
    let generation = PHASE.lock().generation().unwrap_or(0);
    Ok(writeln!(out, "{generation:#018x}")?)
}

/// `scratch`: "0xbase 0xsize".
///
/// # Errors
///
/// [`ENODATA`] while none is known.
pub fn scratch_show(out: &mut Text<'_>) -> Result<(), Errno> {
    let scratch = STORE.lock().scratch().ok_or(ENODATA)?;
    Ok(writeln!(out, "{} {:#x}", scratch.start(), scratch.len())?)
}

/// Root tells where scratch will be.
///
/// # Errors
///
/// [`EINVAL`] unless it is "0xbase 0xsize" of RAM; `EBUSY` when one arrived.
pub fn scratch_store(text: &[u8]) -> Result<(), Errno> {
    let mut words = text.trim_ascii().split(|b| *b == b' ');
    let mut next = || words.next()?.strip_prefix(b"0x").and_then(hex);
    let (base, size) = (next().ok_or(EINVAL)?, next().ok_or(EINVAL)?);
    if words.next().is_some() {
        return Err(EINVAL);
    }
    let range = PhysRange::new(PhysAddr::new(base), size).map_err(|_| EINVAL)?;
    STORE.lock().tell_scratch(range)
}

/// A piece of `release`: a line "PATH BYTES" for each node with unclaimed memory, with the name of the producer behind it
/// that has the node, if one has. Made anew for each piece, so what changes between two of them can move a line across
/// their border.
///
/// # Errors
///
/// No memory.
pub fn release_read(buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut out = Text::from_offset(buf, offset);
    STORE.lock().leftovers(|path, bytes, holder| {
        let line = match holder {
            Some(producer) => writeln!(out, "{path} {bytes} {producer}"),
            None => writeln!(out, "{path} {bytes}"),
        };
        line.map_or(ControlFlow::Break(()), ControlFlow::Continue)
    })?;
    Ok(out.written())
}

/// Releases a node, or `all`.
///
/// # Errors
///
/// [`EINVAL`] for a path that comes in pieces, as none that is longer than a page exists; see
/// [`kho_decide::store::Store::release_path`].
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
    {
        let phase = PHASE.lock();
        writeln!(out, "active: {}", u8::from(phase.generation().is_some()))?;
        writeln!(out, "producers: {}", phase.producers())?;
        if let Some(name) = phase.failed() {
            writeln!(out, "failed-producer: {name}")?;
        }
    }
    let store = STORE.lock();
    writeln!(out, "lent: {}", store.lent())?;
    match store.arrival() {
        Ok(arrival) => {
            writeln!(out, "arrival: handover")?;
            writeln!(out, "hop: {}", arrival.hop)?;
            writeln!(out, "previous-release: {}", arrival.previous)?;
            let part = match (&arrival.kernel, arrival.refused) {
                (Some(_), _) => "arrived",
                (None, Some(why)) => why,
                (None, None) => "none",
            };
            writeln!(out, "kernel-part: {part}")?;
            writeln!(out, "unclaimed: {}", store.unclaimed())?;
            writeln!(out, "untouched-nodes: {}", store.untouched()?)?;
            writeln!(out, "slack-released: {}", arrival.slack)?;
            writeln!(out, "not-reserved-pages: {}", arrival.missing)?;
        }
        Err(Nothing::Ordinary) => writeln!(out, "arrival: none, an ordinary boot")?,
        Err(Nothing::Refused(why)) => writeln!(out, "arrival: refused, {why}")?,
        Err(Nothing::Failed(error)) => writeln!(out, "arrival: failed, error {}", error.0)?,
    }
    Ok(())
}

/// A piece of `dt`.
pub fn dt_read(buf: &mut [u8], offset: u64) -> usize {
    piece(&SEALED.lock(), buf, offset)
}

/// A piece of `in/dt`.
pub fn in_dt_read(buf: &mut [u8], offset: u64) -> usize {
    let store = STORE.lock();
    match store.arrival().ok().map(|a| a.kernel_bytes()) {
        Some(Ok(bytes)) => piece(bytes, buf, offset),
        _ => 0,
    }
}

/// Bytes of `in/dt`, 0 when there is none.
pub fn in_dt_size() -> usize {
    let store = STORE.lock();
    let bytes = store.arrival().ok().map(|a| a.kernel_bytes());
    bytes.and_then(Result::ok).map_or(0, <[u8]>::len)
}

fn piece(bytes: &[u8], buf: &mut [u8], offset: u64) -> usize {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = bytes.get(from..).unwrap_or(&[]);
    let count = rest.len().min(buf.len());
    for (to, from) in buf.iter_mut().zip(rest) {
        *to = *from;
    }
    count
}
