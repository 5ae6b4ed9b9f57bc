//! The firmware's memory map as the kernel received it: `/sys/firmware/memmap`.
//!
//! `e820__reserve_resources` (`arch/x86/kernel/e820.c`, 6.1 to 7.3) exports `e820_table_firmware` here: the map that
//! the loader passed, before `mem=`, before setup_data reservations and before quirks. So every kernel can pass the map
//! on to the next. ACPI memory hotplug adds entries (`firmware_map_add_hotplug`); virtio-mem and kmem do not, see
//! [`compare`].

use super::devicetree;
use super::iomem::Iomem;
use crate::sys::root::{FactError, Root, parse_number};
use kho::{OutOfMemory, PhysAddr, PhysRange, RangeSet};
use std::path::PathBuf;

const DIR: &str = "sys/firmware/memmap";

/// Largest number of entries that are read: more than any e820 table holds (128 plus 3 per possible node).
const MAX_ENTRIES: usize = 8192;

/// Type that the firmware gives a range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryType {
    /// "System RAM".
    Ram,
    /// "Reserved".
    Reserved,
    /// "ACPI Tables": reclaimable by the ACPI specification, kept by every kernel.
    AcpiTables,
    /// "ACPI Non-volatile Storage".
    AcpiNvs,
    /// "Unusable memory": memory that is known to be faulty.
    Unusable,
    /// "Persistent Memory".
    Persistent,
    /// "Persistent Memory (legacy)", type 12.
    PersistentLegacy,
    /// "Soft Reserved": memory for one purpose, such as CXL or HBM (EFI_MEMORY_SP).
    SoftReserved,
    /// A type whose name this version of kho does not know.
    Unknown(String),
}

impl MemoryType {
    /// Takes the type from the name in the `type` file (`e820_type_to_string`, 6.1 to 7.3).
    fn from_name(name: &str) -> Self {
        match name {
            "System RAM" => Self::Ram,
            "Reserved" => Self::Reserved,
            "ACPI Tables" => Self::AcpiTables,
            "ACPI Non-volatile Storage" => Self::AcpiNvs,
            "Unusable memory" => Self::Unusable,
            "Persistent Memory" => Self::Persistent,
            "Persistent Memory (legacy)" => Self::PersistentLegacy,
            "Soft Reserved" => Self::SoftReserved,
            other => Self::Unknown(other.to_owned()),
        }
    }

    /// Returns the type's name, if this version of kho does not know the type.
    pub fn unknown(&self) -> Option<&str> {
        match self {
            Self::Unknown(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the type's number in an e820 table (`enum e820_type`, `arch/x86/include/asm/e820/types.h`). An unknown
    /// type becomes reserved memory, which no kernel touches.
    pub const fn e820(&self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved | Self::Unknown(_) => 2,
            Self::AcpiTables => 3,
            Self::AcpiNvs => 4,
            Self::Unusable => 5,
            Self::Persistent => 7,
            Self::PersistentLegacy => 12,
            Self::SoftReserved => 0xefff_ffff,
        }
    }
}

impl core::fmt::Display for MemoryType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Ram => "System RAM",
            Self::Reserved => "Reserved",
            Self::AcpiTables => "ACPI Tables",
            Self::AcpiNvs => "ACPI Non-volatile Storage",
            Self::Unusable => "Unusable memory",
            Self::Persistent => "Persistent Memory",
            Self::PersistentLegacy => "Persistent Memory (legacy)",
            Self::SoftReserved => "Soft Reserved",
            Self::Unknown(name) => name,
        })
    }
}

/// One entry of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Range of the entry.
    pub range: PhysRange,
    /// Type of the range.
    pub kind: MemoryType,
}

/// The firmware map: entries sorted by address that do not overlap.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FirmwareMap {
    entries: Vec<MapEntry>,
    ram: RangeSet,
}

impl FirmwareMap {
    /// Reads `/sys/firmware/memmap`. A kernel that has a devicetree instead keeps no such map, and uses all the RAM that
    /// the firmware describes: there it is "System RAM" of `/proc/iomem`, without RAM that drivers added.
    ///
    /// # Errors
    ///
    /// [`FactError::Missing`] on a kernel with neither, such as one without CONFIG_FIRMWARE_MEMMAP; [`FactError::Overlap`] if entries overlap;
    /// the other variants if the files cannot be read or are malformed.
    pub fn read(root: &Root) -> Result<Self, FactError> {
        if !root.exists(DIR) && root.exists(devicetree::FILE) {
            return Self::of_resources(root);
        }
        let numbers = root.numbered(DIR, MAX_ENTRIES).map_err(|e| {
            e.hinted(": the running kernel keeps no firmware map (CONFIG_FIRMWARE_MEMMAP)")
        })?;
        let mut entries = Vec::new();
        for n in numbers {
            let path = |file| root.path(&format!("{DIR}/{n}/{file}"));
            let bound = |file| -> Result<u64, FactError> {
                let text = root.attribute(&format!("{DIR}/{n}/{file}"))?;
                parse_number(&text).ok_or_else(|| {
                    FactError::malformed(&path(file), "an address such as 0x100000", &text)
                })
            };
            let (start, last) = (PhysAddr::new(bound("start")?), bound("end")?);
            let end = PhysAddr::new(last).checked_add(1).ok_or_else(|| {
                FactError::malformed(
                    &path("end"),
                    "an end below the top of the address space",
                    &format!("{last:#x}"),
                )
            })?;
            let range = PhysRange::from_bounds(start, end).map_err(|source| FactError::Range {
                path: root.path(&format!("{DIR}/{n}")),
                source,
            })?;
            let kind = MemoryType::from_name(&root.attribute(&format!("{DIR}/{n}/type"))?);
            entries.push(MapEntry { range, kind });
        }
        Self::from_entries(entries).map_err(|e| e.of(root.path(DIR)))
    }

    fn of_resources(root: &Root) -> Result<Self, FactError> {
        let iomem = Iomem::read(root)?;
        let entries = iomem.named("System RAM").map(|range| MapEntry {
            range,
            kind: MemoryType::Ram,
        });
        Self::from_entries(entries.collect()).map_err(|e| e.of(root.path("proc/iomem")))
    }

    /// Makes a map from entries in any order.
    ///
    /// # Errors
    ///
    /// [`MapError::Overlap`] if two entries share a byte.
    pub fn from_entries(mut entries: Vec<MapEntry>) -> Result<Self, MapError> {
        entries.sort_by_key(|e| e.range);
        for pair in entries.windows(2) {
            if pair[0].range.overlaps(pair[1].range) {
                return Err(MapError::Overlap(pair[0].range, pair[1].range));
            }
        }
        let ram = RangeSet::from_ranges(
            entries
                .iter()
                .filter(|e| e.kind == MemoryType::Ram)
                .map(|e| e.range),
        )?;
        Ok(Self { entries, ram })
    }

    /// Returns the same map with the RAM in `failed` marked as unusable memory. A kernel that receives this map does
    /// not use that memory, and shows it as unusable in `/sys/firmware/memmap`. So the mark passes from kernel to
    /// kernel.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn without(&self, failed: &RangeSet) -> Result<Self, OutOfMemory> {
        let mut entries = Vec::new();
        for entry in &self.entries {
            if entry.kind != MemoryType::Ram || !failed.overlaps(entry.range) {
                entries.push(entry.clone());
                continue;
            }
            let whole = RangeSet::from_ranges([entry.range])?;
            let good = whole.subtract(failed)?;
            let bad = whole.intersect(failed)?;
            let part = |kind: MemoryType| {
                move |range| MapEntry {
                    range,
                    kind: kind.clone(),
                }
            };
            entries.extend(good.iter().map(part(MemoryType::Ram)));
            entries.extend(bad.iter().map(part(MemoryType::Unusable)));
        }
        entries.sort_by_key(|entry| entry.range);
        Ok(Self {
            entries,
            ram: self.ram.subtract(failed)?,
        })
    }

    /// Returns the entries, sorted by address.
    pub fn entries(&self) -> &[MapEntry] {
        &self.entries
    }

    /// Returns the ranges that the firmware calls usable RAM.
    pub fn ram(&self) -> &RangeSet {
        &self.ram
    }

    /// Returns the entries as an e820 table has them: range and type number.
    pub fn e820(&self) -> impl ExactSizeIterator<Item = (PhysRange, u32)> + '_ {
        self.entries.iter().map(|e| (e.range, e.kind.e820()))
    }
}

/// Reason why the entries are not a valid map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// Two entries share a byte.
    #[error("{0} and {1} overlap")]
    Overlap(PhysRange, PhysRange),
    /// An allocation failed.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl MapError {
    /// Makes the error of a file.
    fn of(self, path: PathBuf) -> FactError {
        match self {
            Self::Overlap(first, second) => FactError::Overlap {
                path,
                first,
                second,
            },
            Self::OutOfMemory(e) => e.into(),
        }
    }
}

/// Differences between the firmware map and the kernel's resource map.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MapCheck {
    /// RAM that this kernel uses and that the firmware map does not name. A next kernel that gets the firmware map will
    /// not know this RAM, so nothing may be handed over in it.
    pub unknown_to_firmware: RangeSet,
    /// RAM of the firmware map that this kernel does not use, above the first MiB (of which every kernel reserves a
    /// part of its own): `mem=`, `memmap=`, stolen graphics memory, emulated persistent memory. The next kernel would
    /// use it.
    pub unused_by_kernel: RangeSet,
    /// RAM that a driver added, with the driver's name (`virtio_mem`, `kmem`). The driver may remove it, so it must
    /// never be a destination.
    pub driver_managed: Vec<(PhysRange, String)>,
}

impl MapCheck {
    /// Returns whether the two maps agree, so that the loader can pass the firmware map on unchanged.
    pub fn is_complete(&self) -> bool {
        self.unknown_to_firmware.is_empty() && self.driver_managed.is_empty()
    }
}

/// Compares the two maps.
///
/// # Errors
///
/// [`OutOfMemory`].
pub fn compare(firmware: &FirmwareMap, iomem: &Iomem) -> Result<MapCheck, OutOfMemory> {
    let mut unused = firmware.ram().subtract(&iomem.system_ram()?)?;
    if let Ok(low) = PhysRange::from_bounds(PhysAddr::new(0), PhysAddr::new(1 << 20)) {
        unused.remove(low)?;
    }
    Ok(MapCheck {
        unknown_to_firmware: iomem.system_ram()?.subtract(firmware.ram())?,
        unused_by_kernel: unused,
        driver_managed: iomem.driver_managed(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;
    use crate::sys::root::in_full;

    pub(crate) fn put_entry(f: &Fixture, n: u32, start: u64, last: u64, kind: &str) {
        let dir = format!("sys/firmware/memmap/{n}");
        f.put(&format!("{dir}/start"), format!("{start:#x}\n"))
            .put(&format!("{dir}/end"), format!("{last:#x}\n"))
            .put(&format!("{dir}/type"), format!("{kind}\n"));
    }

    /// The map that Debian 12 in QEMU with 2 GiB shows.
    pub(crate) fn put_qemu_map(f: &Fixture) {
        put_entry(f, 0, 0, 0x9_fbff, "System RAM");
        put_entry(f, 1, 0x9_fc00, 0x9_ffff, "Reserved");
        put_entry(f, 2, 0xf_0000, 0xf_ffff, "Reserved");
        put_entry(f, 3, 0x10_0000, 0x7ffd_cfff, "System RAM");
        put_entry(f, 4, 0x7ffd_d000, 0x7fff_ffff, "Reserved");
        put_entry(f, 5, 0xfffc_0000, 0xffff_ffff, "Reserved");
        put_entry(f, 10, 0xfd_0000_0000, 0xff_ffff_ffff, "Reserved");
    }

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
    }

    #[test]
    fn reads_a_real_map() {
        let f = Fixture::new();
        put_qemu_map(&f);
        let map = FirmwareMap::read(&f.root()).unwrap();
        assert_eq!(map.entries().len(), 7);
        assert_eq!(
            map.ram().as_slice(),
            [range(0, 0x9_fc00), range(0x10_0000, 0x7ffd_d000)]
        );
        assert_eq!(
            map.e820().last(),
            Some((range(0xfd_0000_0000, 0x100_0000_0000), 2))
        );
    }

    #[test]
    fn refuses_what_is_not_a_map() {
        let cases: [(u64, u64, &str); 3] = [
            (0x2000, 0x1000, "ends before it starts"),
            (0x7000_0000, u64::MAX, "top of the address space"),
            (0x7000_0000, 0x9000_0000, "overlap"),
        ];
        for (start, last, word) in cases {
            let f = Fixture::new();
            put_qemu_map(&f);
            put_entry(&f, 11, start, last, "Reserved");
            let error = in_full(&FirmwareMap::read(&f.root()).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
        let f = Fixture::new();
        put_qemu_map(&f);
        f.put("sys/firmware/memmap/3/start", "100000 \u{1b}[31m\n");
        let error = FirmwareMap::read(&f.root()).unwrap_err().to_string();
        assert!(error.contains("memmap/3/start"), "{error}");
        assert!(
            FirmwareMap::read(&Fixture::new().root())
                .unwrap_err()
                .is_missing()
        );
    }

    #[test]
    fn unknown_types_become_reserved() {
        let f = Fixture::new();
        put_entry(&f, 0, 0, 0xfff, "Something new");
        put_entry(&f, 1, 0x1000, 0x1fff, "Soft Reserved");
        let map = FirmwareMap::read(&f.root()).unwrap();
        assert_eq!(
            map.entries()[0].kind,
            MemoryType::Unknown("Something new".into())
        );
        let codes: Vec<u32> = map.e820().map(|(_, c)| c).collect();
        assert_eq!(codes, [2, 0xefff_ffff]);
        assert!(map.ram().is_empty());
    }

    #[test]
    fn memory_that_failed_is_unusable() {
        let f = Fixture::new();
        put_qemu_map(&f);
        let map = FirmwareMap::read(&f.root()).unwrap();
        let page = |start| range(start, start + 0x1000);
        // Two adjacent pages, the last whole page of an entry, and one page outside RAM.
        let bad = [0x20_0000, 0x20_1000, 0x9_f000, 0x7ffd_c000, 0x7ffd_d000];
        let failed = RangeSet::from_ranges(bad.map(page)).unwrap();
        let less = map.without(&failed).unwrap();
        let unusable: Vec<PhysRange> = less
            .entries()
            .iter()
            .filter(|entry| entry.kind == MemoryType::Unusable)
            .map(|entry| entry.range)
            .collect();
        assert_eq!(
            unusable,
            [
                range(0x9_f000, 0x9_fc00),
                range(0x20_0000, 0x20_2000),
                page(0x7ffd_c000)
            ]
        );
        assert_eq!(
            less.ram().as_slice(),
            [
                range(0, 0x9_f000),
                range(0x10_0000, 0x20_0000),
                range(0x20_2000, 0x7ffd_c000)
            ]
        );
        // The new map has every byte once, in order, as before.
        let again = FirmwareMap::from_entries(less.entries().to_vec()).unwrap();
        assert_eq!(again, less);
        let bytes = |map: &FirmwareMap| map.entries().iter().map(|e| e.range.len()).sum::<u64>();
        assert_eq!(bytes(&less), bytes(&map));
        assert_eq!(map.without(&RangeSet::new()).unwrap(), map);
        // The next kernel finds the mark in its own map, and the map after that hop is the same.
        assert_eq!(less.without(&failed).unwrap(), less);
    }

    #[test]
    fn differences_from_iomem_are_found() {
        let f = Fixture::new();
        put_qemu_map(&f);
        let map = FirmwareMap::read(&f.root()).unwrap();
        let agree = Iomem::parse(
            "00001000-0009fbff : System RAM\n00100000-7ffdcfff : System RAM\n  01000000-01ffffff : Kernel code\n",
        )
        .unwrap();
        assert_eq!(compare(&map, &agree).unwrap(), MapCheck::default());
        // mem=1G hides RAM; virtio-mem adds some.
        let differ = Iomem::parse(
            "00001000-0009fbff : System RAM\n00100000-3fffffff : System RAM\n\
             140000000-1bfffffff : virtio0\n  140000000-147ffffff : System RAM (virtio_mem)\n\
             200000000-20fffffff : System RAM\n",
        )
        .unwrap();
        let check = compare(&map, &differ).unwrap();
        assert!(!check.is_complete());
        assert_eq!(
            check.unused_by_kernel.as_slice(),
            [range(0x4000_0000, 0x7ffd_d000)]
        );
        assert_eq!(
            check.unknown_to_firmware.as_slice(),
            [
                range(0x1_4000_0000, 0x1_4800_0000),
                range(0x2_0000_0000, 0x2_1000_0000)
            ]
        );
        assert_eq!(
            check.driver_managed,
            [(range(0x1_4000_0000, 0x1_4800_0000), "virtio_mem".to_owned())]
        );
    }
}
