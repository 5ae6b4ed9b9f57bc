//! Values of `--enter`, which is an argument and part of a record.

use serde::{Deserialize, Serialize};

/// Place at which the next kernel is entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Enter {
    /// The kernel itself where everything about it is known, else the bzImage; with --arm the bzImage, because the load
    /// is then a part of the shutdown
    #[default]
    Auto,
    /// The kernel itself, unpacked by the load; refuse where that is not possible
    Kernel,
    /// The bzImage, which unpacks the kernel when it starts
    Bzimage,
}

impl Enter {
    /// Returns the value for a load at shutdown: unpacking the kernel before the next one starts would then save no
    /// time.
    pub fn at_shutdown(self) -> Self {
        match self {
            Self::Auto => Self::Bzimage,
            chosen => chosen,
        }
    }
}
