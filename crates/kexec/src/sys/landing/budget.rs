//! Memory that a load takes, and the time that it takes if its destinations are free memory.

use super::error::LandingError;
use super::huge::HUGE;
use crate::sys::facts::meminfo::MemInfo;
use crate::sys::root::Root;
use core::time::Duration;
use kho::PAGE_SIZE;

/// Memory that a load takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Buffers of the loader in ordinary memory.
    pub own: u64,
    /// The landing zone, which is a buffer too. Free huge pages of the pool are used for it.
    pub zone: u64,
    /// The kernel's own copy of all segments.
    pub copy: u64,
    /// Memory that the kernel frees before it makes that copy: its copy of the image that is loaded now.
    pub freed: u64,
    /// Memory that must stay available, see [`default_reserve`](super::default_reserve).
    pub reserve: u64,
}

impl Need {
    /// Checks that this much memory is available, before the loader takes any of it. Returns `MemAvailable`.
    ///
    /// # Errors
    ///
    /// [`LandingError::NotEnough`]; [`LandingError::Fact`] if the available memory cannot be read.
    pub fn check(&self, root: &Root) -> Result<u64, LandingError> {
        let available = MemInfo::read(root)?.available;
        let zone = self.zone.checked_next_multiple_of(HUGE).unwrap_or(u64::MAX);
        let ours = self.own.saturating_add(zone.saturating_sub(pool(root)));
        for (needed, available) in [
            (ours, available),
            (
                ours.saturating_add(self.copy),
                available.saturating_add(self.freed),
            ),
        ] {
            if needed.saturating_add(self.reserve) > available {
                return Err(LandingError::NotEnough {
                    needed,
                    reserve: self.reserve,
                    available,
                });
            }
        }
        Ok(available)
    }
}

/// Returns the number of bytes in 2 MiB huge pages that are in the pool and not reserved for a mapping. `MemAvailable`
/// does not count these bytes.
pub(super) fn pool(root: &Root) -> u64 {
    let number = |name: &str| {
        root.number(&format!(
            "sys/kernel/mm/hugepages/hugepages-{}kB/{name}",
            HUGE / 1024
        ))
        .unwrap_or(0)
    };
    let free = number("free_hugepages").saturating_sub(number("resv_hugepages"));
    free.saturating_mul(HUGE)
}

/// Returns the time that `kexec_load` takes to search its lists if `free` bytes of the destinations are free memory, in
/// a load of `total` bytes: the product of both numbers of pages, at `STEP_NS` (see the [module](super)'s
/// documentation).
pub fn slow_load(free: u64, total: u64) -> Duration {
    /// Time of one step of the search. Measured: 6 to 12 instructions.
    const STEP_NS: u64 = 10;
    let steps = (free / PAGE_SIZE).saturating_mul(total / PAGE_SIZE);
    Duration::from_nanos(steps.saturating_mul(STEP_NS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    const MIB: u64 = 1 << 20;

    fn machine(available: u64, pool: u64) -> Fixture {
        let f = Fixture::new();
        let kib = available / 1024;
        f.put(
            "proc/meminfo",
            format!("MemTotal: 2000000 kB\nMemFree: {kib} kB\nMemAvailable: {kib} kB\n"),
        );
        let dir = "sys/kernel/mm/hugepages/hugepages-2048kB";
        f.put(
            &format!("{dir}/free_hugepages"),
            format!("{}\n", pool / HUGE + 3),
        )
        .put(&format!("{dir}/resv_hugepages"), "3\n");
        f
    }

    /// If all memory is in a pool of huge pages, none is left for the kernel's copy.
    #[test]
    fn the_pool_serves_for_the_zone_and_for_nothing_else() {
        let need = Need {
            own: 10 * MIB,
            zone: 100 * MIB,
            copy: 110 * MIB,
            freed: 0,
            reserve: 64 * MIB,
        };
        let fits = |need: Need, available, pool| match need.check(&machine(available, pool).root())
        {
            Ok(_) => true,
            Err(LandingError::NotEnough { .. }) => false,
            Err(err) => panic!("{err}"),
        };
        assert!(fits(need, 284 * MIB, 0));
        assert!(!fits(need, 283 * MIB, 0));
        assert!(fits(need, 184 * MIB, 100 * MIB));
        assert!(!fits(need, 183 * MIB, 100 * MIB));
        assert!(!fits(need, 183 * MIB, 1000 * MIB));
        // Memory that an unload frees is available for the copy, and not before.
        let again = Need {
            freed: 110 * MIB,
            ..need
        };
        assert!(fits(again, 174 * MIB, 0));
        assert!(!fits(again, 173 * MIB, 0));
        let hostile = Need {
            zone: u64::MAX,
            copy: u64::MAX,
            ..need
        };
        assert!(!fits(hostile, 284 * MIB, 1000 * MIB));
    }

    #[test]
    fn the_time_grows_with_the_product() {
        assert_eq!(slow_load(0, 1 << 40), Duration::ZERO);
        let some = slow_load(100 * MIB, 100 * MIB);
        assert!((5..8).contains(&some.as_secs()), "{some:?}");
        assert_eq!(slow_load(200 * MIB, 100 * MIB), some * 2);
        assert!(slow_load(u64::MAX, u64::MAX) > Duration::from_secs(1 << 33));
    }
}
