//! What the planner has to know of this machine.

use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status};
use crate::session::Session;
use kho::RangeSet;
use kho_kexec::bootparam::{BootParams, EfiFacts, MemoryMapEntry};
use kho_kexec::sys::doctor;
use kho_kexec::sys::facts::boot::BootParams as BootParamsFile;
use kho_kexec::sys::facts::efi::Efi;
use kho_kexec::sys::facts::host::KernelId;
use kho_kexec::sys::facts::meminfo::MemInfo;
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::pageflags::PageFlags;

/// Facts read once for a plan.
pub struct Machine {
    /// Who runs.
    pub kernel: KernelId,
    /// RAM according to the firmware.
    pub ram: RangeSet,
    /// The firmware's memory map, to be passed on.
    pub memory_map: Vec<MemoryMapEntry>,
    /// Pages that the running kernel holds as reserved and that did not arrive with a handover.
    pub pinned: RangeSet,
    /// The running kernel's boot parameters.
    pub boot_params: Box<BootParams>,
    /// UEFI runtime services.
    pub efi: Option<EfiFacts>,
    /// Memory figures, in bytes.
    pub memory: MemInfo,
}

impl Machine {
    /// Reads everything, after refusing a machine that cannot hand over.
    ///
    /// # Errors
    ///
    /// One [`Status`] per reason, the first that `kho doctor` would call blocking.
    pub fn read(session: &Session, arrived: Option<&Arrived>) -> Result<Self, Fail> {
        crate::cmd::doctor::refuse(&doctor::examine(&session.root))?;
        let root = &session.root;
        let map = FirmwareMap::read(root).or_status(Status::FirmwareMap)?;
        let ram = map.ram().try_clone().or_status(Status::Failed)?;
        let flags = PageFlags::open(root).or_status(Status::NotPermitted)?;
        let mut pinned = flags.reserved_in(&ram).or_status(Status::NotPermitted)?;
        if let Some(arrived) = arrived {
            pinned = pinned.subtract(&arrived.reserved()?).or_status(Status::Failed)?;
        }
        let poisoned = flags.poisoned_in(&ram).or_status(Status::NotPermitted)?;
        let pinned = pinned.union(&poisoned).or_status(Status::Failed)?;
        let file = BootParamsFile::read(root).or_status(Status::NotPermitted)?;
        Ok(Self {
            kernel: KernelId::read(root).or_status(Status::Failed)?,
            memory_map: map.to_boot(),
            ram,
            pinned,
            boot_params: BootParams::from_running(&file.data).or_status(Status::Unsupported)?,
            efi: Efi::read(root).or_status(Status::NotPermitted)?.and_then(|efi| efi.for_next_kernel()),
            memory: MemInfo::read(root).or_status(Status::Failed)?,
        })
    }
}
