//! Architectures of guests.

/// Architecture of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Arch {
    /// 64-bit x86, the architecture of the host.
    #[default]
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm. The guests' programs are cross-built.
    Arm64,
}

impl Arch {
    /// Target of the programs for guests. Guests have no C library, so these programs are linked statically.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Name of the architecture in Debian.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Name of the QEMU that runs guests.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    /// The full name of a kernel of this architecture (`6.12` becomes `6.12-cloud-arm64`); any other name is unchanged.
    pub fn kernel(self, name: &str) -> String {
        let series = name
            .chars()
            .all(|letter| letter.is_ascii_digit() || letter == '.');
        match self {
            Self::Arm64 if series => format!("{name}-cloud-arm64"),
            _ => name.to_owned(),
        }
    }

    /// The architecture of a kernel that is known by this name (`6.12-cloud-arm64`).
    pub fn of_kernel(name: &str) -> Self {
        match name.ends_with("arm64") {
            true => Self::Arm64,
            false => Self::X86_64,
        }
    }
}
