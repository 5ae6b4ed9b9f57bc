//! Memory that an archive is written to.

use std::io::{self, Write};

use crate::BUFFER;

/// Receiver of an archive that provides the memory for the next bytes, so that file content is read directly into it.
pub trait Target {
    /// Returns memory for the next bytes: at least one and at most `wanted`, which is not 0.
    ///
    /// # Errors
    /// If no memory is left.
    fn room(&mut self, wanted: usize) -> io::Result<&mut [u8]>;

    /// Takes the first `len` bytes of the memory that [`Target::room`] returned last.
    ///
    /// # Errors
    /// The error of writing these bytes.
    fn filled(&mut self, len: usize) -> io::Result<()>;

    /// Takes a copy of `bytes`.
    ///
    /// # Errors
    /// The errors of [`Target::room`] and [`Target::filled`].
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len())?;
            let len = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(len);
            let (here, _) = room.split_at_mut(len);
            here.copy_from_slice(now);
            self.filled(len)?;
            bytes = later;
        }
        Ok(())
    }

    /// Writes all bytes that are still buffered.
    ///
    /// # Errors
    /// The error of writing.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adapter that makes a writer a [`Target`].
pub(crate) struct Through<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Through<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            buffer: vec![0; BUFFER],
        }
    }
}

impl<W: Write> Target for Through<W> {
    fn room(&mut self, wanted: usize) -> io::Result<&mut [u8]> {
        let len = wanted.min(self.buffer.len());
        Ok(self.buffer.get_mut(..len).unwrap_or_default())
    }

    fn filled(&mut self, len: usize) -> io::Result<()> {
        self.out
            .write_all(self.buffer.get(..len).unwrap_or_default())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
