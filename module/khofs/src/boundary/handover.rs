//! kho.ko: writers of nodes, and readers of the nodes that arrived.

use super::ffi;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{CStr, c_int, c_void};
use core::marker::PhantomData;
use core::ptr::NonNull;
use kho::{PhysAddr, PhysRange};
use kho_decide::errno::{EINVAL, ENOSPC, Errno};
use khofs_decide::handover::{Input, Output};

/// A string of at most 63 bytes with its NUL.
struct Text([u8; 64]);

impl Text {
    fn new(text: &str) -> Result<Self, Errno> {
        let mut buf = [0u8; 64];
        let room = buf.get_mut(..text.len()).filter(|room| room.len() < 64);
        room.ok_or(EINVAL)?.copy_from_slice(text.as_bytes());
        Ok(Self(buf))
    }

    fn as_ptr(&self) -> *const core::ffi::c_char {
        self.0.as_ptr().cast()
    }
}

fn check(result: c_int) -> Result<(), Errno> {
    Errno::check(i64::from(result)).map(|_| ())
}

/// The open node.
///
/// # Invariants
///
/// The pointer is the context of a `serialize` that does not return during `'a`.
pub struct Context<'a>(NonNull<c_void>, PhantomData<&'a mut ()>);

impl Context<'_> {
    /// Makes a context from the pointer of kho.ko.
    ///
    /// # Safety
    ///
    /// The # Invariants must hold.
    #[cfg_attr(test, allow(dead_code))]
    pub unsafe fn new(ctx: *mut c_void) -> Result<Self, Errno> {
        NonNull::new(ctx)
            .map(|p| Self(p, PhantomData))
            .ok_or(EINVAL)
    }
}

impl Output for Context<'_> {
    fn begin(&mut self, name: &str) -> Result<(), Errno> {
        let name = Text::new(name)?;
        // SAFETY: the context is valid by the # Invariants, and the string ends with a NUL. The same holds for the
        // methods below.
        check(unsafe { ffi::kho_begin_node(self.0.as_ptr(), name.as_ptr()) })
    }

    fn end(&mut self) -> Result<(), Errno> {
        // SAFETY: as in `begin`.
        check(unsafe { ffi::kho_end_node(self.0.as_ptr()) })
    }

    fn u32(&mut self, name: &str, value: u32) -> Result<(), Errno> {
        let name = Text::new(name)?;
        // SAFETY: as in `begin`.
        check(unsafe { ffi::kho_prop_u32(self.0.as_ptr(), name.as_ptr(), value) })
    }

    fn u64(&mut self, name: &str, value: u64) -> Result<(), Errno> {
        let name = Text::new(name)?;
        // SAFETY: as in `begin`.
        check(unsafe { ffi::kho_prop_u64(self.0.as_ptr(), name.as_ptr(), value) })
    }

    fn text(&mut self, name: &str, value: &str) -> Result<(), Errno> {
        let (name, value) = (Text::new(name)?, Text::new(value)?);
        // SAFETY: as in `begin`.
        check(unsafe { ffi::kho_prop_str(self.0.as_ptr(), name.as_ptr(), value.as_ptr()) })
    }

    fn mem(&mut self, ranges: impl Iterator<Item = PhysRange>) -> Result<(), Errno> {
        let mut list: Vec<[u64; 2]> = Vec::new();
        for range in ranges {
            list.try_reserve(1)?;
            list.push([range.start().get(), range.len()]);
        }
        if list.is_empty() {
            return Ok(());
        }
        // SAFETY: as in `begin`, and `list` is an array of that many pairs, each with the layout of `struct kho_mem`.
        check(unsafe { ffi::kho_prop_mem(self.0.as_ptr(), list.as_ptr(), list.len()) })
    }
}

/// A node that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(i64);

#[cfg(test)]
impl Node {
    /// A node for tests, whose memory cannot be released.
    pub fn that_stays() -> Self {
        Self(1)
    }
}

impl Node {
    /// The nodes with this `compatible`.
    pub fn all(compatible: &'static str) -> impl Iterator<Item = Self> {
        let mut after = -1i64;
        let compatible = Text::new(compatible);
        core::iter::from_fn(move || {
            let compatible = compatible.as_ref().ok()?;
            // SAFETY: a string with its NUL.
            after = unsafe { ffi::kho_find_compatible(compatible.as_ptr(), after) };
            (after >= 0).then_some(Self(after))
        })
    }

    /// Makes khofs the holder of the node, with all nodes below it: only khofs can release its memory, and khofs may
    /// hand the memory on unchanged.
    ///
    /// # Errors
    ///
    /// Those in `include/kho.h`: `EBUSY` if some of the node's memory was claimed or released.
    pub fn hold(self) -> Result<(), Errno> {
        check(ffi::khofs_c_hold_node(self.0))
    }

    /// Releases the memory of the node that khofs has not claimed.
    ///
    /// # Errors
    ///
    /// Those in `include/kho.h`. In each case nothing has changed.
    pub fn release(self) -> Result<(), Errno> {
        check(ffi::khofs_c_release_node(self.0))
    }
}

impl Input for Node {
    fn child(self, name: &str) -> Result<Self, Errno> {
        let name = Text::new(name)?;
        // SAFETY: a string with its NUL.
        let node = unsafe { ffi::kho_find_child(self.0, name.as_ptr()) };
        Errno::check(node).map(|_| Self(node))
    }

    fn u32(self, name: &str) -> Result<u32, Errno> {
        let (name, mut value) = (Text::new(name)?, 0);
        // SAFETY: a string with its NUL and a variable.
        check(unsafe { ffi::kho_get_u32(self.0, name.as_ptr(), &raw mut value) })?;
        Ok(value)
    }

    fn u64(self, name: &str) -> Result<u64, Errno> {
        let (name, mut value) = (Text::new(name)?, 0);
        // SAFETY: a string with its NUL and a variable.
        check(unsafe { ffi::kho_get_u64(self.0, name.as_ptr(), &raw mut value) })?;
        Ok(value)
    }

    fn text(self, name: &str) -> Result<String, Errno> {
        let (name, mut buf) = (Text::new(name)?, [0u8; 64]);
        // SAFETY: a string with its NUL and a buffer.
        let len =
            unsafe { ffi::kho_get_str(self.0, name.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) };
        Errno::check(len as i64)?;
        let text = CStr::from_bytes_until_nul(&buf).map_err(|_| EINVAL)?;
        let text = text.to_str().map_err(|_| EINVAL)?;
        let mut copy = String::new();
        copy.try_reserve_exact(text.len())?;
        copy.push_str(text);
        Ok(copy)
    }

    fn mem(self) -> Result<Vec<PhysRange>, Errno> {
        let mut buf: Vec<u8> = Vec::new();
        let mut size = 4096usize;
        let len = loop {
            buf.try_reserve_exact(size.saturating_sub(buf.len()))?;
            buf.resize(size, 0);
            // SAFETY: a string with its NUL and a buffer of that size.
            let len = unsafe {
                ffi::kho_get_bytes(self.0, c"mem".as_ptr(), buf.as_mut_ptr().cast(), size)
            };
            match Errno::check(len as i64) {
                Ok(len) => break usize::try_from(len).map_err(|_| EINVAL)?,
                Err(ENOSPC) if size < 1 << 27 => size = size.saturating_mul(4),
                Err(Errno(2)) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        };
        let mut list = Vec::new();
        let (pairs, _) = buf.get(..len).ok_or(EINVAL)?.as_chunks::<16>();
        list.try_reserve_exact(pairs.len())?;
        for pair in pairs {
            let (words, _) = pair.as_chunks::<8>();
            let [addr, len] = words else {
                return Err(EINVAL);
            };
            let addr = PhysAddr::new(u64::from_ne_bytes(*addr));
            list.push(PhysRange::new(addr, u64::from_ne_bytes(*len)).map_err(|_| EINVAL)?);
        }
        Ok(list)
    }
}

/// Claims pages that arrived, each with one reference from then on. Pages whose memory failed are claimed too: code
/// that reads, writes or maps a page of the page cache checks for that.
///
/// # Errors
///
/// Those in `include/kho.h`.
pub fn claim(range: PhysRange) -> Result<(), Errno> {
    check(ffi::kho_claim_with_failed(range.start().get(), range.len()))
}
