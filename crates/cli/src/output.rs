//! Output for people and scripts: sizes, tables, JSON, progress.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Whether some output could not be written although its reader was still there.
static LOST: AtomicBool = AtomicBool::new(false);

/// Warnings of this run, in order, without repetitions.
static WARNINGS: Mutex<Warnings> = Mutex::new(Warnings {
    said: Vec::new(),
    waiting: Vec::new(),
});

/// Content of [`WARNINGS`].
struct Warnings {
    /// All warnings of this run.
    said: Vec<String>,
    /// Warnings that no JSON document contains yet.
    waiting: Vec<String>,
}

fn warnings<T>(with: impl FnOnce(&mut Warnings) -> T) -> T {
    with(&mut WARNINGS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Takes the warnings that no JSON document contains yet.
pub fn take_warnings() -> Vec<String> {
    warnings(|warnings| std::mem::take(&mut warnings.waiting))
}

/// Prints as the macro of the standard library does. That macro panics if the reader has closed the output, as in `kho
/// dump | head`. A verb that changes something must not stop halfway because of that.
macro_rules! print {
    ($($arg:tt)*) => { $crate::output::write(format_args!($($arg)*)) };
}

/// See [`print!`].
macro_rules! println {
    () => { $crate::output::write(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints as the macro of the standard library does, but ignores a failure: if standard error cannot be written, no
/// other place is left for a report.
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

/// Flushes the output at the end of a run. Returns whether all results were written.
pub fn all_written() -> bool {
    let flushed = std::io::stdout().flush();
    let lost = flushed.is_err_and(|err| err.kind() != ErrorKind::BrokenPipe);
    !lost && !LOST.load(Ordering::Relaxed)
}

/// Format of the command's output.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON document on standard output.
    pub json: bool,
    /// No remarks, no progress. Warnings and errors are still shown.
    pub quiet: bool,
}

impl Output {
    /// Prints `value` as JSON, or runs `text`. Adds the warnings, if there are any, to an object as its member
    /// `warnings`.
    pub fn result<T: serde::Serialize>(self, value: &T, text: impl FnOnce()) {
        if self.json {
            let doc = serde_json::to_value(value).map(with_warnings);
            match doc.and_then(|doc| serde_json::to_string_pretty(&doc)) {
                Ok(doc) => println!("{doc}"),
                Err(err) => eprintln!("kho: cannot print JSON: {err}"),
            }
        } else {
            text();
        }
    }

    /// Prints `value` as JSON and makes it meanwhile, for a document that may not fit into memory. The document itself
    /// contains the warnings ([`take_warnings`]). False if the reader has closed the output.
    pub fn stream<T: serde::Serialize>(self, value: &T) -> bool {
        let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
        let written = serde_json::to_writer_pretty(&mut stdout, value)
            .map_err(std::io::Error::from)
            .and_then(|()| stdout.write_all(b"\n"))
            .and_then(|()| stdout.flush());
        match written {
            Ok(()) => true,
            Err(err) if err.kind() == ErrorKind::BrokenPipe => false,
            Err(_) => {
                LOST.store(true, Ordering::Relaxed);
                true
            }
        }
    }

    /// Warns that content is not handed over, is lost, or is at risk. The warning becomes part of the JSON document, or
    /// goes to standard error if the output is text, even if [`Output::quiet`] is set. A run reports the same text only
    /// once.
    pub fn warn(self, text: &str) {
        let new = warnings(|warnings| {
            if warnings.said.iter().any(|said| said == text) {
                return false;
            }
            warnings.said.push(text.to_owned());
            if self.json {
                warnings.waiting.push(text.to_owned());
            }
            true
        });
        if new && !self.json {
            let priority = if to_journal() { "<4>" } else { "" };
            eprintln!("{priority}kho: warning: {text}");
        }
    }

    /// Writes the warnings that no document contains yet to standard error, as JSON. For a verb that ends without a
    /// document.
    pub fn last_warnings(self) {
        let left = take_warnings();
        if !left.is_empty() {
            eprintln!("{}", serde_json::json!({ "warnings": left }));
        }
    }

    /// Writes a remark about the result to standard error. A remark never reports a loss.
    pub fn remark(self, text: &str) {
        if !self.json && !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Returns a progress bar over `total` bytes, which appears only if the work takes more than a second.
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

/// Formats a duration for people: `45 s`, `12 min`, `3 h`.
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..120 => format!("{secs} s"),
        secs @ 120..7200 => format!("{} min", secs.div_ceil(60)),
        secs => format!("{} h", secs.div_ceil(3600)),
    }
}

/// Adds the warnings that no document contains yet to the document, if the document is an object.
fn with_warnings(mut doc: serde_json::Value) -> serde_json::Value {
    if let Some(object) = doc.as_object_mut()
        && !object.contains_key("warnings")
    {
        let left = take_warnings();
        if !left.is_empty() {
            object.insert("warnings".to_owned(), left.into());
        }
    }
    doc
}

/// Whether standard error is the journal, which reads a priority at the start of a line (sd-daemon(3), `JOURNAL_STREAM`
/// in systemd.exec(5)).
fn to_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

pub use kho_format::human::{bytes, time};

/// Width of a terminal for which text is wrapped, in columns.
pub const WIDTH: usize = 100;

/// Splits text between words into lines of at most `width` columns. `first` begins the first line and indents the others.
/// A word that is too long gets a line of its own, so that a path can be copied. Empty text has no line.
pub fn wrap(text: &str, first: &str, width: usize) -> Vec<String> {
    let indent = " ".repeat(first.len());
    let options = textwrap::Options::new(width)
        .initial_indent(first)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit);
    match text {
        "" => Vec::new(),
        text => textwrap::wrap(text, options)
            .into_iter()
            .map(std::borrow::Cow::into_owned)
            .collect(),
    }
}

/// Formats a table. A column is as wide as its widest cell; the columns in `right` align right.
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

/// Formats a count: `1 entry`, `2 entries`.
pub fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_document_names_each_warning_once() {
        let out = Output {
            json: true,
            quiet: true,
        };
        out.warn("lost");
        out.warn("lost");
        // A document that is no object takes no warnings: they wait for the next document.
        assert_eq!(with_warnings([1].as_slice().into()), serde_json::json!([1]));
        let doc = with_warnings(serde_json::json!({ "a": 1 }));
        assert_eq!(doc, serde_json::json!({ "a": 1, "warnings": ["lost"] }));
        assert_eq!(with_warnings(serde_json::json!({})), serde_json::json!({}));
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![
            vec!["a".into(), "1".into()],
            vec!["bbb".into(), "22".into()],
        ];
        assert_eq!(table(&rows, &[1]), "a     1\nbbb  22\n");
    }
}
