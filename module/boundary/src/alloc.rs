//! Rust's global allocator on the kernel's allocator.

use crate::ffi;
use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;

struct Kernel;

#[global_allocator]
static KERNEL: Kernel = Kernel;

// SAFETY: kho_c_alloc returns NULL, or memory of at least the requested size that has no other owner until kho_c_free.
// `padded` shows the alignment.
unsafe impl GlobalAlloc for Kernel {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match padded(layout) {
            // SAFETY: no requirement.
            Some(size) => unsafe { ffi::kho_c_alloc(size) }.cast(),
            None => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, _: Layout) {
        // SAFETY: by the caller's promise the pointer is from `alloc`, and this happens once.
        unsafe { ffi::kho_c_free(ptr.cast()) }
    }
}

/// Returns the size to request from the kernel, for which the memory has the alignment of `layout`; `None` for an
/// alignment above a page. kmalloc aligns to 8 (`ARCH_KMALLOC_MINALIGN` on x86_64). It aligns a size that is a power of
/// two to that size, up to a page (`Documentation/core-api/memory-allocation.rst`).
fn padded(layout: Layout) -> Option<usize> {
    match layout.align() {
        0..=8 => Some(layout.size()),
        9..=4096 => layout
            .size()
            .max(layout.align())
            .checked_next_power_of_two(),
        _ => None,
    }
}

/// Not reached: no code here panics, and the build turns panics that the compiler cannot exclude into `ud2`.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    ffi::kho_c_bug()
}
