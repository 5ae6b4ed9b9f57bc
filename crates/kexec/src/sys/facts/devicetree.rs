//! The devicetree with which this kernel started.

use crate::devicetree::{DeviceTree, DeviceTreeError, MAX_LEN};
use crate::sys::root::{FactError, Optional, Root};
use thiserror::Error;

/// File with the devicetree as the kernel got it, readable by root alone (`of_fdt_raw_init`, `drivers/of/fdt.c`, 6.1 to
/// 7.3). It exists on a machine with ACPI too.
pub const FILE: &str = "sys/firmware/fdt";

/// Reason why the devicetree cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// The devicetree is damaged.
    #[error(transparent)]
    Damaged(#[from] DeviceTreeError),
}

/// Reads the devicetree; `None` if this kernel started without one.
///
/// # Errors
///
/// [`ReadError`].
pub fn read(root: &Root) -> Result<Option<DeviceTree>, ReadError> {
    match root.bytes(FILE, MAX_LEN).optional()? {
        Some(bytes) => Ok(Some(DeviceTree::parse(&bytes)?)),
        None => Ok(None),
    }
}
