//! Kexec HandOver on Linux: images, boot parameters and carriers (the formats), and the system calls.
//!
//! The formats ([`image`], [`bootparam`], [`carrier`], [`cmdline`], [`cpio`], [`entry`], [`assemble`], and for arm64
//! [`devicetree`] and [`arm64`]) take and return bytes; they do not access the machine and compile on every host.
//! [`sys`] reads and changes the running system.
//!
//! # A loader: the segments of a handover
//!
//! [`assemble::assemble`](assemble::assemble()) makes the arguments of `kexec_load` from the places that a planner
//! chose (`kho::plan`, see the example of that crate) and a state tree.
//!
//! ```no_run
//! use kho::PhysRange;
//! use kho_kexec::assemble::{Load, Placement, assemble};
//! use kho_kexec::bootparam::BootParams;
//! use kho_kexec::carrier::SetupDataCarrier;
//! use kho_kexec::sys::facts::boot::BootParamsFile;
//! use kho_kexec::sys::facts::host::CpuFlags;
//! use kho_kexec::sys::facts::memmap::FirmwareMap;
//! use kho_kexec::sys::root::Root;
//! use kho_kexec::sys::syscalls::{Kernel, SegmentRef, System};
//! use kho_kexec::{cmdline, image};
//!
//! # fn load(placement: Placement, tree: &[u8], reserved: &[PhysRange]) -> Result<(), Box<dyn std::error::Error>> {
//! let root = Root::system();
//! let file = image::read("/boot/vmlinuz".as_ref())?;
//! let kernel = image::parse(&file)?;
//! let initrd = std::fs::read("/boot/initrd.img")?;
//! let line = cmdline::build(b"", b"root=/dev/vda1", true, kernel.header().cmdline_max)?;
//! let running = BootParams::from_running(&BootParamsFile::read(&root)?.data)?;
//! let memory_map = FirmwareMap::read(&root)?.to_boot();
//! let assembled = assemble(
//!     &Load {
//!         image: &*kernel,
//!         initrd: Some(&initrd),
//!         cmdline: &line,
//!         arrive: true,
//!         running: &running,
//!         memory_map: &memory_map,
//!         efi: None, // `sys::facts::efi::Efi::for_next_kernel`, after a start by UEFI
//!         acpi: None,
//!         five_level: CpuFlags::read(&root)?.five_level_paging(),
//!         rng_seed: &[0; 32], // of `/dev/urandom`
//!         tree: Some(tree),
//!         reserved,
//!         placement,
//!     },
//!     &SetupDataCarrier,
//! )?;
//! let segments: Vec<SegmentRef<'_>> = assembled
//!     .segments
//!     .iter()
//!     .map(|segment| SegmentRef {
//!         buf: &segment.bytes,
//!         dest: segment.dest.start(),
//!         memsz: segment.dest.len(),
//!     })
//!     .collect(); // and a segment for each piece of a blob
//! System.kexec_load(assembled.entry, &segments)?;
//! # Ok(())
//! # }
//! ```
//!
//! # A boot loader or a VMM: the chain alone
//!
//! A program that fills in `boot_params` of a guest can hand memory over to that guest without a kexec: the state
//! segment goes to the address for which it was encoded, and `hdr.setup_data` gets the address of the segment's first
//! node.
//!
//! ```
//! use kho::chain::{ChainError, Policy, ShortIndirect, walk};
//! use kho::{PhysAddr, PhysRange};
//! use kho_kexec::carrier::{Cargo, Carrier, MAX_NODES, SetupDataCarrier, node_type};
//!
//! let at = PhysAddr::new(0x6000_0000);
//! let kept = PhysRange::new(PhysAddr::new(0x4000_0000), 0x20_0000)?;
//! let state = PhysRange::new(at, 0x2000)?;
//! let cargo = Cargo {
//!     tree: Some(b"the state tree"), // see `kho::abi`
//!     reserved: &[state, kept],
//!     memory_map: &[],
//!     efi: None,
//!     rng_seed: None,
//! };
//! let segment = SetupDataCarrier.encode(at, &cargo)?;
//! assert_eq!(segment.bytes.len() as u64, state.len());
//! let setup_data = segment.first.ok_or("nothing is carried")?;
//!
//! // As the guest's kernel will read it.
//! let policy = Policy { max_nodes: MAX_NODES, short_indirect: ShortIndirect::Refuse };
//! let nodes = walk(setup_data.get(), policy, |addr, buf| {
//!     let from = (addr.get() - at.get()) as usize;
//!     buf.copy_from_slice(segment.bytes.get(from..from + buf.len()).ok_or(std::fmt::Error)?);
//!     Ok(())
//! });
//! let nodes = nodes.collect::<Result<Vec<_>, ChainError<std::fmt::Error>>>()?;
//! let reserved: Vec<PhysRange> = nodes.iter().filter_map(|node| node.range_of(node_type::RESERVE)).collect();
//! assert_eq!(reserved, [state, kept]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Any program: the kind of a file
//!
//! ```
//! use kho_kexec::image;
//!
//! let elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";
//! assert_eq!(
//!     image::parse(elf).unwrap_err().to_string(),
//!     "this is an ELF file for x86_64 (64-bit); needed is a bzImage for x86_64 (Debian: /boot/vmlinuz-*-amd64)"
//! );
//! ```

pub mod arm64;
pub mod assemble;
pub mod bootparam;
mod bytes;
pub mod carrier;
pub mod cmdline;
pub mod cpio;
pub mod devicetree;
pub mod entry;
pub mod image;
pub mod stand_in;
pub mod sys;
