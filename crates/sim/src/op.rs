//! Operations, and their text form.

use std::fmt;
use std::str::FromStr;

/// Point at which a load is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The load is not cut short.
    Never,
    /// The command dies after the old image was unloaded and the phase is active.
    Activated,
    /// The command dies after it wrote the state.
    Written,
    /// `kexec_load` fails; the command cleans up.
    SyscallFails,
    /// The command dies after `kexec_load` and before it records the load.
    Loaded,
}

/// One event on a machine. A number that names a thing counts modulo the number of such things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The user keeps a new blob of this many bytes.
    Keep(u32),
    /// The source of a blob changes, its size included.
    Touch(u8, u32),
    /// The user no longer keeps a blob.
    Drop(u8),
    /// A blob that arrived is restored, so the next load reads it from its restored copy.
    Restore(u8),
    /// A producer takes pages outside scratch (number of ranges, pages of each) and keeps them in place.
    Hold(u8, u8),
    /// A producer takes this many blocks of 2^order pages outside scratch from the page allocator, and returns every
    /// second one, so that the memory that it keeps in place is scattered.
    Scatter(u8, u8),
    /// The running kernel takes twice this many blocks of 2^order pages anywhere, and returns every second one. Free
    /// memory is in pieces from then on, until the next kernel.
    Busy(u8, u8),
    /// A producer keeps pages from this page number on in place, at any address.
    Foreign(u32, u8),
    /// A consumer claims the memory that arrived for it: the consumer owns the pages again, and they are no longer
    /// reserved.
    Claim(u8),
    /// The arena of a producer grows by this many pages, and the producer writes all of it anew.
    Grow(u8, u8),
    /// A user of memory in place overwrites its data. This is allowed at any time, also in the active phase.
    Write(u8),
    /// A producer releases its pages, also in ranges that arrived.
    Release(u8),
    /// The module releases reserved memory that is no longer needed.
    ReleaseSlack,
    /// All free memory is overwritten.
    Churn,
    /// Plan and load: kernel, MiB of initrd, whether the loader takes a landing zone first, and the point at which the
    /// load is cut short.
    Load(u8, u8, bool, Cut),
    /// Producers serialize and freeze, with nothing loaded.
    Activate,
    /// The active phase is aborted, and the image is unloaded.
    Abort,
    /// The loaded image is started, with or without KASLR.
    Exec(bool),
    /// The power fails after this many segments were copied.
    CrashInExec(u8),
    /// The power fails.
    PowerFailure,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Op {
    type Err = String;

    /// Parses the form that [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, arguments) = match text.trim().split_once('(') {
            Some((name, rest)) => (
                name,
                rest.strip_suffix(')').ok_or("no closing parenthesis")?,
            ),
            None => (text.trim(), ""),
        };
        let words: Vec<&str> = arguments
            .split(',')
            .map(str::trim)
            .filter(|w| !w.is_empty())
            .collect();
        let word = |at: usize| {
            words
                .get(at)
                .copied()
                .ok_or_else(|| format!("{name}: too few arguments"))
        };
        fn read<T: FromStr>(word: Result<&str, String>) -> Result<T, String> {
            let word = word?;
            word.parse()
                .map_err(|_| format!("{word:?} is no such value"))
        }
        let op = match name {
            "Keep" => Self::Keep(read(word(0))?),
            "Touch" => Self::Touch(read(word(0))?, read(word(1))?),
            "Drop" => Self::Drop(read(word(0))?),
            "Restore" => Self::Restore(read(word(0))?),
            "Hold" => Self::Hold(read(word(0))?, read(word(1))?),
            "Scatter" => Self::Scatter(read(word(0))?, read(word(1))?),
            "Busy" => Self::Busy(read(word(0))?, read(word(1))?),
            "Foreign" => Self::Foreign(read(word(0))?, read(word(1))?),
            "Claim" => Self::Claim(read(word(0))?),
            "Grow" => Self::Grow(read(word(0))?, read(word(1))?),
            "Write" => Self::Write(read(word(0))?),
            "Release" => Self::Release(read(word(0))?),
            "ReleaseSlack" => Self::ReleaseSlack,
            "Churn" => Self::Churn,
            "Load" => Self::Load(
                read(word(0))?,
                read(word(1))?,
                read(word(2))?,
                match word(3)? {
                    "Never" => Cut::Never,
                    "Activated" => Cut::Activated,
                    "Written" => Cut::Written,
                    "SyscallFails" => Cut::SyscallFails,
                    "Loaded" => Cut::Loaded,
                    other => return Err(format!("{other:?} is no place to cut a load")),
                },
            ),
            "Activate" => Self::Activate,
            "Abort" => Self::Abort,
            "Exec" => Self::Exec(read(word(0))?),
            "CrashInExec" => Self::CrashInExec(read(word(0))?),
            "PowerFailure" => Self::PowerFailure,
            other => return Err(format!("{other:?} is no operation")),
        };
        // This comparison finds too many arguments.
        if op.to_string().replace(' ', "") == text.replace(' ', "") {
            Ok(op)
        } else {
            Err(format!("{text:?} reads as {op}"))
        }
    }
}

/// Outcome of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The operation was performed.
    Done,
    /// The operation was refused with this message, and nothing has changed.
    Refused(String),
    /// The operation had no object to apply to.
    Nothing,
    /// The next kernel runs.
    Hop,
    /// The machine booted through the firmware.
    ColdBoot,
}
