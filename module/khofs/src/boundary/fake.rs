//! The functions of the C files for host tests: a machine without memory and without files.

#![allow(clippy::missing_safety_doc)]

use core::ffi::{c_char, c_int, c_void};
use core::ptr::{null, null_mut};
use khofs_decide::pack::Attr;
use khofs_decide::system::Run;

pub fn kho_c_virt(_: u64) -> *mut c_void {
    null_mut()
}
pub fn khofs_c_ram_pages() -> u64 {
    0
}
pub fn khofs_c_freeze(_: bool) {}
pub fn khofs_c_reap_later() {}
pub unsafe fn khofs_c_now(_: *mut i64, _: *mut u32) {}
pub unsafe fn khofs_c_page_count(_: u64) -> c_int {
    -12
}
pub unsafe fn khofs_c_reserved(_: u64) -> bool {
    false
}
pub unsafe fn khofs_c_page_put(_: u64) {}
pub fn khofs_c_large() -> bool {
    false
}
pub unsafe fn khofs_c_fold(_: u64) -> bool {
    false
}
pub unsafe fn khofs_c_unfold(_: u64) -> bool {
    false
}
pub unsafe fn khofs_c_put_folio(_: u64) {}
pub unsafe fn khofs_c_good_pages(_: u64, count: u64) -> u64 {
    count
}
pub fn kho_room() -> u64 {
    u64::MAX
}
pub fn khofs_c_take_pages(_: usize) -> u64 {
    0
}
pub fn khofs_c_alloc_pages(_: usize) -> u64 {
    0
}
pub unsafe fn khofs_c_free_pages(_: u64, _: usize) {}
pub unsafe fn khofs_c_insert(_: *mut c_void, _: u64, _: u64, _: bool) -> c_int {
    -12
}
pub unsafe fn khofs_c_next_run(_: *mut c_void, _: u64, _: *mut Run) -> bool {
    false
}
pub unsafe fn khofs_c_set_lazy(_: *mut c_void, _: u64) {}
pub unsafe fn khofs_c_make_inode(
    _: *mut c_void,
    _: *const Attr,
    _: *mut c_void,
    _: *const u8,
    _: usize,
) -> *mut c_void {
    null_mut()
}
pub unsafe fn khofs_c_put_inode(_: *mut c_void) {}
pub unsafe fn khofs_c_hold_inode(_: *mut c_void) {}
pub unsafe fn khofs_c_set_links(_: *mut c_void, _: u32) {}
pub unsafe fn khofs_c_set_root(_: *mut c_void, _: *mut c_void) -> c_int {
    -12
}
pub unsafe fn khofs_c_root(_: *mut c_void) -> *mut c_void {
    null_mut()
}
pub unsafe fn khofs_c_attach(
    _: *mut c_void,
    _: *const u8,
    _: usize,
    _: *mut c_void,
) -> *mut c_void {
    null_mut()
}
pub unsafe fn khofs_c_next_child(_: *mut c_void, _: *mut c_void) -> *mut c_void {
    null_mut()
}
pub unsafe fn khofs_c_put_dentry(_: *mut c_void) {}
pub unsafe fn khofs_c_dentry(_: *mut c_void, _: *mut *const u8, _: *mut usize) -> *mut c_void {
    null_mut()
}
pub unsafe fn khofs_c_attr(_: *mut c_void, _: *mut Attr) {}
pub unsafe fn khofs_c_target(_: *mut c_void) -> *const c_char {
    null()
}
pub unsafe fn khofs_c_file(_: *mut c_void) -> *mut c_void {
    null_mut()
}
pub unsafe fn khofs_c_drop_super(_: *mut c_void) -> c_int {
    -12
}
pub unsafe fn kho_begin_node(_: *mut c_void, _: *const c_char) -> c_int {
    -12
}
pub unsafe fn kho_end_node(_: *mut c_void) -> c_int {
    -12
}
pub unsafe fn kho_prop_u32(_: *mut c_void, _: *const c_char, _: u32) -> c_int {
    -12
}
pub unsafe fn kho_prop_u64(_: *mut c_void, _: *const c_char, _: u64) -> c_int {
    -12
}
pub unsafe fn kho_prop_str(_: *mut c_void, _: *const c_char, _: *const c_char) -> c_int {
    -12
}
pub unsafe fn kho_prop_mem(_: *mut c_void, _: *const [u64; 2], _: usize) -> c_int {
    -12
}
pub unsafe fn kho_find_compatible(_: *const c_char, _: i64) -> i64 {
    -2
}
pub unsafe fn kho_find_child(_: i64, _: *const c_char) -> i64 {
    -2
}
pub unsafe fn kho_get_u32(_: i64, _: *const c_char, _: *mut u32) -> c_int {
    -12
}
pub unsafe fn kho_get_u64(_: i64, _: *const c_char, _: *mut u64) -> c_int {
    -12
}
pub unsafe fn kho_get_str(_: i64, _: *const c_char, _: *mut c_char, _: usize) -> isize {
    -2
}
pub unsafe fn kho_get_bytes(_: i64, _: *const c_char, _: *mut c_void, _: usize) -> isize {
    -2
}
pub fn kho_claim_with_failed(_: u64, _: u64) -> c_int {
    -12
}
pub fn khofs_c_hold_node(_: i64) -> c_int {
    -12
}
pub fn khofs_c_release_node(_: i64) -> c_int {
    -12
}
pub unsafe fn khofs_c_hold_super(_: *mut c_void) {}
