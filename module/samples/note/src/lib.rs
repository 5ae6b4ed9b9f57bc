//! A sample driver in Rust whose state survives kexec. It is short, to serve as an example.
//!
//! The state is a page with a text, and the text's length. The page stays in place; the driver writes the length into
//! the state tree. In the next kernel the driver finds its node, claims the page, and continues.
#![no_std]

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use kho_driver::{Context, Errno, Memory, Node, Producer, Slot, ThisModule};

/// Value of `compatible`, with the version. The driver leaves a node of another version alone.
const COMPATIBLE: &CStr = c"kho-note-v1";

unsafe extern "C" {
    safe fn kho_note_c_lock();
    safe fn kho_note_c_unlock();
    safe fn kho_note_c_bug() -> !;
}

/// The text of the note, as the first bytes of a page.
struct Note {
    page: Memory,
    len: usize,
    frozen: bool,
}

/// The note, protected by the C part's mutex; `None` until the module is ready.
struct Locked(UnsafeCell<Option<Note>>);

// SAFETY: `with` gives the note to one thread at a time.
unsafe impl Sync for Locked {}

impl Locked {
    fn with<T>(&self, use_it: impl FnOnce(&mut Option<Note>) -> T) -> T {
        kho_note_c_lock();
        // SAFETY: the mutex is held until after the last use, and `use_it` does not take it again.
        let result = use_it(unsafe { &mut *self.0.get() });
        kho_note_c_unlock();
        result
    }
}

impl Producer for Locked {
    const NAME: &'static CStr = c"note";

    fn serialize(&self, ctx: &mut Context<'_>) -> Result<(), Errno> {
        self.with(|note| {
            let note = note.as_mut().ok_or(Errno::EAGAIN)?;
            ctx.string(c"compatible", COMPATIBLE)?;
            ctx.u64(c"len", u64::try_from(note.len).map_err(|_| Errno::EINVAL)?)?;
            ctx.mem(&[note.page.range()])?;
            note.frozen = true;
            Ok(())
        })
    }

    fn abort(&self) {
        self.with(|note| {
            if let Some(note) = note {
                note.frozen = false;
            }
        });
    }
}

static NOTE: Slot<Locked> = Slot::new(Locked(UnsafeCell::new(None)));

/// Takes over the note that arrived. Checks every value before it uses the value, and claims last.
fn inherit() -> Result<Note, Errno> {
    let node = Node::find_compatible(COMPATIBLE, None).ok_or(Errno::ENOENT)?;
    let len = usize::try_from(node.u64(c"len")?).map_err(|_| Errno::EINVAL)?;
    let bytes: u64 = node
        .mem()
        .map(|range| range.len)
        .fold(0, u64::saturating_add);
    if bytes != kho_driver::PAGE_SIZE as u64 || len > kho_driver::PAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    Ok(Note {
        page: node.claim()?,
        len,
        frozen: false,
    })
}

fn start(owner: ThisModule) -> Result<(), Errno> {
    // SAFETY: this is the module's initialization, and its exit unregisters.
    unsafe { NOTE.register(owner) }?;
    let note = match inherit() {
        // A later load of this module may still claim the old note, so do not replace it.
        Err(error @ (Errno::ENOMEM | Errno::EAGAIN)) => Err(error),
        Err(_) => Memory::new(1).map(|page| Note {
            page,
            len: 0,
            frozen: false,
        }),
        inherited => inherited,
    };
    match note {
        Ok(note) => NOTE.producer().with(|place| *place = Some(note)),
        Err(error) => {
            // SAFETY: registered above.
            unsafe { NOTE.unregister() };
            return Err(error);
        }
    }
    Ok(())
}

/// The module's initialization.
///
/// # Safety
///
/// C calls this function once, with `THIS_MODULE`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kho_note_rs_init(owner: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    match start(unsafe { ThisModule::new(owner) }) {
        Ok(()) => 0,
        Err(error) => error.code(),
    }
}

/// The module's exit.
///
/// # Safety
///
/// C calls this function once, after a successful initialization.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kho_note_rs_exit() {
    // SAFETY: the initialization registered it.
    unsafe { NOTE.unregister() };
    NOTE.producer().with(|note| *note = None);
}

/// Reads the text.
///
/// # Safety
///
/// `buf` is a writable page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kho_note_rs_show(buf: *mut u8) -> isize {
    // SAFETY: the caller's promise.
    let buf = unsafe { core::slice::from_raw_parts_mut(buf, kho_driver::PAGE_SIZE) };
    NOTE.producer().with(|note| {
        let text = note
            .as_ref()
            .and_then(|note| note.page.get(..note.len))
            .unwrap_or(&[]);
        for (to, from) in buf.iter_mut().zip(text) {
            *to = *from;
        }
        isize::try_from(text.len()).unwrap_or(0)
    })
}

/// Replaces the text. Fails in the active phase, in which the text is part of the handover and must not change.
///
/// # Safety
///
/// `buf` has `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kho_note_rs_store(buf: *const u8, len: usize) -> isize {
    // SAFETY: the caller's promise.
    let text = unsafe { core::slice::from_raw_parts(buf, len) };
    let result = NOTE.producer().with(|note| {
        let note = note
            .as_mut()
            .filter(|note| !note.frozen)
            .ok_or(Errno::EBUSY)?;
        let page = note.page.get_mut(..len).ok_or(Errno::EINVAL)?;
        for (to, from) in page.iter_mut().zip(text) {
            *to = *from;
        }
        note.len = len;
        Ok(len)
    });
    match result {
        Ok(len) => isize::try_from(len).unwrap_or(0),
        Err::<_, Errno>(error) => isize::try_from(error.code()).unwrap_or(-1),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    kho_note_c_bug()
}
