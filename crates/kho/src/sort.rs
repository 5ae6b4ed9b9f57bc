//! Sorting in place on a stack of constant size.
//!
//! `sort_unstable` of `core` calls itself up to `2 * log2(n)` times deep (Rust 1.95, `core/src/slice/sort/unstable/`),
//! with room for the sort of a small slice in every frame. A kernel's stack has 16 KiB (`THREAD_SIZE`, Linux
//! `arch/x86/include/asm/page_64_types.h`), and 25,000 ranges of small files overflowed it. This is a heapsort: n log n
//! steps for every input and no extra memory. Input that is already sorted, the usual case, takes no sorting steps.

use core::cmp::Ordering;

/// Sorts `items`; equal ones end up in any order.
pub fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// Sorts `items` by `cmp`, a total order; items that `cmp` calls equal end up in any order.
pub fn sort_by<T>(items: &mut [T], mut cmp: impl FnMut(&T, &T) -> Ordering) {
    if items.is_sorted_by(|a, b| cmp(a, b) != Ordering::Greater) {
        return;
    }
    for root in (0..items.len() / 2).rev() {
        sift_down(items, root, &mut cmp);
    }
    for last in (1..items.len()).rev() {
        swap(items, 0, last);
        if let Some(heap) = items.get_mut(..last) {
            sift_down(heap, 0, &mut cmp);
        }
    }
}

/// Lets the item at `root` sink until no child is greater. Both subtrees below `root` have to be heaps.
fn sift_down<T>(heap: &mut [T], mut root: usize, cmp: &mut impl FnMut(&T, &T) -> Ordering) {
    let mut less = |heap: &[T], a: usize, b: usize| match (heap.get(a), heap.get(b)) {
        (Some(a), Some(b)) => cmp(a, b) == Ordering::Less,
        _ => false,
    };
    loop {
        // INVARIANT: a product that saturates is past the end of every slice.
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let child = if less(heap, left, right) { right } else { left };
        if !less(heap, root, child) {
            return;
        }
        swap(heap, root, child);
        root = child;
    }
}

/// As `slice::swap`, which can panic.
fn swap<T>(items: &mut [T], a: usize, b: usize) {
    if let Ok([a, b]) = items.get_disjoint_mut([a, b]) {
        core::mem::swap(a, b);
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the sort that this is compared with"
)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn every_short_sequence_is_sorted() {
        for len in 0..=6_u32 {
            for number in 0..5_usize.pow(len) {
                let digit = |place: u32| number / 5_usize.pow(place) % 5;
                let mut items: Vec<usize> = (0..len).map(digit).collect();
                let mut want = items.clone();
                want.sort_unstable();
                sort(&mut items);
                assert_eq!(items, want);
            }
        }
    }

    proptest! {
        #[test]
        fn long_ones_are_too(mut items: Vec<u16>) {
            let mut want = items.clone();
            want.sort_unstable_by(|a, b| b.cmp(a));
            sort_by(&mut items, |a, b| b.cmp(a));
            prop_assert_eq!(items, want);
        }
    }
}
