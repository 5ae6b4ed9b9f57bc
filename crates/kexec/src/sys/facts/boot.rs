//! Parameters that the boot loader passed: `/sys/kernel/boot_params`.

use crate::sys::root::{FactError, Optional, Root};
use std::os::unix::fs::MetadataExt;

const DIR: &str = "sys/kernel/boot_params";

/// `sizeof(struct boot_params)` (`arch/x86/include/uapi/asm/bootparam.h`).
pub const BOOT_PARAMS_SIZE: usize = 4096;

/// Largest number of nodes that are read. A kernel with so many nodes does not boot (memblock's static table has 128
/// entries).
const MAX_NODES: usize = 4096;

/// The running kernel's own `boot_params` and the boot protocol version of its image.
#[derive(Clone, PartialEq, Eq)]
pub struct BootParamsFile {
    /// The zero page, [`BOOT_PARAMS_SIZE`] bytes.
    pub data: Vec<u8>,
    /// Boot protocol, for example `0x020f` for 2.15.
    pub version: u16,
}

impl core::fmt::Debug for BootParamsFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "BootParamsFile {{ version: {:#06x} }}", self.version)
    }
}

impl BootParamsFile {
    /// Reads `data` and `version`.
    ///
    /// # Errors
    ///
    /// [`FactError::Missing`] on a kernel that has no `boot_params` (not x86), [`FactError::Malformed`] if the sizes
    /// are not those of the ABI.
    pub fn read(root: &Root) -> Result<Self, FactError> {
        let file = format!("{DIR}/data");
        let data = root
            .bytes(&file, 2 * BOOT_PARAMS_SIZE as u64)
            .map_err(|e| e.hinted(": boot_params exist on x86 only"))?;
        if data.len() != BOOT_PARAMS_SIZE {
            return Err(FactError::malformed(
                &root.path(&file),
                "exactly 4096 bytes",
                &format!("{} bytes", data.len()),
            ));
        }
        let file = format!("{DIR}/version");
        let number = root.number(&file)?;
        let version = u16::try_from(number).map_err(|_| {
            FactError::malformed(
                &root.path(&file),
                "a 16-bit version",
                &format!("{number:#x}"),
            )
        })?;
        Ok(Self { data, version })
    }
}

/// One node of the setup_data chain as sysfs shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetupNode {
    /// Position in the chain, and the name of the directory.
    pub index: u32,
    /// Type of the node; for a `SETUP_INDIRECT` node, that of the range that it points to (`type_show`,
    /// `arch/x86/kernel/ksysfs.c`).
    pub kind: u32,
    /// Length of the content, in bytes; for a `SETUP_INDIRECT` node, that of the range that it points to. This is the
    /// size of the `data` file, which the kernel fixed at boot.
    pub len: u64,
}

/// `/sys/kernel/boot_params/setup_data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupData {
    /// The nodes in chain order.
    pub nodes: Vec<SetupNode>,
    /// Permission bits of the directory. The kernel makes the directory with mode 0755 and with world-readable `data`
    /// files; the arrival program sets 0700.
    pub mode: u32,
}

impl SetupData {
    /// Lists the nodes; `None` if the chain is empty, in which case the kernel makes no directory.
    ///
    /// # Errors
    ///
    /// [`FactError`], also if the numbers have gaps.
    pub fn read(root: &Root) -> Result<Option<Self>, FactError> {
        let dir = format!("{DIR}/setup_data");
        let Some(numbers) = root.numbered(&dir, MAX_NODES).optional()? else {
            return Ok(None);
        };
        let path = root.path(&dir);
        let meta = std::fs::metadata(&path).map_err(|e| FactError::io(&path, e))?;
        let mut nodes = Vec::new();
        for (expected, index) in (0u32..).zip(numbers) {
            if index != expected {
                return Err(FactError::malformed(
                    &path,
                    "nodes numbered from 0 without gaps",
                    &index.to_string(),
                ));
            }
            let type_file = format!("{dir}/{index}/type");
            let kind = root.number(&type_file)?;
            let kind = u32::try_from(kind).map_err(|_| {
                FactError::malformed(
                    &root.path(&type_file),
                    "a 32-bit type",
                    &format!("{kind:#x}"),
                )
            })?;
            let data = root.path(&data_file(index));
            let len = std::fs::metadata(&data)
                .map_err(|e| FactError::io(&data, e))?
                .len();
            nodes.push(SetupNode { index, kind, len });
        }
        Ok(Some(Self {
            nodes,
            mode: meta.mode() & 0o7777,
        }))
    }

    /// Returns whether root alone can read the content.
    pub fn is_closed(&self) -> bool {
        self.mode & 0o077 == 0
    }
}

/// Returns the path of a node's `data` file, relative to the [`Root`].
pub(crate) fn data_file(index: u32) -> String {
    format!("{DIR}/setup_data/{index}/data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn boot_params_have_one_size() {
        let f = Fixture::new();
        let page = vec![0u8; 4096];
        f.put("sys/kernel/boot_params/data", &page)
            .put("sys/kernel/boot_params/version", "0x020f\n");
        let params = BootParamsFile::read(&f.root()).unwrap();
        assert_eq!(params.version, 0x20f);
        for size in [0, 4095, 4097, 10_000] {
            f.put("sys/kernel/boot_params/data", vec![0u8; size]);
            assert!(BootParamsFile::read(&f.root()).is_err(), "{size}");
        }
        f.put("sys/kernel/boot_params/data", &page)
            .put("sys/kernel/boot_params/version", "0x12345\n");
        assert!(BootParamsFile::read(&f.root()).is_err());
    }

    #[test]
    fn setup_data_is_listed_in_chain_order() {
        let f = Fixture::new();
        assert_eq!(SetupData::read(&f.root()).unwrap(), None);
        let dir = "sys/kernel/boot_params/setup_data";
        for n in 0..12 {
            f.put(&format!("{dir}/{n}/type"), format!("{:#x}\n", n + 4))
                .put(&format!("{dir}/{n}/data"), vec![0u8; n * 10]);
        }
        let read = || SetupData::read(&f.root());
        let found = read().unwrap().unwrap();
        assert_eq!(found.nodes.len(), 12);
        assert_eq!(
            found.nodes[11],
            SetupNode {
                index: 11,
                kind: 15,
                len: 110
            }
        );
        let path = f.root().path(dir);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!read().unwrap().unwrap().is_closed());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(read().unwrap().unwrap().is_closed());
        f.put(&format!("{dir}/5/type"), "0x1ffffffff\n");
        assert!(read().unwrap_err().to_string().contains("5/type"));
        f.remove(&format!("{dir}/5"));
        assert!(read().unwrap_err().to_string().contains("without gaps"));
    }
}
