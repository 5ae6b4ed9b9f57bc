//! The single pass over a structure block that makes every later access safe.
//!
//! Duplicate names are found without comparing every pair. Children whose names ascend ([`shortlex`], the order in
//! which numbered nodes are written) are distinct, and a 64-bit mask of hashes tells up to [`FEW`] properties apart.
//! Only for other nodes does the pass collect and sort the names; this is its only allocation. It walks the subtree of
//! such a node once more, so the whole costs at most [`MAX_DEPTH`](super::MAX_DEPTH) walks plus O(n log n) comparisons.
//! It takes about 3 KiB of stack and does not recurse, so that it fits in a kernel.

use super::name::{READ_NODE, READ_PROP, Unfit, shortlex, terminated};
use super::words::{BEGIN_NODE, END, END_NODE, NOP, PROP, Words, words_for};
use super::{MAX_DEPTH, Name, TreeError};
use crate::ranges::push;
use crate::sort::sort_by;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// Properties of one node that are compared in place.
const FEW: usize = 16;

/// Entries of the cache of validated property names; a power of two.
const CACHE: usize = 32;

/// Offset of no name: beyond every strings block.
const NOWHERE: u32 = u32::MAX;

/// The blocks and their offsets: enough to validate them, and to turn positions into offsets of bytes.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) words: Words<'a>,
    pub(super) strings: &'a [u8],
    /// Offset of the structure block in the tree.
    pub(super) words_at: usize,
    /// Offset of the strings block in the tree.
    pub(super) strings_at: usize,
}

impl Blocks<'_> {
    /// The byte offset of word `at` of the structure block.
    pub(super) fn offset(&self, at: usize) -> usize {
        self.words_at.saturating_add(at.saturating_mul(4))
    }
}

/// A property name that was validated, by its offset in the strings block.
#[derive(Clone, Copy)]
struct Known<'a> {
    offset: u32,
    name: &'a [u8],
    /// One bit, chosen by the bytes of the name.
    bit: u64,
}

/// The properties of the node being walked.
struct PropSet<'a> {
    mask: u64,
    names: [&'a [u8]; FEW],
    count: usize,
}

impl<'a> PropSet<'a> {
    /// Adds a name. False if the set holds the name already. The set holds the first [`FEW`] names of a node only.
    #[inline(always)]
    fn add(&mut self, known: &Known<'a>) -> bool {
        if self.mask & known.bit != 0
            && self.names.iter().take(self.count).any(|n| *n == known.name)
        {
            return false;
        }
        self.mask |= known.bit;
        if let Some(slot) = self.names.get_mut(self.count) {
            *slot = known.name;
        }
        self.count = self.count.saturating_add(1);
        true
    }
}

/// A node that is open.
#[derive(Clone, Copy)]
struct Level<'a> {
    /// Word of its `FDT_BEGIN_NODE`.
    at: usize,
    /// Whether a child was seen, so that no property may follow.
    parent: bool,
    /// Whether the children so far ascend.
    ascending: bool,
    /// Name of the child before.
    last: &'a [u8],
}

impl Level<'_> {
    const fn new(at: usize) -> Self {
        Self {
            at,
            parent: false,
            ascending: true,
            last: &[],
        }
    }
}

/// Checks the whole structure block and returns the number of nodes.
pub(super) fn validate(blocks: Blocks<'_>) -> Result<usize, TreeError> {
    let words = blocks.words;
    let mut names = Names::new(blocks);
    let mut props = PropSet {
        mask: 0,
        names: [&[]; FEW],
        count: 0,
    };
    let mut stack = [Level::new(0); MAX_DEPTH];
    let mut level = Level::new(0);
    // Number of open nodes. `level` is the innermost node, `stack` holds the others.
    let mut depth = 0usize;
    let mut nodes = 0usize;
    let mut at = 0usize;
    loop {
        let token = words.get(at).ok_or_else(|| unfinished(blocks))?;
        match token {
            PROP => {
                let (Some(len), Some(offset)) =
                    (words.get(at.wrapping_add(1)), words.get(at.wrapping_add(2)))
                else {
                    return Err(unfinished(blocks));
                };
                if depth == 0 || level.parent {
                    return Err(misplaced_prop(blocks, at, depth));
                }
                let value = at.wrapping_add(3);
                let next = value.wrapping_add(words_for(len as usize));
                if next > words.0.len() {
                    return Err(TreeError::PropertyLength {
                        offset: blocks.offset(at),
                        len: len as usize,
                        left: words.0.len().saturating_sub(value).saturating_mul(4),
                    });
                }
                let known = names.get(at, offset)?;
                if !props.add(known) {
                    return Err(TreeError::DuplicateProperty {
                        offset: blocks.offset(level.at),
                        name: Name::new(known.name),
                    });
                }
                at = next;
            }
            BEGIN_NODE => {
                let start = at.wrapping_add(1);
                let name =
                    terminated(words.tail(start), READ_NODE).map_err(|unfit| match unfit {
                        Unfit::Unterminated => unfinished(blocks),
                        other => name_error(other, blocks.offset(start)),
                    })?;
                if depth == 0 {
                    if nodes != 0 {
                        return Err(TreeError::SecondRoot {
                            offset: blocks.offset(at),
                        });
                    }
                    if !name.is_empty() {
                        return Err(TreeError::RootName {
                            offset: blocks.offset(at),
                            name: Name::new(name),
                        });
                    }
                } else {
                    if name.is_empty() {
                        return Err(TreeError::NameEmpty {
                            offset: blocks.offset(start),
                        });
                    }
                    if props.count > FEW {
                        distinct_props(blocks, level.at)?;
                    }
                    // `last` is empty before the first child, and the empty name precedes every name.
                    if shortlex(level.last, name) != Ordering::Less {
                        level.ascending = false;
                    }
                    level.parent = true;
                    level.last = name;
                    match stack.get_mut(depth) {
                        Some(slot) => *slot = level,
                        None => {
                            return Err(TreeError::TooDeep {
                                offset: blocks.offset(at),
                            });
                        }
                    }
                }
                depth = depth.wrapping_add(1);
                nodes = nodes.wrapping_add(1);
                level = Level::new(at);
                props.mask = 0;
                props.count = 0;
                // The node's name and its NUL.
                at = start.wrapping_add(words_for(name.len().wrapping_add(1)));
            }
            END_NODE => {
                if depth == 0 {
                    return Err(TreeError::Outside {
                        offset: blocks.offset(at),
                        found: token,
                    });
                }
                if !level.ascending {
                    distinct_children(blocks, level.at)?;
                }
                if props.count > FEW {
                    distinct_props(blocks, level.at)?;
                }
                props.count = 0;
                depth = depth.wrapping_sub(1);
                level = stack.get(depth).copied().unwrap_or(Level::new(0));
                at = at.wrapping_add(1);
            }
            NOP => at = at.wrapping_add(1),
            END => {
                if depth != 0 {
                    return Err(TreeError::Unclosed {
                        offset: blocks.offset(at),
                        open: depth,
                    });
                }
                if nodes == 0 {
                    return Err(TreeError::Outside {
                        offset: blocks.offset(at),
                        found: token,
                    });
                }
                let next = at.wrapping_add(1);
                let len = words.0.len().saturating_sub(next).saturating_mul(4);
                if len != 0 {
                    return Err(TreeError::Trailing {
                        offset: blocks.offset(next),
                        len,
                    });
                }
                return Ok(nodes);
            }
            found => {
                return Err(TreeError::Token {
                    offset: blocks.offset(at),
                    found,
                });
            }
        }
    }
}

/// Direct-mapped cache of validated property names: a tree has few names and uses them often.
struct Names<'a> {
    blocks: Blocks<'a>,
    cache: [Known<'a>; CACHE],
    /// Entry for a cache index that does not exist; never used, as the index is masked.
    spare: Known<'a>,
}

impl<'a> Names<'a> {
    fn new(blocks: Blocks<'a>) -> Self {
        let none = Known {
            offset: NOWHERE,
            name: &[],
            bit: 0,
        };
        Self {
            blocks,
            cache: [none; CACHE],
            spare: none,
        }
    }

    /// The name at `offset` of the strings block, for the property at word `at`.
    #[inline(always)]
    fn get(&mut self, at: usize, offset: u32) -> Result<&Known<'a>, TreeError> {
        let index = (offset.wrapping_mul(0x9e37_79b1) >> 27) as usize & CACHE.wrapping_sub(1);
        let slot = self.cache.get_mut(index).unwrap_or(&mut self.spare);
        // A property may hold the offset that marks an empty slot; an empty slot must not answer it.
        if slot.offset != offset || offset == NOWHERE {
            *slot = validated(self.blocks, at, offset)?;
        }
        Ok(slot)
    }
}

/// Validates the property name at `offset` of the strings block.
#[cold]
fn validated(blocks: Blocks<'_>, at: usize, offset: u32) -> Result<Known<'_>, TreeError> {
    let found = offset as usize;
    let tail = match blocks.strings.get(found..) {
        Some(tail) if !tail.is_empty() => tail,
        _ => {
            return Err(TreeError::StringOffset {
                offset: blocks.offset(at),
                found,
                size: blocks.strings.len(),
            });
        }
    };
    let place = blocks.strings_at.saturating_add(found);
    let name = terminated(tail, READ_PROP).map_err(|unfit| name_error(unfit, place))?;
    if name.is_empty() {
        return Err(TreeError::NameEmpty { offset: place });
    }
    let hash = name.iter().fold(0x811c_9dc5u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    Ok(Known {
        offset,
        name,
        bit: 1u64.wrapping_shl(hash >> 13),
    })
}

#[cold]
fn unfinished(blocks: Blocks<'_>) -> TreeError {
    TreeError::Unfinished {
        offset: blocks.offset(blocks.words.0.len()),
    }
}

#[cold]
fn misplaced_prop(blocks: Blocks<'_>, at: usize, depth: usize) -> TreeError {
    let offset = blocks.offset(at);
    if depth == 0 {
        TreeError::Outside {
            offset,
            found: PROP,
        }
    } else {
        TreeError::LateProperty { offset }
    }
}

#[cold]
fn name_error(unfit: Unfit, offset: usize) -> TreeError {
    match unfit {
        Unfit::Unterminated => TreeError::NameUnterminated { offset },
        Unfit::TooLong => TreeError::NameTooLong { offset },
        Unfit::Character { at, byte } => TreeError::NameCharacter {
            offset: offset.saturating_add(at),
            byte,
        },
    }
}

/// The first name that is in `names` twice.
fn duplicate<'a>(names: &mut [&'a [u8]]) -> Option<&'a [u8]> {
    sort_by(names, |a, b| shortlex(a, b));
    names.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(*a),
        _ => None,
    })
}

/// Checks that the node at word `at`, whose properties are valid, has no two of one name.
#[cold]
fn distinct_props(blocks: Blocks<'_>, at: usize) -> Result<(), TreeError> {
    let words = blocks.words;
    let mut names = Vec::new();
    let mut next = words.after_name(at.wrapping_add(1));
    while let Some(here) = next {
        next = match words.get(here) {
            Some(PROP) => {
                let offset = words.get(here.wrapping_add(2)).unwrap_or(u32::MAX) as usize;
                let tail = blocks.strings.get(offset..).unwrap_or(&[]);
                if let Ok(name) = terminated(tail, READ_PROP) {
                    push(&mut names, name)?;
                }
                words.after_prop(here)
            }
            Some(NOP) => Some(here.wrapping_add(1)),
            _ => None,
        };
    }
    match duplicate(&mut names) {
        Some(name) => Err(TreeError::DuplicateProperty {
            offset: blocks.offset(at),
            name: Name::new(name),
        }),
        None => Ok(()),
    }
}

/// Checks that the node at word `at`, whose subtree is valid, has no two children of one name.
#[cold]
fn distinct_children(blocks: Blocks<'_>, at: usize) -> Result<(), TreeError> {
    let words = blocks.words;
    let mut names = Vec::new();
    let mut next = words.after_name(at.wrapping_add(1));
    while let Some(here) = next {
        next = match words.get(here) {
            Some(PROP) => words.after_prop(here),
            Some(NOP) => Some(here.wrapping_add(1)),
            Some(BEGIN_NODE) => {
                if let Ok(name) = terminated(words.tail(here.wrapping_add(1)), READ_NODE) {
                    push(&mut names, name)?;
                }
                words.after_node(here)
            }
            _ => None,
        };
    }
    match duplicate(&mut names) {
        Some(name) => Err(TreeError::DuplicateChild {
            offset: blocks.offset(at),
            name: Name::new(name),
        }),
        None => Ok(()),
    }
}
