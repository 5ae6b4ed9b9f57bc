//! Functions that the C files of each module define; `glue.h` and `khofs/khofs.h` declare the same.

use core::ffi::c_void;

unsafe extern "C" {
    // Any size; NULL when there is no memory. Aligned to 8, and to the size when that is a power of two up
    // to a page (kmalloc since 5.4), to a page above (vmalloc).
    pub fn kho_c_alloc(size: usize) -> *mut c_void;
    // A pointer from kho_c_alloc, once, or NULL.
    pub fn kho_c_free(p: *mut c_void);
    // Not while the caller holds it.
    pub fn kho_c_lock(which: u32);
    // Only by who holds it.
    pub fn kho_c_unlock(which: u32);
    // `len` readable bytes.
    pub fn kho_c_log(level: u32, text: *const u8, len: usize);
    pub safe fn kho_c_bug() -> !;
    pub safe fn kho_c_relax();
}
