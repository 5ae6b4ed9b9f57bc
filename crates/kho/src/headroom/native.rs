//! The next kernel's own Kexec HandOver, as far as it takes memory: words of the command line, and the scratch areas
//! that such a kernel sets aside (`kho_reserve_scratch`, `kernel/liveupdate/kexec_handover.c`, 7.3; on x86 since 6.16).
//!
//! By default these areas are 200 % of what early boot reserved, and everything that is handed over is part of that
//! (`memblock_reserved_kern_size`, `mm/memblock.c`). A kernel that finds no place for them switches its KHO off.

use super::words::{memparse_some, params, same_name};

/// Multiple of bytes that an area is rounded up to: `CMA_MIN_ALIGNMENT_BYTES` of a kernel without huge pages; with them
/// it is half of that.
const ALIGN: u64 = 4 << 20;

/// Percentage of early reservations if the command line gives nothing else (`scratch_scale`).
const DEFAULT_PERCENT: u32 = 200;

/// Size of the scratch areas that a kernel's own KHO sets aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeScratch {
    /// A percentage of what early boot reserved: once in the two common areas, and once more in the areas of the nodes.
    Percent(u32),
    /// Sizes in bytes.
    Sizes {
        /// Area below 4 GiB.
        low: u64,
        /// Area anywhere.
        anywhere: u64,
        /// Area on each node that has memory.
        node: u64,
    },
}

impl Default for NativeScratch {
    fn default() -> Self {
        Self::Percent(DEFAULT_PERCENT)
    }
}

impl NativeScratch {
    /// Parses a value of that kernel's `kho_scratch=`: `N%`, or three sizes with commas between them. `None` for a value
    /// that the kernel refuses (`kho_parse_scratch_size`, 7.3), as it does the size that this crate takes under the same
    /// name ([`SCRATCH_OPTION`](crate::scratch::SCRATCH_OPTION)).
    pub fn parse(value: &[u8]) -> Option<Self> {
        if let Some(digits) = value.strip_suffix(b"%") {
            let percent = core::str::from_utf8(digits).ok()?.parse().ok()?;
            return Some(Self::Percent(percent));
        }
        let (low, rest) = memparse_some(value)?;
        let (anywhere, rest) = memparse_some(rest.strip_prefix(b",")?)?;
        let (node, rest) = memparse_some(rest.strip_prefix(b",")?)?;
        let some = low > 0 || anywhere > 0 || node > 0;
        (rest.is_empty() && some).then_some(Self::Sizes {
            low,
            anywhere,
            node,
        })
    }

    /// Returns whether a value of `kho_scratch=` has that kernel's form, valid or not: a comma or a percent sign, which
    /// a size alone never has.
    pub fn is_native(value: &[u8]) -> bool {
        value.contains(&b',') || value.ends_with(b"%")
    }

    /// Returns the last valid value of `kho_scratch=` on a command line, which is the one that counts; `None` if there is
    /// no such value.
    pub fn from_cmdline(cmdline: &[u8]) -> Option<Self> {
        last(cmdline, b"kho_scratch", Self::parse)
    }

    /// Returns the sizes that hold twice these bytes.
    pub(super) fn twice(low: u64, anywhere: u64, node: u64) -> Self {
        let twice = |bytes: u64| round(bytes.saturating_mul(2));
        Self::Sizes {
            low: twice(low),
            anywhere: twice(anywhere),
            node: twice(node),
        }
    }

    /// Returns the bytes of all areas, and the part of them that has to be below 4 GiB, for a kernel that reserves
    /// `reserved` bytes early, `low` of them below 4 GiB.
    pub(super) fn bytes(self, reserved: u64, reserved_low: u64, nodes: u32) -> (u64, u64) {
        match self {
            Self::Percent(percent) => {
                let part = |bytes: u64| {
                    let scaled = u128::from(bytes).saturating_mul(percent.into()) / 100;
                    round(u64::try_from(scaled).unwrap_or(u64::MAX))
                };
                let all = part(reserved);
                (all.saturating_add(all), part(reserved_low))
            }
            Self::Sizes {
                low,
                anywhere,
                node,
            } => {
                let on_nodes = round(node).saturating_mul(nodes.into());
                let total = round(low)
                    .saturating_add(round(anywhere))
                    .saturating_add(on_nodes);
                (total, round(low))
            }
        }
    }
}

fn round(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX)
}

/// Returns the last valid value of `kho=` on a command line: whether the kernel's own KHO is switched on or off. `None`
/// if the line leaves that to the kernel's configuration.
pub fn native_switch(cmdline: &[u8]) -> Option<bool> {
    last(cmdline, b"kho", truth)
}

/// Returns whether a command line asks for the kernel's live update orchestrator, which needs that kernel's own KHO
/// (`liveupdate=`, `kernel/liveupdate/luo_core.c`, 7.3).
pub fn asks_for_live_update(cmdline: &[u8]) -> bool {
    last(cmdline, b"liveupdate", truth) == Some(true)
}

/// The last value of a parameter that `parse` takes: the kernel calls its parser for each, and an invalid value changes
/// nothing.
fn last<T>(cmdline: &[u8], name: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    params(cmdline)
        .filter(|(found, _)| same_name(found, name))
        .filter_map(|(_, value)| parse(value?))
        .last()
}

/// `kstrtobool`, `lib/kstrtox.c`, 7.3.
fn truth(value: &[u8]) -> Option<bool> {
    let at = |index: usize| value.get(index).map_or(0, u8::to_ascii_lowercase);
    match (at(0), at(1)) {
        (b'e' | b'y' | b't' | b'1', _) | (b'o', b'n') => Some(true),
        (b'd' | b'n' | b'f' | b'0', _) | (b'o', b'f') => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MIB;

    #[test]
    fn values_are_read_as_the_kernel_reads_them() {
        let sizes = |low, anywhere, node| {
            Some(NativeScratch::Sizes {
                low: low * MIB,
                anywhere: anywhere * MIB,
                node: node * MIB,
            })
        };
        for (value, parsed) in [
            (&b"200%"[..], Some(NativeScratch::Percent(200))),
            (b"0%", Some(NativeScratch::Percent(0))),
            (b"16M,512M,256M", sizes(16, 512, 256)),
            (b"0,0x20M,0", sizes(0, 32, 0)),
            (b"1g,0,0", sizes(1024, 0, 0)),
            // The size that this project reads under that name, and other values that the kernel refuses.
            (b"256M", None),
            (b"0,0,0", None),
            (b"1M,2M", None),
            (b"1M,2M,3M,", None),
            (b"1M,2M,3Mx", None),
            (b",2M,3M", None),
            (b"%", None),
            (b"4294967296%", None),
            (b"", None),
        ] {
            assert_eq!(NativeScratch::parse(value), parsed, "{value:?}");
            assert_eq!(
                NativeScratch::is_native(value),
                value.contains(&b'%') || value.contains(&b','),
            );
        }
        // The last valid one counts, and ours beside it does not.
        for (line, found) in [
            (
                "kho_scratch=1M,2M,3M kho_scratch=300% kho_scratch=64M",
                Some(NativeScratch::Percent(300)),
            ),
            ("kho-scratch=10% kho_scratch=1M,2M,3M", sizes(1, 2, 3)),
            ("kho_scratch=64M", None),
            ("-- kho_scratch=10%", None),
        ] {
            assert_eq!(
                NativeScratch::from_cmdline(line.as_bytes()),
                found,
                "{line}"
            );
        }
    }

    #[test]
    fn the_switch_is_read_as_the_kernel_reads_it() {
        for (line, on) in [
            ("kho=on", Some(true)),
            ("quiet kho=off", Some(false)),
            ("kho=1 kho=0", Some(false)),
            ("kho=0 kho=Yes", Some(true)),
            ("kho=on kho=maybe kho= kho", Some(true)),
            ("kho=o", None),
            ("kho=enabled", Some(true)),
            ("kho=disabled", Some(false)),
            ("kho", None),
            ("xkho=on kho_scratch=64M", None),
            ("quiet -- kho=on", None),
        ] {
            assert_eq!(native_switch(line.as_bytes()), on, "{line}");
        }
        assert!(asks_for_live_update(b"liveupdate=on"));
        assert!(!asks_for_live_update(b"liveupdate=on liveupdate=0"));
        assert!(!asks_for_live_update(b"kho=on"));
    }

    #[test]
    fn areas_are_added_up() {
        let default = NativeScratch::default();
        assert_eq!(
            default.bytes(400 * MIB, 100 * MIB, 1),
            (1600 * MIB, 200 * MIB)
        );
        assert_eq!(default.bytes(u64::MAX, 0, 1).0, u64::MAX);
        let sizes = NativeScratch::twice(1, 2 * MIB, 3 * MIB);
        assert_eq!(sizes.bytes(0, 0, 3), ((4 + 4 + 3 * 8) * MIB, 4 * MIB));
        let none = NativeScratch::twice(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(none.bytes(0, 0, u32::MAX).0, u64::MAX);
    }
}
