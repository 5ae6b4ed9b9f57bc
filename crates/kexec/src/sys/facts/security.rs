//! Lockdown and IMA, which may forbid `kexec_load` or the reading of memory.

use crate::sys::root::{FactError, Optional, Root};

/// The lockdown level: `/sys/kernel/security/lockdown`, for example `none [integrity] confidentiality`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// No lockdown.
    None,
    /// `kexec_load` is forbidden (`LOCKDOWN_KEXEC`).
    Integrity,
    /// Reading kernel memory is forbidden too (`LOCKDOWN_KCORE`).
    Confidentiality,
    /// securityfs is not mounted, or the kernel has no lockdown module.
    Unknown,
}

impl Lockdown {
    /// Reads the level.
    ///
    /// # Errors
    ///
    /// [`FactError`] if the file exists and names no level.
    pub fn read(root: &Root) -> Result<Self, FactError> {
        let file = "sys/kernel/security/lockdown";
        let Some(text) = root.attribute(file).optional()? else {
            return Ok(Self::Unknown);
        };
        let chosen = text
            .split_whitespace()
            .find_map(|w| w.strip_prefix('[')?.strip_suffix(']'));
        match chosen {
            Some("none") => Ok(Self::None),
            Some("integrity") => Ok(Self::Integrity),
            Some("confidentiality") => Ok(Self::Confidentiality),
            _ => Err(FactError::malformed(
                &root.path(file),
                "a level in brackets, such as [none]",
                &text,
            )),
        }
    }

    /// Returns whether `kexec_load` will be refused with `EPERM`.
    pub const fn blocks_kexec_load(self) -> bool {
        matches!(self, Self::Integrity | Self::Confidentiality)
    }
}

/// Returns whether an SELinux policy is loaded: selinuxfs is mounted, and this process has a label that a policy gave
/// it (without a policy all processes have the label `kernel`: `security/selinux/include/initial_sid_to_string.h`, 6.1
/// to 7.3).
pub fn selinux_policy(root: &Root) -> bool {
    root.exists("sys/fs/selinux/enforce")
        && root
            .attribute("proc/self/attr/current")
            .is_ok_and(|label| !matches!(label.trim_end_matches('\0'), "" | "kernel"))
}

/// Whether IMA will refuse `kexec_load`, because that call gives IMA no file to appraise (`ima_load_data`,
/// `security/integrity/ima/ima_main.c`, 6.1 to 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ima {
    /// The kernel has no IMA, or its policy is readable and does not appraise kernels.
    Allows,
    /// The policy appraises `KEXEC_KERNEL_CHECK` and enforces.
    Refuses,
    /// The kernel has IMA, and its policy cannot be read (CONFIG_IMA_READ_POLICY is off, as in Debian).
    Unknown,
    /// As `Unknown`, and the command line asks for a policy that appraises kernels
    /// (`ima_policy=secure_boot` or `appraise_tcb`).
    Likely,
}

impl Ima {
    /// Reads securityfs and the command line.
    ///
    /// # Errors
    ///
    /// [`FactError`] if securityfs cannot be read. A missing or unreadable policy is not an error.
    pub fn read(root: &Root, cmdline: &str) -> Result<Self, FactError> {
        if !root.exists("sys/kernel/security/ima") {
            return Ok(Self::Allows);
        }
        let enforced = !cmdline.split_whitespace().any(|w| {
            matches!(
                w,
                "ima_appraise=off" | "ima_appraise=log" | "ima_appraise=fix"
            )
        });
        match root.text("sys/kernel/security/ima/policy", 1 << 20) {
            Ok(policy) if !policy.trim().is_empty() => {
                let appraises = policy.lines().any(|line| {
                    line.starts_with("appraise") && line.contains("func=KEXEC_KERNEL_CHECK")
                });
                Ok(if appraises && enforced {
                    Self::Refuses
                } else {
                    Self::Allows
                })
            }
            Ok(_) | Err(FactError::Missing { .. } | FactError::Io { .. }) => {
                let asked = cmdline
                    .split_whitespace()
                    .filter_map(|w| w.strip_prefix("ima_policy="))
                    .flat_map(|list| list.split('|'))
                    .any(|p| p == "secure_boot");
                Ok(match (asked && enforced, ima_is_idle(root)) {
                    (true, _) => Self::Likely,
                    (false, true) => Self::Allows,
                    (false, false) => Self::Unknown,
                })
            }
            Err(other) => Err(other),
        }
    }
}

/// Returns whether IMA has no policy. IMA then measures only the boot aggregate, and appraises nothing.
fn ima_is_idle(root: &Root) -> bool {
    root.number("sys/kernel/security/ima/runtime_measurements_count")
        .is_ok_and(|n| n <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    #[test]
    fn a_policy_is_loaded_when_it_gave_us_a_label() {
        let f = Fixture::new();
        f.put("proc/self/attr/current", "system_u:system_r:init_t:s0\0");
        // AppArmor has this file as well.
        assert!(!selinux_policy(&f.root()));
        f.put("sys/fs/selinux/enforce", "1");
        assert!(selinux_policy(&f.root()));
        for none in ["kernel\0", "kernel\n", ""] {
            f.put("proc/self/attr/current", none);
            assert!(!selinux_policy(&f.root()), "{none:?}");
        }
    }

    #[test]
    fn lockdown_levels() {
        let f = Fixture::new();
        assert_eq!(Lockdown::read(&f.root()).unwrap(), Lockdown::Unknown);
        for (text, level, load) in [
            ("[none] integrity confidentiality\n", Lockdown::None, false),
            (
                "none [integrity] confidentiality\n",
                Lockdown::Integrity,
                true,
            ),
            (
                "none integrity [confidentiality]\n",
                Lockdown::Confidentiality,
                true,
            ),
        ] {
            f.put("sys/kernel/security/lockdown", text);
            let found = Lockdown::read(&f.root()).unwrap();
            assert_eq!(found, level);
            assert_eq!(found.blocks_kexec_load(), load);
        }
        f.put("sys/kernel/security/lockdown", "none integrity\n");
        assert!(Lockdown::read(&f.root()).is_err());
    }

    #[test]
    fn ima_policies() {
        let f = Fixture::new();
        let read = |cmdline: &str| Ima::read(&f.root(), cmdline).unwrap();
        assert_eq!(read(""), Ima::Allows);
        f.put(
            "sys/kernel/security/ima/runtime_measurements_count",
            "812\n",
        );
        assert_eq!(read("quiet"), Ima::Unknown);
        assert_eq!(read("ima_policy=tcb|secure_boot"), Ima::Likely);
        assert_eq!(
            read("ima_policy=secure_boot ima_appraise=log"),
            Ima::Unknown
        );
        f.put("sys/kernel/security/ima/runtime_measurements_count", "1\n");
        assert_eq!(read("quiet"), Ima::Allows);
        f.put(
            "sys/kernel/security/ima/policy",
            "measure func=KEXEC_KERNEL_CHECK\nappraise func=MODULE_CHECK appraise_type=imasig\n",
        );
        assert_eq!(read(""), Ima::Allows);
        f.put(
            "sys/kernel/security/ima/policy",
            "appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\n",
        );
        assert_eq!(read(""), Ima::Refuses);
        assert_eq!(read("ima_appraise=off"), Ima::Allows);
    }
}
