//! Pages that the running kernel holds as reserved. `kho` reads their flags only if a plan depends on them.
//!
//! The kernel needs some 700 instructions to tell the flags of one page. So the first plan assumes that every page is
//! free whose flags are unknown. Then `kho` reads the flags of the pages that the plan uses. If one of them is
//! reserved, it makes a new plan.

use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status};
use crate::session::Session;
use crate::state::Known;
use kho::{PhysAddr, PhysRange, RangeSet};
use kho_kexec::sys::facts::blocks;
use kho_kexec::sys::pageflags::PageFlags;
use std::cell::{Ref, RefCell};

/// Number of bytes, on each side of a page that made a plan unusable, whose flags are read next. The memory that the
/// kernel reserves lies together: its map of all pages takes 16 MiB for each GiB.
const BESIDE: u64 = 16 << 20;

/// The pages of this machine's RAM, and their known flags.
pub struct Pages {
    flags: PageFlags,
    /// RAM according to the firmware. No page lies outside of it.
    ram: RangeSet,
    /// Pages that were not reserved before an image was loaded. If such a page is reserved now, it belongs to the
    /// loaded image (`kimage_alloc_pages`, `kernel/kexec_core.c`), and not to memory that only the firmware knows.
    image: RangeSet,
    /// Ranges that are reserved because they arrived with a handover.
    arrived: RangeSet,
    /// RAM in the firmware's map that cannot be written to, as far as is known: its block of memory is offline, or was
    /// never brought online, or a balloon holds it.
    offline: RefCell<RangeSet>,
    known: RefCell<Known>,
}

impl Pages {
    /// Opens the page flags without reading any. `loaded` says whether an image is loaded or may be loaded.
    ///
    /// # Errors
    ///
    /// [`Status::NotPermitted`] if the flags cannot be opened. If the record of an earlier load cannot be read.
    pub fn open(
        session: &Session,
        ram: &RangeSet,
        arrived: Option<&Arrived>,
        loaded: bool,
    ) -> Result<Self, Fail> {
        let before = match loaded {
            true => session.state.reserved(ram)?,
            false => None,
        };
        let ram = ram.page_outer().or_status(Status::Failed)?;
        let offline = blocks::offline(&session.root)
            .or_status(Status::FirmwareMap)?
            .intersect(&ram)
            .or_status(Status::Failed)?;
        Ok(Self {
            offline: RefCell::new(offline),
            flags: PageFlags::open(&session.root).or_status(Status::NotPermitted)?,
            ram,
            image: match before {
                Some(before) => before
                    .asked
                    .subtract(&before.reserved)
                    .or_status(Status::Failed)?,
                None => RangeSet::new(),
            },
            arrived: arrived.map_or(Ok(RangeSet::new()), Arrived::reserved)?,
            known: RefCell::default(),
        })
    }

    /// Returns the poisoned pages (PG_hwpoison) of all RAM. Reads the flags of every page.
    ///
    /// # Errors
    ///
    /// [`Status::NotPermitted`] if the flags cannot be read.
    pub fn poisoned(&self) -> Result<RangeSet, Fail> {
        self.flags
            .poisoned_in(&self.ram)
            .or_status(Status::NotPermitted)
    }

    /// Returns the reserved pages in `within`, including those of a loaded image.
    ///
    /// # Errors
    ///
    /// [`Status::NotPermitted`] if the flags cannot be read.
    pub fn reserved_in(&self, within: &RangeSet) -> Result<RangeSet, Fail> {
        self.ask(within)?;
        let known = self.known.borrow();
        known.reserved.intersect(within).or_status(Status::Failed)
    }

    /// Returns the reserved pages in `within` that are not part of the loaded image.
    ///
    /// # Errors
    ///
    /// As [`Pages::reserved_in`].
    pub fn held_in(&self, within: &RangeSet) -> Result<RangeSet, Fail> {
        let reserved = self.reserved_in(within)?;
        reserved.subtract(&self.image).or_status(Status::Failed)
    }

    /// Returns the known pages that no plan may use: pages that are offline, and reserved pages that neither belong to
    /// the loaded image nor arrived.
    ///
    /// # Errors
    ///
    /// If memory runs out.
    pub fn pinned(&self) -> Result<RangeSet, Fail> {
        let known = self.known.borrow();
        known
            .reserved
            .subtract(&self.image)
            .and_then(|held| held.subtract(&self.arrived))
            .and_then(|held| held.union(&self.offline.borrow()))
            .or_status(Status::Failed)
    }

    /// Reads the unknown flags of the pages that a plan uses. Returns true if one of these pages is pinned: then
    /// `pinned` has grown, and the plan cannot be used. `tries` is the number of earlier plans that could not be used.
    ///
    /// # Errors
    ///
    /// As [`Pages::reserved_in`].
    pub fn spoil(&self, used: &RangeSet, tries: u32) -> Result<bool, Fail> {
        let before = self.pinned()?;
        self.ask(used)?;
        let found = self
            .pinned()?
            .intersect(used)
            .and_then(|pinned| pinned.subtract(&before))
            .or_status(Status::Failed)?;
        if found.is_empty() {
            return Ok(false);
        }
        // Doubles the distance for each try, so that a large reserved area needs few plans.
        let reach = BESIDE.checked_shl(tries).unwrap_or(u64::MAX).max(BESIDE);
        let highest = self.ram.span().map_or(0, |span| span.end().get());
        let beside = found.iter().filter_map(|range| {
            let start = range.start().get().saturating_sub(reach);
            let end = range.end().get().saturating_add(reach).min(highest);
            PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).ok()
        });
        let beside = RangeSet::from_ranges(beside).or_status(Status::Failed)?;
        self.ask(&beside)?;
        Ok(true)
    }

    /// Returns the page flags that are known so far.
    pub fn known(&self) -> Ref<'_, Known> {
        self.known.borrow()
    }

    fn ask(&self, within: &RangeSet) -> Result<(), Fail> {
        let mut known = self.known.borrow_mut();
        let new = within
            .page_outer()
            .and_then(|within| within.intersect(&self.ram))
            .and_then(|within| within.subtract(&known.asked))
            .or_status(Status::Failed)?;
        if new.is_empty() {
            return Ok(());
        }
        let (reserved, offline) = self
            .flags
            .reserved_and_offline(&new)
            .or_status(Status::NotPermitted)?;
        let mut all = self.offline.borrow_mut();
        *all = all.union(&offline).or_status(Status::Failed)?;
        *known = Known {
            asked: known.asked.union(&new).or_status(Status::Failed)?,
            reserved: known.reserved.union(&reserved).or_status(Status::Failed)?,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho_kexec::sys::pageflags::flag;
    use kho_kexec::sys::root::Root;
    use std::os::unix::fs::FileExt;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn set(start: u64, end: u64) -> RangeSet {
        let range = PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap();
        RangeSet::from_ranges([range]).unwrap()
    }

    /// A machine of `size` bytes with one reserved range.
    fn pages(size: u64, reserved: (u64, u64)) -> (tempfile::TempDir, Pages) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        let file = std::fs::File::create(folder.path().join("proc/kpageflags")).unwrap();
        file.set_len(size / 4096 * 8).unwrap();
        let flags = flag::RESERVED
            .to_ne_bytes()
            .repeat(((reserved.1 - reserved.0) / 4096) as usize);
        file.write_all_at(&flags, reserved.0 / 4096 * 8).unwrap();
        let pages = Pages {
            flags: PageFlags::open(&Root::at(folder.path())).unwrap(),
            ram: set(0, size),
            image: RangeSet::new(),
            arrived: RangeSet::new(),
            offline: RefCell::default(),
            known: RefCell::default(),
        };
        (folder, pages)
    }

    #[test]
    fn only_what_is_used_is_asked_about() {
        let (_folder, pages) = pages(GIB, (64 * MIB, 65 * MIB));
        assert!(pages.pinned().unwrap().is_empty());
        let found = pages.reserved_in(&set(60 * MIB, 65 * MIB - 4096)).unwrap();
        assert_eq!(found, set(64 * MIB, 65 * MIB - 4096));
        assert_eq!(pages.known().asked, set(60 * MIB, 65 * MIB - 4096));
        // No pages lie beyond the end of memory.
        assert!(pages.reserved_in(&set(GIB, 2 * GIB)).unwrap().is_empty());
        assert_eq!(pages.known().asked.total(), 5 * MIB - 4096);
    }

    #[test]
    fn the_loaded_image_and_what_arrived_are_not_pinned() {
        let (_folder, mut pages) = pages(GIB, (64 * MIB, 68 * MIB));
        pages.image = set(64 * MIB, 65 * MIB);
        pages.arrived = set(65 * MIB, 66 * MIB);
        let all = set(60 * MIB, 70 * MIB);
        assert_eq!(pages.reserved_in(&all).unwrap(), set(64 * MIB, 68 * MIB));
        assert_eq!(pages.held_in(&all).unwrap(), set(65 * MIB, 68 * MIB));
        assert_eq!(pages.pinned().unwrap(), set(66 * MIB, 68 * MIB));
    }

    #[test]
    fn a_plan_on_pinned_pages_is_spoiled_once() {
        let (_folder, pages) = pages(GIB, (64 * MIB, 65 * MIB));
        assert!(!pages.spoil(&set(32 * MIB, 33 * MIB), 0).unwrap());
        let used = set(64 * MIB, 66 * MIB);
        assert!(pages.spoil(&used, 0).unwrap());
        assert_eq!(pages.pinned().unwrap(), set(64 * MIB, 65 * MIB));
        assert!(
            pages
                .known()
                .asked
                .contains_range(set(48 * MIB, 81 * MIB).as_slice()[0])
        );
        // These pages are known now. A planner that uses them anyway gets no second warning.
        assert!(!pages.spoil(&used, 1).unwrap());
    }

    #[test]
    fn what_is_offline_is_used_by_no_plan() {
        let (folder, mut pages) = pages(GIB, (64 * MIB, 65 * MIB));
        pages.offline = RefCell::new(set(512 * MIB, 640 * MIB));
        assert_eq!(pages.pinned().unwrap(), set(512 * MIB, 640 * MIB));
        let ballooned = flag::OFFLINE.to_ne_bytes();
        std::fs::File::options()
            .write(true)
            .open(folder.path().join("proc/kpageflags"))
            .and_then(|file| file.write_all_at(&ballooned, 32 * MIB / 4096 * 8))
            .unwrap();
        assert!(pages.spoil(&set(32 * MIB, 33 * MIB), 0).unwrap());
        let all = set(0, GIB);
        assert!(
            !pages
                .reserved_in(&all)
                .unwrap()
                .contains_range(set(32 * MIB, 33 * MIB).as_slice()[0])
        );
        let pinned = pages.pinned().unwrap();
        assert!(pinned.contains_range(set(32 * MIB, 32 * MIB + 4096).as_slice()[0]));
        assert_eq!(pinned.total(), 129 * MIB + 4096);
    }

    /// The kernel's map of all pages lies at the end of a node's memory, where the planner starts.
    #[test]
    fn a_large_reserved_area_takes_few_plans() {
        const TOP: u64 = 256 * GIB;
        let (_folder, pages) = pages(TOP, (TOP - 4 * GIB, TOP));
        let mut tries = 0;
        loop {
            let end = pages
                .pinned()
                .unwrap()
                .span()
                .map_or(TOP, |pinned| pinned.start().get());
            if !pages.spoil(&set(end - MIB, end), tries).unwrap() {
                assert_eq!(end, TOP - 4 * GIB);
                break;
            }
            tries += 1;
        }
        assert!(tries <= 9, "{tries} plans");
        assert!(pages.known().asked.total() <= 9 * GIB);
    }
}
