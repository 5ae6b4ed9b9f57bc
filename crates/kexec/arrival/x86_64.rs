//! System calls on x86_64: numbers from `arch/x86/entry/syscalls/syscall_64.tbl`, the calling convention from the System
//! V ABI for AMD64, appendix A.2.1.

use core::arch::{asm, global_asm};
use core::ffi::CStr;

pub const WRITE: usize = 1;
pub const CLOSE: usize = 3;
pub const PREAD64: usize = 17;
pub const NANOSLEEP: usize = 35;
pub const EXECVE: usize = 59;
pub const CHDIR: usize = 80;
pub const CHROOT: usize = 161;
pub const MOUNT: usize = 165;
pub const UMOUNT2: usize = 166;
pub const EXIT_GROUP: usize = 231;
pub const OPENAT: usize = 257;
pub const MKDIRAT: usize = 258;
pub const UNLINKAT: usize = 263;
pub const FCHMODAT: usize = 268;
pub const FACCESSAT: usize = 269;

pub const SHOWS: Option<&CStr> = Some(c"/.kho/sys/kernel/boot_params/setup_data");

// The kernel enters a program with the arguments on the stack, and no caller.
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call arrive",
    "ud2",
);

/// # Safety
///
/// The arguments must be those of the system call with this number.
pub unsafe fn raw(number: usize, args: [usize; 5]) -> isize {
    let result: isize;
    let [a, b, c, d, e] = args;
    // SAFETY: the convention is `syscall` with these registers, which destroys rcx and r11 and does not touch
    // the stack; the caller answers for the arguments.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
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
    // SAFETY: by the caller's promise both are valid for `len` bytes; the direction flag is clear (System V ABI).
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
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
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    to
}
