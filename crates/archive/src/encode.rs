//! Encoder of headers: one ustar block, after a pax extended header if the values do not fit in that block.

use tar::{EntryType, Header};

use crate::sparse::{self, Extent};
use crate::sys::Time;
use crate::{BLOCK, Kind};

/// Name of every pax header block. Readers that know pax never show it.
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// Largest value of the octal uid and gid fields.
const MAX_OCTAL_ID: u32 = 0o7_777_777;

/// Largest value of the octal size and mtime fields.
const MAX_OCTAL_LONG: u64 = 0o77_777_777_777;

/// Content of the headers of an entry.
pub(crate) struct Head<'a> {
    pub kind: Kind,
    /// Path relative to the archive's root, without a slash at either end.
    pub path: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Text of a symlink; path of the first name for a hard link.
    pub link: &'a [u8],
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// Size of the file in bytes, 0 for other kinds.
    pub size: u64,
    pub sparse: Option<&'a [Extent]>,
}

impl Head<'_> {
    /// Returns the number of bytes of content after the headers, without padding.
    pub(crate) fn stored(&self) -> u64 {
        match self.sparse {
            Some(map) => {
                let data: u64 = map.iter().map(|e| e.len).sum();
                sparse::encoded_len(map, self.size).saturating_add(data)
            }
            None => self.size,
        }
    }

    /// Encodes the header blocks.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(match self.kind {
            Kind::File => EntryType::Regular,
            Kind::Directory => EntryType::Directory,
            Kind::Symlink => EntryType::Symlink,
            Kind::HardLink => EntryType::Link,
        });
        header.set_mode(self.mode);
        header.set_uid(self.uid.into());
        header.set_gid(self.gid.into());
        let stored = self.stored();
        header.set_size(stored);
        header.set_mtime(u64::try_from(self.mtime.seconds).unwrap_or(0));

        let mut pax = Vec::new();
        self.name(&mut header, &mut pax);
        if !fill(&mut header.as_old_mut().linkname, self.link) {
            record(&mut pax, b"linkpath", self.link);
        }
        if stored > MAX_OCTAL_LONG {
            record(&mut pax, b"size", stored.to_string().as_bytes());
        }
        if self.uid > MAX_OCTAL_ID {
            record(&mut pax, b"uid", self.uid.to_string().as_bytes());
        }
        if self.gid > MAX_OCTAL_ID {
            record(&mut pax, b"gid", self.gid.to_string().as_bytes());
        }
        let whole = u64::try_from(self.mtime.seconds).is_ok_and(|s| s <= MAX_OCTAL_LONG);
        if self.mtime.nanoseconds != 0 || !whole {
            record(&mut pax, b"mtime", decimal(self.mtime).as_bytes());
        }
        for (name, value) in self.xattrs {
            record(&mut pax, &xattr_key(name), value);
        }
        header.set_cksum();

        let mut out = Vec::new();
        if !pax.is_empty() {
            let mut head = Header::new_ustar();
            head.set_entry_type(EntryType::XHeader);
            fill(&mut head.as_old_mut().name, PAX_NAME);
            head.set_mode(0o644);
            head.set_uid(0);
            head.set_gid(0);
            head.set_mtime(0);
            head.set_size(pax.len() as u64);
            head.set_cksum();
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(&pax);
            out.resize(out.len() + padding(pax.len() as u64), 0);
        }
        out.extend_from_slice(header.as_bytes());
        out
    }

    fn name(&self, header: &mut Header, pax: &mut Vec<u8>) {
        let mut name = self.path.to_vec();
        if self.kind == Kind::Directory {
            name.push(b'/');
        }
        if self.sparse.is_some() {
            // A reader that does not know the sparse format creates a file of this name with map and data. Under the
            // right name, that content would be wrong.
            let base = self.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            let placeholder = [b"GNUSparseFile.0/".as_slice(), base].concat();
            fill(&mut header.as_old_mut().name, &placeholder);
            record(pax, b"GNU.sparse.major", b"1");
            record(pax, b"GNU.sparse.minor", b"0");
            record(pax, b"GNU.sparse.name", &name);
            let size = self.size.to_string();
            record(pax, b"GNU.sparse.realsize", size.as_bytes());
        } else if !fill(&mut header.as_old_mut().name, &name) {
            record(pax, b"path", &name);
        }
    }
}

/// Returns the number of padding bytes between the end of `len` bytes of content and the next block.
pub(crate) fn padding(len: u64) -> usize {
    let over = len % BLOCK;
    // Less than 512 in all cases.
    usize::try_from((BLOCK - over) % BLOCK).unwrap_or(0)
}

/// Copies as much of `value` as fits into `field`. Returns whether all of it fits.
fn fill(field: &mut [u8], value: &[u8]) -> bool {
    for (slot, b) in field.iter_mut().zip(value) {
        *slot = *b;
    }
    value.len() <= field.len()
}

/// Appends one record `length key=value\n`. The length includes its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(format!("{len} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Returns the key of an attribute. Escapes the separator of records, as GNU tar does (`xattr_encode_keyword` in its
/// `xheader.c`).
fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = b"SCHILY.xattr.".to_vec();
    for b in name {
        match b {
            b'%' => key.extend_from_slice(b"%25"),
            b'=' => key.extend_from_slice(b"%3D"),
            b => key.push(*b),
        }
    }
    key
}

/// Formats a time for pax: decimal, negative before 1970.
fn decimal(t: Time) -> String {
    let (sign, seconds, nanoseconds) = if t.seconds < 0 && t.nanoseconds > 0 {
        let up = t.seconds.saturating_add(1).unsigned_abs();
        ("-", up, 1_000_000_000_u32.saturating_sub(t.nanoseconds))
    } else if t.seconds < 0 {
        ("-", t.seconds.unsigned_abs(), 0)
    } else {
        ("", t.seconds.unsigned_abs(), t.nanoseconds)
    };
    if nanoseconds == 0 {
        format!("{sign}{seconds}")
    } else {
        format!("{sign}{seconds}.{nanoseconds:09}")
    }
}
