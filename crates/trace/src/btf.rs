//! Offsets of struct members and numbers of constants, as the running kernel states them (`/sys/kernel/btf/vmlinux`,
//! `Documentation/bpf/btf.rst`). Debian sets CONFIG_DEBUG_INFO_BTF.

use crate::bytes::{array, u32_at, until_nul};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const ENUM64: u32 = 19;

/// Why the offsets could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BtfError {
    /// The bytes are not in the known format.
    #[error("no BTF of version 1: {0}")]
    Format(&'static str),
    /// A kind of type that is newer than this code.
    #[error("type {id} is of kind {kind}, which is not known")]
    Kind {
        /// Number of the type.
        id: u32,
        /// Kind of the type.
        kind: u32,
    },
    /// A struct that does not exist, or lacks a wanted member.
    #[error("no struct {name} with a member {member}")]
    Missing {
        /// Name of the struct.
        name: &'static str,
        /// The first member that is missing.
        member: &'static str,
    },
}

/// The wanted structs, with the offset of every member.
#[derive(Clone, Debug, Default)]
pub struct Structs {
    /// The structs by name; several may share a name.
    found: BTreeMap<String, Vec<Struct>>,
}

#[derive(Clone, Debug, Default)]
struct Struct {
    size: usize,
    /// Name and offset, bytes.
    members: Vec<(String, usize)>,
}

/// One type, with the data that follows it.
struct Type<'b> {
    kind: u32,
    /// `kind_flag`, include/uapi/linux/btf.h.
    flag: bool,
    name: &'b [u8],
    size: usize,
    body: &'b [u8],
}

/// Calls `each` for every type, with the string at an offset.
fn walk<'b>(
    btf: &'b [u8],
    mut each: impl FnMut(&Type<'b>, &dyn Fn(u32) -> &'b [u8]),
) -> Result<(), BtfError> {
    let short = BtfError::Format("it is too short");
    if array(btf, 0).map(u16::from_le_bytes) != Some(MAGIC) || btf.get(2) != Some(&1) {
        return Err(BtfError::Format("wrong magic or version"));
    }
    // struct btf_header, include/uapi/linux/btf.h: its offsets count from the end of the header.
    let word = |at: usize| {
        let value = u32_at(btf, at).ok_or(BtfError::Format("it is too short"))?;
        usize::try_from(value).map_err(|_| BtfError::Format("a size is too large"))
    };
    let header = word(4)?;
    let section = |offset: usize, len: usize| {
        let start = header.checked_add(offset)?;
        btf.get(start..start.checked_add(len)?)
    };
    let types = section(word(8)?, word(12)?).ok_or(short.clone())?;
    let strings = section(word(16)?, word(20)?).ok_or(short.clone())?;
    let string = |offset: u32| {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|offset| strings.get(offset..));
        until_nul(bytes.unwrap_or_default())
    };
    let (mut at, mut id) = (0usize, 0u32);
    while at < types.len() {
        id = id.saturating_add(1);
        // struct btf_type: name, info, size or type.
        let (Some(name), Some(info), Some(size)) = (
            u32_at(types, at),
            u32_at(types, at + 4),
            u32_at(types, at + 8),
        ) else {
            return Err(short);
        };
        at += 12;
        let (kind, count) = (
            (info >> 24) & 31,
            usize::try_from(info & 0xffff).unwrap_or(0),
        );
        let len = match kind {
            2 | 7..=12 | 16 | 18 => 0,
            1 | 14 | 17 => 4,
            3 => 12,
            STRUCT | UNION | 15 | ENUM64 => 12 * count,
            ENUM | 13 => 8 * count,
            kind => return Err(BtfError::Kind { id, kind }),
        };
        let body = types.get(at..at + len).ok_or(short.clone())?;
        at += len;
        let one = Type {
            kind,
            flag: info >> 31 == 1,
            name: string(name),
            size: usize::try_from(size).unwrap_or(0),
            body,
        };
        each(&one, &string);
    }
    Ok(())
}

/// Numbers of the given constants that are in an enumeration. A name with two numbers is left out.
///
/// # Errors
///
/// [`BtfError::Format`] and [`BtfError::Kind`].
pub fn constants(btf: &[u8], names: &BTreeSet<String>) -> Result<BTreeMap<String, i64>, BtfError> {
    let mut found: BTreeMap<String, Option<i64>> = BTreeMap::new();
    walk(btf, |one, string| {
        let item = match one.kind {
            ENUM => 8,
            ENUM64 => 12,
            _ => return,
        };
        for item in one.body.chunks_exact(item) {
            let name = u32_at(item, 0)
                .map(string)
                .and_then(|name| std::str::from_utf8(name).ok());
            let Some(name) = name.filter(|name| names.contains(*name)) else {
                continue;
            };
            let low = u32_at(item, 4).unwrap_or(0);
            let value = match (u32_at(item, 8), one.flag) {
                // struct btf_enum64: the kind flag says that the numbers are signed.
                (Some(high), _) => ((u64::from(high) << 32) | u64::from(low)).cast_signed(),
                (None, true) => i64::from(low.cast_signed()),
                (None, false) => i64::from(low),
            };
            let known = found.entry(name.to_owned()).or_insert(Some(value));
            *known = known.filter(|known| *known == value);
        }
    })?;
    Ok(found
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect())
}

impl Structs {
    /// Reads the structs whose name is in `names`.
    ///
    /// # Errors
    ///
    /// [`BtfError::Format`] and [`BtfError::Kind`].
    pub fn parse(btf: &[u8], names: &[&str]) -> Result<Self, BtfError> {
        let mut found: BTreeMap<String, Vec<Struct>> = BTreeMap::new();
        walk(btf, |one, string| {
            let wanted = names.iter().any(|wanted| wanted.as_bytes() == one.name);
            if one.kind != STRUCT || !wanted {
                return;
            }
            // If the kind flag is set, the upper byte of an offset is the width of a bit field.
            let mask = if one.flag { 0xff_ffff } else { u32::MAX };
            let members = one
                .body
                .chunks_exact(12)
                .filter_map(|member| {
                    let name = String::from_utf8_lossy(string(u32_at(member, 0)?)).into_owned();
                    Some((name, usize::try_from((u32_at(member, 8)? & mask) / 8).ok()?))
                })
                .collect();
            let name = String::from_utf8_lossy(one.name).into_owned();
            let size = one.size;
            found
                .entry(name)
                .or_default()
                .push(Struct { size, members });
        })?;
        Ok(Self { found })
    }

    /// Size of the struct `name` and offsets of its members. Of several structs of this name, the one with all members
    /// counts.
    ///
    /// # Errors
    ///
    /// [`BtfError::Missing`].
    pub fn offsets<const N: usize>(
        &self,
        name: &'static str,
        members: [&'static str; N],
    ) -> Result<([usize; N], usize), BtfError> {
        let mut missing = members.first().copied().unwrap_or_default();
        for candidate in self.found.get(name).map(Vec::as_slice).unwrap_or_default() {
            let mut offsets = [0; N];
            let mut complete = true;
            for (offset, member) in offsets.iter_mut().zip(members) {
                match candidate.members.iter().find(|(name, _)| name == member) {
                    Some((_, at)) => *offset = *at,
                    None => {
                        missing = member;
                        complete = false;
                        break;
                    }
                }
            }
            if complete {
                return Ok((offsets, candidate.size));
            }
        }
        Err(BtfError::Missing {
            name,
            member: missing,
        })
    }
}
