//! Lines for the kernel log and for `/.kho/arrival.log`.

use core::ffi::CStr;

use crate::sys::{self, Errno, File};

/// `KERN_ERR`.
pub const ERROR: u8 = b'3';
/// `KERN_NOTICE`.
pub const NOTICE: u8 = b'5';

/// Largest length of a line, in bytes: shorter than what `/dev/kmsg` takes at once (1024,
/// `LOG_LINE_MAX`/`PRINTKRB_RECORD_MAX` in `kernel/printk/printk.c`). Longer lines are cut off.
const MAX_LINE: usize = 512;

/// Destinations of lines: the kernel log and the file. Either may be missing.
pub struct Log {
    kernel: Option<File>,
    file: Option<File>,
}

impl Log {
    pub fn open() -> Self {
        Self {
            file: sys::open(c"/.kho/arrival.log", sys::O_CREATE, 0o600).ok(),
            ..Self::to(c"/.kho/kmsg")
        }
    }

    /// Makes a log with one destination, the kernel log.
    pub fn to(kernel: &CStr) -> Self {
        Self {
            kernel: sys::open(kernel, sys::O_WRONLY, 0).ok(),
            file: None,
        }
    }

    /// Makes a log without destinations, which drops all lines.
    pub fn closed() -> Self {
        Self {
            kernel: None,
            file: None,
        }
    }

    /// Begins a line with one of the levels above.
    pub fn begin(&mut self, level: u8) -> Line<'_> {
        let line = Line {
            log: self,
            bytes: [0; MAX_LINE],
            len: 0,
        };
        line.str("<").bytes(&[level]).str(">kho: ")
    }
}

/// A line being put together.
#[must_use]
pub struct Line<'a> {
    log: &'a mut Log,
    bytes: [u8; MAX_LINE],
    len: usize,
}

impl Line<'_> {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        // One byte is kept for the line break.
        let room = self
            .bytes
            .get_mut(self.len..MAX_LINE - 1)
            .unwrap_or_default();
        let mut added = 0;
        for (to, from) in room.iter_mut().zip(bytes) {
            // A control character from a command line must not begin a new line in the log.
            *to = if from.is_ascii_control() { b'?' } else { *from };
            added += 1;
        }
        self.len += added;
        self
    }

    pub fn str(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub fn cstr(self, text: &CStr) -> Self {
        self.bytes(text.to_bytes())
    }

    pub fn dec(self, value: u64) -> Self {
        self.digits(value, 10)
    }

    pub fn hex(self, value: u64) -> Self {
        self.str("0x").digits(value, 16)
    }

    fn digits(self, mut value: u64, base: u64) -> Self {
        let mut digits = [0; 20];
        let mut used = 0;
        for place in digits.iter_mut().rev() {
            *place = match (value % base) as u8 {
                digit @ 0..=9 => b'0' + digit,
                digit => b'a' + digit - 10,
            };
            value /= base;
            used += 1;
            if value == 0 {
                break;
            }
        }
        self.bytes(digits.get(20 - used..).unwrap_or_default())
    }

    /// Appends " (error N)".
    pub fn errno(self, why: Errno) -> Self {
        self.str(" (error ").dec(why.unsigned_abs().into()).str(")")
    }

    pub fn end(mut self) {
        if let Some(last) = self.bytes.get_mut(self.len) {
            *last = b'\n';
            self.len += 1;
        }
        let line = self.bytes.get(..self.len).unwrap_or_default();
        // If both writes fail, no destination is left to report the failure to.
        if let Some(kernel) = &self.log.kernel {
            let _ = kernel.write(line);
        }
        if let Some(file) = &self.log.file {
            let _ = file.write(line);
        }
    }
}
