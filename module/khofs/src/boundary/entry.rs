//! Functions that C calls. `khofs.h` declares them.
//!
//! Every pointer here comes from the C files, which pass on the kernel's pointers: strings end with a NUL, buffers have
//! their length, inodes and superblocks stay alive during the call, and a file belongs to its inode.

use super::handover::Context;
use super::system::{Linux, State};
use super::vfs::{File, Inode, Super};
use crate::pages;
use crate::state::STATE;
use crate::{carry, control, restore};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt::Write;
use kho_boundary::relax;
use kho_decide::errno::{EINVAL, ENOMEM, Errno};
use kho_decide::text::Text;
use khofs_decide::account;
use khofs_decide::content::Content;
use khofs_decide::options::{Huge, Options};
use khofs_decide::pages::Want;
use khofs_decide::state::Body;
use khofs_decide::supply::Supply;
use khofs_decide::system::Cache;
use khofs_decide::xattr::{self, Attribute};

fn status(result: Result<(), Errno>) -> c_int {
    result.map_or_else(Errno::code, |()| 0)
}

fn number(result: Result<u64, Errno>) -> i64 {
    match result {
        Ok(value) => i64::try_from(value).unwrap_or(i64::MAX),
        Err(error) => i64::from(error.code()),
    }
}

fn size(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(size) => isize::try_from(size).unwrap_or(isize::MAX),
        Err(error) => isize::try_from(error.code()).unwrap_or(-1),
    }
}

/// An `ERR_PTR`.
fn error_pointer(error: Errno) -> *mut c_void {
    core::ptr::without_provenance_mut(error.code() as isize as usize)
}

/// # Safety
///
/// `p` is NULL, or points to a string that ends with a NUL and does not change during `'a`.
unsafe fn bytes_of<'a>(p: *const c_char) -> Result<&'a [u8], Errno> {
    if p.is_null() {
        return Err(EINVAL);
    }
    // SAFETY: by the caller's promise.
    Ok(unsafe { CStr::from_ptr(p) }.to_bytes())
}

/// # Safety
///
/// `p` is NULL, or points to a string that ends with a NUL and does not change during `'a`.
unsafe fn text<'a>(p: *const c_char) -> Result<&'a str, Errno> {
    // SAFETY: by the caller's promise.
    let bytes = unsafe { bytes_of(p) };
    core::str::from_utf8(bytes?).map_err(|_| EINVAL)
}

/// # Safety
///
/// `p` is NULL, or points to `len` readable bytes that do not change during `'a`.
unsafe fn bytes<'a>(p: *const c_void, len: usize) -> &'a [u8] {
    if p.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: by the caller's promise.
    unsafe { core::slice::from_raw_parts(p.cast(), len) }
}

/// # Safety
///
/// `p` is NULL, or points to `len` initialized bytes that only the caller uses during `'a`.
unsafe fn bytes_mut<'a>(p: *mut c_void, len: usize) -> &'a mut [u8] {
    if p.is_null() || len == 0 {
        return &mut [];
    }
    // SAFETY: by the caller's promise.
    unsafe { core::slice::from_raw_parts_mut(p.cast(), len) }
}

// Module

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_init() -> c_int {
    status(carry::receive())
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_exit() {
    pages::reap();
    // Memory that arrived and was not mounted stays reserved; a later instance of this module finds it.
    STATE.lock().instances = Vec::new();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_serialize(ctx: *mut c_void) -> c_int {
    // SAFETY: kho.ko gives the context, which is valid until this call returns.
    let ctx = unsafe { Context::new(ctx) };
    status(ctx.and_then(|mut ctx| carry::serialize(&mut ctx)))
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_thaw() {
    carry::thaw();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_status_show(buf: *mut c_char, len: usize) -> isize {
    // SAFETY: sysfs gives a zeroed page of its own to each `show`.
    let mut text = Text::new(unsafe { bytes_mut(buf.cast(), len) });
    control::status_show(&mut text);
    size(Ok(text.written()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_release_store(buf: *const c_char, len: usize) -> isize {
    // SAFETY: sysfs gives a copy of its own to each `store`.
    let text = unsafe { bytes(buf.cast(), len) };
    size(control::release_store(text).map(|()| len))
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_reap() {
    pages::reap();
}

// Instances

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_options_new() -> *mut c_void {
    let mut one: Vec<Options> = Vec::new();
    if one.try_reserve_exact(1).is_err() {
        return core::ptr::null_mut();
    }
    one.push(Options::default());
    Box::into_raw(one.into_boxed_slice()).cast()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_options_free(options: *mut c_void) {
    if !options.is_null() {
        let one = core::ptr::slice_from_raw_parts_mut(options.cast::<Options>(), 1);
        // SAFETY: khofs_rs_options_new made the pointer from a box of a slice of one, and C frees it once.
        drop(unsafe { Box::from_raw(one) });
    }
}

/// # Safety
///
/// The pointer is from `khofs_rs_options_new`, is not freed, and is used by one thread only.
unsafe fn options<'a>(options: *mut c_void) -> Result<&'a mut Options, Errno> {
    // SAFETY: by the caller's promise.
    unsafe { options.cast::<Options>().as_mut() }.ok_or(EINVAL)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_option(
    given: *mut c_void,
    key: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: the options belong to a context that is being set up, which its lock protects.
    let given = unsafe { options(given) };
    // SAFETY: both are strings, or NULL.
    let (key, value) = unsafe { (text(key), text(value)) };
    let ram = super::kernel::ram_pages();
    status(given.and_then(|given| given.set(key?, value.ok(), ram)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_instance(given: *mut c_void) -> c_int {
    // SAFETY: as in khofs_rs_option.
    let given = unsafe { options(given) };
    let id = given.and_then(|given| STATE.lock().mount(given));
    id.map_or_else(Errno::code, |id| {
        c_int::try_from(id).unwrap_or(ENOMEM.code())
    })
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_instance_done() {
    STATE.lock().mount_done();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_fill(id: u32, sb: *mut c_void, given: *mut c_void) -> c_int {
    // SAFETY: as in khofs_rs_option.
    let given = unsafe { options(given) };
    // SAFETY: the superblock is being filled.
    let sb = unsafe { Super::new(sb) };
    status(given.and_then(|given| restore::fill(id, sb?, given)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_reconfigure(
    id: u32,
    given: *mut c_void,
    why: *mut c_char,
    len: usize,
) -> c_int {
    // SAFETY: as in khofs_rs_option.
    let given = match unsafe { options(given) } {
        Ok(given) => given,
        Err(error) => return error.code(),
    };
    let mut state = STATE.lock();
    let Err(refused) = state.change(id, given) else {
        return 0;
    };
    drop(state);
    // SAFETY: `why` is a buffer of `len` bytes; its former content is not read.
    unsafe { core::ptr::write_bytes(why, 0, len) };
    // SAFETY: the buffer was initialized just now; its last byte stays the NUL that ends the string.
    let mut text = Text::new(unsafe { bytes_mut(why.cast(), len.saturating_sub(1)) });
    // If the buffer is too small, the sentence is cut off.
    let _ = write!(text, "{refused}");
    refused.errno().code()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_hold_super(id: *mut u32) -> *mut c_void {
    let state = STATE.lock();
    // SAFETY: `id` points to a variable.
    let after = unsafe { id.read() };
    let live = state.instances.iter().filter_map(|i| match i.body {
        Body::Live(sb) if i.id > after => Some((i.id, sb)),
        _ => None,
    });
    let Some((number, sb)) = live.min_by_key(|(number, _)| *number) else {
        return core::ptr::null_mut();
    };
    // SAFETY: as above.
    unsafe { id.write(number) };
    sb.hold()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_statfs(id: u32, out: *mut [u64; 4]) {
    let mut state = STATE.lock();
    let numbers = state.instance(id).map_or([0; 4], |i| {
        [i.limit, i.used, i.inode_limit, i.inodes_used()]
    });
    // SAFETY: `out` is an array of four.
    unsafe { out.write(numbers) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_show_options(id: u32, buf: *mut c_char, len: usize) -> isize {
    // SAFETY: `buf` is a buffer of `len` bytes; its former content is not read.
    unsafe { core::ptr::write_bytes(buf, 0, len) };
    // SAFETY: the buffer was initialized just now.
    let mut text = Text::new(unsafe { bytes_mut(buf.cast(), len) });
    let result = control::options_show(id, &mut text);
    size(result.map(|()| text.written()))
}

// Files

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_file_new(id: u32, target: usize, ino: *mut u64) -> *mut c_void {
    let target_pages = account::target_pages(target as u64);
    let file = match File::new(Content {
        target_pages,
        ..Content::default()
    }) {
        Ok(file) => file,
        Err(error) => return error_pointer(error),
    };
    let mut state = STATE.lock();
    let number = state.instance(id).and_then(|i| i.new_inode(target_pages));
    drop(state);
    match number {
        Ok(number) => {
            // SAFETY: `ino` points to a variable.
            unsafe { ino.write(number) };
            file.pointer()
        }
        Err(error) => {
            // SAFETY: no inode has the content yet.
            drop(unsafe { file.free() });
            error_pointer(error)
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_file_free(id: u32, file: *mut c_void) {
    // SAFETY: the file belongs to an inode that is being evicted.
    if let Ok(file) = unsafe { File::from_pointer(file) } {
        // SAFETY: no other code reaches the inode any more.
        let content = unsafe { file.free() };
        pages::inode_gone(id, content);
    }
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_target_pages(len: u64) -> u64 {
    account::target_pages(len)
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_name_new(id: u32) -> c_int {
    let mut state = STATE.lock();
    let instance = state.instance(id);
    status(instance.and_then(|i| i.take_space(khofs_decide::options::INODE)))
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_name_gone(id: u32) {
    if let Ok(instance) = STATE.lock().instance(id) {
        instance.give_space(khofs_decide::options::INODE);
    }
}

/// Runs `act` with the content of an inode, under the lock.
///
/// # Safety
///
/// `file` belongs to an inode that stays alive during the call.
unsafe fn with<T>(
    file: *mut c_void,
    act: impl FnOnce(&mut State, &mut Content) -> Result<T, Errno>,
) -> Result<T, Errno> {
    // SAFETY: by the caller's promise.
    let file = unsafe { File::from_pointer(file) }?;
    let mut state = STATE.lock();
    // SAFETY: the lock is held, and this is the only reference to the content.
    let content = unsafe { file.get_mut() };
    act(&mut state, content)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_bring(
    id: u32,
    file: *mut c_void,
    inode: *mut c_void,
    index: u64,
) -> c_int {
    // SAFETY: the inode stays alive during the call.
    let inode = unsafe { Inode::new(inode) };
    // SAFETY: the file belongs to the inode.
    let result = unsafe {
        with(file, |state, content| {
            state.bring(id, content, inode?, index)
        })
    };
    result.map_or_else(Errno::code, |count| {
        c_int::try_from(count).unwrap_or(c_int::MAX)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_next_lazy(file: *mut c_void, index: u64) -> u64 {
    // SAFETY: the file belongs to an inode that stays alive.
    let next = unsafe { with(file, |_, content| Ok(content.lazy.next_good(index))) };
    next.ok().flatten().unwrap_or(u64::MAX)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_grow(
    id: u32,
    file: *mut c_void,
    inode: *mut c_void,
    index: u64,
    want: *const Want,
    clean: *mut bool,
) -> i64 {
    // SAFETY: the inode stays alive during the call.
    let inode = unsafe { Inode::new(inode) };
    // SAFETY: `want` points to a variable.
    let want = unsafe { want.read() };
    let page = Supply::serve::<Linux, _>(|supply| {
        // SAFETY: the file belongs to the inode.
        unsafe {
            with(file, |state, content| {
                state.grow(id, content, inode?, index, want, supply)
            })
        }
    });
    number(page.map(|page| {
        // SAFETY: `clean` points to a variable.
        unsafe { clean.write(page.clean) };
        page.pfn
    }))
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_may_collapse(id: u32) -> bool {
    let mut state = STATE.lock();
    state.instance(id).is_ok_and(|i| i.huge != Huge::Never)
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_folded(pfn: u64, folded: bool) {
    STATE.lock().chunks.set_folded(pfn, folded);
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_room(id: u32, pages: u64) -> c_int {
    status(STATE.lock().room(id, pages))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_forget(
    id: u32,
    file: *mut c_void,
    inode: *mut c_void,
    first: u64,
    last: u64,
) -> c_int {
    // SAFETY: the inode stays alive during the call.
    let inode = unsafe { Inode::new(inode) };
    loop {
        // SAFETY: the file belongs to the inode.
        let more = unsafe {
            with(file, |state, content| {
                state.forget(id, content, inode?, first, last.saturating_add(1))
            })
        };
        match more {
            Ok(true) => relax(),
            result => return status(result.map(|_| ())),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_seek(
    file: *mut c_void,
    inode: *mut c_void,
    index: u64,
    hole: bool,
) -> u64 {
    // SAFETY: the inode stays alive during the call.
    let inode = unsafe { Inode::new(inode) };
    // SAFETY: the file belongs to the inode.
    let found = unsafe {
        with(file, |_, content| {
            let inode = inode?;
            Ok(if hole {
                inode.next_hole(content, index)
            } else {
                inode.next_data(content, index)
            })
        })
    };
    found.unwrap_or(u64::MAX)
}

#[unsafe(no_mangle)]
extern "C" fn khofs_rs_page_freed(pfn: u64, count: u64) {
    STATE.lock().folio_freed(pfn, count);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_xattr_get(
    file: *mut c_void,
    name: *const c_char,
    buf: *mut c_void,
    len: usize,
) -> isize {
    // SAFETY: a string.
    let name = unsafe { bytes_of(name) };
    // SAFETY: a buffer, or NULL and 0 if the caller only needs the length.
    let buf = unsafe { bytes_mut(buf, len) };
    let get = |_: &mut State, content: &mut Content| {
        let value = content.attributes.get(name?)?;
        if !buf.is_empty() {
            let room = buf.get_mut(..value.len()).ok_or(xattr::ERANGE)?;
            room.copy_from_slice(value);
        }
        Ok(value.len())
    };
    // SAFETY: the file belongs to an inode that stays alive.
    size(unsafe { with(file, get) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_xattr_set(
    id: u32,
    file: *mut c_void,
    name: *const c_char,
    value: *const c_void,
    len: usize,
    flags: c_int,
) -> c_int {
    // SAFETY: a string.
    let name = unsafe { bytes_of(name) };
    // SAFETY: a buffer, or NULL.
    let given = (!value.is_null()).then(|| unsafe { bytes(value, len) });
    // The copy is made before the lock is taken, and the old value is freed after the lock is released.
    let new = given.map(|value| Attribute::new(name?, value)).transpose();
    let set = |state: &mut State, content: &mut Content| {
        state.set_attribute(id, content, name?, new?, flags)
    };
    // SAFETY: the file belongs to an inode that stays alive.
    status(unsafe { with(file, set) }.map(drop))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn khofs_rs_xattr_list(
    file: *mut c_void,
    trusted: bool,
    buf: *mut c_char,
    len: usize,
) -> isize {
    // SAFETY: a buffer, or NULL and 0 if the caller only needs the length.
    let buf = unsafe { bytes_mut(buf.cast(), len) };
    // SAFETY: the file belongs to an inode that stays alive.
    size(unsafe { with(file, |_, content| content.attributes.names(trusted, buf)) })
}
