//! Debian's order of versions.

use std::cmp::Ordering;

use crate::host::apt::Package;

/// The package with the highest version.
pub fn newest(packages: Vec<Package>) -> Option<Package> {
    packages
        .into_iter()
        .max_by(|one, other| compare(&one.version, &other.version))
}

/// deb-version(7): epoch, upstream version, revision.
fn compare(one: &str, other: &str) -> Ordering {
    let (one_epoch, one) = one.split_once(':').unwrap_or(("0", one));
    let (other_epoch, other) = other.split_once(':').unwrap_or(("0", other));
    let (one, one_revision) = one.rsplit_once('-').unwrap_or((one, ""));
    let (other, other_revision) = other.rsplit_once('-').unwrap_or((other, ""));
    part(one_epoch, other_epoch)
        .then_with(|| part(one, other))
        .then_with(|| part(one_revision, other_revision))
}

/// Alternates between non-digits, by [`weight`], and digits, by number.
fn part(mut one: &str, mut other: &str) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let (one_text, one_rest) = split(one, |letter| !letter.is_ascii_digit());
        let (other_text, other_rest) = split(other, |letter| !letter.is_ascii_digit());
        let by_text = text(one_text, other_text);
        let (one_number, one_rest) = split(one_rest, |letter| letter.is_ascii_digit());
        let (other_number, other_rest) = split(other_rest, |letter| letter.is_ascii_digit());
        let order = by_text.then_with(|| number(one_number, other_number));
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = (one_rest, other_rest);
    }
    Ordering::Equal
}

fn split(text: &str, is_first: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|letter| !is_first(letter)).unwrap_or(text.len()))
}

fn number(one: &str, other: &str) -> Ordering {
    let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

fn text(one: &str, other: &str) -> Ordering {
    let len = one.len().max(other.len());
    let weights = |text: &str| {
        text.chars()
            .map(weight)
            .chain(std::iter::repeat(1))
            .take(len)
            .collect::<Vec<_>>()
    };
    weights(one).cmp(&weights(other))
}

/// Rank of a letter: tilde, then the end (1), then letters, then all other characters.
fn weight(letter: char) -> u32 {
    match letter {
        '~' => 0,
        _ if letter.is_ascii_alphabetic() => u32::from(letter),
        _ => u32::from(letter) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_deb_version() {
        let rising = [
            "6.1.1~rc1-1",
            "6.1.1-1~bpo12+1",
            "6.1.1-1",
            "6.1.1-1+b1",
            "6.1.1+deb12-1",
            "6.1.9-1",
            "6.1.10-1",
            "6.12.95-1",
            "1:1-1",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("1.0-1", "0:1.00-01"), Ordering::Equal);
    }
}
