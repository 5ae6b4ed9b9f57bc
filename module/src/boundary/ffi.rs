//! Functions that `glue.c` defines and `glue.h` declares. The comments state the requirements and the results.

use core::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    pub safe fn kho_c_random() -> u64;
    // Returns a constant string that ends with a NUL.
    pub safe fn kho_c_release() -> *const c_char;
    // `path` ends with a NUL. Returns a file, to be closed once; or NULL, with *error set.
    pub fn kho_c_open(path: *const c_char, error: *mut c_int) -> *mut c_void;
    // `file` is open; `buf` has `size` writable bytes.
    pub fn kho_c_read(file: *mut c_void, buf: *mut c_void, size: usize, offset: u64) -> isize;
    pub fn kho_c_close(file: *mut c_void);

    pub safe fn kho_c_pfn_valid(pfn: u64) -> bool;
    // For all functions that follow: `pfn` is valid.
    pub fn kho_c_page_reserved(pfn: u64) -> bool;
    pub fn kho_c_page_failed(pfn: u64) -> bool;
    pub fn kho_c_page_count(pfn: u64) -> c_int;
    pub fn kho_c_page_private(pfn: u64) -> usize;
    // The caller owns the page.
    pub fn kho_c_set_page_private(pfn: u64, value: usize);
    // The page is reserved and has no other user. The caller gets one reference.
    pub fn kho_c_page_claim(pfn: u64);
    // 2^order reserved pages without a user, naturally aligned, of one zone.
    pub fn kho_c_reserved_free(pfn: u64, order: u32);
    pub fn kho_c_adjust_managed(pfn: u64, count: isize);
    // For addresses in RAM, returns a pointer into the direct map.
    pub safe fn kho_c_virt(phys: u64) -> *mut c_void;
    // `addr` is any address; an area that contains it stays mapped during the call. Returns 0 if nothing is mapped
    // there, or if no vmalloc area contains the address.
    pub fn kho_c_vmalloc_pfn(addr: *const c_void) -> u64;
    // Returns the first of 2^order pages with one reference each, or 0.
    pub safe fn kho_c_alloc_order(order: u32) -> u64;
    // The pages are valid and in one zone. Returns 0 if each page has one reference now, or a negative errno.
    pub fn kho_c_alloc_contig(first: u64, end: u64) -> c_int;
    // The caller owns the reference.
    pub fn kho_c_page_put(pfn: u64);

    // The producer is registered, and the context is alive during the call.
    pub fn kho_c_serialize(producer: *mut c_void, ctx: *mut c_void) -> c_int;
    pub fn kho_c_abort(producer: *mut c_void);
    pub fn kho_c_hold(producer: *mut c_void) -> bool;
    // At most once for each kho_c_hold that returned true.
    pub fn kho_c_unhold(producer: *mut c_void);
    pub safe fn kho_c_hold_self() -> bool;
    // At most once for each kho_c_hold_self that returned true.
    pub fn kho_c_unhold_self();
    pub safe fn kho_c_dt_publish() -> c_int;
    // The file is published, and no reader of it may wait for a lock of the caller.
    pub fn kho_c_dt_withdraw();
}
