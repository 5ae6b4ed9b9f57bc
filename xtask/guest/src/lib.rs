//! Events and answers that the host and its test guests exchange.
//!
//! A guest has two serial ports. The first belongs to its kernel alone, so that all of its output can be judged as
//! kernel output. The second carries the output of the scripts and, among it, the events of this module: lines that
//! start with [`TAG`] and a random token, which the host put on the kernel command line. So the output of a script
//! cannot be mistaken for a verdict.

pub mod forge;
pub mod random;

use serde::{Deserialize, Serialize};

/// First word of every event line.
pub const TAG: &str = "@kho";

/// Kernel command line parameter that carries the token. The kernel ignores a parameter with a dot.
pub const TOKEN_PARAMETER: &str = "kho_guest.token";

/// Kernel command line parameter that carries the number of hops made so far.
pub const HOP_PARAMETER: &str = "kho_guest.hop";

/// Directory at which the guest mounts the read-only disk.
pub const MEDIA: &str = "/media";

/// The [`Plan`] as JSON, on the disk.
pub const PLAN: &str = "plan.json";

/// Folder of the disk that is `/lib/modules` in the guest: kho's modules, by release.
pub const INSTALLED: &str = "modules";

/// Directory of the initramfs whose files are loaded as kernel modules, in the order of their names.
pub const MODULES: &str = "/lib/guest-modules";

/// The serial port for scripts and events.
pub const CONTROL_PORT: &str = if cfg!(target_arch = "aarch64") {
    "/dev/ttyAMA1"
} else {
    "/dev/ttyS1"
};

/// Plan of a guest: its stages, kernel after kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One stage for the first boot and one for each hop.
    pub stages: Vec<Stage>,
}

/// Work of a guest under one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Name of the kernel as the user gave it, for people.
    pub kernel: String,
    /// Folder below [`MEDIA`] that holds this kernel's `bzImage` and `initrd`.
    pub folder: String,
    /// Script below [`MEDIA`]; `None` if the stage only has to arrive.
    pub script: Option<String>,
    /// Kernel command line without the hop parameter.
    pub cmdline: String,
}

/// Event that a guest reports to its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// PID 1 has started: its first event.
    Boot {
        /// Hops made since the cold boot.
        hop: usize,
        /// `uname -r`.
        release: String,
        /// Milliseconds since this kernel started its clock.
        uptime_ms: u64,
    },
    /// The script of this stage has ended, or the hop after it failed.
    Verdict {
        /// Hops made since the cold boot.
        hop: usize,
        /// Whether all is well.
        pass: bool,
        /// Reason of a failure; empty if all is well.
        why: String,
    },
    /// `kho exec` runs next.
    Exec {
        /// Hops made before this one.
        hop: usize,
    },
    /// A value that must be the same whenever its key comes up, over all hops. The host remembers the first.
    Same {
        /// Name of the compared value.
        key: String,
        /// The value seen now.
        value: String,
    },
    /// A measured value for the host's tables.
    Report {
        /// Name of the measured value.
        key: String,
        /// Measured value, as the script wrote it.
        value: String,
    },
    /// The guest waits here until the host has done its step and answers with [`go`].
    Mark {
        /// Name of the step.
        name: String,
    },
    /// No failure, but a part of the test could not be tried.
    Skip {
        /// Description of the thing that could not be tried, and the reason.
        why: String,
    },
    /// The guest waits here until the host has answered with the number of times it was switched on.
    Lives,
    /// All stages are done; power goes off next.
    Done,
}

impl Event {
    /// The line that carries this event, without its newline.
    #[must_use]
    pub fn to_line(&self, token: &str) -> String {
        // Strings, numbers and booleans under string keys: conversion to JSON cannot fail.
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{TAG} {token} {json}")
    }

    /// Finds an event in a line that a guest with this token printed.
    #[must_use]
    pub fn from_line(line: &str, token: &str) -> Option<Self> {
        let rest = line.trim().strip_prefix(TAG)?.trim_start();
        let json = rest.strip_prefix(token)?;
        serde_json::from_str(json.trim_start()).ok()
    }
}

/// The host's answer to [`Event::Mark`].
#[must_use]
pub fn go(name: &str) -> String {
    format!("go {name}")
}

/// The first word of the host's answer to [`Event::Lives`]; the number follows.
pub const LIVES: &str = "lives ";

/// The value of `name=value` in a kernel command line; the last one counts.
#[must_use]
pub fn parameter<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline
        .split_ascii_whitespace()
        .rev()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_line() {
        let event = Event::Same {
            key: "a b".into(),
            value: "quote \" and\nnewline".into(),
        };
        let line = event.to_line("f00d");
        assert!(!line.contains('\n'));
        assert_eq!(Event::from_line(&format!("{line}\r"), "f00d"), Some(event));
    }

    #[test]
    fn another_token_is_no_event() {
        let line = Event::Done.to_line("f00d");
        assert_eq!(Event::from_line(&line, "beef"), None);
        assert_eq!(
            Event::from_line("@kho f00d {\"event\":\"unheard-of\"}", "f00d"),
            None
        );
    }

    #[test]
    fn the_last_parameter_counts() {
        let cmdline = "quiet kho_guest.hop=1 kho_guest.hopper=9 kho_guest.hop=2\n";
        assert_eq!(parameter(cmdline, HOP_PARAMETER), Some("2"));
        assert_eq!(parameter(cmdline, TOKEN_PARAMETER), None);
    }
}
