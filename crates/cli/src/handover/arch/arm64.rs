//! A load on arm64.

use super::parts::{Parts, Scale};
use crate::args;
use crate::exit::{Fail, OrStatus, Status, chain};
use crate::handover::decode;
use crate::handover::enter::Way;
use kho::{PAGE_SIZE, RangeSet};
use kho_kexec::arm64::{self, Load};
use kho_kexec::assemble::{AssembleError, Assembled, arrival_archive};
use kho_kexec::carrier::KernelConfig;
use kho_kexec::devicetree::DeviceTree;
use kho_kexec::image::{Arm64Image, Arm64ImageError, Image, ImageError, packed_arm64};
use kho_kexec::sys::facts::devicetree;
use kho_kexec::sys::facts::gic;
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::root::{ATTRIBUTE_LIMIT, Root};
use std::borrow::Cow;

/// Largest number of early reservations.
pub const EARLY_RANGES: usize = arm64::EARLY_RANGES;

/// The devicetree from which that of the next kernel is made.
pub struct Boot {
    running: DeviceTree,
}

impl Boot {
    /// Reads the devicetree. The next kernel finds RAM by the firmware's description, so memory that failed cannot be
    /// left out.
    ///
    /// # Errors
    ///
    /// [`Status::NotPermitted`], [`Status::Unsupported`], [`Status::MemoryFailed`].
    pub fn read(root: &Root, _map: &FirmwareMap, failed: &RangeSet) -> Result<Self, Fail> {
        if let Some(range) = failed.iter().next() {
            return Err(Fail::new(
                Status::MemoryFailed,
                format!("memory failed at {range} (a hardware error), and no devicetree can tell the next kernel"),
            )
            .fix("replace the memory, or reboot without a handover"));
        }
        let page = rustix::param::page_size() as u64;
        if page != PAGE_SIZE {
            return Err(Fail::new(
                Status::Unsupported,
                format!("the running kernel has pages of {} KiB", page >> 10),
            )
            .fix("boot a kernel with pages of 4 KiB"));
        }
        let found =
            devicetree::read(root).map_err(|err| Fail::new(Status::NotPermitted, chain(&err)))?;
        let none = || {
            Fail::new(
                Status::Unsupported,
                "/sys/firmware/fdt does not exist: this kernel started without a devicetree",
            )
            .fix("boot a kernel with CONFIG_OF (Debian's have it)")
        };
        let running = found.ok_or_else(none)?;
        refuse_its(root, &running)?;
        Ok(Self { running })
    }

    /// Returns nothing: the next kernel takes over all that this one has.
    pub fn warning(&self, _image: &dyn Image) -> Option<String> {
        None
    }

    /// Returns the length of the state segment, in bytes: the tree alone.
    ///
    /// # Errors
    ///
    /// None.
    pub fn state_len(&self, tree: u64, _ranges: usize) -> Result<u64, Fail> {
        Ok(tree.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX))
    }

    /// Returns the length of the parameters segment, in bytes, for up to `ranges` ranges.
    pub fn params_len(&self, cmdline: u64, ranges: usize) -> u64 {
        arm64::params_len(self.running.size(), cmdline, ranges)
    }

    /// Assembles the image with the devicetree and the tree. kho's archive goes before the user's initrd, as on x86.
    ///
    /// # Errors
    ///
    /// [`AssembleError`].
    pub fn assemble<'a>(&'a self, parts: &Parts<'a>) -> Result<Assembled<'a>, AssembleError> {
        let mut initrd = arrival_archive(parts.reserved, parts.cmdline.rdinit.as_deref())?;
        initrd.extend_from_slice(parts.initrd.unwrap_or_default());
        let [a, b, c, d, e, f, g, h, ..] = *parts.seed;
        arm64::assemble(Load {
            image: parts.image,
            initrd: Some(Cow::Owned(initrd)),
            cmdline: &parts.cmdline.line,
            running: &self.running,
            kaslr_seed: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            rng_seed: parts.seed,
            tree: Some(parts.tree),
            reserved: parts.reserved,
            scratch: parts.scratch,
            placement: parts.placement,
        })
    }
}

/// Refuses a machine whose interrupt controller writes to memory of the running kernel, unless that kernel gave it none.
fn refuse_its(root: &Root, running: &DeviceTree) -> Result<(), Fail> {
    let line = root
        .bytes("proc/cmdline", ATTRIBUTE_LIMIT)
        .or_status(Status::Failed)?;
    let off = line
        .split(u8::is_ascii_whitespace)
        .any(|word| word == gic::WITHOUT_LPIS.as_bytes());
    if off || !gic::has_its(root, running).or_status(Status::NotPermitted)? {
        return Ok(());
    }
    Err(Fail::new(
        Status::Unsupported,
        "the interrupt controller (GICv3 with ITS) keeps tables in this kernel's memory and goes on using them after a kexec: they would be overwritten",
    )
    .fix(format!(
        "boot the running kernel and every next one with {} (interrupts of PCI devices are then wired ones)",
        gic::WITHOUT_LPIS
    )))
}

/// Unpacks a kernel that is a gzip'ed `Image` or an EFI zboot kernel. Returns any other file as it is.
///
/// # Errors
///
/// [`ImageError::Arm64`].
pub fn unpack(file: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    let Some(packed) = packed_arm64(&file)? else {
        return Ok(file);
    };
    let damaged = |why: String| Arm64ImageError::Packed {
        format: packed.format.name(),
        why,
    };
    let bytes = decode::unpacked(packed.format, packed.bytes, packed.len).map_err(damaged)?;
    if bytes.len() as u64 != packed.len {
        let why = format!(
            "it does not unpack to the {:#x} bytes that it states",
            packed.len
        );
        return Err(damaged(why).into());
    }
    Ok(bytes)
}

/// Recognises and checks an image.
///
/// # Errors
///
/// [`ImageError::Empty`], [`ImageError::Arm64`].
pub fn parse(file: &[u8]) -> Result<Box<dyn Image + '_>, ImageError> {
    if file.is_empty() {
        return Err(ImageError::Empty);
    }
    let image = Arm64Image::parse(file)?;
    image.check_page_size(PAGE_SIZE)?;
    Ok(Box::new(image))
}

/// Chooses where the next kernel is entered: there is one place.
///
/// # Errors
///
/// None.
pub fn way(
    _args: &args::Next,
    _file: &[u8],
    _image: &dyn Image,
    _line: &[u8],
    _five_level: bool,
) -> Result<Way, Fail> {
    Ok(Way::Image)
}

/// Returns the number of early reservations that a kernel of this configuration can make, whatever its version.
pub fn early_ranges(
    _version: Option<(u32, u32)>,
    config: Option<KernelConfig>,
    scale: Scale,
) -> usize {
    arm64::early_ranges(config, scale.cpus)
}

/// Returns the reason for which the kernel called `name`, whose configuration is known, takes few ranges, with advice.
pub fn small_table(name: &str, scale: Scale) -> String {
    format!(
        "the early table of {name} is small (CONFIG_NR_CPUS), and this machine has {} processors: hand over to a kernel that is built for more",
        scale.cpus
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// An `Image` without anything but its header.
    fn image() -> Vec<u8> {
        let mut file = vec![0; 0x1000];
        file[17] = 0x20;
        file[24] = 0xa;
        file[56..60].copy_from_slice(b"ARM\x64");
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn packed_images_are_unpacked() {
        let image = image();
        assert_eq!(unpack(image.clone()).unwrap(), image);
        let packed = gzip(&image);
        assert_eq!(unpack(packed.clone()).unwrap(), image);
        assert!(parse(&image).is_ok());

        let mut zboot = vec![0; 0x80];
        zboot[..8].copy_from_slice(b"MZ\0\0zimg");
        zboot[8] = 0x80;
        zboot[12..16].copy_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
        zboot[24..28].copy_from_slice(b"gzip");
        zboot.extend(&packed);
        assert_eq!(unpack(zboot.clone()).unwrap(), image);

        let mut longer = packed.clone();
        let at = longer.len() - 4;
        longer[at] = 1;
        for bad in [
            longer,
            packed[..40]
                .iter()
                .copied()
                .chain([0, 0x10, 0, 0])
                .collect(),
        ] {
            let text = unpack(bad).unwrap_err().to_string();
            assert!(text.contains("cannot be unpacked (gzip:"), "{text}");
        }
    }

    #[test]
    fn other_kernels_are_named() {
        assert!(matches!(parse(b""), Err(ImageError::Empty)));
        let mut big = image();
        big[24] = 0xe;
        let text = parse(&big).unwrap_err().to_string();
        assert!(text.contains("pages of 64 KiB"), "{text}");
        let packed = unpack(gzip(
            b"an initrd, and no kernel, of more than 64 bytes, so that it is unpacked",
        ));
        let text = parse(&packed.unwrap()).unwrap_err().to_string();
        assert!(text.contains("needed is an arm64 Image"), "{text}");
    }
}
