//! Functions that the C files of each module define; `glue.h` and `khofs/khofs.h` declare them. The comments state the
//! requirements and the results.

use core::ffi::c_void;

unsafe extern "C" {
    // Any size. Returns NULL if there is no memory. The memory is aligned to 8 bytes; up to a page, a size that is a
    // power of two is aligned to itself (kmalloc since 5.4); above, to a page (vmalloc).
    pub fn kho_c_alloc(size: usize) -> *mut c_void;
    // A pointer from kho_c_alloc, once, or NULL.
    pub fn kho_c_free(p: *mut c_void);
    // The caller does not hold the mutex.
    pub fn kho_c_lock(which: u32);
    // The caller holds the mutex.
    pub fn kho_c_unlock(which: u32);
    // `text` has `len` readable bytes.
    pub fn kho_c_log(level: u32, text: *const u8, len: usize);
    pub safe fn kho_c_bug() -> !;
    pub safe fn kho_c_relax();
}
