//! The kernel's functions for host tests: a machine of [`PAGES`] ordinary pages, none of them reserved, whose page
//! allocator has nothing left.

use core::ffi::{c_char, c_int, c_void};
use core::ptr::null_mut;

/// Page frames that exist.
const PAGES: u64 = 1 << 20;

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
pub unsafe fn kho_c_page_reserved(_: u64) -> bool {
    false
}
pub unsafe fn kho_c_page_private(_: u64) -> usize {
    0
}
pub unsafe fn kho_c_set_page_private(_: u64, _: usize) {}
pub unsafe fn kho_c_page_claim(_: u64) {}
pub unsafe fn kho_c_reserved_free(_: u64, _: u32) {}
pub unsafe fn kho_c_adjust_managed(_: u64, _: isize) {}
pub fn kho_c_virt(_: u64) -> *mut c_void {
    null_mut()
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
