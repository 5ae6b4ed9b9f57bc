//! What `/sys/fs/khofs` says and does.

use crate::state::{Body, STATE, release_instance};
use core::fmt::Write;
use kho::PAGE_SIZE;
use kho_boundary::log;
use kho_decide::errno::{EINVAL, Errno};
use kho_decide::text::{Level, Text};
use khofs_decide::bits::PAGES;

/// `status`: a line for each instance, as many as fit a page: its name, then `key=value` words. Bytes throughout.
///
/// # Errors
///
/// None in practice.
pub fn status_show(out: &mut Text<'_>) -> Result<(), Errno> {
    let state = STATE.lock();
    for instance in &state.instances {
        let (_, free) = state.chunks.totals(instance.id);
        let (what, inodes, unclaimed, ranges) = match &instance.body {
            Body::New | Body::Ending => continue,
            Body::Arrived(a) => ("arrived", a.inodes, a.data.total(), a.data.len() as u64),
            Body::Live(_) => (
                "live",
                instance.inodes,
                instance.unclaimed.total(),
                state
                    .chunks
                    .runs(instance.id)
                    .saturating_add(instance.unclaimed.len() as u64),
            ),
        };
        let line = writeln!(
            out,
            "{} state={what} inodes={inodes} bytes={} ranges={ranges} slack={} unclaimed={unclaimed} limit={} inode-limit={} huge={}",
            instance.name,
            instance.used.saturating_mul(PAGE_SIZE),
            free.saturating_mul(PAGE_SIZE),
            instance.limit.saturating_mul(PAGE_SIZE),
            instance.inode_limit,
            state
                .chunks
                .folios(instance.id)
                .saturating_mul(PAGES * PAGE_SIZE),
        );
        if line.is_err() {
            break;
        }
    }
    Ok(())
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

/// Options as `/proc/mounts` shows them.
///
/// # Errors
///
/// [`EINVAL`] when they do not fit.
pub fn options_show(id: u32, out: &mut Text<'_>) -> Result<(), Errno> {
    let mut state = STATE.lock();
    let instance = state.instance(id)?;
    write!(
        out,
        ",name={},size={}k,nr_inodes={},huge={}\0",
        instance.name,
        instance.limit.saturating_mul(PAGE_SIZE / 1024),
        instance.inode_limit,
        instance.huge.name()
    )
    .map_err(|_| EINVAL)
}
