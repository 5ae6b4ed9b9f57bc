//! The firmware's memory map in the boot protocol's terms.

use kho::PhysRange;
use zerocopy::byteorder::little_endian::{U32, U64};

use super::layout::BootE820Entry;

/// Kind of a range in the firmware's memory map: `enum e820_type`, `arch/x86/include/asm/e820/types.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum E820Kind {
    /// Usable memory.
    Ram = 1,
    /// Unusable memory.
    Reserved = 2,
    /// ACPI tables, usable memory after the kernel has read them.
    Acpi = 3,
    /// ACPI non-volatile storage.
    Nvs = 4,
    /// Faulty memory.
    Unusable = 5,
    /// Persistent memory.
    Pmem = 7,
    /// Persistent memory, from before the type had a standard number.
    Pram = 12,
    /// Memory that the firmware reserved for a driver (`EFI_MEMORY_SP`).
    SoftReserved = 0xefff_ffff,
}

/// One range of the firmware's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMapEntry {
    /// The range.
    pub range: PhysRange,
    /// Kind of the range.
    pub kind: E820Kind,
}

impl MemoryMapEntry {
    /// Returns the entry in the form of the boot protocol.
    pub fn to_boot(self) -> BootE820Entry {
        BootE820Entry {
            addr: U64::new(self.range.start().get()),
            size: U64::new(self.range.len()),
            kind: U32::new(self.kind as u32),
        }
    }
}
