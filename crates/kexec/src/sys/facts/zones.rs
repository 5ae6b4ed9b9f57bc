//! `/proc/zoneinfo`: free memory by zone.

use crate::sys::root::{FactError, LISTING_LIMIT, Root};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};

const FILE: &str = "proc/zoneinfo";

/// Zones from which an allocation with GFP_HIGHUSER takes no page (`gfp_zone`, `include/linux/gfp.h`). Such an
/// allocation may use lower zones only.
const NOT_FOR_KEXEC: [&str; 2] = ["Movable", "Device"];

/// One zone of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Zone {
    node: u64,
    name: String,
    /// Free memory, in pages, as all figures here.
    free: u64,
    high: u64,
    spanned: u64,
    start: u64,
}

/// The zones of all nodes, in the order of the file: within a node from the lowest to the highest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    zones: Vec<Zone>,
}

impl Zones {
    /// Reads `/proc/zoneinfo` (`zoneinfo_show_print`, `mm/vmstat.c`, the same lines from 5.10 to 7.3).
    ///
    /// # Errors
    ///
    /// [`FactError::Malformed`] if a zone has no name, or a figure that is not a number.
    pub fn read(root: &Root) -> Result<Self, FactError> {
        let text = root.text(FILE, LISTING_LIMIT)?;
        let path = root.path(FILE);
        let mut zones: Vec<Zone> = Vec::new();
        for line in text.lines() {
            let wrong = || FactError::malformed(&path, "lines such as Node 0, zone DMA32", line);
            if let Some(rest) = line.strip_prefix("Node ") {
                let (node, name) = rest.split_once(", zone").ok_or_else(wrong)?;
                zones.push(Zone {
                    node: node.parse().map_err(|_| wrong())?,
                    name: name.trim().to_owned(),
                    free: 0,
                    high: 0,
                    spanned: 0,
                    start: 0,
                });
                continue;
            }
            let Some(zone) = zones.last_mut() else {
                continue;
            };
            let mut words = line.split_whitespace();
            let figure = match words.next() {
                Some("pages") if words.next() == Some("free") => &mut zone.free,
                // The per-CPU lists have a line `high:`, with a colon.
                Some("high") => &mut zone.high,
                Some("spanned") => &mut zone.spanned,
                Some("start_pfn:") => &mut zone.start,
                _ => continue,
            };
            *figure = words
                .next()
                .and_then(|word| word.parse().ok())
                .ok_or_else(wrong)?;
        }
        Ok(Self { zones })
    }

    /// Returns the number of bytes that the kernel takes from other zones before it takes a page of `range`: the free
    /// memory, beyond the high watermark, in the zones of the same node above the zone of `range`. If `range` lies in
    /// several zones, the smallest of these numbers counts. An allocation tries the zones of a node from the highest to
    /// the lowest (`build_zonelists`, `mm/page_alloc.c`). 0 if no zone contains the range.
    pub fn spare_above(&self, range: PhysRange) -> u64 {
        let nodes = self.zones.iter().filter(|zone| zone.overlaps(range));
        nodes
            .map(|below| {
                let node = self.zones.iter().filter(|zone| zone.node == below.node);
                let above = node.skip_while(|zone| zone.name != below.name).skip(1);
                above
                    .filter(|zone| !NOT_FOR_KEXEC.contains(&zone.name.as_str()))
                    .map(|zone| zone.free.saturating_sub(zone.high))
                    .fold(0u64, u64::saturating_add)
            })
            .min()
            .unwrap_or(0)
            .saturating_mul(PAGE_SIZE)
    }
}

impl Zone {
    fn overlaps(&self, range: PhysRange) -> bool {
        let bytes = |pages: u64| PhysAddr::new(pages.saturating_mul(PAGE_SIZE));
        let end = self.start.saturating_add(self.spanned);
        PhysRange::from_bounds(bytes(self.start), bytes(end)).is_ok_and(|zone| zone.overlaps(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    const GIB: u64 = 1 << 30;

    /// Two nodes of 4 GiB, from 6.12, without the lines that are not read.
    const TWO_NODES: &str = "\
Node 0, zone      DMA
  per-node stats
      nr_free_highatomic 0
  pages free     3840
        boost    0
        min      66
        low      82
        high     98
        spanned  4095
        protection: (0, 2969, 7935, 7935, 7935)
  pagesets
    cpu: 0
              count:    0
              high:     13
  start_pfn:           1
Node 0, zone    DMA32
  pages free     500000
        high     3660
        spanned  1044480
  start_pfn:           4096
Node 0, zone   Normal
  pages free     200098
        high     98
        spanned  262144
  start_pfn:           1048576
Node 0, zone  Movable
  pages free     9000
        high     32
        spanned  0
Node 1, zone   Normal
  pages free     100000
        high     25557
        spanned  1048576
  start_pfn:           1310720
";

    fn spare(text: &str, start: u64) -> u64 {
        let fixture = Fixture::new();
        fixture.put(FILE, text);
        let range = PhysRange::new(PhysAddr::new(start), 1 << 20).unwrap();
        Zones::read(&fixture.root()).unwrap().spare_above(range)
    }

    #[test]
    fn higher_zones_of_the_node_count_and_those_for_movable_pages_do_not() {
        assert_eq!(spare(TWO_NODES, GIB), 200_000 * 4096);
        // The lowest zone has two zones above it.
        assert_eq!(spare(TWO_NODES, 1 << 20), (200_000 + 500_000 - 3660) * 4096);
        assert_eq!(spare(TWO_NODES, 4 * GIB), 0);
        assert_eq!(spare(TWO_NODES, 5 * GIB), 0);
    }

    #[test]
    fn a_range_over_two_zones_has_what_the_highest_has() {
        assert_eq!(spare(TWO_NODES, 4 * GIB - (1 << 19)), 0);
        assert_eq!(spare(TWO_NODES, (16 << 20) - (1 << 19)), 200_000 * 4096);
    }

    #[test]
    fn nowhere_is_nothing_to_spare() {
        assert_eq!(spare(TWO_NODES, 100 * GIB), 0);
        assert_eq!(spare("", GIB), 0);
        let low = TWO_NODES.replace("free     200098", "free     97");
        assert_eq!(spare(&low, GIB), 0);
    }

    #[test]
    fn figures_that_are_none_are_refused() {
        for text in [
            "Node 0\n",
            "Node x, zone DMA\n",
            "Node 0, zone DMA\n  pages free\n",
        ] {
            let fixture = Fixture::new();
            fixture.put(FILE, text);
            let error = Zones::read(&fixture.root()).unwrap_err();
            assert!(error.to_string().contains("zoneinfo"), "{error}");
        }
    }
}
