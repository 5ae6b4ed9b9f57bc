//! Safe calls of the kernel that do not affect the ownership of pages.

use super::ffi;
use alloc::vec::Vec;
use core::ffi::{CStr, c_void};
use kho::PAGE_SIZE;
use kho_decide::errno::{EINVAL, Errno};

/// Length, in bytes, from which on [`read_file`] refuses a file: 1 MiB.
const MAX_FILE: usize = 1 << 20;

/// A random number.
pub fn random() -> u64 {
    ffi::kho_c_random()
}

/// Release of the running kernel (`uname -r`).
pub fn release() -> &'static str {
    // SAFETY: kho_c_release returns a string that ends with a NUL and lives as long as the kernel.
    let text = unsafe { CStr::from_ptr(ffi::kho_c_release()) };
    text.to_str().unwrap_or("unknown")
}

/// The content of a file.
///
/// # Errors
///
/// The error of opening or reading the file; [`EINVAL`] if the file has 1 MiB or more; no memory.
pub fn read_file(path: &CStr) -> Result<Vec<u8>, Errno> {
    let mut error = 0;
    // SAFETY: `path` ends with a NUL, `error` is writable.
    let file = unsafe { ffi::kho_c_open(path.as_ptr(), &raw mut error) };
    if file.is_null() {
        return Err(Errno::check(i64::from(error)).err().unwrap_or(EINVAL));
    }
    let content = read_open(file);
    // SAFETY: `file` was opened above and is not used after this.
    unsafe { ffi::kho_c_close(file) };
    content
}

fn read_open(file: *mut c_void) -> Result<Vec<u8>, Errno> {
    let mut content = Vec::new();
    loop {
        if content.len() >= MAX_FILE {
            return Err(EINVAL);
        }
        let mut piece = zeros(PAGE_SIZE as usize)?;
        // SAFETY: `piece` is writable for its length, and the caller opened `file`.
        let got = unsafe {
            ffi::kho_c_read(
                file,
                piece.as_mut_ptr().cast(),
                piece.len(),
                content.len() as u64,
            )
        };
        let got = usize::try_from(Errno::check(got as i64)?).map_err(|_| EINVAL)?;
        if got == 0 {
            return Ok(content);
        }
        content.try_reserve(got)?;
        content.extend_from_slice(piece.get(..got).ok_or(EINVAL)?);
    }
}

/// `len` zeros.
pub fn zeros(len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Creates `/sys/kernel/kho/dt`.
///
/// # Errors
///
/// The error of sysfs.
pub fn publish_dt() -> Result<(), Errno> {
    Errno::check(i64::from(ffi::kho_c_dt_publish())).map(|_| ())
}

/// Removes `/sys/kernel/kho/dt`, which was published. Waits for its readers, which take [`crate::phase::SEALED`].
pub fn withdraw_dt() {
    // SAFETY: called in the active phase only, without SEALED.
    unsafe { ffi::kho_c_dt_withdraw() }
}

/// Keeps this module loaded until dropped.
pub struct SelfHold(());

impl SelfHold {
    /// Takes one reference; `None` while the module is being unloaded. In that case the module's code exists only until
    /// the caller returns.
    pub fn new() -> Option<Self> {
        // The value is made only after success: dropping it would otherwise return a reference that was never taken.
        ffi::kho_c_hold_self().then(|| Self(()))
    }
}

impl Drop for SelfHold {
    fn drop(&mut self) {
        // SAFETY: `new` took the reference.
        unsafe { ffi::kho_c_unhold_self() }
    }
}
