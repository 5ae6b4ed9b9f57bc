//! Ownership of pages.

use super::ffi;
use super::kernel::{read_file, zeros};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use kho::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};
use kho_boundary::log;
use kho_boundary::relax;
use kho_decide::chain::{self, Chain};
use kho_decide::errno::{EBUSY, EHWPOISON, EINVAL, ENOMEM, ENXIO, Errno};
use kho_decide::iomem::Map;
use kho_decide::pages::{CHUNK, chunks, good_runs, left_of, pfns, range_of};
use kho_decide::system::{self, Failed};
use kho_decide::text::Level;

/// `page_private` of an unclaimed page that arrived. After this module was unloaded and loaded again, the value
/// distinguishes such a page from a page that was released and that other code reserved since.
const UNCLAIMED: usize = 0x6b68_6f75;

/// `page_private` of the first page of a state tree whose arrival was handled.
const HANDLED: usize = 0x6b68_6f68;

/// Low bits of `page_private` of the first page of a kernel's part, in which the upper bits hold a page-aligned
/// address.
const NOTE: u64 = 0x6f6;

/// Lets other tasks run, once for each chunk of a walk over pages.
fn rest(pfn: u64) {
    if pfn.is_multiple_of(CHUNK / PAGE_SIZE) {
        relax();
    }
}

fn is_valid(pfn: u64) -> bool {
    ffi::kho_c_pfn_valid(pfn)
}

fn is_reserved(pfn: u64) -> bool {
    // SAFETY: the page frame is valid.
    ffi::kho_c_pfn_valid(pfn) && unsafe { ffi::kho_c_page_reserved(pfn) }
}

fn private(pfn: u64) -> usize {
    if !ffi::kho_c_pfn_valid(pfn) {
        return 0;
    }
    // SAFETY: the page frame is valid.
    unsafe { ffi::kho_c_page_private(pfn) }
}

/// Whether the memory of the page failed: the kernel found a hardware error in it and no longer uses it (PG_hwpoison).
fn is_failed(pfn: u64) -> bool {
    // SAFETY: the page frame is valid.
    ffi::kho_c_pfn_valid(pfn) && unsafe { ffi::kho_c_page_failed(pfn) }
}

/// The first page of `range` for which `wanted` is true. Lets other tasks run meanwhile, because a range may be all of
/// memory.
fn first(range: PhysRange, wanted: impl Fn(u64) -> bool) -> Option<u64> {
    chunks(range).find_map(|chunk| {
        relax();
        pfns(chunk).find(|pfn| wanted(*pfn))
    })
}

/// The first page of `range` whose memory failed.
pub fn first_failed(range: PhysRange) -> Option<PhysRange> {
    range_of(first(range, is_failed)?, 1)
}

/// Whether every page has a page frame and is PageReserved.
pub fn all_reserved(range: PhysRange) -> bool {
    first(range, |pfn| !is_reserved(pfn)).is_none()
}

/// Whether every page has a page frame and none is PageReserved.
pub fn none_reserved(range: PhysRange) -> bool {
    first(range, |pfn| !is_valid(pfn) || is_reserved(pfn)).is_none()
}

/// The pages of `range` that are PageReserved or have no page frame.
///
/// # Errors
///
/// No memory.
pub fn reserved_pages(range: PhysRange) -> Result<RangeSet, Errno> {
    let mut set = RangeSet::new();
    for chunk in chunks(range) {
        relax();
        for run in good_runs(chunk, |pfn| is_valid(pfn) && !is_reserved(pfn)) {
            set.insert(run)?;
        }
    }
    Ok(set)
}

/// The bytes of `range`. All its pages must be RAM that early boot reserved, and their memory must not have failed.
///
/// # Errors
///
/// [`ENXIO`] if a page is not such RAM or its memory failed; no memory.
pub fn copy_reserved(map: &Map, range: PhysRange) -> Result<Vec<u8>, Errno> {
    let outer = range.page_outer().ok_or(ENXIO)?;
    if !map.readable.contains_range(outer) || !all_reserved(outer) || first_failed(outer).is_some()
    {
        return Err(ENXIO);
    }
    let len = usize::try_from(range.len()).map_err(|_| ENXIO)?;
    let mut bytes = zeros(len)?;
    let from = ffi::kho_c_virt(range.start().get()).cast::<u8>();
    // SAFETY: the range is RAM with valid, reserved page frames, so it is in the direct map and readable; `bytes` has
    // `len` bytes and was just allocated, so the two do not overlap. No code writes to reserved memory that arrived.
    unsafe { copy(from, bytes.as_mut_ptr(), len) };
    Ok(bytes)
}

/// Copies bytes. Lets other tasks run meanwhile.
///
/// # Safety
///
/// `from` has `len` readable bytes, `to` has `len` writable bytes, and they do not overlap.
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    let most = usize::try_from(CHUNK).unwrap_or(usize::MAX);
    for at in (0..len).step_by(most) {
        let part = len.saturating_sub(at).min(most);
        // SAFETY: a part of the bytes that the caller promises.
        unsafe {
            core::ptr::copy_nonoverlapping(from.wrapping_add(at), to.wrapping_add(at), part);
        }
        relax();
    }
}

/// The page behind an address of a vmalloc area; `None` for any other address.
///
/// # Safety
///
/// An area that contains `addr` stays mapped during the call.
pub unsafe fn vmalloc_page(addr: *const core::ffi::c_void) -> Option<PhysRange> {
    // SAFETY: by the caller's promise.
    let pfn = unsafe { ffi::kho_c_vmalloc_pfn(addr) };
    range_of(pfn, 1).filter(|_| pfn != 0)
}

/// The chain that this boot honoured.
///
/// # Invariants
///
/// The chain is read from `boot_params` of the running kernel. Because the chain names them, early boot reserved the
/// ranges in `handed` before it allocated memory (`memblock_x86_reserve_range_setup_data()`). `handed` has neither the
/// pages of the chain's nodes nor those of the tree.
pub struct Boot {
    chain: Chain,
    handed: RangeSet,
}

impl Boot {
    fn tree_page(&self) -> Option<u64> {
        let pfn = self.chain.tree?.start().get() / PAGE_SIZE;
        is_reserved(pfn).then_some(pfn)
    }
}

impl system::Boot for Boot {
    fn read(map: &Map) -> Result<Self, Errno> {
        let params = read_file(c"/sys/kernel/boot_params/data").inspect_err(|error| {
            log!(
                Level::Error,
                "cannot read /sys/kernel/boot_params/data (error {}): is /sys mounted?",
                error.0
            );
        })?;
        let chain =
            chain::walk(&params, |range| copy_reserved(map, range)).inspect_err(|error| {
                log!(
                    Level::Error,
                    "the setup_data chain cannot be read (error {})",
                    error.0
                );
            })?;
        let handed = chain.handed()?;
        // INVARIANT: `handed` is computed from this chain.
        Ok(Self { chain, handed })
    }

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn handed(&self) -> &RangeSet {
        &self.handed
    }

    fn was_handled(&self) -> bool {
        self.tree_page().is_some_and(|pfn| private(pfn) == HANDLED)
    }

    fn mark_handled(&self) {
        if let Some(pfn) = self.tree_page() {
            // SAFETY: the page is valid, and is the state tree's own page, which no code in this kernel uses.
            unsafe { ffi::kho_c_set_page_private(pfn, HANDLED) };
        }
    }
}

/// Pages of a tree that arrived, which stay reserved for as long as this kernel runs.
///
/// # Invariants
///
/// `first` is the page frame of a reserved page that early boot reserved for the tree: no code in this kernel uses its
/// `page_private`.
pub struct Stays {
    first: u64,
}

impl Stays {
    /// The pages of the tree at `range`; `None` if they are not reserved.
    pub fn new(range: PhysRange) -> Option<Self> {
        let first = pfns(range).start;
        // INVARIANT: the page is reserved, and by the caller's promise early boot reserved it for the tree.
        is_reserved(first).then_some(Self { first })
    }

    /// The page-aligned address that was recorded for these pages; `None` if there is none.
    pub fn noted(&self) -> Option<PhysAddr> {
        let note = u64::try_from(private(self.first)).ok()?;
        (note % PAGE_SIZE == NOTE).then_some(PhysAddr::new(note.saturating_sub(NOTE)))
    }

    /// Records a page-aligned address for later instances of this module.
    pub fn note(&self, at: PhysAddr) {
        let note = usize::try_from(at.get() | NOTE).unwrap_or(0);
        // SAFETY: a valid page, whose field has no other user by the # Invariants.
        unsafe { ffi::kho_c_set_page_private(self.first, note) };
    }
}

/// Memory that arrived and is unclaimed.
///
/// # Invariants
///
/// The set is page-aligned, inside RAM and outside of this kernel's image. Every page of it has a page frame, is
/// PageReserved, carries the mark [`UNCLAIMED`], and was reserved in early boot for this purpose only, so that no code
/// in this kernel uses it.
pub struct Reserved {
    set: RangeSet,
}

impl Reserved {
    /// Checks that all of `wanted` is unclaimed and removes it from the set, or changes nothing.
    fn take(&mut self, wanted: &RangeSet) -> Result<(), Errno> {
        for range in wanted.iter() {
            if !range.is_page_aligned() {
                return Err(EINVAL);
            }
            if !self.set.contains_range(range) {
                return Err(EBUSY);
            }
            // Code outside of this module may have cleared a flag: check again before a change.
            if first(range, |pfn| !is_reserved(pfn) || private(pfn) != UNCLAIMED).is_some() {
                return Err(EBUSY);
            }
        }
        let mut ranges = wanted.iter();
        match (ranges.next(), ranges.next()) {
            // Drivers claim one chunk after the other: a claim must not copy the whole rest of the set.
            (Some(range), None) => self.set.remove(range)?,
            _ => self.set = self.set.subtract(wanted)?,
        }
        Ok(())
    }
}

impl system::Reserved for Reserved {
    type Boot = Boot;

    // INVARIANT: the set is empty.
    const NOTHING: Self = Self {
        set: RangeSet::new(),
    };

    fn set(&self) -> &RangeSet {
        &self.set
    }

    fn adopt(boot: &Boot, map: &Map, wanted: &RangeSet, again: bool) -> Result<(Self, u64), Errno> {
        let (set, missing) = left_of(wanted, map, &boot.handed, |pfn| {
            rest(pfn);
            let mark = private(pfn);
            let fresh = mark == 0 && !again;
            is_reserved(pfn) && (fresh || mark == UNCLAIMED)
        })?;
        for pfn in set.iter().flat_map(pfns) {
            rest(pfn);
            // SAFETY: the page is valid and reserved, as `left_of` checked, and by the # Invariants of `Boot` reserved
            // only for kho.ko.
            unsafe { ffi::kho_c_set_page_private(pfn, UNCLAIMED) };
        }
        // INVARIANT: `left_of` checked RAM, image, page frames and reservation. By the # Invariants of `Boot` the pages
        // are reserved for the handover only, and the loop above marked them.
        Ok((Self { set }, missing))
    }

    fn claim(&mut self, wanted: &RangeSet, failed: Failed) -> Result<(), Errno> {
        if failed == Failed::Refused
            && let Some(page) = wanted.iter().find_map(first_failed)
        {
            log!(
                Level::Error,
                "{page} was handed over, but its memory failed since: no driver gets it"
            );
            return Err(EHWPOISON);
        }
        self.take(wanted)?;
        for chunk in wanted.iter().flat_map(chunks) {
            for pfn in pfns(chunk) {
                // SAFETY: by the # Invariants the page is valid, reserved and unused, and `take` removed it from the
                // set, so this happens once.
                unsafe { ffi::kho_c_set_page_private(pfn, 0) };
                // SAFETY: as above.
                unsafe { ffi::kho_c_page_claim(pfn) };
            }
            adjust(chunk);
            relax();
        }
        Ok(())
    }

    fn free(&mut self, wanted: &RangeSet, zero: bool) -> Result<u64, Errno> {
        self.take(wanted)?;
        let mut freed = 0u64;
        for chunk in wanted.iter().flat_map(chunks) {
            for pfn in pfns(chunk) {
                // SAFETY: by the # Invariants the page is valid, reserved and unused.
                unsafe { ffi::kho_c_set_page_private(pfn, 0) };
            }
            for run in good_runs(chunk, is_failed) {
                if zero {
                    // SAFETY: RAM without another user, by the # Invariants.
                    unsafe { clear(run) };
                }
                adjust(run);
                free_chunk(run);
                freed = freed.saturating_add(run.len());
            }
            relax();
        }
        let kept = wanted.total().saturating_sub(freed) / PAGE_SIZE;
        if kept != 0 {
            log!(
                Level::Warning,
                "{kept} pages whose memory failed stay reserved"
            );
        }
        Ok(freed)
    }
}

/// Counts the pages of a chunk as managed by the system.
fn adjust(chunk: PhysRange) {
    let count = isize::try_from(chunk.pages()).unwrap_or(0);
    // SAFETY: a page of RAM with a page frame; a chunk is inside one zone.
    unsafe { ffi::kho_c_adjust_managed(chunk.start().get() / PAGE_SIZE, count) };
}

/// Frees the reserved pages of a chunk, or of a part of it, that [`free`](system::Reserved::free) took.
fn free_chunk(chunk: PhysRange) {
    let order = CHUNK.ilog2().saturating_sub(PAGE_SIZE.ilog2());
    if chunk.len() == CHUNK {
        // SAFETY: `chunks` cuts at multiples of CHUNK, so this is a naturally aligned block; valid,
        // reserved and unused by the # Invariants of `Reserved`.
        unsafe { ffi::kho_c_reserved_free(chunk.start().get() / PAGE_SIZE, order) };
        return;
    }
    for pfn in pfns(chunk) {
        // SAFETY: valid, reserved and unused by the # Invariants of `Reserved`.
        unsafe { ffi::kho_c_reserved_free(pfn, 0) };
    }
}

/// Zeroes memory.
///
/// # Safety
///
/// `range` is RAM with page frames, and the caller owns it.
unsafe fn clear(range: PhysRange) {
    let at = ffi::kho_c_virt(range.start().get()).cast::<u8>();
    let len = usize::try_from(range.len()).unwrap_or(0);
    // SAFETY: the range is in the direct map, and the caller owns it.
    unsafe { core::ptr::write_bytes(at, 0, len) };
}

/// Allocated contiguous pages. Dropping the block frees them one by one, so the page allocator does not take back a
/// page whose memory failed (`free_pages_prepare`, `mm/page_alloc.c`).
///
/// # Invariants
///
/// Every page of `range` has exactly the one reference that this value owns, and is in the direct map.
pub struct Block {
    range: PhysRange,
}

impl system::Block for Block {
    fn any(order: u32) -> Option<Self> {
        let pfn = ffi::kho_c_alloc_order(order);
        if pfn == 0 {
            return None;
        }
        // INVARIANT: split_page gave each page its reference.
        range_of(pfn, 1u64.checked_shl(order)?).map(|range| Self { range })
    }

    fn is_good(&self) -> bool {
        first_failed(self.range).is_none()
    }

    fn is_only_ours(&self, page: PhysAddr) -> bool {
        let pfn = page.get() / PAGE_SIZE;
        // SAFETY: a page of the block is valid, by the # Invariants.
        self.range.contains(page) && unsafe { ffi::kho_c_page_count(pfn) } == 1
    }

    fn at(map: &Map, range: PhysRange) -> Result<Self, Errno> {
        if !range.is_page_aligned()
            || !map.ram.contains_range(range)
            || first(range, |pfn| !is_valid(pfn)).is_some()
        {
            return Err(EINVAL);
        }
        let bounds = pfns(range);
        // SAFETY: valid page frames; ranges of `kho_decide::arena` do not cross the zones' borders, and
        // alloc_contig_range refuses a range that does.
        let result = unsafe { ffi::kho_c_alloc_contig(bounds.start, bounds.end) };
        Errno::check(i64::from(result))?;
        // INVARIANT: alloc_contig_range gives each page one reference.
        let mut block = Self { range };
        if !block.is_good() {
            return Err(EHWPOISON);
        }
        block.zero(range);
        Ok(block)
    }

    fn range(&self) -> PhysRange {
        self.range
    }

    fn give_away(self) -> PhysRange {
        let range = self.range;
        core::mem::forget(self);
        range
    }

    fn shorten(self, count: u64) -> Option<Self> {
        let keep = count.checked_mul(PAGE_SIZE)?;
        match self.range.split_at(keep) {
            Some((first, rest)) => {
                core::mem::forget(self);
                // INVARIANT: two blocks share the references of one, a reference for each page.
                drop(Self { range: rest });
                Some(Self { range: first })
            }
            None if keep == self.range.len() => Some(self),
            None => None,
        }
    }

    fn zero(&mut self, range: PhysRange) {
        for run in self
            .range
            .intersection(range)
            .into_iter()
            .flat_map(chunks)
            .flat_map(|part| good_runs(part, is_failed))
        {
            // SAFETY: the block owns the pages by the # Invariants.
            unsafe { clear(run) };
            relax();
        }
    }

    fn fill(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if u64::try_from(bytes.len()).map_err(|_| ENOMEM)? > self.range.len() {
            return Err(ENOMEM);
        }
        let at = ffi::kho_c_virt(self.range.start().get()).cast::<u8>();
        // SAFETY: the block owns the pages, and they are large enough; `bytes` is other memory, because no other
        // reference to the block exists.
        unsafe { copy(bytes.as_ptr(), at, bytes.len()) };
        Ok(())
    }

    fn store_first(&mut self, value: u64) {
        let at = ffi::kho_c_virt(self.range.start().get()).cast::<u64>();
        // SAFETY: the block owns its first page, in the direct map, and the address is aligned to a page.
        let first = unsafe { AtomicU64::from_ptr(at) };
        first.store(value, Ordering::Release);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        for pfn in pfns(self.range) {
            rest(pfn);
            // SAFETY: the page has the one reference of the # Invariants.
            unsafe { ffi::kho_c_page_put(pfn) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho_decide::system::{Block as _, Reserved as _};
    use std::vec;

    /// Pages `first..end`.
    fn pages(first: u64, end: u64) -> RangeSet {
        RangeSet::from_ranges(range_of(first, end - first)).unwrap()
    }

    /// Memory that arrived in pages `first..end`; every byte of them is 0xff.
    fn arrived(first: u64, end: u64) -> Reserved {
        ffi::with(|machine| {
            for pfn in first..end {
                let page = machine.page(pfn);
                page.reserved = true;
                page.private = UNCLAIMED;
                machine.bytes(pfn).fill(1);
            }
        });
        Reserved {
            set: pages(first, end),
        }
    }

    fn fail(pfn: u64) {
        ffi::with(|machine| machine.page(pfn).failed = true);
    }

    /// Number of times that `act` lets other tasks run.
    fn rests(act: impl FnOnce()) -> usize {
        let before = kho_boundary::times_relaxed();
        act();
        kho_boundary::times_relaxed() - before
    }

    #[test]
    fn a_claim_of_one_range_copies_nothing() {
        let mut reserved = arrived(512, 1536);
        reserved.set =
            RangeSet::from_ranges((512..1536).step_by(2).flat_map(|pfn| range_of(pfn, 1))).unwrap();
        let place = |reserved: &Reserved| reserved.set.as_slice().as_ptr();
        // From then on the set has room for one more range.
        reserved.claim(&pages(512, 513), Failed::Refused).unwrap();
        let before = place(&reserved);
        for pfn in (600..1000).step_by(4) {
            reserved
                .claim(&pages(pfn, pfn + 1), Failed::Refused)
                .unwrap();
            assert_eq!(place(&reserved), before);
        }
        assert_eq!(reserved.set.len(), 411);
    }

    #[test]
    fn others_run_while_much_memory_is_worked_on() {
        const LARGE: u64 = 8192; // 16 chunks
        let range = range_of(2048, LARGE).unwrap();
        let map = Map {
            readable: RangeSet::from_ranges([range]).unwrap(),
            ram: RangeSet::from_ranges([range]).unwrap(),
            ..Map::default()
        };
        let mut reserved = arrived(2048, 2048 + LARGE);
        assert!(rests(|| drop(copy_reserved(&map, range).unwrap())) >= 16);
        let all = pages(2048, 2048 + LARGE);
        assert!(rests(|| reserved.claim(&all, Failed::Refused).unwrap()) >= 16);
        let mut block = Block { range };
        assert!(rests(|| block.zero(range)) >= 16);
        let bytes = vec![7; usize::try_from(range.len()).unwrap()];
        assert!(rests(|| block.fill(&bytes).unwrap()) >= 16);
        assert!(rests(|| drop(block)) >= 16);
        assert!(rests(|| assert!(Block::at(&map, range).is_err())) >= 16);
    }

    /// Whether the memory of a page is unchanged since it arrived.
    fn untouched(pfn: u64) -> bool {
        ffi::with(|machine| machine.bytes(pfn).iter().all(|byte| *byte == 1))
    }

    #[test]
    fn whole_chunks_are_freed_as_such() {
        let mut reserved = arrived(510, 1025);
        let freed = reserved.free(&pages(510, 1025), true).unwrap();
        assert_eq!(freed, 515 * PAGE_SIZE);
        ffi::with(|machine| {
            assert_eq!(machine.freed, [(510, 0), (511, 0), (512, 9), (1024, 0)]);
            assert_eq!(machine.managed, 515);
            assert!((510..1025).all(|pfn| machine.bytes(pfn).iter().all(|byte| *byte == 0)));
        });
        assert!(reserved.set().is_empty());
    }

    #[test]
    fn a_page_whose_memory_failed_is_neither_freed_nor_written_to() {
        for zero in [false, true] {
            ffi::with(|machine| *machine = ffi::Machine::default());
            let mut reserved = arrived(512, 1536);
            fail(600);
            fail(1535);
            let freed = reserved.free(&pages(512, 1536), zero).unwrap();
            assert_eq!(freed, 1022 * PAGE_SIZE);
            ffi::with(|machine| {
                // The page allocator got no larger block, which would contain a page that failed.
                assert!(machine.freed.iter().all(|(_, order)| *order == 0));
                assert_eq!(machine.freed.len(), 1022);
                assert_eq!(machine.managed, 1022);
                for bad in [600, 1535] {
                    assert!(!machine.freed.contains(&(bad, 0)));
                    assert!(machine.page(bad).reserved);
                }
            });
            assert!(untouched(600) && untouched(1535));
            assert_eq!(untouched(601), !zero);
            // The page is never offered again.
            assert!(reserved.set().is_empty());
            assert_eq!(reserved.free(&pages(600, 601), zero), Err(EBUSY));
        }
    }

    #[test]
    fn only_who_asks_for_it_gets_a_page_whose_memory_failed() {
        let mut reserved = arrived(512, 520);
        fail(515);
        let all = pages(512, 520);
        assert_eq!(reserved.claim(&all, Failed::Refused), Err(EHWPOISON));
        assert_eq!(reserved.set(), &all);
        assert_eq!(reserved.claim(&pages(512, 515), Failed::Refused), Ok(()));
        assert_eq!(reserved.claim(&pages(515, 520), Failed::Taken), Ok(()));
        assert!(reserved.set().is_empty());
        assert!(untouched(515));
    }

    #[test]
    fn the_first_page_that_failed_is_found() {
        let all = range_of(500, 50).unwrap();
        assert_eq!(first_failed(all), None);
        fail(550);
        assert_eq!(first_failed(all), None);
        fail(549);
        assert_eq!(first_failed(all), range_of(549, 1));
        fail(500);
        assert_eq!(first_failed(all), range_of(500, 1));
    }

    #[test]
    fn a_block_leaves_what_failed_alone_and_gives_the_rest_back() {
        ffi::with(|machine| {
            machine.free = vec![512];
            (512..520).for_each(|pfn| machine.bytes(pfn).fill(1));
        });
        fail(513);
        let block = Block::any(3).unwrap();
        assert!(!block.is_good());
        let mut block = block.shorten(4).unwrap();
        ffi::with(|machine| assert_eq!(machine.freed, [(516, 0), (517, 0), (518, 0), (519, 0)]));
        block.zero(range_of(513, 7).unwrap());
        assert!(untouched(512) && untouched(513) && !untouched(514) && untouched(516));
        let first = block.range().start();
        assert!(block.is_only_ours(first));
        ffi::with(|machine| machine.page(512).count = 2);
        assert!(!block.is_only_ours(first));
        drop(block);
        ffi::with(|machine| assert_eq!(machine.freed[4..], [(514, 0), (515, 0)]));
    }
}
