//! The kernel's printf (`vsnprintf`, `lib/vsprintf.c`), as far as trace events use it.

use crate::bytes::{array, until_nul};
use crate::names::Names;
use crate::value::{Value, hex};
use std::fmt::Write;

/// Largest accepted width of a field; the kernel's own limit is 32767.
const MAX_WIDTH: usize = 4096;

/// One `%` directive.
#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    hash: bool,
    width: usize,
    precision: Option<usize>,
    /// Bytes of an integer argument.
    size: usize,
}

/// Fills in the template; `None` if an argument is missing or a directive is not known.
pub fn format(template: &[u8], values: &[Value<'_>], names: &Names) -> Option<String> {
    let mut out = Vec::new();
    let mut values = values.iter();
    let mut rest = template;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        if let Some(after) = rest.strip_prefix(b"%") {
            out.push(b'%');
            rest = after;
            continue;
        }
        let (spec, after) = spec(rest, &mut values)?;
        let (conversion, after) = after.split_first()?;
        rest = after;
        let mut kind: &[u8] = &[];
        if *conversion == b'p' {
            // The kernel skips every letter and digit behind `%p`, known or not.
            let len = rest
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric())
                .count();
            (kind, rest) = rest.split_at_checked(len)?;
        }
        let value = values.next()?;
        let shown: Vec<u8> = match (conversion, value) {
            (b'd' | b'i' | b'u' | b'x' | b'X' | b'o' | b'c' | b's' | b'p', Value::Source(text)) => {
                text.clone().into_bytes()
            }
            (b'd' | b'i', _) => number(&spec, value.bits(), 10, true, false),
            (b'u', _) => number(&spec, value.bits(), 10, false, false),
            (b'x', _) => number(&spec, value.bits(), 16, false, false),
            (b'X', _) => number(&spec, value.bits(), 16, false, true),
            (b'o', _) => number(&spec, value.bits(), 8, false, false),
            (b'c', _) => vec![value.bits().to_le_bytes()[0]],
            (b's', _) => string(&spec, value, names),
            (b'p', _) => pointer(&spec, kind, value, names),
            _ => return None,
        };
        // For these letters the width is the number of bytes or bits.
        let width = match kind {
            [b'h' | b'b', ..] => 0,
            _ => spec.width,
        };
        pad(&mut out, &Spec { width, ..spec }, &shown);
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// Flags, width, precision and length.
fn spec<'t, 'v>(
    mut rest: &'t [u8],
    values: &mut impl Iterator<Item = &'v Value<'v>>,
) -> Option<(Spec, &'t [u8])> {
    let mut spec = Spec {
        size: 4,
        ..Spec::default()
    };
    while let Some((flag, after)) = rest.split_first() {
        match flag {
            b'-' => spec.left = true,
            b'+' => spec.plus = true,
            b' ' => spec.space = true,
            b'0' => spec.zero = true,
            b'#' => spec.hash = true,
            _ => break,
        }
        rest = after;
    }
    let mut measure = |rest: &mut &'t [u8]| -> Option<usize> {
        if let Some(after) = rest.strip_prefix(b"*") {
            *rest = after;
            return Some(
                usize::try_from(values.next()?.bits())
                    .unwrap_or(0)
                    .min(MAX_WIDTH),
            );
        }
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, after) = rest.split_at_checked(digits)?;
        *rest = after;
        Some(number.iter().fold(0usize, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(usize::from(digit - b'0'))
                .min(MAX_WIDTH)
        }))
    };
    spec.width = measure(&mut rest)?;
    if let Some(after) = rest.strip_prefix(b".") {
        rest = after;
        spec.precision = Some(measure(&mut rest)?);
    }
    for (prefix, size) in [
        (&b"hh"[..], 1),
        (b"h", 2),
        (b"ll", 8),
        (b"l", 8),
        (b"L", 8),
        (b"z", 8),
        (b"j", 8),
        (b"t", 8),
        (b"q", 8),
    ] {
        if let Some(after) = rest.strip_prefix(prefix) {
            spec.size = size;
            rest = after;
            break;
        }
    }
    Some((spec, rest))
}

fn number(spec: &Spec, bits: u64, base: u32, signed: bool, upper: bool) -> Vec<u8> {
    let mask = if spec.size >= 8 {
        u64::MAX
    } else {
        (1 << (spec.size * 8)) - 1
    };
    let bits = bits & mask;
    let (negative, value) = if signed {
        let value = crate::format::extend(bits, spec.size).cast_signed();
        (value < 0, value.unsigned_abs())
    } else {
        (false, bits)
    };
    let mut digits = match base {
        8 => format!("{value:o}"),
        16 if upper => format!("{value:X}"),
        16 => format!("{value:x}"),
        _ => value.to_string(),
    };
    if let Some(precision) = spec.precision {
        digits = format!("{digits:0>precision$}");
    }
    let sign = match (negative, spec.plus, spec.space, spec.hash, base) {
        (true, ..) => "-",
        (_, true, ..) if signed => "+",
        (_, _, true, ..) if signed => " ",
        (_, _, _, true, 16) => {
            if upper {
                "0X"
            } else {
                "0x"
            }
        }
        (_, _, _, true, 8) => "0",
        _ => "",
    };
    if spec.zero && !spec.left && spec.precision.is_none() {
        let width = spec.width.saturating_sub(sign.len());
        digits = format!("{digits:0>width$}");
    }
    format!("{sign}{digits}").into_bytes()
}

fn string(spec: &Spec, value: &Value<'_>, names: &Names) -> Vec<u8> {
    let text: Vec<u8> = match value {
        Value::Bytes { bytes, .. } => until_nul(bytes).to_vec(),
        // A pointer to a string that the kernel exports with its formats.
        Value::Int { bits: 0, .. } => b"(null)".to_vec(),
        Value::Int { bits, .. } => names.printk(*bits).map_or_else(
            || format!("{bits:#x}").into_bytes(),
            |s| s.as_bytes().to_vec(),
        ),
        Value::Source(text) => text.clone().into_bytes(),
    };
    match spec.precision.and_then(|precision| text.get(..precision)) {
        Some(cut) => cut.to_vec(),
        None => text,
    }
}

/// The text of a pointer; `kind` is the letters and digits behind `%p`.
fn pointer(spec: &Spec, kind: &[u8], value: &Value<'_>, names: &Names) -> Vec<u8> {
    let bytes: &[u8] = match value {
        Value::Bytes { bytes, .. } => bytes,
        Value::Int { .. } | Value::Source(_) => &[],
    };
    let bits = value.bits();
    match kind {
        [b'S' | b'F' | b'B', ..] => names.symbol_offset(bits).into_bytes(),
        [b's' | b'f', ..] => names.symbol(bits).into_bytes(),
        [b'M', rest @ ..] => {
            let separator = if matches!(rest, [b'F', ..]) { "-" } else { ":" };
            hex(bytes.get(..6).unwrap_or(bytes), separator).into_bytes()
        }
        [b'm', ..] => hex(bytes.get(..6).unwrap_or(bytes), "").into_bytes(),
        [style @ (b'I' | b'i'), b'4', order @ ..] => {
            let mut quad = array::<4>(bytes, 0).unwrap_or_default();
            if matches!(order, [b'h' | b'l', ..]) {
                quad.reverse();
            }
            let [a, b, c, d] = quad;
            match style {
                b'i' => format!("{a:03}.{b:03}.{c:03}.{d:03}").into_bytes(),
                _ => format!("{a}.{b}.{c}.{d}").into_bytes(),
            }
        }
        [style @ (b'I' | b'i'), b'6', rest @ ..] => {
            let address = std::net::Ipv6Addr::from(array::<16>(bytes, 0).unwrap_or_default());
            if let (b'I', [b'c', ..]) = (style, rest) {
                return address.to_string().into_bytes();
            }
            let groups: Vec<String> = address
                .segments()
                .iter()
                .map(|s| format!("{s:04x}"))
                .collect();
            let separator = if *style == b'I' { ":" } else { "" };
            groups.join(separator).into_bytes()
        }
        [b'I', b'S', ..] => socket(bytes).into_bytes(),
        [b'U', rest @ ..] => uuid(bytes, rest).into_bytes(),
        [b'b', rest @ ..] => {
            let bits = bytes.get(..spec.width.div_ceil(8)).unwrap_or(bytes);
            let set = |bit: &usize| {
                let byte = bits.get(bit / 8).copied().unwrap_or(0);
                byte >> (bit % 8) & 1 == 1
            };
            let set: Vec<usize> = (0..spec.width.min(bits.len() * 8)).filter(set).collect();
            match rest {
                [b'l', ..] => ranges(&set).into_bytes(),
                _ => words(&set, spec.width).into_bytes(),
            }
        }
        [b'4', b'c', b'c', ..] => four_letters(bytes).into_bytes(),
        [b'h', rest @ ..] => {
            let separator = match rest {
                [b'C', ..] => ":",
                [b'D', ..] => "-",
                [b'N', ..] => "",
                _ => " ",
            };
            let len = spec.width.clamp(1, 64);
            hex(bytes.get(..len).unwrap_or(bytes), separator).into_bytes()
        }
        // The kernel hashes other pointers; the reader of a trace wants to compare them, and the traced kernel is gone.
        _ => format!("{bits:016x}").into_bytes(),
    }
}

/// Lists the numbers of bits; a range is shown by its two ends (`bitmap_list_string`).
fn ranges(set: &[usize]) -> String {
    let mut out = String::new();
    let mut rest = set;
    while let Some(first) = rest.first() {
        let run = rest
            .iter()
            .enumerate()
            .take_while(|(at, bit)| **bit == first + at)
            .count();
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{first}");
        if run > 1 {
            let _ = write!(out, "-{}", first + run - 1);
        }
        rest = rest.get(run..).unwrap_or_default();
    }
    out
}

/// A bitmap of `width` bits as words of 32, the highest first (`bitmap_string`).
fn words(set: &[usize], width: usize) -> String {
    let mut words = vec![0u32; width.div_ceil(32)];
    for bit in set {
        if let Some(word) = words.get_mut(bit / 32) {
            *word |= 1 << (bit % 32);
        }
    }
    let last = words.len();
    let mut out = String::new();
    for (index, word) in words.iter().enumerate().rev() {
        // The highest word has as many digits as its bits need.
        let bits = if index + 1 == last && !width.is_multiple_of(32) {
            width % 32
        } else {
            32
        };
        let digits = bits.div_ceil(4);
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{word:0digits$x}");
    }
    out
}

/// A UUID; `order` is `l` or `L` for a little-endian one, capital letters mean capital digits (`uuid_string`).
fn uuid(bytes: &[u8], order: &[u8]) -> String {
    let mut uuid = array::<16>(bytes, 0).unwrap_or_default();
    if matches!(order, [b'l' | b'L', ..]) {
        for part in [0..4, 4..6, 6..8] {
            if let Some(part) = uuid.get_mut(part) {
                part.reverse();
            }
        }
    }
    let mut out = String::new();
    for (index, letter) in hex(&uuid, "").chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(letter);
    }
    match order {
        [b'B' | b'L', ..] => out.to_uppercase(),
        _ => out,
    }
}

/// A pixel format: four letters, byte order and number (`fourcc_string`).
fn four_letters(bytes: &[u8]) -> String {
    let code = u32::from_le_bytes(array::<4>(bytes, 0).unwrap_or_default());
    let letters: String = (code & !(1 << 31))
        .to_le_bytes()
        .iter()
        .map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        })
        .collect();
    let order = match code >> 31 {
        0 => "little",
        _ => "big",
    };
    format!("{letters} {order}-endian ({code:#010x})")
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn socket(bytes: &[u8]) -> String {
    let port = array::<2>(bytes, 2).map_or(0, u16::from_be_bytes);
    match crate::bytes::uint_at(bytes, 0, 2) {
        Some(2) => {
            let quad = array::<4>(bytes, 4).unwrap_or_default();
            format!("{}:{port}", std::net::Ipv4Addr::from(quad))
        }
        Some(10) => {
            let address = array::<16>(bytes, 8).unwrap_or_default();
            format!("[{}]:{port}", std::net::Ipv6Addr::from(address))
        }
        // The kernel prints this for every other family (`ip_addr_string`).
        _ => "(einval)".to_owned(),
    }
}

fn pad(out: &mut Vec<u8>, spec: &Spec, shown: &[u8]) {
    let missing = spec.width.saturating_sub(shown.len());
    if !spec.left {
        out.resize(out.len() + missing, b' ');
    }
    out.extend_from_slice(shown);
    if spec.left {
        out.resize(out.len() + missing, b' ');
    }
}

/// The line of a `bprint` event: its arguments lie in the record as 32-bit words, in the order of the template
/// (`vbin_printf`, `lib/vsprintf.c`). `None` if they are not understood.
pub fn binary(template: &str, arguments: &[u8], names: &Names) -> Option<String> {
    // The template, with `%s` for every pointer whose text the kernel stored.
    let mut resolved = Vec::new();
    let mut values = Vec::new();
    let mut at = 0usize;
    let mut rest = template.as_bytes();
    while let Some(position) = rest.iter().position(|b| *b == b'%') {
        let (before, directive) = rest.split_at_checked(position)?;
        resolved.extend_from_slice(before);
        rest = directive.get(1..)?;
        if let Some(after) = rest.strip_prefix(b"%") {
            resolved.extend_from_slice(b"%%");
            rest = after;
            continue;
        }
        let stars = rest
            .iter()
            .take_while(|b| !b.is_ascii_alphabetic())
            .filter(|b| **b == b'*')
            .count();
        let first = values.len();
        for _ in 0..stars {
            values.push(take(arguments, &mut at, 4)?);
        }
        let none: [Value<'_>; 2] = [
            Value::Int {
                bits: 0,
                signed: true,
            },
            Value::Int {
                bits: 0,
                signed: true,
            },
        ];
        let (spec, after) = spec(rest, &mut none.iter())?;
        let (conversion, after) = after.split_first()?;
        rest = after;
        match conversion {
            b's' => values.push(take_text(arguments, &mut at)?),
            b'p' if is_stored_as_text(rest) => {
                // The kernel applied the width when it stored the text.
                values.truncate(first);
                values.push(take_text(arguments, &mut at)?);
                resolved.extend_from_slice(b"%s");
                let letters = rest
                    .iter()
                    .take_while(|b| b.is_ascii_alphanumeric())
                    .count();
                rest = rest.get(letters..)?;
                continue;
            }
            b'p' => values.push(take(arguments, &mut at, 8)?),
            b'd' | b'i' | b'u' | b'x' | b'X' | b'o' | b'c' => {
                let size = if *conversion == b'c' { 1 } else { spec.size };
                values.push(take(arguments, &mut at, size)?);
            }
            _ => return None,
        }
        let len = directive.len().checked_sub(rest.len())?;
        resolved.extend_from_slice(directive.get(..len)?);
    }
    resolved.extend_from_slice(rest);
    format(&resolved, &values, names)
}

/// Whether the kernel stores the text of a pointer instead of its value; `kind` follows `%p`.
fn is_stored_as_text(kind: &[u8]) -> bool {
    match kind.first() {
        None | Some(b'S' | b's' | b'x' | b'K' | b'e') => false,
        Some(letter) => letter.is_ascii_alphanumeric(),
    }
}

/// The text at the next place, which is not aligned, and the NUL behind it.
fn take_text(bytes: &[u8], at: &mut usize) -> Option<Value<'static>> {
    let text = until_nul(bytes.get(*at..)?);
    *at = at.checked_add(text.len())?.checked_add(1)?;
    Some(Value::Bytes {
        bytes: text.to_vec().into(),
        size: 1,
        signed: false,
    })
}

/// An integer at the next place that is aligned for it, 8-byte ones to 4.
fn take(bytes: &[u8], at: &mut usize, size: usize) -> Option<Value<'static>> {
    *at = at.checked_next_multiple_of(size.min(4))?;
    let bits = crate::bytes::uint_at(bytes, *at, size)?;
    *at = at.checked_add(size)?;
    Some(Value::Int {
        bits,
        signed: false,
    })
}

/// Appends `text` with control characters shown as escapes, so that a trace cannot drive a terminal.
pub fn push_safe(out: &mut String, text: &str) {
    for letter in text.chars() {
        if letter.is_control() && letter != '\n' && letter != '\t' {
            let _ = write!(out, "{}", letter.escape_default());
        } else {
            out.push(letter);
        }
    }
}
