//! One `keep.d` file: lines of `TYPE PATH [OPTION…]`.
//!
//! The text comes from a file of root. A typing error is refused and never has another effect: every line is understood
//! in full or reported with its place.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use thiserror::Error;

/// Longest file that is read, in bytes.
pub const MAX_FILE: u64 = 64 << 10;

/// Longest line, in bytes. A path of PATH_MAX bytes with every byte escaped is longer, but no user writes such a line.
const MAX_LINE: usize = 8 << 10;

/// Kind of object that a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `f`: a regular file.
    File,
    /// `d`: a directory with all of its content.
    Directory,
    /// `L`: a symbolic link, kept as such.
    Link,
    /// `t`: the trace of the running kernel.
    Trace,
}

impl Kind {
    /// Name of the kind, for messages.
    pub const fn label(self) -> &'static str {
        match self {
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::Link => "a symbolic link",
            Self::Trace => "a trace",
        }
    }
}

/// Options of a line `t`; `None` for an option that the line does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceOptions {
    /// `size=`: largest number of bytes of the buffers.
    pub size: Option<u64>,
    /// `hops=`: number of kernels whose traces are kept.
    pub hops: Option<u32>,
}

/// Rule of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Kind that the path must have.
    pub kind: Kind,
    /// `-` after the type: if the path does not exist, nothing is kept, and there is no error.
    pub optional: bool,
    /// The path, absolute, without `.`, `..` and doubled slashes.
    pub path: PathBuf,
    /// `name=`: name of the entry instead of the escaped path.
    pub name: Option<String>,
    /// `skip-special`: leave out sockets, devices and pipes.
    pub skip_special: bool,
    /// `one-file-system`: do not descend into other mounts.
    pub one_file_system: bool,
    /// `best-effort`: if the content of this entry cannot be taken, the other entries are handed over without it.
    pub best_effort: bool,
    /// `replace`: at boot, replace files that exist.
    pub replace: bool,
    /// `privileged`: at boot, restore set-user-ID bits and `security.*` attributes.
    pub privileged: bool,
    /// `manual`: not restored at boot, only by `kho restore NAME`.
    pub manual: bool,
    /// Options of a trace.
    pub trace: TraceOptions,
    /// Place of the line, as `FILE:LINE`.
    pub place: String,
}

/// Error of a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    /// The line is longer than the limit.
    #[error("the line has {0:#x} bytes, at most {MAX_LINE:#x} are read")]
    TooLong(usize),
    /// The line has a control character.
    #[error("byte {0:#04x} is a control character; write it as \\x{0:02x} if a path really has it")]
    Control(u8),
    /// A quote is not closed.
    #[error("a quoted field has no end")]
    Quote,
    /// A quote ends in the middle of a field, such as in `a"b"`.
    #[error("a quote ends in the middle of a field")]
    Glued,
    /// An escape is unknown, or stands for a NUL.
    #[error("\\{0} is no escape; there are \\\\ \\\" \\' \\s (blank) and \\xHH other than \\x00")]
    Escape(String),
    /// The first field is not a type.
    #[error(
        "{0:?} is no type; there are f (file), d (directory) and L (symbolic link), each with - after it if the path may be absent, and t (trace)"
    )]
    Type(String),
    /// The path after the type is missing.
    #[error("there is no path")]
    NoPath,
    /// The path is relative, or has `.` or `..`.
    #[error("{0:?} is not an absolute path without `.` and `..`")]
    Path(OsString),
    /// The line has a `%`, which is reserved for later use, as in tmpfiles.d.
    #[error("% has no meaning here; write %% for a percent sign")]
    Percent,
    /// The option is unknown.
    #[error(
        "{0:?} is no option; there are name=NAME skip-special one-file-system best-effort replace privileged manual"
    )]
    Option(String),
    /// A trace has a path.
    #[error("a trace has no path: write `t -`")]
    TracePath,
    /// The option of a trace is wrong, or a trace does not have this option.
    #[error(
        "{0:?} is no option of a trace; there are size=SIZE (such as 16M) and hops=N (1 to 64)"
    )]
    TraceOption(String),
    /// The option is given twice.
    #[error("the option {0:?} is given twice")]
    Twice(String),
    /// The name is not allowed.
    #[error("{0:?} is no name: 1 to 200 bytes without '/' and control characters")]
    Name(String),
}

/// An error with its place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {error}")]
pub struct Located {
    /// Place of the line, as `FILE:LINE`.
    pub place: String,
    /// Error of the line.
    #[source]
    pub error: LineError,
}

/// Parses a whole file. Returns all errors, not only the first, so that the administrator can repair the file at once.
///
/// # Errors
///
/// One error for each wrong line.
pub fn file(name: &Path, text: &[u8]) -> Result<Vec<Rule>, Vec<Located>> {
    let (mut rules, mut errors) = (Vec::new(), Vec::new());
    for (number, text) in (1_usize..).zip(text.split(|byte| *byte == b'\n')) {
        let place = format!("{}:{number}", name.display());
        match line(text, &place) {
            Ok(rule) => rules.extend(rule),
            Err(error) => errors.push(Located { place, error }),
        }
    }
    if errors.is_empty() {
        Ok(rules)
    } else {
        Err(errors)
    }
}

fn line(text: &[u8], place: &str) -> Result<Option<Rule>, LineError> {
    if text.len() > MAX_LINE {
        return Err(LineError::TooLong(text.len()));
    }
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let fields = fields(text)?;
    let mut fields = fields.into_iter();
    let Some(kind) = fields.next() else {
        return Ok(None);
    };
    let (letter, optional) = match kind.strip_suffix(b"-") {
        Some(letter) => (letter, true),
        None => (&*kind, false),
    };
    let kind = match letter {
        b"f" => Kind::File,
        b"d" => Kind::Directory,
        b"L" => Kind::Link,
        b"t" if !optional => Kind::Trace,
        _ => return Err(LineError::Type(String::from_utf8_lossy(&kind).into_owned())),
    };
    let field = fields.next().ok_or(LineError::NoPath)?;
    let path = match kind {
        Kind::Trace if field == b"-" => PathBuf::from("/sys/kernel/tracing"),
        Kind::Trace => return Err(LineError::TracePath),
        _ => path(&field)?,
    };
    let mut rule = Rule {
        kind,
        optional,
        path,
        name: None,
        skip_special: false,
        one_file_system: false,
        best_effort: false,
        replace: false,
        privileged: false,
        manual: false,
        trace: TraceOptions::default(),
        place: place.to_owned(),
    };
    for field in fields {
        option(&mut rule, &String::from_utf8_lossy(&field))?;
    }
    Ok(Some(rule))
}

fn option(rule: &mut Rule, text: &str) -> Result<(), LineError> {
    let twice = || LineError::Twice(text.to_owned());
    if rule.kind == Kind::Trace && text != "best-effort" {
        return trace_option(&mut rule.trace, text);
    }
    if let Some(name) = text.strip_prefix("name=") {
        let bad = name.is_empty() || name.len() > 200 || name == "." || name == "..";
        if bad || name.contains(['/', '\u{fffd}']) || name.chars().any(char::is_control) {
            return Err(LineError::Name(name.to_owned()));
        }
        return if rule.name.replace(name.to_owned()).is_some() {
            Err(twice())
        } else {
            Ok(())
        };
    }
    let flag = match text {
        "skip-special" => &mut rule.skip_special,
        "one-file-system" => &mut rule.one_file_system,
        "best-effort" => &mut rule.best_effort,
        "replace" => &mut rule.replace,
        "privileged" => &mut rule.privileged,
        "manual" => &mut rule.manual,
        _ => return Err(LineError::Option(text.to_owned())),
    };
    if std::mem::replace(flag, true) {
        Err(twice())
    } else {
        Ok(())
    }
}

fn trace_option(trace: &mut TraceOptions, text: &str) -> Result<(), LineError> {
    let wrong = || LineError::TraceOption(text.to_owned());
    match text.split_once('=') {
        Some(("size", size)) => trace.size = Some(parse_size(size).map_err(|_| wrong())?),
        Some(("hops", hops)) => {
            let hops = hops.parse().ok().filter(|hops| (1..=64).contains(hops));
            trace.hops = Some(hops.ok_or_else(wrong)?);
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// Parses a size: `16M`, `1G`, or a number of bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: a number of bytes, or with K, M or G behind it");
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (text.get(..text.len() - 1), 1 << 10),
        Some(b'M' | b'm') => (text.get(..text.len() - 1), 1 << 20),
        Some(b'G' | b'g') => (text.get(..text.len() - 1), 1 << 30),
        _ => (Some(text), 1u64),
    };
    let value: u64 = digits.unwrap_or_default().parse().map_err(|_| wrong())?;
    match value.checked_mul(factor) {
        Some(size) if size >= 4096 => Ok(size),
        Some(size) => Err(format!(
            "{size:#x} bytes are less than one page of a trace buffer (0x1000)"
        )),
        None => Err(wrong()),
    }
}

/// Parses a path and normalizes it. The path must be absolute. Two spellings of one path would make two entries.
fn path(bytes: &[u8]) -> Result<PathBuf, LineError> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == b'%' && rest.next() != Some(b'%') {
            return Err(LineError::Percent);
        }
        plain.push(byte);
    }
    let bad = || LineError::Path(OsString::from_vec(bytes.to_vec()));
    let given = Path::new(OsStr::from_bytes(&plain));
    // `components` drops `.` in the middle of a path, so the bytes are searched for it.
    if !given.is_absolute()
        || plain
            .split(|byte| *byte == b'/')
            .any(|part| part == b"." || part == b"..")
    {
        return Err(bad());
    }
    let clean: PathBuf = given.components().collect();
    if clean
        .components()
        .any(|part| !matches!(part, Component::RootDir | Component::Normal(_)))
    {
        return Err(bad());
    }
    Ok(clean)
}

/// Splits a line at blanks into fields, unquoted and unescaped. A line that starts with `#` has no fields.
fn fields(text: &[u8]) -> Result<Vec<Vec<u8>>, LineError> {
    let mut fields = Vec::new();
    let mut rest = text.iter().copied().peekable();
    loop {
        while rest.next_if(|byte| matches!(byte, b' ' | b'\t')).is_some() {}
        match rest.peek() {
            None => return Ok(fields),
            Some(b'#') if fields.is_empty() => return Ok(fields),
            Some(_) => {}
        }
        let quote = rest.next_if(|byte| matches!(byte, b'"' | b'\''));
        let mut field = Vec::new();
        loop {
            let Some(byte) = rest.next() else {
                if quote.is_some() {
                    return Err(LineError::Quote);
                }
                break;
            };
            match (byte, quote) {
                (byte, Some(quote)) if byte == quote => {
                    if rest
                        .peek()
                        .is_some_and(|next| !matches!(next, b' ' | b'\t'))
                    {
                        return Err(LineError::Glued);
                    }
                    break;
                }
                (b' ' | b'\t', None) => break,
                (b'\\', _) => field.push(escape(&mut rest)?),
                (b' ', Some(_)) => field.push(b' '),
                (0..0x20 | 0x7f, _) => return Err(LineError::Control(byte)),
                _ => field.push(byte),
            }
        }
        fields.push(field);
    }
}

fn escape(rest: &mut impl Iterator<Item = u8>) -> Result<u8, LineError> {
    let bad = |text: &[u8]| LineError::Escape(String::from_utf8_lossy(text).into_owned());
    match rest.next() {
        Some(byte @ (b'\\' | b'"' | b'\'')) => Ok(byte),
        Some(b's') => Ok(b' '),
        Some(b'x') => {
            let digits: Vec<u8> = rest.take(2).collect();
            let value = std::str::from_utf8(&digits)
                .ok()
                .filter(|text| {
                    text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
                })
                .and_then(|text| u8::from_str_radix(text, 16).ok());
            match value {
                Some(value) if value != 0 => Ok(value),
                _ => Err(bad(&[b"x", &*digits].concat())),
            }
        }
        Some(other) => Err(bad(&[other])),
        None => Err(bad(b"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Result<Rule, LineError> {
        line(text.as_bytes(), "x:1").map(|rule| rule.expect("not empty"))
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("16M"), Ok(16 << 20));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("1g"), Ok(1 << 30));
        for bad in [
            "",
            "M",
            "x",
            "-1M",
            "99999999999G",
            "1.5M",
            "1",
            "4095",
            "é",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_trace_has_options_of_its_own() {
        let rule = one("t - size=1M hops=3").unwrap();
        assert_eq!(
            (rule.kind, rule.trace),
            (
                Kind::Trace,
                TraceOptions {
                    size: Some(1 << 20),
                    hops: Some(3)
                }
            )
        );
        assert_eq!(one("t -").unwrap().trace, TraceOptions::default());
        assert_eq!(one("t /sys"), Err(LineError::TracePath));
        assert_eq!(one("t- -"), Err(LineError::Type("t-".to_owned())));
        for bad in ["size=1", "size=x", "hops=0", "hops=65", "manual", "hops"] {
            assert_eq!(
                one(&format!("t - {bad}")),
                Err(LineError::TraceOption(bad.to_owned()))
            );
        }
    }

    #[test]
    fn lines_mean_what_they_say() {
        let rule = one("d- /var//lib/redis/ name=redis skip-special\tone-file-system replace privileged manual\r").unwrap();
        assert_eq!(rule.path, Path::new("/var/lib/redis"));
        assert_eq!(rule.path.as_os_str(), "/var/lib/redis");
        assert_eq!(
            (rule.kind, rule.optional, rule.name.as_deref()),
            (Kind::Directory, true, Some("redis"))
        );
        assert!(
            rule.skip_special
                && rule.one_file_system
                && rule.replace
                && rule.privileged
                && rule.manual
        );
        let rule = one(r"f /srv/a\x2f../b");
        assert!(
            matches!(rule, Err(LineError::Path(_))),
            "an escaped slash is a slash: {rule:?}"
        );
        assert_eq!(
            one(r#"L "/srv/a b\"c""#).unwrap().path,
            Path::new("/srv/a b\"c")
        );
        assert_eq!(
            one(r"f /srv/a\sb%%\xff").unwrap().path,
            Path::new(OsStr::from_bytes(b"/srv/a b%\xff"))
        );
        assert_eq!(line(b"  # d /x", "x:1"), Ok(None));
        assert_eq!(line(b" \t", "x:1"), Ok(None));
    }

    #[test]
    fn every_error_has_its_place() {
        for (text, error) in [
            ("x /a", LineError::Type("x".into())),
            ("d", LineError::NoPath),
            ("d a", LineError::Path("a".into())),
            ("d /a/../b", LineError::Path("/a/../b".into())),
            ("d /a/./b", LineError::Path("/a/./b".into())),
            ("d /a%h", LineError::Percent),
            ("d /a repalce", LineError::Option("repalce".into())),
            ("d /a replace replace", LineError::Twice("replace".into())),
            ("d /a name=a name=b", LineError::Twice("name=b".into())),
            ("d /a name=", LineError::Name("".into())),
            ("d /a name=b/c", LineError::Name("b/c".into())),
            ("d \"/a", LineError::Quote),
            ("d \"/a\"b", LineError::Glued),
            ("d /a\\x00", LineError::Escape("x00".into())),
            ("d /a\\x+f", LineError::Escape("x+f".into())),
            ("d /a\\q", LineError::Escape("q".into())),
            ("d /a\u{1}", LineError::Control(1)),
        ] {
            assert_eq!(one(text), Err(error), "{text}");
        }
        assert_eq!(
            line(&[b'd'; MAX_LINE + 1], "x:1"),
            Err(LineError::TooLong(MAX_LINE + 1))
        );
        let errors = file(Path::new("/etc/kho/keep.d/a.conf"), b"d /a\nd b\n\nq /c\n").unwrap_err();
        let places: Vec<_> = errors.iter().map(|error| error.place.as_str()).collect();
        assert_eq!(
            places,
            ["/etc/kho/keep.d/a.conf:2", "/etc/kho/keep.d/a.conf:4"]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(rules) = file(Path::new("x"), &bytes) {
                for rule in rules {
                    prop_assert!(rule.path.is_absolute());
                    prop_assert!(!rule.path.as_os_str().as_bytes().contains(&0));
                    prop_assert!(rule.path.components().skip(1).all(|part| matches!(part, Component::Normal(_))));
                }
            }
        }

        #[test]
        fn an_escaped_path_comes_back(parts in proptest::collection::vec(proptest::collection::vec(1_u8.., 1..9), 1..5)) {
            let mut path = Vec::new();
            for part in &parts {
                path.push(b'/');
                path.extend(part.iter().map(|byte| if *byte == b'/' { b'-' } else { *byte }));
            }
            let dots = path.split(|byte| *byte == b'/').any(|part| part == b"." || part == b"..");
            prop_assume!(!dots);
            let text: String = path
                .iter()
                .map(|byte| if *byte == b'%' { "%%".to_owned() } else { format!("\\x{byte:02x}") })
                .collect();
            let rule = one(&format!("d {text}")).unwrap();
            prop_assert_eq!(rule.path.as_os_str().as_bytes(), path);
        }
    }
}
