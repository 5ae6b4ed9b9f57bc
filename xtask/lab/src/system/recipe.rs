//! Recipes of systems: packages and scripts.

use super::release::Release;

/// Packages and scripts of a system. All of them determine the identity of the system.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Short name, for folders.
    pub name: String,
    /// The release.
    pub release: Release,
    /// Packages of the release, besides the essential ones.
    pub packages: Vec<&'static str>,
    /// Packages of the release's backports.
    pub backports: Vec<&'static str>,
    /// Shell scripts that run before the packages are installed; `$1` is the root.
    pub before: Vec<String>,
    /// Shell scripts that run at the end.
    pub after: Vec<String>,
}

/// Script that makes initrds small and fast: they find the disk and do nothing else.
const INITRD: &str = r#"mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=lz4\n' > "$1/etc/initramfs-tools/conf.d/guest"
printf 'virtio_pci\nvirtio_blk\next4\n' > "$1/etc/initramfs-tools/modules""#;

/// Script that sets up the system. Redis keeps its data on a tmpfs; a test can copy PostgreSQL's cluster there.
/// Services that a server does not need, and that would cost an emulated server time, are off.
const FURNITURE: &str = include_str!("furniture.sh");

/// Script that disables kdump: most guests have no memory for a crash kernel.
const KDUMP: &str = r#"systemctl --root="$1" --quiet disable kdump-tools.service"#;

/// Script that removes the files that only apt needs.
const CLEAN: &str =
    r#"rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*"#;

impl Recipe {
    /// A system for guests.
    pub fn guest(release: Release) -> Self {
        let packages = vec![
            "systemd",
            "systemd-sysv",
            "udev",
            "dbus",
            "kmod",
            "initramfs-tools",
            // Makes initrds beside initramfs-tools, without being the one that the kernel packages call.
            "dracut-core",
            "lz4",
            "procps",
            "init-system-helpers",
            "kexec-tools",
            "redis-server",
            "postgresql",
            "linux-image-cloud-amd64",
            "kdump-tools",
            "makedumpfile",
        ];
        let after = [FURNITURE.trim_end(), KDUMP, CLEAN];
        Self {
            name: release.codename().to_owned(),
            release,
            packages,
            backports: match release {
                Release::Forky => Vec::new(),
                Release::Bookworm | Release::Trixie => vec!["linux-image-cloud-amd64"],
            },
            before: vec![INITRD.to_owned()],
            after: after.map(str::to_owned).to_vec(),
        }
    }

    /// A system for building modules, with the headers of every kernel and without Rust.
    pub fn dkms(release: Release) -> Self {
        Self {
            name: format!("{}-dkms", release.codename()),
            release,
            packages: vec!["dkms", "kmod", "linux-headers-cloud-amd64"],
            backports: vec!["linux-headers-cloud-amd64"],
            before: Vec::new(),
            after: vec![CLEAN.to_owned()],
        }
    }

    /// Hexadecimal digest of the whole recipe.
    pub fn digest(&self) -> String {
        blake3::hash(format!("{self:?}").as_bytes())
            .to_hex()
            .to_string()
    }
}
