//! Memory encryption, under which pages that one kernel wrote may read differently in the next kernel.
//!
//! With AMD SME every kernel encrypts its memory with the same key but reads setup_data and other early ranges
//! *decrypted* (`memremap_is_setup_data`, `arch/x86/mm/ioremap.c`), and kexec copies pages through a decrypted mapping;
//! the next kernel would read noise from memory that is kept in place. In SEV and TDX guests the pages of the image
//! belong to the guest's private memory and the start of a next kernel needs the platform's help. kho refuses a
//! handover on all of them.
//!
//! The sources are the CPU's flags, the CPU's own answer to CPUID (the kernel hides flags), the command line, and the
//! line of the kernel log that every kernel prints if encryption is active (`print_mem_encrypt_feature_info`,
//! `arch/x86/mm/mem_encrypt.c`). kho cannot detect transparent encryption by the memory controller alone (Intel TME,
//! AMD TSME). Such encryption uses one key for all memory until power-off, so it does no harm.

use super::host::{CpuFlags, KernelLog};
use crate::sys::syscalls;

/// State of memory encryption, as far as it affects a handover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Memory is known not to be encrypted.
    Off,
    /// Memory is encrypted. The text names the kind of encryption and the source of the fact.
    Active(String),
    /// The CPU can encrypt memory, and neither log nor command line shows whether the kernel uses encryption. The text
    /// explains this.
    Unknown(String),
}

/// `CPUID 0x8000001f`, EAX: AMD's memory encryption (AMD64 Architecture Programmer's Manual, volume 3, appendix
/// E.4.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EncryptionLeaf(u32);

impl EncryptionLeaf {
    const SEV: u32 = 1 << 1;

    /// Reads the leaf of the processor; zero if the processor does not have it.
    pub fn of_processor() -> Self {
        Self(syscalls::cpuid_encryption())
    }

    /// Returns whether the memory of this guest may be encrypted.
    fn sev(self) -> bool {
        self.0 & Self::SEV != 0
    }
}

/// First version in which the flag `sme` means that memory is encrypted: kernels since 5.18 clear the flag if they do
/// not encrypt (`early_detect_mem_encrypt`, `arch/x86/kernel/cpu/amd.c`, 6.1 to 7.3). In earlier kernels the flag shows
/// the ability of the processor.
const SME_IS_ACTIVE: (u32, u32) = (5, 18);

impl Encryption {
    /// Decides from the given facts. `version` is the kernel's version, major and minor.
    pub fn decide(
        cpu: &CpuFlags,
        leaf: EncryptionLeaf,
        version: Option<(u32, u32)>,
        cmdline: &str,
        log: &KernelLog,
    ) -> Self {
        const MARK: &str = "Memory Encryption Features active:";
        if cpu.has("tdx_guest") {
            return Self::Active("Intel TDX guest (CPU flag tdx_guest)".into());
        }
        if let Some(line) = log.find(MARK) {
            let kind = line.split_once(MARK).map_or("", |(_, after)| after.trim());
            return Self::Active(format!("{kind} (kernel log)"));
        }
        let sme = cpu.has("sme");
        if sme && version.is_some_and(|version| version >= SME_IS_ACTIVE) {
            return Self::Active("AMD SME (CPU flag sme)".into());
        }
        if sme && cmdline.split_whitespace().any(|w| w == "mem_encrypt=on") {
            return Self::Active("AMD SME (mem_encrypt=on on the command line)".into());
        }
        // The kernel of a guest clears the flag `sev`, because it reads a register that the hypervisor does not show.
        let guest = cpu.has("hypervisor") && (cpu.has("sev") || leaf.sev());
        if !sme && !guest {
            return Self::Off;
        }
        if log.is_complete() {
            // The log is complete, and a kernel with active encryption would have printed the line.
            return Self::Off;
        }
        let explicit_off = cmdline.split_whitespace().any(|w| w == "mem_encrypt=off");
        if explicit_off && !guest {
            return Self::Off;
        }
        Self::Unknown(
            "the CPU can encrypt memory (SME or SEV), and the beginning of the kernel log, which \
             would say whether it does, is gone or cannot be read"
                .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(flags: &str, cmdline: &str, log: &str) -> Encryption {
        on(flags, 0, (5, 10), cmdline, log)
    }

    fn on(flags: &str, leaf: u32, version: (u32, u32), cmdline: &str, log: &str) -> Encryption {
        Encryption::decide(
            &CpuFlags::parse(&format!("processor\t: 0\nflags\t\t: {flags}\n")),
            EncryptionLeaf(leaf),
            Some(version),
            cmdline,
            &KernelLog::from_text(log),
        )
    }

    #[test]
    fn the_flag_of_sme_means_that_it_is_active_since_5_18() {
        for version in [(5, 18), (6, 1), (7, 3)] {
            let found = on("fpu sme", 0, version, "quiet", "");
            assert!(matches!(found, Encryption::Active(_)), "{version:?}");
        }
        assert!(matches!(
            decide("fpu sme", "quiet", ""),
            Encryption::Unknown(_)
        ));
    }

    #[test]
    fn an_encrypted_guest_is_not_off_when_the_log_has_wrapped() {
        const FULL: &str = "5,0,0,-;Linux version 6.12.95\n";
        let sev = 0b10;
        let on = |flags: &str, leaf, log| on(flags, leaf, (6, 12), "", log);
        assert!(matches!(
            on("fpu hypervisor", sev, ""),
            Encryption::Unknown(_)
        ));
        assert_eq!(on("fpu hypervisor", sev, FULL), Encryption::Off);
        assert_eq!(on("fpu hypervisor", 0, ""), Encryption::Off);
        // A host that can run encrypted guests.
        assert_eq!(on("fpu sev", sev, ""), Encryption::Off);
        // The call must not panic on any machine.
        let _ = EncryptionLeaf::of_processor();
    }

    #[test]
    fn what_can_be_known_is_said() {
        const FULL: &str = "5,0,0,-;Linux version 6.1.0-50-cloud-amd64\n6,1,0,-;x\n";
        assert_eq!(decide("fpu sse", "", ""), Encryption::Off);
        assert_eq!(decide("fpu sme sev", "quiet", FULL), Encryption::Off);
        assert!(matches!(
            decide("fpu sme", "mem_encrypt=on", ""),
            Encryption::Active(_)
        ));
        assert!(matches!(decide("fpu sme", "", ""), Encryption::Unknown(_)));
        assert_eq!(decide("fpu sme", "mem_encrypt=off", ""), Encryption::Off);
        assert!(matches!(
            decide("hypervisor sev", "", ""),
            Encryption::Unknown(_)
        ));
        assert!(matches!(
            decide("tdx_guest hypervisor", "", FULL),
            Encryption::Active(_)
        ));
        // 6.1 and 7.3 word the line differently.
        for (line, kind) in [
            (
                "6,2,0,-;AMD Memory Encryption Features active: SEV SEV-ES\n",
                "SEV SEV-ES (kernel log)",
            ),
            (
                "6,2,0,-;Memory Encryption Features active: AMD SME\n",
                "AMD SME (kernel log)",
            ),
        ] {
            assert_eq!(
                decide("fpu", "", &format!("{FULL}{line}")),
                Encryption::Active(kind.into())
            );
        }
    }
}
