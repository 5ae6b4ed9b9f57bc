//! The interrupt controller of an arm64 machine, as far as it writes to memory.
//!
//! A GICv3 with an ITS keeps tables of message-signalled interrupts (LPIs) in memory that the running kernel took for
//! them, and no kernel can take the tables away again: after a kexec the controller goes on using them, and the next
//! kernel writes to them where they are (`allocate_lpi_tables`, `drivers/irqchip/irq-gic-v3-its.c`, 6.1 to 7.3).

use crate::devicetree::DeviceTree;
use crate::sys::root::{FactError, Optional, Root};

/// The Multiple APIC Description Table (ACPI 6.5, section 5.2.12).
const MADT: &str = "sys/firmware/acpi/tables/APIC";
/// Offset of the first structure in the table.
const STRUCTURES: usize = 44;
/// Type of the structure of an ITS.
const ITS: u8 = 0x0f;
/// Largest length of the table that is read: far more than the largest machine has.
const LIMIT: u64 = 1 << 20;

/// Option with which a kernel makes no such tables (`gic_dist_supports_lpis`, `drivers/irqchip/irq-gic-v3.c`).
pub const WITHOUT_LPIS: &str = "irqchip.gicv3_nolpi=1";

/// Returns whether the machine has an ITS, by its devicetree or its ACPI tables.
///
/// # Errors
///
/// [`FactError`] if the ACPI tables cannot be read.
pub fn has_its(root: &Root, tree: &DeviceTree) -> Result<bool, FactError> {
    if tree.has_compatible("arm,gic-v3-its") {
        return Ok(true);
    }
    let table = root.bytes(MADT, LIMIT).optional()?.unwrap_or_default();
    Ok(madt_has_its(&table))
}

/// A table that is damaged behind a structure counts as one that ends there.
fn madt_has_its(table: &[u8]) -> bool {
    let mut rest = table.get(STRUCTURES..).unwrap_or_default();
    while let [kind, len, ..] = *rest {
        if kind == ITS {
            return true;
        }
        // Type and length are two bytes themselves.
        let next = rest.get(usize::from(len.max(2))..);
        rest = next.unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    #[test]
    fn an_its_is_found_by_either_description() {
        let f = Fixture::new();
        let virt = DeviceTree::parse(include_bytes!("../../../tests/format/virt.dtb")).unwrap();
        assert!(has_its(&f.root(), &virt).unwrap());
        assert!(!virt.has_compatible("arm,gic-v3-it"));
        // A stub, as a machine with ACPI has it.
        let mut bytes = [0; 256];
        let mut w = kho::tree::Writer::new(&mut bytes);
        w.begin_node("").unwrap();
        w.end_node().unwrap();
        let len = w.finish().unwrap();
        let stub = DeviceTree::parse(&bytes[..len]).unwrap();
        assert!(!has_its(&f.root(), &stub).unwrap());
        let mut madt = vec![0; STRUCTURES];
        madt.extend([0x0b, 4, 0, 0, 0x0e, 3, 0]);
        f.put(MADT, &madt);
        assert!(!has_its(&f.root(), &stub).unwrap());
        madt.extend([ITS, 20]);
        f.put(MADT, &madt);
        assert!(has_its(&f.root(), &stub).unwrap());
        assert!(!madt_has_its(&[0; 60]));
    }
}
