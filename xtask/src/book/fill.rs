//! Completes pages when they are rendered: adds the help of every verb, from the definition of the command line, and
//! points their links to the places where mdbook puts pages.

use std::fmt::Write as _;

use kho_cases::pages::links;
use kho_dist::pages;

/// Mark in a page that the help of every verb replaces.
const COMMANDS: &str = "<!-- every verb -->";

/// Returns the page with the help of every verb in place of its marks, and with links that fit the rendered book.
pub fn fill(page: &str) -> String {
    let page = links_to_indexes(page);
    if page.contains(COMMANDS) {
        page.replace(COMMANDS, &commands())
    } else {
        page
    }
}

/// Changes links to a `README.md` into links to `index.md`: mdbook makes `index.html` of a `README.md` and does not
/// change links to it.
fn links_to_indexes(page: &str) -> String {
    let mut out = page.to_owned();
    for (_, target) in links::targets(page) {
        let (file, fragment) = target.split_once('#').unwrap_or((&target, ""));
        if let Some(folder) = file.strip_suffix("README.md") {
            let hash = if fragment.is_empty() { "" } else { "#" };
            out = out.replace(
                &format!("]({target})"),
                &format!("]({folder}index.md{hash}{fragment})"),
            );
        }
    }
    out
}

fn commands() -> String {
    let mut command = pages::command();
    command.build();
    let mut out = String::new();
    for verb in command.get_subcommands_mut() {
        let name = verb.get_name().to_owned();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "## kho {name}\n\n```text\n{}\n```\n",
            verb.render_long_help().to_string().trim_end()
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_help() {
        let page = fill("before\n<!-- every verb -->\nafter");
        for verb in pages::command().get_subcommands() {
            assert!(page.contains(&format!("## kho {}\n", verb.get_name())));
        }
        assert!(page.starts_with("before\n") && page.ends_with("\nafter"));
        assert!(page.contains("Usage: kho load [OPTIONS] [KERNEL]"));
        assert_eq!(fill("nothing"), "nothing");
    }

    #[test]
    fn links_lead_to_rendered_pages() {
        assert_eq!(
            fill("[a](README.md) [b](../x/README.md#c) `[no](README.md)` [d](MY-README)"),
            "[a](index.md) [b](../x/index.md#c) `[no](index.md)` [d](MY-README)"
        );
    }
}
