//! Facts about this machine that the planner needs.

use super::arch::Boot;
use super::pages::Pages;
use crate::arrived::Arrived;
use crate::exit::{Fail, OrStatus, Status};
use crate::session::Session;
use kho::{PhysRange, RangeSet};
use kho_kexec::sys::doctor::{self, Finding, Severity};

use kho_kexec::sys::facts::host::KernelId;
use kho_kexec::sys::facts::kexec::KexecState;
use kho_kexec::sys::facts::meminfo::MemInfo;
use kho_kexec::sys::facts::memmap::FirmwareMap;

/// Facts that are read once for a plan.
pub struct Machine {
    /// Identity of the running kernel.
    pub kernel: KernelId,
    /// RAM in the map for the next kernel: the RAM of the firmware's map, without memory that failed.
    pub ram: RangeSet,
    /// Pages whose memory failed since this kernel started (PG_hwpoison). Memory that failed under earlier kernels is
    /// not RAM in the map that this kernel got.
    pub failed: RangeSet,
    /// Pages that are offline or that the running kernel holds as reserved. Their flags are read on demand.
    pub pages: Pages,
    /// Number of entries of the memory map for the next kernel.
    pub map_entries: usize,
    /// Facts from which the next kernel's parameters are made.
    pub boot: Boot,
    /// Memory figures, in bytes.
    pub memory: MemInfo,
    /// State of kexec in the kernel: whether an image is loaded, and whether the kernel accepts another load.
    pub kexec: KexecState,
}

impl Machine {
    /// Reads all facts. First refuses a machine that cannot hand over.
    ///
    /// # Errors
    ///
    /// One [`Status`] per reason: that of the first finding that `kho doctor` reports as blocking.
    pub fn read(session: &Session, arrived: Option<&Arrived>) -> Result<Self, Fail> {
        refuse(&doctor::examine(&session.root))?;
        let root = &session.root;
        let map = FirmwareMap::read(root).or_status(Status::FirmwareMap)?;
        // The count is read before the list of failed pages, so that `kho exec` notices every page that the list lacks.
        let memory = MemInfo::read(root).or_status(Status::Failed)?;
        let kexec = KexecState::read(root).or_status(Status::Failed)?;
        let pages = Pages::open(session, map.ram(), arrived, kexec.loaded != Some(false))?;
        // The kernel counts failed pages. If the count is 0, no page flags have to be read.
        let failed = match memory.hardware_corrupted {
            0 => RangeSet::new(),
            _ => pages.poisoned()?,
        };
        let next_map = without_failed(&map, &failed)?;
        // With the module, slack and memory that was claimed or released is ordinary memory by now. Without the module,
        // everything that arrived must still be reserved. The check does not find one case: memory that a module
        // released earlier in this boot, and that now holds pages of the loaded image, is reserved again.
        if let Some(arrived) = arrived
            && !crate::module::present(root)
        {
            require_reserved(arrived, &pages)?;
        }
        if kexec.loaded == Some(true) && kexec.load_limit_reboot == Some(1) {
            return Err(Fail::new(
                Status::KexecDisabled,
                "one more load or unload is allowed (kernel.kexec_load_limit_reboot), and replacing the loaded kernel takes two",
            )
            .fix("kho exec starts what is loaded; only a reboot clears the limit"));
        }
        Ok(Self {
            kernel: KernelId::read(root).or_status(Status::Failed)?,
            map_entries: next_map.entries().len(),
            boot: Boot::read(root, &next_map, &failed)?,
            ram: next_map.ram().try_clone().or_status(Status::Failed)?,
            failed,
            pages,
            memory,
            kexec,
        })
    }
}

/// Largest number of entries of the memory map for the next kernel, unless the firmware's map has more. Every kernel
/// that supports 64 NUMA nodes has room for that many (`E820_MAX_ENTRIES`, `arch/x86/include/asm/e820/types.h`). A
/// kernel with less room ignores the last entries, and does not use that memory.
const MAP_ENTRIES: usize = 320;

/// Returns the memory map for the next kernel.
fn without_failed(map: &FirmwareMap, failed: &RangeSet) -> Result<FirmwareMap, Fail> {
    let next = map.without(failed).or_status(Status::Failed)?;
    let entries = next.entries().len();
    if entries > MAP_ENTRIES.max(map.entries().len()) {
        return Err(Fail::new(
            Status::MemoryFailed,
            format!(
                "memory failed in {} places, which makes a memory map of {entries} entries for the next kernel: {MAP_ENTRIES} are safe",
                failed.len()
            ),
        )
        .fix("replace the memory; after a cold boot nothing is known of what failed"));
    }
    Ok(next)
}

impl Machine {
    /// Refuses to hand over kept memory that failed. `whose` names its owner, `fix` is the advice in the message.
    ///
    /// # Errors
    ///
    /// [`Status::MemoryFailed`].
    pub fn require_good(&self, range: PhysRange, whose: &str, fix: &str) -> Result<(), Fail> {
        match self.failed.first_overlap(range) {
            None => Ok(()),
            Some(failed) => Err(Fail::new(
                Status::MemoryFailed,
                format!("{whose}: memory failed at {failed} (a hardware error), inside {range}: the content there is lost"),
            )
            .fix(fix)),
        }
    }

    /// Refuses to carry content on in place if its memory is not reserved any more.
    ///
    /// # Errors
    ///
    /// [`Status::NotReserved`].
    pub fn require_still_reserved(&self, range: PhysRange, label: &str) -> Result<(), Fail> {
        let one = RangeSet::from_ranges([range]).or_status(Status::Failed)?;
        if self.pages.reserved_in(&one)?.contains_range(range) {
            return Ok(());
        }
        Err(Fail::new(
            Status::NotReserved,
            format!("{label}: its memory at {range} was given back to the system, so its content is lost"),
        )
        .fix(format!("kho keep --remove {label}")))
    }
}

/// Stops at the first finding that makes a handover impossible or unsafe.
///
/// # Errors
///
/// The status of that finding.
pub fn refuse(findings: &[Finding]) -> Result<(), Fail> {
    match findings.iter().find(|f| f.severity == Severity::Block) {
        Some(finding) => {
            Err(Fail::new(status_of(finding.id), finding.explained()).fix(&finding.fix))
        }
        None => Ok(()),
    }
}

/// Returns the status of a blocking finding.
fn status_of(id: &str) -> Status {
    match id {
        "privileges" | "page-flags" | "kernel-memory" | "page-map" => Status::NotPermitted,
        "kexec" => Status::KexecDisabled,
        "lockdown" | "ima" => Status::LockedDown,
        "firmware-map" | "hardware-corrupted" => Status::FirmwareMap,
        "memory-encryption" => Status::MemoryEncrypted,
        _ => Status::Unsupported,
    }
}

/// Refuses to carry on memory that arrived and is not reserved in this kernel: other data may have overwritten it.
fn require_reserved(arrived: &Arrived, pages: &Pages) -> Result<(), Fail> {
    let all = RangeSet::from_ranges(arrived.mem_cache.iter().copied()).or_status(Status::Failed)?;
    let reserved = pages.held_in(&all)?;
    match arrived.mem_cache.iter().find(|range| !reserved.contains_range(**range)) {
        None => Ok(()),
        Some(range) => Err(Fail::new(
            Status::NotReserved,
            format!("{range} was handed over, but not all of it is reserved in this kernel"),
        )
        .fix(
            "if kho.ko was loaded in this boot, it gave that memory back: load it again, because it knows what is left. Otherwise kho status shows the page, and kho load --forget-arrived drops everything that arrived and begins a new chain",
        )),
    }
}
