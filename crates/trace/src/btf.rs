//! Offsets of struct members, as the running kernel states them (`/sys/kernel/btf/vmlinux`,
//! `Documentation/bpf/btf.rst`). Debian sets CONFIG_DEBUG_INFO_BTF.

use crate::bytes::{array, u32_at, until_nul};
use std::collections::BTreeMap;
use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// Why offsets cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BtfError {
    /// Not the format that is known.
    #[error("no BTF of version 1: {0}")]
    Format(&'static str),
    /// A kind of type that came after this was written.
    #[error("type {id} is of kind {kind}, which is not known")]
    Kind {
        /// Its number.
        id: u32,
        /// The kind.
        kind: u32,
    },
    /// A struct that is not there with all members that are asked for.
    #[error("no struct {name} with a member {member}")]
    Missing {
        /// The struct.
        name: &'static str,
        /// The first member that is missing.
        member: &'static str,
    },
}

/// Structs that were asked for, with the offset of every member.
#[derive(Clone, Debug, Default)]
pub struct Structs {
    /// By name; several of one name are possible.
    found: BTreeMap<String, Vec<Struct>>,
}

#[derive(Clone, Debug, Default)]
struct Struct {
    size: usize,
    /// Name and offset, bytes.
    members: Vec<(String, usize)>,
}

impl Structs {
    /// Reads the structs called one of `names`.
    ///
    /// # Errors
    ///
    /// [`BtfError::Format`] and [`BtfError::Kind`].
    pub fn parse(btf: &[u8], names: &[&str]) -> Result<Self, BtfError> {
        let short = BtfError::Format("it is too short");
        if array(btf, 0).map(u16::from_le_bytes) != Some(MAGIC) || btf.get(2) != Some(&1) {
            return Err(BtfError::Format("wrong magic or version"));
        }
        // struct btf_header, include/uapi/linux/btf.h: offsets count from its end.
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
        let mut found: BTreeMap<String, Vec<Struct>> = BTreeMap::new();
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
            let each = match kind {
                2 | 7..=12 | 16 | 18 => 0,
                1 | 14 | 17 => 4,
                3 => 12,
                STRUCT | UNION | 15 | 19 => 12 * count,
                6 | 13 => 8 * count,
                kind => return Err(BtfError::Kind { id, kind }),
            };
            let body = types.get(at..at + each).ok_or(short.clone())?;
            at += each;
            let name = string(name);
            if kind != STRUCT || !names.iter().any(|wanted| wanted.as_bytes() == name) {
                continue;
            }
            // With the kind flag, the upper byte of an offset is the width of a bit field.
            let mask = if info >> 31 == 1 { 0xff_ffff } else { u32::MAX };
            let members = body
                .chunks_exact(12)
                .filter_map(|member| {
                    let name = String::from_utf8_lossy(string(u32_at(member, 0)?)).into_owned();
                    Some((name, usize::try_from((u32_at(member, 8)? & mask) / 8).ok()?))
                })
                .collect();
            found
                .entry(String::from_utf8_lossy(name).into_owned())
                .or_default()
                .push(Struct {
                    size: usize::try_from(size).unwrap_or(0),
                    members,
                });
        }
        Ok(Self { found })
    }

    /// Offsets of members of the one struct `name` that has all of them, and its size.
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
