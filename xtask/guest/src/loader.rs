//! A second, small user of the loader's crates: loads kernels and trees that `kho` would never load. The places come
//! from `kho plan --json`, so that everything is right except the part that a test wants wrong.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kho::abi::{BlobDescription, Content, Description, Label, MACHINE_X86_64};
use kho::tree::{WriteError, Writer};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_kexec::assemble::{self, Load, Placement, SegmentKind};
use kho_kexec::bootparam::BootParams;
use kho_kexec::carrier::SetupDataCarrier;
use kho_kexec::sys::facts::boot::BootParamsFile;
use kho_kexec::sys::facts::efi::Efi;
use kho_kexec::sys::facts::host::CpuFlags;
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::root::Root;
use kho_kexec::sys::syscalls::{Kernel, SegmentRef, System};
use kho_kexec::{cmdline, image};
use serde_json::Value;

/// Generation of every tree that this module makes.
pub const GENERATION: u64 = 0x600d;

/// Value of `previous-release` in every tree that this module makes.
pub const RELEASE: &str = "a-test";

/// The next kernel, as given on the command line.
#[derive(clap::Args)]
pub struct Next {
    /// The kernel.
    kernel: PathBuf,
    /// Its initrd.
    #[arg(long)]
    initrd: PathBuf,
    /// Its command line.
    #[arg(long)]
    append: String,
}

/// The places that the plan chose.
pub struct Places {
    /// Destinations of the image's parts: kernel, initrd, boot parameters and state.
    pub placement: Placement,
    /// The scratch region.
    pub scratch: PhysRange,
    /// The mem cache in the tree's order: the entry with the state first.
    pub reserved: Vec<PhysRange>,
    /// The entry's only piece.
    pub blob: PhysRange,
    /// Bytes of the entry.
    pub size: u64,
}

impl Places {
    /// Reads the places from `kho plan --json` with one entry, on standard input.
    pub fn read() -> Result<Self> {
        Self::parse(&serde_json::from_reader(std::io::stdin())?)
    }

    fn parse(plan: &Value) -> Result<Self> {
        let range = |pointer: &str| -> Result<PhysRange> {
            to_range(
                plan.pointer(pointer)
                    .with_context(|| format!("the plan has no {pointer}"))?,
            )
        };
        let state = range("/state")?;
        let list = |pointer: &str| {
            let array = plan.pointer(pointer).and_then(Value::as_array);
            array.with_context(|| format!("the plan has no {pointer}"))
        };
        let cache = list("/mem_cache")?
            .iter()
            .map(|entry| to_range(entry.get("range").context("an entry without range")?))
            .collect::<Result<Vec<_>>>()?;
        let (mut reserved, others): (Vec<_>, Vec<_>) = cache
            .into_iter()
            .partition(|entry| entry.contains_range(state));
        reserved.extend(others);
        ensure!(list("/entries")?.len() == 1, "exactly one entry is needed");
        ensure!(
            list("/entries/0/mem")?.len() == 1,
            "the entry is in several pieces"
        );
        Ok(Self {
            placement: Placement {
                kernel: range("/image/kernel")?,
                initrd: Some(range("/image/initrd")?),
                params: range("/image/params")?,
                state,
            },
            scratch: range("/scratch")?,
            reserved,
            blob: range("/entries/0/mem/0")?,
            size: plan
                .pointer("/entries/0/size")
                .and_then(Value::as_u64)
                .context("the entry has no size")?,
        })
    }

    /// A sealed tree of a first hop, with these ranges reserved, these blobs, and the nodes that `others` adds below
    /// the root.
    pub fn tree(
        &self,
        reserved: &[PhysRange],
        blobs: &[BlobDescription<'_>],
        others: impl Fn(&mut Writer<'_>) -> Result<(), WriteError>,
    ) -> Result<Vec<u8>> {
        let description = Description {
            generation: GENERATION,
            hop: 1,
            previous_release: RELEASE,
            machine: MACHINE_X86_64,
            time: 1,
            carrier: kho::abi::Carrier::Memory,
            scratch: self.scratch,
            mem_cache: reserved,
            blobs,
        };
        let mut tree = vec![0; kho::abi::measure_handover_with(&description, &others)?];
        kho::abi::write_handover_with(&description, &mut tree, &others)?;
        Ok(tree)
    }
}

/// A blob of bytes at `mem`.
pub fn blob<'a>(label: &'a str, bytes: &[u8], mem: &'a [PhysRange]) -> Result<BlobDescription<'a>> {
    Ok(BlobDescription {
        label: Label::new(label)?,
        content: Content::Raw,
        size: bytes.len() as u64,
        mem,
        blake3: *blake3::hash(bytes).as_bytes(),
        taken: 1,
        arrived_hop: 1,
    })
}

/// Loads the next kernel with this tree, which states that the ranges in `reserved` are reserved, and with this
/// content, which has the length of its range.
pub fn load(
    next: &Next,
    placement: Placement,
    tree: &[u8],
    reserved: &[PhysRange],
    content: Option<(&[u8], PhysRange)>,
) -> Result<()> {
    let root = Root::system();
    let file = image::read(&next.kernel)?;
    let kernel = image::parse(&file)?;
    let initrd = std::fs::read(&next.initrd).context("reading the initrd")?;
    let append = next.append.as_bytes();
    let line = cmdline::build(b"", append, true, kernel.header().cmdline_max)?;
    let running = BootParams::from_running(&BootParamsFile::read(&root)?.data)?;
    let efi = Efi::read(&root)?;
    let acpi = efi.as_ref().and_then(Efi::acpi);
    let efi = efi.and_then(|efi| efi.for_next_kernel());
    let memory_map = FirmwareMap::read(&root)?.to_boot();
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let assembled = assemble::assemble(
        &Load {
            image: &*kernel,
            initrd: Some(&initrd),
            cmdline: &line,
            arrive: true,
            running: &running,
            memory_map: &memory_map,
            efi: efi.as_ref(),
            acpi,
            five_level: CpuFlags::read(&root)?.five_level_paging(),
            rng_seed: &seed,
            tree: Some(tree),
            reserved,
            placement,
        },
        &SetupDataCarrier,
    )?;
    let mut segments: Vec<SegmentRef<'_>> = assembled
        .segments
        .iter()
        .map(|segment| SegmentRef {
            buf: &segment.bytes,
            dest: segment.dest.start(),
            // The plan has room for the largest possible state.
            memsz: match segment.kind {
                SegmentKind::State => (segment.bytes.len() as u64).next_multiple_of(PAGE_SIZE),
                _ => segment.dest.len(),
            },
        })
        .collect();
    segments.extend(content.map(|(buf, place)| SegmentRef {
        buf,
        dest: place.start(),
        memsz: place.len(),
    }));
    System.kexec_load(assembled.entry, &segments)?;
    println!("loaded, {} ranges reserved", reserved.len());
    Ok(())
}

/// `{"addr": "0x…", "len": …}`
fn to_range(value: &Value) -> Result<PhysRange> {
    let addr = value
        .get("addr")
        .and_then(Value::as_str)
        .context("no addr")?;
    let addr = addr.strip_prefix("0x").context("no hexadecimal addr")?;
    let len = value.get("len").and_then(Value::as_u64).context("no len")?;
    Ok(PhysRange::new(
        PhysAddr::new(u64::from_str_radix(addr, 16)?),
        len,
    )?)
}
