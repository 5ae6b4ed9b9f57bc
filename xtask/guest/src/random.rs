//! Numbers and bytes computed from a seed, the same on the host and in its guests.

use std::io::Write;

/// SplitMix64: its bytes cannot be compressed, and do not occur by chance.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    /// An index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// A random item of the slice.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// Writes `len` random bytes.
    pub fn write(&mut self, mut len: u64, to: &mut impl Write) -> std::io::Result<()> {
        let mut block = [0_u8; 8192];
        while len > 0 {
            for word in block.as_chunks_mut::<8>().0 {
                *word = self.number().to_le_bytes();
            }
            let now = len.min(block.len() as u64);
            to.write_all(&block[..usize::try_from(now).unwrap_or(block.len())])?;
            len -= now;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_lengths_are_exact() {
        let draw = |seed, len| {
            let mut out = Vec::new();
            Random(seed).write(len, &mut out).map(|()| out)
        };
        let long = draw(7, 20_000).expect("a vector takes everything");
        assert_eq!(long.len(), 20_000);
        assert_eq!(
            draw(7, 12_345).expect("a vector takes everything")[..],
            long[..12_345]
        );
        assert_ne!(
            draw(8, 64).expect("a vector takes everything")[..],
            long[..64]
        );
    }
}
