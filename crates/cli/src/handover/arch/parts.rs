//! The facts that both architectures take.

use kho::{PhysAddr, PhysRange};
use kho_kexec::assemble::Placement;
use kho_kexec::cmdline::CommandLine;
use kho_kexec::image::Image;

/// Parts of a load.
pub struct Parts<'a> {
    /// The kernel.
    pub image: &'a dyn Image,
    /// The user's initrd.
    pub initrd: Option<&'a [u8]>,
    /// The command line, which starts the arrival program.
    pub cmdline: &'a CommandLine,
    /// Fresh random bytes.
    pub seed: &'a [u8; 32],
    /// The state tree.
    pub tree: &'a [u8],
    /// The mem cache, the state first.
    pub reserved: &'a [PhysRange],
    /// The scratch region.
    pub scratch: PhysRange,
    /// Destinations of the segments.
    pub placement: Placement,
    /// Address of a late block, into which kho.ko writes before the jump; only on x86, where the chain goes on there.
    pub next: Option<PhysAddr>,
}

/// Figures of this machine on which the number of early reservations depends.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Entries of the firmware's memory map.
    pub map_entries: usize,
    /// Processors that are online.
    pub cpus: usize,
}
