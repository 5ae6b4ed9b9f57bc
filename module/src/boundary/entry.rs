//! Functions that C calls. `glue.h` declares them, and `include/kho.h` documents them for drivers.
//!
//! Every pointer here comes from `glue.c`, which passes on the pointers of the kernel or of a driver. They meet the
//! usual requirements of C: strings end with a NUL, buffers have their length, contexts come from a `serialize` that
//! has not returned.

use super::pages::vmalloc_page;
use super::producer::Handle;
use super::system::{Linux, Store};
use crate::control;
use crate::phase::{PHASE, ROOM};
use crate::store::STORE;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::Ordering;
use kho::abi::{COMPATIBLE, MEM};
use kho::tree::{Node, Value};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_boundary::relax;
use kho_decide::errno::{EBADMSG, EINVAL, ENOENT, ENOSPC, Errno};
use kho_decide::lend;
use kho_decide::nodes;
use kho_decide::pages::Runs;
use kho_decide::session::Session;
use kho_decide::system::Failed;
use kho_decide::text::Text;

/// `struct kho_mem`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mem {
    addr: u64,
    len: u64,
}

const _: () = assert!(size_of::<Mem>() == 16);

fn status(result: Result<(), Errno>) -> c_int {
    result.map_or_else(Errno::code, |()| 0)
}

fn number(result: Result<i64, Errno>) -> i64 {
    result.unwrap_or_else(|error| i64::from(error.code()))
}

fn size(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(size) => isize::try_from(size).unwrap_or(isize::MAX),
        Err(error) => isize::try_from(error.code()).unwrap_or(-1),
    }
}

fn range(addr: u64, len: u64) -> Result<PhysRange, Errno> {
    PhysRange::new(PhysAddr::new(addr), len).map_err(|_| EINVAL)
}

/// # Safety
///
/// `p` is NULL, or points to a string that ends with a NUL and does not change during `'a`.
unsafe fn text<'a>(p: *const c_char) -> Result<&'a str, Errno> {
    if p.is_null() {
        return Err(EINVAL);
    }
    // SAFETY: by the caller's promise.
    let text = unsafe { CStr::from_ptr(p) };
    text.to_str().map_err(|_| EINVAL)
}

/// # Safety
///
/// `p` is NULL, or points to `len` readable bytes that do not change during `'a`.
unsafe fn bytes<'a>(p: *const c_void, len: usize) -> Result<&'a [u8], Errno> {
    // SAFETY: by the caller's promise.
    unsafe { array(p.cast(), len) }
}

/// # Safety
///
/// `p` is NULL, or points to `count` initialized values that do not change during `'a`.
unsafe fn array<'a, T>(p: *const T, count: usize) -> Result<&'a [T], Errno> {
    if count == 0 {
        return Ok(&[]);
    }
    let size = count.checked_mul(size_of::<T>());
    if p.is_null() || size.is_none_or(|size| isize::try_from(size).is_err()) {
        return Err(EINVAL);
    }
    // SAFETY: by the caller's promise, and the array is no larger than a slice may be.
    Ok(unsafe { core::slice::from_raw_parts(p, count) })
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

/// Executes a call that a producer makes in its `serialize`. The session remembers every error of the call, errors in
/// the arguments included: a driver that ignores the results of its calls must not lose state silently.
///
/// # Safety
///
/// `ctx` is NULL, or the context of a `serialize` that has not returned, in the thread that runs it.
unsafe fn note(ctx: *mut Session, act: impl FnOnce(&mut Session) -> Result<(), Errno>) -> c_int {
    // SAFETY: `Held::serialize` lends the session, and does not use it until the driver returns.
    let Some(session) = (unsafe { ctx.as_mut() }) else {
        return EINVAL.code();
    };
    let result = act(session);
    status(session.sticky(result))
}

// Module

#[unsafe(no_mangle)]
extern "C" fn kho_rs_init() -> c_int {
    // Without the lock: the store is opened by reading files, and a driver may call kho.ko where it holds the lock of
    // a file. No driver can call before the module is loaded.
    let mut store = Store::new();
    let result = store.open();
    match result {
        Ok(()) => *STORE.lock() = store,
        Err(_) => store.close(),
    }
    status(result)
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_exit() {
    STORE.lock().close();
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_on_kexec() {
    PHASE.lock().on_kexec();
}

// sysfs

/// # Safety
///
/// `buf` has `len` bytes.
unsafe fn show(
    buf: *mut c_char,
    len: usize,
    write: fn(&mut Text<'_>) -> Result<(), Errno>,
) -> isize {
    // SAFETY: sysfs gives a zeroed page of its own to each `show`.
    let mut text = Text::new(unsafe { bytes_mut(buf.cast(), len) });
    let result = write(&mut text);
    size(result.map(|()| text.written()))
}

/// # Safety
///
/// `buf` has `len` bytes.
unsafe fn store(buf: *const c_char, len: usize, read: fn(&[u8]) -> Result<(), Errno>) -> isize {
    // SAFETY: sysfs gives a copy of its own to each `store`.
    let text = unsafe { bytes(buf.cast(), len) };
    size(text.and_then(read).map(|()| len))
}

macro_rules! files {
    ($($name:ident => $do:ident($call:path, $buf:ty);)*) => { $(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(buf: $buf, len: usize) -> isize {
            // SAFETY: sysfs gives a buffer of this length.
            unsafe { $do(buf, len, $call) }
        }
    )* };
}

files! {
    kho_rs_active_show => show(control::active_show, *mut c_char);
    kho_rs_active_store => store(control::active_store, *const c_char);
    kho_rs_generation_show => show(control::generation_show, *mut c_char);
    kho_rs_scratch_show => show(control::scratch_show, *mut c_char);
    kho_rs_scratch_store => store(control::scratch_store, *const c_char);
    kho_rs_late_show => show(control::late_show, *mut c_char);
    kho_rs_late_store => store(control::late_store, *const c_char);
    kho_rs_status_show => show(control::status_show, *mut c_char);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_release_read(buf: *mut c_char, offset: u64, len: usize) -> isize {
    // SAFETY: sysfs gives a buffer of this length.
    let buf = unsafe { bytes_mut(buf.cast(), len) };
    size(control::release_read(buf, offset))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_release_write(buf: *const c_char, offset: u64, len: usize) -> isize {
    // SAFETY: sysfs gives a buffer of this length.
    let text = unsafe { bytes(buf.cast(), len) };
    size(text.and_then(|text| control::release_write(text, offset).map(|()| len)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_dt_read(buf: *mut c_char, offset: u64, len: usize) -> isize {
    // SAFETY: sysfs gives a buffer of this length.
    size(Ok(control::dt_read(
        unsafe { bytes_mut(buf.cast(), len) },
        offset,
    )))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_in_dt_read(buf: *mut c_char, offset: u64, len: usize) -> isize {
    // SAFETY: sysfs gives a buffer of this length.
    size(Ok(control::in_dt_read(
        unsafe { bytes_mut(buf.cast(), len) },
        offset,
    )))
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_in_dt_size() -> usize {
    control::in_dt_size()
}

// Producers

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_register(
    p: *mut c_void,
    name: *const c_char,
    priority: c_int,
) -> c_int {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    // SAFETY: kho.h makes the driver keep the structure until it unregisters.
    let handle = unsafe { Handle::new(p) }.ok_or(EINVAL);
    status(name.and_then(|name| PHASE.lock().register(handle?, name, priority)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_unregister(p: *mut c_void) {
    // SAFETY: the producer is registered until this call returns.
    if let Some(handle) = unsafe { Handle::new(p) } {
        PHASE.lock().unregister(handle);
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_begin_node(ctx: *mut Session, name: *const c_char) -> c_int {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    // SAFETY: a driver's context.
    unsafe { note(ctx, |session| session.begin(name?)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_end_node(ctx: *mut Session) -> c_int {
    // SAFETY: a driver's context.
    unsafe { note(ctx, Session::end) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_prop_u32(ctx: *mut Session, name: *const c_char, value: u32) -> c_int {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    // SAFETY: a driver's context.
    unsafe { note(ctx, |session| session.prop(name?, &value.to_ne_bytes())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_prop_u64(ctx: *mut Session, name: *const c_char, value: u64) -> c_int {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    // SAFETY: a driver's context.
    unsafe { note(ctx, |session| session.prop(name?, &value.to_ne_bytes())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_prop_str(
    ctx: *mut Session,
    name: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    // SAFETY: a driver's string.
    let value = unsafe { text(value) };
    // SAFETY: a driver's context.
    unsafe { note(ctx, |session| session.prop_str(name?, value?.as_bytes())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_prop_bytes(
    ctx: *mut Session,
    name: *const c_char,
    value: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    // SAFETY: a driver's buffer.
    let value = unsafe { bytes(value, len) };
    // SAFETY: a driver's context.
    unsafe { note(ctx, |session| session.prop(name?, value?)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_prop_mem(ctx: *mut Session, list: *const Mem, count: usize) -> c_int {
    // SAFETY: a driver's array.
    let list = unsafe { array(list, count) };
    // SAFETY: a driver's context.
    unsafe {
        note(ctx, |session| {
            session.mem::<Linux>(list?.iter().map(|m| range(m.addr, m.len)))
        })
    }
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_may_keep(addr: u64, len: u64) -> c_int {
    status(range(addr, len).and_then(|range| STORE.lock().may_keep(range)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_prop_mem_vmalloc(
    ctx: *mut Session,
    area: *const c_void,
    len: usize,
) -> c_int {
    let page_size = usize::try_from(PAGE_SIZE).unwrap_or(4096);
    let whole = area.addr().is_multiple_of(page_size) && len.is_multiple_of(page_size) && len != 0;
    let pages = (0..len).step_by(page_size).map(|offset| {
        // An area may be large, and the loop looks up each page of it.
        if offset.is_multiple_of(1 << 21) {
            relax();
        }
        // SAFETY: the driver keeps its area mapped during the call.
        unsafe { vmalloc_page(area.wrapping_byte_add(offset)) }.ok_or(EINVAL)
    });
    let write = |session: &mut Session| match whole {
        true => session.mem::<Linux>(Runs::new(pages)),
        false => Err(EINVAL),
    };
    // SAFETY: a driver's context.
    unsafe { note(ctx, write) }
}

// What arrived

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_find(path: *const c_char) -> i64 {
    // SAFETY: a driver's string.
    let path = unsafe { text(path) };
    number(path.and_then(|path| STORE.lock().find_path(path)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_find_compatible(compatible: *const c_char, after: i64) -> i64 {
    // SAFETY: a driver's string.
    let wanted = unsafe { text(compatible) };
    let from = usize::try_from(after.saturating_add(1)).map_err(|_| EINVAL);
    number(wanted.and_then(|wanted| {
        STORE.lock().find(from?, |node| {
            kho_decide::arrival::string(node, COMPATIBLE) == Some(wanted)
        })
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_find_child(node: i64, name: *const c_char) -> i64 {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    number(name.and_then(|name| STORE.lock().find_child(node, name)))
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_next_child(node: i64, after: i64) -> i64 {
    let store = STORE.lock();
    let found = store.nodes();
    number(found.and_then(|index| nodes::next_child(index, node, after)))
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_count_children(node: i64) -> isize {
    let store = STORE.lock();
    let found = store.nodes();
    size(found.and_then(|index| nodes::count_children(index, node)))
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_count_props(node: i64) -> isize {
    let store = STORE.lock();
    let found = store.nodes();
    size(found.and_then(|index| nodes::count_props(index, node)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_get_name(node: i64, buf: *mut c_char, len: usize) -> isize {
    // SAFETY: a driver's buffer.
    let buf = unsafe { bytes_mut(buf.cast(), len) };
    let store = STORE.lock();
    size(
        store
            .node(node)
            .and_then(|node| copy_text(node.name_bytes(), buf)),
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_get_prop_name(
    node: i64,
    index: usize,
    buf: *mut c_char,
    len: usize,
) -> isize {
    // SAFETY: a driver's buffer.
    let buf = unsafe { bytes_mut(buf.cast(), len) };
    let store = STORE.lock();
    let found = store.nodes();
    let found = found.and_then(|all| nodes::prop(all, node, index));
    size(found.and_then(|prop| copy_text(prop.name_bytes(), buf)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_get_size(node: i64, name: *const c_char) -> isize {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    let store = STORE.lock();
    size(name.and_then(|name| Ok(prop(&store.node(node)?, name)?.bytes().len())))
}

fn prop<'a>(node: &Node<'a>, name: &str) -> Result<Value<'a>, Errno> {
    node.prop(name).map(|prop| prop.value()).ok_or(ENOENT)
}

/// # Safety
///
/// `to` is NULL, or points to a writable variable.
unsafe fn put<T>(to: *mut T, value: Result<T, Errno>) -> c_int {
    match value {
        Ok(_) if to.is_null() => EINVAL.code(),
        Ok(value) => {
            // SAFETY: by the caller's promise.
            unsafe { to.write(value) };
            0
        }
        Err(error) => error.code(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_get_u32(node: i64, name: *const c_char, to: *mut u32) -> c_int {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    let store = STORE.lock();
    let value = name.and_then(|name| Ok(prop(&store.node(node)?, name)?.u32()?));
    // SAFETY: a driver's variable.
    unsafe { put(to, value) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_get_u64(node: i64, name: *const c_char, to: *mut u64) -> c_int {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    let store = STORE.lock();
    let value = name.and_then(|name| Ok(prop(&store.node(node)?, name)?.u64()?));
    // SAFETY: a driver's variable.
    unsafe { put(to, value) }
}

fn copy(value: &[u8], to: &mut [u8]) -> Result<usize, Errno> {
    let room = to.get_mut(..value.len()).ok_or(ENOSPC)?;
    for (to, from) in room.iter_mut().zip(value) {
        *to = *from;
    }
    Ok(value.len())
}

/// Copies `text` and a NUL behind it.
fn copy_text(text: &[u8], to: &mut [u8]) -> Result<usize, Errno> {
    let len = text.len();
    *to.get_mut(len).ok_or(ENOSPC)? = 0;
    Ok(copy(text, to)?.saturating_add(1))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_get_str(
    node: i64,
    name: *const c_char,
    buf: *mut c_char,
    len: usize,
) -> isize {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    // SAFETY: a driver's buffer.
    let buf = unsafe { bytes_mut(buf.cast(), len) };
    let store = STORE.lock();
    size(name.and_then(|name| {
        let value = prop(&store.node(node)?, name)?;
        value.str().map_err(|_| EBADMSG)?;
        copy(value.bytes(), buf)
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_get_bytes(
    node: i64,
    name: *const c_char,
    buf: *mut c_void,
    len: usize,
) -> isize {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    // SAFETY: a driver's buffer.
    let buf = unsafe { bytes_mut(buf, len) };
    let store = STORE.lock();
    size(name.and_then(|name| copy(prop(&store.node(node)?, name)?.bytes(), buf)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_get_mem(node: i64, index: usize, to: *mut Mem) -> c_int {
    let store = STORE.lock();
    let value = store.node(node).and_then(|node| {
        // Drivers read one range after the other, and the property may have many: `nth` finds a range without a walk.
        let range = prop(&node, MEM)?.mem()?.nth(index).ok_or(ENOENT)?;
        let range = range.map_err(|_| EBADMSG)?;
        Ok(Mem {
            addr: range.start().get(),
            len: range.len(),
        })
    });
    // SAFETY: a driver's variable.
    unsafe { put(to, value) }
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_claim(addr: u64, len: u64) -> c_int {
    claim(addr, len, Failed::Refused)
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_claim_with_failed(addr: u64, len: u64) -> c_int {
    claim(addr, len, Failed::Taken)
}

fn claim(addr: u64, len: u64, failed: Failed) -> c_int {
    status(range(addr, len).and_then(|range| STORE.lock().claim(range, failed)))
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_claim_node(node: i64) -> c_int {
    status(STORE.lock().claim_node(node))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_hold_node(producer: *mut c_void, node: i64) -> c_int {
    // SAFETY: kho.h makes the driver keep the structure until it unregisters.
    let handle = unsafe { Handle::new(producer) }.ok_or(EINVAL);
    status(handle.and_then(|handle| PHASE.lock().hold(handle, node)))
}

/// Does not take the phase's lock: a producer may make other tasks wait for it in its `serialize` meanwhile.
#[unsafe(no_mangle)]
unsafe extern "C" fn kho_rs_release_node(name: *const c_char, node: i64) -> c_int {
    // SAFETY: a driver's string.
    let name = unsafe { text(name) };
    status(name.and_then(|name| STORE.lock().release_held(name, node)))
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_release(addr: u64, len: u64) -> c_int {
    status(range(addr, len).and_then(|range| STORE.lock().release(range)))
}

// Memory

#[unsafe(no_mangle)]
extern "C" fn kho_rs_alloc_pages(count: usize) -> u64 {
    let lent = lend::lend::<Linux>(count);
    lent.map_or(0, |range| range.start().get() / PAGE_SIZE)
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_room() -> u64 {
    ROOM.load(Ordering::Relaxed)
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_take_pages(count: usize) -> u64 {
    let taken = lend::give_away::<Linux>(count);
    taken.map_or(0, |range| range.start().get() / PAGE_SIZE)
}

#[unsafe(no_mangle)]
extern "C" fn kho_rs_free_pages(pfn: u64, count: usize) {
    let len = u64::try_from(count)
        .ok()
        .and_then(|c| c.checked_mul(PAGE_SIZE));
    let addr = pfn.checked_mul(PAGE_SIZE);
    if let (Some(addr), Some(len)) = (addr, len)
        && let Ok(range) = range(addr, len)
    {
        STORE.lock().take_back(range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::null;
    use kho::RangeSet;
    use kho_decide::session::Limits;

    /// Makes a call in a producer, ignores its result, and ends the producer. Returns the result of the call, and the
    /// result of the producer's end.
    fn ignored(call: impl FnOnce(*mut Session) -> c_int) -> (Result<(), Errno>, Result<(), Errno>) {
        let ram = range(1 << 20, 16 << 20).unwrap();
        let mut session = Session::new(Limits {
            ram: RangeSet::from_ranges([ram]).unwrap(),
            scratch: None,
            held: RangeSet::new(),
        })
        .unwrap();
        session.begin_producer("p", RangeSet::new()).unwrap();
        session.prop_str("compatible", b"p-v1").unwrap();
        let said = Errno::check(i64::from(call(&raw mut session))).map(|_| ());
        let _ = session.prop("more", &[1]);
        (said, session.end_producer())
    }

    /// Makes a call with these arguments behind the context.
    macro_rules! call {
        ($name:ident $(, $argument:expr)*) => {
            |ctx: *mut Session| {
                // SAFETY: the context is the test's; strings end with a NUL; arrays have their length, or the call
                // refuses them unread.
                unsafe { $name(ctx $(, $argument)*) }
            }
        };
    }

    #[test]
    fn no_error_of_a_call_can_be_ignored() {
        let bad = c"\xff".as_ptr();
        let (name, none) = (c"value".as_ptr(), null::<c_char>());
        let nothing = null::<c_void>();
        let here = core::ptr::dangling::<Mem>();
        let odd = [Mem {
            addr: 1 << 20,
            len: 1,
        }];
        let calls: [&dyn Fn(*mut Session) -> c_int; 18] = [
            &call!(kho_rs_begin_node, bad),
            &call!(kho_rs_begin_node, none),
            &call!(kho_rs_begin_node, c"bad name".as_ptr()),
            &call!(kho_rs_end_node),
            &call!(kho_rs_prop_u32, bad, 1),
            &call!(kho_rs_prop_u32, none, 1),
            &call!(kho_rs_prop_u64, bad, 1),
            &call!(kho_rs_prop_u64, none, 1),
            &call!(kho_rs_prop_str, bad, name),
            &call!(kho_rs_prop_str, name, bad),
            &call!(kho_rs_prop_str, name, none),
            &call!(kho_rs_prop_bytes, bad, name.cast(), 1),
            &call!(kho_rs_prop_bytes, name, nothing, 1),
            &call!(kho_rs_prop_bytes, name, name.cast(), usize::MAX),
            &call!(kho_rs_prop_mem, null(), 1),
            &call!(kho_rs_prop_mem, here, usize::MAX / 8),
            &call!(kho_rs_prop_mem, odd.as_ptr(), 1),
            &call!(kho_rs_prop_mem_vmalloc, nothing, 4096),
        ];
        for (number, call) in calls.into_iter().enumerate() {
            let (said, end) = ignored(call);
            assert_eq!((said, end), (Err(EINVAL), Err(EINVAL)), "call {number}");
        }
        let good = ignored(call!(kho_rs_prop_u32, name, 1));
        assert_eq!(good, (Ok(()), Ok(())));
    }
}
