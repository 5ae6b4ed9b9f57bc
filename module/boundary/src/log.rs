//! The kernel's log.

use crate::ffi;
use core::fmt;
use kho_decide::text::{Level, Text};

/// Writes one line of at most 400 bytes into the kernel log. Cuts longer lines off.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let mut buf = [0u8; 400];
    let mut text = Text::new(&mut buf);
    // The fixed buffer cuts long lines off; that is no error.
    let _ = fmt::Write::write_fmt(&mut text, message);
    let level = match level {
        Level::Error => 0,
        Level::Warning => 1,
        Level::Info => 2,
        Level::Emergency => 3,
    };
    let line = text.bytes();
    // SAFETY: a slice is readable for its length.
    unsafe { ffi::kho_c_log(level, line.as_ptr(), line.len()) }
}

/// `log!(Level::Info, "...", ...)`.
#[macro_export]
macro_rules! log {
    ($level:expr, $($arg:tt)*) => { $crate::log::write($level, format_args!($($arg)*)) };
}
