//! Functions that the C files define; `khofs.h` and `include/kho.h` declare the same.

use core::ffi::{c_char, c_int, c_void};
use khofs_decide::pack::Attr;
use khofs_decide::system::Run;

unsafe extern "C" {
    // RAM: a pointer into the direct map.
    pub safe fn kho_c_virt(phys: u64) -> *mut c_void;
    pub safe fn khofs_c_ram_pages() -> u64;
    // Waits for everybody between khofs_enter and khofs_exit: not from there.
    pub safe fn khofs_c_freeze(frozen: bool);
    pub safe fn khofs_c_reap_later();
    // Writable variables.
    pub fn khofs_c_now(seconds: *mut i64, nanoseconds: *mut u32);

    // All that take a pfn: of a page of RAM.
    pub fn khofs_c_page_count(pfn: u64) -> c_int;
    pub fn khofs_c_reserved(pfn: u64) -> bool;
    // `count` pages of RAM.
    pub fn khofs_c_good_pages(pfn: u64, count: u64) -> u64;
    // A reference that the caller has.
    pub fn khofs_c_page_put(pfn: u64);
    pub safe fn khofs_c_large() -> bool;
    // 512 pages that khofs owns and that are in no file, the first at a multiple of 512; false: nothing changed.
    pub fn khofs_c_fold(pfn: u64) -> bool;
    // The folio that they became.
    pub fn khofs_c_unfold(pfn: u64) -> bool;
    // The folio, which khofs has forgotten.
    pub fn khofs_c_put_folio(pfn: u64);
    // 0, or pages with one reference each.
    pub safe fn khofs_c_take_pages(count: usize) -> u64;
    // 0, or pages of kho.ko's arenas.
    pub safe fn khofs_c_alloc_pages(count: usize) -> u64;
    // What khofs_c_alloc_pages gave, once.
    pub fn khofs_c_free_pages(pfn: u64, count: usize);

    // All that take an inode, a dentry or a superblock: one of khofs that stays during the call.
    // A page of ours that is in no page cache; locked: it stays locked and is not uptodate.
    pub fn khofs_c_insert(inode: *mut c_void, index: u64, pfn: u64, locked: bool) -> c_int;
    pub fn khofs_c_next_run(inode: *mut c_void, from: u64, run: *mut Run) -> bool;
    pub fn khofs_c_set_lazy(inode: *mut c_void, pages: u64);
    // NULL when there is no memory; then `file` remains the caller's.
    pub fn khofs_c_make_inode(
        sb: *mut c_void,
        attr: *const Attr,
        file: *mut c_void,
        target: *const u8,
        len: usize,
    ) -> *mut c_void;
    // A reference that the caller has.
    pub fn khofs_c_put_inode(inode: *mut c_void);
    pub fn khofs_c_hold_inode(inode: *mut c_void);
    pub fn khofs_c_set_links(inode: *mut c_void, links: u32);
    // Takes over a reference on the inode; so does khofs_c_attach, both also when they fail.
    pub fn khofs_c_set_root(sb: *mut c_void, inode: *mut c_void) -> c_int;
    pub fn khofs_c_root(sb: *mut c_void) -> *mut c_void;
    pub fn khofs_c_attach(
        parent: *mut c_void,
        name: *const u8,
        len: usize,
        inode: *mut c_void,
    ) -> *mut c_void;
    // NULL, or a dentry with a reference; takes over the one on `after`.
    pub fn khofs_c_next_child(parent: *mut c_void, after: *mut c_void) -> *mut c_void;
    pub fn khofs_c_put_dentry(dentry: *mut c_void);
    // The inode of a dentry that has one; the name stays while names are frozen.
    pub fn khofs_c_dentry(
        dentry: *mut c_void,
        name: *mut *const u8,
        len: *mut usize,
    ) -> *mut c_void;
    pub fn khofs_c_attr(inode: *mut c_void, attr: *mut Attr);
    // NULL, or a string that lives as long as the inode.
    pub fn khofs_c_target(inode: *mut c_void) -> *const c_char;
    pub fn khofs_c_file(inode: *mut c_void) -> *mut c_void;
    // A superblock that is being filled, or with an active reference of its instance.
    pub fn khofs_c_hold_super(sb: *mut c_void);
    // Without the state's lock: inodes are evicted. No mount is under way, and khofs_rs_hold_super does not give it.
    pub fn khofs_c_drop_super(sb: *mut c_void) -> c_int;

    // kho.ko. Strings end with a NUL; contexts come from a serialize that has not returned.
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
    // Any range: kho.ko checks that it arrived and is nobody's.
    pub safe fn kho_claim_with_failed(addr: u64, len: u64) -> c_int;
    // Any node: kho.ko checks that it arrived and is whole, and that khofs has it.
    pub safe fn khofs_c_hold_node(node: i64) -> c_int;
    pub safe fn khofs_c_release_node(node: i64) -> c_int;
}
