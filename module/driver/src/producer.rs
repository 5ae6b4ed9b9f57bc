//! Writing down what is handed over.

use crate::ffi::{self, Mem, RawProducer};
use crate::{Errno, Node, Range};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::marker::PhantomData;
use core::ptr::null_mut;

/// `THIS_MODULE` of the driver, from its C part.
#[derive(Clone, Copy)]
pub struct ThisModule(*mut c_void);

impl ThisModule {
    /// The module behind the pointer.
    ///
    /// # Safety
    ///
    /// `THIS_MODULE` of the module that this code is linked into.
    pub const unsafe fn new(module: *mut c_void) -> Self {
        Self(module)
    }
}

/// A driver that puts a node into the state tree.
pub trait Producer: Sync + 'static {
    /// Name of the node: 1 to 63 letters, digits or `,._+-`; not `blobs` or `kernel`.
    const NAME: &'static CStr;

    /// Producers serialize in ascending order of priority.
    const PRIORITY: i32 = 0;

    /// Writes the properties and children of the node, which is open. `compatible` with a version is obligatory.
    /// From here until kexec or [`abort`](Self::abort) what was written down must not change.
    ///
    /// # Errors
    ///
    /// Any error ends the activation: the write to `active` fails with it. So does an error of a call on `ctx` that the
    /// producer ignores.
    fn serialize(&self, ctx: &mut Context<'_>) -> Result<(), Errno>;

    /// Undoes what [`serialize`](Self::serialize) did: the handover does not take place.
    fn abort(&self) {}
}

/// The open node of a producer, during [`Producer::serialize`].
///
/// # Invariants
///
/// `ctx` is the `struct kho_context` that kho.ko lent for the call that this lives in.
pub struct Context<'a> {
    ctx: *mut c_void,
    _call: PhantomData<&'a mut ()>,
}

impl Context<'_> {
    /// Writes a child node, whose content `fill` writes.
    ///
    /// # Errors
    ///
    /// If the name is not valid; the error of `fill`.
    pub fn node(
        &mut self,
        name: &CStr,
        fill: impl FnOnce(&mut Self) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        // SAFETY: valid by the # Invariants; a C string.
        check(unsafe { ffi::kho_begin_node(self.ctx, name.as_ptr()) })?;
        fill(self)?;
        // SAFETY: valid by the # Invariants.
        check(unsafe { ffi::kho_end_node(self.ctx) })
    }

    /// Writes a property that is bytes.
    ///
    /// # Errors
    ///
    /// If the name is not valid; no memory.
    pub fn bytes(&mut self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        let at = value.as_ptr().cast();
        // SAFETY: valid by the # Invariants; a C string and a slice.
        check(unsafe { ffi::kho_prop_bytes(self.ctx, name.as_ptr(), at, value.len()) })
    }

    /// Writes a property that is a string, with its NUL.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub fn string(&mut self, name: &CStr, value: &CStr) -> Result<(), Errno> {
        self.bytes(name, value.to_bytes_with_nul())
    }

    /// Writes a property that is a u32, native endian.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub fn u32(&mut self, name: &CStr, value: u32) -> Result<(), Errno> {
        self.bytes(name, &value.to_ne_bytes())
    }

    /// Writes a property that is a u64, native endian.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub fn u64(&mut self, name: &CStr, value: u64) -> Result<(), Errno> {
        self.bytes(name, &value.to_ne_bytes())
    }

    /// Writes the `mem` property of the open node: pages that stay in place, in this order; at most
    /// [`MEM_MAX`](Self::MEM_MAX) ranges.
    ///
    /// # Errors
    ///
    /// As `kho_prop_mem` in `include/kho.h`; [`Errno::EINVAL`] for too many ranges.
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
        // SAFETY: valid by the # Invariants; so many are in the list.
        check(unsafe { ffi::kho_prop_mem(self.ctx, list.as_ptr(), ranges.len()) })
    }

    /// Maximum number of ranges of one [`mem`](Self::mem), whose list takes 16 bytes for each of them on the kernel's
    /// stack.
    pub const MEM_MAX: usize = 64;
}

fn check(code: c_int) -> Result<(), Errno> {
    match Errno::check(code.into()) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Errno::EINVAL),
        Err(error) => Err(error),
    }
}

/// A producer, and the structure that tells kho.ko of it; a static of the driver.
///
/// # Invariants
///
/// `raw` is written by [`register`](Self::register) before kho.ko knows it, and not again until
/// [`unregister`](Self::unregister) made kho.ko forget it.
pub struct Slot<P> {
    producer: P,
    raw: UnsafeCell<RawProducer>,
}

// SAFETY: the producer is shared and says that it may be; `raw` changes only while nobody else has it.
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

    /// Makes kho.ko know the producer.
    ///
    /// # Safety
    ///
    /// Called by the module's initialization, and followed by [`unregister`](Self::unregister) before the module goes
    /// if it succeeded; not again before that.
    ///
    /// # Errors
    ///
    /// [`Errno::EBUSY`] in the active phase; `EEXIST` if the name is registered already; [`Errno::EINVAL`] if the name
    /// is not valid.
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
        // SAFETY: not registered, so nobody else reads it.
        unsafe { raw.write(value) };
        // SAFETY: a static, which stays as it is by the # Invariants.
        check(unsafe { ffi::kho_register_producer_owned(raw, owner.0) })
    }

    /// Makes the producer the holder of a node that arrived, with all nodes below it, although its pages stay reserved.
    /// From then on, the producer may hand those pages on unchanged, and only the producer can release them.
    ///
    /// # Errors
    ///
    /// As `kho_hold_node` in `include/kho.h`: [`Errno::EINVAL`] if the producer is not registered; [`Errno::EBUSY`] if
    /// some of the memory was claimed or released.
    pub fn hold(&'static self, node: Node) -> Result<(), Errno> {
        // SAFETY: a static; kho.ko knows by its address whether it was registered.
        check(unsafe { ffi::kho_hold_node(self.raw.get(), node.number()) })
    }

    /// Gives the unclaimed pages of a node that the producer [holds](Self::hold) back to the system, zeroed.
    ///
    /// # Errors
    ///
    /// As `kho_release_node` in `include/kho.h`: [`Errno::ENOENT`] if the producer does not hold that node;
    /// [`Errno::EBUSY`] in the active phase. Nothing changed then.
    pub fn release(&'static self, node: Node) -> Result<(), Errno> {
        // SAFETY: as in `hold`. The name is NULL until it is registered, and a string then.
        check(unsafe { ffi::kho_release_node(self.raw.get(), node.number()) })
    }

    /// Makes kho.ko forget the producer. In an active phase that the producer takes part in, kho.ko aborts first.
    ///
    /// # Safety
    ///
    /// The producer is registered.
    pub unsafe fn unregister(&'static self) {
        // SAFETY: the caller's.
        unsafe { ffi::kho_unregister_producer(self.raw.get()) }
    }
}

unsafe extern "C" fn serialize<P: Producer>(ctx: *mut c_void, data: *mut c_void) -> c_int {
    // SAFETY: `register` gave a reference to a static of this type.
    let producer = unsafe { &*data.cast::<P>() };
    // INVARIANT: lent for this call.
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

/// Calls a producer as kho.ko would.
#[cfg(test)]
pub fn run_for_test<P: Producer>(producer: &'static P, notes: &mut crate::fake::Notes) -> c_int {
    let notes: *mut crate::fake::Notes = notes;
    let data: *const P = producer;
    // SAFETY: what `register` and kho.ko would give.
    unsafe { serialize::<P>(notes.cast(), data.cast_mut().cast()) }
}
