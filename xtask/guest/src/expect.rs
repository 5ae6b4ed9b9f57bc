//! Compares the output of a command of the book with the output that the book shows.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Standard input is the output of the command.
pub fn expect(wanted: &Path) -> Result<()> {
    let wanted =
        std::fs::read_to_string(wanted).with_context(|| format!("reading {}", wanted.display()))?;
    let mut found = Vec::new();
    std::io::stdin().read_to_end(&mut found)?;
    let found = String::from_utf8_lossy(&found);
    let wanted: Vec<String> = wanted.lines().map(plain).collect();
    let printed: Vec<String> = found.lines().map(plain).collect();
    if !matches(&wanted, &printed) {
        bail!(
            "the book shows, numbers left out:\n{}\nand what was printed is:\n{}",
            wanted.join("\n"),
            printed.join("\n")
        );
    }
    Ok(())
}

/// Whether the lines match: `...` alone stands for any lines, and at the end of a line for any rest.
fn matches(wanted: &[String], found: &[String]) -> bool {
    match (wanted.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "..." => {
            (0..=found.len()).any(|skip| matches(rest, &found[skip..]))
        }
        (Some((first, rest)), Some((line, lines))) => {
            let same = match first.strip_suffix("...") {
                Some(start) => line.starts_with(start.trim_end()),
                None => first == line,
            };
            same && matches(rest, lines)
        }
        _ => false,
    }
}

/// A line without the parts that differ from run to run: numbers with their units, hashes and the width of white space.
fn plain(line: &str) -> String {
    let mut out = String::new();
    for word in line.split_ascii_whitespace() {
        // A unit belongs to the number before it.
        if out.ends_with('#')
            && UNITS.contains(&word.trim_end_matches(&[',', ';', ')', ':', '.'][..]))
        {
            let tail = word.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric());
            out.push_str(tail);
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        numbers(word, &mut out);
    }
    out
}

const UNITS: [&str; 9] = ["B", "bytes", "KiB", "MiB", "GiB", "s", "ms", "UTC", "pages"];

/// `word` with each number, address and hash as one `#`.
fn numbers(word: &str, out: &mut String) {
    let mut rest = word;
    while let Some(letter) = rest.chars().next() {
        let run = rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let token = &rest[..run];
        let hex = token.strip_prefix("0x").unwrap_or(token);
        let is_hex = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
        if is_hex
            && (token.len() > hex.len()
                || (hex.len() >= 8 && hex.bytes().any(|b| b.is_ascii_digit())))
        {
            out.push('#');
            rest = &rest[run..];
        } else if letter.is_ascii_digit() {
            out.push('#');
            // 1,234 and 6.12.95 and 11:24 each count as one number.
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || ",.:".contains(c));
            let eaten = word.len() - rest.len();
            let mut last = word[..eaten].chars().rev();
            if let Some(end @ (',' | '.' | ':')) = last.next() {
                out.push(end);
            }
        } else if let Some(time) = token.strip_prefix('T')
            && out.ends_with('#')
            && time.bytes().all(|b| b.is_ascii_digit())
        {
            // The T between a date and a time.
            out.push('T');
            rest = &rest[1..];
        } else if run > 0 {
            // A digit inside a name is part of the name: vda1, kho-blob-v1.
            out.push_str(token);
            rest = &rest[run..];
        } else {
            out.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(plain).collect()
    }

    #[test]
    fn numbers_do_not_count_and_words_do() {
        for (a, b) in [
            (
                "reserved  3 of 3 ranges, 1.00 MiB; closed",
                "reserved 4 of 4 ranges, 512 KiB; closed",
            ),
            ("0x1000-0x2000", "0xdeadbeef000-0x1"),
            (
                "from 6.1.0-42-cloud-amd64, at 2026-11-25 11:24:01 UTC",
                "from 6.1.176-1-cloud-amd64, at 2027-01-02 03:04:05 UTC",
            ),
            ("at 2026-11-25T11:30:50Z", "at 2027-01-02T12:59:59Z"),
            ("blake3 deadbeef00112233", "blake3 0123456789abcdef"),
        ] {
            assert_eq!(plain(a), plain(b));
        }
        for (a, b) in [
            ("kho-blob-v1", "kho-blob-v2"),
            ("1 range", "2 ranges"),
            ("loaded nothing", "loaded 6.1"),
        ] {
            assert_ne!(plain(a), plain(b), "{a}");
        }
    }

    #[test]
    fn dots_stand_for_lines_and_for_ends_of_lines() {
        let found = lines("a\nb 17\nc and more\nd");
        for good in [
            "a\nb 1\nc and more\nd",
            "...\nd",
            "a\n...",
            "...\nc ...\nd",
            "...\nb 5\n...\nd\n...",
        ] {
            assert!(matches(&lines(good), &found), "{good}");
        }
        for bad in ["a", "...\nc\nd", "a\n...\ne", "b 17\n..."] {
            assert!(!matches(&lines(bad), &found), "{bad}");
        }
    }
}
