//! Functions that `glue.c` defines; `glue.h` declares the same.

use core::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    pub safe fn kho_c_random() -> u64;
    // NUL-terminated and constant.
    pub safe fn kho_c_release() -> *const c_char;
    // NUL-terminated; NULL and *error set, or a file to close once.
    pub fn kho_c_open(path: *const c_char, error: *mut c_int) -> *mut c_void;
    // An open file and `size` writable bytes.
    pub fn kho_c_read(file: *mut c_void, buf: *mut c_void, size: usize, offset: u64) -> isize;
    pub fn kho_c_close(file: *mut c_void);

    pub safe fn kho_c_pfn_valid(pfn: u64) -> bool;
    // All that follow: a valid pfn.
    pub fn kho_c_page_reserved(pfn: u64) -> bool;
    pub fn kho_c_page_failed(pfn: u64) -> bool;
    pub fn kho_c_page_count(pfn: u64) -> c_int;
    pub fn kho_c_page_private(pfn: u64) -> usize;
    // Of a page that the caller owns.
    pub fn kho_c_set_page_private(pfn: u64, value: usize);
    // A reserved page that nobody else uses; the caller then has one reference.
    pub fn kho_c_page_claim(pfn: u64);
    // 2^order reserved pages, naturally aligned, of one zone, that nobody uses.
    pub fn kho_c_reserved_free(pfn: u64, order: u32);
    pub fn kho_c_adjust_managed(pfn: u64, count: isize);
    // RAM below: a pointer into the direct map.
    pub safe fn kho_c_virt(phys: u64) -> *mut c_void;
    // Any address; the area that it is inside of, if any, stays mapped during the call. 0: nothing is mapped there, or
    // it is no vmalloc area's.
    pub fn kho_c_vmalloc_pfn(addr: *const c_void) -> u64;
    // 0, or the first of 2^order pages with one reference each.
    pub safe fn kho_c_alloc_order(order: u32) -> u64;
    // Pages of one zone, all valid; 0, then each has one reference, or a negative errno.
    pub fn kho_c_alloc_contig(first: u64, end: u64) -> c_int;
    // A reference that the caller has.
    pub fn kho_c_page_put(pfn: u64);

    // A registered producer, and a context that is alive during the call.
    pub fn kho_c_serialize(producer: *mut c_void, ctx: *mut c_void) -> c_int;
    pub fn kho_c_abort(producer: *mut c_void);
    pub fn kho_c_hold(producer: *mut c_void) -> bool;
    // Once for each kho_c_hold that was true.
    pub fn kho_c_unhold(producer: *mut c_void);
    pub safe fn kho_c_hold_self() -> bool;
    // Once for each kho_c_hold_self that was true.
    pub fn kho_c_unhold_self();
    pub safe fn kho_c_dt_publish() -> c_int;
    // Published, and no reader of it may wait for a lock of the caller.
    pub fn kho_c_dt_withdraw();
}
