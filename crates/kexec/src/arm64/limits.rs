//! Number of early reservations that a next arm64 kernel can make.
//!
//! memblock has `INIT_MEMBLOCK_RESERVED_REGIONS` slots until it can grow: 128, and with `CONFIG_EFI` and
//! `CONFIG_ARM_GIC_V3_ITS` one for each processor that the kernel supports and one more
//! (`arch/arm64/include/asm/memory.h`, 6.1 to 7.3). Debian's kernels: 385 (6.1), 641 (6.12, 7.3). The slots for
//! processors are meant for the LPI tables of interrupt controllers, which a kernel that was started by kexec has to
//! reserve too (`efi_mem_reserve_persistent`): one for each processor of the machine, and one for the table that they
//! share.

use crate::carrier::KernelConfig;

/// Largest number of early reservations that the planner uses on arm64, the state tree included. Handovers of 400 ranges
/// to a kernel with 641 slots were measured; more ranges would need more of `/chosen` and no user has asked for them.
pub const EARLY_RANGES: usize = 256;

/// `INIT_MEMBLOCK_REGIONS`, `include/linux/memblock.h`.
const SLOTS: usize = 128;

/// Slots that the kernel needs for itself and for the firmware: image, initrd, devicetree, page tables, UEFI memory map
/// and tables, `/reserved-memory`, crash kernel, and a margin.
const OTHERS: usize = 40;

/// Returns the number of early reservations, from 0 to [`EARLY_RANGES`], the state tree included, that a kernel of this
/// configuration can make on a machine of `cpus` processors. An unknown configuration counts as the smallest table.
pub fn early_ranges(config: Option<KernelConfig>, cpus: usize) -> usize {
    let for_cpus = config.map_or(0, |config| config.lpi_tables());
    let tables = cpus.saturating_add(1);
    SLOTS
        .saturating_add(for_cpus)
        .saturating_sub(tables)
        .saturating_sub(OTHERS)
        .min(EARLY_RANGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_for_few_processors_takes_fewer_ranges() {
        let config = |cpus: &str| {
            let its = "CONFIG_EFI=y\nCONFIG_ARM_GIC_V3_ITS=y\n";
            Some(KernelConfig::parse(&format!(
                "{its}CONFIG_NR_CPUS={cpus}\n"
            )))
        };
        // Configuration, processors of the machine, ranges.
        for (config, cpus, ranges) in [
            (config("512"), 4, 256),
            (config("256"), 4, 256),
            (config("256"), 256, 87),
            (config("8"), 4, 91),
            (config("99999"), 4, 83),
            (config("x"), 4, 83),
            (None, 4, 83),
            (None, 200, 0),
            (None, usize::MAX, 0),
            // Without the interrupt controller the number of processors does not matter.
            (
                Some(KernelConfig::parse("CONFIG_EFI=y\nCONFIG_NR_CPUS=512\n")),
                4,
                83,
            ),
        ] {
            assert_eq!(early_ranges(config, cpus), ranges, "{config:?} {cpus}");
        }
    }
}
