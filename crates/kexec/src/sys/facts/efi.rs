//! EFI: `/sys/firmware/efi`, as far as a next kernel needs it to use runtime services.

use crate::sys::root::{FactError, Optional, Root};
use kho::{PAGE_SIZE, PhysAddr, PhysRange};

const DIR: &str = "sys/firmware/efi";
const MAX_DESCRIPTORS: usize = 4096;

/// One descriptor of the runtime map that the kernel gave to `SetVirtualAddressMap`
/// (`drivers/firmware/efi/runtime-map.c`, `arch/x86/platform/efi/runtime-map.c` in newer kernels).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeDescriptor {
    /// `EFI_MEMORY_TYPE`.
    pub kind: u32,
    /// Physical start, page aligned.
    pub phys: u64,
    /// Virtual start, which must stay the same in every later kernel.
    pub virt: u64,
    /// Pages of 4 KiB, at least 1.
    pub pages: u64,
    /// `EFI_MEMORY_*` attributes.
    pub attribute: u64,
}

impl RuntimeDescriptor {
    /// Returns the physical range; `None` if it wraps.
    pub fn range(&self) -> Option<PhysRange> {
        PhysRange::new(PhysAddr::new(self.phys), self.pages.checked_mul(PAGE_SIZE)?).ok()
    }
}

/// EFI facts that a kernel started by kexec needs.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Efi {
    /// Physical address of the vendor string; absent on some platforms (7.x then hides the file).
    pub fw_vendor: Option<u64>,
    /// Address of the runtime services table.
    pub runtime: Option<u64>,
    /// Physical address of the configuration tables.
    pub config_table: Option<u64>,
    /// Lines of `systab`: table name and address, for example `ACPI20` and `SMBIOS3`.
    pub systab: Vec<(String, u64)>,
    /// Width of the firmware, 32 or 64 bits.
    pub platform_bits: Option<u64>,
    /// The runtime map; empty without runtime services (`efi=noruntime`).
    pub runtime_map: Vec<RuntimeDescriptor>,
    /// Whether Secure Boot is on; `None` if the variable cannot be read.
    pub secure_boot: Option<bool>,
}

impl Efi {
    /// Reads all EFI facts; `None` if the machine was not booted by EFI.
    ///
    /// # Errors
    ///
    /// [`FactError`]. Only root can read the files.
    pub fn read(root: &Root) -> Result<Option<Self>, FactError> {
        if !root.exists(DIR) {
            return Ok(None);
        }
        let number = |name: &str| root.number(&format!("{DIR}/{name}")).optional();
        Ok(Some(Self {
            fw_vendor: number("fw_vendor")?,
            runtime: number("runtime")?,
            config_table: number("config_table")?,
            systab: read_systab(root)?,
            platform_bits: number("fw_platform_size")?,
            runtime_map: read_runtime_map(root)?,
            secure_boot: secure_boot(root),
        }))
    }

    /// Returns the address of a table of `systab`, for example `SMBIOS3`.
    pub fn table(&self, name: &str) -> Option<u64> {
        self.systab.iter().find(|(n, _)| n == name).map(|t| t.1)
    }
}

fn read_systab(root: &Root) -> Result<Vec<(String, u64)>, FactError> {
    let file = format!("{DIR}/systab");
    let Some(text) = root.attribute(&file).optional()? else {
        return Ok(Vec::new());
    };
    text.lines()
        .map(|line| {
            let (name, value) = line.split_once('=')?;
            let value = crate::sys::root::parse_number(value)?;
            Some((name.to_owned(), value))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            FactError::malformed(&root.path(&file), "lines such as ACPI20=0x1000", &text)
        })
}

fn read_runtime_map(root: &Root) -> Result<Vec<RuntimeDescriptor>, FactError> {
    let dir = format!("{DIR}/runtime-map");
    let Some(numbers) = root.numbered(&dir, MAX_DESCRIPTORS).optional()? else {
        return Ok(Vec::new());
    };
    let mut map = Vec::new();
    for n in numbers {
        let number = |name: &str| root.number(&format!("{dir}/{n}/{name}"));
        let wrong = |name: &str, expected, value: u64| {
            let path = root.path(&format!("{dir}/{n}/{name}"));
            FactError::malformed(&path, expected, &format!("{value:#x}"))
        };
        let kind = number("type")?;
        let descriptor = RuntimeDescriptor {
            kind: u32::try_from(kind).map_err(|_| wrong("type", "a memory type", kind))?,
            phys: number("phys_addr")?,
            virt: number("virt_addr")?,
            pages: number("num_pages")?,
            attribute: number("attribute")?,
        };
        if !descriptor.phys.is_multiple_of(PAGE_SIZE) {
            return Err(wrong("phys_addr", "a page address", descriptor.phys));
        }
        if descriptor.range().is_none() {
            return Err(wrong(
                "num_pages",
                "a page count that fits",
                descriptor.pages,
            ));
        }
        map.push(descriptor);
    }
    Ok(map)
}

/// Reads the `SecureBoot` variable: four bytes of attributes and one of value (UEFI 2.10, section 3.3).
fn secure_boot(root: &Root) -> Option<bool> {
    let file = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    match root.bytes(file, 64).ok()?.as_slice() {
        [_, _, _, _, value] => Some(*value == 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    fn put_ovmf(f: &Fixture) {
        f.put("sys/firmware/efi/fw_vendor", "0x7f7eb018\n")
            .put("sys/firmware/efi/runtime", "0xfffffffeffbedb98\n")
            .put("sys/firmware/efi/config_table", "0x7f7eab98\n")
            .put("sys/firmware/efi/fw_platform_size", "64\n")
            .put(
                "sys/firmware/efi/systab",
                "ACPI20=0x7f77e014\nACPI=0x7f77e000\nSMBIOS3=0x7f5ae000\nSMBIOS=0x7f5b0000\n",
            )
            .put(
                "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
                [6, 0, 0, 0, 0],
            );
        for (n, (phys, virt)) in [
            (0x7f6ed000u64, 0xfffffffeffaed000u64),
            (0x7f5d_9000, 0xfffffffeffa00000),
        ]
        .into_iter()
        .enumerate()
        {
            let dir = format!("sys/firmware/efi/runtime-map/{n}");
            f.put(&format!("{dir}/type"), "0x5\n")
                .put(&format!("{dir}/phys_addr"), format!("{phys:#x}\n"))
                .put(&format!("{dir}/virt_addr"), format!("{virt:#x}\n"))
                .put(&format!("{dir}/num_pages"), "0x100\n")
                .put(&format!("{dir}/attribute"), "0x800000000000000f\n");
        }
    }

    #[test]
    fn reads_ovmf() {
        let f = Fixture::new();
        assert_eq!(Efi::read(&f.root()).unwrap(), None);
        put_ovmf(&f);
        let efi = Efi::read(&f.root()).unwrap().unwrap();
        assert_eq!(efi.table("SMBIOS3"), Some(0x7f5a_e000));
        assert_eq!(efi.runtime_map.len(), 2);
        assert_eq!(efi.runtime_map[0].range().unwrap().len(), 0x10_0000);
        assert_eq!(efi.secure_boot, Some(false));
        f.remove("sys/firmware/efi/fw_vendor");
        assert_eq!(Efi::read(&f.root()).unwrap().unwrap().fw_vendor, None);
    }

    #[test]
    fn refuses_descriptors_that_are_no_memory() {
        for (file, value) in [
            ("phys_addr", "0x123\n"),
            ("num_pages", "0x0\n"),
            ("num_pages", "0xffffffffffffffff\n"),
            ("type", "0x100000000\n"),
            ("virt_addr", "here\n"),
        ] {
            let f = Fixture::new();
            put_ovmf(&f);
            f.put(&format!("sys/firmware/efi/runtime-map/1/{file}"), value);
            let error = Efi::read(&f.root()).unwrap_err().to_string();
            assert!(error.contains(&format!("runtime-map/1/{file}")), "{error}");
        }
    }
}
