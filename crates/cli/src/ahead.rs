//! Kept memory that several threads read and hash before the main thread uses it.

use crate::hash::{self, GROUP};
use blake3::Hash;
use blake3::hazmat::ChainingValue;
use kho::PhysRange;
use kho_kexec::sys::physmem::{PhysMemory, Reader};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

/// Stream of content in kept memory, read ahead. The threads end when the stream is dropped.
pub struct Ahead {
    filled: Receiver<Filled>,
    /// Sender of empty buffers for the threads.
    empty: Sender<Vec<u8>>,
    /// Groups that were read before their turn, by their numbers.
    early: BTreeMap<usize, Filled>,
    groups: usize,
    /// Number of the group that the stream takes next.
    next: usize,
    current: Vec<u8>,
    at: usize,
    values: Vec<(usize, ChainingValue)>,
}

/// A group whose bytes were read.
struct Filled {
    number: usize,
    bytes: Vec<u8>,
    value: io::Result<ChainingValue>,
}

/// Work that the threads share.
struct Task {
    mem: Vec<PhysRange>,
    size: u64,
    groups: usize,
    /// Empty buffers, and the number of the next group. A thread takes both or none, so every group that was taken is
    /// read.
    next: Mutex<(Receiver<Vec<u8>>, usize)>,
}

impl Ahead {
    /// Starts threads that read the first `size` bytes of `mem`. `open` makes access to the memory for each thread.
    /// `None` if threads would not make the reading faster, or cannot be started.
    pub fn start(
        mem: &[PhysRange],
        size: u64,
        helpers: usize,
        open: impl Fn() -> Option<Box<dyn PhysMemory + Send>>,
    ) -> Option<Self> {
        let groups = hash::groups(size);
        let (empty, buffers) = channel();
        let task = Arc::new(Task {
            mem: mem.to_vec(),
            size,
            groups,
            next: Mutex::new((buffers, 0)),
        });
        let (done, filled) = channel();
        let mut threads = 0;
        for _ in 0..helpers {
            let (task, done) = (Arc::clone(&task), done.clone());
            let memory = open()?;
            if Builder::new()
                .spawn(move || task.work(&*memory, &done))
                .is_ok()
            {
                threads += 1;
            }
        }
        if threads == 0 {
            return None;
        }
        for _ in 0..2 * threads {
            empty.send(Vec::new()).ok()?;
        }
        Some(Self {
            filled,
            empty,
            early: BTreeMap::new(),
            groups,
            next: 0,
            current: Vec::new(),
            at: 0,
            values: Vec::new(),
        })
    }

    /// Returns the hash of the stream; `None` if a part was not read.
    pub fn hash(&self) -> Option<Hash> {
        (self.values.len() == self.groups).then(|| hash::root(self.values.clone()))
    }

    /// Waits for the next group and takes it.
    fn advance(&mut self) -> io::Result<()> {
        let filled = loop {
            if let Some(filled) = self.early.remove(&self.next) {
                break filled;
            }
            let filled = self
                .filled
                .recv()
                .map_err(|_| io::Error::other("the threads that read it ended"))?;
            self.early.insert(filled.number, filled);
        };
        self.values.push((filled.number, filled.value?));
        self.next += 1;
        self.at = 0;
        // After the last group no thread needs the buffer, so the sending may fail.
        let _ = self
            .empty
            .send(std::mem::replace(&mut self.current, filled.bytes));
        Ok(())
    }
}

impl Read for Ahead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            if self.next == self.groups {
                return Ok(0);
            }
            self.advance()?;
        }
        let mut rest = self.current.get(self.at..).unwrap_or_default();
        let n = rest.read(buf)?;
        self.at += n;
        Ok(n)
    }
}

impl Task {
    /// Reads and hashes groups until no group is left or the stream was dropped.
    fn work(&self, memory: &dyn PhysMemory, done: &Sender<Filled>) {
        while let Some((number, mut bytes)) = self.take() {
            let value = self.fill(memory, number, &mut bytes).map(|()| {
                let slices = std::iter::once(bytes.as_slice());
                hash::subtree(number, slices, bytes.len())
            });
            let filled = Filled {
                number,
                bytes,
                value,
            };
            if done.send(filled).is_err() {
                return;
            }
        }
    }

    fn take(&self) -> Option<(usize, Vec<u8>)> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.1 == self.groups {
            return None;
        }
        let buffer = next.0.recv().ok()?;
        let number = next.1;
        next.1 += 1;
        Some((number, buffer))
    }

    fn fill(&self, memory: &dyn PhysMemory, number: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
        let start = number as u64 * GROUP as u64;
        let len = usize::try_from(self.size.saturating_sub(start)).map_or(GROUP, |n| n.min(GROUP));
        bytes.resize(len, 0);
        let mut reader = Reader::new(memory, &self.mem, self.size)?;
        reader.skip(start);
        reader.read_exact(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kho::PhysAddr;
    use kho_kexec::sys::physmem::PhysError;

    /// Memory in which every byte depends on its address. Reading fails from the address in the field on.
    struct Ramp(u64);

    fn byte(addr: u64) -> u8 {
        (addr ^ (addr >> 8) ^ (addr >> 20)).to_le_bytes()[0]
    }

    impl PhysMemory for Ramp {
        fn read_at(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), PhysError> {
            let len = buf.len() as u64;
            if addr.get() + len > self.0 {
                return Err(PhysError::Wraps { addr, len });
            }
            for (at, b) in (addr.get()..).zip(buf) {
                *b = byte(at);
            }
            Ok(())
        }
    }

    fn pieces() -> Vec<PhysRange> {
        let range = |start, len| PhysRange::new(PhysAddr::new(start), len).unwrap();
        vec![
            range(64 << 20, 1 << 20),
            range(8 << 20, 5 << 12),
            range(16 << 20, 4 << 20),
        ]
    }

    #[test]
    fn it_is_the_stream_and_its_hash() {
        for size in [2_u64 << 20, (4 << 20) + 77, (5 << 20) + (5 << 12)] {
            let bytes: Vec<u8> = pieces()
                .iter()
                .flat_map(|piece| piece.start().get()..piece.end().get())
                .take(usize::try_from(size).unwrap())
                .map(byte)
                .collect();
            for helpers in [1, 3] {
                let open = || Some(Box::new(Ramp(u64::MAX)) as Box<dyn PhysMemory + Send>);
                let mut ahead = Ahead::start(&pieces(), size, helpers, open).unwrap();
                assert_eq!(ahead.hash(), None);
                let mut got = Vec::new();
                ahead.read_to_end(&mut got).unwrap();
                assert!(got == bytes, "{size:#x}");
                assert_eq!(ahead.hash(), Some(blake3::hash(&bytes)), "{size:#x}");
            }
        }
    }

    #[test]
    fn memory_that_cannot_be_read_is_an_error_in_its_turn() {
        let open = || Some(Box::new(Ramp(64 << 20)) as Box<dyn PhysMemory + Send>);
        let mut mem = pieces();
        mem.rotate_left(1);
        let mut ahead = Ahead::start(&mem, 5 << 20, 3, open).unwrap();
        let mut got = Vec::new();
        assert!(ahead.read_to_end(&mut got).is_err());
        assert_eq!(got.len(), 4 << 20);
        assert_eq!(ahead.hash(), None);
        assert!(Ahead::start(&mem, 5 << 20, 3, || None).is_none());
        assert!(Ahead::start(&mem, 5 << 20, 0, open).is_none());
    }
}
