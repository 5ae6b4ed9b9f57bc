//! Memory blocks that are offline: the kernel counts them as RAM and does not use them.
//!
//! `/sys/devices/system/memory` (`Documentation/admin-guide/mm/memory-hotplug.rst`): `block_size_bytes` in hex, and a
//! directory `memoryN` for each block, whose address is N times that size. A kernel without CONFIG_MEMORY_HOTPLUG has
//! neither the directory nor offline blocks.

use crate::sys::root::{FactError, Optional, Root};
use kho::{PhysAddr, PhysRange, RangeSet};

const DIR: &str = "sys/devices/system/memory";

/// Returns the memory of the blocks that are not online.
///
/// # Errors
///
/// [`FactError`] if the files exist and differ from the kernel's documentation.
pub fn offline(root: &Root) -> Result<RangeSet, FactError> {
    let mut set = RangeSet::new();
    let size_file = format!("{DIR}/block_size_bytes");
    let Some(text) = root.attribute(&size_file).optional()? else {
        return Ok(set);
    };
    let size = u64::from_str_radix(text.trim_start_matches("0x"), 16)
        .ok()
        .filter(|size| size.is_power_of_two())
        .ok_or_else(|| FactError::malformed(&root.path(&size_file), "a size in hex", &text))?;
    let Ok(entries) = std::fs::read_dir(root.path(DIR)) else {
        return Ok(set);
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("memory"));
        let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
            continue;
        };
        // A driver may unplug the block meanwhile.
        let state = root
            .attribute(&format!("{DIR}/memory{number}/state"))
            .optional()?;
        if state.is_none_or(|state| state == "online") {
            continue;
        }
        let range = number
            .checked_mul(size)
            .and_then(|start| PhysRange::new(PhysAddr::new(start), size).ok());
        let path = root.path(&format!("{DIR}/memory{number}"));
        let range = range.ok_or_else(|| {
            FactError::malformed(&path, "a block below the top of the address space", &text)
        })?;
        set.insert(range)?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    #[test]
    fn blocks_that_are_not_online() {
        let f = Fixture::new();
        assert!(offline(&f.root()).unwrap().is_empty());
        f.put("sys/devices/system/memory/block_size_bytes", "8000000\n");
        for (number, state) in [
            (0, "online"),
            (1, "offline"),
            (2, "going-offline"),
            (9, "online"),
        ] {
            f.put(
                &format!("sys/devices/system/memory/memory{number}/state"),
                format!("{state}\n"),
            );
        }
        f.put("sys/devices/system/memory/auto_online_blocks", "online\n");
        let set = offline(&f.root()).unwrap();
        assert_eq!(
            set.as_slice(),
            [PhysRange::new(PhysAddr::new(0x800_0000), 0x1000_0000).unwrap()]
        );
        f.put(
            "sys/devices/system/memory/memory999999999999/state",
            "offline\n",
        );
        assert!(offline(&f.root()).is_err());
        f.put("sys/devices/system/memory/block_size_bytes", "banana\n");
        assert!(
            offline(&f.root())
                .unwrap_err()
                .to_string()
                .contains("banana")
        );
    }
}
