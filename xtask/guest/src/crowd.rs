//! Loads a kernel with as many separate early reservations as asked for, to find out how many one takes.
//!
//! `kho` itself never plans for more than a cap. The plan's only entry gives the memory: its first part takes the state
//! segment, and single pages of the rest, each apart from the next, are reserved.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kho::abi::{Description, MACHINE_X86_64};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};
use kho_kexec::assemble::{self, Load, Placement};
use kho_kexec::bootparam::BootParams;
use kho_kexec::carrier::SetupDataCarrier;
use kho_kexec::sys::facts::boot::BootParams as BootParamsFile;
use kho_kexec::sys::facts::efi::Efi;
use kho_kexec::sys::facts::memmap::FirmwareMap;
use kho_kexec::sys::root::Root;
use kho_kexec::sys::syscalls::{Kernel, LoadFlags, SegmentRef, System};
use kho_kexec::{cmdline, image};

/// Room for chain and tree.
const STATE: u64 = 64 << 10;

/// What `kho-guest load-crowd` takes; `kho plan --json` with one entry comes on standard input.
#[derive(clap::Args)]
pub struct Arguments {
    /// How many ranges, the one with the state included.
    count: u64,
    /// The kernel.
    kernel: PathBuf,
    /// Its initrd.
    #[arg(long)]
    initrd: PathBuf,
    /// Its command line.
    #[arg(long)]
    append: String,
}

/// `kho-guest load-crowd`
pub fn load(arguments: &Arguments) -> Result<()> {
    let root = Root::system();
    let places = crate::damage::places(&serde_json::from_reader(std::io::stdin())?)?;
    let room = places.blob;
    let needed = STATE + arguments.count * 2 * PAGE_SIZE;
    ensure!(
        room.len() >= needed,
        "the entry has {:#x} bytes, {needed:#x} are needed",
        room.len()
    );
    let page = |at: u64, len: u64| PhysRange::new(PhysAddr::new(room.start().get() + at), len);
    let state = page(0, STATE)?;
    let mut reserved = vec![state];
    for number in 1..arguments.count {
        reserved.push(page(STATE + number * 2 * PAGE_SIZE, PAGE_SIZE)?);
    }
    let description = Description {
        generation: 1,
        hop: 1,
        previous_release: "crowd",
        machine: MACHINE_X86_64,
        time: 0,
        scratch: places.scratch,
        mem_cache: &reserved,
        blobs: &[],
    };
    let mut tree = vec![0; kho::abi::measure_handover(&description)?];
    kho::abi::write_handover(&description, &mut tree)?;

    let file = image::read(&arguments.kernel)?;
    let kernel = image::parse(&file)?;
    let initrd = std::fs::read(&arguments.initrd).context("reading the initrd")?;
    let append = arguments.append.as_bytes();
    let line = cmdline::build(b"", append, true, kernel.needs().cmdline_max)?;
    let running = BootParams::from_running(&BootParamsFile::read(&root)?.data)?;
    let efi = Efi::read(&root)?.and_then(|efi| efi.for_next_kernel());
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
            rng_seed: &seed,
            tree: Some(&tree),
            reserved: &reserved,
            placement: Placement {
                state,
                ..places.placement
            },
        },
        &SetupDataCarrier,
    )?;
    let segments: Vec<SegmentRef<'_>> = assembled
        .segments
        .iter()
        .map(|segment| SegmentRef {
            buf: &segment.bytes,
            dest: segment.dest.start(),
            memsz: segment.dest.len(),
        })
        .collect();
    System.kexec_load(assembled.entry, &segments, LoadFlags::DEFAULT)?;
    println!("loaded, {} ranges reserved", reserved.len());
    Ok(())
}
