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

    /// Takes a page out.
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
