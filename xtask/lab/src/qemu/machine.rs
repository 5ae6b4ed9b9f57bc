//! Description of a virtual machine, and the QEMU command that runs it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::arch::Arch;
use crate::host;

/// Firmware of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// OVMF.
    Uefi,
    /// OVMF with a TPM 2.0.
    UefiTpm,
    /// OVMF with Secure Boot, which accepts the key that its package brings for tests. The guest's kernels are signed with
    /// that key.
    SecureBoot,
}

impl fmt::Display for Firmware {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
            Self::UefiTpm => "uefi-tpm",
            Self::SecureBoot => "secure-boot",
        })
    }
}

/// The way in which instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor executes them, by KVM. Probed, never assumed.
    Kvm,
    /// QEMU executes them.
    Tcg,
}

/// A virtual machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Architecture.
    pub arch: Arch,
    /// Memory in MiB.
    pub mem_mib: u64,
    /// Memory that the guest touches and the host has to provide, in MiB; `None` if it may be all of it.
    pub touched_mib: Option<u64>,
    /// Processors.
    pub smp: u32,
    /// Firmware.
    pub firmware: Firmware,
    /// Number of kernels that must die, each followed by a reset.
    pub panics: usize,
    /// Number of kernels that die in the machine after their stage is over. A crash kernel then takes the dump and
    /// starts the machine again.
    pub crashes: usize,
    /// Whether a reset starts the machine again instead of ending it.
    pub restarts: bool,
    /// Whether the machine's memory is a file that the host can read and write: [`MEMORY_FILE`].
    pub memory_in_file: bool,
    /// Whether the processor is QEMU's own, with all features, on any host.
    pub emulated: bool,
    /// Whether the clock counts instructions: each takes a nanosecond. QEMU then executes them, with one processor.
    pub counting: bool,
    /// More QEMU arguments.
    pub extra: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            arch: Arch::X86_64,
            mem_mib: 1024,
            touched_mib: None,
            smp: 2,
            firmware: Firmware::Bios,
            panics: 0,
            crashes: 0,
            restarts: false,
            memory_in_file: false,
            emulated: false,
            counting: false,
            extra: Vec::new(),
        }
    }
}

/// Files from which a guest starts.
#[derive(Debug)]
pub struct Media {
    /// First kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Its command line.
    pub cmdline: String,
    /// The disk.
    pub disk: PathBuf,
    /// The disk of a full system, which comes before `disk`. Writes go to a copy.
    pub system: Option<PathBuf>,
}

/// Paths of the sockets on which the host listens for a guest's QEMU.
pub struct Sockets {
    /// The first serial port: the kernel's.
    pub console: PathBuf,
    /// The second serial port: scripts and events.
    pub control: PathBuf,
    /// QEMU's monitor.
    pub qmp: PathBuf,
}

/// Name of the file, in a guest's folder, that holds the guest's memory. Byte N of the file is byte N of memory, up to
/// the hole below 4 GiB (which begins at 2 GiB or above on this machine).
pub const MEMORY_FILE: &str = "memory";

/// Code and variables of the firmware, as OVMF's package names them.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The same with Secure Boot, and with the key for tests in the variables.
const SECURE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const SECURE_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";

/// Largest memory of a guest that is reserved on the host, in MiB.
const RESERVED_MIB: u64 = 16 << 10;

impl Machine {
    /// The command that runs this machine, with its writable files in `dir`.
    pub fn command(
        &self,
        accelerator: Accelerator,
        media: &Media,
        sockets: &Sockets,
        dir: &Path,
    ) -> Result<Command> {
        let qemu = self.arch.qemu();
        let qemu = host::program(qemu).with_context(|| format!("there is no {qemu}"))?;
        let mut command = dying_with_parent(&qemu)?;
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-nic",
            "none",
        ]);
        if self.memory_in_file {
            let file = option_value(&dir.join(MEMORY_FILE))?;
            command.args([
                "-object",
                &format!(
                    "memory-backend-file,id=ram,size={}M,share=on,mem-path={file}",
                    self.mem_mib
                ),
                "-machine",
                "memory-backend=ram",
            ]);
        }
        // A large guest touches little of its memory. The host's kernel refuses to reserve more than it has, unless the
        // administrator allows that (vm.overcommit_memory). A machine with nodes has its memory in their backends.
        let in_nodes = self.extra.iter().any(|argument| argument == "-numa");
        if self.mem_mib > RESERVED_MIB && !self.memory_in_file && !in_nodes {
            command.args([
                "-object",
                &format!(
                    "memory-backend-ram,id=ram,size={}M,reserve=off",
                    self.mem_mib
                ),
                "-machine",
                "memory-backend=ram",
            ]);
        }
        if self.counting {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        match self.arch {
            Arch::X86_64 => command.args(["-machine", "q35"]),
            Arch::Arm64 => command.args(["-machine", "virt,gic-version=3,its=off"]),
        };
        command.args(match accelerator {
            // LPA2 off: with it, kexec_load of 6.12 faults.
            _ if self.arch == Arch::Arm64 => {
                ["-accel", "tcg,thread=single", "-cpu", "max,lpa2=off"]
            }
            Accelerator::Kvm if !(self.counting || self.emulated) => {
                ["-accel", "kvm", "-cpu", "host"]
            }
            // One thread for all processors: with one thread each, QEMU 10.0 sometimes sends a processor's access to
            // its interrupt controller to a PCI device whose registers are being moved, and aborts. The processor lacks
            // the fast string operations, which are the slowest under TCG: kernels then clear pages by whole words.
            _ => ["-accel", "tcg,thread=single", "-cpu", "max,-erms,-fsrm"],
        });
        command.args([
            "-m",
            &format!("{}M", self.mem_mib),
            "-smp",
            &self.smp.to_string(),
        ]);
        for (name, path) in [
            ("console", &sockets.console),
            ("control", &sockets.control),
            ("qmp", &sockets.qmp),
        ] {
            command.args([
                "-chardev",
                &format!("socket,id={name},path={}", option_value(path)?),
            ]);
        }
        command.args(["-serial", "chardev:console", "-serial", "chardev:control"]);
        command.args([
            "-mon",
            "chardev=qmp,mode=control",
            "-device",
            "virtio-rng-pci",
        ]);
        match &media.system {
            // A guest that reaches all its stages by kexec ends at a reset.
            None => {
                if !self.restarts {
                    command.arg("-no-reboot");
                }
            }
            Some(disk) => {
                // QEMU writes changes to a file beside the guest's other files, and removes it when it ends.
                command.env("TMPDIR", dir).args([
                    "-drive",
                    &format!(
                        "if=none,id=system,format=raw,snapshot=on,file={}",
                        option_value(disk)?
                    ),
                    "-device",
                    "virtio-blk-pci,drive=system",
                ]);
            }
        }
        command.args([
            "-drive",
            &format!(
                "if=none,id=media,format=raw,readonly=on,file={}",
                option_value(&media.disk)?
            ),
        ]);
        command.args(["-device", "virtio-blk-pci,drive=media"]);
        command
            .arg("-kernel")
            .arg(&media.kernel)
            .arg("-initrd")
            .arg(&media.initrd)
            .args(["-append", &media.cmdline]);
        self.add_firmware(&mut command, dir)?;
        command.args(&self.extra);
        Ok(command)
    }

    /// Starts the programs that must run beside QEMU: the TPM's.
    pub fn companions(&self, dir: &Path) -> Result<Vec<Child>> {
        if self.firmware != Firmware::UefiTpm {
            return Ok(Vec::new());
        }
        let state = dir.join("tpm");
        std::fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?;
        let child = dying_with_parent(&host::program("swtpm").context("there is no swtpm")?)?
            .args([
                "socket",
                "--tpm2",
                "--tpmstate",
                &format!("dir={}", option_value(&state)?),
            ])
            .args([
                "--ctrl",
                &format!("type=unixio,path={}", option_value(&tpm_socket(dir))?),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting swtpm")?;
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !tpm_socket(dir).exists() {
            if std::time::Instant::now() > patience {
                bail!("swtpm did not open its socket");
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(vec![child])
    }

    fn add_firmware(&self, command: &mut Command, dir: &Path) -> Result<()> {
        if self.firmware == Firmware::Bios {
            return Ok(());
        }
        let variables = dir.join("efi-variables.fd");
        let (code, initial) = match self.firmware {
            Firmware::SecureBoot => (SECURE_CODE, SECURE_VARS),
            _ => (OVMF_CODE, OVMF_VARS),
        };
        std::fs::copy(initial, &variables).with_context(|| format!("copying {initial}"))?;
        command.args([
            "-drive",
            &format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"),
        ]);
        if self.firmware == Firmware::SecureBoot {
            // Only the firmware may write the variables, in system management mode.
            command.args([
                "-machine",
                "smm=on",
                "-global",
                "driver=cfi.pflash01,property=secure,value=on",
            ]);
        }
        command.args([
            "-drive",
            &format!(
                "if=pflash,format=raw,unit=1,file={}",
                option_value(&variables)?
            ),
        ]);
        if self.firmware == Firmware::UefiTpm {
            command.args([
                "-chardev",
                &format!("socket,id=tpm,path={}", option_value(&tpm_socket(dir))?),
            ]);
            command.args([
                "-tpmdev",
                "emulator,id=tpm0,chardev=tpm",
                "-device",
                "tpm-crb,tpmdev=tpm0",
            ]);
        }
        Ok(())
    }
}

/// Returns a command that starts a program. The kernel kills the program when the thread that started it ends, for any
/// reason.
fn dying_with_parent(program: &Path) -> Result<Command> {
    let mut command = Command::new(host::program("setpriv").context("there is no setpriv")?);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    Ok(command)
}

fn tpm_socket(dir: &Path) -> PathBuf {
    dir.join("tpm.socket")
}

/// A path as the value of a QEMU option, with doubled commas.
fn option_value(path: &Path) -> Result<String> {
    Ok(path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?
        .replace(',', ",,"))
}
