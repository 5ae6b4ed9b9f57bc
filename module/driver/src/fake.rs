//! kho.ko for host tests: node 1, with a number and one claimable page, and below it the nodes 2 and 3.

use crate::ffi::{Mem, RawProducer};
use core::ffi::{CStr, c_char, c_int, c_void};
use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

/// Record of the calls on a context.
#[derive(Default)]
pub struct Notes(pub Vec<String>);

fn note(ctx: *mut c_void, text: String) -> c_int {
    // SAFETY: the context of a test is a `Notes`.
    unsafe { &mut *ctx.cast::<Notes>() }.0.push(text);
    0
}

fn text(p: *const c_char) -> &'static str {
    // SAFETY: tests pass constant strings.
    unsafe { CStr::from_ptr(p) }.to_str().unwrap()
}

pub unsafe fn kho_register_producer_owned(_: *mut RawProducer, _: *mut c_void) -> c_int {
    0
}
pub unsafe fn kho_unregister_producer(_: *mut RawProducer) {}
pub unsafe fn kho_begin_node(ctx: *mut c_void, name: *const c_char) -> c_int {
    note(ctx, std::format!("begin {}", text(name)))
}
pub unsafe fn kho_end_node(ctx: *mut c_void) -> c_int {
    note(ctx, "end".into())
}
pub unsafe fn kho_prop_bytes(
    ctx: *mut c_void,
    name: *const c_char,
    _: *const c_void,
    len: usize,
) -> c_int {
    if text(name) == "refused" {
        return -17;
    }
    note(ctx, std::format!("{} of {len}", text(name)))
}
pub unsafe fn kho_prop_mem(ctx: *mut c_void, _: *const Mem, count: usize) -> c_int {
    note(ctx, std::format!("mem of {count}"))
}
pub fn kho_may_keep(addr: u64, _: u64) -> c_int {
    if addr == 0 { -6 } else { 0 }
}
pub unsafe fn kho_find(path: *const c_char) -> i64 {
    if text(path) == "/note" { 1 } else { -2 }
}
pub unsafe fn kho_find_compatible(_: *const c_char, after: i64) -> i64 {
    if after < 1 { 1 } else { -2 }
}
pub unsafe fn kho_find_child(_: i64, _: *const c_char) -> i64 {
    -2
}
pub fn kho_next_child(node: i64, after: i64) -> i64 {
    match (node, after) {
        (1, -1) => 2,
        (1, 2) => 3,
        _ => -2,
    }
}
pub fn kho_count_children(node: i64) -> isize {
    if node == 1 { 2 } else { 0 }
}
pub fn kho_count_props(_: i64) -> isize {
    1
}
pub unsafe fn kho_get_name(_: i64, buf: *mut c_char, size: usize) -> isize {
    if size < 5 {
        return -28;
    }
    // SAFETY: `buf` has room for five bytes.
    unsafe { buf.cast::<[u8; 5]>().write(*b"note\0") };
    5
}
pub unsafe fn kho_get_prop_name(_: i64, index: usize, buf: *mut c_char, size: usize) -> isize {
    if index > 0 {
        return -2;
    }
    if size < 4 {
        return -28;
    }
    // SAFETY: `buf` has room for four bytes.
    unsafe { buf.cast::<[u8; 4]>().write(*b"len\0") };
    4
}
pub unsafe fn kho_get_size(_: i64, name: *const c_char) -> isize {
    if text(name) == "len" { 4 } else { -2 }
}
pub unsafe fn kho_get_bytes(_: i64, name: *const c_char, buf: *mut c_void, size: usize) -> isize {
    if text(name) != "len" {
        return -2;
    }
    if size < 4 {
        return -28;
    }
    // SAFETY: `buf` has room for four bytes.
    unsafe { buf.cast::<[u8; 4]>().write(7u32.to_ne_bytes()) };
    4
}
pub unsafe fn kho_get_mem(_: i64, index: usize, range: *mut Mem) -> c_int {
    if index > 0 {
        return -2;
    }
    // SAFETY: the pointer is writable.
    unsafe {
        range.write(Mem {
            addr: 0x1000,
            len: 4096,
        });
    }
    0
}
pub fn kho_claim_node(_: i64) -> c_int {
    0
}
pub unsafe fn kho_claim_vmalloc(node: i64, size: *mut usize) -> *mut c_void {
    if node != 1 {
        return core::ptr::without_provenance_mut(16usize.wrapping_neg());
    }
    // SAFETY: the pointer is writable.
    unsafe { size.write(4096) };
    Box::into_raw(Box::new([5u8; 4096])).cast()
}
pub unsafe fn vfree(area: *const c_void) {
    // SAFETY: kho_claim_vmalloc made the box.
    drop(unsafe { Box::from_raw(area.cast_mut().cast::<[u8; 4096]>()) });
}
pub unsafe fn kho_prop_mem_vmalloc(ctx: *mut c_void, _: *const c_void, size: usize) -> c_int {
    note(ctx, std::format!("area of {size}"))
}
pub unsafe fn kho_hold_node(_: *mut RawProducer, node: i64) -> c_int {
    if node == 1 { 0 } else { -16 }
}
pub unsafe fn kho_release_node(_: *mut RawProducer, node: i64) -> c_int {
    if node == 1 { 0 } else { -2 }
}
pub fn kho_alloc_range(count: usize) -> u64 {
    if count == 1 { 0x2000 } else { 0 }
}
pub unsafe fn kho_free_range(_: u64, _: usize) {}
pub unsafe fn kho_put_range(_: u64, _: usize) {}
pub unsafe fn kho_range_address(_: u64) -> *mut c_void {
    // The page is leaked, which a test can afford.
    Box::into_raw(Box::new([0u8; 4096])).cast()
}

mod tests {
    use super::Notes;
    use crate::producer::run_for_test;
    use crate::{Context, Errno, Memory, Node, Producer, Range, Slot};
    use core::ffi::CStr;

    struct Good;

    impl Producer for Good {
        const NAME: &'static CStr = c"good";

        fn serialize(&self, ctx: &mut Context<'_>) -> Result<(), Errno> {
            ctx.string(c"compatible", c"good-v1")?;
            ctx.u64(c"count", 1)?;
            ctx.mem(&[Range {
                addr: 0x1000,
                len: 4096,
            }])?;
            ctx.node(c"child", |ctx| ctx.u32(c"x", 1))?;
            let area = Node::find(c"/note").ok_or(Errno::ENOENT)?.claim_vmalloc()?;
            ctx.node(c"area", |ctx| ctx.area(&area))
        }
    }

    struct Bad;

    impl Producer for Bad {
        const NAME: &'static CStr = c"bad";

        fn serialize(&self, ctx: &mut Context<'_>) -> Result<(), Errno> {
            ctx.u32(c"refused", 1)
        }
    }

    #[test]
    fn what_a_producer_writes_and_what_it_fails_with() {
        let mut notes = Notes::default();
        assert_eq!(run_for_test(&Good, &mut notes), 0);
        assert_eq!(
            notes.0,
            [
                "compatible of 8",
                "count of 8",
                "mem of 1",
                "begin child",
                "x of 4",
                "end",
                "begin area",
                "area of 4096",
                "end"
            ]
        );
        assert_eq!(run_for_test(&Bad, &mut notes), -17);
    }

    #[test]
    fn what_arrived_is_read_and_claimed() {
        let node = Node::find(c"/note").unwrap();
        assert_eq!(Node::find(c"/other"), None);
        assert_eq!(Node::find_compatible(c"x", Some(node)), None);
        assert_eq!(node.u32(c"len"), Ok(7));
        assert_eq!(node.u64(c"len"), Err(Errno::EBADMSG));
        assert_eq!(node.u64(c"none"), Err(Errno::ENOENT));
        assert!(node.children().all(|child| child != node));
        assert_eq!((node.children().count(), node.child_count()), (2, 2));
        let mut buf = [0; crate::NAME_SIZE];
        assert_eq!(node.name(&mut buf), Ok(c"note"));
        assert_eq!(node.name(&mut buf[..4]).map_err(Errno::code), Err(-28));
        assert_eq!(node.prop_count(), 1);
        assert_eq!(node.prop_name(0, &mut buf), Ok(c"len"));
        assert_eq!(node.prop_name(1, &mut buf), Err(Errno::ENOENT));
        assert_eq!(node.size(c"len"), Ok(4));
        assert_eq!(node.size(c"none"), Err(Errno::ENOENT));
        assert_eq!(node.mem().count(), 1);
        assert_eq!(node.claim().unwrap().len(), 4096);
        static SLOT: Slot<Good> = Slot::new(Good);
        assert_eq!(SLOT.hold(node), Ok(()));
        assert_eq!(SLOT.release(node), Ok(()));
        assert_eq!(node.take(), Err(Errno::EINVAL));
        let child = node.children().next().unwrap();
        assert_eq!(child.claim_vmalloc().err(), Some(Errno::EBUSY));
        let mut area = node.claim_vmalloc().unwrap();
        *area.last_mut().unwrap() = 6;
        assert_eq!(
            (area.len(), area.first(), area.last()),
            (4096, Some(&5), Some(&6))
        );
        assert!(Memory::new(1).is_ok());
        assert_eq!(Memory::new(2).unwrap_err(), Errno::ENOMEM);
        assert!(Range { addr: 0, len: 4096 }.may_keep().is_err());
    }
}
