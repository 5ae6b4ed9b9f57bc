//! The texts that `/sys/fs/khofs` and `/proc/mounts` show.

use crate::bits::PAGES;
use crate::state::{Body, Instance, State};
use crate::system::System;
use core::fmt::Write;
use kho::PAGE_SIZE;
use kho_decide::errno::{EINVAL, Errno};

/// `status`: a line for each instance, as many as fit: its name, then `key=value` words. All sizes are in bytes.
pub fn status<S: System>(state: &State<S>, out: &mut impl Write) {
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
}

/// Options as `/proc/mounts` shows them.
///
/// # Errors
///
/// [`EINVAL`] if the options do not fit.
pub fn options<S: System>(instance: &Instance<S>, out: &mut impl Write) -> Result<(), Errno> {
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
