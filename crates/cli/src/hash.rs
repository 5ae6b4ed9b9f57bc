//! BLAKE3 of content in memory, on all CPUs.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use blake3::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Builder};

/// Bytes that one CPU hashes at a time: a subtree of BLAKE3's tree, so a power of two of its chunks.
const GROUP: usize = 1 << 20;

/// Largest number of threads: more of them would only wait for memory.
const MAX_THREADS: usize = 32;

/// Bytes at the end of a slice that are hashed from a copy, see [`update`].
const TAIL: usize = 8 << 10;

/// Returns the hash of `pieces`, one after the other.
pub fn of(pieces: &[&[u8]]) -> Hash {
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let groups = total.div_ceil(GROUP);
    if groups < 2 {
        let mut hasher = Hasher::new();
        for piece in pieces {
            update(&mut hasher, piece);
        }
        return hasher.finalize();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let group = next.fetch_add(1, Ordering::Relaxed);
            if group >= groups {
                return done;
            }
            done.push((group, subtree(pieces, group)));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut found = thread::scope(|scope| {
        // Where no thread can be had, this one does it all.
        let others: Vec<_> = (1..threads.min(MAX_THREADS).min(groups))
            .map_while(|_| Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut found = work();
        for other in others {
            match other.join() {
                Ok(more) => found.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    });
    found.sort_unstable_by_key(|(group, _)| *group);
    let values: Vec<ChainingValue> = found.into_iter().map(|(_, value)| value).collect();
    let (left, right) = values.split_at(left_half(values.len()));
    merge_subtrees_root(&merged(left), &merged(right), Mode::Hash)
}

/// Returns the chaining value of a group.
fn subtree(pieces: &[&[u8]], group: usize) -> ChainingValue {
    let start = group * GROUP;
    let mut hasher = Hasher::new();
    hasher.set_input_offset(start as u64);
    let (mut skip, mut left) = (start, GROUP);
    for piece in pieces {
        let from = skip.min(piece.len());
        let to = piece.len().min(from + left);
        update(&mut hasher, piece.get(from..to).unwrap_or_default());
        skip -= from;
        left -= to - from;
        if left == 0 {
            break;
        }
    }
    hasher.finalize_non_root()
}

/// As `Hasher::update`, for memory that may end where its mapping ends. QEMU's emulation loads 32 bytes for the 16 of a
/// `vinsertf128`, which `blake3_hash_many_avx2` does at the end of a chunk: the process would be killed for what lies
/// behind it.
fn update(hasher: &mut Hasher, bytes: &[u8]) {
    let (head, tail) = bytes.split_at(bytes.len().saturating_sub(TAIL));
    hasher.update(head);
    let mut copy = [0; TAIL + 64];
    let (same, _) = copy.split_at_mut(tail.len());
    same.copy_from_slice(tail);
    hasher.update(same);
}

/// Returns the number of groups in the left subtree, out of `groups`: the largest power of two that leaves some for the
/// right one (`blake3::hazmat::left_subtree_len`).
fn left_half(groups: usize) -> usize {
    groups.next_power_of_two() / 2
}

fn merged(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [one] => *one,
        several => {
            let (left, right) = several.split_at(left_half(several.len()));
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_that_one_thread_finds() {
        let bytes: Vec<u8> = (0..9 * GROUP + 4097)
            .map(|n| u8::try_from((n ^ (n >> 9)) % 251).unwrap())
            .collect();
        for len in [
            0,
            1,
            GROUP - 1,
            GROUP,
            GROUP + 1,
            2 * GROUP,
            3 * GROUP - 1,
            4 * GROUP,
            5 * GROUP + 1,
            8 * GROUP,
            bytes.len(),
        ] {
            let bytes = &bytes[..len];
            let want = blake3::hash(bytes);
            assert_eq!(of(&[bytes]), want, "{len:#x}");
            // In pieces that end at no border of a group.
            for size in [4096, 777_777, GROUP + 4096, 3 * GROUP] {
                let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
                assert_eq!(of(&pieces), want, "{len:#x} in pieces of {size:#x}");
            }
        }
    }
}
