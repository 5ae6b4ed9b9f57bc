//! Functions that the C files define; `khofs.h` and `include/kho.h` declare them. The comments state the requirements
//! and the results.

use core::ffi::{c_char, c_int, c_void};
use khofs_decide::pack::Attr;
use khofs_decide::system::Run;

unsafe extern "C" {
    // For addresses in RAM, returns a pointer into the direct map.
    pub safe fn kho_c_virt(phys: u64) -> *mut c_void;
    pub safe fn khofs_c_ram_pages() -> u64;
    // Waits for all tasks between khofs_enter and khofs_exit, so no such task may call it.
    pub safe fn khofs_c_freeze(frozen: bool);
    pub safe fn khofs_c_reap_later();
    // Both pointers are writable.
    pub fn khofs_c_now(seconds: *mut i64, nanoseconds: *mut u32);

    // For all functions that take a pfn: it is that of a page of RAM.
    pub fn khofs_c_page_count(pfn: u64) -> c_int;
    pub fn khofs_c_reserved(pfn: u64) -> bool;
    // The `count` pages are RAM.
    pub fn khofs_c_good_pages(pfn: u64, count: u64) -> u64;
    // The caller owns the reference.
    pub fn khofs_c_page_put(pfn: u64);
    pub safe fn khofs_c_large() -> bool;
    // 512 pages that khofs owns and that are in no file, the first at a multiple of 512. If it returns false, nothing
    // has changed.
    pub fn khofs_c_fold(pfn: u64) -> bool;
    // The first page of the folio that khofs_c_fold made.
    pub fn khofs_c_unfold(pfn: u64) -> bool;
    // The first page of a folio that khofs has removed from its record.
    pub fn khofs_c_put_folio(pfn: u64);
    // Returns the first of `count` pages with one reference each, or 0.
    pub safe fn kho_room() -> u64;
    pub safe fn khofs_c_take_pages(count: usize) -> u64;
    // Returns the first of `count` pages of kho.ko's arenas, or 0.
    pub safe fn khofs_c_alloc_pages(count: usize) -> u64;
    // Pages from khofs_c_alloc_pages, once.
    pub fn khofs_c_free_pages(pfn: u64, count: usize);

    // For all functions that take an inode, a dentry or a superblock: it belongs to khofs and stays alive during the
    // call. The page belongs to khofs and is in no page cache. With `locked` it stays locked and is not uptodate.
    pub fn khofs_c_insert(inode: *mut c_void, index: u64, pfn: u64, locked: bool) -> c_int;
    pub fn khofs_c_next_run(inode: *mut c_void, from: u64, run: *mut Run) -> bool;
    pub fn khofs_c_set_lazy(inode: *mut c_void, pages: u64);
    // Returns NULL if there is no memory; then the caller still owns `file`.
    pub fn khofs_c_make_inode(
        sb: *mut c_void,
        attr: *const Attr,
        file: *mut c_void,
        target: *const u8,
        len: usize,
    ) -> *mut c_void;
    // The caller owns the reference.
    pub fn khofs_c_put_inode(inode: *mut c_void);
    pub fn khofs_c_hold_inode(inode: *mut c_void);
    pub fn khofs_c_set_links(inode: *mut c_void, links: u32);
    // Takes over a reference on the inode, as khofs_c_attach does; both also if they fail.
    pub fn khofs_c_set_root(sb: *mut c_void, inode: *mut c_void) -> c_int;
    pub fn khofs_c_root(sb: *mut c_void) -> *mut c_void;
    pub fn khofs_c_attach(
        parent: *mut c_void,
        name: *const u8,
        len: usize,
        inode: *mut c_void,
    ) -> *mut c_void;
    // Returns a dentry with a reference, or NULL. Takes over the reference on `after`.
    pub fn khofs_c_next_child(parent: *mut c_void, after: *mut c_void) -> *mut c_void;
    pub fn khofs_c_put_dentry(dentry: *mut c_void);
    // Returns the inode of a dentry that has one. The name stays valid while names are frozen.
    pub fn khofs_c_dentry(
        dentry: *mut c_void,
        name: *mut *const u8,
        len: *mut usize,
    ) -> *mut c_void;
    pub fn khofs_c_attr(inode: *mut c_void, attr: *mut Attr);
    // Returns a string that lives as long as the inode, or NULL.
    pub fn khofs_c_target(inode: *mut c_void) -> *const c_char;
    pub fn khofs_c_file(inode: *mut c_void) -> *mut c_void;
    // The superblock is being filled, or its instance has an active reference on it.
    pub fn khofs_c_hold_super(sb: *mut c_void);
    // The caller does not hold the state's lock, because inodes are evicted. No mount is under way, and
    // khofs_rs_hold_super no longer returns the superblock.
    pub fn khofs_c_drop_super(sb: *mut c_void) -> c_int;

    // Functions of kho.ko. Strings end with a NUL; contexts come from a serialize that has not returned.
    pub fn kho_begin_node(ctx: *mut c_void, name: *const c_char) -> c_int;
    pub fn kho_end_node(ctx: *mut c_void) -> c_int;
    pub fn kho_prop_u32(ctx: *mut c_void, name: *const c_char, value: u32) -> c_int;
    pub fn kho_prop_u64(ctx: *mut c_void, name: *const c_char, value: u64) -> c_int;
    pub fn kho_prop_str(ctx: *mut c_void, name: *const c_char, value: *const c_char) -> c_int;
    pub fn kho_prop_mem(ctx: *mut c_void, ranges: *const [u64; 2], count: usize) -> c_int;
    pub fn kho_find_compatible(compatible: *const c_char, after: i64) -> i64;
    pub fn kho_find_child(node: i64, name: *const c_char) -> i64;
    pub fn kho_get_u32(node: i64, name: *const c_char, value: *mut u32) -> c_int;
    pub fn kho_get_u64(node: i64, name: *const c_char, value: *mut u64) -> c_int;
    pub fn kho_get_str(node: i64, name: *const c_char, buf: *mut c_char, size: usize) -> isize;
    pub fn kho_get_bytes(node: i64, name: *const c_char, buf: *mut c_void, size: usize) -> isize;
    // Any range: kho.ko checks that it arrived and has no owner.
    pub safe fn kho_claim_with_failed(addr: u64, len: u64) -> c_int;
    // Any node: kho.ko checks that it arrived; for a hold, that it is whole; for a release, that khofs holds it.
    pub safe fn khofs_c_hold_node(node: i64) -> c_int;
    pub safe fn khofs_c_release_node(node: i64) -> c_int;
}
