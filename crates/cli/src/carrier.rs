//! The carrier that the administrator wants for the content.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Choice of the carrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Memory in place; the initrd where the running kernel does not allow that.
    #[default]
    Auto,
    /// Memory that the next kernel leaves alone.
    Memory,
    /// Files in the initrd.
    Initrd,
}
