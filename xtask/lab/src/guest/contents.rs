//! Contents of a guest: kernels, scripts, modules and files.

use std::path::PathBuf;

use crate::kernel::Kernel;
use crate::system::System;

/// Kernel command line of every stage: all messages go to the first serial port from the first instruction on, and a
/// panic ends the guest. The kernel does not test the timer: on a busy host an emulated timer misses ticks, and the
/// kernel takes it for broken and panics (KVM guests skip the test themselves: arch/x86/kernel/kvm.c).
pub(super) const CMDLINE: &str = "earlyprintk=serial,ttyS0,115200 console=ttyS0 panic=-1 \
                       rcupdate.rcu_cpu_stall_timeout=60 no_timer_check";

/// The same for arm64, whose first serial port is in the devicetree.
pub(super) const CMDLINE_ARM64: &str =
    "earlycon console=ttyAMA0 panic=-1 rcupdate.rcu_cpu_stall_timeout=60";

/// Kernels, scripts, modules and files of one guest.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The kernels, in the order in which they run; one more than there are hops.
    pub kernels: Vec<Kernel>,
    /// Script of each kernel.
    pub scripts: Vec<Option<String>>,
    /// More kernel parameters for every kernel.
    pub append: String,
    /// More modules.
    pub modules: Vec<String>,
    /// kho's modules to load, in this order, in kernels for which they were built.
    pub ours: Vec<String>,
    /// Files for the scripts, found at `$KHO_FILES`.
    pub files: Vec<PathBuf>,
    /// Folders whose contents scripts find together at `/media/root`.
    pub roots: Vec<PathBuf>,
    /// Whether the kernels are signed with the key for tests of Secure Boot.
    pub signed: bool,
    /// A full system that boots by itself, in place of `kernels`, with one script for each of its boots.
    pub system: Option<System>,
}

impl Contents {
    /// Number of kernels to start.
    pub fn stages(&self) -> usize {
        self.scripts.len()
    }
}
