//! The start without an initrd: mounts the root file system and starts its init, as `prepare_namespace`
//! (`init/do_mounts.c`) and `kernel_init` (`init/main.c`) do when there is no initial root file system.
//!
//! The program understands `root=/dev/NAME`, `rootfstype=`, `rootflags=`, `ro`, `rw`, `rootdelay=`, `rootwait` and
//! `init=`. It does not understand names that only the kernel can look up (`PARTUUID=`, `8:1` and so on), nor network
//! and MTD roots.

use core::ffi::CStr;

use crate::log::{self, Log};
use crate::sys::{self, EACCES, EINVAL, ENOENT, Errno, Start};
use crate::text::{Text, arguments, number};

/// Length of the buffer for the command line, in bytes: more than `COMMAND_LINE_SIZE` of any architecture (x86: 2048).
pub const MAX_LINE: usize = 16 << 10;
const MAX_PATH: usize = 4096;
const POLL_MS: u64 = 50;
/// Time to wait for the device without `rootwait`, in milliseconds. The kernel waits until it has probed all devices; a
/// program cannot wait for that.
const PATIENCE_MS: u64 = 10_000;
/// Interval, in milliseconds, between messages that the program still waits.
const REMIND_MS: u64 = 10_000;

/// Failure of a step. The log has the reason.
pub struct Failed;

/// Mounts the root file system and makes it the root of this process.
pub fn switch(line: &[u8], log: &mut Log) -> Result<(), Failed> {
    let last = |wanted: &[u8]| {
        arguments(line)
            .filter(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
            .last()
    };

    let root = last(b"root").unwrap_or_default();
    let Some(device) = root
        .strip_prefix(b"/dev/")
        .filter(|d| !d.is_empty() && *d != b"nfs")
    else {
        let mut said = log.begin(log::ERROR);
        if let Ok(root) = Text::<256>::new(&[root]) {
            said = said.str("cannot mount root=").cstr(root.as_cstr());
        }
        said.str(": without an initrd only root=/dev/NAME is supported (not UUID=, PARTUUID=, LABEL=, numbers, nfs or mtd); load an initrd")
            .end();
        return Err(Failed);
    };
    let path = fit(
        Text::<MAX_PATH>::new(&[b"/.kho/dev/", device]),
        "root=",
        log,
    )?;
    let data = fit(
        Text::<MAX_PATH>::new(&[last(b"rootflags").unwrap_or_default()]),
        "rootflags=",
        log,
    )?;

    attempt(
        "mount devtmpfs",
        sys::mount(c"devtmpfs", c"/.kho/dev", c"devtmpfs", sys::MS_NOSUID, c""),
        log,
    )?;
    sys::sleep_ms(number(last(b"rootdelay").unwrap_or_default()).saturating_mul(1000));
    wait_for(path.as_cstr(), last(b"rootwait").is_some(), log)?;

    let writable = arguments(line)
        .filter_map(|(name, _)| match name {
            b"ro" => Some(false),
            b"rw" => Some(true),
            _ => None,
        })
        .last()
        .unwrap_or(false);
    let flags = sys::MS_SILENT | if writable { 0 } else { sys::MS_RDONLY };
    mount_any(
        path.as_cstr(),
        data.as_cstr(),
        flags,
        last(b"rootfstype"),
        log,
    )?;

    // As in devtmpfs_mount(): the root file system may have no /dev, and init then starts without it.
    let _ = sys::unmount(c"/.kho/dev");
    if let Err(why) = sys::mount(
        c"devtmpfs",
        c"/.kho/root/dev",
        c"devtmpfs",
        sys::MS_NOSUID,
        c"",
    ) {
        log.begin(log::ERROR)
            .str("cannot mount devtmpfs in the root file system")
            .errno(why)
            .end();
    }
    attempt("enter the root file system", sys::chdir(c"/.kho/root"), log)?;
    attempt(
        "move the root file system to /",
        sys::move_here_to_root(),
        log,
    )?;
    attempt("chroot into the root file system", sys::chroot(c"."), log)?;
    attempt("enter the root file system", sys::chdir(c"/"), log)
}

/// Starts `init=`, or else the first of the kernel's default programs that can be started. Returns if none can be
/// started.
pub fn start_init(start: &Start, line: &[u8], log: &mut Log) {
    let wanted = arguments(line)
        .filter(|(name, _)| *name == b"init")
        .map(|(_, value)| value)
        .last();
    if let Some(wanted) = wanted {
        if let Ok(path) = fit(Text::<MAX_PATH>::new(&[wanted]), "init=", log) {
            let why = start.exec(path.as_cstr());
            log.begin(log::ERROR)
                .str("cannot start init=")
                .cstr(path.as_cstr())
                .errno(why)
                .end();
        }
        return;
    }
    for path in [c"/sbin/init", c"/etc/init", c"/bin/init", c"/bin/sh"] {
        let why = start.exec(path);
        if why != ENOENT {
            log.begin(log::ERROR)
                .str("cannot start ")
                .cstr(path)
                .errno(why)
                .end();
        }
    }
    log.begin(log::ERROR)
        .str("no working init found: pass init= to the kernel")
        .end();
}

fn attempt(what: &str, result: Result<(), Errno>, log: &mut Log) -> Result<(), Failed> {
    result.map_err(|why| {
        log.begin(log::ERROR)
            .str("cannot ")
            .str(what)
            .errno(why)
            .end();
        Failed
    })
}

fn fit<T>(text: Result<T, Errno>, what: &str, log: &mut Log) -> Result<T, Failed> {
    text.map_err(|_| {
        log.begin(log::ERROR)
            .str("the value of ")
            .str(what)
            .str(" is too long")
            .end();
        Failed
    })
}

/// Reads the kernel's command line.
pub fn read_command_line<'a>(
    buffer: &'a mut [u8; MAX_LINE],
    log: &mut Log,
) -> Result<&'a [u8], Failed> {
    read_proc(c"/.kho/proc/cmdline", buffer, log)
}

/// Reads a file of proc. The program mounts proc for the read and unmounts it afterwards.
fn read_proc<'a>(path: &CStr, buffer: &'a mut [u8], log: &mut Log) -> Result<&'a [u8], Failed> {
    attempt(
        "mount proc",
        sys::mount(c"proc", c"/.kho/proc", c"proc", sys::MS_QUIET, c""),
        log,
    )?;
    let read = sys::open(path, sys::O_RDONLY, 0).and_then(|file| file.read_at(buffer, 0));
    let _ = sys::unmount(c"/.kho/proc");
    let len = *read.as_ref().unwrap_or(&0);
    attempt("read from proc", read.map(drop), log)?;
    Ok(buffer.get(..len).unwrap_or_default())
}

fn wait_for(device: &CStr, for_ever: bool, log: &mut Log) -> Result<(), Failed> {
    let mut waited = 0;
    loop {
        match sys::open(device, sys::O_RDONLY, 0) {
            Ok(_) => return Ok(()),
            Err(why) if !for_ever && waited >= PATIENCE_MS => {
                log.begin(log::ERROR)
                    .str("the root device does not appear (/.kho stands for /): ")
                    .cstr(device)
                    .errno(why)
                    .end();
                return Err(Failed);
            }
            Err(_) => {}
        }
        if waited % REMIND_MS == 0 {
            log.begin(log::NOTICE)
                .str("waiting for the root device ")
                .cstr(device)
                .end();
        }
        sys::sleep_ms(POLL_MS);
        waited += POLL_MS;
    }
}

/// Mounts the root file system as `mount_block_root` does: tries each type in turn, and read-only if nothing else
/// works.
fn mount_any(
    device: &CStr,
    data: &CStr,
    flags: usize,
    types: Option<&[u8]>,
    log: &mut Log,
) -> Result<(), Failed> {
    let mut list = [0; MAX_PATH];
    let list = match types {
        Some(types) => types,
        None => read_proc(c"/.kho/proc/filesystems", &mut list, log)?,
    };
    for flags in [flags, flags | sys::MS_RDONLY] {
        for kind in list
            .split(|b| matches!(b, b',' | b'\n'))
            .filter(|k| !k.is_empty())
        {
            // Lines of /proc/filesystems: "nodev\tname" or "\tname".
            let Some(kind) = kind
                .strip_prefix(b"\t")
                .or((!kind.starts_with(b"nodev")).then_some(kind))
            else {
                continue;
            };
            let kind = fit(Text::<64>::new(&[kind]), "rootfstype=", log)?;
            match sys::mount(device, c"/.kho/root", kind.as_cstr(), flags, data) {
                Ok(()) => return Ok(()),
                Err(EACCES | EINVAL) => {}
                Err(why) => {
                    log.begin(log::ERROR)
                        .str("cannot mount the root file system as ")
                        .cstr(kind.as_cstr())
                        .errno(why)
                        .end();
                    return Err(Failed);
                }
            }
        }
    }
    log.begin(log::ERROR)
        .str("no file system of this kernel is on the root device; load an initrd, or give rootfstype=")
        .end();
    Err(Failed)
}
