//! The form of paths for people and scripts.
//!
//! A path is a sequence of bytes. Every document and every message has paths in this form only. It loses nothing and
//! cannot control a terminal. `docs/src/abi/json.md` describes it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Returns a path as text: printable UTF-8 as it is, a backslash doubled, every other byte as `\x..`.
pub fn path(path: impl AsRef<OsStr>) -> String {
    kho_format::human::path(path.as_ref().as_bytes())
}

/// Returns the name of an entry as the user gave it, if it is printable.
pub fn name(name: &OsStr) -> String {
    let text = path(name);
    // The names that `kho keep` makes of paths contain backslashes.
    let plain = text.replace("\\\\", "\\");
    if plain.as_bytes() == name.as_bytes() {
        plain
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses the form, as the book describes it.
    fn bytes(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            match (first, tail) {
                (b'\\', [b'\\', after @ ..]) => {
                    bytes.push(b'\\');
                    rest = after;
                }
                (b'\\', [b'x', high, low, after @ ..]) => {
                    let digits = [*high, *low];
                    let digits = std::str::from_utf8(&digits).unwrap();
                    bytes.push(u8::from_str_radix(digits, 16).unwrap());
                    rest = after;
                }
                (b'\\', _) => panic!("a lone backslash in {text}"),
                (byte, _) => bytes.push(*byte),
            }
        }
        bytes
    }

    #[test]
    fn every_path_can_be_got_back_and_none_drives_a_terminal() {
        for (raw, text) in [
            (&b"/srv/cache"[..], "/srv/cache"),
            (b"/srv/\xff\xfe", "/srv/\\xff\\xfe"),
            (b"/a\\xff", "/a\\\\xff"),
            ("/\u{e4}\u{6f22}".as_bytes(), "/\u{e4}\u{6f22}"),
            (b"/\x1b[2J\n", "/\\x1b[2J\\x0a"),
            // A character that reverses the direction of the text after it.
            ("/\u{202e}x".as_bytes(), "/\\xe2\\x80\\xaex"),
        ] {
            assert_eq!(path(OsStr::from_bytes(raw)), text);
        }
        for first in 0..=255_u8 {
            for second in [0, b'\\', b'x', b'0', 0x80, 0xbf, 0xc3, 0xff, first] {
                let raw = [b'/', first, second, b'4', b'1'];
                let text = path(OsStr::from_bytes(&raw));
                assert_eq!(bytes(&text), raw, "{text}");
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
}
