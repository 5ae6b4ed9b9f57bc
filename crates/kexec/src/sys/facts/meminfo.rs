//! `/proc/meminfo`.

use crate::sys::root::{FactError, LISTING_LIMIT, Root};
use std::collections::BTreeMap;

const FILE: &str = "proc/meminfo";

/// `/proc/meminfo`, in bytes and pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemInfo {
    /// Memory that this kernel manages: `totalram_pages()`. It does not include memory that earlier hops keep reserved.
    pub total: u64,
    /// Free memory.
    pub free: u64,
    /// Memory that can be allocated without swapping.
    pub available: u64,
    /// Memory lost to hardware errors (0 without CONFIG_MEMORY_FAILURE).
    pub hardware_corrupted: u64,
    /// Number of huge pages of the default size in the pool.
    pub hugepages_total: u64,
    /// Number of these huge pages that are not in use.
    pub hugepages_free: u64,
    /// Number of these huge pages that are reserved for mappings.
    pub hugepages_reserved: u64,
    /// Default huge page size in bytes (0 without hugetlb).
    pub hugepage_size: u64,
    /// All memory in huge pages of any size.
    pub hugetlb: u64,
    /// Memory for contiguous allocations (CMA).
    pub cma_total: u64,
}

impl MemInfo {
    /// Reads `/proc/meminfo`.
    ///
    /// # Errors
    ///
    /// [`FactError::Malformed`] if a value is not a number, or if the file lacks one of the first three fields.
    pub fn read(root: &Root) -> Result<Self, FactError> {
        let text = root.text(FILE, LISTING_LIMIT)?;
        let path = root.path(FILE);
        let mut values: BTreeMap<&str, u64> = BTreeMap::new();
        for line in text.lines() {
            let wrong = || FactError::malformed(&path, "lines such as MemTotal: 2012345 kB", line);
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            let mut words = value.split_whitespace();
            let number: u64 = words
                .next()
                .and_then(|w| w.parse().ok())
                .ok_or_else(wrong)?;
            let scaled = match words.next() {
                None => Some(number),
                Some("kB") => number.checked_mul(1024),
                Some(_) => None,
            };
            values.insert(name, scaled.ok_or_else(wrong)?);
        }
        let must = |name: &'static str| {
            values
                .get(name)
                .copied()
                .ok_or_else(|| FactError::malformed(&path, name, "no such line"))
        };
        let may = |name: &str| values.get(name).copied().unwrap_or(0);
        Ok(Self {
            total: must("MemTotal")?,
            free: must("MemFree")?,
            available: must("MemAvailable")?,
            hardware_corrupted: may("HardwareCorrupted"),
            hugepages_total: may("HugePages_Total"),
            hugepages_free: may("HugePages_Free"),
            hugepages_reserved: may("HugePages_Rsvd"),
            hugepage_size: may("Hugepagesize"),
            hugetlb: may("Hugetlb"),
            cma_total: may("CmaTotal"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    #[test]
    fn reads_debian() {
        let f = Fixture::new();
        let debian = "MemTotal:        2014344 kB\nMemFree:         1755580 kB\n\
            MemAvailable:    1766120 kB\nHardwareCorrupted:     4 kB\nCmaTotal:              0 kB\n\
            HugePages_Total:       3\nHugePages_Free:        2\nHugePages_Rsvd:        1\n\
            Hugepagesize:       2048 kB\nHugetlb:            6144 kB\n";
        f.put("proc/meminfo", debian);
        let info = MemInfo::read(&f.root()).unwrap();
        assert_eq!(info.total, 2_014_344 * 1024);
        assert_eq!(info.hardware_corrupted, 4096);
        assert_eq!(info.hugepage_size, 2 << 20);
        assert_eq!(
            (
                info.hugepages_total,
                info.hugepages_free,
                info.hugepages_reserved
            ),
            (3, 2, 1)
        );
        for bad in [
            "MemFree: 99999999999999999999 kB",
            "MemFree: 18014398509481984 kB",
            "MemFree: 3 MB",
            "MemFree 3 kB",
            "MemFree: x kB",
        ] {
            f.put("proc/meminfo", format!("{debian}{bad}\n"));
            let error = MemInfo::read(&f.root()).unwrap_err().to_string();
            assert!(error.contains("MemFree"), "{error}");
        }
        f.put("proc/meminfo", "MemTotal: 1 kB\nMemFree: 1 kB\n");
        assert!(
            MemInfo::read(&f.root())
                .unwrap_err()
                .to_string()
                .contains("MemAvailable")
        );
    }
}
