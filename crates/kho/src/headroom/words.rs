//! Words of a kernel command line, and numbers in them, as the kernel reads them (`lib/cmdline.c`, 6.12).

/// The parameters of a command line as `(name, value)`, up to a lone `--`, which ends the kernel's part.
///
/// Double quotes keep blanks together, as in `next_arg` of `lib/cmdline.c`.
pub fn params(cmdline: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    let mut rest = cmdline;
    core::iter::from_fn(move || {
        let skip = rest
            .iter()
            .position(|b| !is_space(*b))
            .unwrap_or(rest.len());
        rest = rest.get(skip..).unwrap_or(&[]);
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest
            .iter()
            .position(|b| {
                quoted ^= *b == b'"';
                is_space(*b) && !quoted
            })
            .unwrap_or(rest.len());
        let (word, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        rest = tail;
        Some(word)
    })
    .take_while(|word| *word != b"--")
    .map(|word| {
        let word = match word {
            [b'"', inner @ .., b'"'] | [b'"', inner @ ..] => inner,
            word => word,
        };
        let mut halves = word.splitn(2, |b| *b == b'=');
        let name = halves.next().unwrap_or(&[]);
        let value = halves.next().map(|v| match v {
            [b'"', inner @ .., b'"'] | [b'"', inner @ ..] => inner,
            v => v,
        });
        (name, value)
    })
}

/// The kernel's `isspace` for the first 128 characters, and NUL, which ends its string.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0)
}

/// Whether two parameter names are the same to the kernel, for which `-` equals `_` (`parameq`).
pub fn same_name(a: &[u8], b: &[u8]) -> bool {
    let fold = |byte: &u8| if *byte == b'-' { b'_' } else { *byte };
    a.iter().map(fold).eq(b.iter().map(fold))
}

/// The number at the start of `text`, as `simple_strtoull` with base 0 reads it, and what follows.
pub(super) fn number(text: &[u8]) -> (u64, &[u8]) {
    let (radix, digits) = match text {
        [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => {
            (16u32, text.get(2..).unwrap_or(&[]))
        }
        [b'0', ..] => (8, text),
        _ => (10, text),
    };
    let mut value = 0u64;
    let mut rest = digits;
    while let [byte, tail @ ..] = rest
        && let Some(digit) = char::from(*byte).to_digit(radix)
    {
        value = value
            .saturating_mul(u64::from(radix))
            .saturating_add(u64::from(digit));
        rest = tail;
    }
    (value, rest)
}

/// The kernel's `memparse`: a number and at most one of `K M G T P E`; saturates where the kernel would wrap.
pub(super) fn memparse(text: &[u8]) -> (u64, &[u8]) {
    let (value, rest) = number(text);
    let Some((suffix, tail)) = rest.split_first() else {
        return (value, rest);
    };
    let shift = match suffix.to_ascii_uppercase() {
        b'K' => 10u32,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        b'P' => 50,
        b'E' => 60,
        _ => return (value, rest),
    };
    let factor = 1u64.checked_shl(shift).unwrap_or(u64::MAX);
    (value.saturating_mul(factor), tail)
}

/// `Some` of [`memparse`] if there is a number at all.
pub(super) fn memparse_some(text: &[u8]) -> Option<(u64, &[u8])> {
    text.first()
        .is_some_and(u8::is_ascii_digit)
        .then(|| memparse(text))
}
