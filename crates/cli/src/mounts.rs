//! Mounts that the kept content lies on: the existing mounts, those in fstab, and the units that systemd makes of them.

use crate::state::escape_path;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A mounted file system (proc(5), `/proc/PID/mountinfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Mount point.
    pub at: PathBuf,
    /// Type, source, and the directory of that file system that is mounted. Unlike the device number, these stay the
    /// same if the file system is unmounted and mounted again.
    pub what: OsString,
}

/// A mount that the administrator configured (fstab(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Mount point.
    pub at: PathBuf,
    /// Device, directory or name to mount.
    source: OsString,
    /// Type of file system.
    kind: OsString,
    /// Options, in the form of the file.
    options: OsString,
}

impl Mounted {
    /// Whether the files are in memory and end with the kernel.
    pub fn is_memory(&self) -> bool {
        let kind = self.what.as_bytes().split(|byte| *byte == b' ').next();
        matches!(kind, Some(b"tmpfs" | b"ramfs"))
    }

    /// Whether the type of the file system needs a network.
    fn is_network(&self) -> bool {
        let kind = self.what.as_bytes().split(|byte| *byte == b' ').next();
        kind.is_some_and(is_network)
    }
}

/// Types of file systems that need a network, from systemd's list (`fstype_is_network`, `src/basic/mountpoint-util.c`,
/// 252 to 257). A prefix of `fuse.` makes no difference.
const NETWORK: [&str; 20] = [
    "afs",
    "ceph",
    "cifs",
    "smb3",
    "smbfs",
    "sshfs",
    "ncpfs",
    "ncp",
    "nfs",
    "nfs4",
    "gfs",
    "gfs2",
    "glusterfs",
    "pvfs2",
    "ocfs2",
    "lustre",
    "davfs",
    "orangefs",
    "curlftpfs",
    "s3fs",
];

/// Parses `/proc/self/mountinfo`. Skips lines in another format.
pub fn mounted(text: &[u8]) -> Vec<Mounted> {
    let line = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b' ');
        let root = fields.nth(3)?;
        let at = fields.next()?;
        // The optional fields end with a hyphen.
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, source) = (fields.next()?, fields.next()?);
        Some(Mounted {
            at: PathBuf::from(unescape(at)),
            what: unescape(&[kind, source, root].join(&b' ')),
        })
    };
    text.split(|b| *b == b'\n').filter_map(line).collect()
}

/// Parses `/etc/fstab`. Skips comments and lines without a mount point (swap).
pub fn wanted(text: &[u8]) -> Vec<Wanted> {
    let line = |line: &[u8]| {
        let mut fields = line
            .split(u8::is_ascii_whitespace)
            .filter(|field| !field.is_empty())
            .map(unescape);
        let source = fields.next().filter(|s| !s.as_bytes().starts_with(b"#"))?;
        let at = PathBuf::from(fields.next()?);
        Some(Wanted {
            at: at.components().collect(),
            source,
            kind: fields.next()?,
            options: fields.next().unwrap_or_default(),
        })
        .filter(|wanted| wanted.at.is_absolute())
    };
    text.split(|b| *b == b'\n').filter_map(line).collect()
}

/// Decodes escapes such as `\040`.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind
            .first_chunk::<3>()
            .filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// Returns the mount that holds a path: of all mounts at the nearest mount point, the one that was mounted last.
pub fn holder<'a>(path: &Path, mounted: &'a [Mounted]) -> Option<&'a Mounted> {
    let above = mounted.iter().filter(|mount| path.starts_with(&mount.at));
    above.max_by_key(|mount| mount.at.components().count())
}

/// Returns the mounts below a path: at each mount point, the one that was mounted last.
pub fn below<'a>(path: &Path, mounted: &'a [Mounted]) -> Vec<&'a Mounted> {
    let inside = |at: &Path| at.starts_with(path) && at != path;
    mounted
        .iter()
        .enumerate()
        .filter(|(n, mount)| {
            let mut later = mounted.iter().skip(n + 1);
            inside(&mount.at) && !later.any(|later| later.at == mount.at)
        })
        .map(|(_, mount)| mount)
        .collect()
}

/// Whether the type of a file system needs a network.
fn is_network(kind: &[u8]) -> bool {
    let kind = kind.strip_prefix(b"fuse.").unwrap_or(kind);
    NETWORK.iter().any(|network| network.as_bytes() == kind)
}

/// Whether the mount needs a network: because of its type or an option, or because its source lies on such a mount.
fn needs_network(wanted: &Wanted, all: &[Wanted]) -> bool {
    let by_itself = |wanted: &Wanted| {
        let mut options = wanted.options.as_bytes().split(|b| *b == b',');
        is_network(wanted.kind.as_bytes()) || options.any(|option| option == b"_netdev")
    };
    let source = Path::new(&wanted.source);
    let is_bind = source.is_absolute() && !source.starts_with("/dev");
    by_itself(wanted)
        || (is_bind
            && all
                .iter()
                .any(|other| by_itself(other) && source.starts_with(&other.at)))
}

/// Names of mount units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Units that come before kho's units. Some of them may not exist; an order after such a unit has no effect.
    pub local: BTreeSet<String>,
    /// Units that come after kho's units, because they need a network: systemd mounts them after the time at which kept
    /// content must be restored, and unmounts them before the capture.
    pub network: BTreeSet<String>,
}

/// Returns the mount units that these paths need: for each mount point on the way to a path, and below it.
pub fn units<'a>(
    paths: impl IntoIterator<Item = &'a Path>,
    wanted: &[Wanted],
    mounted: &[Mounted],
) -> Units {
    let configured = wanted
        .iter()
        .filter(|one| needs_network(one, wanted))
        .map(|one| one.at.as_path());
    let by_hand = mounted
        .iter()
        .filter(|one| one.is_network())
        .map(|one| one.at.as_path());
    let network: BTreeSet<&Path> = configured.chain(by_hand).collect();
    let mut places = BTreeSet::new();
    for path in paths {
        let above = path.ancestors().filter(|at| *at != Path::new("/"));
        let inside = wanted
            .iter()
            .map(|one| one.at.as_path())
            .chain(mounted.iter().map(|one| one.at.as_path()))
            .filter(|at| at.starts_with(path));
        places.extend(above.chain(inside));
    }
    let name = |at: &&Path| format!("{}.mount", escape_path(at));
    Units {
        local: places.difference(&network).map(name).collect(),
        // The initrd mounted /usr, and systemd does not unmount it: kho could never come before it.
        network: places
            .intersection(&network)
            .filter(|at| **at != Path::new("/usr"))
            .map(name)
            .collect(),
    }
}

/// A mount that systemd knows and that is not mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Mount point.
    pub at: PathBuf,
    /// Whether a unit mounts it at boot. Otherwise it is mounted when a unit or a user asks for it (`noauto`).
    at_boot: bool,
}

/// Parses the output of `systemctl show --property=` with [`SHOWN`] for mount units.
pub fn missing(text: &str) -> Vec<Missing> {
    let unit = |block: &str| {
        let value = |name: &str| {
            let mut lines = block.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        };
        let known = value("LoadState") == Some("loaded");
        let active = value("ActiveState") == Some("active");
        // systemd checked a condition of the unit, and the condition says that nothing is to be mounted.
        let not_wanted = value("ConditionResult") == Some("no")
            && value("ConditionTimestampMonotonic").is_some_and(|time| time != "0");
        let asked = ["WantedBy", "RequiredBy"].map(|name| value(name).unwrap_or_default());
        (known && !active && !not_wanted).then(|| Missing {
            at: PathBuf::from(value("Where").unwrap_or_default()),
            at_boot: asked.iter().any(|units| !units.is_empty()),
        })
    };
    text.split("\n\n").filter_map(unit).collect()
}

/// Properties that [`missing`] reads.
pub const SHOWN: &str =
    "Where,LoadState,ActiveState,WantedBy,RequiredBy,ConditionResult,ConditionTimestampMonotonic";

impl Missing {
    /// Whether content that is written to this path now would end up under a mount that comes later.
    pub fn concerns(&self, path: &Path) -> bool {
        path.starts_with(&self.at) || (self.at_boot && self.at.starts_with(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"\
22 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw
30 22 0:27 / /srv/a rw shared:12 master:1 - tmpfs tmpfs rw,size=64k
31 30 0:28 / /srv/a/in\\040side rw - tmpfs tmpfs rw
32 22 254:16 /sub /srv/disk ro - ext4 /dev/vdb ro
33 32 0:30 / /srv/disk rw - tmpfs over rw
not a line
";

    fn places(list: &[Mounted]) -> Vec<&str> {
        list.iter().filter_map(|m| m.at.to_str()).collect()
    }

    #[test]
    fn what_is_mounted_is_read() {
        let list = mounted(MOUNTINFO);
        assert_eq!(
            places(&list),
            ["/", "/srv/a", "/srv/a/in side", "/srv/disk", "/srv/disk"]
        );
        let what: Vec<_> = list.iter().filter_map(|m| m.what.to_str()).collect();
        assert_eq!(
            what,
            [
                "ext4 /dev/vda /",
                "tmpfs tmpfs /",
                "tmpfs tmpfs /",
                "ext4 /dev/vdb /sub",
                "tmpfs over /"
            ]
        );
    }

    #[test]
    fn the_holder_is_the_nearest_and_the_last() {
        let list = mounted(MOUNTINFO);
        for (path, what) in [
            ("/srv", "ext4 /dev/vda /"),
            ("/srv/ab", "ext4 /dev/vda /"),
            ("/srv/a", "tmpfs tmpfs /"),
            ("/srv/disk/x", "tmpfs over /"),
        ] {
            let found = holder(Path::new(path), &list).map(|m| m.what.as_os_str());
            assert_eq!(found, Some(std::ffi::OsStr::new(what)), "{path}");
        }
        let inside: Vec<_> = below(Path::new("/srv"), &list)
            .iter()
            .map(|m| m.what.clone())
            .collect();
        assert_eq!(inside, ["tmpfs tmpfs /", "tmpfs tmpfs /", "tmpfs over /"]);
        assert!(below(Path::new("/srv/a/in side"), &list).is_empty());
    }

    const FSTAB: &[u8] = b"\
# comment
/dev/vda / ext4 rw 0 1
UUID=1 none swap sw 0 0
tmpfs /srv/a\\040b tmpfs nofail,size=1M 0 0
/dev/vdc /srv/late/ ext4 nofail
server:/x /srv/net nfs defaults 0 0
user@server:/ /srv/fuse fuse.sshfs defaults 0 0
/dev/sdx /srv/iscsi ext4 nofail,_netdev 0 0
/srv/net/sub /srv/bound none bind,nofail 0 0
/srv/late/sub /srv/local none bind,nofail 0 0
short
";

    #[test]
    fn what_is_wanted_is_read() {
        let list = wanted(FSTAB);
        let at: Vec<_> = list.iter().filter_map(|w| w.at.to_str()).collect();
        assert_eq!(
            at,
            [
                "/",
                "/srv/a b",
                "/srv/late",
                "/srv/net",
                "/srv/fuse",
                "/srv/iscsi",
                "/srv/bound",
                "/srv/local"
            ]
        );
        let network: Vec<_> = list
            .iter()
            .filter(|one| needs_network(one, &list))
            .filter_map(|one| one.at.to_str())
            .collect();
        assert_eq!(
            network,
            ["/srv/net", "/srv/fuse", "/srv/iscsi", "/srv/bound"]
        );
    }

    #[test]
    fn units_are_those_on_the_way_and_those_below() {
        let names = |paths: &[&str], fstab: &[u8], mountinfo: &[u8]| {
            let paths: Vec<&Path> = paths.iter().map(Path::new).collect();
            let units = units(paths, &wanted(fstab), &mounted(mountinfo));
            units.local.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(
            names(&["/srv/late/x-y"], b"", b""),
            ["srv-late-x\\x2dy.mount", "srv-late.mount", "srv.mount"]
        );
        assert_eq!(
            names(&["/srv"], FSTAB, MOUNTINFO),
            [
                "srv-a-in\\x20side.mount",
                "srv-a.mount",
                "srv-a\\x20b.mount",
                "srv-disk.mount",
                "srv-late.mount",
                "srv-local.mount",
                "srv.mount"
            ]
        );
        assert_eq!(
            names(&["/srv/net/x"], FSTAB, b""),
            ["srv-net-x.mount", "srv.mount"]
        );
        assert!(names(&["/"], b"", b"").is_empty());
    }

    #[test]
    fn mounts_that_need_a_network_come_after_kho() {
        let network = |path: &str, fstab: &[u8], mountinfo: &[u8]| {
            let units = units([Path::new(path)], &wanted(fstab), &mounted(mountinfo));
            assert!(units.local.is_disjoint(&units.network));
            units.network.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(network("/srv/net/x", FSTAB, b""), ["srv-net.mount"]);
        assert_eq!(
            network("/srv", FSTAB, MOUNTINFO),
            [
                "srv-bound.mount",
                "srv-fuse.mount",
                "srv-iscsi.mount",
                "srv-net.mount"
            ]
        );
        // No line of fstab has this one.
        let by_hand = b"40 22 0:40 / /mnt/hand rw - nfs4 server:/x rw\n";
        assert_eq!(network("/mnt/hand/x", b"", by_hand), ["mnt-hand.mount"]);
        assert!(network("/srv/late", FSTAB, MOUNTINFO).is_empty());
        assert!(network("/usr/x", b"server:/usr /usr nfs ro 0 0\n", b"").is_empty());
    }

    #[test]
    fn mounts_that_are_missing_concern_what_is_on_the_way() {
        let text = "Where=/srv/late\nLoadState=loaded\nActiveState=inactive\nWantedBy=dev-vdc.device\nRequiredBy=\n\
                    ConditionResult=no\nConditionTimestampMonotonic=0\n\n\
                    Where=/srv/there\nLoadState=loaded\nActiveState=active\nWantedBy=\nRequiredBy=local-fs.target\n\n\
                    LoadState=not-found\nActiveState=inactive\nWhere=/srv/unknown\n\n\
                    Where=/var/lib/machines\nLoadState=loaded\nActiveState=inactive\nWantedBy=machines.target\n\
                    ConditionResult=no\nConditionTimestampMonotonic=1234\n\n\
                    Where=/mnt/cd\nLoadState=loaded\nActiveState=inactive\nWantedBy=\nRequiredBy=\n";
        let found = missing(text);
        let concerned = |path: &str| found.iter().any(|m| m.concerns(Path::new(path)));
        for path in ["/srv/late", "/srv/late/x", "/srv", "/mnt/cd/x"] {
            assert!(concerned(path), "{path}");
        }
        for path in [
            "/srv/there/x",
            "/srv/later",
            "/srv/unknown",
            "/mnt",
            "/mnt/c",
        ] {
            assert!(!concerned(path), "{path}");
        }
        assert!(missing("").is_empty());
    }
}
