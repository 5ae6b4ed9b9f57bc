//! The kernel's functions for host tests: a machine of [`PAGES`] ordinary pages, none of them reserved but those that a
//! test reserves, whose page allocator has nothing left.

use core::cell::RefCell;
use core::ffi::{c_char, c_int, c_void};
use core::ptr::null_mut;
use std::collections::BTreeMap;
use std::thread_local;
use std::vec::Vec;

/// Page frames that exist.
const PAGES: u64 = 1 << 20;

thread_local! {
    /// Reserved pages, with their `page_private`.
    static RESERVED: RefCell<BTreeMap<u64, usize>> = const { RefCell::new(BTreeMap::new()) };
    /// All of memory: every address is its first byte.
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reserves a page for the test that calls it.
pub fn reserve(pfn: u64, private: usize) {
    RESERVED.with_borrow_mut(|pages| pages.insert(pfn, private));
}

pub unsafe fn kho_c_lock(_: u32) {}
pub unsafe fn kho_c_unlock(_: u32) {}
pub unsafe fn kho_c_log(_: u32, _: *const u8, _: usize) {}
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
    RESERVED.with_borrow(|pages| pages.contains_key(&pfn))
}
pub unsafe fn kho_c_page_private(pfn: u64) -> usize {
    RESERVED.with_borrow(|pages| pages.get(&pfn).copied().unwrap_or(0))
}
pub unsafe fn kho_c_set_page_private(pfn: u64, value: usize) {
    RESERVED.with_borrow_mut(|pages| {
        if let Some(private) = pages.get_mut(&pfn) {
            *private = value;
        }
    });
}
pub unsafe fn kho_c_page_claim(pfn: u64) {
    RESERVED.with_borrow_mut(|pages| pages.remove(&pfn));
}
pub unsafe fn kho_c_reserved_free(pfn: u64, order: u32) {
    RESERVED.with_borrow_mut(|pages| pages.retain(|at, _| at.wrapping_sub(pfn) >= 1 << order));
}
pub unsafe fn kho_c_adjust_managed(_: u64, _: isize) {}
pub fn kho_c_virt(_: u64) -> *mut c_void {
    /// The most that is written at once.
    const MOST: usize = 2 << 20;
    BYTES.with_borrow_mut(|bytes| {
        bytes.resize(MOST, 0);
        bytes.as_mut_ptr().cast()
    })
}
pub unsafe fn kho_c_vmalloc_pfn(_: *const c_void) -> u64 {
    0
}
pub fn kho_c_alloc_order(_: u32) -> u64 {
    0
}
pub unsafe fn kho_c_alloc_contig(_: u64, _: u64) -> c_int {
    -16
}
pub unsafe fn kho_c_page_put(_: u64) {}
pub fn kho_c_relax() {}
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
