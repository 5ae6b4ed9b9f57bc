//! Operations, and scripts of them.

use std::fmt;

/// Where a load is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is not.
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

/// One thing that happens to a machine. Numbers that name something count modulo what there is.
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
    /// Pages at this page number are to be kept in place, wherever that is.
    Foreign(u32, u8),
    /// A producer gives its pages back (this covers ranges that arrived).
    Release(u8),
    /// The module gives back what is reserved and no longer needed.
    ReleaseSlack,
    /// Everything free is overwritten.
    Churn,
    /// Plan and load: kernel, MiB of initrd, whether a landing zone is taken first, and where it is cut short.
    Load(u8, u8, bool, Cut),
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

/// What an operation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Refused with this message; nothing has changed.
    Refused(String),
    /// There was nothing to do it to.
    Nothing,
    /// The next kernel runs.
    Hop,
    /// The machine started from nothing.
    ColdBoot,
}
