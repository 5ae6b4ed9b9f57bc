//! `cargo xtask book`: the book as web pages. The guest tests `book-*` run its commands.

mod fill;
mod rendered;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use kho_cases::pages::{blocks, links, read};
use kho_lab::cache::Cache;
use kho_lab::workspace::{cargo, root, target_dir};

/// The version of mdbook that renders the book.
const MDBOOK: &str = "0.5.4";

/// Render the book: `target/book/html/index.html`.
///
/// mdbook is built from crates.io once, which takes some minutes, and kept in the user's cache directory.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder for the pages instead.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    println!("{}", render(arguments.out.as_deref())?.display());
    Ok(ExitCode::SUCCESS)
}

/// Renders the book into a folder and checks the links of the pages. Returns the path of the first page.
pub fn render(out: Option<&Path>) -> Result<PathBuf> {
    let work = target_dir()?.join("book");
    let out = out.map_or_else(|| work.join("html"), Path::to_owned);
    let out = std::path::absolute(&out).with_context(|| format!("finding {}", out.display()))?;
    let broken = links::broken(&blocks::pages()?)?;
    ensure!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    let mdbook = mdbook(&Cache::open()?)?;
    let source = work.join("source");
    if source.exists() {
        std::fs::remove_dir_all(&source)
            .with_context(|| format!("removing {}", source.display()))?;
    }
    copy(&root().join("docs"), &source)?;
    let output = Command::new(&mdbook)
        .arg("build")
        .arg("--dest-dir")
        .arg(&out)
        .arg(&source)
        .output()
        .with_context(|| format!("running {}", mdbook.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // After a warning mdbook goes on and writes incomplete pages.
    ensure!(
        output.status.success() && !said.contains("WARN"),
        "mdbook: {}\n{said}",
        output.status
    );
    let broken = rendered::broken(&out)?;
    ensure!(
        broken.is_empty(),
        "links of the rendered book lead nowhere:\n{}",
        broken.join("\n")
    );
    Ok(out.join("index.html"))
}

/// Returns the path of mdbook, which is built on first use.
fn mdbook(cache: &Cache) -> Result<PathBuf> {
    let _lock = cache.lock("mdbook")?;
    let made = cache.make_dir(&format!("mdbook-{MDBOOK}"), |dir| {
        eprintln!("xtask: building mdbook {MDBOOK} from crates.io, to render the book");
        let status = cargo()
            .args([
                "install",
                "mdbook",
                "--locked",
                "--quiet",
                "--no-default-features",
                "--features=search",
            ])
            .arg(format!("--version=={MDBOOK}"))
            .arg("--root")
            .arg(dir)
            .status()
            .context("running cargo install")?;
        ensure!(status.success(), "cargo install mdbook: {status}");
        Ok(())
    })?;
    Ok(made.join("bin/mdbook"))
}

/// Copies a folder; pages are completed on the way.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let page = read(&path)?;
            // mdbook looks for the files that the summary names.
            let page = match path.ends_with("SUMMARY.md") {
                true => page,
                false => fill::fill(&page),
            };
            std::fs::write(&to, page).with_context(|| format!("writing {}", to.display()))?;
        } else {
            std::fs::copy(&path, &to).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
        let mut pages = blocks::pages().unwrap();
        let broken = links::broken(&pages).unwrap();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        // Pages that no table of contents lists are not rendered.
        let mut there = Vec::new();
        find(&root().join("docs/src"), &mut there);
        pages.retain(|page| page.starts_with(root().join("docs/src")));
        there.retain(|page| !page.ends_with("SUMMARY.md") && !pages.contains(page));
        assert!(there.is_empty(), "not in SUMMARY.md: {there:?}");
        // Files outside the book are not rendered with it.
        for page in &pages {
            for (line, target) in links::targets(&read(page).unwrap()) {
                let file = target.split('#').next().unwrap_or("");
                let path = page.parent().unwrap().join(file).canonicalize().unwrap();
                assert!(
                    path.starts_with(root().join("docs").canonicalize().unwrap()),
                    "{}:{line}: {target} is outside of the book",
                    page.display()
                );
            }
        }
    }

    #[test]
    fn every_contract_says_what_a_contract_has_to_say() {
        let abi = root().join("docs/src/abi");
        let overview = read(&abi.join("README.md")).unwrap();
        let rows = overview.lines().filter(|line| line.starts_with("| "));
        let contracts: Vec<String> = rows
            .flat_map(links::targets)
            .map(|(_, page)| page)
            .collect();
        assert_eq!(contracts.len(), 8, "{contracts:?}");
        for page in contracts {
            let text = read(&abi.join(&page)).unwrap();
            for part in ["A version bump", "The unknown", "If a kexec fails"] {
                assert!(text.contains(&format!("\n## {part}\n")), "{page}: {part}");
            }
            // A picture, or the properties in the form of the specification; and the frozen parts.
            assert!(text.contains("```"), "{page}");
            assert!(
                text.contains("Frozen") || page == "chosen.md",
                "{page}: what is frozen"
            );
        }
    }

    #[test]
    fn links_of_all_other_pages_lead_somewhere() {
        let listed = Command::new("git")
            .args(["ls-files", "*.md"])
            .current_dir(root())
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let pages: Vec<PathBuf> = listed.lines().map(|page| root().join(page)).collect();
        assert!(pages.len() > 25, "{listed}");
        let mut broken = links::broken(&pages).unwrap();
        for page in &pages {
            for (line, path) in links::paths(&read(page).unwrap()) {
                if !root().join(&path).exists() {
                    broken.push(format!("{}:{line}: there is no {path}", page.display()));
                }
            }
        }
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    fn find(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                find(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                out.push(path);
            }
        }
    }
}
