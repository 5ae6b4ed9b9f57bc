//! BLAKE3 of a stream on all CPUs, while the stream is written.
//!
//! A stream is hashed in groups of [`GROUP`] bytes. Each group is a subtree of BLAKE3's tree, so any thread can hash
//! any group, in any order.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use blake3::{Hash, Hasher};
use kho_archive::Target;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder, available_parallelism};

/// Number of bytes that one CPU hashes at a time: BLAKE3's chunks times a power of two.
pub const GROUP: usize = 1 << 20;

/// Largest number of threads: more threads would only wait for memory.
const MAX_THREADS: usize = 32;

/// Number of bytes at the end of a slice that are hashed from a copy, see [`update`].
const TAIL: usize = 8 << 10;

/// Memory of one group, in slices. They have [`GROUP`] bytes together, or fewer at the end of a stream.
type Group<'b> = Vec<&'b mut [u8]>;

/// Returns the number of groups of a stream of `total` bytes.
pub fn groups(total: u64) -> usize {
    usize::try_from(total.div_ceil(GROUP as u64)).unwrap_or(usize::MAX)
}

/// Returns the number of threads that should run beside the current one for `groups` groups.
pub fn helpers(groups: usize) -> usize {
    let cpus = available_parallelism().map_or(1, usize::from);
    cpus.min(MAX_THREADS).min(groups).saturating_sub(1)
}

/// Calls `make` with a writer over `memory`. Returns the hash and the number of the bytes that `make` wrote. If the
/// number is `total`, the stream is complete.
///
/// # Errors
///
/// The error of `make`.
pub fn written<'b, E>(
    total: u64,
    memory: Vec<&'b mut [u8]>,
    make: impl FnOnce(&mut Writer<'_, 'b>) -> Result<(), E>,
) -> Result<(Hash, u64), E> {
    let helpers = helpers(groups(total));
    run(total, cut(memory), false, helpers, make)
}

/// Hashes as [`written`] does, without keeping the stream.
///
/// # Errors
///
/// The error of `make`.
pub fn passing<E>(
    total: u64,
    make: impl FnOnce(&mut Writer<'_, '_>) -> Result<(), E>,
) -> Result<(Hash, u64), E> {
    let groups = groups(total);
    let helpers = helpers(groups);
    let mut memory = vec![0; GROUP * groups.min(2 * helpers + 2)];
    let memory = memory.chunks_mut(GROUP).map(|group| vec![group]);
    run(total, memory.collect(), true, helpers, make)
}

fn run<'b, E>(
    total: u64,
    memory: VecDeque<Group<'b>>,
    again: bool,
    helpers: usize,
    make: impl FnOnce(&mut Writer<'_, 'b>) -> Result<(), E>,
) -> Result<(Hash, u64), E> {
    let crew = Crew {
        alone: groups(total) < 2,
        again,
        helpers,
        state: Mutex::new(State::default()),
        changed: Condvar::new(),
    };
    thread::scope(|scope| {
        let _end = End(&crew);
        for _ in 0..helpers {
            // If no thread can be started, this thread hashes everything.
            let _ = Builder::new().spawn_scoped(scope, || crew.work());
        }
        let mut writer = Writer {
            crew: &crew,
            memory,
            group: Vec::new(),
            part: 0,
            at: 0,
            len: 0,
            next: 0,
            written: 0,
        };
        make(&mut writer)?;
        Ok(writer.finish())
    })
}

/// Cuts memory into groups.
fn cut(memory: Vec<&mut [u8]>) -> VecDeque<Group<'_>> {
    let mut groups = VecDeque::new();
    let (mut group, mut room) = (Vec::new(), GROUP);
    for mut slice in memory {
        while !slice.is_empty() {
            let (head, rest) = slice.split_at_mut(slice.len().min(room));
            room -= head.len();
            group.push(head);
            slice = rest;
            if room == 0 {
                groups.push_back(std::mem::take(&mut group));
                room = GROUP;
            }
        }
    }
    if !group.is_empty() {
        groups.push_back(group);
    }
    groups
}

/// A group that is full.
struct Job<'b> {
    number: usize,
    group: Group<'b>,
    /// Number of bytes of the stream in the group.
    len: usize,
}

/// Threads that hash one stream.
struct Crew<'b> {
    /// Whether the stream has only one group, which is hashed as a whole.
    alone: bool,
    /// Whether memory is reused after it was hashed.
    again: bool,
    helpers: usize,
    state: Mutex<State<'b>>,
    changed: Condvar,
}

#[derive(Default)]
struct State<'b> {
    jobs: VecDeque<Job<'b>>,
    /// Number of jobs in work.
    busy: usize,
    values: Vec<(usize, ChainingValue)>,
    root: Option<Hash>,
    spare: Vec<Group<'b>>,
    end: bool,
}

impl<'b> Crew<'b> {
    fn state(&self) -> MutexGuard<'_, State<'b>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<'b>>) -> MutexGuard<'s, State<'b>> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Hashes jobs until the end of the stream.
    fn work(&self) {
        let mut state = self.state();
        loop {
            state = match state.jobs.pop_front() {
                Some(job) => self.hash(state, job),
                None if state.end => return,
                None => self.wait(state),
            };
        }
    }

    /// Hashes one group. Releases the lock meanwhile.
    fn hash<'s>(
        &'s self,
        mut state: MutexGuard<'s, State<'b>>,
        job: Job<'b>,
    ) -> MutexGuard<'s, State<'b>> {
        state.busy += 1;
        drop(state);
        let slices = job.group.iter().map(|slice| &**slice);
        let (value, root) = if self.alone {
            (None, Some(whole(slices, job.len)))
        } else {
            (Some(subtree(job.number, slices, job.len)), None)
        };
        let mut state = self.state();
        state.busy -= 1;
        state.values.extend(value.map(|value| (job.number, value)));
        state.root = state.root.or(root);
        if self.again {
            state.spare.push(job.group);
        }
        self.changed.notify_all();
        state
    }
}

/// Guard that ends the work of a crew.
struct End<'c, 'b>(&'c Crew<'b>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        self.0.state().end = true;
        self.0.changed.notify_all();
    }
}

/// Writer of a stream. Each group is hashed as soon as it is full.
pub struct Writer<'c, 'b> {
    crew: &'c Crew<'b>,
    /// Groups that are still empty.
    memory: VecDeque<Group<'b>>,
    /// The group that is being filled.
    group: Group<'b>,
    /// Index of the slice that is being filled, and the number of its filled bytes.
    part: usize,
    at: usize,
    /// Number of filled bytes in the group.
    len: usize,
    /// Number of the group that is being filled.
    next: usize,
    written: u64,
}

impl<'b> Writer<'_, 'b> {
    /// Queues the group for the other threads. If they have enough work, this thread hashes it.
    fn submit(&mut self) {
        let job = Job {
            number: self.next,
            group: std::mem::take(&mut self.group),
            len: self.len,
        };
        (self.part, self.at, self.len) = (0, 0, 0);
        self.next += 1;
        let mut state = self.crew.state();
        if state.jobs.len() < 2 * self.crew.helpers {
            state.jobs.push_back(job);
            self.crew.changed.notify_all();
        } else {
            drop(self.crew.hash(state, job));
        }
    }

    /// Returns memory for the next group; `None` if none is left.
    fn fresh(&mut self) -> Option<Group<'b>> {
        if let Some(group) = self.memory.pop_front() {
            return Some(group);
        }
        let crew = self.crew;
        if !crew.again {
            return None;
        }
        let mut state = crew.state();
        loop {
            if let Some(group) = state.spare.pop() {
                return Some(group);
            }
            state = match state.jobs.pop_front() {
                Some(job) => crew.hash(state, job),
                None if state.busy > 0 => crew.wait(state),
                None => return None,
            };
        }
    }

    /// Waits until all groups are hashed.
    fn finish(mut self) -> (Hash, u64) {
        if self.len > 0 {
            self.submit();
        }
        let mut state = self.crew.state();
        loop {
            state = match state.jobs.pop_front() {
                Some(job) => self.crew.hash(state, job),
                None if state.busy > 0 => self.crew.wait(state),
                None => break,
            };
        }
        let values = std::mem::take(&mut state.values);
        (state.root.unwrap_or_else(|| root(values)), self.written)
    }
}

impl Target for Writer<'_, '_> {
    fn room(&mut self, wanted: usize) -> io::Result<&mut [u8]> {
        if self.group.is_empty() {
            self.group = self.fresh().ok_or_else(|| {
                io::Error::new(ErrorKind::StorageFull, "more content than was measured")
            })?;
        }
        let room = self.group.get_mut(self.part).and_then(|slice| {
            let len = slice.len().saturating_sub(self.at).min(wanted);
            slice.get_mut(self.at..self.at + len)
        });
        Ok(room.unwrap_or_default())
    }

    fn filled(&mut self, len: usize) -> io::Result<()> {
        self.at += len;
        self.len += len;
        self.written += len as u64;
        if self
            .group
            .get(self.part)
            .is_some_and(|slice| slice.len() == self.at)
        {
            (self.part, self.at) = (self.part + 1, 0);
        }
        if self.part == self.group.len() {
            self.submit();
        }
        Ok(())
    }
}

/// Returns the chaining value of group number `number`: the first `len` bytes of `slices`.
pub fn subtree<'s>(
    number: usize,
    slices: impl Iterator<Item = &'s [u8]>,
    len: usize,
) -> ChainingValue {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(number as u64 * GROUP as u64);
    update_first(&mut hasher, slices, len);
    hasher.finalize_non_root()
}

/// Returns the hash of the first `len` bytes of `slices`.
fn whole<'s>(slices: impl Iterator<Item = &'s [u8]>, len: usize) -> Hash {
    let mut hasher = Hasher::new();
    update_first(&mut hasher, slices, len);
    hasher.finalize()
}

fn update_first<'s>(hasher: &mut Hasher, slices: impl Iterator<Item = &'s [u8]>, mut len: usize) {
    for slice in slices {
        let (now, _) = slice.split_at(slice.len().min(len));
        update(hasher, now);
        len -= now.len();
    }
}

/// Hashes as `Hasher::update` does, for memory that may end at the end of its mapping. `blake3_hash_many_avx2` uses a
/// `vinsertf128` of 16 bytes at the end of a chunk, for which QEMU's emulation loads 32 bytes. If the memory behind the
/// mapping is not mapped, that load would kill the process.
fn update(hasher: &mut Hasher, bytes: &[u8]) {
    let (head, tail) = bytes.split_at(bytes.len().saturating_sub(TAIL));
    hasher.update(head);
    let mut copy = [0; TAIL + 64];
    let (same, _) = copy.split_at_mut(tail.len());
    same.copy_from_slice(tail);
    hasher.update(same);
}

/// Returns the hash of a stream from the chaining values of its groups, with their numbers. The stream has no groups,
/// or at least two.
pub fn root(mut values: Vec<(usize, ChainingValue)>) -> Hash {
    values.sort_unstable_by_key(|(number, _)| *number);
    let values: Vec<ChainingValue> = values.into_iter().map(|(_, value)| value).collect();
    if values.len() < 2 {
        return Hasher::new().finalize();
    }
    let (left, right) = values.split_at(left_half(values.len()));
    merge_subtrees_root(&merged(left), &merged(right), Mode::Hash)
}

/// Returns the number of groups in the left subtree, out of `groups`: the largest power of two that leaves at least one
/// for the right subtree (`blake3::hazmat::left_subtree_len`).
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

    fn bytes(len: usize) -> Vec<u8> {
        (0..len)
            .map(|n| u8::try_from((n ^ (n >> 9)) % 251).unwrap())
            .collect()
    }

    const LENGTHS: [usize; 11] = [
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
        9 * GROUP + 4097,
    ];

    /// The hash equals that of one thread, for every length, every cut of the memory and every number of threads.
    #[test]
    fn it_is_the_hash_that_one_thread_finds() {
        let all = bytes(9 * GROUP + 4097);
        for len in LENGTHS {
            let bytes = &all[..len];
            let want = blake3::hash(bytes);
            for size in [4096, 777_777, GROUP + 4096, 3 * GROUP] {
                for helpers in [0, 1, 3] {
                    let mut memory = vec![0; len];
                    let slices = cut(memory.chunks_mut(size).collect());
                    let got = run(len as u64, slices, false, helpers, |out| out.put(bytes));
                    assert_eq!(got.unwrap(), (want, len as u64), "{len:#x} {size:#x}");
                    assert!(memory == bytes, "{len:#x} {size:#x}");
                }
            }
        }
    }

    #[test]
    fn a_stream_that_is_not_kept_has_the_same_hash() {
        let all = bytes(9 * GROUP + 4097);
        for len in LENGTHS {
            let bytes = &all[..len];
            let want = (blake3::hash(bytes), len as u64);
            assert_eq!(passing(len as u64, |out| out.put(bytes)).unwrap(), want);
            for helpers in [0, 1, 3] {
                let mut memory = vec![0; GROUP * 2];
                let memory = memory.chunks_mut(GROUP).map(|group| vec![group]).collect();
                let got = run(len as u64, memory, true, helpers, |out| out.put(bytes));
                assert_eq!(got.unwrap(), want, "{len:#x}");
            }
        }
    }

    #[test]
    fn more_than_there_is_room_for_is_an_error() {
        for len in [0, 5, GROUP, GROUP + 5] {
            let mut memory = vec![0; len];
            let more = vec![1; len + 1];
            let got = written(len as u64, vec![&mut memory], |out| out.put(&more));
            assert_eq!(got.unwrap_err().kind(), ErrorKind::StorageFull);
        }
        // If fewer bytes are written, the number is smaller.
        let mut memory = vec![0; 3 * GROUP];
        let got = written(3 << 20, vec![&mut memory], |out| out.put(&[1; 2 * GROUP]));
        assert_eq!(got.unwrap().1, 2 << 20);
    }
}
