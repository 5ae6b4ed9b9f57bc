//! Facts about this machine in the form that the next kernel's parameters take.

use super::efi::Efi;
use super::memmap::{FirmwareMap, MemoryType};
use crate::bootparam::{E820Kind, EfiFacts, EfiRegion, MemoryMapEntry};
use kho::PhysAddr;

impl FirmwareMap {
    /// Returns the map in the form of the boot protocol.
    pub fn to_boot(&self) -> Vec<MemoryMapEntry> {
        self.entries()
            .iter()
            .map(|entry| MemoryMapEntry {
                range: entry.range,
                kind: (&entry.kind).into(),
            })
            .collect()
    }
}

impl From<&MemoryType> for E820Kind {
    /// Converts a type. A type without an e820 number becomes reserved memory, which no kernel touches.
    fn from(kind: &MemoryType) -> Self {
        match kind {
            MemoryType::Ram => Self::Ram,
            MemoryType::AcpiTables => Self::Acpi,
            MemoryType::AcpiNvs => Self::Nvs,
            MemoryType::Unusable => Self::Unusable,
            MemoryType::Persistent => Self::Pmem,
            MemoryType::PersistentLegacy => Self::Pram,
            MemoryType::SoftReserved => Self::SoftReserved,
            MemoryType::Reserved | MemoryType::Unknown(_) => Self::Reserved,
        }
    }
}

impl Efi {
    /// Returns the ACPI root pointer, whether or not runtime services are in use: `ACPI20=`, else `ACPI=`, in `systab`.
    pub fn acpi(&self) -> Option<PhysAddr> {
        let table = self.table("ACPI20").or_else(|| self.table("ACPI"));
        table.filter(|at| *at != 0).map(PhysAddr::new)
    }

    /// Returns the facts that the next kernel needs; `None` if the running kernel has no runtime services to pass on
    /// (`efi=noruntime`).
    pub fn for_next_kernel(&self) -> Option<EfiFacts> {
        if self.runtime_map.is_empty() {
            return None;
        }
        Some(EfiFacts {
            fw_vendor: self.fw_vendor.unwrap_or(0),
            runtime: self.runtime.unwrap_or(0),
            config_table: self.config_table?,
            smbios: self.table("SMBIOS"),
            runtime_map: self
                .runtime_map
                .iter()
                .map(|region| EfiRegion {
                    kind: region.kind,
                    attribute: region.attribute,
                    num_pages: region.pages,
                    phys_addr: region.phys,
                    virt_addr: region.virt,
                })
                .collect(),
        })
    }
}
