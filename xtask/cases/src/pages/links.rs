//! Links between the pages: each must lead to a file, and its fragment to a heading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::read;

/// Returns the links of a page: line (from 1) and target. Text in blocks of code or between backticks is not a link.
pub fn targets(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (at, line) in prose(text) {
        let mut rest = without_code(line);
        while let Some(start) = rest.find("](") {
            let after = rest.split_off(start + 2);
            let Some((target, tail)) = after.split_once(')') else {
                break;
            };
            out.push((at, target.to_owned()));
            rest = tail.to_owned();
        }
    }
    out
}

/// Files and folders of the project that a page names between backticks, by their paths from its root.
pub fn paths(text: &str) -> Vec<(usize, String)> {
    const FOLDERS: [&str; 7] = [
        "crates/",
        "docs/",
        "fuzz/",
        "module/",
        "packaging/",
        "schemas/",
        "xtask/",
    ];
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    prose(text)
        .flat_map(|(at, line)| {
            line.split('`')
                .skip(1)
                .step_by(2)
                .map(move |code| (at, code))
        })
        .filter(|(_, code)| code.chars().all(plain))
        .filter(|(_, code)| FOLDERS.iter().any(|folder| code.starts_with(folder)))
        .map(|(at, code)| (at, code.to_owned()))
        .collect()
}

/// Returns a complaint about each wrong link of these pages.
pub fn broken(pages: &[PathBuf]) -> Result<Vec<String>> {
    let mut headings: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    let mut out = Vec::new();
    for page in pages {
        let text = read(page)?;
        for (line, target) in targets(&text) {
            let complain = |why: &str| format!("{}:{line}: {target}: {why}", page.display());
            if target.contains("://") {
                out.push(complain("a page outside of the project, which may go away"));
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
            let file = match file {
                "" => page.clone(),
                _ => page.parent().unwrap_or(Path::new("")).join(file),
            };
            if !file.exists() {
                out.push(complain("there is no such file"));
            } else if !fragment.is_empty() {
                let there = match headings.get(&file) {
                    Some(there) => there,
                    None => headings
                        .entry(file.clone())
                        .or_insert(anchors(&read(&file)?)),
                };
                if !there.contains(fragment) {
                    out.push(complain("there is no such heading"));
                }
            }
        }
    }
    Ok(out)
}

/// Returns the names by which links refer to the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .filter_map(|(_, line)| {
            let title = line.trim_start_matches('#');
            (title.len() < line.len() && title.starts_with(' ')).then(|| anchor(title.trim()))
        })
        .collect()
}

/// Derives the anchor of a heading as mdbook and forges do: lower case, hyphens for spaces, no other punctuation.
fn anchor(title: &str) -> String {
    title
        .chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// Lines outside blocks of code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((at + 1, line))
    })
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_and_code_is_none() {
        let text = "see [a](b.md#c) and [d](e.md)\n`[no](x)` [f](#g)\n```c\n[no](y)\n```\n";
        let found: Vec<String> = targets(text)
            .into_iter()
            .map(|(_, target)| target)
            .collect();
        assert_eq!(found, ["b.md#c", "e.md", "#g"]);
    }

    #[test]
    fn paths_are_those_of_the_project() {
        let text = "`module/driver` and `src/x.c`, `docs/*`, crates/kho\n```\n`xtask/no`\n```\n";
        assert_eq!(paths(text), [(1, "module/driver".to_owned())]);
    }

    #[test]
    fn headings_are_called_as_mdbook_calls_them() {
        let text = "# `/blobs/blob-N`\n## What is checked, where\n```sh\n# no heading\n```\n";
        let names: Vec<String> = anchors(text).into_iter().collect();
        assert_eq!(names, ["blobsblob-n", "what-is-checked-where"]);
    }

    #[test]
    fn broken_links_are_named() {
        let dir = std::env::temp_dir().join(format!("kho-links-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (a, b) = (dir.join("a.md"), dir.join("b.md"));
        std::fs::write(
            &a,
            "[1](b.md#here) [2](b.md#gone)\n[3](c.md) [4](https://x.y)\n",
        )
        .unwrap();
        std::fs::write(&b, "# Here\n").unwrap();
        let found = broken(&[a, b]).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let words: Vec<bool> = ["heading", "file", "outside"]
            .iter()
            .zip(&found)
            .map(|(word, line)| line.contains(word))
            .collect();
        assert_eq!(words, [true; 3], "{found:?}");
    }
}
