//! Values of `kho load --arm --on-failure`, which is an argument and part of a record. The manual pages and the fuzz
//! targets compile this file too.

use serde::{Deserialize, Serialize};

/// Action at shutdown if the content cannot be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Start the same kernel without a handover.
    Plain,
    /// Reboot through the firmware.
    #[default]
    Cold,
    /// Do not go down: stay in the emergency shell with file systems mounted.
    Stop,
}
