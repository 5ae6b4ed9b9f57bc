//! The kernel's kexec state.

use super::iomem::Iomem;
use crate::sys::root::{FactError, Optional, Root};
use kho::RangeSet;

/// State of kexec in `/sys/kernel` and `/proc/sys/kernel`.
///
/// 7.3 moved the attributes to `/sys/kernel/kexec/{loaded,crash_loaded,crash_size}` and keeps links under the old names
/// (`init_kexec_sysctl`, `kernel/kexec_core.c`); kho tries both places, the new one first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KexecState {
    /// Whether an image is loaded for `reboot`; `None` if the kernel has no kexec at all.
    pub loaded: Option<bool>,
    /// Whether a crash kernel is loaded; `None` without CONFIG_CRASH_DUMP.
    pub crash_loaded: Option<bool>,
    /// Bytes reserved by `crashkernel=`; `None` if unknown, or if a load is in progress (`EBUSY`).
    pub crash_size: Option<u64>,
    /// `kernel.kexec_load_disabled`.
    pub load_disabled: Option<bool>,
    /// `kernel.kexec_load_limit_reboot`: number of loads **or unloads** that are still allowed, -1 for no limit; `None`
    /// on kernels before 6.3, which have no limit.
    pub load_limit_reboot: Option<i64>,
}

impl KexecState {
    /// Reads the whole state.
    ///
    /// # Errors
    ///
    /// [`FactError`] if a file exists and its value is malformed.
    pub fn read(root: &Root) -> Result<Self, FactError> {
        let flag = |new: &str, old: &str| -> Result<Option<bool>, FactError> {
            let number = root.number(new).optional()?;
            let (number, file) = match number {
                Some(n) => (Some(n), new),
                None => (root.number(old).optional()?, old),
            };
            match number {
                None => Ok(None),
                Some(0) => Ok(Some(false)),
                Some(1) => Ok(Some(true)),
                Some(n) => Err(FactError::malformed(
                    &root.path(file),
                    "0 or 1",
                    &n.to_string(),
                )),
            }
        };
        let size = |file: &str| match root.number(file) {
            Err(FactError::Io { .. }) => Ok(None), // EBUSY during a load of another process
            other => other.optional(),
        };
        let disabled = "proc/sys/kernel/kexec_load_disabled";
        Ok(Self {
            loaded: flag("sys/kernel/kexec/loaded", "sys/kernel/kexec_loaded")?,
            crash_loaded: flag(
                "sys/kernel/kexec/crash_loaded",
                "sys/kernel/kexec_crash_loaded",
            )?,
            crash_size: match size("sys/kernel/kexec/crash_size")? {
                None => size("sys/kernel/kexec_crash_size")?,
                some => some,
            },
            load_disabled: flag(disabled, disabled)?,
            load_limit_reboot: root
                .signed("proc/sys/kernel/kexec_load_limit_reboot")
                .optional()?,
        })
    }

    /// Returns the name of the setting that makes the kernel refuse a load; `None` if no setting does.
    pub fn refusal(&self) -> Option<&'static str> {
        if self.loaded.is_none() {
            return Some("the running kernel has no kexec (CONFIG_KEXEC)");
        }
        if self.load_disabled == Some(true) {
            return Some("kernel.kexec_load_disabled is 1");
        }
        if self.load_limit_reboot == Some(0) {
            return Some("kernel.kexec_load_limit_reboot is used up");
        }
        None
    }
}

/// State of kdump: whether a crash would give a dump now.
///
/// The next kernel reserves its own `crashkernel=` memory in early boot, *outside* all memory that is handed over. It
/// starts without a loaded crash kernel: until its kdump service has run, a crash gives no dump. Memory that was handed
/// over is RAM, so a dump contains it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Kdump {
    /// Ranges named "Crash kernel" in `/proc/iomem`.
    pub reserved: RangeSet,
    /// Whether a crash kernel is loaded in these ranges.
    pub armed: bool,
}

impl Kdump {
    /// Makes the state from the kexec state and the resource map.
    pub fn new(state: &KexecState, iomem: &Iomem) -> Result<Self, kho::OutOfMemory> {
        Ok(Self {
            reserved: iomem.crash_kernel()?,
            armed: state.crash_loaded == Some(true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    #[test]
    fn reads_both_places() {
        let f = Fixture::new();
        assert_eq!(
            KexecState::read(&f.root()).unwrap().refusal(),
            Some("the running kernel has no kexec (CONFIG_KEXEC)")
        );
        f.put("sys/kernel/kexec_loaded", "1\n")
            .put("sys/kernel/kexec_crash_loaded", "0\n")
            .put("sys/kernel/kexec_crash_size", "201326592\n")
            .put("proc/sys/kernel/kexec_load_disabled", "0\n");
        let old = KexecState::read(&f.root()).unwrap();
        assert_eq!(
            old,
            KexecState {
                loaded: Some(true),
                crash_loaded: Some(false),
                crash_size: Some(192 << 20),
                load_disabled: Some(false),
                load_limit_reboot: None,
            }
        );
        assert_eq!(old.refusal(), None);
        f.put("sys/kernel/kexec/loaded", "0\n")
            .put("proc/sys/kernel/kexec_load_limit_reboot", "-1\n");
        let new = KexecState::read(&f.root()).unwrap();
        assert_eq!(new.loaded, Some(false));
        assert_eq!(new.refusal(), None);
        f.put("proc/sys/kernel/kexec_load_limit_reboot", "0\n");
        assert!(KexecState::read(&f.root()).unwrap().refusal().is_some());
        f.put("sys/kernel/kexec/loaded", "2\n");
        assert!(KexecState::read(&f.root()).is_err());
    }
}
