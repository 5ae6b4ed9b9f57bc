//! Harnesses in the form that Kani runs (`cargo kani -p kho`), each a claim about *all* values of its inputs.
//!
//! **Kani has not run them as proofs**: its bundle was not available to the authors. An ordinary `cargo test` runs them
//! as bounded tests of the real code: with every choice of inputs from a few values at which arithmetic goes wrong (0,
//! 1, borders of pages, the middle and the end of the address space), and with random values. These tests find errors
//! at such values; they prove nothing about other values. `tests/exhaustive.rs` has every case of small sizes.

#[cfg(not(kani))]
use self::bounded as kani;
use crate::{PAGE_SIZE, PhysAddr, PhysRange, RangeSet};

fn any_range() -> Option<PhysRange> {
    PhysRange::new(PhysAddr::new(kani::any()), kani::any()).ok()
}

/// A range never wraps, and its end is its start and length.
#[cfg_attr(kani, kani::proof)]
fn ranges_do_not_wrap() {
    if let Some(range) = any_range() {
        assert_ne!(range.len(), 0);
        assert!(range.start().get().checked_add(range.len()) == Some(range.end().get()));
    }
}

/// Two ranges overlap exactly when they share a byte.
#[cfg_attr(kani, kani::proof)]
fn overlap_is_a_shared_byte() {
    let (Some(a), Some(b)) = (any_range(), any_range()) else {
        return;
    };
    let byte = PhysAddr::new(kani::any());
    if a.contains(byte) && b.contains(byte) {
        assert!(a.overlaps(b));
    }
    if a.overlaps(b) {
        let first = a.start().max(b.start());
        assert!(a.contains(first) && b.contains(first));
        assert!(a.intersection(b).is_some_and(|both| both.start() == first));
    }
}

/// Rounding out covers, and adds less than a page at each end.
#[cfg_attr(kani, kani::proof)]
fn rounding_out_covers() {
    let Some(range) = any_range() else { return };
    if let Some(outer) = range.page_outer() {
        assert!(outer.is_page_aligned() && outer.contains_range(range));
        assert!(range.start().get() - outer.start().get() < PAGE_SIZE);
        assert!(outer.end().get() - range.end().get() < PAGE_SIZE);
    }
}

/// Removing a range removes its bytes and no others.
#[cfg_attr(kani, kani::proof)]
#[cfg_attr(kani, kani::unwind(4))]
fn removing_removes() {
    let (Some(a), Some(b), Some(gone)) = (any_range(), any_range(), any_range()) else {
        return;
    };
    let (Ok(before), Ok(mut set)) = (RangeSet::from_ranges([a, b]), RangeSet::from_ranges([a, b]))
    else {
        return;
    };
    if set.remove(gone).is_ok() {
        let byte = PhysAddr::new(kani::any());
        let holds = |set: &RangeSet| set.iter().any(|range| range.contains(byte));
        assert!(holds(&set) == (holds(&before) && !gone.contains(byte)));
    }
}

/// Stands in for the model checker: `any` gives one value after the other.
#[cfg(not(kani))]
mod bounded {
    use super::PAGE_SIZE;
    use alloc::vec::Vec;
    use core::cell::RefCell;

    /// Values at which arithmetic goes wrong, the most important first.
    const VALUES: [u64; 14] = [
        0,
        1,
        PAGE_SIZE,
        u64::MAX,
        PAGE_SIZE + 1,
        u64::MAX - PAGE_SIZE + 1,
        1 << 63,
        PAGE_SIZE - 1,
        2 * PAGE_SIZE,
        2,
        u64::MAX - 1,
        u64::MAX - PAGE_SIZE,
        (1 << 63) - 1,
        3 * PAGE_SIZE,
    ];

    #[derive(Default)]
    struct Choices {
        /// Index in [`VALUES`] for each call of `any`.
        taken: Vec<usize>,
        /// Calls so far.
        calls: usize,
        /// State of a random number generator (splitmix64); `None` while `taken` chooses the values.
        random: Option<u64>,
    }

    std::thread_local! {
        static CHOICES: RefCell<Choices> = RefCell::default();
    }

    /// The next input of a harness.
    pub fn any() -> u64 {
        CHOICES.with_borrow_mut(|choices| {
            if let Some(state) = &mut choices.random {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^= z >> 31;
                // Vary only a few low bits of one of the values, so that ranges meet.
                let base = VALUES[usize::try_from(z >> 60).unwrap_or(0) % VALUES.len()];
                return base.wrapping_add((z & 0xffff) >> (z >> 32 & 15));
            }
            let call = choices.calls;
            choices.calls += 1;
            if choices.taken.len() == call {
                choices.taken.push(0);
            }
            VALUES[choices.taken[call]]
        })
    }

    /// Runs a harness with every choice among the first `values` of [`VALUES`], and as often with random ones. Gives
    /// the number of choices.
    fn every(values: usize, harness: fn()) -> u64 {
        let mut cases = 0;
        CHOICES.with_borrow_mut(|choices| *choices = Choices::default());
        loop {
            harness();
            cases += 1;
            let next = CHOICES.with_borrow_mut(|choices| {
                // Drop the choices that belong to calls which this case did not make.
                choices.taken.truncate(choices.calls);
                choices.calls = 0;
                while let Some(last) = choices.taken.last_mut() {
                    *last += 1;
                    if *last < values {
                        return true;
                    }
                    choices.taken.pop();
                }
                false
            });
            if !next {
                break;
            }
        }
        for seed in 0..cases {
            CHOICES.with_borrow_mut(|choices| choices.random = Some(seed));
            harness();
        }
        cases
    }

    #[test]
    fn ranges() {
        let count = VALUES.len() as u64;
        assert_eq!(
            every(VALUES.len(), super::ranges_do_not_wrap),
            count * count
        );
        assert_eq!(
            every(VALUES.len(), super::rounding_out_covers),
            count * count
        );
    }

    #[test]
    fn overlaps() {
        assert!(every(12, super::overlap_is_a_shared_byte) > 50_000);
    }

    #[test]
    fn removal() {
        assert!(every(7, super::removing_removes) > 50_000);
    }

    /// The stand-in notices a claim that is false.
    #[test]
    #[should_panic(expected = "false at a border")]
    fn false_claims_fail() {
        every(VALUES.len(), || {
            let (start, len) = (any(), any());
            assert!(start.checked_add(len).is_some(), "false at a border");
        });
    }
}
