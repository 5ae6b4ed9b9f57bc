//! Mount options.

use alloc::string::String;
use kho_decide::errno::{EINVAL, Errno};

/// Inode space, in bytes, of an inode, and of each further name of one (`BOGO_INODE_SIZE`): the kernel keeps a dentry
/// for such a name.
pub const INODE: u64 = 1024;

/// Name of the instance if the mount names none.
pub const DEFAULT_NAME: &str = "default";

/// Longest name, in bytes: the limit of a node's name in the state tree.
const MAX_NAME: usize = 63;

/// Error for an unknown option (`ENOPARAM` of `include/linux/errno.h`).
pub const ENOPARAM: Errno = Errno(519);

/// `huge=`: the condition on which new memory of a file is a folio of 2 MiB, as for tmpfs
/// (`Documentation/admin-guide/mm/transhuge.rst`).
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub enum Huge {
    /// Never. Memory that arrived does not become a folio either.
    Never,
    /// If all of the folio is wanted: by fallocate(2), by one write(2), or by consecutive calls of write(2); or if a
    /// mapping is advised to have folios.
    #[default]
    Advise,
    /// If the file is large enough to fill the folio.
    WithinSize,
    /// If there is memory for the folio.
    Always,
}

impl Huge {
    const NAMES: [(&'static str, Self); 4] = [
        ("never", Self::Never),
        ("advise", Self::Advise),
        ("within_size", Self::WithinSize),
        ("always", Self::Always),
    ];

    fn from_name(text: &str) -> Result<Self, Errno> {
        let found = Self::NAMES.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, huge)| huge).ok_or(EINVAL)
    }

    /// The name in the mount option.
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.into_iter().find(|(_, huge)| *huge == self);
        found.map_or("", |(name, _)| name)
    }
}

/// Options of a mount; `None` for an option that the mount does not give.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Options {
    /// `name=`.
    pub name: Option<String>,
    /// `size=`, in pages.
    pub pages: Option<u64>,
    /// `nr_inodes=`.
    pub inodes: Option<u64>,
    /// `mode=`.
    pub mode: Option<u32>,
    /// `uid=`.
    pub uid: Option<u32>,
    /// `gid=`.
    pub gid: Option<u32>,
    /// `huge=`.
    pub huge: Option<Huge>,
}

impl Options {
    /// Sets one option. `ram` is the number of pages of the machine, for percentages. khofs refuses a limit of 0, which
    /// means no limit on tmpfs: an instance without limits could take all memory of the machine, and no handover would
    /// fit any more.
    ///
    /// # Errors
    ///
    /// [`ENOPARAM`] if the option is unknown, [`EINVAL`] if the value is bad.
    pub fn set(&mut self, key: &str, value: Option<&str>, ram: u64) -> Result<(), Errno> {
        let text = || value.ok_or(EINVAL);
        match key {
            "name" => self.name = Some(name(text()?)?),
            "size" => self.pages = Some(size(text()?, ram)?),
            "nr_inodes" => self.inodes = Some(inodes(text()?)?),
            "mode" => self.mode = Some(mode(text()?)?),
            "uid" => self.uid = Some(id(text()?)?),
            "gid" => self.gid = Some(id(text()?)?),
            "huge" => self.huge = Some(Huge::from_name(text()?)?),
            _ => return Err(ENOPARAM),
        }
        Ok(())
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(DEFAULT_NAME)
    }
}

fn name(text: &str) -> Result<String, Errno> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b",._+-".contains(&b);
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(good) {
        return Err(EINVAL);
    }
    let mut copy = String::new();
    copy.try_reserve_exact(text.len())?;
    copy.push_str(text);
    Ok(copy)
}

/// Parses a number with an optional `k`, `m`, `g` or `t`.
fn number(text: &str) -> Result<u64, Errno> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'k') => (text.len().saturating_sub(1), 10u32),
        Some(b'm') => (text.len().saturating_sub(1), 20),
        Some(b'g') => (text.len().saturating_sub(1), 30),
        Some(b't') => (text.len().saturating_sub(1), 40),
        _ => (text.len(), 0),
    };
    let number: u64 = text
        .get(..digits)
        .ok_or(EINVAL)?
        .parse()
        .map_err(|_| EINVAL)?;
    number.checked_mul(1u64.wrapping_shl(shift)).ok_or(EINVAL)
}

fn size(text: &str, ram: u64) -> Result<u64, Errno> {
    let pages = match text.strip_suffix('%') {
        Some(percent) => {
            let percent: u64 = percent.parse().map_err(|_| EINVAL)?;
            ram.checked_mul(percent).map(|n| n / 100).ok_or(EINVAL)?
        }
        None => number(text)?.div_ceil(kho::PAGE_SIZE),
    };
    if pages == 0 { Err(EINVAL) } else { Ok(pages) }
}

fn inodes(text: &str) -> Result<u64, Errno> {
    let inodes = number(text)?;
    let counts = inodes > 0 && inodes.checked_mul(INODE).is_some();
    if counts { Ok(inodes) } else { Err(EINVAL) }
}

fn mode(text: &str) -> Result<u32, Errno> {
    let mode = u32::from_str_radix(text, 8).map_err(|_| EINVAL)?;
    if mode > 0o7777 { Err(EINVAL) } else { Ok(mode) }
}

/// (u32) -1 is not a valid user or group.
fn id(text: &str) -> Result<u32, Errno> {
    text.parse().ok().filter(|id| *id != u32::MAX).ok_or(EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Result<Options, Errno> {
        let mut options = Options::default();
        options.set(key, Some(value), 1000)?;
        Ok(options)
    }

    #[test]
    fn values_as_tmpfs_takes_them() {
        for (text, pages) in [
            ("4096", 1),
            ("1k", 1),
            ("5000", 2),
            ("1M", 256),
            ("2g", 1 << 19),
            ("50%", 500),
        ] {
            assert_eq!(one("size", text).unwrap().pages, Some(pages), "{text}");
        }
        assert_eq!(one("mode", "1777").unwrap().mode, Some(0o1777));
        assert_eq!(one("nr_inodes", "10k").unwrap().inodes, Some(10240));
        assert_eq!(one("name", "vm-1").unwrap().name(), "vm-1");
        for (name, huge) in Huge::NAMES {
            assert_eq!(one("huge", name).unwrap().huge, Some(huge));
            assert_eq!(huge.name(), name);
        }
        assert_eq!(Options::default().name(), "default");
    }

    #[test]
    fn bad_values_and_foreign_options() {
        for (key, value) in [
            ("size", ""),
            ("size", "-1"),
            ("size", "0"),
            ("size", "0%"),
            ("size", "%"),
            ("size", "18446744073709551615%"),
            ("nr_inodes", "0"),
            ("nr_inodes", "50%"),
            ("nr_inodes", "16384t"),
            ("size", "17179869184g"),
            ("mode", "9"),
            ("mode", "10000"),
            ("uid", "4294967295"),
            ("gid", "x"),
            ("name", ""),
            ("name", "a/b"),
            ("huge", "2M"),
        ] {
            assert_eq!(one(key, value), Err(EINVAL), "{key}={value}");
        }
        assert_eq!(one("quota", "1"), Err(ENOPARAM));
        assert_eq!(Options::default().set("size", None, 1), Err(EINVAL));
    }
}
