//! Memory encryption: whether pages that a previous kernel wrote would read the same in the next.
//!
//! With AMD SME every kernel encrypts its memory with the same key but reads setup_data and other early
//! ranges *decrypted* (`memremap_is_setup_data`, `arch/x86/mm/ioremap.c`), and kexec pages pass through a
//! decrypted mapping; what is kept in place would read as noise. In SEV and TDX guests the pages of the
//! image belong to the guest's private memory and the start of a next kernel needs the platform's help.
//! A handover is refused for all of them.
//!
//! What can be known: the CPU's flags, the command line, and one line of the kernel log that every
//! kernel prints when encryption is active (`print_mem_encrypt_feature_info`,
//! `arch/x86/mm/mem_encrypt.c`). What cannot: transparent encryption done by the memory controller alone
//! (Intel TME, AMD TSME); it uses one key for everything until power-off and does no harm.

use super::host::{CpuFlags, KernelLog};
use crate::sys::root::{FactError, Root};

/// Whether memory is encrypted in a way that concerns a handover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// It is not, and this is known.
    Off,
    /// It is; the text says which kind and how that is known.
    Active(String),
    /// The CPU could, and neither log nor command line says whether it does.
    Unknown(String),
}

impl Encryption {
    /// Decides from facts that were read before.
    pub fn decide(cpu: &CpuFlags, cmdline: &str, log: &KernelLog) -> Self {
        const MARK: &str = "Memory Encryption Features active:";
        if cpu.has("tdx_guest") {
            return Self::Active("Intel TDX guest (CPU flag tdx_guest)".into());
        }
        if let Some(line) = log.find(MARK) {
            let kind = line.split_once(MARK).map_or("", |(_, after)| after.trim());
            return Self::Active(format!("{kind} (kernel log)"));
        }
        if cpu.has("sme") && cmdline.split_whitespace().any(|w| w == "mem_encrypt=on") {
            return Self::Active("AMD SME (mem_encrypt=on on the command line)".into());
        }
        let capable = cpu.has("sme") || (cpu.has("hypervisor") && cpu.has("sev"));
        if !capable {
            return Self::Off;
        }
        if log.is_complete() {
            // The kernel would have said so.
            return Self::Off;
        }
        let explicit_off = cmdline.split_whitespace().any(|w| w == "mem_encrypt=off");
        if explicit_off && !cpu.has("hypervisor") {
            return Self::Off;
        }
        Self::Unknown(
            "the CPU can encrypt memory (flag sme or sev), and the beginning of the kernel log, which \
             would say whether it does, is gone or cannot be read"
                .into(),
        )
    }

    /// Reads the facts and decides.
    ///
    /// # Errors
    ///
    /// [`FactError`] when `/proc/cpuinfo` or the command line cannot be read. An unreadable log is not an
    /// error, it only makes the answer less certain.
    pub fn read(root: &Root) -> Result<Self, FactError> {
        let cpu = CpuFlags::read(root)?;
        let cmdline = super::host::cmdline(root)?;
        Ok(Self::decide(&cpu, &cmdline, &KernelLog::read(root)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(flags: &str, cmdline: &str, log: &str) -> Encryption {
        Encryption::decide(
            &CpuFlags::parse(&format!("processor\t: 0\nflags\t\t: {flags}\n")),
            cmdline,
            &KernelLog::from_text(log),
        )
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
        // 6.1 and 7.3 word it differently.
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
