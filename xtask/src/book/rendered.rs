//! Links of the rendered pages: each must lead to a file of the book, and its fragment to a place in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use kho_cases::pages::read;

/// Returns the broken links of the pages in a folder. Links that leave the book are not checked.
pub fn broken(dir: &Path) -> Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    find(dir, &mut pages)?;
    let places: BTreeMap<&Path, BTreeSet<&str>> = pages
        .iter()
        .map(|(path, text)| (path.as_path(), values(text, "id").collect()))
        .collect();
    let mut out = BTreeSet::new();
    for (path, text) in &pages {
        for target in values(text, "href").chain(values(text, "src")) {
            if target.contains("://") || target.starts_with("data:") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let to = match file {
                "" => path.clone(),
                _ => plain(&path.parent().unwrap_or(dir).join(file)),
            };
            let there = match places.get(to.as_path()) {
                Some(places) => fragment.is_empty() || places.contains(fragment),
                None => to.exists(),
            };
            if !there {
                out.insert(format!("{}: {target}", path.display()));
            }
        }
    }
    Ok(out.into_iter().collect())
}

/// The values of an attribute.
fn values<'t>(text: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let before = format!(" {name}=\"");
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(before.as_str())?;
        let (value, tail) = after.split_once('"')?;
        rest = tail;
        Some(value)
    })
}

/// Returns the path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

fn find(dir: &Path, pages: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, pages)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "html")
        {
            let text = read(&path)?;
            pages.insert(path, text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_into_the_void_are_named() {
        let dir = std::env::temp_dir().join(format!("kho-rendered-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        let page = "<p id=\"here\"><a href=\"sub/b.html#there\">1</a> <a href=\"#here\">2</a> <a href=\"https://x.y/z\">3</a> \
                    <a href=\"gone.html\">4</a> <a href=\"sub/b.html#gone\">5</a> <img src=\"sub/no.png\">";
        std::fs::write(dir.join("a.html"), page).unwrap();
        let back =
            "<h1 id=\"there\"></h1><a href=\"../a.html#here\">1</a> <a href=\"a.html\">2</a>";
        std::fs::write(dir.join("sub/b.html"), back).unwrap();
        let found = broken(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let targets: Vec<&str> = found
            .iter()
            .map(|line| line.rsplit_once(' ').unwrap().1)
            .collect();
        assert_eq!(
            targets,
            ["gone.html", "sub/b.html#gone", "sub/no.png", "a.html"]
        );
    }
}
