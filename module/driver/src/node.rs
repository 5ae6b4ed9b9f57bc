//! Nodes that arrived.

use crate::ffi::{self, Mem};
use crate::{Area, Errno, Memory, Range};
use core::ffi::CStr;

/// A node that arrived. It is valid while kho.ko is loaded, so in every module that uses kho.ko.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(i64);

impl Node {
    /// The node at `path` (such as `/ring`).
    pub fn find(path: &CStr) -> Option<Self> {
        // SAFETY: a C string.
        Self::known(unsafe { ffi::kho_find(path.as_ptr()) })
    }

    /// The first node with this `compatible`; the first one behind `after` if `after` is given.
    pub fn find_compatible(compatible: &CStr, after: Option<Self>) -> Option<Self> {
        let after = after.map_or(-1, |node| node.0);
        // SAFETY: a C string.
        Self::known(unsafe { ffi::kho_find_compatible(compatible.as_ptr(), after) })
    }

    /// The child of this name.
    pub fn child(self, name: &CStr) -> Option<Self> {
        // SAFETY: a C string.
        Self::known(unsafe { ffi::kho_find_child(self.0, name.as_ptr()) })
    }

    /// The children, in the order in which they were written.
    pub fn children(self) -> impl Iterator<Item = Self> {
        let mut last = -1;
        core::iter::from_fn(move || {
            let next = Self::known(ffi::kho_next_child(self.0, last))?;
            last = next.0;
            Some(next)
        })
    }

    /// Number of children.
    pub fn child_count(self) -> usize {
        usize::try_from(ffi::kho_count_children(self.0)).unwrap_or(0)
    }

    /// The name of the node, which the call copies to `buf`. [`NAME_SIZE`](crate::NAME_SIZE) bytes hold every name. The
    /// root's name is empty.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if `buf` is too small.
    pub fn name(self, buf: &mut [u8]) -> Result<&CStr, Errno> {
        let at = buf.as_mut_ptr().cast();
        // SAFETY: a writable slice.
        let len = unsafe { ffi::kho_get_name(self.0, at, buf.len()) };
        text(buf, len)
    }

    /// Number of properties, `mem` included.
    pub fn prop_count(self) -> usize {
        usize::try_from(ffi::kho_count_props(self.0)).unwrap_or(0)
    }

    /// The name of property number `index`, which the call copies to `buf`.
    ///
    /// # Errors
    ///
    /// [`Errno::ENOENT`] past the last property; `ENOSPC` if `buf` is too small.
    pub fn prop_name(self, index: usize, buf: &mut [u8]) -> Result<&CStr, Errno> {
        let at = buf.as_mut_ptr().cast();
        // SAFETY: a writable slice.
        let len = unsafe { ffi::kho_get_prop_name(self.0, index, at, buf.len()) };
        text(buf, len)
    }

    /// Bytes of the value of a property.
    ///
    /// # Errors
    ///
    /// [`Errno::ENOENT`] if there is no such property.
    pub fn size(self, name: &CStr) -> Result<usize, Errno> {
        // SAFETY: a C string.
        length(unsafe { ffi::kho_get_size(self.0, name.as_ptr()) })
    }

    fn known(number: i64) -> Option<Self> {
        (number >= 0).then_some(Self(number))
    }

    /// The value of a property. The call copies it to the beginning of `buf`.
    ///
    /// # Errors
    ///
    /// [`Errno::ENOENT`] if there is no such property; `ENOSPC` if `buf` is too small.
    pub fn bytes<'b>(self, name: &CStr, buf: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let at = buf.as_mut_ptr().cast();
        // SAFETY: a C string, and a writable slice.
        let len = unsafe { ffi::kho_get_bytes(self.0, name.as_ptr(), at, buf.len()) };
        buf.get(..length(len)?).ok_or(Errno::EINVAL)
    }

    /// The value of a u32 property.
    ///
    /// # Errors
    ///
    /// [`Errno::ENOENT`] if there is no such property; [`Errno::EBADMSG`] if the value has another size.
    pub fn u32(self, name: &CStr) -> Result<u32, Errno> {
        self.array(name).map(u32::from_ne_bytes)
    }

    /// The value of a u64 property.
    ///
    /// # Errors
    ///
    /// As [`u32`](Self::u32).
    pub fn u64(self, name: &CStr) -> Result<u64, Errno> {
        self.array(name).map(u64::from_ne_bytes)
    }

    fn array<const N: usize>(self, name: &CStr) -> Result<[u8; N], Errno> {
        let mut buf = [0; N];
        let found = self.bytes(name, &mut buf)?;
        found.try_into().map_err(|_| Errno::EBADMSG)
    }

    /// The number that kho.ko gives the node.
    pub(crate) const fn number(self) -> i64 {
        self.0
    }

    /// The ranges of the node's `mem`, in their order.
    pub fn mem(self) -> impl Iterator<Item = Range> {
        (0usize..).map_while(move |index| {
            let mut mem = Mem { addr: 0, len: 0 };
            // SAFETY: `mem` is writable.
            let code = unsafe { ffi::kho_get_mem(self.0, index, &mut mem) };
            (code == 0).then_some(Range {
                addr: mem.addr,
                len: mem.len,
            })
        })
    }

    /// Claims the memory of a node that has one range. The caller owns the memory from then on.
    ///
    /// # Errors
    ///
    /// [`Errno::EINVAL`] unless the node has exactly one range; [`Errno::EBUSY`] if the range was claimed or released
    /// before; [`Errno::EAGAIN`] if the active phase hands it over again.
    pub fn claim(self) -> Result<Memory, Errno> {
        let mut ranges = self.mem();
        let (Some(range), None) = (ranges.next(), ranges.next()) else {
            return Err(Errno::EINVAL);
        };
        Errno::check(ffi::kho_claim_node(self.0).into())?;
        // INVARIANT: the range was claimed just now, which succeeds only once.
        Ok(Memory::claimed(range))
    }

    /// Claims the memory of a node, and maps its pages one behind the other: the area that
    /// [`Context::area`](crate::Context::area) kept.
    ///
    /// # Errors
    ///
    /// Those of [`claim`](Self::claim), but the node may have any number of ranges; [`Errno::ENOENT`] if it has none;
    /// [`Errno::ENOMEM`]. In each case nothing is claimed.
    pub fn claim_vmalloc(self) -> Result<Area, Errno> {
        let mut size = 0;
        // SAFETY: `size` is writable.
        let at = unsafe { ffi::kho_claim_vmalloc(self.0, &raw mut size) };
        Area::restored(at, size)
    }

    /// Records that the driver took over a node without `mem`. Without this call, kho.ko hands the node over again.
    ///
    /// # Errors
    ///
    /// [`Errno::EINVAL`] for a node with `mem`; [`Errno::EBUSY`] if the node was taken over before.
    pub fn take(self) -> Result<(), Errno> {
        if self.mem().next().is_some() {
            return Err(Errno::EINVAL);
        }
        Errno::check(ffi::kho_claim_node(self.0).into()).map(|_| ())
    }
}

/// Converts a size that kho.ko returned.
fn length(size: isize) -> Result<usize, Errno> {
    let len = Errno::check(i64::try_from(size).unwrap_or(-22))?;
    usize::try_from(len).map_err(|_| Errno::EINVAL)
}

/// The name at the beginning of `buf`, for which kho.ko returned `size`.
fn text(buf: &[u8], size: isize) -> Result<&CStr, Errno> {
    let bytes = buf.get(..length(size)?).ok_or(Errno::EINVAL)?;
    CStr::from_bytes_with_nul(bytes).map_err(|_| Errno::EINVAL)
}
