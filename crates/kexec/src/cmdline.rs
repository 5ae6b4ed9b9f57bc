//! The next kernel's command line.
//!
//! A line is bytes, not text. This module splits it as the kernel does (`next_arg` in `lib/cmdline.c`): white space
//! outside double quotes separates arguments, and the kernel passes everything after an argument `--` to init.

use thiserror::Error;

use crate::bytes::len64;

/// Path of the arrival program in the next kernel's initial root file system.
pub const ARRIVE_PATH: &str = "/.kho/arrive";

/// Argument that switches mainline KHO off in the next kernel. The kernel looks at the first two bytes of the value
/// only (`kstrtobool`, `lib/kstrtox.c`, 6.16 to 7.3). The rest marks the argument as kho's, so that kho does not copy
/// it to the line of the kernel after the next.
pub const NATIVE_OFF: &str = "kho=off:by-kho";

/// Command line for the next kernel, and the user's own init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The line, without a terminating NUL.
    pub line: Vec<u8>,
    /// Value of the user's own `rdinit=`, which the arrival program must start; `None` for the kernel's default,
    /// `/init`.
    pub rdinit: Option<Vec<u8>>,
}

/// Reason why kho refuses a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CmdlineError {
    /// The line is longer than the image allows.
    #[error("the command line is {len} bytes long{}, this kernel takes at most {max}; shorten it by {}",
        if *ours == 0 { String::new() } else { format!(" with the {ours} that kho adds (rdinit={ARRIVE_PATH} and the like)") },
        len.saturating_sub(*max))]
    CommandLineTooLong {
        /// Bytes of the line.
        len: u64,
        /// Number of those bytes that kho adds.
        ours: u64,
        /// `cmdline_size` of the image.
        max: u64,
    },
    /// The line has a NUL, which would end it early, or a line break, which a command line cannot hold.
    #[error("the command line has a {name} at byte {at}; remove it")]
    BadByte {
        /// Name of the byte.
        name: &'static str,
        /// Offset of the byte in the given line.
        at: usize,
    },
    /// A quote is not closed, and would swallow the rest of the line.
    #[error("the command line has a double quote that is not closed, in {argument:?}")]
    OpenQuote {
        /// The argument, with invalid UTF-8 replaced.
        argument: String,
    },
}

/// Returns whether the kernel counts a byte as white space: `isspace` in `include/linux/ctype.h` over the table in
/// `lib/ctype.c`, which is Latin-1 and counts the no-break space as white space.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

/// One argument of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument<'a> {
    /// The argument as it stands in the line, with its quotes.
    pub raw: &'a [u8],
    /// Name, without quotes.
    pub name: &'a [u8],
    /// Text behind the first `=`, without quotes; `None` if there is no `=`.
    pub value: Option<&'a [u8]>,
    /// Whether a quote was left open.
    open: bool,
}

/// Returns the arguments of a line, in order.
pub fn arguments(line: &[u8]) -> Arguments<'_> {
    Arguments { rest: line }
}

/// Iterator over a line's arguments.
#[derive(Clone, Debug)]
pub struct Arguments<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Arguments<'a> {
    type Item = Argument<'a>;

    fn next(&mut self) -> Option<Argument<'a>> {
        let start = self.rest.iter().position(|b| !is_space(*b))?;
        let rest = self.rest.get(start..)?;
        let mut in_quote = false;
        let end = rest
            .iter()
            .position(|b| {
                if *b == b'"' {
                    in_quote = !in_quote;
                }
                is_space(*b) && !in_quote
            })
            .unwrap_or(rest.len());
        let open = in_quote;
        let (raw, rest) = rest.split_at_checked(end)?;
        self.rest = rest;

        // The kernel removes quotes around the whole argument and around the value.
        let quoted = raw.strip_prefix(b"\"");
        let mut text = quoted.unwrap_or(raw);
        // An "=" at the very beginning is part of the name: in next_arg an `equals` of 0 means "no equals sign".
        let equals = text.iter().skip(1).position(|b| *b == b'=');
        let mut ends_quoted = quoted.is_some();
        let Some(equals) = equals.map(|at| at + 1) else {
            if ends_quoted {
                text = text.strip_suffix(b"\"").unwrap_or(text);
            }
            return Some(Argument {
                raw,
                name: text,
                value: None,
                open,
            });
        };
        let (name, value) = text.split_at_checked(equals)?;
        let mut value = value.get(1..)?;
        if let Some(inner) = value.strip_prefix(b"\"") {
            value = inner;
            ends_quoted = true;
        }
        if ends_quoted {
            value = value.strip_suffix(b"\"").unwrap_or(value);
        }
        Some(Argument {
            raw,
            name,
            value: Some(value),
            open,
        })
    }
}

/// Returns the value of the last `name=value` that the kernel reads (that is, before `--`).
pub fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    arguments(line)
        .take_while(|a| !is_separator(a))
        .filter(|a| a.name == name.as_bytes())
        .filter_map(|a| a.value)
        .last()
}

fn is_separator(argument: &Argument<'_>) -> bool {
    argument.name == b"--" && argument.value.is_none()
}

/// Returns the running kernel's line (`/proc/cmdline`) without the arguments that belong to the load of that kernel:
/// the boot loader's `BOOT_IMAGE=` (which kexec(8) removes with `--reuse-cmdline` as well), kho's `rdinit=`, and
/// [`NATIVE_OFF`].
pub fn reuse(running: &[u8]) -> Vec<u8> {
    let running = running.strip_suffix(b"\n").unwrap_or(running);
    let mut before = true;
    let mut kept: Vec<&[u8]> = Vec::new();
    for argument in arguments(running) {
        before = before && !is_separator(&argument);
        let is_loaders = argument.name == b"BOOT_IMAGE" && argument.value.is_some();
        if !before || !(is_loaders || is_ours(&argument)) {
            kept.push(argument.raw);
        }
    }
    kept.join(&b' ')
}

/// Returns whether this is an argument that kho adds for one kernel only.
fn is_ours(argument: &Argument<'_>) -> bool {
    is_arrival(argument) || argument.raw == NATIVE_OFF.as_bytes()
}

/// Returns whether this is the `rdinit=` that starts the arrival program.
fn is_arrival(argument: &Argument<'_>) -> bool {
    argument.name == b"rdinit" && argument.value == Some(ARRIVE_PATH.as_bytes())
}

/// Returns whether a kernel with this line starts the arrival program. Such a line belongs to a kernel that kho loaded,
/// or is a copy of such a line.
pub fn starts_arrival(line: &[u8]) -> bool {
    value(line.strip_suffix(b"\n").unwrap_or(line), "rdinit") == Some(ARRIVE_PATH.as_bytes())
}

/// Builds the line: `base`, then `append`. The line has an `rdinit=` that names the arrival program if and only if
/// `arrive` is true.
///
/// The arguments of `append` go before a `--` of `base`, so that they reach the kernel. The kernel takes the last
/// `rdinit=`, and forgets the arguments for init that it saw before an `rdinit=` (`rdinit_setup` in `init/main.c`). So
/// kho's `rdinit=` stands right behind the user's last one, or in the first place if the user gave none. The user's
/// `rdinit=` stays on the line, because an administrator may copy the line: the arrival program starts the user's init,
/// also in an initrd that was not loaded with this line.
///
/// # Errors
///
/// See [`CmdlineError`]. `max` is [`ImageHeader::cmdline_max`](crate::image::ImageHeader::cmdline_max).
pub fn build(
    base: &[u8],
    append: &[u8],
    arrive: bool,
    max: u64,
) -> Result<CommandLine, CmdlineError> {
    let (mut kernel, mut init) = (Vec::new(), Vec::new());
    for part in [base, append] {
        let part = part.strip_suffix(b"\n").unwrap_or(part);
        check_bytes(part)?;
        let mut before = true;
        for argument in arguments(part) {
            if argument.open {
                return Err(CmdlineError::OpenQuote {
                    argument: String::from_utf8_lossy(argument.raw).into_owned(),
                });
            }
            if before && is_separator(&argument) {
                before = false;
            } else if before {
                kernel.push(argument);
            } else {
                init.push(argument);
            }
        }
    }
    // A path without blanks and quotes needs no quotes.
    let ours = [b"rdinit=", ARRIVE_PATH.as_bytes()].concat();
    kernel.retain(|argument| !is_ours(argument));
    let is_rdinit = |a: &Argument<'_>| a.name == b"rdinit" && a.value.is_some();
    let last = kernel.iter().rposition(is_rdinit);
    let user = last.and_then(|at| kernel.get(at)).and_then(|a| a.value);
    let mut words: Vec<&[u8]> = kernel.iter().map(|argument| argument.raw).collect();
    if arrive {
        words.insert(last.map_or(0, |at| at.saturating_add(1)), &ours);
    }
    if !init.is_empty() {
        words.push(b"--");
        words.extend(init.iter().map(|a| a.raw));
    }
    let line = words.join(&b' ');
    let len = len64(line.len());
    if len > max {
        let ours = match arrive {
            true => len64(ours.len() + 1),
            false => 0,
        };
        return Err(CmdlineError::CommandLineTooLong { len, ours, max });
    }
    Ok(CommandLine {
        line,
        rdinit: user
            .filter(|path| arrive && !path.is_empty())
            .map(<[u8]>::to_vec),
    })
}

impl CommandLine {
    /// Adds an argument of kho's to the line, right before the `rdinit=` of the arrival program. Returns the line
    /// unchanged if it does not start that program.
    ///
    /// # Errors
    ///
    /// [`CmdlineError::CommandLineTooLong`]. `max` is as for [`build`].
    pub fn with(self, argument: &[u8], max: u64) -> Result<Self, CmdlineError> {
        let mut words: Vec<&[u8]> = arguments(&self.line).map(|a| a.raw).collect();
        let Some(at) = arguments(&self.line).position(|a| is_arrival(&a)) else {
            return Ok(self);
        };
        words.insert(at, argument);
        let line = words.join(&b' ');
        let len = len64(line.len());
        if len > max {
            let ours = len64("rdinit=  ".len() + ARRIVE_PATH.len() + argument.len());
            return Err(CmdlineError::CommandLineTooLong { len, ours, max });
        }
        Ok(Self { line, ..self })
    }
}

fn check_bytes(line: &[u8]) -> Result<(), CmdlineError> {
    let bad = |byte: &u8| match *byte {
        0 => Some("NUL"),
        b'\n' | b'\r' => Some("line break"),
        _ => None,
    };
    match line
        .iter()
        .enumerate()
        .find_map(|(at, b)| Some((at, bad(b)?)))
    {
        Some((at, name)) => Err(CmdlineError::BadByte { name, at }),
        None => Ok(()),
    }
}
