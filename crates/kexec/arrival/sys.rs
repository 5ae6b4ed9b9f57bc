//! System calls of the program. Of calls that exist with and without a directory, every architecture has those with one.

use core::ffi::CStr;

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
mod arch;

use arch::{
    CHDIR, CHROOT, CLOSE, EXECVE, EXIT_GROUP, FACCESSAT, FCHMODAT, MKDIRAT, MOUNT, NANOSLEEP,
    OPENAT, PREAD64, UMOUNT2, UNLINKAT, WRITE, raw,
};

/// Directory whose files show to every user what was handed over; `None` if the architecture has none.
pub use arch::SHOWS;

/// An error number of the kernel.
pub type Errno = i32;

pub const ENOENT: Errno = 2;
pub const EACCES: Errno = 13;
pub const EEXIST: Errno = 17;
pub const EINVAL: Errno = 22;
/// Error of this program, not of the kernel: a string does not fit its buffer.
pub const ENAMETOOLONG: Errno = 36;

// include/uapi/asm-generic/fcntl.h; the real init must not inherit an open file.
const O_CLOEXEC: usize = 0o2_000_000;
pub const O_RDONLY: usize = O_CLOEXEC;
pub const O_WRONLY: usize = 1 | O_CLOEXEC;
pub const O_CREATE: usize = 0o1_101 | O_CLOEXEC;

// include/uapi/linux/mount.h.
pub const MS_RDONLY: usize = 1;
pub const MS_SILENT: usize = 1 << 15;
const MS_MOVE: usize = 1 << 13;
/// `MS_NOSUID | MS_NODEV | MS_NOEXEC`.
pub const MS_QUIET: usize = 0b1110;
pub const MS_NOSUID: usize = 2;

const X_OK: usize = 1;

/// `AT_FDCWD`, `include/uapi/linux/fcntl.h`: -100.
const HERE: usize = usize::MAX - 99;

/// # Safety
///
/// The arguments must be those of the system call with this number: each pointer is valid for the bytes that the kernel
/// reads or writes through it during the call.
unsafe fn call(number: usize, args: [usize; 5]) -> Result<usize, Errno> {
    // SAFETY: the caller answers for the arguments.
    let result = unsafe { raw(number, args) };
    match result {
        -4095..=-1 => Err(-result as Errno),
        _ => Ok(result as usize),
    }
}

fn path(path: &CStr) -> usize {
    path.as_ptr() as usize
}

/// An open file, closed when dropped.
pub struct File(usize);

impl File {
    /// Reads at an offset.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let args = [
            self.0,
            buffer.as_mut_ptr() as usize,
            buffer.len(),
            offset as usize,
            0,
        ];
        // SAFETY: the buffer is writable for its length.
        unsafe { call(PREAD64, args) }
    }

    /// Writes, in one call.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        // SAFETY: the bytes are readable for their length.
        unsafe { call(WRITE, [self.0, bytes.as_ptr() as usize, bytes.len(), 0, 0]) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: no pointers. The program cannot act on an error.
        let _ = unsafe { call(CLOSE, [self.0, 0, 0, 0, 0]) };
    }
}

pub fn open(at: &CStr, flags: usize, mode: usize) -> Result<File, Errno> {
    // SAFETY: the path is terminated by NUL.
    unsafe { call(OPENAT, [HERE, path(at), flags, mode, 0]) }.map(File)
}

/// Checks that the file can be executed.
pub fn access_execute(at: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is terminated by NUL.
    unsafe { call(FACCESSAT, [HERE, path(at), X_OK, 0, 0]) }.map(drop)
}

pub fn chmod(at: &CStr, mode: usize) -> Result<(), Errno> {
    // SAFETY: the path is terminated by NUL.
    unsafe { call(FCHMODAT, [HERE, path(at), mode, 0, 0]) }.map(drop)
}

pub fn make_dir(at: &CStr, mode: usize) -> Result<(), Errno> {
    // SAFETY: the path is terminated by NUL.
    unsafe { call(MKDIRAT, [HERE, path(at), mode, 0, 0]) }.map(drop)
}

pub fn remove(at: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is terminated by NUL.
    unsafe { call(UNLINKAT, [HERE, path(at), 0, 0, 0]) }.map(drop)
}

pub fn mount(what: &CStr, at: &CStr, kind: &CStr, flags: usize, data: &CStr) -> Result<(), Errno> {
    // SAFETY: all strings are terminated by NUL. The kernel copies up to a page of `data` and stops at memory that it
    // cannot read.
    unsafe { call(MOUNT, [path(what), path(at), path(kind), flags, path(data)]) }.map(drop)
}

/// Moves the mount at the current directory to `/`.
pub fn move_here_to_root() -> Result<(), Errno> {
    mount(c".", c"/", c"", MS_MOVE, c"")
}

pub fn unmount(at: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is terminated by NUL.
    unsafe { call(UMOUNT2, [path(at), 0, 0, 0, 0]) }.map(drop)
}

pub fn chdir(at: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is terminated by NUL.
    unsafe { call(CHDIR, [path(at), 0, 0, 0, 0]) }.map(drop)
}

pub fn chroot(at: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is terminated by NUL.
    unsafe { call(CHROOT, [path(at), 0, 0, 0, 0]) }.map(drop)
}

pub fn sleep_ms(ms: u64) {
    let time = [ms / 1000, ms % 1000 * 1_000_000];
    // SAFETY: `struct timespec` is seconds and nanoseconds, both 64 bits. Waking up early does no harm.
    let _ = unsafe { call(NANOSLEEP, [time.as_ptr() as usize, 0, 0, 0, 0]) };
}

pub fn exit(status: usize) -> ! {
    loop {
        // SAFETY: no pointers.
        let _ = unsafe { call(EXIT_GROUP, [status, 0, 0, 0, 0]) };
    }
}

/// Arguments and environment with which the kernel started this program.
pub struct Start {
    pub argc: usize,
    pub argv: *mut *const u8,
    pub envp: *const *const u8,
}

impl Start {
    /// Returns whether `name` is the first argument, the name by which the program was started.
    pub fn is_called(&self, name: &CStr) -> bool {
        if self.argc == 0 {
            return false;
        }
        // SAFETY: there are `argc` argument pointers, so a first one.
        let first = unsafe { self.argv.read() };
        if first.is_null() {
            return false;
        }
        // SAFETY: it is a string of the kernel's, terminated by NUL, to which no code writes meanwhile.
        let first = unsafe { CStr::from_ptr(first.cast()) };
        first == name
    }

    /// Starts another program with the same environment and arguments, except that the first argument becomes the
    /// program's path. Returns only if the start failed.
    pub fn exec(&self, program: &CStr) -> Errno {
        let name = program.as_ptr().cast::<u8>();
        let fallback = [name, core::ptr::null()];
        let argv = if self.argc == 0 {
            fallback.as_ptr()
        } else {
            // SAFETY: there are `argc` argument pointers in writable memory, so a first one; no code reads them
            // meanwhile.
            unsafe { self.argv.write(name) };
            self.argv.cast_const()
        };
        let args = [path(program), argv as usize, self.envp as usize, 0, 0];
        // SAFETY: the path is terminated by NUL, both lists by null pointers. Their strings are as the kernel left
        // them, or `program`, which outlives the call.
        match unsafe { call(EXECVE, args) } {
            Err(why) => why,
            Ok(_) => 0,
        }
    }
}

// Functions that the compiler calls for copies and comparisons. The program has no libc that would provide them.

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let mut n = 0;
    while n < len {
        // SAFETY: `n < len`, and by the caller's promise both are valid for `len` bytes. Volatile keeps the compiler
        // from recognising a comparison here and calling this function for it.
        let x = unsafe { a.add(n).read_volatile() };
        // SAFETY: as above.
        let y = unsafe { b.add(n).read_volatile() };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        n += 1;
    }
    0
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise is the same.
    unsafe { memcmp(a, b, len) }
}

/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: by the caller's promise the text ends with NUL, and `n` does not pass it. Volatile as above.
    while unsafe { text.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}
