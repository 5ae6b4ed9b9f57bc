//! The side of a driver that hands over.

use crate::ffi::{self, Mem, RawProducer};
use crate::{Area, Errno, Node, Range};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::marker::PhantomData;
use core::ptr::null_mut;

/// `THIS_MODULE` of the driver, from the driver's C part.
#[derive(Clone, Copy)]
pub struct ThisModule(*mut c_void);

impl ThisModule {
    /// Makes a value from the pointer.
    ///
    /// # Safety
    ///
    /// `module` is `THIS_MODULE` of the module into which this code is linked.
    pub const unsafe fn new(module: *mut c_void) -> Self {
        Self(module)
    }
}

/// A driver that puts a node into the state tree.
pub trait Producer: Sync + 'static {
    /// Name of the node: 1 to 63 letters, digits or `,._+-`; not `blobs` or `kernel`.
    const NAME: &'static CStr;

    /// Priority. Producers serialize in ascending order of priority.
    const PRIORITY: i32 = 0;

    /// Writes the properties and children of the node, which is open. The node must have a `compatible` with a version.
    /// From here until kexec or [`abort`](Self::abort) the driver must not change the serialized state.
    ///
    /// # Errors
    ///
    /// Any error ends the activation, and the write to `active` fails with that error. The same holds for an error of a
    /// call on `ctx` that the producer ignores.
    fn serialize(&self, ctx: &mut Context<'_>) -> Result<(), Errno>;

    /// Undoes [`serialize`](Self::serialize): the handover does not take place.
    fn abort(&self) {}
}

/// The open node of a producer, during [`Producer::serialize`].
///
/// # Invariants
///
/// `ctx` is the `struct kho_context` that kho.ko lent for the call of `serialize`, and this value lives no longer than
/// that call.
pub struct Context<'a> {
    ctx: *mut c_void,
    _call: PhantomData<&'a mut ()>,
}

impl Context<'_> {
    /// Writes a child node. `fill` writes the child's content.
    ///
    /// # Errors
    ///
    /// If the name is not valid; the error of `fill`.
    pub fn node(
        &mut self,
        name: &CStr,
        fill: impl FnOnce(&mut Self) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        // SAFETY: the context is valid by the # Invariants, and the name is a C string.
        check(unsafe { ffi::kho_begin_node(self.ctx, name.as_ptr()) })?;
        fill(self)?;
        // SAFETY: the context is valid by the # Invariants.
        check(unsafe { ffi::kho_end_node(self.ctx) })
    }

    /// Writes a property of bytes.
    ///
    /// # Errors
    ///
    /// If the name is not valid; no memory.
    pub fn bytes(&mut self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        let at = value.as_ptr().cast();
        // SAFETY: the context is valid by the # Invariants; a C string and a slice.
        check(unsafe { ffi::kho_prop_bytes(self.ctx, name.as_ptr(), at, value.len()) })
    }

    /// Writes a string property, with its NUL.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub fn string(&mut self, name: &CStr, value: &CStr) -> Result<(), Errno> {
        self.bytes(name, value.to_bytes_with_nul())
    }

    /// Writes a u32 property, native endian.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub fn u32(&mut self, name: &CStr, value: u32) -> Result<(), Errno> {
        self.bytes(name, &value.to_ne_bytes())
    }

    /// Writes a u64 property, native endian.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub fn u64(&mut self, name: &CStr, value: u64) -> Result<(), Errno> {
        self.bytes(name, &value.to_ne_bytes())
    }

    /// Writes the `mem` property of the open node: the pages of an area, in its order.
    ///
    /// # Errors
    ///
    /// Those of `kho_prop_mem` in `include/kho.h`.
    pub fn area(&mut self, area: &Area) -> Result<(), Errno> {
        // SAFETY: the context is valid by the # Invariants, and the area is mapped.
        check(unsafe { ffi::kho_prop_mem_vmalloc(self.ctx, area.as_ptr().cast(), area.len()) })
    }

    /// Writes the `mem` property of the open node: pages that stay in place, in this order; at most
    /// [`MEM_MAX`](Self::MEM_MAX) ranges.
    ///
    /// # Errors
    ///
    /// Those of `kho_prop_mem` in `include/kho.h`; [`Errno::EINVAL`] if there are more than [`MEM_MAX`](Self::MEM_MAX)
    /// ranges.
    pub fn mem(&mut self, ranges: &[Range]) -> Result<(), Errno> {
        let mut list = [Mem { addr: 0, len: 0 }; Self::MEM_MAX];
        if ranges.len() > list.len() {
            return Err(Errno::EINVAL);
        }
        for (to, from) in list.iter_mut().zip(ranges) {
            *to = Mem {
                addr: from.addr,
                len: from.len,
            };
        }
        // SAFETY: the context is valid by the # Invariants; the list has that many ranges.
        check(unsafe { ffi::kho_prop_mem(self.ctx, list.as_ptr(), ranges.len()) })
    }

    /// Maximum number of ranges of one [`mem`](Self::mem). Each takes 16 bytes on the kernel's stack.
    pub const MEM_MAX: usize = 64;
}

fn check(code: c_int) -> Result<(), Errno> {
    match Errno::check(code.into()) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Errno::EINVAL),
        Err(error) => Err(error),
    }
}

/// A producer, and the structure with which it is registered; a static of the driver.
///
/// # Invariants
///
/// [`register`](Self::register) writes `raw` before kho.ko reads it. No code writes `raw` again until
/// [`unregister`](Self::unregister) has returned.
pub struct Slot<P> {
    producer: P,
    raw: UnsafeCell<RawProducer>,
}

// SAFETY: the producer is shared, which its type `Sync` allows; `raw` changes only while no other code reads it.
unsafe impl<P: Sync> Sync for Slot<P> {}

impl<P: Producer> Slot<P> {
    /// Makes a slot that is not registered.
    pub const fn new(producer: P) -> Self {
        Self {
            producer,
            raw: UnsafeCell::new(RawProducer {
                name: null_mut(),
                priority: 0,
                serialize: None,
                abort: None,
                data: null_mut(),
                owner: null_mut(),
            }),
        }
    }

    /// The producer.
    pub const fn producer(&self) -> &P {
        &self.producer
    }

    /// Registers the producer with kho.ko.
    ///
    /// # Safety
    ///
    /// The module's initialization makes the call. If the call succeeds, the module must call
    /// [`unregister`](Self::unregister) before it is unloaded, and must not call this function again before that.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the name is registered already; [`Errno::EINVAL`] if the name is not valid.
    pub unsafe fn register(&'static self, owner: ThisModule) -> Result<(), Errno> {
        let data: *const P = &self.producer;
        let raw = self.raw.get();
        let value = RawProducer {
            name: P::NAME.as_ptr(),
            priority: P::PRIORITY,
            serialize: Some(serialize::<P>),
            abort: Some(abort::<P>),
            data: data.cast_mut().cast(),
            owner: null_mut(),
        };
        // SAFETY: the producer is not registered, so no other code reads the structure.
        unsafe { raw.write(value) };
        // SAFETY: a static, which stays unchanged by the # Invariants.
        check(unsafe { ffi::kho_register_producer_owned(raw, owner.0) })
    }

    /// Makes the producer the holder of a node that arrived, with all nodes below it. The node's pages stay reserved.
    /// From then on the producer may hand those pages on unchanged, and only the producer can release them.
    ///
    /// # Errors
    ///
    /// Those of `kho_hold_node` in `include/kho.h`: [`Errno::EINVAL`] if the producer is not registered;
    /// [`Errno::EBUSY`] if some of the memory was claimed or released.
    pub fn hold(&'static self, node: Node) -> Result<(), Errno> {
        // SAFETY: a static; kho.ko finds out by its address whether it is registered.
        check(unsafe { ffi::kho_hold_node(self.raw.get(), node.number()) })
    }

    /// Releases the unclaimed pages of a node that the producer [holds](Self::hold), zeroed.
    ///
    /// # Errors
    ///
    /// Those of `kho_release_node` in `include/kho.h`: [`Errno::ENOENT`] if the producer does not hold that node;
    /// [`Errno::EBUSY`] in the active phase. In each case nothing has changed.
    pub fn release(&'static self, node: Node) -> Result<(), Errno> {
        // SAFETY: as in `hold`. The name is NULL before the registration, and a string after it.
        check(unsafe { ffi::kho_release_node(self.raw.get(), node.number()) })
    }

    /// Unregisters the producer. If the producer takes part in an active phase, kho.ko aborts that phase first.
    ///
    /// # Safety
    ///
    /// The producer must be registered.
    pub unsafe fn unregister(&'static self) {
        // SAFETY: by the caller's promise.
        unsafe { ffi::kho_unregister_producer(self.raw.get()) }
    }
}

unsafe extern "C" fn serialize<P: Producer>(ctx: *mut c_void, data: *mut c_void) -> c_int {
    // SAFETY: `register` gave a reference to a static of this type.
    let producer = unsafe { &*data.cast::<P>() };
    // INVARIANT: kho.ko lends the context for this call.
    let mut context = Context {
        ctx,
        _call: PhantomData,
    };
    match producer.serialize(&mut context) {
        Ok(()) => 0,
        Err(error) => error.code(),
    }
}

unsafe extern "C" fn abort<P: Producer>(data: *mut c_void) {
    // SAFETY: `register` gave a reference to a static of this type.
    unsafe { &*data.cast::<P>() }.abort();
}

/// Calls a producer as kho.ko does.
#[cfg(test)]
pub fn run_for_test<P: Producer>(producer: &'static P, notes: &mut crate::fake::Notes) -> c_int {
    let notes: *mut crate::fake::Notes = notes;
    let data: *const P = producer;
    // SAFETY: the arguments are those of `register` and of kho.ko.
    unsafe { serialize::<P>(notes.cast(), data.cast_mut().cast()) }
}
