//! The kernel's functions for host tests: a machine of [`PAGES`] pages for each test's thread. At the start its pages
//! are ordinary ones, none of them reserved, and the page allocator has no free memory. [`with`] changes that.

use core::cell::RefCell;
use core::ffi::{c_char, c_int, c_void};
use core::ptr::null_mut;
use std::collections::BTreeMap;
use std::vec::Vec;

/// Number of page frames.
const PAGES: u64 = 1 << 20;

/// Number of pages, from the first one on, that have memory: 64 MiB.
const BACKED: u64 = 16 << 10;

/// Bytes of a page.
const PAGE: usize = 4096;

/// State of a page. The default is an ordinary page that is not in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub reserved: bool,
    /// Whether the page's memory failed (PG_hwpoison).
    pub failed: bool,
    pub private: usize,
    pub count: c_int,
}

/// State that the functions read and change.
#[derive(Default)]
pub struct Machine {
    pub pages: BTreeMap<u64, Page>,
    /// First page frames of the blocks that the page allocator has. It gives the last one first.
    pub free: Vec<u64>,
    /// Blocks that were freed to the page allocator: first page frame and order.
    pub freed: Vec<(u64, u32)>,
    /// Number of pages that the system manages, less the number at the start.
    pub managed: isize,
    memory: Vec<u64>,
}

impl Machine {
    /// The page with this page frame.
    pub fn page(&mut self, pfn: u64) -> &mut Page {
        self.pages.entry(pfn).or_default()
    }

    /// The bytes of a page that has memory.
    pub fn bytes(&mut self, pfn: u64) -> &mut [u8] {
        assert!(pfn < BACKED);
        // SAFETY: inside of the memory, which is borrowed together with the machine.
        unsafe { core::slice::from_raw_parts_mut(self.at(pfn * PAGE as u64), PAGE) }
    }

    fn at(&mut self, phys: u64) -> *mut u8 {
        let bytes = usize::try_from(BACKED).unwrap() * PAGE;
        self.memory.resize(bytes / 8, 0);
        let base = self.memory.as_mut_ptr().cast::<u8>();
        base.wrapping_add(usize::try_from(phys).unwrap())
    }
}

std::thread_local! {
    static MACHINE: RefCell<Machine> = RefCell::default();
}

/// Reads or changes this thread's machine.
pub fn with<T>(act: impl FnOnce(&mut Machine) -> T) -> T {
    MACHINE.with_borrow_mut(act)
}

fn page(pfn: u64) -> Page {
    with(|machine| machine.pages.get(&pfn).copied().unwrap_or_default())
}

/// Reserves a page for the calling test.
pub fn reserve(pfn: u64, private: usize) {
    with(|machine| {
        let page = machine.page(pfn);
        page.reserved = true;
        page.private = private;
    });
}

pub fn kho_c_random() -> u64 {
    4 // for tests, the same every time
}
pub fn kho_c_release() -> *const c_char {
    c"test".as_ptr()
}
pub unsafe fn kho_c_open(_: *const c_char, error: *mut c_int) -> *mut c_void {
    // SAFETY: the caller gives a variable.
    unsafe { error.write(-2) };
    null_mut()
}
pub unsafe fn kho_c_read(_: *mut c_void, _: *mut c_void, _: usize, _: u64) -> isize {
    0
}
pub unsafe fn kho_c_close(_: *mut c_void) {}
pub fn kho_c_pfn_valid(pfn: u64) -> bool {
    pfn < PAGES
}
pub unsafe fn kho_c_page_reserved(pfn: u64) -> bool {
    page(pfn).reserved
}
pub unsafe fn kho_c_page_failed(pfn: u64) -> bool {
    page(pfn).failed
}
pub unsafe fn kho_c_page_count(pfn: u64) -> c_int {
    page(pfn).count
}
pub unsafe fn kho_c_page_private(pfn: u64) -> usize {
    page(pfn).private
}
pub unsafe fn kho_c_set_page_private(pfn: u64, value: usize) {
    with(|machine| machine.page(pfn).private = value);
}
pub unsafe fn kho_c_page_claim(pfn: u64) {
    with(|machine| {
        let page = machine.page(pfn);
        assert!(page.reserved);
        page.reserved = false;
        page.count = 1;
    });
}
pub unsafe fn kho_c_reserved_free(pfn: u64, order: u32) {
    with(|machine| {
        assert!(pfn.is_multiple_of(1 << order));
        for pfn in pfn..pfn + (1 << order) {
            let page = machine.page(pfn);
            assert!(page.reserved);
            page.reserved = false;
            page.count = 0;
        }
        machine.freed.push((pfn, order));
    });
}
pub unsafe fn kho_c_adjust_managed(_: u64, count: isize) {
    with(|machine| machine.managed += count);
}
pub fn kho_c_virt(phys: u64) -> *mut c_void {
    assert!(phys < BACKED * PAGE as u64);
    with(|machine| machine.at(phys)).cast()
}
pub unsafe fn kho_c_vmalloc_pfn(_: *const c_void) -> u64 {
    0
}
pub fn kho_c_alloc_order(order: u32) -> u64 {
    with(|machine| {
        let Some(first) = machine.free.pop() else {
            return 0;
        };
        for pfn in first..first + (1 << order) {
            machine.page(pfn).count = 1;
        }
        first
    })
}
pub unsafe fn kho_c_alloc_contig(_: u64, _: u64) -> c_int {
    -16
}
pub unsafe fn kho_c_page_put(pfn: u64) {
    with(|machine| {
        let page = machine.page(pfn);
        assert!(page.count > 0);
        page.count -= 1;
        if page.count == 0 && !page.failed {
            machine.freed.push((pfn, 0));
        }
    });
}
pub unsafe fn kho_c_serialize(_: *mut c_void, _: *mut c_void) -> c_int {
    0
}
pub unsafe fn kho_c_abort(_: *mut c_void) {}
pub unsafe fn kho_c_hold(_: *mut c_void) -> bool {
    true
}
pub unsafe fn kho_c_unhold(_: *mut c_void) {}
pub fn kho_c_hold_self() -> bool {
    true
}
pub unsafe fn kho_c_unhold_self() {}
pub fn kho_c_dt_publish() -> c_int {
    0
}
pub unsafe fn kho_c_dt_withdraw() {}
