//! Messages by which a kernel reports that something is wrong.

/// Severity of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// The kernel goes on; the test fails at its end.
    Warning,
    /// The kernel cannot go on.
    Fatal,
}

const FATAL: [&str; 14] = [
    "Kernel panic",
    "BUG:",
    "kernel BUG at",
    "Oops:",
    "general protection fault",
    "double fault",
    "unable to handle",
    "Unable to handle",
    "soft lockup",
    "hard LOCKUP",
    "self-detected stall",
    "detected stalls on CPUs",
    "PANIC: early exception",
    "-- System halted",
];

const WARNINGS: [&str; 11] = [
    "WARNING:",
    "cut here ]--",
    "Bad page",
    "bad page",
    "Call Trace:",
    "blocked for more than",
    "UBSAN:",
    "corruption",
    "Out of memory: Killed",
    "invoked oom-killer",
    "refcount_t:",
];

/// Parts of harmless messages that contain a word of `FATAL` or `WARNINGS`.
const HARMLESS: [&str; 4] = [
    // Spectre reports about the emulated processor.
    "data leaks possible",
    // The state of a debugging option, printed at every boot.
    "corruption check",
    "for corruption",
    // A test makes emulated memory fail.
    "due to hardware memory corruption",
];

/// Judges one line of a kernel's console.
pub fn find(line: &str) -> Option<Complaint> {
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if has(&HARMLESS) {
        None
    } else if has(&FATAL) {
        Some(Complaint::Fatal)
    } else if has(&WARNINGS) {
        Some(Complaint::Warning)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_messages() {
        for (line, expected) in [
            (
                "[    1.0] Kernel panic - not syncing: Attempted to kill init!",
                Some(Complaint::Fatal),
            ),
            (
                "[    1.0] BUG: Bad page state in process fill  pfn:12345",
                Some(Complaint::Fatal),
            ),
            (
                "[    1.0] WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:1 __x+0x1/0x2",
                Some(Complaint::Warning),
            ),
            (
                "[    1.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
                Some(Complaint::Fatal),
            ),
            (
                "[    1.0] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
                Some(Complaint::Fatal),
            ),
            (
                "[    0.0] Spectre V2 : WARNING: Unprivileged eBPF is enabled, data leaks possible via x",
                None,
            ),
            ("[    0.0] [Firmware Bug]: TSC ADJUST: CPU0", None),
            ("[    0.0] x86/cpu: MDS CPU bug present", None),
        ] {
            assert_eq!(find(line), expected, "{line}");
        }
    }
}
