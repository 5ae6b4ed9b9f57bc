//! The running kernel's descriptions of the machine.

use crate::{Cursor, clear, put, scratch};
use kho::RangeSet;
use kho_kexec::sys::Root;
use kho_kexec::sys::facts::boot::BootParamsFile;
use kho_kexec::sys::facts::efi::Efi;
use kho_kexec::sys::facts::encryption::{Encryption, EncryptionLeaf};
use kho_kexec::sys::facts::host::{CpuFlags, KernelLog, release_version};
use kho_kexec::sys::facts::iomem::Iomem;
use kho_kexec::sys::facts::meminfo::MemInfo;
use kho_kexec::sys::facts::memmap::{FirmwareMap, compare};

/// Up to eight entries of three files, each behind its length.
pub fn firmware_map(data: &[u8]) {
    let dir = "memmap/sys/firmware/memmap";
    clear(dir);
    let mut cursor = Cursor(data);
    for number in 0..8 {
        if cursor.is_empty() {
            break;
        }
        for file in ["start", "end", "type"] {
            let len = usize::from(cursor.u8() % 32);
            put(&format!("{dir}/{number}/{file}"), cursor.bytes(len));
        }
    }
    match FirmwareMap::read(&Root::at(scratch().join("memmap"))) {
        Ok(map) => {
            let all = RangeSet::from_ranges(map.entries().iter().map(|e| e.range)).expect("memory");
            let sum: u64 = map.entries().iter().map(|e| e.range.len()).sum();
            assert_eq!(all.total(), sum, "entries overlap");
            assert!(map.ram().subtract(&all).expect("memory").is_empty());
            assert_eq!(map.to_boot().len(), map.entries().len());
            assert_eq!(map.e820().len(), map.entries().len());
        }
        Err(error) => {
            let _ = error.to_string();
        }
    }
}

pub fn firmware_maps() -> Vec<Vec<u8>> {
    let mut seed = Vec::new();
    for text in [
        "0x0",
        "0x9fbff",
        "System RAM",
        "0x100000",
        "0x7ffdefff",
        "System RAM",
        "0x7ffdf000",
        "0x7fffffff",
        "Reserved",
    ] {
        seed.push(u8::try_from(text.len() + 1).expect("short"));
        seed.extend(text.bytes());
        seed.push(b'\n');
    }
    vec![seed]
}

/// The text of `/proc/iomem`.
pub fn iomem(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(iomem) = Iomem::parse(&text) else {
        return;
    };
    let ram = iomem.system_ram().expect("memory");
    for resource in iomem.resources() {
        if resource.name == "System RAM" && resource.depth == 0 {
            assert!(ram.contains_range(resource.range));
        }
    }
    let _ = (iomem.driver_managed(), iomem.crash_kernel());
    let map = FirmwareMap::from_entries(Vec::new()).expect("an empty map");
    let _ = compare(&map, &iomem).expect("memory").is_complete();
}

pub fn iomems() -> Vec<Vec<u8>> {
    vec![
        b"00000000-00000fff : Reserved\n00001000-0009fbff : System RAM\n00100000-7ffdefff : System RAM\n  \
          01000000-01ffffff : Kernel code\n  02000000-02ffffff : Crash kernel\n\
          100000000-17fffffff : System RAM (kmem)\n"
            .to_vec(),
    ]
}

/// Files of /sys/firmware/efi, each behind its length.
pub fn efi(data: &[u8]) {
    let dir = "efi/sys/firmware/efi";
    clear(dir);
    let mut cursor = Cursor(data);
    for file in [
        "fw_vendor",
        "runtime",
        "config_table",
        "fw_platform_size",
        "systab",
    ] {
        let len = usize::from(cursor.u8());
        put(&format!("{dir}/{file}"), cursor.bytes(len));
    }
    for number in 0..4 {
        if cursor.is_empty() {
            break;
        }
        for file in ["type", "phys_addr", "virt_addr", "num_pages", "attribute"] {
            let len = usize::from(cursor.u8() % 24);
            put(
                &format!("{dir}/runtime-map/{number}/{file}"),
                cursor.bytes(len),
            );
        }
    }
    match Efi::read(&Root::at(scratch().join("efi"))) {
        Ok(Some(efi)) => {
            assert!(efi.runtime_map.iter().all(|entry| entry.range().is_some()));
            if let Some(next) = efi.for_next_kernel() {
                let _ = (next.memory_map(), next.setup_data());
            }
        }
        Ok(None) => panic!("the folder is there"),
        Err(error) => {
            let _ = error.to_string();
        }
    }
}

pub fn efis() -> Vec<Vec<u8>> {
    let mut seed = Vec::new();
    for text in [
        "0x7f1b6018",
        "0x7f9ee018",
        "0x7f9ee018",
        "64",
        "ACPI20=0x7f77e014\nSMBIOS3=0x7f5d4000",
        "0x5",
        "0x7f100000",
        "0xfffffffeffa00000",
        "0x100",
        "0x800000000000000f",
    ] {
        seed.push(u8::try_from(text.len() + 1).expect("short"));
        seed.extend(text.bytes());
        seed.push(b'\n');
    }
    vec![seed]
}

/// One text, used as the content of each of several files.
pub fn host(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let cpu = CpuFlags::parse(&text);
    let log = KernelLog::from_text(&text);
    let _ = (log.is_complete(), log.find("Linux"), release_version(&text));
    for version in [None, Some((5, 10)), Some((6, 12))] {
        let _ = Encryption::decide(&cpu, EncryptionLeaf::default(), version, &text, &log);
    }
    put("host/proc/meminfo", data);
    put("host/sys/kernel/boot_params/data", data);
    put("host/sys/kernel/boot_params/version", b"0x020f\n");
    let root = Root::at(scratch().join("host"));
    let _ = MemInfo::read(&root).map_err(|error| error.to_string());
    if BootParamsFile::read(&root).is_ok() {
        assert_eq!(data.len(), 4096);
    }
}

pub fn hosts() -> Vec<Vec<u8>> {
    vec![
        b"flags\t\t: fpu hypervisor sme\nMemTotal:        2014344 kB\n".to_vec(),
        b"MemTotal:        2014344 kB\nMemFree:         1755580 kB\nMemAvailable:    1766120 kB\n\
          HardwareCorrupted:     4 kB\nHugePages_Total:       3\nHugePages_Free:        2\n\
          HugePages_Rsvd:        1\nHugepagesize:       2048 kB\nHugetlb:            6144 kB\n"
            .to_vec(),
        vec![0; 4096],
        b"6,1,0,-;Linux version 6.12.95\n".to_vec(),
    ]
}
