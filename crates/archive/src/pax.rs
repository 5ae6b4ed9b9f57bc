//! Records of a pax extended header.
//!
//! The parser splits them by their lengths, not at line ends: names and attribute values may contain newlines.

use crate::error::Problem;
use crate::sys::{Time, Xattrs};

/// The records that this crate uses. It ignores unknown ones, as POSIX requires.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: Xattrs,
    pub sparse_name: Option<Vec<u8>>,
    pub sparse_size: Option<u64>,
    sparse_major: Option<u64>,
    sparse_minor: Option<u64>,
}

impl Pax {
    pub(crate) fn parse(mut data: &[u8]) -> Result<Self, Problem> {
        let mut pax = Self::default();
        while !data.is_empty() {
            let (key, value, rest) =
                split(data).ok_or(Problem::Pax("a record has a bad length"))?;
            pax.record(key, value)?;
            data = rest;
        }
        let parts = [
            pax.sparse_major.is_some(),
            pax.sparse_minor.is_some(),
            pax.sparse_name.is_some(),
            pax.sparse_size.is_some(),
        ];
        if parts.contains(&true) {
            if parts.contains(&false) {
                return Err(Problem::Pax("the records of a sparse file are incomplete"));
            }
            if (pax.sparse_major, pax.sparse_minor) != (Some(1), Some(0)) {
                return Err(Problem::Pax("sparse files of another version than 1.0"));
            }
        }
        Ok(pax)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = Some(number("size", value)?),
            b"uid" => self.uid = Some(number("uid", value)?),
            b"gid" => self.gid = Some(number("gid", value)?),
            b"mtime" => {
                self.mtime = Some(time(value).ok_or(Problem::Field { field: "mtime" })?);
            }
            b"GNU.sparse.major" => self.sparse_major = Some(number("GNU.sparse.major", value)?),
            b"GNU.sparse.minor" => self.sparse_minor = Some(number("GNU.sparse.minor", value)?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" => {
                self.sparse_size = Some(number("GNU.sparse.realsize", value)?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    let name = unescape(name);
                    if !kept_attribute(&name) || name.contains(&0) {
                        return Err(Problem::Attribute {
                            name: String::from_utf8_lossy(&name).into_owned(),
                        });
                    }
                    self.xattrs.push((name, value.to_vec()));
                } else if key.starts_with(b"GNU.sparse.") {
                    return Err(Problem::Pax("sparse files of another version than 1.0"));
                }
            }
        }
        Ok(())
    }
}

/// Whether the attribute is in a name space that is kept.
pub(crate) fn kept_attribute(name: &[u8]) -> bool {
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    spaces
        .iter()
        .any(|s| name.strip_prefix(*s).is_some_and(|rest| !rest.is_empty()))
        || name == ACL_ACCESS
        || name == ACL_DEFAULT
}

/// Name of the access ACL (include/uapi/linux/xattr.h, 6.1 to 7.3).
pub(crate) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of the default ACL, which new entries of a directory inherit.
pub(crate) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

fn split(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // The length of a record that fits into memory has fewer than 20 digits.
    let space = data.iter().take(20).position(|b| *b == b' ')?;
    let len = usize::try_from(digits(data.get(..space)?)?).ok()?;
    let body = data.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((
        body.get(..equals)?,
        body.get(equals + 1..)?,
        data.get(len..)?,
    ))
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |n, b| {
        let d = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(d)
    })
}

fn number(field: &'static str, value: &[u8]) -> Result<u64, Problem> {
    digits(value).ok_or(Problem::Field { field })
}

/// Parses a decimal time. Ignores digits below a nanosecond.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let dot = value.iter().position(|b| *b == b'.').unwrap_or(value.len());
    let seconds = digits(value.get(..dot)?)?;
    let fraction = value.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0;
    for i in 0..9 {
        let d = fraction.get(i).map_or(0, |b| u32::from(b - b'0'));
        nanoseconds = nanoseconds * 10 + d;
    }
    if !negative {
        return Some(Time {
            seconds: i64::try_from(seconds).ok()?,
            nanoseconds,
        });
    }
    // Before 1970 the seconds are rounded down, and the nanoseconds count upwards from there.
    let (down, nanoseconds) = match nanoseconds {
        0 => (0, 0),
        n => (1, 1_000_000_000 - n),
    };
    Some(Time {
        seconds: 0_i64.checked_sub_unsigned(seconds)?.checked_sub(down)?,
        nanoseconds,
    })
}

/// Replaces the escapes of `%` and `=` in the name of an attribute.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((b, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"%3D") {
            out.push(b'=');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix(b"%25") {
            out.push(b'%');
            rest = tail;
        } else {
            out.push(*b);
            rest = tail;
        }
    }
    out
}
