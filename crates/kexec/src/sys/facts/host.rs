//! The kernel and the machine: release, command line, clock, CPU flags, kernel log, hypervisor.

use crate::sys::root::{FactError, LISTING_LIMIT, Optional, Root};
use crate::sys::syscalls;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

/// Identity of the running kernel and of this boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelId {
    /// Release of the kernel (`uname -r`), for example `6.1.0-50-cloud-amd64`.
    pub release: String,
    /// Machine type (`uname -m`), for example `x86_64`.
    pub machine: String,
    /// Random identity of this boot (`/proc/sys/kernel/random/boot_id`), for records that are valid in this boot only.
    pub boot_id: String,
    /// Start of this kernel, in seconds since the epoch (`btime` of `/proc/stat`).
    pub boot_time: u64,
    /// Seconds since this kernel started.
    pub uptime: u64,
}

impl KernelId {
    /// Reads the identity.
    ///
    /// # Errors
    ///
    /// [`FactError`].
    pub fn read(root: &Root) -> Result<Self, FactError> {
        let release = root.attribute("proc/sys/kernel/osrelease")?;
        // The sysctl is newer than 6.1; the system call always works on the real system.
        let machine = match root.attribute("proc/sys/kernel/arch").optional()? {
            Some(machine) => machine,
            None => rustix::system::uname()
                .machine()
                .to_string_lossy()
                .into_owned(),
        };
        let stat = root.text("proc/stat", LISTING_LIMIT)?;
        let boot_time = stat
            .lines()
            .find_map(|l| l.strip_prefix("btime "))
            .and_then(|t| t.trim().parse().ok())
            .ok_or_else(|| FactError::malformed(&root.path("proc/stat"), "a btime line", ""))?;
        let up = root.attribute("proc/uptime")?;
        let uptime = up
            .split(['.', ' '])
            .next()
            .and_then(|t| t.parse().ok())
            .ok_or_else(|| FactError::malformed(&root.path("proc/uptime"), "seconds", &up))?;
        Ok(Self {
            release,
            machine,
            boot_id: root.attribute("proc/sys/kernel/random/boot_id")?,
            boot_time,
            uptime,
        })
    }

    /// Returns major and minor version; `None` if the release does not begin with two numbers.
    pub fn version(&self) -> Option<(u32, u32)> {
        release_version(&self.release)
    }
}

/// Returns major and minor version of a release: `6.12.95+deb12-amd64` is (6, 12).
pub fn release_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Returns the command line of the running kernel, without the newline.
///
/// # Errors
///
/// [`FactError`].
pub fn cmdline(root: &Root) -> Result<String, FactError> {
    root.attribute("proc/cmdline")
}

/// Returns the number of processors that are online (`Documentation/ABI/testing/sysfs-devices-system-cpu`); 1 if the
/// kernel does not publish the number.
pub fn online_cpus(root: &Root) -> u32 {
    listed(root, "sys/devices/system/cpu/online")
}

/// Returns the number of NUMA nodes that have memory (`Documentation/ABI/stable/sysfs-devices-node`); 1 if the kernel
/// does not publish the number.
pub fn memory_nodes(root: &Root) -> u32 {
    listed(root, "sys/devices/system/node/has_memory")
}

fn listed(root: &Root, path: &str) -> u32 {
    let text = root.attribute(path);
    text.map_or(1, |text| count(&text)).max(1)
}

/// Counts the numbers of a list such as `0-3,8`. A part that is neither a number nor a range counts as 0.
fn count(list: &str) -> u32 {
    let one = |part: &str| -> Option<u32> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').filter_map(one).fold(0, u32::saturating_add)
}

/// The flags of the first CPU.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CpuFlags {
    flags: BTreeSet<String>,
}

impl CpuFlags {
    /// Reads `/proc/cpuinfo`.
    ///
    /// # Errors
    ///
    /// [`FactError`].
    pub fn read(root: &Root) -> Result<Self, FactError> {
        Ok(Self::parse(&root.text("proc/cpuinfo", LISTING_LIMIT)?))
    }

    /// Takes the flags from the text of `/proc/cpuinfo`: the first line called `flags` (x86) or `Features` (arm64).
    pub fn parse(text: &str) -> Self {
        let flags = text
            .lines()
            .filter_map(|l| l.split_once(':'))
            .find(|(name, _)| matches!(name.trim(), "flags" | "Features"))
            .map_or("", |(_, flags)| flags);
        Self {
            flags: flags.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Returns whether the running kernel uses five-level paging: a kernel that does not use it hides the flag
    /// (`early_identify_cpu`, `arch/x86/kernel/cpu/common.c`, 5.10 to 7.3).
    pub fn five_level_paging(&self) -> bool {
        self.has("la57")
    }

    /// Returns whether the CPU has the flag.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }
}

/// Returns whether the processor supports five-level paging, even if the running kernel does not use it.
pub fn processor_has_five_level_paging() -> bool {
    syscalls::cpuid_five_level_paging()
}

/// The kernel's log, as far as the ring buffer still has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KernelLog {
    lines: Vec<String>,
}

impl KernelLog {
    /// Reads `/dev/kmsg` without waiting; empty if it cannot be read.
    pub fn read(root: &Root) -> Self {
        let mut text = String::new();
        // One read is one record (Documentation/ABI/testing/dev-kmsg), at most 8 KiB.
        let mut record = vec![0u8; 8192];
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(root.path("dev/kmsg"));
        if let Ok(mut file) = opened {
            // The bound is far above the number of records in the largest ring buffer. It ends the loop if the kernel
            // writes records faster than this loop reads them.
            for _ in 0..1_000_000 {
                match file.read(&mut record) {
                    Ok(0) => break,
                    Ok(n) => text.push_str(&String::from_utf8_lossy(&record[..n])),
                    // The kernel overwrote the record during the read: go on with the next.
                    Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        }
        Self::from_text(&text)
    }

    /// Makes a log from text in the format of `/dev/kmsg`.
    pub fn from_text(text: &str) -> Self {
        Self {
            lines: text
                .lines()
                .filter(|l| !l.starts_with(' '))
                .map(|l| l.split_once(';').map_or(l, |(_, m)| m).to_owned())
                .collect(),
        }
    }

    /// Returns the first message that contains `needle`.
    pub fn find(&self, needle: &str) -> Option<&str> {
        self.lines
            .iter()
            .map(String::as_str)
            .find(|l| l.contains(needle))
    }

    /// Returns whether the log still begins with the kernel's first message. Then a message that the log does not have
    /// was not printed.
    pub fn is_complete(&self) -> bool {
        self.lines
            .first()
            .is_some_and(|l| l.starts_with("Linux version "))
    }
}

/// Hypervisor that this machine runs under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// No hypervisor, as far as the CPU flags show.
    None,
    /// Xen, with this machine as a guest whose page tables and whose kexec Xen provides (`guest_type` is PV).
    XenPv,
    /// Xen, with this machine as another kind of guest, and its `guest_type`, which kernels before 4.14 do not publish.
    Xen(String),
    /// Microsoft's Hyper-V, with its name.
    HyperV(String),
    /// Another hypervisor, with the best name that DMI has.
    Some(String),
}

impl Hypervisor {
    /// Reads the CPU flags, `/sys/hypervisor` (`Documentation/ABI/stable/sysfs-hypervisor-xen`) and DMI.
    pub fn read(root: &Root, cpu: &CpuFlags) -> Self {
        let xen = root.attribute("sys/hypervisor/type").ok();
        if xen.as_deref() == Some("xen") {
            return match root.attribute("sys/hypervisor/guest_type").as_deref() {
                Ok("PV") => Self::XenPv,
                Ok(kind) => Self::Xen(kind.to_owned()),
                Err(_) => Self::Xen("of an unknown kind".to_owned()),
            };
        }
        if !cpu.has("hypervisor") && xen.is_none() {
            return Self::None;
        }
        let dmi = |name: &str| root.attribute(&format!("sys/class/dmi/id/{name}")).ok();
        let vendor = dmi("sys_vendor");
        let name = xen
            .or_else(|| Some(format!("{} {}", vendor.as_deref()?, dmi("product_name")?)))
            .unwrap_or_else(|| "unknown".to_owned());
        // The vendor and the driver in the kernel (`drivers/hv`) identify Hyper-V.
        if vendor.as_deref() == Some("Microsoft Corporation") || root.exists("sys/bus/vmbus") {
            return Self::HyperV(name);
        }
        Self::Some(name)
    }

    /// Returns whether the hypervisor takes memory away. Memory that a guest gave up is absent until the guest asks for
    /// it back, and an access to it stops the guest.
    pub fn takes_memory_away(&self) -> bool {
        matches!(self, Self::XenPv | Self::Xen(_) | Self::HyperV(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::fixture::Fixture;

    #[test]
    fn identity_of_a_boot() {
        let f = Fixture::new();
        f.put("proc/sys/kernel/osrelease", "6.12.95+deb12-cloud-amd64\n")
            .put("proc/sys/kernel/arch", "x86_64\n")
            .put(
                "proc/sys/kernel/random/boot_id",
                "0d6c0bb2-6f0c-4a53-b9d3-b5b3bd1d4c57\n",
            )
            .put("proc/stat", "cpu  1 2 3\nbtime 1763856401\nprocesses 7\n")
            .put("proc/uptime", "350735.47 234388.90\n");
        let id = KernelId::read(&f.root()).unwrap();
        assert_eq!(id.version(), Some((6, 12)));
        assert_eq!((id.boot_time, id.uptime), (1_763_856_401, 350_735));
        f.put("proc/uptime", "soon\n");
        assert!(
            KernelId::read(&f.root())
                .unwrap_err()
                .to_string()
                .contains("soon")
        );
        assert_eq!(release_version("7.3.4+deb13-amd64"), Some((7, 3)));
        assert_eq!(release_version("linux"), None);
    }

    #[test]
    fn processors_are_counted() {
        for (list, count) in [
            ("0", 1),
            ("0-3", 4),
            ("0-3,8,10-11", 7),
            ("", 0),
            ("3-1,x,0-4294967295", 0),
        ] {
            assert_eq!(super::count(list), count, "{list}");
        }
        let f = Fixture::new();
        assert_eq!(online_cpus(&f.root()), 1);
        f.put("sys/devices/system/cpu/online", "0-63\n");
        assert_eq!(online_cpus(&f.root()), 64);
        assert_eq!(memory_nodes(&f.root()), 1);
        f.put("sys/devices/system/node/has_memory", "0,2-3\n");
        assert_eq!(memory_nodes(&f.root()), 3);
    }

    #[test]
    fn log_and_hypervisor() {
        let f = Fixture::new();
        assert!(!KernelLog::read(&f.root()).is_complete());
        f.put(
            "dev/kmsg",
            "5,0,0,-;Linux version 6.1\n SUBSYSTEM=x\n6,1,0,-;e820: BIOS\n",
        );
        let log = KernelLog::read(&f.root());
        assert!(log.is_complete());
        assert_eq!(log.find("e820"), Some("e820: BIOS"));
        assert_eq!(log.find("SUBSYSTEM"), None);
        let bare = CpuFlags::parse("flags : fpu\nflags : hypervisor\n");
        assert_eq!(Hypervisor::read(&f.root(), &bare), Hypervisor::None);
        f.put("sys/class/dmi/id/sys_vendor", "QEMU\n")
            .put("sys/class/dmi/id/product_name", "Standard PC\n");
        let guest = CpuFlags::parse("flags : fpu hypervisor\n");
        assert_eq!(
            Hypervisor::read(&f.root(), &guest),
            Hypervisor::Some("QEMU Standard PC".into())
        );
    }
}
