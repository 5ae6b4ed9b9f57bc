//! `kho-guest fragment`

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::mm::MapFlags;
use rustix::pipe::{fcntl_setpipe_size, pipe};

use crate::fill::available;
use crate::mapping::Map;

const PAGE: usize = 4096;

/// Of so many pages one is held: no free piece has as many.
const EVERY: usize = 16;

/// Pages in one pipe.
const SLOTS: usize = 256;

/// Takes all available memory but `leave` MiB, gives it back except for single pages that cannot be moved (a pipe holds
/// them), says `ready`, and keeps them until it is killed.
pub fn run(leave: u64) -> Result<()> {
    let len = usize::try_from(available()?.saturating_sub(leave) << 20)?;
    let file = File::from(memfd_create("fragment", MemfdFlags::CLOEXEC)?);
    fallocate(&file, FallocateFlags::empty(), 0, len as u64).context("taking memory")?;
    let map = Map::with(&file, len, MapFlags::SHARED)?;
    let mut pipes: Vec<(OwnedFd, OwnedFd)> = Vec::new();
    for (number, page) in (0..len / PAGE).step_by(EVERY).enumerate() {
        if number % SLOTS == 0 {
            let (out, into) = pipe()?;
            fcntl_setpipe_size(&into, SLOTS * PAGE).context("making room in a pipe")?;
            pipes.push((out, into));
        }
        if let Some((_, into)) = pipes.last() {
            map.lend(page * PAGE, into)?;
        }
    }
    file.set_len(0)?;
    println!("ready: {} MiB in pieces", available()?);
    loop {
        std::thread::park();
    }
}
