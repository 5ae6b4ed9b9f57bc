//! `kexec_file_load(2)`: a plain kexec, for which the kernel itself places image, initrd and parameters.
//!
//! Nothing can be handed over this way (the kernel writes the next kernel's parameters), which is what makes
//! it the fallback when a handover fails: it shares no step with one.

#![allow(unsafe_code)] // the kexec_file_load system call, which no safe crate wraps

use super::root::Root;
use super::syscalls::explain_load;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use thiserror::Error;

/// `KEXEC_FILE_NO_INITRAMFS` (`include/uapi/linux/kexec.h`, 6.1 to 7.3).
const NO_INITRAMFS: u64 = 4;

/// Why the kernel did not take an image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileLoadError {
    /// The command line has a NUL inside.
    #[error("the command line has a NUL byte at {0:#x}")]
    Nul(usize),
    /// The kernel said no.
    #[error("kexec_file_load failed: {why}")]
    Call {
        /// What the error number means for this call.
        why: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

impl FileLoadError {
    /// The error number, when the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { source, .. } => source.raw_os_error(),
            Self::Nul(_) => None,
        }
    }
}

/// Loads an image for the next `reboot(LINUX_REBOOT_CMD_KEXEC)`.
///
/// # Errors
///
/// [`FileLoadError`]. What was loaded before **stays armed** then.
pub fn load(kernel: &File, initrd: Option<&File>, cmdline: &[u8]) -> Result<(), FileLoadError> {
    let cmdline = CString::new(cmdline).map_err(|err| FileLoadError::Nul(err.nul_position()))?;
    let bytes = cmdline.as_bytes_with_nul();
    let flags = if initrd.is_some() { 0 } else { NO_INITRAMFS };
    // SAFETY: kexec_file_load(2) takes two file descriptors (-1 with KEXEC_FILE_NO_INITRAMFS), the length of
    // the command line with its NUL, a pointer to so many bytes, and flags. The descriptors and the string
    // outlive the call; the kernel copies them and writes nothing to this process's memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.map_or(-1, AsRawFd::as_raw_fd),
            bytes.len(),
            bytes.as_ptr(),
            flags,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    let errno = source.raw_os_error().unwrap_or(0);
    let why = match errno {
        libc::ENOSYS => "this kernel is built without CONFIG_KEXEC_FILE".to_owned(),
        libc::ENOEXEC => "the kernel does not know this image format".to_owned(),
        libc::EKEYREJECTED | libc::ENODATA | libc::ENOPKG => {
            "the image has no signature that this kernel accepts".to_owned()
        }
        _ => explain_load(errno, &Root::system()),
    };
    Err(FileLoadError::Call { why, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_and_a_file_that_is_no_kernel_are_refused() {
        let file = File::open("/proc/self/exe").unwrap();
        assert!(matches!(
            load(&file, None, b"a\0b"),
            Err(FileLoadError::Nul(1))
        ));
        // Not root: EPERM; root: not a kernel (ENOEXEC), or no such call.
        assert!(load(&file, None, b"").unwrap_err().errno().is_some());
    }
}
