//! Text in fixed buffers, for the log and for sysfs: code there must not allocate and must not fail.

use core::fmt;

/// Text that stops at the end of its buffer.
pub struct Text<'b> {
    buf: &'b mut [u8],
    len: usize,
    /// Number of bytes at the beginning of the text that are not yet skipped.
    skip: usize,
}

impl<'b> Text<'b> {
    /// An empty text in `buf`.
    pub fn new(buf: &'b mut [u8]) -> Self {
        Self::from_offset(buf, 0)
    }

    /// A text in `buf` without its first `offset` bytes.
    pub fn from_offset(buf: &'b mut [u8], offset: u64) -> Self {
        Self {
            buf,
            len: 0,
            skip: usize::try_from(offset).unwrap_or(usize::MAX),
        }
    }

    /// Number of bytes written.
    pub fn written(&self) -> usize {
        self.len
    }

    /// The bytes written.
    pub fn bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or(&[])
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let left_out = self.skip.min(text.len());
        self.skip = self.skip.saturating_sub(left_out);
        let text = text.as_bytes().get(left_out..).unwrap_or(&[]);
        let room = self.buf.get_mut(self.len..).unwrap_or(&mut []);
        let fits = room.len().min(text.len());
        for (to, from) in room.iter_mut().zip(text) {
            *to = *from;
        }
        self.len = self.len.saturating_add(fits);
        if fits == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

/// Severity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// State is lost, and nothing can stop that any more.
    Emergency,
    /// The module did not do what its caller asked.
    Error,
    /// The module found a problem and handled it.
    Warning,
    /// Information without a problem.
    Info,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use std::string::String;
    use std::vec;

    #[test]
    fn pieces_are_the_text() {
        let lines = |out: &mut dyn Write| {
            (0..50).try_for_each(|n| writeln!(out, "/node-{n}/with/a/long/path {n}"))
        };
        let mut whole = String::new();
        lines(&mut whole).unwrap();
        for size in [1, 7, 64, 4096] {
            let mut read = String::new();
            loop {
                let mut buf = vec![0; size];
                let mut text = Text::from_offset(&mut buf, read.len() as u64);
                let _ = lines(&mut text);
                if text.written() == 0 {
                    break;
                }
                read += core::str::from_utf8(text.bytes()).unwrap();
            }
            assert_eq!(read, whole, "in pieces of {size}");
        }
    }
}
