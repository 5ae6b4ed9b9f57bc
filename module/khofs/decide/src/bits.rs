//! Sets of pages of a chunk.

/// Pages of a chunk.
pub const PAGES: u64 = 512;

/// A set of pages of a chunk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Bits([u64; 8]);

impl Bits {
    fn word(page: u64) -> (usize, u64) {
        let word = usize::try_from((page % PAGES) / 64).unwrap_or(0);
        (word, 1u64.wrapping_shl((page % 64) as u32))
    }

    /// Whether `page` is in the set.
    pub fn has(&self, page: u64) -> bool {
        let (word, bit) = Self::word(page);
        self.0.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Adds a page.
    pub fn set(&mut self, page: u64) {
        let (word, bit) = Self::word(page);
        if let Some(w) = self.0.get_mut(word) {
            *w |= bit;
        }
    }

    /// Removes a page.
    pub fn clear(&mut self, page: u64) {
        let (word, bit) = Self::word(page);
        if let Some(w) = self.0.get_mut(word) {
            *w &= !bit;
        }
    }

    /// Number of pages.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// The pages that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = *self;
        for (word, taken) in left.0.iter_mut().zip(other.0) {
            *word &= !taken;
        }
        left
    }

    /// Number of runs of pages. A run that begins with the first page does not count if `before` is true: then the last
    /// page of the chunk before belongs to the run.
    pub fn runs(&self, before: bool) -> u64 {
        let mut carry = u64::from(before);
        let starts = self.0.iter().map(|word| {
            let starts = word & !(word.wrapping_shl(1) | carry);
            carry = word.wrapping_shr(63);
            u64::from(starts.count_ones())
        });
        starts.sum()
    }

    /// The pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..PAGES).filter(|page| self.has(*page))
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    /// Whether the set has every page of a chunk.
    pub fn is_full(&self) -> bool {
        self.0.iter().all(|w| *w == u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(pages: &[u64]) -> Bits {
        let mut bits = Bits::default();
        pages.iter().for_each(|page| bits.set(*page));
        bits
    }

    #[test]
    fn runs_are_counted_across_words() {
        let some = bits(&[0, 1, 63, 64, 65, 127, 128, 300, 511]);
        assert_eq!((some.runs(false), some.runs(true)), (5, 4));
        let full = Bits([u64::MAX; 8]);
        assert_eq!((full.runs(false), full.runs(true)), (1, 0));
        assert_eq!(full.without(&some).runs(true), 4);
        assert_eq!(Bits::default().runs(true), 0);
    }
}
