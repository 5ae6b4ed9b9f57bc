//! Reads the running kernel's trace.

use super::wish::LOG_LIMIT;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::session::Session;
use kho_kexec::sys::facts::host::KernelId;
use kho_kexec::sys::physmem::Kcore;
use kho_trace::live::KernelMemory;
use kho_trace::take::{Limits, Moment, Paths, TakeError};
use kho_trace::{Taken, meta::Meta};
use rustix::time::{ClockId, clock_gettime};

/// Kernel memory through `/proc/kcore`.
struct Memory(Kcore);

impl KernelMemory for Memory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), String> {
        self.0.read_virtual(addr, buf).map_err(|err| chain(&err))
    }
}

/// Reads the buffers and the log of this kernel, without consuming or changing them.
///
/// # Errors
///
/// [`Status::Trace`] if this kernel does not show what is needed, or does not show it to this user.
pub fn take(limit: u64, session: &Session) -> Result<Taken, Fail> {
    let kcore = Kcore::open(&session.root)
        .or_status(Status::Trace)
        .map_err(|fail| {
            fail.root("trace buffers are read in /proc/kcore; kho keep --no-trace does without")
        })?;
    let kernel = KernelId::read(&session.root).or_status(Status::Failed)?;
    let uptime = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
    let moment = Moment {
        release: kernel.release,
        machine: std::env::consts::ARCH.to_owned(),
        time: crate::clock::now_ns(),
        uptime: seconds * 1_000_000_000 + u64::try_from(uptime.tv_nsec).unwrap_or(0),
    };
    let limits = Limits {
        pages: limit,
        log: LOG_LIMIT,
    };
    let paths = Paths::below(&session.root.path(""));
    kho_trace::take(&paths, &Memory(kcore), moment, limits).map_err(|err| fail(&err))
}

fn fail(err: &TakeError) -> Fail {
    let what = format!("cannot take the trace: {}", chain(err));
    let fix = "kho keep --no-trace does without it";
    let fail = Fail::new(Status::Trace, what);
    match err {
        TakeError::NoTracefs { path } => fail.fix(format!(
            "mount -t tracefs tracefs {}, or {fix}",
            path.display()
        )),
        TakeError::Io { cause, .. } if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            fail.root(fix)
        }
        TakeError::Symbol { .. } => fail.fix(format!(
            "kernel.kptr_restrict must not be 2, and CONFIG_KALLSYMS_ALL is needed; {fix}"
        )),
        _ => fail.fix(fix),
    }
}

/// Returns the bytes of the description.
///
/// # Errors
///
/// None in practice.
pub fn meta_bytes(meta: &Meta) -> Result<Vec<u8>, Fail> {
    meta.to_bytes().or_status(Status::Failed)
}
