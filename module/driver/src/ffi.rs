//! Functions that `include/kho.h` declares. All of them may sleep: call them from process context only. The comments
//! state the requirements.

use core::ffi::{c_char, c_int, c_void};

/// `struct kho_mem`
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    pub addr: u64,
    pub len: u64,
}

/// `struct kho_producer`
#[repr(C)]
pub struct RawProducer {
    pub name: *const c_char,
    pub priority: c_int,
    pub serialize: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    pub abort: Option<unsafe extern "C" fn(*mut c_void)>,
    pub data: *mut c_void,
    pub owner: *mut c_void,
}

#[cfg(not(test))]
unsafe extern "C" {
    // A structure that stays unchanged until it is unregistered, and the module that has its functions.
    pub fn kho_register_producer_owned(producer: *mut RawProducer, owner: *mut c_void) -> c_int;
    // A registered structure.
    pub fn kho_unregister_producer(producer: *mut RawProducer);
    // A valid context; names that end with a NUL; as many readable bytes or ranges as the argument states.
    pub fn kho_begin_node(ctx: *mut c_void, name: *const c_char) -> c_int;
    pub fn kho_end_node(ctx: *mut c_void) -> c_int;
    pub fn kho_prop_bytes(
        ctx: *mut c_void,
        name: *const c_char,
        value: *const c_void,
        len: usize,
    ) -> c_int;
    pub fn kho_prop_mem(ctx: *mut c_void, ranges: *const Mem, count: usize) -> c_int;
    // A mapped vmalloc area of `size` bytes.
    pub fn kho_prop_mem_vmalloc(ctx: *mut c_void, area: *const c_void, size: usize) -> c_int;
    pub safe fn kho_may_keep(addr: u64, len: u64) -> c_int;
    // A string that ends with a NUL.
    pub fn kho_find(path: *const c_char) -> i64;
    pub fn kho_find_compatible(compatible: *const c_char, after: i64) -> i64;
    pub fn kho_find_child(node: i64, name: *const c_char) -> i64;
    pub safe fn kho_next_child(node: i64, after: i64) -> i64;
    pub safe fn kho_count_children(node: i64) -> isize;
    pub safe fn kho_count_props(node: i64) -> isize;
    // As many writable bytes as the argument states.
    pub fn kho_get_name(node: i64, buf: *mut c_char, size: usize) -> isize;
    pub fn kho_get_prop_name(node: i64, index: usize, buf: *mut c_char, size: usize) -> isize;
    // A name that ends with a NUL.
    pub fn kho_get_size(node: i64, name: *const c_char) -> isize;
    // Names that end with a NUL; as many writable bytes as the argument states.
    pub fn kho_get_bytes(node: i64, name: *const c_char, buf: *mut c_void, size: usize) -> isize;
    pub fn kho_get_mem(node: i64, index: usize, range: *mut Mem) -> c_int;
    pub safe fn kho_claim_node(node: i64) -> c_int;
    // A writable variable. Returns an area, or a pointer that encodes an errno (ERR_PTR).
    pub fn kho_claim_vmalloc(node: i64, size: *mut usize) -> *mut c_void;
    // An area from kho_claim_vmalloc, once. The kernel exports this function.
    pub fn vfree(area: *const c_void);
    // A structure that was registered, or that was never written; its name ends with a NUL.
    pub fn kho_hold_node(producer: *mut RawProducer, node: i64) -> c_int;
    pub fn kho_release_node(producer: *mut RawProducer, node: i64) -> c_int;
    pub safe fn kho_alloc_range(count: usize) -> u64;
    // Pages from kho_alloc_range, once.
    pub fn kho_free_range(addr: u64, count: usize);
    // Claimed pages, once.
    pub fn kho_put_range(addr: u64, count: usize);
    // Pages of the caller.
    pub fn kho_range_address(addr: u64) -> *mut c_void;
}

#[cfg(test)]
pub use crate::fake::*;
