//! System calls on arm64: numbers from `include/uapi/asm-generic/unistd.h`, the calling convention from
//! `arch/arm64/kernel/entry.S` (`x8`, `x0` to `x5`).

use core::arch::{asm, global_asm};
use core::ffi::CStr;

pub const MKDIRAT: usize = 34;
pub const UNLINKAT: usize = 35;
pub const UMOUNT2: usize = 39;
pub const MOUNT: usize = 40;
pub const FACCESSAT: usize = 48;
pub const CHDIR: usize = 49;
pub const CHROOT: usize = 51;
pub const FCHMODAT: usize = 53;
pub const OPENAT: usize = 56;
pub const CLOSE: usize = 57;
pub const WRITE: usize = 64;
pub const PREAD64: usize = 67;
pub const EXIT_GROUP: usize = 94;
pub const NANOSLEEP: usize = 101;
pub const EXECVE: usize = 221;

/// Only root can read `/sys/firmware/fdt` and `/proc/kcore`.
pub const SHOWS: Option<&CStr> = None;

// The kernel enters a program with the arguments on the stack, and no caller.
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl arrive",
    "brk #1",
);

/// # Safety
///
/// The arguments must be those of the system call with this number.
pub unsafe fn raw(number: usize, args: [usize; 5]) -> isize {
    let result: isize;
    let [a, b, c, d, e] = args;
    // SAFETY: the convention is `svc #0` with these registers, which destroys x0 only and does not touch the stack; the
    // caller answers for the arguments.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack),
        );
    }
    result
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: by the caller's promise both are valid for `len` bytes.
    unsafe {
        asm!(
            "cbz {len}, 3f",
            "2:",
            "ldrb {byte:w}, [{from}], #1",
            "strb {byte:w}, [{at}], #1",
            "subs {len}, {len}, #1",
            "b.ne 2b",
            "3:",
            len = inout(reg) len => _, from = inout(reg) from => _, at = inout(reg) to => _, byte = out(reg) _,
            options(nostack),
        );
    }
    to
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: as above.
    unsafe {
        asm!(
            "cbz {len}, 3f",
            "2:",
            "strb {byte:w}, [{at}], #1",
            "subs {len}, {len}, #1",
            "b.ne 2b",
            "3:",
            len = inout(reg) len => _, at = inout(reg) to => _, byte = in(reg) byte,
            options(nostack),
        );
    }
    to
}
