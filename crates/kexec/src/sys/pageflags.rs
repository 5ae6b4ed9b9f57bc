//! Pages that the running kernel has reserved, poisoned or taken offline: `/proc/kpageflags`.
//!
//! The file is an array of one `u64` per page frame (`fs/proc/page.c`). The kernel promises that only the bits below
//! 32, `NOPAGE` and `HWPOISON` included, stay the same; `RESERVED` is bit 32 of `include/linux/kernel-page-flags.h`,
//! "subject to change", and is bit 32 in 6.1, 6.12 and 7.3. A page frame without a `struct page` reads as `NOPAGE` up
//! to 6.12 and as 0 in 7.3, so kho recognises a hole because it is *not reserved*, never by a flag.
//!
//! **The pages of a loaded kexec image are reserved too** (`kimage_alloc_pages` sets PG_reserved on each), also those
//! of the crash kernel's tables. To see only the pages that stay reserved, a program unloads the image before it reads
//! the flags.
//!
//! # Speed
//!
//! The kernel needs about 10 to 40 ns per page, so 1 TiB (268 million pages, 2 GiB of flags) takes about 3 to 10
//! seconds; the work on the flags here is a small part of that. One read covers [`CHUNK_PAGES`] pages, and only the
//! given ranges are read.

use crate::sys::root::{FactError, Root};
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const FILE: &str = "proc/kpageflags";

/// Pages per read: 1 MiB of flags, 512 MiB of memory.
pub const CHUNK_PAGES: usize = 128 * 1024;

/// Flags by bit. Bits up to 26 are from `include/uapi/linux/kernel-page-flags.h`.
pub mod flag {
    /// A free page, in the buddy allocator.
    pub const BUDDY: u64 = 1 << 10;
    /// A page of a larger page, but not its first.
    pub const COMPOUND_TAIL: u64 = 1 << 16;
    /// A hugetlb page.
    pub const HUGE: u64 = 1 << 17;
    /// Poisoned after a hardware error.
    pub const HWPOISON: u64 = 1 << 19;
    /// Not used by the kernel: a balloon gave the page to a hypervisor, or the page was never brought online
    /// (`KPF_OFFLINE`; `PageOffline` in `include/linux/page-flags.h`).
    pub const OFFLINE: u64 = 1 << 23;
    /// Reserved: not managed by the page allocator.
    pub const RESERVED: u64 = 1 << 32;
}

/// An open `/proc/kpageflags`.
#[derive(Debug)]
pub struct PageFlags {
    file: File,
    path: PathBuf,
}

impl PageFlags {
    /// Opens the file. Root only.
    ///
    /// # Errors
    ///
    /// [`FactError::Missing`] without CONFIG_PROC_PAGE_MONITOR, [`FactError::Io`] if the process may not open the file.
    pub fn open(root: &Root) -> Result<Self, FactError> {
        let path = root.path(FILE);
        let file = File::open(&path).map_err(|e| {
            FactError::io(&path, e).hinted(": the running kernel lacks CONFIG_PROC_PAGE_MONITOR")
        })?;
        Ok(Self { file, path })
    }

    /// Returns the pages of `within` that have any of the flags in `mask`. Rounds ranges outwards to whole pages.
    ///
    /// # Errors
    ///
    /// [`FactError`].
    pub fn pages_with(&self, within: &RangeSet, mask: u64) -> Result<RangeSet, FactError> {
        let mut found = Builder::default();
        self.scan(within, |start, flags| {
            matching_runs(flags, mask, true, |from, to| found.add(start, from, to));
            !found.failed
        })?;
        found.finish()
    }

    /// Returns the reserved pages of `within`: memory that must not be handed over or overwritten, unless it is kho's.
    ///
    /// # Errors
    ///
    /// [`FactError`].
    pub fn reserved_in(&self, within: &RangeSet) -> Result<RangeSet, FactError> {
        self.pages_with(within, flag::RESERVED)
    }

    /// Returns the reserved pages of `within`, and the offline pages of `within`, from one pass over the flags.
    ///
    /// # Errors
    ///
    /// [`FactError`].
    pub fn reserved_and_offline(
        &self,
        within: &RangeSet,
    ) -> Result<(RangeSet, RangeSet), FactError> {
        let (mut reserved, mut offline) = (Builder::default(), Builder::default());
        self.scan(within, |start, flags| {
            for (mask, found) in [
                (flag::RESERVED, &mut reserved),
                (flag::OFFLINE, &mut offline),
            ] {
                matching_runs(flags, mask, true, |from, to| found.add(start, from, to));
            }
            !reserved.failed && !offline.failed
        })?;
        Ok((reserved.finish()?, offline.finish()?))
    }

    /// Returns the poisoned pages of `within`. For a hugetlb page that is in use the kernel does not show which of its
    /// pages failed: 6.1 marks the first one, later kernels mark all. So all pages of such a hugetlb page count as
    /// poisoned.
    ///
    /// # Errors
    ///
    /// [`FactError`].
    pub fn poisoned_in(&self, within: &RangeSet) -> Result<RangeSet, FactError> {
        let mut found = Builder::default();
        let (mut next, mut in_huge) = (0, false);
        self.scan(within, |start, flags| {
            in_huge &= start == next;
            next = start.saturating_add(flags.len() as u64);
            poisoned_runs(flags, &mut in_huge, |from, to| found.add(start, from, to));
            !found.failed
        })?;
        found.finish()
    }

    /// Returns the first page of `range` that is *not* reserved, if any. A frame without a `struct page`, also beyond
    /// the end of memory, is not reserved.
    ///
    /// # Errors
    ///
    /// [`FactError`].
    pub fn first_not_reserved(&self, range: PhysRange) -> Result<Option<PhysAddr>, FactError> {
        let mut first: Option<u64> = None;
        let mut next = page_of(range.start());
        let within = RangeSet::from_ranges([range])?;
        self.scan(&within, |start, flags| {
            matching_runs(flags, flag::RESERVED, false, |from, _| {
                let page = start.saturating_add(from as u64);
                first = Some(first.map_or(page, |f| f.min(page)));
            });
            next = start.saturating_add(flags.len() as u64);
            first.is_none()
        })?;
        let (_, end) = pages_of(range);
        let page = first.or((next < end).then_some(next));
        Ok(page.map(|p| PhysAddr::new(p.saturating_mul(PAGE_SIZE))))
    }

    /// Returns the flags of one page; `None` beyond the end of memory.
    ///
    /// # Errors
    ///
    /// [`FactError`].
    pub fn of(&self, addr: PhysAddr) -> Result<Option<u64>, FactError> {
        let mut flags = [0u64; 1];
        Ok((self.read(page_of(addr), &mut flags)? == 1).then_some(flags[0]))
    }

    /// Calls `visit(first page frame, flags)` for every piece of `within`, in order, until `visit` returns false.
    fn scan(
        &self,
        within: &RangeSet,
        mut visit: impl FnMut(u64, &[u64]) -> bool,
    ) -> Result<(), FactError> {
        let mut buffer = vec![0u64; CHUNK_PAGES];
        // Two ranges may lie in the same page, which must not be visited twice: page_outer merges such ranges.
        for range in within.page_outer()?.iter() {
            let (mut page, end) = pages_of(range);
            while page < end {
                let want = usize::try_from(end - page).map_or(CHUNK_PAGES, |n| n.min(CHUNK_PAGES));
                let got = self.read(page, &mut buffer[..want])?;
                if got == 0 {
                    break; // past the last page of memory; the next range may only be higher
                }
                if !visit(page, &buffer[..got]) {
                    return Ok(());
                }
                page += got as u64;
            }
        }
        Ok(())
    }

    /// Reads flags from page frame `page` on; returns the number of flags that were read.
    fn read(&self, page: u64, flags: &mut [u64]) -> Result<usize, FactError> {
        let Some(offset) = page.checked_mul(8).filter(|o| *o <= i64::MAX as u64) else {
            return Ok(0);
        };
        let bytes = zerocopy::IntoBytes::as_mut_bytes(flags);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset.saturating_add(done as u64);
            match self.file.read_at(&mut bytes[done..], at) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(FactError::io(&self.path, e)),
            }
        }
        Ok(done / 8)
    }
}

fn page_of(addr: PhysAddr) -> u64 {
    addr.get() / PAGE_SIZE
}

/// Returns the first page frame of a range and the one after the last.
fn pages_of(range: PhysRange) -> (u64, u64) {
    let first = page_of(range.start());
    (first, first.saturating_add(range.pages()))
}

/// Calls `found(from, to)` for every maximal run of entries in which "any flag of `mask`" equals `want`.
fn matching_runs(flags: &[u64], mask: u64, want: bool, mut found: impl FnMut(usize, usize)) {
    // Memory is mostly uniform over long stretches, so a whole block is often decided at once.
    const BLOCK: usize = 64;
    let mut open: Option<usize> = None;
    let mut at = 0;
    for block in flags.chunks(BLOCK) {
        let hits = block.iter().filter(|f| (**f & mask != 0) == want).count();
        if hits == block.len() {
            open.get_or_insert(at);
        } else if hits == 0 {
            if let Some(from) = open.take() {
                found(from, at);
            }
        } else {
            for (i, f) in (at..).zip(block) {
                if (f & mask != 0) == want {
                    open.get_or_insert(i);
                } else if let Some(from) = open.take() {
                    found(from, i);
                }
            }
        }
        at += block.len();
    }
    if let Some(from) = open {
        found(from, at);
    }
}

/// Calls `found(from, to)` for runs of poisoned entries. `in_huge` is true if the entry before the first one belongs to
/// a poisoned hugetlb page; afterwards it is true if the last entry does.
fn poisoned_runs(flags: &[u64], in_huge: &mut bool, mut found: impl FnMut(usize, usize)) {
    const BLOCK: usize = 64;
    const TAIL: u64 = flag::HUGE | flag::COMPOUND_TAIL;
    let mut at = 0usize;
    for block in flags.chunks(BLOCK) {
        if *in_huge || block.iter().any(|f| f & flag::HWPOISON != 0) {
            for (i, f) in (at..).zip(block) {
                let tail = *in_huge && f & TAIL == TAIL;
                let poisoned = f & flag::HWPOISON != 0;
                *in_huge = tail || (poisoned && f & flag::HUGE != 0);
                if tail || poisoned {
                    found(i, i.saturating_add(1));
                }
            }
        }
        at = at.saturating_add(block.len());
    }
}

/// Collects runs of pages, in ascending order.
#[derive(Default)]
struct Builder {
    set: RangeSet,
    failed: bool,
}

impl Builder {
    fn add(&mut self, start: u64, from: usize, to: usize) {
        let first = start.saturating_add(from as u64).saturating_mul(PAGE_SIZE);
        let end = start.saturating_add(to as u64).saturating_mul(PAGE_SIZE);
        if let Ok(range) = PhysRange::from_bounds(PhysAddr::new(first), PhysAddr::new(end)) {
            self.failed |= self.set.insert(range).is_err();
        }
    }

    fn finish(self) -> Result<RangeSet, FactError> {
        if self.failed {
            return Err(kho::OutOfMemory.into());
        }
        Ok(self.set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;
    use proptest::prelude::*;

    fn pages(first: u64, count: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(first * PAGE_SIZE), count * PAGE_SIZE).unwrap()
    }

    fn open(flags: &[u64]) -> (Fixture, PageFlags) {
        let f = Fixture::new();
        let bytes: Vec<u8> = flags.iter().flat_map(|x| x.to_ne_bytes()).collect();
        f.put("proc/kpageflags", bytes);
        let flags = PageFlags::open(&f.root()).unwrap();
        (f, flags)
    }

    #[test]
    fn pages_that_a_balloon_took_are_told_from_reserved_ones() {
        let mut all = vec![0; 40];
        all[3] = flag::RESERVED;
        all[10..20].fill(flag::OFFLINE);
        all[19] = flag::OFFLINE | flag::RESERVED;
        let (_keep, file) = open(&all);
        let within = RangeSet::from_ranges([pages(0, 40)]).unwrap();
        let (reserved, offline) = file.reserved_and_offline(&within).unwrap();
        assert_eq!(reserved.as_slice(), [pages(3, 1), pages(19, 1)]);
        assert_eq!(offline.as_slice(), [pages(10, 10)]);
        assert_eq!(reserved, file.reserved_in(&within).unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_look_at_every_page(
            runs in proptest::collection::vec((1..200usize, any::<bool>()), 1..8),
            windows in proptest::collection::vec((0..700u64, 1..300u64), 1..4),
        ) {
            let flags: Vec<u64> = runs.iter()
                .flat_map(|(n, r)| std::iter::repeat_n(if *r { flag::RESERVED | 1 } else { flag::BUDDY }, *n))
                .collect();
            let (_keep, file) = open(&flags);
            let within = RangeSet::from_ranges(windows.iter().map(|(s, n)| pages(*s, *n))).unwrap();
            let is = |p: u64| flags.get(usize::try_from(p).unwrap()).is_some_and(|f| f & flag::RESERVED != 0);
            let inside = |p: u64| within.contains_range(pages(p, 1));
            let want = RangeSet::from_ranges((0..1100).filter(|p| inside(*p) && is(*p)).map(|p| pages(p, 1))).unwrap();
            prop_assert_eq!(file.reserved_in(&within).unwrap(), want);
            for (s, n) in windows {
                let first = (s..s + n).find(|p| !is(*p)).map(|p| PhysAddr::new(p * PAGE_SIZE));
                prop_assert_eq!(file.first_not_reserved(pages(s, n)).unwrap(), first);
            }
        }
    }

    #[test]
    fn all_of_a_huge_page_counts_as_poisoned() {
        const HEAD: u64 = flag::HUGE | 1 << 15;
        const TAIL: u64 = flag::HUGE | flag::COMPOUND_TAIL;
        let at = CHUNK_PAGES - 100;
        let mut flags = vec![0; CHUNK_PAGES + 1500];
        for head in [at, at + 512, at + 1024] {
            flags[head] = HEAD;
            flags[head + 1..head + 512].fill(TAIL);
        }
        // The flags of 6.1: the second of three hugetlb pages is poisoned; so are a page in front of it, and one of a
        // transparent huge page.
        flags[at + 512] |= flag::HWPOISON;
        flags[5] = flag::HWPOISON;
        flags[6] = flag::COMPOUND_TAIL;
        let (_keep, file) = open(&flags);
        let all = RangeSet::from_ranges([pages(0, 1 << 20)]).unwrap();
        let second = pages((at + 512) as u64, 512);
        let want = [pages(5, 1), second];
        assert_eq!(file.poisoned_in(&all).unwrap().as_slice(), want);
        // The flags of later kernels.
        flags[at + 512..at + 1024]
            .iter_mut()
            .for_each(|f| *f |= flag::HWPOISON);
        let (_keep, file) = open(&flags);
        assert_eq!(file.poisoned_in(&all).unwrap().as_slice(), want);
        // Pages between the requested ranges do not continue a hugetlb page.
        let apart = [pages((at + 512) as u64, 1), pages((at + 600) as u64, 4)];
        flags[at + 513..at + 1024].fill(TAIL);
        let (_keep, file) = open(&flags);
        let apart = RangeSet::from_ranges(apart).unwrap();
        assert_eq!(
            file.poisoned_in(&apart).unwrap().as_slice(),
            [pages((at + 512) as u64, 1)]
        );
    }

    #[test]
    fn more_than_one_read_and_the_end_of_memory() {
        let mut flags = vec![flag::RESERVED; CHUNK_PAGES + 100];
        flags[CHUNK_PAGES + 50] = flag::HWPOISON;
        let (_keep, file) = open(&flags);
        let all = RangeSet::from_ranges([pages(0, 1 << 20)]).unwrap();
        let reserved = file.reserved_in(&all).unwrap();
        assert_eq!(reserved.len(), 2);
        assert_eq!(reserved.total(), (CHUNK_PAGES as u64 + 99) * PAGE_SIZE);
        let bad = CHUNK_PAGES as u64 + 50;
        assert_eq!(file.poisoned_in(&all).unwrap().as_slice(), [pages(bad, 1)]);
        assert_eq!(
            file.first_not_reserved(pages(0, CHUNK_PAGES as u64 + 80))
                .unwrap(),
            Some(pages(bad, 1).start())
        );
        assert_eq!(file.first_not_reserved(pages(0, bad)).unwrap(), None);
        let end = CHUNK_PAGES as u64 + 100;
        assert_eq!(
            file.first_not_reserved(pages(bad + 1, 200)).unwrap(),
            Some(pages(end, 1).start())
        );
        assert_eq!(file.of(PhysAddr::new(end * PAGE_SIZE)).unwrap(), None);
        assert_eq!(file.of(PhysAddr::new(5)).unwrap(), Some(flag::RESERVED));
        let top = PhysRange::new(PhysAddr::new(u64::MAX - 8191), 4096).unwrap();
        assert!(file.first_not_reserved(top).unwrap().is_some());
    }
}
