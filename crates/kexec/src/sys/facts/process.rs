//! This process: its user and its capabilities.

use crate::sys::root::{FactError, LISTING_LIMIT, Root, parse_hex};

/// A capability by its bit (`include/uapi/linux/capability.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability(u32, &'static str);

impl Capability {
    /// Lock memory into RAM (`mlock` beyond the limit).
    pub const IPC_LOCK: Self = Self(14, "CAP_IPC_LOCK");
    /// Open `/proc/kcore`.
    pub const SYS_RAWIO: Self = Self(17, "CAP_SYS_RAWIO");
    /// See physical addresses in `/proc/iomem` and `/proc/self/pagemap`.
    pub const SYS_ADMIN: Self = Self(21, "CAP_SYS_ADMIN");
    /// Load and start images.
    pub const SYS_BOOT: Self = Self(22, "CAP_SYS_BOOT");
    /// See kernel addresses in `/proc/kallsyms` (with `kernel.kptr_restrict=1`).
    pub const SYSLOG: Self = Self(34, "CAP_SYSLOG");

    /// All capabilities that a handover needs.
    pub const NEEDED: [Self; 5] = [
        Self::SYS_BOOT,
        Self::SYS_ADMIN,
        Self::SYS_RAWIO,
        Self::IPC_LOCK,
        Self::SYSLOG,
    ];

    /// Returns the name of the capability, for example `CAP_SYS_BOOT`.
    pub const fn name(self) -> &'static str {
        self.1
    }
}

/// Effective user and capabilities, from `/proc/self/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Effective user id.
    pub uid: u32,
    /// Effective capabilities, one bit each.
    pub capabilities: u64,
}

impl Process {
    /// Reads `/proc/self/status`.
    ///
    /// # Errors
    ///
    /// [`FactError`].
    pub fn read(root: &Root) -> Result<Self, FactError> {
        let file = "proc/self/status";
        let text = root.text(file, LISTING_LIMIT)?;
        let line = |name: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(name))
                .unwrap_or("")
        };
        let wrong = |expected, found: &str| FactError::malformed(&root.path(file), expected, found);
        let uids = line("Uid:");
        let uid = uids
            .split_whitespace()
            .nth(1)
            .and_then(|w| w.parse().ok())
            .ok_or_else(|| wrong("a line Uid: with four numbers", uids))?;
        let caps = line("CapEff:").trim();
        let capabilities =
            parse_hex(caps).ok_or_else(|| wrong("a line CapEff: with a mask", caps))?;
        Ok(Self { uid, capabilities })
    }

    /// Returns whether the capability is in effect.
    pub const fn has(&self, capability: Capability) -> bool {
        self.capabilities >> capability.0 & 1 == 1
    }

    /// Returns the names of the needed capabilities that are not in effect.
    pub fn missing(&self) -> Vec<&'static str> {
        Capability::NEEDED
            .into_iter()
            .filter(|c| !self.has(*c))
            .map(Capability::name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    #[test]
    fn capabilities_are_read() {
        let f = Fixture::new();
        f.put(
            "proc/self/status",
            "Name:\tkho\nUid:\t1000\t0\t0\t0\nCapEff:\t000001ffffbfffff\n",
        );
        let me = Process::read(&f.root()).unwrap();
        assert_eq!(me.uid, 0);
        assert_eq!(me.missing(), ["CAP_SYS_BOOT"]);
        f.put("proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\tall\n");
        assert!(
            Process::read(&f.root())
                .unwrap_err()
                .to_string()
                .contains("all")
        );
        f.put("proc/self/status", "Name: x\n");
        assert!(Process::read(&f.root()).is_err());
    }
}
