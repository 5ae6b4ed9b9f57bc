//! Kernels and machines made up for the tests. The headers are those of Debian's cloud kernels; the payload
//! behind them is a few bytes.

use kho::{PhysAddr, PhysRange};
use kho_kexec::bootparam::{BootParams, E820Kind, HDR_OFFSET, MemoryMapEntry};

/// The setup header (0x1f1 on) and the version string of a Debian kernel.
pub struct Release {
    pub header: &'static str,
    pub banner: &'static str,
    pub release: &'static str,
    pub init_size: u64,
}

pub const RELEASES: [Release; 3] = [
    Release {
        header: "27010020790d000000ffff000055aaeb6a486472530f02000000000010c04200010080000010000000000000000000\
                 00000000e05b000000000000ffffff7f0000200001157f00ff070000000000000000000000000000cc0200003ffdd500\
                 0000000000000000000000010000000000803703f094d600dc5fd700",
        banner: "6.1.0-50-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-07-02)",
        release: "6.1.0-50-cloud-amd64",
        init_size: 0x0337_8000,
    },
    Release {
        header: "270100200e0b000000ffff000055aaeb6a486472530f02000000000010c04200010080000010000000000000000000\
                 00000000005c000000000000ffffff7f0000200001157f00ff070000000000000000000000000000cc020000da75ad00\
                 0000000000000000000000010000000000c07d03d0abaf001cb4b000",
        banner: "6.12.95+deb12-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.12.95-1~bpo12+1 (2026-07-05)",
        release: "6.12.95+deb12-cloud-amd64",
        init_size: 0x037d_c000,
    },
    Release {
        header: "270100204c0d000000ffff000055aaeb6a486472530f02000000000010004300010080000010000000000000000000\
                 00000000205c000000000000ffffff7f0000200001157f00ff070000000000000000000000000000cc020000b72fd100\
                 000000000000000000000001000000000090c30380fdd300c092d400",
        banner: "7.3.4+deb13-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1~bpo13+1 (2026-11-15)",
        release: "7.3.4+deb13-cloud-amd64",
        init_size: 0x03c3_9000,
    },
];

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Bytes of payload in [`kernel`].
pub const PAYLOAD: usize = 0x4000;
/// Bytes of the setup part in [`kernel`].
pub const SETUP: usize = 40 * 512;

/// A whole image: a release's header and banner with a short payload (`syssize` says so).
pub fn kernel_of(release: &Release) -> Vec<u8> {
    let mut file = vec![0; SETUP];
    let header = unhex(release.header);
    file[HDR_OFFSET..HDR_OFFSET + header.len()].copy_from_slice(&header);
    put(&mut file, 0x1f4, &u32::to_le_bytes((PAYLOAD / 16) as u32));
    let at = 0x200 + usize::from(u16::from_le_bytes([file[0x20e], file[0x20f]]));
    put(&mut file, at, release.banner.as_bytes());
    file.extend((0..PAYLOAD).map(|n| (n % 251) as u8));
    put(&mut file, 0x268, &u32::to_le_bytes(KERNEL_INFO as u32));
    put(&mut file, SETUP + KERNEL_INFO, &kernel_info(0x8000_0009));
    file
}

/// Offset of `kernel_info` in the payload.
pub const KERNEL_INFO: usize = PAYLOAD - 64;

/// `kernel_info` as all kernels have it so far: magic number, both sizes, `setup_type_max`.
pub fn kernel_info(setup_type_max: u32) -> Vec<u8> {
    [0x506f_544c, 16, 16, setup_type_max]
        .map(u32::to_le_bytes)
        .concat()
}

/// A kernel of boot protocol 2.13 (Linux 5.4): its header ends before `kernel_info_offset`.
pub fn old_kernel() -> Vec<u8> {
    let mut file = kernel();
    put(&mut file, 0x201, &[0x66]);
    put(&mut file, 0x206, &0x020d_u16.to_le_bytes());
    put(&mut file, 0x268, &[0; 4]);
    put(&mut file, SETUP + KERNEL_INFO, &[0; 16]);
    file
}

pub fn kernel() -> Vec<u8> {
    kernel_of(&RELEASES[1])
}

pub fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

pub fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

/// A QEMU guest's map.
pub fn memory_map() -> Vec<MemoryMapEntry> {
    [
        (0, 0x9_fc00, E820Kind::Ram),
        (0x9_fc00, 0x400, E820Kind::Reserved),
        (0xf_0000, 0x1_0000, E820Kind::Reserved),
        (0x10_0000, 0x7fed_f000, E820Kind::Ram),
        (0x7ffd_f000, 0x2_1000, E820Kind::Acpi),
        (0x1_0000_0000, 0x1_0000_0000, E820Kind::Ram),
    ]
    .map(|(start, len, kind)| MemoryMapEntry {
        range: range(start, len),
        kind,
    })
    .to_vec()
}

/// The running kernel's parameters: every byte that must not be copied is 0xee.
pub fn running() -> Box<BootParams> {
    let mut page = vec![0xee; 4096];
    put(&mut page, 0x000, &[0x11; 0x40]);
    put(&mut page, 0x070, &0x000f_5a90_u64.to_le_bytes());
    put(&mut page, 0x1c0, b"EL64");
    put(&mut page, 0x1c4, &0x7f9e_e018_u32.to_le_bytes());
    put(&mut page, 0x1cc, &1_u32.to_le_bytes());
    put(&mut page, 0x1d8, &0_u32.to_le_bytes());
    put(&mut page, 0x1e9, &[3, 2]);
    put(&mut page, 0x1ec, &[3]);
    put(&mut page, 0x23c, &0_u32.to_le_bytes());
    BootParams::from_running(&page).unwrap()
}
