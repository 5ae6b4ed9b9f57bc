//! Comparison with another implementation of the boot protocol: rust-vmm's `linux-loader`.
#![cfg(target_arch = "x86_64")]

use std::io::Cursor;
use std::mem::{offset_of, size_of};

use kho_kexec::bootparam::{BootE820Entry, BootParams, EfiInfo, SetupHeader};
use kho_kexec::image::parse;
use linux_loader::bootparam;
use linux_loader::loader::{KernelLoader, bzimage::BzImage};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::FromZeros;
use zerocopy::IntoBytes;

use crate::fixture::{PAYLOAD, RELEASES, kernel_of};

#[test]
fn layouts_agree() {
    assert_eq!(size_of::<BootParams>(), size_of::<bootparam::boot_params>());
    assert_eq!(
        size_of::<SetupHeader>(),
        size_of::<bootparam::setup_header>()
    );
    assert_eq!(size_of::<EfiInfo>(), size_of::<bootparam::efi_info>());
    assert_eq!(
        size_of::<BootE820Entry>(),
        size_of::<bootparam::boot_e820_entry>()
    );
    macro_rules! same {
        ($ours:ident, $theirs:ident: $($field:ident)*) => {
            $(assert_eq!(offset_of!($ours, $field), offset_of!(bootparam::$theirs, $field), stringify!($field));)*
        };
    }
    same!(BootParams, boot_params: screen_info acpi_rsdp_addr ext_ramdisk_image ext_ramdisk_size ext_cmd_line_ptr
        edid_info efi_info alt_mem_k e820_entries eddbuf_entries edd_mbr_sig_buf_entries secure_boot
        sentinel hdr edd_mbr_sig_buffer e820_table eddbuf);
    same!(SetupHeader, setup_header: setup_sects root_flags syssize boot_flag header version kernel_version
        type_of_loader loadflags ramdisk_image ramdisk_size cmd_line_ptr initrd_addr_max kernel_alignment
        relocatable_kernel xloadflags cmdline_size hardware_subarch setup_data pref_address init_size
        handover_offset);
    same!(EfiInfo, efi_info: efi_loader_signature efi_systab efi_memdesc_size efi_memdesc_version efi_memmap
        efi_memmap_size efi_systab_hi efi_memmap_hi);
}

#[test]
fn images_are_read_alike() {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
    for release in &RELEASES {
        let file = kernel_of(release);
        let at = GuestAddress(16 << 20);
        let theirs = BzImage::load(&memory, Some(at), &mut Cursor::new(&file), None).unwrap();
        let ours = parse(&file).unwrap();
        let mut header = SetupHeader::new_zeroed();
        header
            .as_mut_bytes()
            .copy_from_slice(&ours.setup_header()[..size_of::<SetupHeader>()]);
        let hdr = theirs.setup_header.unwrap();
        assert_eq!({ hdr.version }, header.version.get());
        assert_eq!({ hdr.init_size }, header.init_size.get());
        assert_eq!({ hdr.cmdline_size }, header.cmdline_size.get());
        assert_eq!({ hdr.kernel_alignment }, header.kernel_alignment.get());
        assert_eq!({ hdr.pref_address }, header.pref_address.get());
        assert_eq!({ hdr.xloadflags }, header.xloadflags.get());
        assert_eq!({ hdr.setup_sects }, header.setup_sects);
        // `linux-loader` puts the payload at the given address, and returns its end.
        assert_eq!(
            theirs.kernel_end,
            theirs.kernel_load.0 + ours.payload().len() as u64
        );
        let mut loaded = vec![0; PAYLOAD];
        memory.read_slice(&mut loaded, theirs.kernel_load).unwrap();
        assert_eq!(loaded, ours.payload());
    }
}
