//! A fake kernel that only records its calls, for tests of code that loads and starts images.

use super::{
    CallError, Kernel, SegmentRef, check_segments, explain_file_load, explain_load, explain_reboot,
};
use crate::sys::root::Root;
use core::convert::Infallible;
use kho::PhysAddr;
use std::fs::File;
use std::sync::Mutex;

/// A segment of the call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Physical destination.
    pub dest: PhysAddr,
    /// Bytes occupied at the destination.
    pub memsz: u64,
}

/// One call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// [`Kernel::kexec_load`] with segments that passed the checks.
    Load {
        /// Entry point.
        entry: PhysAddr,
        /// Segments.
        segments: Vec<Loaded>,
    },
    /// [`Kernel::kexec_file_load`] with this command line.
    FileLoad(Vec<u8>),
    /// [`Kernel::kexec_unload`].
    Unload,
    /// [`Kernel::kexec_file_unload`].
    FileUnload,
    /// [`Kernel::reboot_kexec`].
    Reboot,
    /// [`Kernel::sync`].
    Sync,
}

/// Kind of call to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// [`Kernel::kexec_load`].
    Load,
    /// [`Kernel::kexec_file_load`].
    FileLoad,
    /// [`Kernel::kexec_unload`].
    Unload,
    /// [`Kernel::kexec_file_unload`].
    FileUnload,
    /// [`Kernel::reboot_kexec`].
    Reboot,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    failures: Vec<(Which, i32)>,
    image: Option<(PhysAddr, Vec<Loaded>)>,
}

/// Records calls, and keeps the same image loaded as the kernel would. A start of the image is recorded and returns a
/// failure with error number 0, because the test must regain control.
#[derive(Debug, Default)]
pub struct FakeKernel {
    state: Mutex<State>,
}

impl FakeKernel {
    /// Makes a kernel with nothing loaded, nothing recorded and no call to fail.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        // A panic of another test thread does not make the record unusable.
        f(&mut self.state.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Makes the next call of this kind fail with `errno`. Several failures queue up.
    pub fn fail_next(&self, which: Which, errno: i32) {
        self.with(|s| s.failures.push((which, errno)));
    }

    /// Returns all calls made so far.
    pub fn calls(&self) -> Vec<Call> {
        self.with(|s| s.calls.clone())
    }

    /// Returns entry and segments of the image that is loaded now.
    pub fn image(&self) -> Option<(PhysAddr, Vec<Loaded>)> {
        self.with(|s| s.image.clone())
    }

    fn call(&self, which: Which, call: Call) -> Result<(), i32> {
        self.with(|s| {
            s.calls.push(call);
            match s.failures.iter().position(|(w, _)| *w == which) {
                Some(at) => Err(s.failures.remove(at).1),
                None => Ok(()),
            }
        })
    }
}

/// Returns a root without files, for which explanations name all causes.
fn nowhere() -> Root {
    Root::at("/nonexistent/kho-fake")
}

impl Kernel for FakeKernel {
    fn kexec_load(&self, entry: PhysAddr, segments: &[SegmentRef<'_>]) -> Result<(), CallError> {
        check_segments(segments)?;
        let segments: Vec<Loaded> = segments
            .iter()
            .map(|s| Loaded {
                bytes: s.buf.to_vec(),
                dest: s.dest,
                memsz: s.memsz,
            })
            .collect();
        let call = Call::Load {
            entry,
            segments: segments.clone(),
        };
        self.call(Which::Load, call)
            .map_err(|e| CallError::new("kexec_load", e, explain_load(e, &nowhere())))?;
        self.with(|s| s.image = Some((entry, segments)));
        Ok(())
    }

    /// Records the call. The recorded image has no segments, because the kernel itself makes them from the files.
    fn kexec_file_load(
        &self,
        _kernel: &File,
        _initrd: Option<&File>,
        cmdline: &[u8],
    ) -> Result<(), CallError> {
        self.call(Which::FileLoad, Call::FileLoad(cmdline.to_vec()))
            .map_err(|e| CallError::new("kexec_file_load", e, explain_file_load(e, &nowhere())))?;
        self.with(|s| s.image = Some((PhysAddr::new(0), Vec::new())));
        Ok(())
    }

    fn kexec_unload(&self) -> Result<(), CallError> {
        self.call(Which::Unload, Call::Unload)
            .map_err(|e| CallError::new("kexec_load (unload)", e, explain_load(e, &nowhere())))?;
        self.with(|s| s.image = None);
        Ok(())
    }

    fn kexec_file_unload(&self) -> Result<(), CallError> {
        self.call(Which::FileUnload, Call::FileUnload)
            .map_err(|e| {
                let why = explain_file_load(e, &nowhere());
                CallError::new("kexec_file_load (unload)", e, why)
            })?;
        self.with(|s| s.image = None);
        Ok(())
    }

    fn reboot_kexec(&self) -> Result<Infallible, CallError> {
        let mut errno = self.call(Which::Reboot, Call::Reboot).err().unwrap_or(0);
        if errno == 0 && self.image().is_none() {
            errno = libc::EINVAL;
        }
        Err(CallError::new(
            "reboot(KEXEC)",
            errno,
            explain_reboot(errno).to_owned(),
        ))
    }

    fn sync(&self) {
        self.with(|s| s.calls.push(Call::Sync));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_load_leaves_the_old_image_armed() {
        let kernel = FakeKernel::new();
        let load = |byte: u8| {
            kernel.kexec_load(
                PhysAddr::new(0x10_0000),
                &[SegmentRef {
                    buf: &[byte],
                    dest: PhysAddr::new(0x10_0000),
                    memsz: 4096,
                }],
            )
        };
        load(1).unwrap();
        kernel.fail_next(Which::Load, libc::ENOMEM);
        let error = load(2).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOMEM));
        assert_eq!(kernel.image().unwrap().1[0].bytes, [1]);
        load(3).unwrap();
        assert_eq!(kernel.image().unwrap().1[0].bytes, [3]);
        kernel.sync();
        kernel.kexec_unload().unwrap();
        assert!(kernel.image().is_none());
        assert_eq!(
            kernel.reboot_kexec().unwrap_err().errno(),
            Some(libc::EINVAL)
        );
        assert_eq!(kernel.calls().len(), 6);
    }
}
