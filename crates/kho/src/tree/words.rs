//! The structure block as big-endian words.

pub(super) const BEGIN_NODE: u32 = 1;
pub(super) const END_NODE: u32 = 2;
pub(super) const PROP: u32 = 3;
pub(super) const NOP: u32 = 4;
pub(super) const END: u32 = 9;

/// The structure block. Positions are indices of words, not bytes.
#[derive(Clone, Copy)]
pub(super) struct Words<'a>(pub(super) &'a [[u8; 4]]);

impl<'a> Words<'a> {
    /// The word at `at`.
    #[inline(always)]
    pub(super) fn get(self, at: usize) -> Option<u32> {
        self.0.get(at).map(|word| u32::from_be_bytes(*word))
    }

    /// The bytes from word `at` to the end of the block.
    #[inline(always)]
    pub(super) fn tail(self, at: usize) -> &'a [u8] {
        self.0.get(at..).unwrap_or(&[]).as_flattened()
    }

    /// `len` bytes from word `at`.
    #[inline(always)]
    pub(super) fn bytes(self, at: usize, len: usize) -> Option<&'a [u8]> {
        self.tail(at).get(..len)
    }

    /// Position after the NUL-terminated, padded name that starts at word `at`.
    #[inline(always)]
    pub(super) fn after_name(self, mut at: usize) -> Option<usize> {
        loop {
            let word = self.get(at)?;
            at = at.wrapping_add(1);
            // The expression is nonzero if and only if one of the four bytes is zero.
            if word.wrapping_sub(0x0101_0101) & !word & 0x8080_8080 != 0 {
                return Some(at);
            }
        }
    }

    /// Position after the property whose token is at `at`.
    #[inline(always)]
    pub(super) fn after_prop(self, at: usize) -> Option<usize> {
        let len = self.get(at.wrapping_add(1))?;
        Some(
            at.wrapping_add(3)
                .wrapping_add(words_for(usize::try_from(len).ok()?)),
        )
    }

    /// Position after the node whose `FDT_BEGIN_NODE` is at `at`.
    pub(super) fn after_node(self, mut at: usize) -> Option<usize> {
        let mut depth = 0usize;
        loop {
            match self.get(at)? {
                BEGIN_NODE => {
                    depth = depth.wrapping_add(1);
                    at = self.after_name(at.wrapping_add(1))?;
                }
                END_NODE => {
                    at = at.wrapping_add(1);
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                PROP => at = self.after_prop(at)?,
                NOP => at = at.wrapping_add(1),
                _ => return None,
            }
        }
    }
}

/// Words that `bytes` bytes take with their padding.
#[inline(always)]
pub(super) const fn words_for(bytes: usize) -> usize {
    bytes.div_ceil(4)
}
