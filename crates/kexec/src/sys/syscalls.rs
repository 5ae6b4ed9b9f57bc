//! The system calls that load, unload and start an image, behind one trait.
//!
//! [`Kernel`] covers every change that this crate makes to the running kernel's kexec state. [`System`] is the real
//! kernel; [`crate::sys::syscalls::fake::FakeKernel`] records calls and fails on demand.
//!
//! # Behaviour of the kernel on a failure
//!
//! `do_kexec_load` (`kernel/kexec.c`, 6.1 to 7.3) builds the new image completely and only then exchanges it with the
//! old one. **A failed load therefore leaves the image that was loaded before in place, armed.** A loader unloads first
//! if the old image must not be started after a failed load ([`Kernel::kexec_unload`]).
//!
//! Unloading is a `kexec_load` with no segments and passes the same permission check
//! (`kexec_load_check`), so with `kexec_load_disabled=1`, under lockdown or with the load limit used up
//! an image **cannot be unloaded** either, and every unload counts against `kexec_load_limit_reboot`.
//!
//! These calls do not touch the crash kernel: they never pass `KEXEC_ON_CRASH`.
#![allow(unsafe_code)] // kexec_load and kexec_file_load, which no safe crate wraps, and CPUID

use crate::sys::root::Root;
use core::convert::Infallible;
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use thiserror::Error;

/// Most segments of one image: `KEXEC_SEGMENT_MAX` in `include/uapi/linux/kexec.h` (6.1 to 7.3).
pub const SEGMENT_MAX: usize = 16;

/// One piece of an image: bytes, and their address when the next kernel starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SegmentRef<'a> {
    /// The bytes, which the kernel copies during the call. They may be shorter than the destination: the kernel zeroes
    /// the rest, and uses a page of memory for each page of it until the jump.
    pub buf: &'a [u8],
    /// Physical destination, a multiple of the page size.
    pub dest: PhysAddr,
    /// Bytes to occupy at the destination, a multiple of the page size and at least `buf.len()`.
    pub memsz: u64,
}

impl SegmentRef<'_> {
    /// Returns the destination as a range; `None` if it is empty or wraps.
    pub fn range(&self) -> Option<PhysRange> {
        PhysRange::new(self.dest, self.memsz).ok()
    }
}

impl core::fmt::Debug for SegmentRef<'_> {
    /// Prints the size of the bytes, not the bytes.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "SegmentRef {{ {:#x} bytes -> {} + {:#x} }}",
            self.buf.len(),
            self.dest,
            self.memsz
        )
    }
}

/// Reason why the kernel would refuse a list of segments, found before the call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The list is empty. The kernel would take this as an unload.
    #[error("the image has no segments, which the kernel would take as an order to unload")]
    None,
    /// The list has more than [`SEGMENT_MAX`] segments.
    #[error("the image has {count} segments, the kernel takes at most {SEGMENT_MAX}")]
    TooMany {
        /// Number of segments in the list.
        count: usize,
    },
    /// The start or the size is not a multiple of the page size, the size is zero, or the end wraps.
    #[error("segment {index}: destination {dest} + {memsz:#x} is not whole pages")]
    NotPages {
        /// Position in the list.
        index: usize,
        /// Start.
        dest: PhysAddr,
        /// Size in bytes.
        memsz: u64,
    },
    /// A segment has more bytes than room.
    #[error("segment {index}: {bufsz:#x} bytes do not fit its {memsz:#x} bytes of memory")]
    Overflows {
        /// Position in the list.
        index: usize,
        /// Bytes given.
        bufsz: u64,
        /// Room in bytes.
        memsz: u64,
    },
    /// Two segments share memory.
    #[error("segments {first} and {second} overlap: {a} and {b}")]
    Overlap {
        /// Position of one.
        first: usize,
        /// Position of the other.
        second: usize,
        /// Destination of the one.
        a: PhysRange,
        /// Destination of the other.
        b: PhysRange,
    },
}

/// Does the checks of `sanity_check_segment_list` (`kernel/kexec_core.c`), with an error that names the segment and the
/// reason instead of `EINVAL` or `EADDRNOTAVAIL`. This function does not check the limit of half of the memory for all
/// segments: see [`half_of_memory`].
///
/// # Errors
///
/// [`SegmentError`].
pub fn check_segments(segments: &[SegmentRef<'_>]) -> Result<(), SegmentError> {
    if segments.is_empty() {
        return Err(SegmentError::None);
    }
    if segments.len() > SEGMENT_MAX {
        return Err(SegmentError::TooMany {
            count: segments.len(),
        });
    }
    let mut seen: Vec<PhysRange> = Vec::with_capacity(SEGMENT_MAX);
    for (index, segment) in segments.iter().enumerate() {
        let range = segment.range().filter(|r| r.is_page_aligned());
        let Some(range) = range else {
            return Err(SegmentError::NotPages {
                index,
                dest: segment.dest,
                memsz: segment.memsz,
            });
        };
        let bufsz = u64::try_from(segment.buf.len()).unwrap_or(u64::MAX);
        if bufsz > segment.memsz {
            return Err(SegmentError::Overflows {
                index,
                bufsz,
                memsz: segment.memsz,
            });
        }
        if let Some(first) = seen.iter().position(|r| r.overlaps(range)) {
            return Err(SegmentError::Overlap {
                first,
                second: index,
                a: seen[first],
                b: range,
            });
        }
        seen.push(range);
    }
    Ok(())
}

/// Returns the largest number of bytes that all segments together may occupy: half of `totalram_pages()`, which is
/// `MemTotal` of `/proc/meminfo` (`sanity_check_segment_list`; each segment alone is bounded by the same number).
///
/// Memory that earlier hops keep reserved is not part of `MemTotal`.
pub const fn half_of_memory(mem_total_bytes: u64) -> u64 {
    mem_total_bytes / PAGE_SIZE / 2 * PAGE_SIZE
}

/// Reason why a call failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// This crate refused the segments before the call.
    #[error("the image was not given to the kernel")]
    Segments(#[from] SegmentError),
    /// The command line has a NUL inside.
    #[error("the command line has a NUL byte at {0:#x}")]
    Nul(usize),
    /// The kernel refused the call.
    #[error("{call} failed: {why}")]
    Call {
        /// Name of the call.
        call: &'static str,
        /// Meaning of the error number for this call, and advice.
        why: String,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

impl CallError {
    /// Returns the error number, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { source, .. } => source.raw_os_error(),
            Self::Segments(_) | Self::Nul(_) => None,
        }
    }

    fn new(call: &'static str, errno: i32, why: String) -> Self {
        Self::Call {
            call,
            why,
            source: io::Error::from_raw_os_error(errno),
        }
    }
}

/// Calls by which this crate changes the kernel's kexec state. There are two implementations: [`System`] and a fake.
pub trait Kernel {
    /// Loads an image for the next `reboot(LINUX_REBOOT_CMD_KEXEC)`, replacing the one loaded before.
    ///
    /// # Errors
    ///
    /// [`CallError`]. In that case the image that was loaded before **stays armed**.
    fn kexec_load(&self, entry: PhysAddr, segments: &[SegmentRef<'_>]) -> Result<(), CallError>;

    /// Unloads the loaded image; succeeds if none is loaded. Never touches the crash kernel.
    ///
    /// # Errors
    ///
    /// [`CallError`]; needs the same permission as a load. A kernel that is locked down refuses, as does one without
    /// `kexec_load(2)`: [`Kernel::kexec_file_unload`] works there.
    fn kexec_unload(&self) -> Result<(), CallError>;

    /// Unloads the loaded image by `kexec_file_load(2)`; succeeds if none is loaded. Never touches the crash kernel.
    ///
    /// # Errors
    ///
    /// [`CallError`]; needs the same permission as a load by that call, but no image.
    fn kexec_file_unload(&self) -> Result<(), CallError>;

    /// Loads an image by `kexec_file_load(2)`: the kernel itself places image, initrd and parameters, so nothing can be
    /// handed over but what is in the initrd.
    ///
    /// # Errors
    ///
    /// [`CallError`]. In that case the image that was loaded before **stays armed**.
    fn kexec_file_load(
        &self,
        kernel: &File,
        initrd: Option<&File>,
        cmdline: &[u8],
    ) -> Result<(), CallError>;

    /// Starts the loaded image. Does not sync, stop or unmount anything: the caller must have done so.
    ///
    /// # Errors
    ///
    /// [`CallError`]; on success the call does not return.
    fn reboot_kexec(&self) -> Result<Infallible, CallError>;

    /// Writes all dirty data of all filesystems (`sync(2)`).
    fn sync(&self);
}

/// The running kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

/// `struct kexec_segment` (`include/uapi/linux/kexec.h`, 6.1 to 7.3).
#[repr(C)]
struct RawSegment {
    buf: *const core::ffi::c_void,
    bufsz: usize,
    mem: usize,
    memsz: usize,
}

const _: () = assert!(size_of::<RawSegment>() == 4 * size_of::<usize>());

/// `KEXEC_FILE_NO_INITRAMFS` (`include/uapi/linux/kexec.h`, 6.1 to 7.3).
const NO_INITRAMFS: u64 = 4;

/// `KEXEC_FILE_UNLOAD` (`include/uapi/linux/kexec.h`, 5.10 to 7.3).
const UNLOAD: u64 = 1;

/// `KEXEC_ARCH_DEFAULT` (`include/uapi/linux/kexec.h`): the running kernel's own architecture. `KEXEC_ON_CRASH` and
/// `KEXEC_PRESERVE_CONTEXT` are never set.
const FLAGS: u64 = 0;

fn raw_kexec_load(entry: u64, segments: &[RawSegment]) -> Result<(), i32> {
    // SAFETY: the four arguments have the types of kexec_load(2). The kernel reads `segments.len()` records of `struct
    // kexec_segment` layout (checked above) at the pointer, and `bufsz` bytes at each `buf`; both come from slices that
    // outlive the call. It writes nothing to this process's memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_load,
            entry,
            segments.len(),
            segments.as_ptr(),
            FLAGS,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// Unloads the image if `kernel` is `None`.
fn raw_kexec_file_load(
    kernel: Option<&File>,
    initrd: Option<&File>,
    cmdline: &CStr,
) -> Result<(), i32> {
    let bytes = cmdline.to_bytes_with_nul();
    let flags = match (kernel, initrd) {
        (None, _) => UNLOAD,
        (Some(_), None) => NO_INITRAMFS,
        (Some(_), Some(_)) => 0,
    };
    // SAFETY: kexec_file_load(2) takes two file descriptors (-1 for the initrd with KEXEC_FILE_NO_INITRAMFS, and for
    // both with KEXEC_FILE_UNLOAD), the length of the command line with its NUL, a pointer to so many bytes, and
    // flags. The descriptors and the string outlive the call; the kernel copies them and writes nothing to this
    // process's memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.map_or(-1, AsRawFd::as_raw_fd),
            initrd.map_or(-1, AsRawFd::as_raw_fd),
            bytes.len(),
            bytes.as_ptr(),
            flags,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

impl Kernel for System {
    fn kexec_load(&self, entry: PhysAddr, segments: &[SegmentRef<'_>]) -> Result<(), CallError> {
        check_segments(segments)?;
        let mut raw = Vec::with_capacity(segments.len());
        for (index, s) in segments.iter().enumerate() {
            let (Ok(mem), Ok(memsz)) = (usize::try_from(s.dest.get()), usize::try_from(s.memsz))
            else {
                return Err(SegmentError::NotPages {
                    index,
                    dest: s.dest,
                    memsz: s.memsz,
                }
                .into());
            };
            raw.push(RawSegment {
                buf: s.buf.as_ptr().cast(),
                bufsz: s.buf.len(),
                mem,
                memsz,
            });
        }
        raw_kexec_load(entry.get(), &raw)
            .map_err(|e| CallError::new("kexec_load", e, explain_load(e, &Root::system())))
    }

    fn kexec_unload(&self) -> Result<(), CallError> {
        raw_kexec_load(0, &[])
            .map_err(|e| CallError::new("kexec_load (unload)", e, explain_load(e, &Root::system())))
    }

    fn kexec_file_unload(&self) -> Result<(), CallError> {
        raw_kexec_file_load(None, None, c"").map_err(|e| {
            let why = explain_file_load(e, &Root::system());
            CallError::new("kexec_file_load (unload)", e, why)
        })
    }

    fn kexec_file_load(
        &self,
        kernel: &File,
        initrd: Option<&File>,
        cmdline: &[u8],
    ) -> Result<(), CallError> {
        let cmdline = CString::new(cmdline).map_err(|err| CallError::Nul(err.nul_position()))?;
        raw_kexec_file_load(Some(kernel), initrd, &cmdline).map_err(|e| {
            CallError::new("kexec_file_load", e, explain_file_load(e, &Root::system()))
        })
    }

    fn reboot_kexec(&self) -> Result<Infallible, CallError> {
        let errno = match rustix::system::reboot(rustix::system::RebootCommand::Kexec) {
            // The kernel returns only with an error, or after a jump back from an image that was loaded for that.
            Ok(()) => 0,
            Err(e) => e.raw_os_error(),
        };
        Err(CallError::new(
            "reboot(KEXEC)",
            errno,
            explain_reboot(errno).to_owned(),
        ))
    }

    fn sync(&self) {
        rustix::fs::sync();
    }
}

/// Returns the meaning of an error of `reboot(LINUX_REBOOT_CMD_KEXEC)` (`kernel/reboot.c`, `kernel_kexec`).
pub fn explain_reboot(errno: i32) -> &'static str {
    match errno {
        0 => "the call came back without an error; nothing was started",
        libc::EPERM => "CAP_SYS_BOOT is needed: root has it, outside containers",
        libc::EINVAL => {
            "no image is loaded, or this process runs in a PID namespace: load first, and run outside \
             containers"
        }
        libc::EBUSY => "another kexec load or start is in progress: try again when it has finished",
        libc::ENOSYS => "this kernel is built without kexec (CONFIG_KEXEC)",
        _ => "a driver or the platform refused; the kernel log says which",
    }
}

/// Returns the meaning of an error of `kexec_load`, from the kernel's sources (`kernel/kexec.c`, `kernel/kexec_core.c`,
/// `security/`, 6.1 to 7.3). If one errno has several causes, the text names those that this system shows.
pub fn explain_load(errno: i32, root: &Root) -> String {
    let fixed = match errno {
        libc::EPERM => return explain_permission(root, LOCKED_LOAD),
        libc::EACCES => {
            "IMA demands an appraised kernel and kexec_load gives it none to appraise (ima_appraise with \
             a KEXEC_KERNEL_CHECK rule, or Secure Boot with an architecture policy): kexec_load cannot be \
             used under this policy"
        }
        libc::EBUSY => {
            "another kexec load, unload or start is in progress (also reading kexec_crash_size counts), or \
             on arm64 a CPU cannot be stopped: try again when it has finished"
        }
        libc::EADDRNOTAVAIL => {
            "a destination is not whole pages, or lies above the highest address this kernel can copy to"
        }
        libc::EINVAL => {
            "the segments overlap, there are more than 16, the architecture flag is not this kernel's, or \
             together they need more than half of MemTotal (what earlier hops reserve does not count): \
             hand over less, or release what was restored"
        }
        libc::ENOMEM => {
            "the kernel found no memory for its copy of the image, or the process was killed meanwhile: \
             free about the size of the image and try again"
        }
        libc::EFAULT => "a buffer of the image became unreadable during the call",
        libc::ENOSYS => "this kernel is built without kexec_load (CONFIG_KEXEC)",
        libc::EOPNOTSUPP => {
            "this platform cannot kexec: on TDX hosts with the partial-write erratum the kernel refuses"
        }
        _ => "an error that kexec_load is not known to give; the kernel log may say more",
    };
    fixed.to_owned()
}

/// Returns the meaning of an error of `kexec_file_load`: as [`explain_load`], and also for the errors of this call only
/// (`kernel/kexec_file.c`, 6.1 to 7.3).
pub fn explain_file_load(errno: i32, root: &Root) -> String {
    let fixed = match errno {
        libc::ENOSYS => "this kernel is built without CONFIG_KEXEC_FILE",
        libc::ENOEXEC => "the kernel does not know this image format",
        libc::EKEYREJECTED | libc::ENODATA | libc::ENOPKG => {
            "the image has no signature that this kernel accepts"
        }
        libc::EPERM => return explain_permission(root, LOCKED_FILE_LOAD),
        _ => return explain_load(errno, root),
    };
    fixed.to_owned()
}

/// Meaning of `EPERM` from `kexec_load` under lockdown.
const LOCKED_LOAD: &str = "the kernel is locked down (Secure Boot, or lockdown= on the command line), which \
     forbids kexec_load";

/// Meaning of `EPERM` from `kexec_file_load` under lockdown: `kimage_validate_signature`, in `kernel/kexec_file.c` of
/// 7.3.
const LOCKED_FILE_LOAD: &str = "the kernel is locked down (Secure Boot, or lockdown= on the command line), which \
     forbids images without a signature that this kernel accepts";

/// Explains `EPERM`, which has many causes: names those that this system shows. `locked` is the meaning of a lockdown
/// for the call.
fn explain_permission(root: &Root, locked: &str) -> String {
    use crate::sys::facts::{kexec::KexecState, process::Capability, process::Process, security};
    let mut causes: Vec<&str> = Vec::new();
    if Process::read(root).is_ok_and(|p| !p.has(Capability::SYS_BOOT)) {
        causes.push("this process lacks CAP_SYS_BOOT: root has it, outside containers");
    }
    if let Ok(state) = KexecState::read(root) {
        if state.load_disabled == Some(true) {
            causes.push("kernel.kexec_load_disabled is 1, which only a reboot clears");
        }
        if state.load_limit_reboot == Some(0) {
            causes.push("kernel.kexec_load_limit_reboot is used up, which only a reboot clears");
        }
    }
    if security::Lockdown::read(root).is_ok_and(|l| l.blocks_kexec_load()) {
        causes.push(locked);
    }
    if causes.is_empty() {
        causes.push(
            "CAP_SYS_BOOT is missing, kexec_load_disabled or kexec_load_limit_reboot forbid it, the kernel \
             is locked down, or a security module (LoadPin) refused",
        );
    }
    causes.join("; ")
}

pub mod fake;

/// Returns EAX of `CPUID 0x8000001f`; zero if the processor does not have that leaf, or this build is not for x86_64.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)] // the function is unsafe in the oldest Rust that builds this
pub(crate) fn cpuid_encryption() -> u32 {
    const LARGEST: u32 = 0x8000_0000;
    const ENCRYPTION: u32 = 0x8000_001f;
    // SAFETY: every x86_64 processor has the instruction, and it touches no memory.
    let largest = unsafe { core::arch::x86_64::__cpuid(LARGEST) };
    if largest.eax < ENCRYPTION {
        return 0;
    }
    // SAFETY: as above.
    let leaf = unsafe { core::arch::x86_64::__cpuid(ENCRYPTION) };
    leaf.eax
}

/// Returns the bit of `CPUID 7`, ECX, for five-level paging (Intel SDM, volume 2A, CPUID, LA57).
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)] // as above
pub(crate) fn cpuid_five_level_paging() -> bool {
    const LA57: u32 = 1 << 16;
    // SAFETY: every x86_64 processor has the instruction, and it touches no memory.
    let largest = unsafe { core::arch::x86_64::__cpuid(0) };
    if largest.eax < 7 {
        return false;
    }
    // SAFETY: as above.
    let leaf = unsafe { core::arch::x86_64::__cpuid_count(7, 0) };
    leaf.ecx & LA57 != 0
}

/// Returns false: this build is not for x86_64.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn cpuid_five_level_paging() -> bool {
    false
}

/// Returns zero: this build is not for x86_64.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn cpuid_encryption() -> u32 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    fn segment(buf: &[u8], dest: u64, memsz: u64) -> SegmentRef<'_> {
        SegmentRef {
            buf,
            dest: PhysAddr::new(dest),
            memsz,
        }
    }

    #[test]
    fn segments_are_checked_before_the_call() {
        let b = [0u8; 10];
        assert_eq!(check_segments(&[]), Err(SegmentError::None));
        assert_eq!(
            check_segments(&[segment(&b, 0, 4096); 17]),
            Err(SegmentError::TooMany { count: 17 })
        );
        for (dest, memsz) in [
            (1, 4096),
            (4096, 1),
            (4096, 0),
            (u64::MAX - 4095, 4096),
            (u64::MAX - 4095, 8192),
        ] {
            assert!(
                matches!(
                    check_segments(&[segment(&b, 0x10_0000, 4096), segment(&b, dest, memsz)]),
                    Err(SegmentError::NotPages { index: 1, .. })
                ),
                "{dest:#x} {memsz:#x}"
            );
        }
        let big = [0u8; 5000];
        assert_eq!(
            check_segments(&[segment(&big, 0, 4096)]),
            Err(SegmentError::Overflows {
                index: 0,
                bufsz: 5000,
                memsz: 4096
            })
        );
        let error = check_segments(&[
            segment(&b, 0x1000, 4096),
            segment(&b, 0x3000, 4096),
            segment(&b, 0x2000, 8192),
        ])
        .unwrap_err();
        assert!(matches!(
            error,
            SegmentError::Overlap {
                first: 1,
                second: 2,
                ..
            }
        ));
        assert!(check_segments(&[segment(&b, 0x1000, 4096), segment(&b, 0x2000, 4096)]).is_ok());
        assert_eq!(half_of_memory(3 * 4096 + 5), 4096);
    }

    #[test]
    fn eperm_names_the_causes_that_the_system_shows() {
        let f = Fixture::new();
        f.put(
            "proc/self/status",
            "Name:\tkho\nUid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n",
        )
        .put("sys/kernel/kexec_loaded", "0\n")
        .put("proc/sys/kernel/kexec_load_disabled", "1\n")
        .put("proc/sys/kernel/kexec_load_limit_reboot", "0\n")
        .put(
            "sys/kernel/security/lockdown",
            "none [integrity] confidentiality\n",
        );
        let text = explain_load(libc::EPERM, &f.root());
        for word in [
            "CAP_SYS_BOOT",
            "kexec_load_disabled",
            "kexec_load_limit_reboot",
            "locked down",
        ] {
            assert!(text.contains(word), "{word} not in {text}");
        }
        f.put(
            "proc/self/status",
            "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
        )
        .put("proc/sys/kernel/kexec_load_limit_reboot", "-1\n")
        .put(
            "sys/kernel/security/lockdown",
            "[none] integrity confidentiality\n",
        );
        assert_eq!(
            explain_load(libc::EPERM, &f.root()),
            "kernel.kexec_load_disabled is 1, which only a reboot clears"
        );
    }

    #[test]
    fn under_lockdown_each_call_names_its_own_cause() {
        let f = Fixture::new();
        f.put(
            "sys/kernel/security/lockdown",
            "none [integrity] confidentiality\n",
        );
        let load = explain_load(libc::EPERM, &f.root());
        assert!(load.contains("forbids kexec_load"), "{load}");
        let file_load = explain_file_load(libc::EPERM, &f.root());
        assert!(file_load.contains("without a signature"), "{file_load}");
        assert!(!file_load.contains("kexec_load"), "{file_load}");
    }

    #[test]
    fn a_nul_and_a_file_that_is_no_kernel_are_refused() {
        let file = File::open("/proc/self/exe").unwrap();
        assert!(matches!(
            System.kexec_file_load(&file, None, b"a\0b"),
            Err(CallError::Nul(1))
        ));
        // A user other than root gets EPERM; root gets ENOEXEC, because the file is not a kernel, or the kernel has no
        // such call.
        let refused = System.kexec_file_load(&file, None, b"").unwrap_err();
        assert!(refused.errno().is_some());
    }

    #[test]
    fn the_real_call_refuses_bad_lists_without_making_it() {
        assert!(matches!(
            System.kexec_load(PhysAddr::new(0), &[]),
            Err(CallError::Segments(SegmentError::None))
        ));
    }
}
