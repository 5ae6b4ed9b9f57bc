//! Releases of Debian.

/// A Debian release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian 12: Linux 6.1, and 6.12 from its backports.
    Bookworm,
    /// Debian 13: Linux 6.12, and 7.3 from its backports.
    Trixie,
    /// Debian 14 before its release, testing: Linux 7.x, no backports, systemd 262 or later.
    Forky,
}

impl Release {
    /// All releases.
    pub const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Forky];

    /// Its code name.
    pub fn codename(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }

    /// Its number, for names of tests.
    pub fn number(self) -> u32 {
        match self {
            Self::Bookworm => 12,
            Self::Trixie => 13,
            Self::Forky => 14,
        }
    }

    /// The suite of its backports.
    pub(super) fn backports(self) -> String {
        format!("{}-backports", self.codename())
    }
}
