//! What people and scripts see: sizes, tables, JSON, progress.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether something that was to be printed was not, for another reason than that nobody reads it any more.
static LOST: AtomicBool = AtomicBool::new(false);

/// As the standard library's, which panics when whoever read the output has gone (`kho dump | head`). A verb that
/// changes something must not stop halfway for that.
macro_rules! print {
    ($($arg:tt)*) => { $crate::output::write(format_args!($($arg)*)) };
}

/// See [`print!`].
macro_rules! println {
    () => { $crate::output::write(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($arg)*))) };
}

/// As the standard library's; there is nobody left to tell when standard error cannot be written.
macro_rules! eprintln {
    ($($arg:tt)*) => { $crate::output::complain(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Writes to standard error.
pub fn complain(text: Arguments<'_>) {
    let _ = std::io::stderr().write_fmt(text);
}

/// Writes to standard output.
pub fn write(text: Arguments<'_>) {
    if let Err(err) = std::io::stdout().write_fmt(text)
        && err.kind() != ErrorKind::BrokenPipe
    {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Whether all results could be written, at the end.
pub fn all_written() -> bool {
    let flushed = std::io::stdout().flush();
    let lost = flushed.is_err_and(|err| err.kind() != ErrorKind::BrokenPipe);
    !lost && !LOST.load(Ordering::Relaxed)
}

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON document on standard output.
    pub json: bool,
    /// No remarks, no progress.
    pub quiet: bool,
}

impl Output {
    /// Prints `value` as JSON, or runs `text`.
    pub fn result<T: serde::Serialize>(self, value: &T, text: impl FnOnce()) {
        if self.json {
            match serde_json::to_string_pretty(value) {
                Ok(doc) => println!("{doc}"),
                Err(err) => eprintln!("kho: cannot print JSON: {err}"),
            }
        } else {
            text();
        }
    }

    /// The same without remarks, where one was made already or will be.
    pub fn silent(self) -> Self {
        Self {
            quiet: true,
            ..self
        }
    }

    /// A warning: something is not handed over, is lost, or is at risk. It is on standard error whatever was asked for.
    pub fn warn(self, text: &str) {
        eprintln!("kho: warning: {text}");
    }

    /// A remark beside the result, on standard error.
    pub fn remark(self, text: &str) {
        if !self.json && !self.quiet {
            eprintln!("{text}");
        }
    }

    /// A progress bar over `total` bytes that appears only when the work takes more than a second.
    pub fn progress(self, what: &str, total: u64) -> ProgressBar {
        if self.json || self.quiet {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(
            "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_owned());
        let shown = bar.downgrade();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(1));
            if let Some(bar) = shown.upgrade() {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        });
        bar
    }
}

pub use kho_format::human::{bytes, time};

/// A table whose columns are as wide as their widest cell; columns listed in `right` align right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|r| r.get(c))
                .map(|s| s.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(c, cell)| {
                if right.contains(&c) {
                    format!("{cell:>w$}", w = width[c])
                } else {
                    format!("{cell:<w$}", w = width[c])
                }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// `1 entry`, `2 entries`.
pub fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = vec![
            vec!["a".into(), "1".into()],
            vec!["bbb".into(), "22".into()],
        ];
        assert_eq!(table(&rows, &[1]), "a     1\nbbb  22\n");
    }
}
