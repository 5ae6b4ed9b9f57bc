//! Operations, and scripts of them.

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
    /// The command dies after `kexec_load` and before it noted so.
    Loaded,
}

/// One thing that happens to a machine. A number that names a thing counts modulo the number of such things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new blob of so many bytes.
    Keep(u32),
    /// A blob's source changes, size included.
    Touch(u8, u32),
    /// A blob is no longer kept.
    Drop(u8),
    /// An arrived blob is restored, so the next load reads it from where it was restored to.
    Restore(u8),
    /// A producer takes pages for itself (ranges, pages each), outside scratch, and has them kept in place.
    Hold(u8, u8),
    /// A producer takes so many blocks of 2^order pages from the page allocator, outside scratch, and gives every other
    /// one back: what it has kept in place is scattered.
    Scatter(u8, u8),
    /// The running kernel takes twice so many blocks of 2^order pages for itself, wherever, and gives every other one
    /// back: free memory is in pieces from now on, until the next kernel.
    Busy(u8, u8),
    /// Pages at this page number are to be kept in place, wherever that is.
    Foreign(u32, u8),
    /// A consumer claims what arrived for it: the pages are its own again, and no longer reserved.
    Claim(u8),
    /// A producer's arena grows by so many pages, and all of it is written anew.
    Grow(u8, u8),
    /// A user of memory in place writes over its data. That is allowed at any time, also while a handover is under way.
    Write(u8),
    /// A producer gives its pages back (this covers ranges that arrived).
    Release(u8),
    /// The module gives back what is reserved and no longer needed.
    ReleaseSlack,
    /// Everything free is overwritten.
    Churn,
    /// Plan and load: kernel, MiB of initrd, whether a landing zone is taken first, and where it is cut short.
    Load(u8, u8, bool, Cut),
    /// Producers write down and freeze what they have, with nothing loaded.
    Activate,
    /// Back to idle; the image is unloaded.
    Abort,
    /// Start what is loaded (KASLR or not).
    Exec(bool),
    /// The power fails while so many segments are copied.
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

    /// Reads what [`Display`](fmt::Display) writes.
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
        // What is written is what was meant: too many arguments are noticed here.
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
    /// Done.
    Done,
    /// Refused with this message; nothing has changed.
    Refused(String),
    /// Nothing was there that the operation could apply to.
    Nothing,
    /// The next kernel runs.
    Hop,
    /// The machine started from nothing.
    ColdBoot,
}
