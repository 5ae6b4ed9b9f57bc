//! A load on x86_64.

use super::parts::{Parts, Scale};
use crate::args;
use crate::exit::{Fail, OrStatus, Status};
use crate::handover::enter::{self, Way};
use kho::{PhysAddr, RangeSet};
use kho_kexec::assemble::{self, AssembleError, Assembled, Load};
use kho_kexec::bootparam::{BootParams, EfiFacts, MemoryMapEntry};
use kho_kexec::carrier::{
    self, Carrier, KernelConfig, LinkedCarrier, SetupDataCarrier, StateShape,
};
use kho_kexec::image::{self, Image, ImageError};
use kho_kexec::sys::facts::boot::BootParamsFile;
use kho_kexec::sys::facts::efi::Efi;
use kho_kexec::sys::facts::host::CpuFlags;
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::root::Root;

/// Largest number of early reservations.
pub const EARLY_RANGES: usize = carrier::EARLY_RANGES;

/// Facts from which the next kernel's `boot_params` are made.
pub struct Boot {
    /// Memory map for the next kernel.
    memory_map: Vec<MemoryMapEntry>,
    /// The running kernel's boot parameters.
    boot_params: Box<BootParams>,
    /// Facts about UEFI runtime services; `None` without them.
    efi: Option<EfiFacts>,
    /// ACPI root pointer that UEFI gave to this kernel, with or without runtime services.
    acpi: Option<PhysAddr>,
    /// Whether the running kernel uses five-level paging.
    five_level: bool,
}

impl Boot {
    /// Reads the facts. `map` is the memory map for the next kernel, in which memory that failed is unusable.
    ///
    /// # Errors
    ///
    /// [`Status::NotPermitted`], [`Status::Unsupported`].
    pub fn read(root: &Root, map: &FirmwareMap, _failed: &RangeSet) -> Result<Self, Fail> {
        let efi = Efi::read(root).or_status(Status::NotPermitted)?;
        let file = BootParamsFile::read(root).or_status(Status::NotPermitted)?;
        let cpu = CpuFlags::read(root).or_status(Status::Failed)?;
        Ok(Self {
            memory_map: map.to_boot(),
            boot_params: BootParams::from_running(&file.data).or_status(Status::Unsupported)?,
            acpi: efi.as_ref().and_then(Efi::acpi),
            efi: efi.and_then(|efi| efi.for_next_kernel()),
            five_level: cpu.five_level_paging(),
        })
    }

    /// Returns a warning about a feature that the next kernel will lack.
    pub fn warning(&self, image: &dyn Image) -> Option<String> {
        (self.efi.is_some() && !image.header().efi_kexec).then(|| {
            format!(
                "{} is built without kexec and cannot take UEFI runtime services over: it will have no EFI variables",
                image.release().unwrap_or("the next kernel")
            )
        })
    }

    /// Returns the length of the state segment, in bytes, for a tree of `tree` bytes and up to `ranges` ranges.
    ///
    /// # Errors
    ///
    /// [`Status::TooManyRanges`].
    pub fn state_len(&self, tree: u64, ranges: usize) -> Result<u64, Fail> {
        let shape = StateShape {
            tree_len: Some(tree),
            reserved: ranges,
            memory_map: self.memory_map.len(),
            efi_regions: self.efi.as_ref().map(|efi| efi.runtime_map.len()),
            rng_seed: true,
        };
        SetupDataCarrier
            .state_len(&shape)
            .or_status(Status::TooManyRanges)
    }

    /// Returns the length of the parameters segment, in bytes.
    pub fn params_len(&self, cmdline: u64, _ranges: usize) -> u64 {
        assemble::params_len(cmdline)
    }

    /// Assembles the image with the chain and the tree.
    ///
    /// # Errors
    ///
    /// [`AssembleError`].
    pub fn assemble<'a>(&'a self, parts: &Parts<'a>) -> Result<Assembled<'a>, AssembleError> {
        let load = Load {
            image: parts.image,
            initrd: parts.initrd,
            cmdline: parts.cmdline,
            arrive: true,
            running: &self.boot_params,
            memory_map: &self.memory_map,
            efi: self.efi.as_ref(),
            acpi: self.acpi,
            five_level: self.five_level,
            rng_seed: parts.seed,
            tree: Some(parts.tree),
            reserved: parts.reserved,
            placement: parts.placement,
        };
        match parts.next {
            Some(next) => assemble::assemble(&load, &LinkedCarrier { next }),
            None => assemble::assemble(&load, &SetupDataCarrier),
        }
    }
}

/// Returns the file as it is: a bzImage unpacks itself, or [`enter`] unpacks it.
///
/// # Errors
///
/// None.
pub fn unpack(file: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    Ok(file)
}

/// Recognises and checks an image.
///
/// # Errors
///
/// [`ImageError`].
pub fn parse(file: &[u8]) -> Result<Box<dyn Image + '_>, ImageError> {
    image::parse(file)
}

/// Chooses where the next kernel is entered, as [`enter::way`].
///
/// # Errors
///
/// As [`enter::way`].
pub fn way(
    args: &args::Next,
    file: &[u8],
    image: &dyn Image,
    line: &[u8],
    five_level: bool,
) -> Result<Way, Fail> {
    enter::way(args, file, image, line, five_level)
}

/// Returns the number of early reservations that a kernel of this version and configuration can make.
pub fn early_ranges(
    version: Option<(u32, u32)>,
    config: Option<KernelConfig>,
    scale: Scale,
) -> usize {
    carrier::early_ranges(version, config, scale.map_entries)
}

/// Returns the reason for which the kernel called `name`, whose configuration is known, takes few ranges, with advice.
pub fn small_table(name: &str, scale: Scale) -> String {
    format!(
        "the e820 table of {name} is small (CONFIG_NODES_SHIFT), and this machine's memory map has {} entries: hand over to a kernel that is built with more nodes, or to 7.3",
        scale.map_entries
    )
}
