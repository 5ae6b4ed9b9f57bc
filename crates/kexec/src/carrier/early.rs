//! Number of early reservations that a next kernel can make.
//!
//! Two tables bound the number (see the [module above](super)). memblock has 128 slots in every kernel. Neither NUMA
//! nodes nor entries of the memory map take any of these slots: the map becomes memblock's memory, and nodes split its
//! regions, after `memblock_allow_resize` (`e820__memblock_setup` and `initmem_init`, both called late in `setup_arch`,
//! 5.10 to 7.3). The e820 table of kernels before 7.3 holds the ranges *beside* the map, and its size depends on the
//! kernel's configuration.

/// Largest number of early reservations that the planner uses, chain and tree included.
///
/// Measured as in `docs/reports/early-ranges.md`: the smallest number that a tested kernel and firmware take is 120;
/// the difference is a margin for firmware that reserves more for itself.
pub const EARLY_RANGES: usize = 96;

/// First version that is known not to put the ranges into its e820 table.
const WITHOUT_E820: (u32, u32) = (7, 3);

/// `E820_MAX_ENTRIES_ZEROPAGE`, `arch/x86/include/uapi/asm/bootparam.h`.
const E820_BASE: usize = 128;

/// Number of entries that `E820_MAX_ENTRIES` adds for each possible node (`arch/x86/include/asm/e820/types.h`, 5.10 to
/// 7.3).
const E820_PER_NODE: usize = 3;

/// Number of entries that each range takes while the kernel puts it into the e820 table; all ranges together take
/// `E820_BESIDES` more.
const E820_PER_RANGE: usize = 3;
const E820_BESIDES: usize = 5;

/// Largest `CONFIG_NODES_SHIFT` on x86 (`arch/x86/Kconfig`).
const MAX_NODES_SHIFT: u32 = 10;

/// Largest `CONFIG_NR_CPUS` on arm64 (`arch/arm64/Kconfig`).
const MAX_ARM64_CPUS: usize = 4096;

/// Facts of a kernel's configuration that affect a handover to that kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// `MAX_NUMNODES`, from 1 to 1024.
    nodes: usize,
    /// `NR_CPUS`, if an arm64 kernel has memblock regions for the interrupt tables of as many processors.
    lpi_tables: usize,
    /// The kernel's own KHO.
    native: NativeKho,
}

/// State of mainline KHO in a kernel, by the kernel's configuration (`kernel/liveupdate/Kconfig`, 7.3; before 6.19
/// `kernel/Kconfig.kexec`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeKho {
    /// Not built in.
    Absent,
    /// Built in, and on if the command line switches it on: `CONFIG_KEXEC_HANDOVER`.
    OnDemand,
    /// Built in, and on unless the command line switches it off: `CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT`.
    OnByDefault,
}

impl KernelConfig {
    /// Parses the text of a `.config`. A missing value counts as the smallest, and so does a value that no build
    /// writes.
    pub fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned());
            text.lines().find_map(of)
        };
        let yes = |name: &str| value(name).as_deref() == Some("y");
        let its = yes("CONFIG_EFI") && yes("CONFIG_ARM_GIC_V3_ITS");
        let cpus = value("CONFIG_NR_CPUS").and_then(|cpus| cpus.trim().parse::<usize>().ok());
        let cpus = cpus.filter(|cpus| its && *cpus <= MAX_ARM64_CPUS);
        let numa = yes("CONFIG_NUMA");
        let shift = value("CONFIG_NODES_SHIFT")
            .and_then(|shift| shift.trim().parse::<u32>().ok())
            .filter(|shift| numa && *shift <= MAX_NODES_SHIFT);
        Self {
            nodes: 1 << shift.unwrap_or(0),
            lpi_tables: cpus.unwrap_or(0),
            native: match yes("CONFIG_KEXEC_HANDOVER") {
                false => NativeKho::Absent,
                true if yes("CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT") => NativeKho::OnByDefault,
                true => NativeKho::OnDemand,
            },
        }
    }

    /// Returns the number of processors for whose LPI tables an arm64 kernel has memblock regions beside the usual ones
    /// (`INIT_MEMBLOCK_RESERVED_REGIONS`, `arch/arm64/include/asm/memory.h`, 6.1 to 7.3); 0 for a kernel without them.
    pub fn lpi_tables(&self) -> usize {
        self.lpi_tables
    }

    /// Returns the state of mainline KHO in the kernel.
    pub fn native_kho(&self) -> NativeKho {
        self.native
    }
}

/// Returns the number of early reservations, from 0 to [`EARLY_RANGES`], chain and tree included, that a kernel of this
/// version (major, minor) and configuration can make beside a memory map of `map_entries` entries. An unknown
/// configuration counts as one without NUMA, which has the smallest table.
pub fn early_ranges(
    version: Option<(u32, u32)>,
    config: Option<KernelConfig>,
    map_entries: usize,
) -> usize {
    if version.is_some_and(|version| version >= WITHOUT_E820) {
        return EARLY_RANGES;
    }
    let nodes = config.map_or(1, |config| config.nodes);
    E820_PER_NODE
        .saturating_mul(nodes)
        .saturating_add(E820_BASE)
        .saturating_sub(map_entries)
        .saturating_sub(E820_BESIDES)
        .checked_div(E820_PER_RANGE)
        .unwrap_or(0)
        .min(EARLY_RANGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Option<KernelConfig> {
        Some(KernelConfig::parse(text))
    }

    #[test]
    fn a_small_e820_table_takes_fewer_ranges() {
        let debian = config("CONFIG_NUMA=y\nCONFIG_NODES_SHIFT=10\n");
        let upstream = config("# x\nCONFIG_NODES_SHIFT=6\nCONFIG_NUMA=y\n");
        let without = config("# CONFIG_NUMA is not set\nCONFIG_NODES_SHIFT=10\n");
        // Version, configuration, entries of the memory map, ranges.
        for (version, config, map, ranges) in [
            ((6, 12), debian, 12, EARLY_RANGES),
            ((6, 12), debian, 1000, EARLY_RANGES),
            ((6, 12), upstream, 12, EARLY_RANGES),
            ((6, 12), upstream, 200, 38),
            ((6, 1), without, 12, 38),
            ((5, 10), None, 12, 38),
            ((6, 12), None, 130, 0),
            ((6, 12), without, usize::MAX, 0),
            ((7, 3), without, 200, EARLY_RANGES),
            ((7, 4), None, 200, EARLY_RANGES),
        ] {
            let found = early_ranges(Some(version), config, map);
            assert_eq!(found, ranges, "{version:?} {config:?} {map}");
            // The whole number of ranges fits into the table.
            if version < WITHOUT_E820 {
                let size = E820_BASE + E820_PER_NODE * config.map_or(1, |config| config.nodes);
                assert!(found == 0 || map + 3 * found + 5 <= size);
            }
        }
        assert_eq!(early_ranges(None, None, 12), 38);
    }

    #[test]
    fn the_kernels_own_kho_is_found() {
        const DEFAULT: &str = "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT=y\n";
        const BUILT: &str = "CONFIG_KEXEC_HANDOVER=y\n";
        for (text, native) in [
            (String::new(), NativeKho::Absent),
            (DEFAULT.to_owned(), NativeKho::Absent),
            (
                "# CONFIG_KEXEC_HANDOVER is not set\n".to_owned(),
                NativeKho::Absent,
            ),
            (
                format!("{BUILT}# CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT is not set\n"),
                NativeKho::OnDemand,
            ),
            (format!("{BUILT}{DEFAULT}"), NativeKho::OnByDefault),
        ] {
            assert_eq!(KernelConfig::parse(&text).native_kho(), native, "{text}");
        }
    }

    #[test]
    fn a_configuration_that_no_build_writes_counts_as_the_smallest() {
        for text in [
            "",
            "CONFIG_NUMA=y",
            "CONFIG_NUMA=y\nCONFIG_NODES_SHIFT=",
            "CONFIG_NUMA=y\nCONFIG_NODES_SHIFT=11",
            "CONFIG_NUMA=y\nCONFIG_NODES_SHIFT=99999999999",
            "CONFIG_NUMA=y\nCONFIG_NODES_SHIFT=-1",
            "CONFIG_NUMA=m\nCONFIG_NODES_SHIFT=10",
        ] {
            assert_eq!(KernelConfig::parse(text).nodes, 1, "{text}");
        }
    }
}
