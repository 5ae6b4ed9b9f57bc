//! The block of property names that were written, each stored once.
//!
//! The strings block comes after the structure block, and the size of the structure block is known only at the end. The
//! offsets of names are needed at once. So the block grows backwards from the end of the buffer: byte `k` of the block
//! is the `k`-th byte from the end. Offsets are final from the start. Finishing reverses the block and moves it once.

use super::name::{WRITE, allowed};

/// Slots of the table; a power of two, and the bits of [`Strings::used`].
const SLOTS: u32 = 64;

/// Number of slots that a name may be in.
const PROBES: u32 = 8;

/// A name that was stored.
#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    offset: u32,
    /// Zero in an empty slot.
    len: u32,
}

/// A hash table of the last names used. A tree with a few dozen names stores each name once. A tree with more names may
/// store some of them again, which costs bytes only.
pub(super) struct Strings {
    slots: [Slot; SLOTS as usize],
    /// Bytes of the strings block so far.
    len: usize,
    /// Slots of the names that the current node has.
    used: u64,
}

/// Result of a lookup of a name in the table.
pub(super) enum Found {
    /// Stored at this offset.
    Old(u32),
    /// Not stored; it goes to this offset, and [`Strings::grow`] has already made it so.
    New(u32),
    /// The current node has a property of this name already.
    Twice,
    /// The strings block would have more bytes than an offset can name.
    Full,
}

impl Strings {
    pub(super) const fn new() -> Self {
        Self {
            slots: [Slot {
                hash: 0,
                offset: 0,
                len: 0,
            }; SLOTS as usize],
            len: 0,
            used: 0,
        }
    }

    /// Bytes of the strings block so far.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Forgets which names the current node has.
    #[inline(always)]
    pub(super) const fn next_node(&mut self) {
        self.used = 0;
    }

    /// Finds `name`, or gives it the next place. `buf` is the whole buffer that the block grows back
    /// from the end of; without one names are compared by length and a 64-bit hash.
    #[inline(always)]
    pub(super) fn find(&mut self, name: &[u8], buf: Option<&[u8]>) -> Found {
        let hash = hash(name);
        let home = (hash >> 58) as u32;
        let mut free = home;
        for probe in 0..PROBES {
            let index = home.wrapping_add(probe) & SLOTS.wrapping_sub(1);
            let Some(slot) = self.slots.get(index as usize) else {
                break;
            };
            if slot.len == 0 {
                free = index;
                break;
            }
            if slot.hash == hash
                && slot.len as usize == name.len()
                && buf.is_none_or(|buf| stored(buf, slot.offset as usize, name))
            {
                let bit = 1u64.wrapping_shl(index);
                if self.used & bit != 0 {
                    return Found::Twice;
                }
                self.used |= bit;
                return Found::Old(slot.offset);
            }
        }
        self.grow(name, hash, free)
    }

    /// Gives `name` the next place and the slot `index`.
    #[cold]
    fn grow(&mut self, name: &[u8], hash: u64, index: u32) -> Found {
        let (Ok(offset), Ok(len)) = (u32::try_from(self.len), u32::try_from(name.len())) else {
            return Found::Full;
        };
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Slot { hash, offset, len };
        }
        self.used |= 1u64.wrapping_shl(index);
        // The length of the name includes its NUL.
        self.len = self.len.saturating_add(name.len()).saturating_add(1);
        Found::New(offset)
    }
}

/// Whether `name` may be written.
pub(super) fn writable(name: &[u8]) -> Result<(), Option<u8>> {
    if name.is_empty() || name.len() > super::MAX_NAME {
        return Err(None);
    }
    match name.iter().find(|byte| !allowed(**byte, WRITE)) {
        Some(byte) => Err(Some(*byte)),
        None => Ok(()),
    }
}

/// Stores `name` and its NUL at `offset` of the block that grows back from the end of `buf`.
pub(super) fn store(buf: &mut [u8], offset: usize, name: &[u8]) {
    let bytes = name.iter().chain(core::iter::once(&0));
    for (to, from) in buf.iter_mut().rev().skip(offset).zip(bytes) {
        *to = *from;
    }
}

/// Whether the name stored at `offset` is `name`.
#[inline(always)]
fn stored(buf: &[u8], offset: usize, name: &[u8]) -> bool {
    let end = buf.len().saturating_sub(offset);
    let start = end.saturating_sub(name.len());
    let Some(bytes) = buf.get(start..end) else {
        return false;
    };
    // Compare eight bytes at a time: the last eight stored bytes are the first eight of the name, reversed.
    let (words, rest) = name.as_chunks::<8>();
    let (stored_rest, stored_words) = bytes.as_rchunks::<8>();
    let same = |(word, stored): (&[u8; 8], &[u8; 8])| {
        u64::from_le_bytes(*word) == u64::from_be_bytes(*stored)
    };
    words.iter().zip(stored_words.iter().rev()).all(same)
        && rest.iter().eq(stored_rest.iter().rev())
}

/// A hash of `name`, eight bytes at a time.
#[inline(always)]
fn hash(name: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| {
        let product = (hash ^ word).wrapping_mul(MULTIPLIER);
        product ^ (product >> 29)
    };
    let (words, rest) = name.as_chunks::<8>();
    let hash = words.iter().fold(name.len() as u64, |hash, word| {
        mix(hash, u64::from_le_bytes(*word))
    });
    let last = rest
        .iter()
        .fold(0u64, |word, byte| word.wrapping_shl(8) | u64::from(*byte));
    mix(mix(hash, last), MULTIPLIER)
}
